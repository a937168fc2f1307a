"""`usage: ask`: weir asks backends for the tokens of a stream, and its clients get what they asked for."""
from harness import KEY, Truncated, chat, limit, smoke, wait_until
from test_cache import ask as cached_ask, state
from test_limits import CHAT, body_of, limited, post, spent, wait_spent
from test_openai import node

COMPLETIONS = "/v1/completions"
TOKENS = "t: { limit: 100000 tokens/hour }"
ASK = {"stream_options": {"include_usage": True}}


def asking(t, usage="ask", behave="", more=""):
    fake = t.fake(behave)
    return fake, t.weir(config=f'backends:\n  - {{ name: a, url: "{fake.url}", usage: {usage}, models: {{ m: fake-1, n: n }} }}\n{more}')


def stream(weir, behave="", path=CHAT, **more):
    body = chat(model="m", **more) if path == CHAT else {"model": "m", "prompt": "x", "stream": True, **more}
    answer = weir.ask("POST", path, {"x-fake": behave} if behave else None, body)
    assert answer.status == 200, answer
    return answer.body


@smoke
def test_a_stream_is_settled_with_the_backends_usage_and_shown_without(t):
    fake, weir = limited(t, [TOKENS])
    total = 0
    for events in (0, 1, 30):
        answer = post(weir, body_of(max_tokens=500), f"events={events}", {"x-request-id": f"r-{events}"})
        assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n") and b"usage" not in answer.body, answer.body
        assert fake.last().json()["stream_options"] == {"include_usage": True}
        total += 7 + events
        wait_spent(weir, 100000, [total])
        line = weir.request_line(f"r-{events}")
        assert (line["prompt_tokens"], line["completion_tokens"], line["events"]) == (7, events, events + 3), line
        assert line["bytes"] == len(answer.body), line


def test_what_the_client_gets_is_what_it_would_get_without_asking(t):
    fake, weir = asking(t)
    shapes = ["events=5", "events=5,crlf", "events=3,bytes", "events=3,bytes,crlf", "events=5,split", "events=5,split,crlf",
              "events=4,comments", "events=4,length_body", "events=4,close_body,crlf", "events=3000,flood", "events=2,big_line=200000",
              "events=40,size=3000,pace_ms=1"]
    for path in (CHAT, COMPLETIONS):
        for shape in shapes:
            body = chat(model="m") if path == CHAT else {"model": "m", "prompt": "x", "stream": True}
            plain = fake.ask("POST", path, {"x-fake": shape}, body)
            assert b"usage" not in plain.body
            assert stream(weir, shape, path) == plain.body, (path, shape)
            asked = fake.ask("POST", path, {"x-fake": shape}, {**body, **ASK})
            assert b"usage" in asked.body
            assert stream(weir, shape, path, **ASK) == asked.body, (path, shape)


def test_the_question_is_spliced_into_the_body(t):
    fake, weir = asking(t)
    said = '"messages" : [ {"role":"user","content":"\\u00e4 \\"stream_options\\":null"} ]'
    question = '"stream_options":{"include_usage":true}'
    cases = [
        ('{ SAID, "stream":true,"model": "MODEL" }', '{' + question + ', SAID, "stream":true,"model": "MODEL" }'),
        ('{"stream_options":null,SAID, "stream":true,"model":"MODEL"}', '{' + question + ',SAID, "stream":true,"model":"MODEL"}'),
        ('{SAID,"stream":true,"model":"MODEL","stream_options":{ "x":1}}',
         '{SAID,"stream":true,"model":"MODEL","stream_options":{"include_usage":true, "x":1}}'),
        ('{SAID,"model":"MODEL","stream":true,"stream_options" : {"include_usage" : false}}',
         '{SAID,"model":"MODEL","stream":true,"stream_options" : {"include_usage" : true}}'),
        *[(same, same) for same in (
            '{SAID,"model":"MODEL","stream":true,"stream_options":{"include_usage":true}}',
            '{SAID,"model":"MODEL","stream":true,"stream_options":"x"}',
            '{SAID,"model":"MODEL","stream":true,"stream_options":{},"stream_options":{}}',
            '{SAID,"model":"MODEL","stream":false}',
            '{SAID,"model":"MODEL"}')]]
    for model, renamed in (("n", "n"), ("m", "fake-1")):
        for body, wanted in cases:
            body = body.replace("SAID", said).replace("MODEL", model)
            assert weir.ask("POST", CHAT, {"content-type": "application/json"}, body).status == 200
            last = fake.last()
            assert last.body.decode() == wanted.replace("SAID", said).replace("MODEL", renamed), last.body
            assert int(last.header("content-length")) == len(last.body)


def test_other_routes_and_backends_that_are_only_read_are_not_asked(t):
    fake, weir = asking(t)
    for path, body in (("/v1/messages", {"model": "m", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "x"}]}),
                       ("/v1/responses", {"model": "m", "input": "x", "stream": True})):
        direct = fake.ask("POST", path, {"x-fake": "events=3"}, body)
        assert weir.ask("POST", path, {"x-fake": "events=3"}, body).body == direct.body, path
        assert "stream_options" not in fake.last().json(), path
    for more in ("limits:\n  " + TOKENS + "\n", ""):
        fake, weir = asking(t, "read", "usage", more)
        assert b'"choices":[],"usage"' in stream(weir), "what a backend sends unasked stays"
        assert "stream_options" not in fake.last().json()
    fake, weir = limited(t, ["r: { limit: 100/hour }"])
    stream(weir)
    assert "stream_options" not in fake.last().json(), "tokens do not count"


def test_a_backend_that_sends_usage_anyway_or_never(t):
    _, weir = asking(t, behave="usage,events=4")
    assert b"usage" not in stream(weir)
    assert b'"usage"' in stream(weir, **ASK)
    fake, weir = asking(t, more="limits:\n  " + TOKENS + "\n")
    answer = post(weir, body_of(model="m", max_tokens=50), "status=400")
    assert answer.status == 400 and fake.stats()["requests"] == 1, "a backend that does not know the question: not tried again"


@smoke
def test_streams_that_break_or_are_left_count_their_events(t):
    fake, weir = limited(t, [TOKENS])
    body = body_of(max_tokens=5000)
    guess, total = len(body) // 4, 0
    for behave in ("events=50,cut_after=20", "events=50,end_after=20", "events=50,cut_inside=20", "events=50,end_inside=20"):
        with weir.connect() as wire:
            wire.request("POST", CHAT, {"x-fake": behave, "content-type": "application/json"}, body)
            try:
                text = wire.response().body
            except Truncated as cut:  # inside of an event
                text = cut.body
        assert b"[DONE]" not in text
        before = total
        wait_until(lambda: before + guess + 18 <= spent(weir, 100000) <= before + guess + 25, "its events to be charged")
        total = spent(weir, 100000)
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=9999,stall_after=30", "content-type": "application/json"}, body)
        text = b""
        for piece in wire.pieces(wire.head()):
            text += piece
            if text.count(b"\n\n") >= 31:
                break
    fake.wait_aborts()
    wait_until(lambda: total + guess + 30 <= spent(weir, 100000) <= total + guess + 35, "what was generated to be charged")


def test_the_cache_keeps_what_each_kind_of_client_sees(t):
    fake, weir = asking(t, behave="events=5,crlf,split", more="cache: { ttl: 10m }\nlimits:\n  " + TOKENS + "\n")
    seen = {}
    for turn in ("MISS", "HIT", "HIT"):
        for name, more in (("no", {}), ("yes", ASK), ("false", {"stream_options": {"include_usage": False}})):
            answer = cached_ask(weir, chat(model="m", **more))
            assert state(answer) == turn, (name, turn)
            assert (b'"choices":[],"usage"' in answer.body) == (name == "yes"), (name, answer.body)
            assert seen.setdefault(name, answer.body) == answer.body
    assert fake.stats()["requests"] == 3
    wait_spent(weir, 100000, [3 * 12])
    assert weir.metric(r'^weir_tokens_total{.*kind="completion"}') == 15


def test_the_demo_model_is_asked_too(t):
    weir = t.weir("demo:?delay=1ms&pace=1ms&tokens=9", config="limits:\n  " + TOKENS + "\n")
    answer = weir.stream(body=chat(model="demo"), headers={"x-request-id": "demo"})
    assert b'"choices":[]' not in answer.body and b'"usage":null' in answer.body and answer.body.endswith(b"data: [DONE]\n\n")
    assert weir.request_line("demo")["completion_tokens"] == 9 == answer.body.count(b'"content":"') - 1


@limit(150)
def test_nodes_openai_package_sees_no_more_than_it_asked_for(t):
    fake, weir = t.pair(keys=[KEY], config="limits:\n  " + TOKENS + "\n")
    fake.behave("events=12,bytes")
    told = node(t, "unasked", weir)
    assert told["events"] == 14 and told["empty"] == 0 and told["finish"] == "stop", told
    told = node(t, "stream", weir)
    assert told["usage"]["completion_tokens"] == 12, told


def test_messages_count_by_the_user_in_their_metadata(t):
    _, weir = limited(t, ["u: { limit: 2/hour, by: user }"])

    def status(user_id, **more):
        return weir.ask("POST", "/v1/messages", None, {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}],
                                                       "metadata": {"user_id": user_id}, **more}).status
    assert [status("a"), status("b"), status("a", user="b"), status("a"), status("b"), status("b")] == [200, 200, 200, 429, 200, 429]
    assert [status(None), status(None, metadata=None), status(None, metadata={})] == [200, 200, 429], "nobody in particular"


def test_whole_numbers_count_however_they_are_written(t):
    _, weir = limited(t, ["t: { limit: 1000 tokens/hour }"])
    for text, status in (("10.0", 200), ("1e2", 200), ("90e1", 200), ("1.0e3", 429), ("1001.0", 429), ("1e300", 429), ("10e400", 429),
                         ("0.1e5", 429), ("1000.5", 200), ("-1e3", 200)):
        body = body_of(stream=False, max_tokens=7).replace('"max_tokens": 7', f'"max_tokens": {text}')
        assert text in body
        answer = post(weir, body)
        assert answer.status == status, (text, answer)
        if text == "1e2":
            assert answer.header("x-ratelimit-remaining-tokens") == str(1000 - 12 - 100 - len(body) // 4), answer


def test_a_hit_that_is_not_counted_does_not_show_as_counted(t):
    _, weir = t.pair(config="cache: { ttl: 10m }\nlimits:\n  r: { limit: 3/hour }\ncount_hits: false\n")
    seen = [cached_ask(weir, chat(False)) for _ in range(4)]
    assert [x.header("x-ratelimit-remaining") for x in seen] == ["2"] * 4, seen
    assert cached_ask(weir, chat(False, seed=1)).header("x-ratelimit-remaining") == "1"
