"""Limits over Redis: the same as in memory, counted together by all replicas, and what is left of them without it."""
import concurrent.futures
import contextlib
import signal
import socket
import time

import test_limits
from harness import Options, chat, limit, smoke, wait_until
from redis_server import encode

CHAT = "/v1/chat/completions"
PATIENT = "5s"  # a busy machine must not make these scenarios fall back to memory

# What is about the memory store itself, or about messages at the start.
ONLY_IN_MEMORY = {"test_decisions_in_metrics_and_log",
                  "test_fresh_clients_by_the_thousand_neither_grow_the_store_nor_free_a_limit",
                  "test_max_streams_hold_when_the_store_is_full", "test_a_limit_that_does_not_parse_stops_the_start"}


def settings(redis, db=0, timeout=PATIENT):
    return f"redis: {{ url: 'redis://127.0.0.1:{redis.port}/{db}', timeout: {timeout} }}\n"


def is_up(weir):
    return weir.ask("GET", "/readyz").json()["redis"] == "up"


def wait_up(weir, timeout=10.0):
    wait_until(lambda: is_up(weir), f"redis to be up\n{weir.log()[-800:]}", timeout)


def over_redis(scenario):
    """The scenario, with each of its gateways over a database of its own."""
    def run(t):
        redis, plain, weirs = t.redis(), t.weir, []

        def weir(*backends, config=None, **options):
            made = plain(*backends, config=(config or "") + settings(redis, len(weirs) % 16), **options)
            if not options.get("fail"):
                weirs.append(made)
                wait_up(made)
            return made
        t.weir = weir
        scenario(t)
        for one in weirs:
            assert not one.alive() or one.metric("^weir_limit_fallbacks_total") == 0, one.metrics()
    for mark in ("seconds", "smoke"):
        if hasattr(scenario, mark):
            setattr(run, mark, getattr(scenario, mark))
    return run


for name, scenario in list(vars(test_limits).items()):
    if name.startswith("test_") and callable(scenario) and name not in ONLY_IN_MEMORY:
        globals()[name + "_over_redis"] = over_redis(scenario)


# ---------------------------------------------------------------- replicas

def replicas(t, redis, count, config, *backends, timeout=PATIENT):
    weirs = [t.weir(*(backends or ("demo:?tokens=2",)), config=config + settings(redis, timeout=timeout))
             for _ in range(count)]
    for weir in weirs:
        wait_up(weir)
    return weirs


def status_of(weir, **more):
    return weir.ask("POST", CHAT, None, chat(False, **more)).status


def hammer(weirs, each):
    """So many requests to each gateway, as fast as they go; the statuses."""
    def run(weir):
        with weir.connect() as wire:
            found = []
            for _ in range(each):
                wire.request("POST", CHAT, None, chat(False))
                found.append(wire.response().status)
            return found
    with concurrent.futures.ThreadPoolExecutor(3 * len(weirs)) as pool:
        runs = [pool.submit(run, weir) for weir in weirs for _ in range(3)]
        return [status for run in runs for status in run.result()]


@smoke
@limit(90)
def test_replicas_together_admit_what_the_limit_says(t):
    for strategy in ("moving_window", "fixed_window", "sliding_window_counter"):
        weirs = replicas(t, t.redis(), 3, f"limits:\n  a: {{ limit: 100/hour, by: constant, strategy: {strategy} }}\n")
        found = hammer(weirs, 25)
        assert sorted(set(found)) == [200, 429] and found.count(200) == 100, (strategy, found.count(200))
        assert sum(w.metric("^weir_limit_fallbacks_total") for w in weirs) == 0
        for weir in weirs:
            weir.stop()


def test_replicas_together_reserve_tokens(t):
    fake = t.fake()
    weirs = replicas(t, t.redis(), 2, "limits:\n  a: { limit: 1000 tokens/hour, by: constant }\n", fake)
    with weirs[0].connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "delay_ms=60000"}, chat(False, max_tokens=600))
        fake.wait_requests(1)
        assert status_of(weirs[1], max_tokens=500) == 429, "the other replica knows of the reservation"
    wait_until(lambda: status_of(weirs[1], max_tokens=900) == 200, "what was not used to be given back", 20)


# Keeps Redis busy for so many seconds, as one with slow commands is.
BUSY = """local function now() local t = redis.call('TIME') return t[1] + t[2] / 1e6 end
local start = now() while now() < start + ARGV[1] do end return 1"""


def test_a_refusal_does_not_overtake_what_was_given_back(t):
    redis, fake = t.redis(), t.fake()
    config = test_limits.KEYS.replace("alice, ", "alice, max_streams: 1, ") + "limits:\n" + \
        "  a: { limit: 1000 tokens/hour, by: api_key }\n"
    one, two = replicas(t, redis, 2, config, fake, timeout="8s")
    alice, bob = test_limits.bearer(test_limits.ALICE), test_limits.bearer(test_limits.BOB)

    def wait_in_flight(count):  # one more asks for metrics
        wait_until(lambda: two.metric("^weir_requests_in_flight") == count + 1, "the request to wait for redis")
    redis.ask("SET", "large", bytes(1 << 20))
    with contextlib.ExitStack() as stack:
        first, other, second = (stack.enter_context(weir.connect()) for weir in (one, two, two))
        busy, *readers = (stack.enter_context(socket.create_connection(("127.0.0.1", redis.port))) for _ in range(101))
        first.request("POST", CHAT, alice | {"x-fake": "delay_ms=700"}, chat(False, max_tokens=800))
        fake.wait_requests(1)
        # Redis takes what is ready in this order, and only then looks what else has become so. It will find alice's
        # next question behind bob's, before what the first replica gives back. Large replies, which it writes after
        # those to the second replica, leave that the time to ask again before Redis looks.
        redis.freeze()
        busy.sendall(encode("EVAL", BUSY, 0, 2))
        for reader in readers:
            reader.sendall(encode("GET", "large"))
        other.request("POST", CHAT, bob, chat(False))
        wait_in_flight(1)
        redis.thaw()
        assert first.response().status == 200
        second.request("POST", CHAT, alice, chat(False, max_tokens=800))
        wait_in_flight(2)
        assert second.response().status == 200
        assert other.response().status == 200
    assert one.metric("^weir_limit_fallbacks_total") + two.metric("^weir_limit_fallbacks_total") == 0


@limit(150)
def test_a_killed_replica_frees_its_streams_and_reservations(t):
    redis, fake = t.redis(), t.fake()
    one, two = replicas(t, redis, 2, "max_streams: 1\nlimits:\n  a: { limit: 1000 tokens/hour, by: constant }\n", fake)
    wire = one.connect()
    wire.request("POST", CHAT, {"x-fake": "events=100000,pace_ms=10"}, chat(max_tokens=900))
    fake.wait_requests(1)
    held = time.monotonic()
    while time.monotonic() < held + 18:  # longer than a place lasts that nobody renews
        assert status_of(two, max_tokens=10) == 429
        time.sleep(0.5)
    one.signal(9)
    one.expected_status = -9
    killed = time.monotonic()
    wait_until(lambda: status_of(two, max_tokens=10) == 200, "the place to be free", 30)
    assert status_of(two, max_tokens=900) == 429, "what was reserved lapses later"
    wait_until(lambda: status_of(two, max_tokens=900) == 200, "the reservation to lapse", 60)
    assert time.monotonic() - killed < 75 * Options.slow
    wire.close()


def test_nothing_stays_in_redis(t):
    redis = t.redis()
    config = "max_streams: 5\nlimits:\n" + "".join(
        f"  {s}: {{ limit: '5/second; 500 tokens/second', by: constant, strategy: {s} }}\n"
        for s in ("moving_window", "fixed_window", "sliding_window_counter"))
    weir, = replicas(t, redis, 1, config)
    for _ in range(4):
        status_of(weir, max_tokens=10)
    keys = redis.ask("KEYS", "*")
    assert keys and all(key.startswith(b"weir:") and len(key) < 64 for key in keys), keys
    for key in keys:
        assert 0 < redis.ask("PTTL", key) <= 125000, key


def test_what_clients_choose_is_no_part_of_a_key(t):
    redis = t.redis()
    weir, = replicas(t, redis, 1, "limits:\n  u: { limit: 1/hour, by: user }\n  m: { limit: 100/hour, by: model }\n")
    names = ["a\r\nFLUSHALL\r\n", "weir:l:0", "*1\r\n$8\r\nFLUSHALL\r\n", "x" * 100000, "a\u0000b", "{tag}", "\u00e9" * 300,
             "]] redis.call('FLUSHALL') --", ""]
    for name in names:
        assert status_of(weir, user=name) == 200, name
    for name in names:
        assert status_of(weir, user=name) == 429, name
    keys = redis.ask("KEYS", "*")
    assert len(keys) == len(names) + 2 and all(len(key) == 39 or key == b"weir:gateways" for key in keys), keys
    for key in keys:
        assert key == b"weir:gateways" or int(key[7:], 16) >= 0


# ---------------------------------------------------------------- without Redis

@smoke
def test_without_redis_each_replica_counts_its_part(t):
    redis = t.redis()
    weirs = replicas(t, redis, 2, "limits:\n  a: { limit: 10/hour, by: constant }\n")
    for weir in weirs:
        wait_until(lambda weir=weir: weir.metric("^weir_limit_gateways$") == 2, "the replicas to have counted", 30)
    redis.kill()
    for weir in weirs:
        wait_until(lambda weir=weir: not is_up(weir), "redis to be down")
        assert [status_of(weir) for _ in range(7)] == [200] * 5 + [429] * 2
        assert weir.metric('^weir_limit_fallbacks_total{reason="down"}') == 7
    redis.start()
    for weir in weirs:
        wait_up(weir)
    assert [status_of(weirs[0]) for _ in range(6)] == [200] * 6
    assert [status_of(weirs[1]) for _ in range(6)] == [200] * 4 + [429] * 2


@smoke
def test_on_redis_failure_allow_deny_memory(t):
    redis = t.redis()
    weir, = replicas(t, redis, 1, "limits:\n"
                     "  a: { limit: 2/hour, by: constant, on_redis_failure: allow, routes: [/v1/chat/completions] }\n"
                     "  d: { limit: 2/hour, by: constant, on_redis_failure: deny, routes: [/v1/completions] }\n"
                     "  m: { limit: 2/hour, by: constant, on_redis_failure: memory, routes: [/v1/messages] }\n")

    def ask(path):
        return weir.ask("POST", path, None, chat(False, prompt="x", max_tokens=5))
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages"):
        assert [ask(path).status for _ in range(3)] == [200, 200, 429], path
    redis.kill()
    wait_until(lambda: not is_up(weir), "redis to be down")
    assert [ask("/v1/chat/completions").status for _ in range(4)] == [200] * 4
    denied = ask("/v1/completions")
    assert denied.status == 503 and denied.header("retry-after") == "1", denied
    assert denied.json()["error"]["code"] == "limits_unavailable"
    assert [ask("/v1/messages").status for _ in range(3)] == [200, 200, 429]


@smoke
def test_a_redis_that_is_late_delays_nobody_for_long(t):
    redis = t.redis()
    weir, = replicas(t, redis, 1, "limits:\n  a: { limit: 1000/hour, by: constant }\n", timeout="50ms")
    assert status_of(weir) == 200
    redis.freeze()
    began = time.monotonic()
    assert hammer([weir], 20) == [200] * 60
    assert time.monotonic() - began < 30 * Options.slow
    assert weir.metric("^weir_limit_fallbacks_total") >= 1
    redis.thaw()
    wait_up(weir)
    before = weir.metric("^weir_limit_fallbacks_total")
    wait_until(lambda: status_of(weir) == 200 and weir.metric('^weir_limit_decisions_total{limit="a"') > 0, "an answer")
    assert before >= 1


@limit(90)
def test_no_request_is_lost_whatever_redis_does(t):
    redis = t.redis()
    fake = t.redis_fake(redis)
    weirs = [t.weir("demo:?tokens=2", config="max_streams: 1000\nlimits:\n"
                    "  a: { limit: '100000/hour; 100000000 tokens/hour', by: constant }\n"
                    f"redis: {{ url: '{fake.url}', timeout: 50ms }}\n", args=["--workers", "2"]) for _ in range(2)]
    for weir in weirs:
        wait_up(weir)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for mode in ("silent", "pass", "garbage", "pass", "loading", "cut", "pass", "huge", "half", "pass"):
            run = pool.submit(hammer, weirs, 20)
            fake.switch(mode)
            assert set(run.result()) == {200}, mode
        for trouble in (redis.kill_clients, redis.restart, lambda: redis.ask("SCRIPT", "FLUSH"), redis.kill_clients):
            run = pool.submit(hammer, weirs, 20)
            for _ in range(5):
                trouble()
                time.sleep(0.02)
            assert set(run.result()) == {200}
    fake.switch("pass")
    for weir in weirs:
        wait_up(weir)
    fake.close()


def test_a_client_that_leaves_while_redis_is_asked_gives_back_what_was_taken(t):
    redis = t.redis()
    weir, = replicas(t, redis, 1, "max_streams: 3\nlimits:\n  a: { limit: '5/hour; 1000 tokens/hour', by: constant }\n",
                     timeout="5s")
    redis.freeze()
    wires = [weir.connect() for _ in range(3)]
    for wire in wires:
        wire.request("POST", CHAT, None, chat(False, max_tokens=100))
    time.sleep(0.3)
    for wire in wires:
        wire.close()
    wait_until(lambda: weir.metric("^weir_requests_in_flight") <= 1, "the clients to be gone")  # one asks for metrics
    redis.thaw()
    wait_up(weir)
    # While the three places are being given back it is refused, which counts as nothing.
    wait_until(lambda: status_of(weir, max_tokens=1) == 200, "the places")
    answer = weir.ask("POST", CHAT, None, chat(False, max_tokens=1))
    assert answer.header("x-ratelimit-remaining-requests") == "3", answer


@smoke
def test_a_gateway_ends_while_redis_is_asked(t):
    redis = t.redis()
    for early in ("", "early_head: 50ms\n"):
        weir = t.weir("demo:?tokens=2", config="max_streams: 3\nlimits:\n  a: { limit: 50/hour, by: constant }\n" + early
                      + settings(redis, timeout="8s"), args=["--drain-timeout", "200ms"])
        wait_up(weir)
        redis.freeze()
        wires = [weir.connect() for _ in range(4)]
        for n, wire in enumerate(wires):
            wire.request("POST", CHAT, None, chat(n % 2 == 0))
        wait_until(lambda weir=weir: weir.metric("^weir_requests_in_flight") >= 4, "the requests to wait")
        if early:
            time.sleep(0.3)
        weir.stop()
        redis.thaw()
        for wire in wires:
            wire.close()


@smoke
def test_limits_and_cache_wait_while_clients_leave_and_the_configuration_changes(t):
    redis, fake = t.redis(), t.fake()

    def config(limit):
        return f"backends: [{{ name: fake, url: '{fake.url}' }}]\nmax_streams: 50\nearly_head: 50ms\ncache: {{ ttl: 10m }}\n" \
            f"limits:\n  a: {{ limit: '{limit}/hour', by: constant, routes: [{CHAT}] }}\n"
    weir = t.weir(config=config(1000) + settings(redis, timeout="8s"), args=["--drain-timeout", "200ms"])
    path = weir.scenario.dir / f"{weir.name}.yaml"
    wait_up(weir)

    def ask_all():
        wires = [weir.connect() for _ in range(12)]
        for n, wire in enumerate(wires):
            # Without a limit the second path waits for the cache at once.
            wire.request("POST", (CHAT, "/v1/completions")[n // 2 % 2], None, chat(n % 2 == 0, prompt="x", seed=asked + n))
        wait_until(lambda: weir.metric("^weir_requests_in_flight") >= 12, "the requests to wait")
        time.sleep(0.2)  # early heads
        return wires
    asked = 0
    for asked, limit_now in ((100, 900), (200, 800)):
        redis.freeze()
        wires = ask_all()
        seen = weir.log().count("reload: the new configuration holds")
        path.write_text(config(limit_now) + settings(redis, timeout="8s"))
        weir.signal(signal.SIGHUP)
        wait_until(lambda: weir.log().count("reload: the new configuration holds") > seen, "the reload")
        for wire in wires[::3]:
            wire.close()
        wait_until(lambda: weir.metric("^weir_requests_in_flight") == 9, "some clients to be gone")  # one asks for metrics
        redis.thaw()
        for n, wire in enumerate(wires):
            if n % 3 != 0:
                answer = wire.response()
                assert answer.status == 200 and (n % 2 or answer.body.endswith(b"[DONE]\n\n")), (n, answer)
                wire.close()
        assert weir.metric("^weir_limit_fallbacks_total") == 0
        answer = weir.ask("POST", CHAT, None, chat(False, seed=asked + 99))
        assert answer.header("x-ratelimit-limit") == str(limit_now), answer
    asked = 300
    redis.freeze()
    wires = ask_all()
    weir.stop()
    redis.thaw()
    for wire in wires:
        wire.close()


def test_an_early_head_before_an_answer_that_is_no_stream(t):
    redis, fake = t.redis(), t.fake()
    routes = "routes:\n  - { path: /v1/models, depends: [\"limit:a\"] }\n"
    weir = t.weir(fake, config="early_head: 50ms\ncache: { ttl: 1h }\nlimits: { a: { limit: 1000/hour, by: constant } }\n"
                  + routes + settings(redis, timeout="8s"))
    wait_up(weir)
    question = {"model": "fake-1", "input": "x", "stream": True}  # which embeddings are not
    tag = {"if-none-match": [weir.ask("POST", "/v1/embeddings", None, question) for _ in range(2)][1].header("etag")}
    assert weir.ask("POST", "/v1/embeddings", tag, question).status == 304
    for request in (("GET", "/v1/models", None, '{"stream": true}'), ("POST", "/v1/embeddings", tag, question)):
        redis.freeze()
        with weir.connect() as wire:
            wire.request(*request)
            head = wire.head()
            redis.thaw()
            assert head.status == 200 and "event-stream" in head.header("content-type"), head
            assert b"no stream" in b"".join(wire.pieces(head))
    assert weir.ask("GET", "/v1/models").status == 200
