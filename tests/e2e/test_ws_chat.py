"""Conversations on /ws/chat: what is generated, and for whom."""
import json
import statistics
import time

from harness import KEY, Options, chat, limit, mono_us, smoke, wait_until
from test_leaving import bound_ms
from websocket import WebSocket
from ws_frames import BINARY, TEXT, frame

HELLO = [{"role": "user", "content": "Hello"}]


def ask(ws, ident, **more):
    ws.text(json.dumps({"id": ident, "model": "fake-1", "messages": HELLO, **more}))


def event(ws):
    return json.loads(ws.read_text())


def collect(ws, ident, deltas=None):
    """All events of one generation, to its end; other ids' are passed over."""
    mine = [] if deltas is None else deltas
    while True:
        told = event(ws)
        if told["id"] == ident:
            mine.append(told)
            if told["event"] != "delta":
                return mine


def texts(events):
    return "".join(c["delta"].get("content") or "" for e in events if e["event"] == "delta" for c in e["data"]["choices"])


# ---------------------------------------------------------------- generations

@smoke
def test_a_generation_is_the_backends_chunks_byte_for_byte(t):
    fake, weir = t.pair("events=20,usage,comments")
    with WebSocket(weir) as ws:
        ask(ws, "a b")
        raw = []
        while True:
            text = ws.read_text()
            raw.append(text)
            if json.loads(text)["event"] != "delta":
                break
        told = [json.loads(text) for text in raw]
    body = weir.stream(body=chat()).body.decode()
    wanted = [line[6:] for line in body.split("\n") if line.startswith("data: {")]
    prefix = '{"id":"a b","event":"delta","data":'
    got = [text[len(prefix):-1] for text in raw[:-1]]
    assert all(text.startswith(prefix) for text in raw[:-1])
    assert [_same(x) for x in got] == [_same(x) for x in wanted], (got[:2], wanted[:2])
    assert told[-1] == {"id": "a b", "event": "done", "usage": told[-1]["usage"]} and told[-1]["usage"]["completion_tokens"] == 20
    assert fake.last().json() == {"model": "fake-1", "messages": HELLO, "stream": True}


def _same(chunk):
    """A chunk without the id that the fake counts up, as text."""
    data = json.loads(chunk)
    return chunk.replace(json.dumps(data["id"]), "ID")


def test_what_the_client_wrote_goes_on_as_it_is(t):
    fake, weir = t.pair()
    with WebSocket(weir) as ws:
        ws.text('{ "temperature" : 1.50e0 , "id":7, "model":"fake-1","stream":false,"messages": [ {"role":"user","content":"\\u00e9"} ],"x":{"id":1} , "cancel" : false }')
        assert collect(ws, 7)[-1]["event"] == "done"
        assert fake.last().body == (b'{"stream":true, "temperature" : 1.50e0 ,  "model":"fake-1","messages": [ {"role":"user",'
                                    b'"content":"\\u00e9"} ],"x":{"id":1} }'), fake.last().body
    last = fake.last()
    assert last.target == "/v1/chat/completions" and last.header("content-type") == "application/json", last.headers
    assert last.header("x-request-id") and last.header("traceparent") and last.header("upgrade") is None
    assert not any(name.lower().startswith("sec-websocket") for name, _ in last.headers), last.headers


@smoke
def test_several_run_at_once_and_each_event_says_whose_it_is(t):
    fake, weir = t.pair("events=100000,pace_ms=5")
    names = ['1', '"1"', '2.5', '"\\u00fc"']
    with WebSocket(weir) as ws:
        for name in names:
            ask(ws, json.loads(name))
        seen = {name: [] for name in names}
        while min(len(x) for x in seen.values()) < 10:  # all of them are under way
            told = event(ws)
            seen[json.dumps(told["id"])].append(told["event"])
        assert weir.metric("weir_streams_in_flight") == 4
        for name in names:
            assert set(seen[name]) == {"delta"}, seen
            ws.text('{"id":%s,"cancel":true}' % name)
            assert collect(ws, json.loads(name))[-1]["error"]["code"] == "cancelled"
        fake.wait_aborts(4)
        fake.behave("events=5")
        for i in range(4):
            ask(ws, i)
        ends = {}
        while len(ends) < 4:
            told = event(ws)
            if told["event"] != "delta":
                ends[told["id"]] = told["event"]
        assert ends == {0: "done", 1: "done", 2: "done", 3: "done"}
    wait_until(lambda: weir.metric("weir_streams_in_flight") == 0, "no streams")
    wait_until(lambda: weir.metric("weir_requests_total{route=\"/v1/chat/completions\".*status=\"200\"") == 4, "four answers")


def test_an_id_can_be_used_again_but_not_twice_at_once(t):
    fake, weir = t.pair("events=3,pace_ms=50")
    with WebSocket(weir) as ws:
        ask(ws, 1)
        ask(ws, 1)
        refused = [x for x in (event(ws) for _ in range(2)) if x["id"] is None]
        assert not refused or refused[0]["error"]["code"] == "id_in_use", refused
        assert collect(ws, 1)[-1]["event"] == "done"
        ask(ws, 1)
        assert collect(ws, 1)[-1]["event"] == "done"
    assert fake.stats()["requests"] == 2


def test_no_more_at_once_than_configured(t):
    fake = t.fake("events=100000,pace_ms=100")
    weir = t.weir(fake, config="websocket: { generations: 3 }\n")
    with WebSocket(weir) as ws:
        for i in range(200):
            ask(ws, i)
        refused = 0
        while refused < 197:
            told = event(ws)
            if told["event"] == "error":
                assert (told["status"], told["error"]["code"]) == (429, "too_many_generations"), told
                refused += 1
        ws.text('{"id":0,"cancel":true}')
        assert collect(ws, 0)[-1]["error"]["code"] == "cancelled"
        ask(ws, "next")
        assert event(ws)["id"] is not None
        fake.wait_requests(4)
    assert fake.stats()["requests"] == 4
    fake.wait_aborts(4)


# ---------------------------------------------------------------- leaving

@smoke
def test_cancel_stops_the_backend_at_once(t):
    for behave in ("events=100000,pace_ms=5", "delay_ms=60000", "first_ms=60000", "events=9,stall_after=3"):
        fake, weir = t.pair(behave)
        took = []
        with WebSocket(weir) as ws:
            ask(ws, "other")
            fake.wait_requests(1)
            for turn in range(5):
                ask(ws, turn)
                fake.wait_requests(2 + turn)
                time.sleep(0.03)
                left = mono_us()
                ws.text(json.dumps({"id": turn, "cancel": True}))
                stats = fake.wait_aborts(turn + 1)
                took.append((stats["last_abort_us"] - left) / 1000)
                assert collect(ws, turn)[-1]["error"]["code"] == "cancelled"
            assert fake.stats()["aborts"] == 5
        assert statistics.median(took) <= bound_ms(), (behave, took)
        fake.wait_aborts(6)  # closing ends the other


@smoke
def test_closing_the_socket_cancels_what_runs(t):
    for how in ("close", "drop", "reset"):
        fake, weir = t.pair("events=100000,pace_ms=5")
        ws = WebSocket(weir)
        for i in range(4):
            ask(ws, i)
        fake.wait_requests(4)
        for _ in range(12):
            event(ws)
        left = mono_us()
        if how == "close":
            ws.close()
        elif how == "drop":
            ws.drop()
        else:
            ws.wire.reset()
        stats = fake.wait_aborts(4)
        assert (stats["last_abort_us"] - left) / 1000 <= bound_ms() * 2, how
        wait_until(lambda: weir.metric("weir_requests_in_flight") <= 1, "nothing to be under way")
        wait_until(lambda: len([x for x in weir.log_lines() if x.get("end") == "client_left"]) == 4, "four lines")


# ---------------------------------------------------------------- conversations

def test_weir_keeps_the_conversation(t):
    fake, weir = t.pair("events=2", config='chat: { model: fake-1, system: "Be \\"brief\\"." }\n')
    with WebSocket(weir) as ws:
        ws.text('{"id":1,"message":"one"}')
        first = collect(ws, 1)
        assert fake.last().json() == {
            "model": "fake-1", "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "system", "content": 'Be "brief".'}, {"role": "user", "content": "one"}]}
        assert first[-1]["usage"]["total_tokens"] > 0
        ws.text('{"id":2,"message":"tw\\u00f6 \\"x\\"","temperature":0.5,"model":"fake-2"}')
        collect(ws, 2)
        assert fake.last().json() == {
            "model": "fake-2", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5,
            "messages": [{"role": "system", "content": 'Be "brief".'}, {"role": "user", "content": "one"},
                         {"role": "assistant", "content": texts(first)}, {"role": "user", "content": 'twö "x"'}]}
        # One that fails, or is cancelled, is no part of it; nor is a request with messages of its own.
        fake.behave("events=5,cut_after=2")
        ws.text('{"id":3,"message":"three"}')
        assert collect(ws, 3)[-1]["event"] == "error"
        fake.behave("events=2")
        ask(ws, 4)
        collect(ws, 4)
        ws.text('{"id":5,"message":"five"}')
        collect(ws, 5)
        assert [m["content"] for m in fake.last().json()["messages"] if m["role"] == "user"] == ["one", 'twö "x"', "five"]
    with WebSocket(weir) as other:  # each socket has its own
        other.text('{"id":1,"message":"one"}')
        collect(other, 1)
        assert len(fake.last().json()["messages"]) == 2


def test_the_conversation_is_bounded(t):
    fake, weir = t.pair("events=1", config="chat: { model: fake-1, history: 1KiB }\n")
    with WebSocket(weir) as ws:
        for i in range(30):
            ws.text(json.dumps({"id": i, "message": f"{i:02d}" + "x" * 100}))
            assert collect(ws, i)[-1]["event"] == "done"
        said = [m["content"][:2] for m in fake.last().json()["messages"] if m["role"] == "user"]
        assert said == [f"{i:02d}" for i in range(30 - len(said), 30)] and 2 < len(said) < 9, said
        ws.text(json.dumps({"id": 1, "message": "y" * 5000}))  # does not fit at all
        collect(ws, 1)
        ws.text(json.dumps({"id": 1, "message": "z"}))
        collect(ws, 1)
        assert [m["content"] for m in fake.last().json()["messages"]] == ["z"]


# ---------------------------------------------------------------- errors

def test_bad_messages_get_an_error_event(t):
    cases = [('{"id":1}', 1, 422, "invalid_message", "message"),
             ('{"message":"x"}', None, 422, "invalid_message", "id"),
             ('{"id":null,"message":"x"}', None, 422, "invalid_message", "id"),
             ('{"id":[1],"message":"x"}', None, 422, "invalid_message", "id"),
             ('{"id":"%s","message":"x"}' % ("x" * 127), None, 422, "invalid_message", "id"),
             ('{"id":1,"message":5}', 1, 422, "invalid_message", "message"),
             ('{"id":1,"message":"x","messages":[]}', 1, 422, "invalid_message", "message"),
             ('{"id":1,"cancel":1}', 1, 422, "invalid_message", "cancel"),
             ('{"id":1,"id":2,"message":"x"}', 2, 422, "invalid_message", "id"),
             ('{"id":1,"message":"x","stream":true,"stream":false}', 1, 422, "invalid_message", "stream"),
             ('{"id":1,"cancel":true}', 1, 404, "unknown_id", "id"),
             ('{"id":1,"message":"x"}', 1, 400, None, "model"),
             ('{"id":1,"messages":"x","model":"demo"}', 1, 400, None, "messages"),
             ('{"id":1,"messages":[],"model":"demo"}', 1, 400, None, "messages"),
             ('{"id":1,"message":"x","model":7}', 1, 400, None, "model"),
             ('{"id":1,"message":"x","model":"none"}', 1, 404, "model_not_found", "model")]
    weir = t.weir(config="backends: [{name: d, url: 'demo:', models: [demo]}]\n")
    with WebSocket(weir) as ws:
        for text, ident, status, code, param in cases:
            ws.text(text)
            told = event(ws)
            assert (told["id"], told["event"], told["status"]) == (ident, "error", status), (text, told)
            assert (told["error"]["code"], told["error"]["param"]) == (code, param) and told["error"]["message"], (text, told)
            if status == 422:
                assert told["detail"][0]["loc"] == ["body", param], told
        ws.text('{"id":1,"message":"x","model":"demo","max_tokens":1}')
        assert collect(ws, 1)[-1]["event"] == "done"


def test_what_is_no_json_is_told_and_then_closed(t):
    weir = t.weir("demo:")
    with WebSocket(weir) as ws:
        for wrong in ("", "nope", "{", '{"id":1,}'):
            ws.text(wrong)
            told = event(ws)
            assert told["id"] is None and told["error"]["code"] == "invalid_json", told
        ws.text('{"id":1,"cancel":true}')  # a good one begins the count anew
        event(ws)
        for wrong in ("[]", "7", '"x"', "nul", "\0"):
            ws.text(wrong)
            assert event(ws)["status"] == 400
        assert ws.read_close()[0] == 1008
    with WebSocket(weir) as ws:
        ws.send(BINARY, b'{"id":1,"cancel":true}')
        assert ws.read_close()[0] == 1003


def test_failures_of_the_backend_are_told(t):
    fake, weir = t.pair()
    with WebSocket(weir) as ws:
        for behave, status, code in (("status=429,retry_after=3", 429, None), ("status=500", 500, None),
                                     ("drop=1", 502, "backend_failed"), ("garbage", 502, "backend_failed"),
                                     ("events=9,cut_after=3", 502, "backend_failed"),
                                     ("events=9,reset_after=3", 502, "backend_failed"),
                                     ("events=9,cut_inside=3", 502, "backend_failed"),
                                     ("events=9,end_after=3", 502, "backend_failed"),
                                     ("events=9,error_event=3", 502, None)):
            fake.behave(behave)
            ask(ws, behave)
            told = collect(ws, behave)
            assert told[-1]["event"] == "error" and told[-1]["status"] == status, (behave, told[-1])
            assert told[-1]["error"]["message"] and (code is None or told[-1]["error"]["code"] == code), (behave, told[-1])
        fake.behave("events=3,split")
        ask(ws, 1)
        assert collect(ws, 1)[-1]["event"] == "done"
        fake.behave("events=3,bytes,crlf")
        ask(ws, 1)
        assert len(collect(ws, 1)) >= 4
    gone = t.weir("http://127.0.0.1:9")
    with WebSocket(gone) as ws:
        ask(ws, 1)
        told = event(ws)
        assert (told["status"], told["error"]["code"]) == (502, "backend_unreachable"), told


def test_events_that_are_large_arrive_whole(t):
    _, weir = t.pair("events=3,big_line=300000")
    with WebSocket(weir) as ws:
        ask(ws, 1)
        told = collect(ws, 1)
        assert told[-1]["event"] == "done" and max(len(json.dumps(x)) for x in told) > 290000


# ---------------------------------------------------------------- keys, limits, cache

def test_keys_hold_for_each_generation(t):
    config = f"""
keys:
  - {{ name: alice, key: "{KEY}", models: ["fake-1"] }}
  - {{ name: bob, key: "{KEY}b", routes: [/v1/chat/completions] }}
"""
    fake = t.fake("events=2,usage")
    weir = t.weir(fake, config=config)
    with WebSocket(weir, headers={"authorization": f"Bearer {KEY}"}) as ws:
        ask(ws, 1)
        assert collect(ws, 1)[-1]["event"] == "done"
        ask(ws, 2, model="fake-2")
        told = event(ws)
        assert (told["status"], told["error"]["code"]) == (403, "model_not_allowed"), told
    assert weir.ask("GET", "/ws/chat", {"authorization": f"Bearer {KEY}b"}).status == 403
    assert weir.metric(r'tokens_total\{key="alice".*completion') == 2
    assert fake.last().header("authorization") is None


def test_an_open_gateway_passes_the_clients_credential_on(t):
    fake, weir = t.pair("events=1")
    for headers in ({"authorization": "Bearer own-key"}, {"sec_websocket_protocol": "openai-insecure-api-key.own-key"}):
        with WebSocket(weir, headers=headers) as ws:
            ask(ws, 1)
            collect(ws, 1)
        assert fake.last().header("authorization") == "Bearer own-key"


@smoke
def test_each_generation_passes_the_limits(t):
    fake = t.fake("events=1")
    weir = t.weir(fake, config="limits: { all: { limit: 3/minute } }\n")
    with WebSocket(weir) as ws, WebSocket(weir) as other:  # opening counts as nothing
        for i in range(5):
            ask(ws if i % 2 == 0 else other, i)
            told = collect(ws if i % 2 == 0 else other, i)[-1]
            if i < 3:
                assert told["event"] == "done", told
            else:
                assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded"), told
                assert 0 < told["retry_after"] <= 60
    assert weir.stream(body=chat()).status == 429  # the same count as HTTP's
    assert fake.stats()["requests"] == 3


def test_max_streams_counts_generations_and_gives_them_back(t):
    fake = t.fake("events=100000,pace_ms=20")
    weir = t.weir(fake, config="max_streams: 2\n")
    with WebSocket(weir) as ws:
        for i in (1, 2):
            ask(ws, i)
        fake.wait_requests(2)
        ask(ws, 3)
        assert collect(ws, 3)[-1]["status"] == 429
        ws.text('{"id":1,"cancel":true}')
        collect(ws, 1)
        ask(ws, 4)
        fake.wait_requests(3)
    fake.wait_aborts(3)
    with WebSocket(weir) as ws:
        ask(ws, 1)
        assert event(ws)["event"] == "delta"


def test_the_cache_answers_generations(t):
    fake = t.fake("events=5,usage")
    weir = t.weir(fake, config="cache: { ttl: 1m }\n")
    with WebSocket(weir) as ws:
        ask(ws, 1)
        first = collect(ws, 1)
        ask(ws, 2)
        second = collect(ws, 2)
        assert [x["data"] for x in first[:-1]] == [x["data"] for x in second[:-1]]
        assert first[-1]["usage"] == second[-1]["usage"] is not None
    answer = weir.stream(body=chat())  # stored for HTTP too
    assert answer.header("x-cache") == "HIT" and fake.stats()["requests"] == 1
    assert weir.metric(r'tokens_total\{.*completion') == 5
    lines = wait_until(lambda: [x for x in weir.log_lines() if x.get("cache")][:3], "lines")
    assert [x["cache"] for x in lines][:2] == ["miss", "hit"]


def test_lines_of_the_log_name_the_socket(t):
    _, weir = t.pair("events=3,usage")
    with WebSocket(weir, headers={"x_request_id": "sock-1"}) as ws:
        ask(ws, 1)
        collect(ws, 1)
    line = wait_until(lambda: next((x for x in weir.log_lines() if x.get("socket") == "sock-1"), None), "the line")
    assert line["msg"] == "request" and line["status"] == 200 and line["end"] == "finished" and line["model"] == "fake-1", line
    assert line["completion_tokens"] == 3 and line["request_id"] != "sock-1" and line["route"] == "/v1/chat/completions", line


# ---------------------------------------------------------------- clients that do not read

@smoke
@limit(120)
def test_a_client_that_does_not_read_pauses_its_producers_and_is_closed_with_1013(t):
    fake = t.fake("flood,events=100000000,size=2000")
    weir = t.weir(fake, config="send_timeout: 2s\n")
    slow, lively = WebSocket(weir, receive_buffer=4096), WebSocket(weir)
    for i in range(3):
        ask(slow, i)
    fake.wait_requests(3)
    time.sleep(1)
    sent = fake.stats()["bytes_sent"] if "bytes_sent" in fake.stats() else None
    before = weir.metric("process_resident_memory_bytes")
    fake.behave("events=2")
    ask(lively, 1)
    assert collect(lively, 1)[-1]["event"] == "done"  # others do not notice
    time.sleep(0.5)
    if sent is not None:
        assert fake.stats()["bytes_sent"] - sent < 1 << 20, "it goes on producing for nobody"
    wait_until(lambda: weir.metric(r'closes_total\{.*code="1013"') == 1, "the close", 30)
    fake.wait_aborts(3)
    assert weir.metric("process_resident_memory_bytes") - before < 16 << 20 or not Options.strict
    ask(lively, 2)
    assert collect(lively, 2)[-1]["event"] == "done"
    slow.drop()
    lively.drop()


@limit(120)
def test_a_client_that_reads_slowly_gets_everything(t):
    fake, weir = t.pair("flood,events=3000,size=2000")
    with WebSocket(weir, receive_buffer=4096) as ws:
        ask(ws, 1)
        ask(ws, 2)
        fake.wait_requests(2)
        time.sleep(1)
        fake.behave("delay_ms=3000,events=2")  # one that has no answer yet when the others go on
        ask(ws, 3)
        fake.wait_requests(3)
        done, deltas = 0, 0
        while done < 3:
            told = event(ws)
            done += told["event"] == "done"
            deltas += told["event"] == "delta"
            assert told["event"] != "error", told
            if deltas % 500 == 0:
                time.sleep(0.05)
        assert deltas >= 6000


# ---------------------------------------------------------------- the end of the gateway

@smoke
def test_running_generations_end_before_the_socket_is_closed_with_1001(t):
    _, weir = t.pair("events=60,pace_ms=20")
    with WebSocket(weir) as ws, WebSocket(weir) as idle:
        ask(ws, 1)
        event(ws)
        weir.signal()
        assert idle.read_close()[0] == 1001
        time.sleep(0.1)
        ask(ws, 2)
        told, done = [], False
        while not done:
            told.append(event(ws))
            done = told[-1]["event"] == "done"
        assert any(x["id"] == 2 and x["error"]["code"] == "gateway_ending" for x in told if x["event"] == "error"), told
        assert told[-1]["id"] == 1 and sum(x["event"] == "delta" for x in told) >= 59
        assert ws.read_close() == (1001, "the gateway is ending")


@smoke
def test_the_drain_timeout_cuts_generations_off(t):
    fake = t.fake("events=100000,pace_ms=20")
    weir = t.weir(fake, args=["--drain-timeout", "500ms"])
    with WebSocket(weir) as ws:
        ask(ws, 1)
        event(ws)
        weir.signal()
        assert ws.read_close(skip=True)[0] == 1001
        weir.wait(20)
        fake.wait_aborts(1)


def test_fragments_and_generations_mix(t):
    _, weir = t.pair("events=50,pace_ms=2")
    with WebSocket(weir) as ws:
        ask(ws, 1)
        second = json.dumps({"id": 2, "model": "fake-1", "messages": HELLO}).encode()
        ws.raw(frame(TEXT, second[:10], fin=False))
        for _ in range(10):
            event(ws)
        ws.raw(frame(0, second[10:]))
        ends = []
        while len(ends) < 2:
            told = event(ws)
            if told["event"] != "delta":
                ends.append((told["id"], told["event"]))
        assert sorted(ends) == [(1, "done"), (2, "done")]
