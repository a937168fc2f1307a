// What test_openai.py does with Node's openai package: node openai.mjs SCRIPT BASE-URL KEY; prints one JSON object.
import OpenAI from "openai";

const [script, baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20000 });
const body = { model: script === "helper" ? "demo" : "fake-1", messages: [{ role: "user", content: "Hello" }] };

const scripts = {
  async stream() {
    const told = { text: "", finish: null, usage: null };
    const stream = await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      told.text += chunk.choices[0]?.delta?.content ?? "";
      told.finish = chunk.choices[0]?.finish_reason ?? told.finish;
      told.usage = chunk.usage ?? told.usage;
    }
    return told;
  },

  async unasked() {
    const told = { events: 0, empty: 0, finish: null };
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
      told.events++;
      told.empty += chunk.choices.length === 0;
      told.finish = chunk.choices[0].finish_reason;
    }
    return told;
  },

  async plain() {
    const answer = await client.chat.completions.create(body);
    return { content: answer.choices[0].message.content, request_id: answer._request_id };
  },

  async rest() {
    const models = await client.models.list();
    const embeddings = await client.embeddings.create({ model: "fake-1", input: "Hello" });
    const response = await client.responses.create({ model: "fake-1", input: "Hello" });
    return { models: models.data.map((m) => m.id), embedding: embeddings.data[0].embedding, response: response.output_text };
  },

  async abort() {
    let events = 0;
    const stream = await client.chat.completions.create({ ...body, stream: true });
    for await (const _ of stream) {
      if (++events === 3) stream.controller.abort();
    }
    return { events };
  },

  async error() {
    try {
      await client.chat.completions.create(body);
    } catch (e) {
      return { name: e.constructor.name, status: e.status, code: e.code, message: e.message, request_id: e.requestID };
    }
    return {};
  },

  async broken() {
    let events = 0;
    try {
      const stream = await client.chat.completions.create({ ...body, stream: true });
      for await (const _ of stream) events++;
    } catch (e) {
      return { events, error: e.constructor.name, message: e.message };
    }
    return { events };
  },

  async helper() {
    const stream = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } });
    const final = await stream.finalChatCompletion();
    return { content: final.choices[0].message.content, usage: final.usage };
  },
};

console.log(JSON.stringify(await scripts[script]()));
