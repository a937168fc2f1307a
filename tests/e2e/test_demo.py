"""The demo model: deterministic answers with usage, streamed or not."""
import json
import time

from harness import Options, chat, events_of, smoke

CHAT = "/v1/chat/completions"


def text_of(answer):
    parts = []
    for _, data in events_of(answer.body):
        if data != "[DONE]":
            for choice in json.loads(data)["choices"]:
                parts.append(choice["delta"].get("content") or "")
    return "".join(parts)


@smoke
def test_the_demo_model_answers_the_same_each_time_streamed_or_not(t):
    weir = t.weir("demo:?delay=5ms&pace=1ms")
    body = chat(model="demo", stream_options={"include_usage": True})
    first, second = weir.stream(body=body), weir.stream(body=body)
    assert first.status == 200 and first.header("content-type").startswith("text/event-stream")
    assert text_of(first) == text_of(second) and len(text_of(first)) > 20
    plain = weir.ask("POST", CHAT, None, chat(False, model="demo"))
    message = plain.json()["choices"][0]
    assert message["message"]["content"] == text_of(first) and message["finish_reason"] == "stop"
    events = [json.loads(d) for _, d in events_of(first.body)[:-1]]
    assert events_of(first.body)[-1][1] == "[DONE]"
    assert events[-1]["choices"] == [] and events[-1]["usage"] == plain.json()["usage"]
    assert all(e["object"] == "chat.completion.chunk" and e["model"] == "demo" for e in events)
    usage = plain.json()["usage"]
    assert usage["prompt_tokens"] > 0 and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    other = weir.stream(body={**body, "messages": [{"role": "user", "content": "Something else"}]})
    assert text_of(other), "any chat is answered"


def test_the_demo_model_is_there_without_any_configuration(t):
    weir = t.weir()
    answer = weir.stream(body=chat(model="demo"))
    assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")
    assert weir.ask("GET", "/v1/models").json()["data"]


def test_the_demo_model_keeps_its_pace(t):
    weir = t.weir("demo:?delay=300ms&pace=20ms&tokens=10")
    start = time.monotonic()
    answer = weir.stream(body=chat(model="demo"))
    assert time.monotonic() - start >= 0.3 + 9 * 0.02
    assert time.monotonic() - start < 30 * Options.slow
    assert 10 <= len(events_of(answer.body)) <= 14


def test_leaving_the_demo_model_stops_it(t):
    weir = t.weir("demo:?delay=10ms&pace=100ms")
    for body in (chat(model="demo"), chat(False, model="demo")):
        with weir.connect() as wire:
            wire.request("POST", CHAT, {"x-request-id": f"left-{len(json.dumps(body))}"}, body)
            time.sleep(0.3)
        assert weir.request_line(f"left-{len(json.dumps(body))}")["status"] in (200, 499)


def test_max_tokens_are_heeded(t):
    weir = t.weir("demo:?delay=1ms&pace=1ms")
    answer = weir.ask("POST", CHAT, None, chat(False, model="demo", max_tokens=3))
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["usage"]["completion_tokens"] == 3
