#include "backends/demo_reply.h"
#include <stdio.h>

#define TO_STRING_(x) #x
#define TO_STRING(x) TO_STRING_(x)
#define CREATED TO_STRING(DEMO_CREATED)
#define MODEL_OBJECT "{\"id\":\"demo\",\"object\":\"model\",\"created\":" CREATED ",\"owned_by\":\"weir\"}"

/* How one dialect tells an answer. `open`, `token` and `close` make events, `plain` the JSON document. */
struct form {
    void (*open)(struct demo_reply *reply, struct strbuf *out);
    void (*token)(struct demo_reply *reply, struct span token, struct strbuf *out);
    void (*close)(struct demo_reply *reply, struct strbuf *out);
    void (*plain)(struct demo_reply *reply, struct strbuf *out);
};

static struct span answer_of(const struct demo_reply *reply)
{
    return strbuf_span(&reply->request->answer);
}

static const char *finish_reason(const struct demo_reply *reply)
{
    return reply->request->cut ? "length" : "stop";
}

static void put_u64(struct strbuf *out, const char *before, uint64_t value)
{
    strbuf_puts(out, before);
    strbuf_u64(out, value);
}

/* ---- chat and completions (OpenAI) ---- */

static void put_openai_usage(const struct demo_reply *reply, struct strbuf *out)
{
    const struct demo_request *request = reply->request;
    put_u64(out, "{\"prompt_tokens\":", request->prompt);
    put_u64(out, ",\"completion_tokens\":", request->tokens);
    put_u64(out, ",\"total_tokens\":", request->prompt + request->tokens);
    strbuf_puts(
        out,
        ",\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}");
}

static void put_openai_head(const struct demo_reply *reply, const char *id, const char *object, struct strbuf *out)
{
    strbuf_puts(out, "{\"id\":\"");
    strbuf_puts(out, id);
    strbuf_puts(out, reply->request->id);
    strbuf_puts(out, "\",\"object\":\"");
    strbuf_puts(out, object);
    strbuf_puts(out, "\",\"created\":" CREATED ",\"model\":");
    strbuf_add(out, strbuf_span(&reply->request->model));
    strbuf_puts(out, ",\"system_fingerprint\":\"fp_demo\",\"choices\":[");
}

/* With include_usage every chunk but the one that has it says "usage":null (WIRE 4.1). */
static void end_chunk(const struct demo_reply *reply, struct strbuf *out)
{
    strbuf_puts(out, reply->request->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

static void put_done(const struct demo_reply *reply, const char *id, const char *object, struct strbuf *out)
{
    if (reply->request->include_usage) {
        strbuf_puts(out, "data: ");
        put_openai_head(reply, id, object, out);
        strbuf_puts(out, "],\"usage\":");
        put_openai_usage(reply, out);
        strbuf_puts(out, "}\n\n");
    }
    strbuf_puts(out, "data: [DONE]\n\n");
}

static void begin_chat(const struct demo_reply *reply, struct strbuf *out)
{
    strbuf_puts(out, "data: ");
    put_openai_head(reply, "chatcmpl-", "chat.completion.chunk", out);
}

static void chat_open(struct demo_reply *reply, struct strbuf *out)
{
    begin_chat(reply, out);
    strbuf_puts(out,
                "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,"
                "\"finish_reason\":null}");
    end_chunk(reply, out);
}

static void chat_token(struct demo_reply *reply, struct span token, struct strbuf *out)
{
    begin_chat(reply, out);
    strbuf_puts(out, "{\"index\":0,\"delta\":{\"content\":");
    strbuf_json(out, token);
    strbuf_puts(out, "},\"logprobs\":null,\"finish_reason\":null}");
    end_chunk(reply, out);
}

static void chat_close(struct demo_reply *reply, struct strbuf *out)
{
    begin_chat(reply, out);
    strbuf_printf(out, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"%s\"}", finish_reason(reply));
    end_chunk(reply, out);
    put_done(reply, "chatcmpl-", "chat.completion.chunk", out);
}

static void chat_plain(struct demo_reply *reply, struct strbuf *out)
{
    put_openai_head(reply, "chatcmpl-", "chat.completion", out);
    strbuf_puts(out, "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    strbuf_json(out, answer_of(reply));
    strbuf_printf(out,
                  ",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"%s\"}],\"usage\":", finish_reason(reply));
    put_openai_usage(reply, out);
    strbuf_putc(out, '}');
}

static void put_text_choice(struct span text, const char *finish, struct strbuf *out)
{
    strbuf_puts(out, "{\"index\":0,\"text\":");
    strbuf_json(out, text);
    strbuf_puts(out, ",\"logprobs\":null,\"finish_reason\":");
    strbuf_json_or_null(out, finish);
    strbuf_putc(out, '}');
}

static void put_text_chunk(struct demo_reply *reply, struct span text, const char *finish, struct strbuf *out)
{
    strbuf_puts(out, "data: ");
    put_openai_head(reply, "cmpl-", "text_completion", out);
    put_text_choice(text, finish, out);
    end_chunk(reply, out);
}

static void completions_open(struct demo_reply *reply, struct strbuf *out)
{
    (void)reply;
    (void)out;
}

static void completions_token(struct demo_reply *reply, struct span token, struct strbuf *out)
{
    put_text_chunk(reply, token, NULL, out);
}

static void completions_close(struct demo_reply *reply, struct strbuf *out)
{
    put_text_chunk(reply, SPAN(""), finish_reason(reply), out);
    put_done(reply, "cmpl-", "text_completion", out);
}

static void completions_plain(struct demo_reply *reply, struct strbuf *out)
{
    put_openai_head(reply, "cmpl-", "text_completion", out);
    put_text_choice(answer_of(reply), finish_reason(reply), out);
    strbuf_puts(out, "],\"usage\":");
    put_openai_usage(reply, out);
    strbuf_putc(out, '}');
}

/* ---- responses (WIRE 4.4) ---- */

static void put_output_part(struct span text, struct strbuf *out)
{
    strbuf_puts(out, "{\"type\":\"output_text\",\"text\":");
    strbuf_json(out, text);
    strbuf_puts(out, ",\"annotations\":[],\"logprobs\":[]}");
}

static void put_output_item(const struct demo_reply *reply, bool done, struct strbuf *out)
{
    const char *status = !done ? "in_progress" : reply->request->cut ? "incomplete" : "completed";
    strbuf_printf(out, "{\"id\":\"msg_%s\",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",\"content\":[",
                  reply->request->id, status);
    if (done)
        put_output_part(answer_of(reply), out);
    strbuf_puts(out, "]}");
}

static void put_response(const struct demo_reply *reply, bool done, struct strbuf *out)
{
    const struct demo_request *request = reply->request;
    const char *status = !done ? "in_progress" : request->cut ? "incomplete" : "completed";
    strbuf_printf(out,
                  "{\"id\":\"resp_%s\",\"object\":\"response\",\"created_at\":" CREATED ",\"status\":\"%s\",\"model\":",
                  request->id, status);
    strbuf_add(out, strbuf_span(&request->model));
    strbuf_puts(out, ",\"error\":null,\"incomplete_details\":");
    strbuf_puts(out, done && request->cut ? "{\"reason\":\"max_output_tokens\"}" : "null");
    strbuf_puts(out,
                ",\"instructions\":null,\"metadata\":{},\"parallel_tool_calls\":true,\"temperature\":1.0,\"top_p\":1.0,"
                "\"tool_choice\":\"auto\",\"tools\":[],\"output\":[");
    if (done)
        put_output_item(reply, true, out);
    strbuf_puts(out, "],\"usage\":");
    if (done) {
        put_u64(out, "{\"input_tokens\":", request->prompt);
        put_u64(out, ",\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":", request->tokens);
        put_u64(out, ",\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":",
                request->prompt + request->tokens);
        strbuf_puts(out, "}}");
    } else {
        strbuf_puts(out, "null}");
    }
}

static void begin_response_event(struct demo_reply *reply, const char *type, struct strbuf *out)
{
    strbuf_printf(out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%llu,", type, type,
                  (unsigned long long)reply->_sequence++);
}

static void put_response_event(struct demo_reply *reply, const char *type, bool done, struct strbuf *out)
{
    begin_response_event(reply, type, out);
    strbuf_puts(out, "\"response\":");
    put_response(reply, done, out);
    strbuf_puts(out, "}\n\n");
}

static void put_item_event(struct demo_reply *reply, const char *type, bool done, struct strbuf *out)
{
    begin_response_event(reply, type, out);
    strbuf_puts(out, "\"output_index\":0,\"item\":");
    put_output_item(reply, done, out);
    strbuf_puts(out, "}\n\n");
}

static void begin_text_event(struct demo_reply *reply, const char *type, struct strbuf *out)
{
    begin_response_event(reply, type, out);
    strbuf_printf(out, "\"item_id\":\"msg_%s\",\"output_index\":0,\"content_index\":0,", reply->request->id);
}

static void responses_open(struct demo_reply *reply, struct strbuf *out)
{
    put_response_event(reply, "response.created", false, out);
    put_response_event(reply, "response.in_progress", false, out);
    put_item_event(reply, "response.output_item.added", false, out);
    begin_text_event(reply, "response.content_part.added", out);
    strbuf_puts(out, "\"part\":");
    put_output_part(SPAN(""), out);
    strbuf_puts(out, "}\n\n");
}

static void responses_token(struct demo_reply *reply, struct span token, struct strbuf *out)
{
    begin_text_event(reply, "response.output_text.delta", out);
    strbuf_puts(out, "\"delta\":");
    strbuf_json(out, token);
    strbuf_puts(out, ",\"logprobs\":[]}\n\n");
}

static void responses_close(struct demo_reply *reply, struct strbuf *out)
{
    begin_text_event(reply, "response.output_text.done", out);
    strbuf_puts(out, "\"text\":");
    strbuf_json(out, answer_of(reply));
    strbuf_puts(out, ",\"logprobs\":[]}\n\n");
    begin_text_event(reply, "response.content_part.done", out);
    strbuf_puts(out, "\"part\":");
    put_output_part(answer_of(reply), out);
    strbuf_puts(out, "}\n\n");
    put_item_event(reply, "response.output_item.done", true, out);
    put_response_event(reply, reply->request->cut ? "response.incomplete" : "response.completed", true, out);
}

static void responses_plain(struct demo_reply *reply, struct strbuf *out)
{
    put_response(reply, true, out);
}

/* ---- messages (Anthropic; WIRE 5.4) ---- */

static void put_message_head(const struct demo_reply *reply, struct strbuf *out)
{
    strbuf_printf(out, "{\"id\":\"msg_%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", reply->request->id);
    strbuf_add(out, strbuf_span(&reply->request->model));
    strbuf_puts(out, ",\"content\":[");
}

static void put_message_usage(const struct demo_reply *reply, uint64_t output, struct strbuf *out)
{
    put_u64(out, "{\"input_tokens\":", reply->request->prompt);
    put_u64(out, ",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":", output);
    strbuf_putc(out, '}');
}

static const char *stop_reason(const struct demo_reply *reply)
{
    return reply->request->cut ? "max_tokens" : "end_turn";
}

static void messages_open(struct demo_reply *reply, struct strbuf *out)
{
    strbuf_puts(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    put_message_head(reply, out);
    strbuf_puts(out, "],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
    put_message_usage(reply, reply->request->tokens != 0, out);
    strbuf_puts(out, "}}\n\n"
                     "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
                     "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
                     "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

static void messages_token(struct demo_reply *reply, struct span token, struct strbuf *out)
{
    (void)reply;
    strbuf_puts(out, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
                     "\"delta\":{\"type\":\"text_delta\",\"text\":");
    strbuf_json(out, token);
    strbuf_puts(out, "}}\n\n");
}

static void messages_close(struct demo_reply *reply, struct strbuf *out)
{
    strbuf_puts(out, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    strbuf_printf(out,
                  "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\","
                  "\"stop_sequence\":null},\"usage\":",
                  stop_reason(reply));
    put_message_usage(reply, reply->request->tokens, out);
    strbuf_puts(out, "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

static void messages_plain(struct demo_reply *reply, struct strbuf *out)
{
    if (reply->request->count_only) {
        put_u64(out, "{\"input_tokens\":", reply->request->prompt);
        strbuf_putc(out, '}');
        return;
    }
    put_message_head(reply, out);
    strbuf_puts(out, "{\"type\":\"text\",\"text\":");
    strbuf_json(out, answer_of(reply));
    strbuf_printf(out, "}],\"stop_reason\":\"%s\",\"stop_sequence\":null,\"usage\":", stop_reason(reply));
    put_message_usage(reply, reply->request->tokens, out);
    strbuf_putc(out, '}');
}

/* ---- embeddings (WIRE 4.5) ---- */

/* Float32, little-endian, as RFC 4648 §4 base64: what both SDKs ask for. */
static void put_base64(const struct demo_vector *vector, struct strbuf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t bytes[DEMO_DIMENSIONS * 4 + 2] = {0};
    for (int i = 0; i < DEMO_DIMENSIONS; i++) {
        uint32_t bits;
        memcpy(&bits, &vector->at[i], sizeof(bits));
        for (int k = 0; k < 4; k++)
            bytes[i * 4 + k] = (uint8_t)(bits >> (8 * k));
    }
    for (int i = 0; i < DEMO_DIMENSIONS * 4; i += 3) {
        uint32_t group = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
        int left = DEMO_DIMENSIONS * 4 - i;
        strbuf_putc(out, digits[group >> 18]);
        strbuf_putc(out, digits[group >> 12 & 63]);
        strbuf_putc(out, left > 1 ? digits[group >> 6 & 63] : '=');
        strbuf_putc(out, left > 2 ? digits[group & 63] : '=');
    }
}

static void embeddings_plain(struct demo_reply *reply, struct strbuf *out)
{
    const struct demo_request *request = reply->request;
    strbuf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < request->vector_count; i++) {
        put_u64(out, i == 0 ? "{\"object\":\"embedding\",\"index\":" : ",{\"object\":\"embedding\",\"index\":", i);
        strbuf_puts(out, request->base64 ? ",\"embedding\":\"" : ",\"embedding\":[");
        if (request->base64)
            put_base64(&request->vectors[i], out);
        else
            for (int k = 0; k < DEMO_DIMENSIONS; k++)
                strbuf_printf(out, k == 0 ? "%.9g" : ",%.9g", (double)request->vectors[i].at[k]);
        strbuf_puts(out, request->base64 ? "\"}" : "]}");
    }
    strbuf_puts(out, "],\"model\":");
    strbuf_add(out, strbuf_span(&request->model));
    put_u64(out, ",\"usage\":{\"prompt_tokens\":", request->prompt);
    put_u64(out, ",\"total_tokens\":", request->prompt);
    strbuf_puts(out, "}}");
}

/* ---- the way through ---- */

static const struct form forms[] = {
    [DIALECT_CHAT] = {chat_open, chat_token, chat_close, chat_plain},
    [DIALECT_COMPLETIONS] = {completions_open, completions_token, completions_close, completions_plain},
    [DIALECT_RESPONSES] = {responses_open, responses_token, responses_close, responses_plain},
    [DIALECT_MESSAGES] = {messages_open, messages_token, messages_close, messages_plain},
    [DIALECT_EMBEDDINGS] = {NULL, NULL, NULL, embeddings_plain},
};

void demo_reply_init(struct demo_reply *reply, const struct demo_request *request)
{
    *reply = (struct demo_reply){.request = request, ._rest = strbuf_span(&request->answer)};
}

bool demo_reply_next(struct demo_reply *reply, struct strbuf *out)
{
    const struct demo_request *request = reply->request;
    const struct form *form = &forms[request->dialect];
    if (request->status != 200) {
        struct dialect_error error = {
            .status = request->status, .code = request->code, .param = request->param, .message = request->message};
        dialect_error_body(dialect_get(request->dialect), &error, out);
        return false;
    }
    if (!request->stream) {
        form->plain(reply, out);
        return false;
    }
    if (reply->_sent == 0)
        form->open(reply, out);
    struct span token = demo_token(&reply->_rest);
    if (token.len != 0) {
        form->token(reply, token, out);
        reply->_sent++;
    }
    if (reply->_rest.len != 0)
        return true;
    form->close(reply, out);
    return false;
}

/* What follows the last "/models" in a path; false if there is none. */
static bool models_path(struct span path, struct span *id)
{
    struct span models = SPAN("/models");
    for (struct span rest = path; rest.len >= models.len; rest = span_skip(rest, 1)) {
        *id = span_skip(rest, models.len);
        if (span_starts(rest, models) && (id->len == 0 || id->base[0] == '/')) {
            *id = span_skip(*id, 1);
            return true;
        }
    }
    return false;
}

int demo_reply_models(struct span method, struct span path, struct strbuf *out)
{
    struct span id = SPAN_NONE;
    bool found = (span_eq(method, SPAN("GET")) || span_eq(method, SPAN("HEAD"))) && models_path(path, &id);
    if (found && id.len == 0) {
        strbuf_puts(out, "{\"object\":\"list\",\"data\":[" MODEL_OBJECT "]}");
        return 200;
    }
    if (found && span_eq(id, SPAN("demo"))) {
        strbuf_puts(out, MODEL_OBJECT);
        return 200;
    }
    struct dialect_error error = {.status = 404,
                                  .code = found ? "model_not_found" : NULL,
                                  .param = found ? "model" : NULL,
                                  .message = found ? "The demo backend has one model, 'demo'."
                                                   : "The demo model answers no such request."};
    dialect_error_body(dialect_get(DIALECT_NONE), &error, out);
    return 404;
}
