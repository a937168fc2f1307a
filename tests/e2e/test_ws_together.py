"""WebSockets and what other parts of the gateway do meanwhile: reloads, limits and the cache over Redis."""
import json
import time

from harness import KEY, smoke, wait_until
from test_cache_redis import written
from test_realtime import opened, patient, refused
from test_redis_limits import settings, wait_up
from test_reload import reload
from test_ws_chat import ask, collect, event, texts
from websocket import WebSocket
from ws_server import Server


# ---------------------------------------------------------------- reloads

@smoke
def test_a_conversation_keeps_its_backends_through_a_reload(t):
    old, new = t.fake(), t.fake()
    weir = t.weir(config=f"backends: [{{name: a, url: '{old.url}'}}]\nkeys: [{{name: alice, key: {KEY}}}]\n",
                  args=["--workers", "1"])
    key = {"authorization": f"Bearer {KEY}"}
    with WebSocket(weir, headers=key) as before:
        ask(before, 1)
        assert collect(before, 1)[-1]["event"] == "done"
        reload(weir, f"backends: [{{name: b, url: '{new.url}'}}]\nkeys: [{{name: alice, key: {KEY}}}]\n")
        with WebSocket(weir, headers=key) as after:
            for ws, number in ((before, 2), (after, 3), (before, 4)):
                ask(ws, number)
                assert collect(ws, number)[-1]["event"] == "done"
    assert (old.stats()["requests"], new.stats()["requests"]) == (3, 1)


def test_realtime_sessions_over_tls_through_reloads(t):
    cert = t.authority.issue("realtime", "DNS:localhost", "IP:127.0.0.1")
    with Server(cert=cert) as server:
        config = (f"backends: [{{ name: rt, url: 'https://localhost:{server.port}', tls: {{ ca: {t.authority.ca} }}, "
                  f"{patient()} }}]\n")
        weir = t.weir(config=config, args=["--workers", "1"])
        sessions = []
        for turn in range(6):
            sessions.append(opened(weir))
            if turn % 2:
                sessions.pop(0).drop()
            reload(weir, config + f"limit_memory: 64MiB\nsend_timeout: {30 + turn}s\n")
            for ws in sessions:
                ws.text(f"turn {turn}")
                assert ws.read_text() == f"turn {turn}"
        for ws in sessions:
            assert ws.close(1000) == (1000, "")
        wait_until(lambda: weir.metric("^weir_backend_requests_in_flight") == 0, "the places to be given back")


# ---------------------------------------------------------------- places

def test_a_session_has_a_place_of_its_backend(t):
    with Server() as server:
        weir = t.weir(config=f"backends: [{{ name: rt, url: '{server.url}', max_concurrent: 1 }}]\n")
        with opened(weir) as ws:
            busy = refused(weir)
            assert busy.status == 503 and busy.json()["error"]["code"] == "backends_busy", busy
            ws.close(1000)
            wait_until(lambda: weir.metric("^weir_backend_requests_in_flight") == 0, "the place to be given back")
        with opened(weir) as again:
            again.text("x")
            assert again.read_text() == "x"


# ---------------------------------------------------------------- Redis

@smoke
def test_generations_count_in_redis(t):
    redis = t.redis()
    weirs = [t.weir("demo:?tokens=3", config="limits: {few: {limit: 3/hour, by: constant}}\n" + settings(redis))
             for _ in range(2)]
    for weir in weirs:
        wait_up(weir)
    with WebSocket(weirs[0]) as one, WebSocket(weirs[1]) as two:
        for ws, number in ((one, 1), (two, 2), (one, 3)):
            ask(ws, number)
            assert collect(ws, number)[-1]["event"] == "done"
        ask(two, 4)
        refusal = collect(two, 4)[-1]
        assert refusal["event"] == "error" and refusal["status"] == 429 and refusal["retry_after"] > 0, refusal
    assert weirs[0].metric("^weir_limit_fallbacks_total") == 0


def test_generations_and_queries_are_answered_from_redis(t):
    redis, fake = t.redis(), t.fake()
    weirs = [t.weir(fake, config="cache: {ttl: 10m}\n" + settings(redis)) for _ in range(2)]
    for weir in weirs:
        wait_up(weir)
    told = []
    for number, weir in enumerate((weirs[0], weirs[1], weirs[1])):
        with WebSocket(weir) as ws:
            ask(ws, number, behave="long", user=str(number), max_tokens=2000)
            told.append(collect(ws, number))
        if number == 0:
            written(weir, 1)
    assert all(events[-1]["event"] == "done" for events in told)
    assert texts(told[0]) == texts(told[1]) == texts(told[2]) != ""
    assert fake.stats()["requests"] == 1
    query = "/chat?message=Hello&model=fake-1"
    first = weirs[0].ask("GET", query)
    written(weirs[0], 2)
    second = weirs[1].ask("GET", query)
    assert first.status == second.status == 200 and b"event: done" in second.body
    assert second.header("x-cache") == "HIT" and fake.stats()["requests"] == 2


@smoke
def test_generations_that_end_while_redis_is_asked(t):
    redis = t.redis()
    weir = t.weir("demo:?tokens=3",
                  config="limits: {few: {limit: 5/hour, by: constant}}\n" + settings(redis, timeout="5s"))
    wait_up(weir)
    redis.freeze()
    with WebSocket(weir) as ws, WebSocket(weir) as gone:
        ask(ws, 1)
        ask(gone, 2)
        time.sleep(0.3)
        ws.text('{"id": 1, "cancel": true}')
        assert event(ws)["status"] == 499
        gone.drop()
        wait_until(lambda: weir.metric("^weir_requests_in_flight") <= 1, "the generations to be gone")
        redis.thaw()
        wait_up(weir)
        for number in range(3, 8):  # what Redis counted for the two was given back
            ask(ws, number)
            assert collect(ws, number)[-1]["event"] == "done", number


@smoke
def test_messages_wait_in_order_while_redis_is_asked(t):
    redis = t.redis()
    with Server() as server:
        weir = t.weir(config=f"backends: [{{ name: rt, url: '{server.url}' }}]\n"
                             "limits: {talk: {limit: 6/hour, per: message, routes: [/v1/realtime]}}\n"
                             + settings(redis, timeout="5s"))
        wait_up(weir)
        with opened(weir) as ws, opened(weir) as gone:
            ws.text("0")
            assert ws.read_text() == "0"
            redis.freeze()
            gone.text("counted")
            for number in range(1, 4):
                ws.text(str(number))
            time.sleep(0.3)
            gone.drop()  # which is seen once it is decided: until then nothing is read from it
            redis.thaw()
            wait_until(lambda: weir.metric("^weir_websockets{") == 1, "the other to be gone")
            assert [ws.read_text() for _ in range(3)] == ["1", "2", "3"]
            ws.text("4")
            assert ws.read_text() == "4"
            ws.text("too many")
            assert json.loads(ws.read_text())["error"]["code"] == "rate_limit_exceeded"
            assert ws.close(1000) == (1000, "")
