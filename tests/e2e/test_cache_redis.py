"""The response cache's second level: what gateways find of each other's answers, and what a Redis that is slow, gone or
holds something strange makes of that (nothing but misses)."""
import json
import signal
import threading
import time

from harness import KEY, Truncated, chat, events_of, limit, smoke, wait_until
from redis_server import RedisError
from test_cache import BOB, CHAT, JSON, KEYS, ask, number, read_slowly, state

ADMIN = "admin-key-0123456789"
ADMINS = f"admin: {{ keys: [{{ name: root, key: {ADMIN} }}] }}\n"


def gateway(t, redis, fake, settings="", more="", **options):
    url = redis if isinstance(redis, str) else redis.url
    cache = ", ".join(x for x in ("ttl: 10m", settings) if x)
    timeout = options.pop("timeout", "8s")  # a busy machine is no reason for a miss
    timeout = "" if options.pop("quick", False) else f", timeout: {timeout}"
    weir = t.weir(fake, config=f"redis: {{ url: '{url}', prefix: 'shop:'{timeout} }}\ncache: {{ {cache} }}\n{more}", **options)
    if not isinstance(redis, str):
        up(weir)
    return weir


def up(weir):
    wait_until(lambda: weir.metric("^weir_redis_up") == 1, f"redis to be up\n{weir.log()[-500:]}")


def fleet(t, settings="", more="", behave="", **options):
    redis, fake = t.redis(), t.fake(behave)
    return redis, fake, gateway(t, redis, fake, settings, more, **options), gateway(t, redis, fake, settings, more, **options)


def written(weir, n):
    wait_until(lambda: weir.metric('^weir_cache_redis_total{event="written"}') >= n, f"{n} answers to be in Redis")


def purge(weir, what):
    return weir.ask("POST", "/admin/cache/purge", {**JSON, "authorization": f"Bearer {ADMIN}"}, json.dumps(what))


def event(weir, name):
    return weir.metric(f'^weir_cache_redis_total{{event="{name}"}}')


def stored(weir, body=None, **options):
    """Asks, and waits until the answer is in Redis."""
    before = event(weir, "written")
    answer = ask(weir, body, **options)
    assert (answer.status, state(answer)) == (200, "MISS"), answer
    written(weir, before + 1)
    return answer


# ---------------------------------------------------------------- sharing

@smoke
def test_what_one_gateway_was_told_another_knows(t):
    redis, fake, one, two = fleet(t)
    for n, (body, behave) in enumerate(((chat(), ""), (chat(False), ""), (chat(seed=1), "events=100,crlf"),
                                        (chat(False, seed=2), "size=200000"))):
        first = stored(one, body, behave=behave)
        second = ask(two, body)
        assert state(second) == "HIT" and second.body == first.body, (n, second)
        assert second.header("content-type") == first.header("content-type")
        assert number(second, "age") <= 30
        third = ask(two, body)
        assert state(third) == "HIT" and third.body == first.body
        assert third.header("etag") == second.header("etag") and (second.header("etag") is None) == ("stream" in body)
        assert fake.stats()["requests"] == n + 1
    assert event(two, "hit") == 4, "the second time comes from memory"
    for key in redis.ask("KEYS", "*"):
        assert key.startswith(b"shop:") and 0 < redis.ask("PTTL", key) <= 1200000, key


def test_an_answer_that_tells_of_an_error_is_told_to_nobody_else(t):
    _, _, one, two = fleet(t)
    assert "error" in ask(one, chat(False, seed=1), behave="error_event=0").json()
    stored(one, chat(False, seed=2))  # whatever the first one sends to Redis is there by now
    assert "error" not in stored(two, chat(False, seed=1)).json()
    answer = ask(one, chat(False, seed=1))
    assert state(answer) == "HIT" and "error" not in answer.json(), answer


def test_conditional_requests_and_their_age(t):
    redis, fake, one, two = fleet(t)
    stored(one, chat(False))
    time.sleep(1.2)
    second = ask(two, chat(False))
    assert state(second) == "HIT" and number(second, "age") >= 1
    three = gateway(t, redis, fake)
    answer = ask(three, chat(False), {"if-none-match": second.header("etag")})
    assert answer.status == 304 and answer.body == b"" and state(answer) == "HIT", answer
    big = stored(one, chat(False, seed=1), behave="size=500000")
    tag = ask(one, chat(False, seed=1)).header("etag")
    answer = ask(two, chat(False, seed=1), {"if-none-match": tag})
    assert answer.status == 304 and answer.body == b"", answer
    answer = ask(two, chat(False, seed=1))
    assert answer.body == big.body and answer.header("etag") == tag and number(answer, "content-length") == len(big.body)


@smoke
@limit(90)
def test_a_large_answer_is_replayed_in_pieces_to_a_slow_reader(t):
    redis, fake, one, two = fleet(t)
    for body in (chat(), chat(False)):
        whole = stored(one, body, behave="events=1000,size=5000" if "stream" in body else "size=5000000").body
        assert 4 << 20 < len(whole) < 8 << 20
        with two.connect(rcvbuf=16384) as wire:
            wire.request("POST", CHAT, JSON, json.dumps(body))
            answer = wire.head()
            assert state(answer) == "HIT"
            time.sleep(0.3)
            assert read_slowly(wire, answer) == whole
            wait_until(lambda body=body: event(two, "hit") >= 1, "it to be told")
            wire.request("POST", CHAT, JSON, json.dumps(body))  # from memory now
            assert wire.response().body == whole
        assert event(two, "hit") == (1 if "stream" in body else 2)
    assert fake.stats()["requests"] == 2
    sizes = [redis.ask("STRLEN", key) for key in redis.ask("KEYS", "shop:c:*")]
    assert len(sizes) > 100 and max(sizes) < 512 << 10


def test_nothing_crosses_api_keys(t):
    _, fake, one, two = fleet(t, more=KEYS, keys=())
    alice, bob = ({"authorization": f"Bearer {key}"} for key in (KEY, BOB))
    stored(one, headers=alice)
    assert state(ask(two, headers=bob)) == "MISS"
    assert state(ask(two, headers=alice)) == "HIT"
    assert fake.stats()["requests"] == 2


def test_what_clients_say_about_caching(t):
    redis, fake, one, two = fleet(t)
    only = {"cache-control": "only-if-cached"}
    assert ask(two, headers=only).status == 504
    first = stored(one)
    assert state(ask(two, headers=only)) == "HIT"
    fake.behave("events=9")
    before = event(two, "written")
    fresh = ask(two, headers={"cache-control": "no-cache"})
    assert state(fresh) == "MISS" and fresh.body != first.body
    written(two, before + 1)
    three = gateway(t, redis, fake)
    assert ask(three).body == fresh.body, "what came in its place is there for all"
    time.sleep(1.1)
    four = gateway(t, redis, fake)
    assert state(ask(four, headers={"cache-control": "max-age=0"})) == "MISS"
    assert state(ask(four, headers={"cache-control": "no-store"}, body=chat(seed=1))) == "BYPASS"
    assert state(ask(one, chat(seed=1))) == "MISS"


def test_expiry(t):
    redis, fake = t.redis(), t.fake()
    config = f"redis: {{ url: '{redis.url}', prefix: 'shop:' }}\ncache: {{ ttl: 2s }}\n"
    one, two = (t.weir(fake, config=config) for _ in range(2))
    up(one), up(two)
    stored(one)
    assert state(ask(two)) == "HIT"
    wait_until(lambda: not redis.ask("KEYS", "shop:c:*"), "the answer to expire")
    time.sleep(0.1)
    assert state(ask(two)) == "MISS" and fake.stats()["requests"] == 2


def test_the_memory_level_forgets_sooner(t):
    _, fake, one, two = fleet(t, "memory_ttl: 1s")
    stored(one)
    for n in (1, 2):
        assert [state(ask(two)) for _ in range(3)] == ["HIT"] * 3
        assert event(two, "hit") == n
        time.sleep(1.1)
    assert number(ask(two), "age") >= 2 and fake.stats()["requests"] == 1


def test_a_memory_hit_asks_redis_nothing(t):
    redis, _, one, _ = fleet(t)
    stored(one)
    with one.connect() as wire:
        before = redis.stat("stats", "total_commands_processed")
        for _ in range(300):
            wire.request("POST", CHAT, JSON, json.dumps(chat()))
            assert state(wire.response()) == "HIT"
        commands = redis.stat("stats", "total_commands_processed") - before
    assert commands < 150, f"{commands} commands for 300 hits (others: two lists of purges being watched)"


def test_log_and_metrics(t):
    _, fake, one, two = fleet(t)
    stored(one, behave="usage")
    answer = ask(two)
    line = two.request_line(answer.header("x-request-id"))
    assert line["cache"] == "hit" and "completion_tokens" not in line and "backend" not in line, line
    assert two.metric("^weir_tokens_total") == 0
    assert two.metric('^weir_cache_requests_total{result="hit",reason="redis"}') == 1
    assert event(one, "miss") == 1 and event(one, "written") == 1 and event(two, "hit") == 1


def test_no_name_that_a_client_chooses_gets_into_a_key(t):
    redis, _, one, _ = fleet(t)
    for model in ("x\r\nFLUSHALL\r\n", "*", "a:b:c", "é" * 60, "x" * 200, "shop:p:all"):
        stored(one, chat(model=model))
    for key in redis.ask("KEYS", "*"):
        assert len(key) <= 5 + 2 + 64 and set(key[5:].decode()) <= set("0123456789abcdefc:"), key


@smoke
def test_http2_and_redis(t):
    t.need("curl")
    _, fake, one, two = fleet(t)
    first = stored(one, behave="events=500,size=1000")
    done = t.curl("--http2-prior-knowledge", "-i", "-H", "content-type: application/json", "-d", json.dumps(chat()), two.url + CHAT)
    head, text = done.stdout.split(b"\r\n\r\n", 1)
    assert b"x-cache: HIT" in head and text == first.body, head


# ---------------------------------------------------------------- strange values

@smoke
def test_strange_values_are_misses(t):
    redis, fake, one, two = fleet(t, "memory_ttl: 10ms")
    first = stored(one, chat(False))
    key = redis.ask("KEYS", "shop:c:*")[0]
    good = redis.ask("GET", key)
    stored(one, chat(False, seed=7))
    foreign = redis.ask("GET", next(k for k in redis.ask("KEYS", "shop:c:*") if k != key))
    bad = [good[:-1], good[:40], good[:4], b"x", good + b"x", foreign, b"{}", b"wrh2" + good[4:], good[:200] + b"XX" + good[202:],
           bytes(len(good)), good[::-1]]
    commands = [("SET", key, value) for value in bad]
    commands += [("LPUSH", key, "x"), ("HSET", key, "a", "b"), ("SETRANGE", key, 3000000, "x")]
    for n, command in enumerate(commands):
        redis.ask("DEL", key)
        redis.ask(*command)
        time.sleep(0.02)
        answer = ask(two, chat(False))
        assert (answer.status, state(answer)) == (200, "MISS") and answer.json() and first.json(), (n, answer)
        assert fake.stats()["requests"] == 3 + n
        written(two, n + 1)
        time.sleep(0.02)
        answer, again = ask(two, chat(False)), ask(one, chat(False))
        assert state(answer) == state(again) == "HIT" and answer.body == again.body, n
    assert event(two, "corrupt") == len(commands)


def test_a_piece_that_is_missing_or_changed(t):
    redis, fake, one, _ = fleet(t)
    for n, spoil in enumerate((lambda key: redis.ask("DEL", key), lambda key: redis.ask("SETRANGE", key, 500, "spoilt"),
                               lambda key: redis.ask("SET", key, "x"))):
        body = chat(seed=n)
        first = stored(one, body, behave="events=200,size=2000")
        pieces = sorted((k for k in redis.ask("KEYS", "shop:c:*:*")), key=lambda k: int(k.rsplit(b":", 1)[1]))
        spoil(next(k for k in pieces if k.endswith(b":0")))  # a miss
        answer = ask(gateway(t, redis, fake), body)
        assert state(answer) == "MISS" and len(answer.body) > 100, answer
        assert first.status == 200
        redis.ask("FLUSHALL")
    # One that cannot be seen beforehand: the client is told, between two events.
    stored(one, chat(seed=9), behave="events=200,size=2000")
    spoilt = next(k for k in redis.ask("KEYS", "shop:c:*:*") if k.endswith(b":3"))
    redis.ask("SETRANGE", spoilt, 500, "spoilt")
    weir = gateway(t, redis, fake)
    answer = ask(weir, chat(seed=9))
    events = events_of(answer.body)
    assert state(answer) == "HIT" and b"[DONE]" not in answer.body
    assert json.loads(events[-1][1])["error"]["code"] == "backend_failed", events[-1]
    assert event(weir, "broken") == 1
    line = weir.request_line(answer.header("x-request-id"))
    assert line["end"] == "reset" and "stored answer" in line["problem"], line


# ---------------------------------------------------------------- a Redis that is slow, wrong or gone

@smoke
def test_a_frozen_redis_costs_a_miss(t):
    redis, fake, one, two = fleet(t, quick=True)
    first = ask(one)
    wait_until(lambda: redis.ask("KEYS", "shop:c:*"), "the answer to be in Redis")
    redis.freeze()
    for n in range(12):
        answer = ask(two, chat(seed=n))
        assert (answer.status, state(answer)) == (200, "MISS")
    assert state(ask(one)) == "HIT", "memory goes on"
    assert event(two, "failed") >= 12
    redis.thaw()
    wait_until(lambda: state(ask(two, chat(), {"cache-control": "only-if-cached"})) == "HIT", "redis to be used again")
    assert ask(two).body == first.body


@smoke
def test_a_redis_that_is_killed_and_started_again(t):
    redis, fake, one, two = fleet(t)
    stored(one)
    redis.kill()
    for n in range(5):
        assert (answer := ask(two, chat(seed=n))).status == 200 and state(answer) == "MISS"
        assert state(ask(two, chat(seed=n))) == "HIT"
    redis.start()
    up(one), up(two)
    assert state(ask(two)) == "MISS", "it had nothing on disk"
    body = chat(seed=100)
    first = stored(one, body)
    assert state(answer := ask(two, body)) == "HIT" and answer.body == first.body


@limit(90)
def test_a_redis_that_goes_in_the_middle_of_a_replay(t):
    redis, fake, one, two = fleet(t, more=ADMINS)
    whole = stored(one, behave="events=1000,size=4000").body
    for back in (True, False):
        with two.connect(rcvbuf=16384) as wire:
            wire.request("POST", CHAT, JSON, json.dumps(chat()))
            answer = wire.head()
            assert state(answer) == "HIT"
            if back:
                redis.freeze()
                threading.Timer(0.7, redis.thaw).start()
                assert b"".join(wire.pieces(answer)) == whole, "it waits for a Redis that comes back"
            else:
                redis.kill()
                body = b"".join(wire.pieces(answer))
                assert b"[DONE]" not in body and len(body) < len(whole)
                assert json.loads(events_of(body)[-1][1])["error"]["code"] == "backend_failed", body[-500:]
        if back:
            up(two)
            assert purge(one, {"all": True}).status == 200
            wait_until(lambda: not holds(two, chat())[0], "the other to forget")
            assert stored(one, behave="events=1000,size=4000").body == whole


@limit(120)
def test_a_redis_that_talks_nonsense(t):
    redis, fake = t.redis(), t.fake()
    bad = t.redis_fake(redis)
    weir = gateway(t, bad.url, fake, timeout="2s")
    up(weir)
    n = 0
    for mode in ("garbage", "http", "huge", "deep", "wide", "half", "cut", "loading", "refuse", "slow", "silent"):
        bad.switch(mode)
        for _ in range(4):
            n += 1
            answer = ask(weir, chat(seed=n))
            assert (answer.status, state(answer)) == (200, "MISS"), (mode, answer)
            assert answer.body.endswith(b"data: [DONE]\n\n")
    bad.switch("pass")
    before = weir.metric("^weir_redis_connects_total")
    bad.cut()  # which weir need not have noticed while it still says that redis is up
    wait_until(lambda: weir.metric("^weir_redis_connects_total") > before, "another connection")
    up(weir)
    stored(weir, chat(seed="end"))
    bad.close()


@limit(90)
def test_connections_cut_in_a_loop_under_load(t):
    redis, fake, one, two = fleet(t, "memory_ttl: 10ms", behave="events=20,size=4000")
    right = [ask(one, chat(seed=n)).body for n in range(4)]
    done, wrong = threading.Event(), []

    def load(weir):
        with weir.connect() as wire:
            n = 0
            while not done.is_set():
                n += 1
                wire.request("POST", CHAT, JSON, json.dumps(chat(seed=n % 4)))
                try:
                    answer = wire.response()
                except Truncated as e:
                    wrong.append(e)
                    return
                if answer.status != 200 or answer.body != right[n % 4]:
                    wrong.append(answer)
                    return

    threads = [threading.Thread(target=load, args=(weir,)) for weir in (one, two, two)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        before = event(two, "hit")
        redis.kill_clients()
        # Who finds no connection that lasts for five seconds gives up, and rightly so.
        wait_until(lambda n=before: event(two, "hit") > n or wrong, "an answer from Redis")
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert event(two, "hit") > 0


def test_a_full_redis_caches_nothing_and_harms_nobody(t):
    redis, fake, one, two = fleet(t)
    stored(one)
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    for n in range(5):
        assert state(ask(one, chat(seed=n))) == "MISS" and state(ask(one, chat(seed=n))) == "HIT"
    wait_until(lambda: event(one, "not_written") == 5, "writes to have failed")
    assert state(ask(two)) == "HIT", "what is there can be read"


def test_a_purge_after_a_reload_meets_what_was_stored(t):
    _, fake, one, two = fleet(t, more=ADMINS)
    stored(one)
    path = one.scenario.dir / f"{one.name}.yaml"
    path.write_text(path.read_text().replace("'shop:'", "'elsewhere:'"))
    one.signal(signal.SIGHUP)
    wait_until(lambda: "reload: redis stays as it was" in one.log(), "the reload")
    wait_until(lambda: "reload: the new configuration holds" in one.log(), "the reload")
    answer = purge(one, {"all": True})
    assert answer.status == 200 and answer.json()["redis"] == "purged", answer
    assert state(ask(two)) == "MISS"


def test_the_ttl_of_a_new_configuration_holds_for_answers_in_redis(t):
    _, fake, one, two = fleet(t, "memory_ttl: 10ms")
    stored(one)
    path = two.scenario.dir / f"{two.name}.yaml"
    assert state(ask(two)) == "HIT"
    path.write_text(path.read_text().replace("ttl: 10m, ", "ttl: 1s, "))
    time.sleep(2)
    two.signal(signal.SIGHUP)
    wait_until(lambda: "reload: the new configuration holds" in two.log(), "the reload")
    wait_until(lambda: event(two, "expired") == 1 or state(ask(two)) == "MISS", "the answer to be too old")
    assert event(two, "expired") == 1


@smoke
def test_clients_that_leave_while_redis_is_asked(t):
    redis, fake = t.redis(), t.fake()
    config = f"redis: {{ url: '{redis.url}', prefix: 'shop:', timeout: 900ms }}\ncache: {{ ttl: 10m }}\n{ADMINS}"
    weir = t.weir(fake, config=config)
    up(weir)
    redis.freeze()
    for n in range(20):
        with weir.connect() as wire:
            if n % 5 == 4:
                wire.request("POST", "/admin/cache/purge", {**JSON, "x-api-key": ADMIN}, '{"all": true}')
            else:
                wire.request("POST", CHAT, JSON, json.dumps(chat(seed=n)))
            time.sleep(0.02)
    redis.thaw()
    wait_until(lambda: weir.metric("^weir_requests_in_flight") == 1, "all of them to end")
    assert ask(weir).status == 200


def test_clients_that_leave_in_the_middle_of_a_replay(t):
    _, fake, one, two = fleet(t, "memory_ttl: 10ms")
    whole = stored(one, behave="events=1000,size=4000").body
    for n in range(10):
        with two.connect(rcvbuf=16384) as wire:
            wire.request("POST", CHAT, JSON, json.dumps(chat()))
            answer = wire.head()
            assert state(answer) == "HIT"
            if n % 2:
                next(iter(wire.pieces(answer)))
    wait_until(lambda: two.metric("^weir_requests_in_flight") == 1, "all of them to end")
    assert ask(two).body == whole and fake.stats()["requests"] == 1


def test_the_gateway_ends_in_the_middle_of_a_replay(t):
    redis, fake, one, _ = fleet(t)
    stored(one, behave="events=1000,size=4000")
    weir = gateway(t, redis, fake, args=["--drain-timeout", "1s"])
    with weir.connect(rcvbuf=16384) as wire:
        wire.request("POST", CHAT, JSON, json.dumps(chat()))
        assert state(wire.head()) == "HIT"
        assert weir.stop() == 0


# ---------------------------------------------------------------- purges

def holds(weir, *bodies, headers=None):
    return [state(ask(weir, body, {**(headers or {}), "cache-control": "only-if-cached"})) == "HIT" for body in bodies]


@smoke
@limit(90)
def test_purges_reach_every_gateway(t):
    redis, fake, one, two = fleet(t, more=KEYS + ADMINS)
    alice, bob = ({"authorization": f"Bearer {key}"} for key in (KEY, BOB))
    small, large = chat(model="small"), chat(model="large")

    def fill():
        for headers in (alice, bob):
            for body in (small, large):
                assert ask(one, body, headers).status == 200
        wait_until(lambda: all(holds(two, small, large, headers=alice) + holds(two, small, large, headers=bob)), "all to be there")

    for what, left in (({"key": "alice"}, [False, False, True, True]), ({"model": "small"}, [False, True, False, True]),
                       ({"key": "bob", "model": "large"}, [True, True, True, False]), ({"all": True}, [False] * 4),
                       ({"key": "nobody"}, [True] * 4), ({"model": "nothing"}, [True] * 4)):
        fill()
        answer = purge(one, what)
        assert answer.status == 200 and answer.json() == {"purged": left.count(False), "redis": "purged"}, (what, answer)
        assert answer.header("cache-control") == "no-store" and answer.header("x-cache") is None

        def held(weir):
            return holds(weir, small, large, headers=alice) + holds(weir, small, large, headers=bob)
        assert held(one) == left, what
        wait_until(lambda left=left: held(two) == left, f"the other gateway to hear of {what}: {held(two)}")
    assert one.metric('^weir_cache_redis_total{event="purged"}') > 0


def test_an_answer_on_its_way_is_purged_too(t):
    redis, fake, one, two = fleet(t, more=ADMINS, behave="first_ms=700")
    for weir in (one, two):
        body = chat(seed=weir.name)
        with one.connect() as wire:
            wire.request("POST", CHAT, JSON, json.dumps(body))
            fake.wait_requests(1)
            assert purge(weir, {"model": "fake-1"}).status == 200
            time.sleep(0 if weir is one else 0.6)  # for the other to hear of it
            assert wire.response().status == 200
        time.sleep(0.2)
        assert holds(one, body) == holds(two, body) == [False]
        fake.reset()


def test_a_purge_without_redis(t):
    fake, weir = t.pair(config=f"cache: {{ ttl: 10m }}\n{KEYS}{ADMINS}")
    alice = {"authorization": f"Bearer {KEY}"}
    for n in range(3):
        ask(weir, chat(seed=n), alice)
    answer = purge(weir, {"key": "alice"})
    assert answer.json() == {"purged": 3, "redis": "none"}
    assert state(ask(weir, chat(seed=0), alice)) == "MISS"
    assert purge(weir, {"key": "alice"}).json()["purged"] == 1


def test_a_purge_that_redis_does_not_hear_of_says_so(t):
    redis, fake, one, two = fleet(t, more=ADMINS)
    stored(one)
    assert state(ask(two)) == "HIT"
    redis.kill()
    wait_until(lambda: one.metric("^weir_redis_up") == 0, "redis to be down")
    answer = purge(one, {"all": True})
    assert answer.status == 503 and answer.json()["error"]["code"] == "redis_unavailable" and answer.header("retry-after") == "1"
    assert "forgotten 1 answers" in answer.json()["error"]["message"]
    assert holds(one, chat()) == [False]
    redis.start()
    up(one)
    assert purge(one, {"all": True}).status == 200


def test_purges_survive_strange_lists(t):
    redis, fake, one, two = fleet(t, more=ADMINS)
    stored(one)
    assert state(ask(two)) == "HIT"
    redis.ask("SET", "shop:p:log", "x")
    assert purge(one, {"model": "fake-1"}).status == 200
    wait_until(lambda: holds(two, chat()) == [False], "the other to hear of it")
    stored(one, chat(seed=1))
    assert state(ask(two, chat(seed=1))) == "HIT"
    redis.ask("LPUSH", "shop:p:log", "f" * 300)
    wait_until(lambda: ask(two, chat(seed=1)) and event(two, "hit") >= 3, "what cannot be read to purge all of memory")
    assert not isinstance(redis.ask("PING"), RedisError)
