"""The response cache: what is repeated, to whom, for how long, and what is never kept."""
import json
import time

from harness import KEY, Options, Truncated, chat, limit, smoke

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
BOB = "bob-key-0123456789"
KEYS = f"keys:\n  - {{ name: alice, key: {KEY} }}\n  - {{ name: bob, key: {BOB} }}\n"


def caching(t, settings="", more="", behave="", **options):
    """A gateway with a cache."""
    return t.pair(behave, config=f"cache: {{ {', '.join(x for x in ('ttl: 10m', settings) if x)} }}\n{more}", **options)


def ask(weir, body=None, headers=None, behave="", path=CHAT):
    if body is None:
        body = chat()
    return weir.ask("POST", path, {**JSON, **({"x-fake": behave} if behave else {}), **(headers or {})},
                    body if isinstance(body, str) else json.dumps(body))


def state(answer):
    return answer.header("x-cache")


def states(weir, *bodies, **options):
    return [state(ask(weir, body, **options)) for body in bodies]


def stores(weir):
    return weir.metric(r"^weir_cache_stores_total$")


def number(answer, name):
    value = answer.header(name)
    assert value is not None and value.isdigit(), (name, answer)
    return int(value)


# ---------------------------------------------------------------- hits

@smoke
def test_the_same_question_again_is_answered_without_the_backend(t):
    fake, weir = caching(t)
    for body in (chat(), chat(False)):
        before = fake.stats()["requests"]
        first, second = ask(weir, body), ask(weir, body)
        assert (first.status, state(first)) == (200, "MISS") and first.header("age") is None, first
        assert (second.status, state(second)) == (200, "HIT") and number(second, "age") <= 30, second
        assert second.body == first.body and second.header("content-type") == first.header("content-type")
        assert fake.stats()["requests"] == before + 1
        assert first.header("x-request-id") != second.header("x-request-id")
        assert second.header("x-request-id")
    time.sleep(1.1)
    assert number(ask(weir), "age") >= 1


def test_streams_are_replayed_byte_for_byte_in_every_protocol(t):
    fake, weir = caching(t)
    responses = {"model": "m", "input": "x", "stream": True, "store": False}
    messages = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    asked = 0
    for path, body in ((CHAT, chat()), ("/v1/completions", {"model": "m", "prompt": "x", "stream": True}),
                       ("/v1/responses", responses), ("/v1/messages", messages)):
        for n, behave in enumerate(("events=100", "events=3,crlf", "events=3,comments", "events=7,bytes", "events=2,big_line=50000",
                                    "length_body", "close_body", "split,events=4")):
            body = {**body, "seed": n}
            first, second = (ask(weir, body, behave=behave, path=path) for _ in range(2))
            asked += 1
            assert (state(first), state(second)) == ("MISS", "HIT") and len(first.body) > 300, (path, behave, first, second)
            assert first.body == second.body, (path, behave)
            assert second.header("cache-control") == first.header("cache-control") == "no-cache", second
            assert fake.stats()["requests"] == asked


def test_plain_answers_of_every_protocol_and_embeddings(t):
    fake, weir = caching(t)
    questions = [(CHAT, chat(False)), ("/v1/completions", {"model": "m", "prompt": "x"}), ("/v1/embeddings", {"model": "m", "input": "x"}),
                 ("/v1/responses", {"model": "m", "input": "x", "store": False}),
                 ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})]
    for behave in ("", "size=100000", "chunked", "close_body", "first_ms=20"):
        fake.reset()
        for path, body in questions:
            body = {**body, "seed": behave}
            first, second = (ask(weir, body, behave=behave, path=path) for _ in range(2))
            assert (state(first), state(second)) == ("MISS", "HIT"), (path, behave, first, second)
            assert first.body == second.body and second.json() and number(second, "content-length") == len(second.body)
        assert fake.stats()["requests"] == len(questions)


@smoke
def test_an_answer_is_repeated_over_http2(t):
    t.need("curl")
    fake, weir = caching(t)
    for n, (body, behave) in enumerate(((chat(), "events=2000"), (chat(False), "size=300000"))):
        first = ask(weir, body, behave=behave)

        def curl(*more, body=body):
            done = t.curl("--http2-prior-knowledge", "-i", "-H", "content-type: application/json", *more, "-d", json.dumps(body),
                          weir.url + CHAT)
            assert done.returncode == 0, done
            head, text = done.stdout.split(b"\r\n\r\n", 1)
            return head.decode().lower(), text

        head, text = curl()
        assert head.startswith("http/2 200") and "x-cache: hit" in head and "\nage: " in head, head
        assert text == first.body
        assert fake.stats()["requests"] == n + 1
    tag = ask(weir, chat(False)).header("etag")
    head, text = curl("-H", f"if-none-match: {tag}")
    assert head.startswith("http/2 304") and text == b"" and "content-length" not in head, head


def test_what_was_asked_over_http2_is_a_hit_over_http1(t):
    t.need("curl")
    fake, weir = caching(t)
    done = t.curl("--http2-prior-knowledge", "-H", "content-type: application/json", "-d", json.dumps(chat()), weir.url + CHAT)
    answer = ask(weir)
    assert state(answer) == "HIT" and answer.body == done.stdout and fake.stats()["requests"] == 1


def test_an_answer_is_repeated_over_http_1_0(t):
    fake, weir = caching(t)
    for body in (chat(), chat(False)):
        first = ask(weir, body)
        with weir.connect() as wire:
            wire.request("POST", CHAT, None, body, version="1.0")
            answer = wire.response()
        assert state(answer) == "HIT" and answer.body == first.body and answer.header("transfer-encoding") is None, answer
    assert fake.stats()["requests"] == 2


def test_a_hit_does_not_need_the_backend_at_all(t):
    fake, weir = caching(t)
    first = ask(weir)
    fake.signal()
    fake.wait()
    t.processes.remove(fake)
    answer = ask(weir)
    assert state(answer) == "HIT" and answer.body == first.body
    assert ask(weir, chat(seed=1)).status == 502


def read_slowly(wire, answer, pause=0.01):
    body = b""
    for i, piece in enumerate(wire.pieces(answer)):
        body += piece
        if i < 40:
            time.sleep(pause)
    return body


@smoke
def test_a_slow_reader_gets_a_hit_whole(t):
    fake, weir = caching(t)
    whole = ask(weir, behave="events=1000,size=4096").body
    assert len(whole) > 4 << 20
    with weir.connect(rcvbuf=16384) as wire:
        wire.request("POST", CHAT, None, chat())
        answer = wire.head()
        assert state(answer) == "HIT"
        time.sleep(0.3)
        other = ask(weir)
        assert state(other) == "HIT" and other.body == whole, "others do not wait for it"
        assert read_slowly(wire, answer) == whole
        wire.request("POST", CHAT, None, chat())
        assert wire.response().body == whole
    assert fake.stats()["requests"] == 1


def test_a_slow_reader_of_a_miss_does_not_spoil_what_is_stored(t):
    fake, weir = caching(t)
    with weir.connect(rcvbuf=16384) as wire:
        wire.request("POST", CHAT, {"x-fake": "events=1000,size=4096"}, chat())
        answer = wire.head()
        time.sleep(0.3)
        body = read_slowly(wire, answer)
    assert body.endswith(b"[DONE]\n\n") and state(answer) == "MISS"
    again = ask(weir)
    assert state(again) == "HIT" and again.body == body and fake.stats()["requests"] == 1


def test_an_answer_that_is_thrown_out_while_it_is_read_arrives_whole(t):
    _, weir = caching(t, "max_bytes: 1MiB, max_entry: 900KiB")
    whole = ask(weir, behave="events=200,size=4000").body
    with weir.connect(rcvbuf=16384) as wire:
        wire.request("POST", CHAT, None, chat())
        answer = wire.head()
        assert state(answer) == "HIT"
        for seed in range(3):
            ask(weir, chat(seed=seed), behave="events=200,size=4000")
        assert weir.metric(r"^weir_cache_evictions_total$") >= 1
        assert state(ask(weir)) == "MISS"
        assert read_slowly(wire, answer) == whole


def test_a_client_that_leaves_a_hit_harms_nobody(t):
    _, weir = caching(t)
    whole = ask(weir, behave="events=1000,size=4096").body
    for _ in range(5):
        with weir.connect(rcvbuf=16384) as wire:
            wire.request("POST", CHAT, None, chat())
            assert state(wire.head()) == "HIT"
    assert ask(weir).body == whole


def test_two_workers_share_what_is_stored(t):
    fake, weir = caching(t, args=["--workers", "2"])
    first = ask(weir)
    for _ in range(30):
        answer = ask(weir)
        assert state(answer) == "HIT" and answer.body == first.body
    assert fake.stats()["requests"] == 1


def test_a_client_that_has_an_answer_finds_it_at_once(t):
    fake, weir = caching(t, args=["--workers", "4"])
    wires = [weir.connect() for _ in range(16)]
    for n in range(100):
        for wire in (wires[n % 16], wires[(n + 7) % 16]):
            wire.request("POST", CHAT, None, chat(n % 2 == 0, seed=n))
            answer = wire.response()
        assert state(answer) == "HIT", n
    for wire in wires:
        wire.close()
    assert fake.stats()["requests"] == 100


def test_without_a_cache_nothing_is_said_of_it(t):
    fake, weir = t.pair()
    for _ in range(2):
        answer = ask(weir, headers={"x-weir-cache": "on"})
        assert state(answer) is None and answer.header("age") is None and answer.header("etag") is None
    assert fake.stats()["requests"] == 2
    assert fake.last().header("x-weir-cache") is None, "what is meant for weir is not passed on"


# ---------------------------------------------------------------- the key

BASE = '{"model":"fake-1","messages":[{"role":"user","content":"Hello"}],"temperature":1}'


@smoke
def test_questions_that_mean_the_same_are_the_same(t):
    fake, weir = caching(t)
    assert states(weir, BASE) == ["MISS"]
    for same in ('{"messages":[{"content":"Hello","role":"user"}],"temperature":1,"model":"fake-1"}',
                 ' {\n "model" : "fake-1",\t"messages" : [ { "role" : "user" , "content" : "Hello" } ] , "temperature" : 1 }\r\n',
                 BASE[:-1] + ',"user":"u1"}', BASE[:-1] + ',"user":"u2","metadata":{"a":[1]},"safety_identifier":"x"}',
                 BASE.replace('"model"', '"\\u006dodel"')):
        assert states(weir, same) == ["HIT"], same
    for headers in ({"user-agent": "x"}, {"x-request-id": "abc"}, {"accept": "*/*"}, {"x-fake": "size=50"}):
        assert states(weir, BASE, headers=headers) == ["HIT"], headers
    assert fake.stats()["requests"] == 1


@smoke
def test_questions_that_may_mean_something_else_are_not_the_same(t):
    fake, weir = caching(t)
    two = '[{"role":"user","content":"Hello"},{"role":"user","content":"You"}]'
    swapped = '[{"role":"user","content":"You"},{"role":"user","content":"Hello"}]'
    one = '[{"role":"user","content":"Hello"}]'
    different = [BASE, BASE.replace("Hello", "hello"), BASE.replace("fake-1", "fake-2"), BASE.replace(":1}", ":1.0}"),
                 BASE.replace(":1}", ":2}"), BASE[:-1] + ',"stream":false}', BASE[:-1] + ',"n":null}', BASE.replace(one, two),
                 BASE.replace(one, swapped), BASE.replace('"role":"user",', '"role":"user","user":"u1",'),
                 BASE.replace('"role":"user",', '"role":"user","user":"u2",'), BASE.replace("Hello", "Hello "),
                 BASE.replace('"Hello"', '["Hello"]'), BASE[:-1] + ',"tools":[{"metadata":1}]}',
                 BASE[:-1] + ',"tools":[{"metadata":2}]}', BASE[:-1] + ',"a":{"b":1},"c":2}', BASE[:-1] + ',"a":{"b":1,"c":2}}']
    for body in different:
        assert states(weir, body) == ["MISS"], body
    for options in ({"path": CHAT + "?a=1"}, {"path": CHAT + "?a=2"}, {"headers": {"openai-organization": "o1"}},
                    {"headers": {"openai-organization": "o2"}}, {"headers": {"anthropic-version": "2023-06-01"}},
                    {"headers": {"anthropic-beta": "x"}}, {"path": "/v1/messages"}):
        assert states(weir, BASE, **options) == ["MISS"], options
    assert fake.stats()["requests"] == len(different) + 7
    assert set(states(weir, *different)) == {"HIT"}


def test_streamed_and_plain_answers_are_kept_apart(t):
    fake, weir = caching(t)
    assert states(weir, chat(), chat(False), chat(), chat(False)) == ["MISS", "MISS", "HIT", "HIT"]
    assert ask(weir, chat()).header("content-type").startswith("text/event-stream")
    assert ask(weir, chat(False)).header("content-type") == "application/json"
    assert fake.stats()["requests"] == 2


def test_a_body_with_a_member_twice_passes_the_cache_by(t):
    fake, weir = caching(t)
    for body in (BASE[:-1] + ',"temperature":1}', BASE.replace('"role":"user"', '"role":"user","role":"user"'),
                 BASE[:-1] + ',"\\u0074emperature":0}'):
        assert states(weir, body, body) == ["BYPASS", "BYPASS"], body
    assert fake.stats()["requests"] == 6 and stores(weir) == 0
    assert weir.metric(r'^weir_cache_requests_total{result="bypass",reason="duplicate"}') == 6


# ---------------------------------------------------------------- whose answers

@smoke
def test_an_answer_never_goes_to_another_api_key(t):
    fake, weir = caching(t, more=KEYS)
    alice, bob = {"x-api-key": KEY}, {"x-api-key": BOB}
    assert [states(weir, None, headers=h)[0] for h in (alice, alice, bob, bob, alice)] == ["MISS", "HIT", "MISS", "HIT", "HIT"]
    assert states(weir, None, headers={"authorization": f"Bearer {KEY}"}) == ["HIT"], "the same key, in another header"
    assert ask(weir, headers={"x-api-key": "wrong-key-0123456789"}).status == 401
    assert fake.stats()["requests"] == 2


def test_a_shared_cache_is_shared(t):
    fake, weir = caching(t, "scope: shared", KEYS)
    assert [states(weir, None, headers={"x-api-key": key})[0] for key in (KEY, BOB)] == ["MISS", "HIT"]
    answer = ask(weir, headers={"x-api-key": "wrong-key-0123456789"})
    assert answer.status == 401 and state(answer) is None and fake.stats()["requests"] == 1


def test_a_shared_cache_still_asks_what_a_key_may_use(t):
    _, weir = caching(t, "scope: shared", KEYS.replace("bob, ", "bob, models: [other], "))
    assert states(weir, None, None, headers={"x-api-key": KEY}) == ["MISS", "HIT"]
    answer = ask(weir, headers={"x-api-key": BOB})
    assert answer.status == 403 and b"xxxx" not in answer.body, answer


def test_on_an_open_gateway_answers_belong_to_the_credential(t):
    for settings in ("", "scope: shared"):
        fake, weir = caching(t, settings)
        credentials = [{}, {"authorization": "Bearer a"}, {"authorization": "Bearer b"}, {"x-api-key": "a"}]
        for headers in credentials[:3]:
            assert states(weir, None, None, headers=headers) == ["MISS", "HIT"], (settings, headers)
        assert fake.stats()["requests"] == 3
        both = {"authorization": "Bearer a", "x-api-key": "another"}
        assert states(weir, None, headers=both) == ["MISS"], "two credentials are not one of them"


# ---------------------------------------------------------------- what the client wishes

@smoke
def test_no_cache_asks_the_backend_and_keeps_the_new_answer(t):
    fake, weir = caching(t)
    old = ask(weir, behave="events=2")
    new = ask(weir, behave="events=4", headers={"cache-control": "no-cache"})
    assert new.body != old.body and state(new) != "HIT" and fake.stats()["requests"] == 2
    again = ask(weir)
    assert state(again) == "HIT" and again.body == new.body, "the newer answer is repeated from now on"


def test_no_store_neither_reads_nor_writes(t):
    fake, weir = caching(t)
    for value in ("no-store", "No-Store", "max-age=100, no-store", "private,no-store"):
        assert states(weir, None, headers={"cache-control": value}) == ["BYPASS"], value
    assert stores(weir) == 0
    old = ask(weir, behave="events=2")
    assert ask(weir, behave="events=4", headers={"cache-control": "no-store"}).body != old.body
    assert ask(weir).body == old.body and fake.stats()["requests"] == 6


def test_max_age_bounds_how_old_an_answer_may_be(t):
    fake, weir = caching(t)
    ask(weir)
    time.sleep(2.1)
    assert states(weir, None, headers={"cache-control": "max-age=600"}) == ["HIT"]
    answer = ask(weir, headers={"cache-control": "max-age=1"}, behave="events=9")
    assert state(answer) == "MISS" and fake.stats()["requests"] == 2
    again = ask(weir)
    assert state(again) == "HIT" and again.body == answer.body, "the newer answer took the old one's place"
    for junk in ("max-age", "max-age=x", ",,,", '"', "max-age=99999999999999999999", "x" * 3000):
        assert ask(weir, headers={"cache-control": junk}).status == 200, junk


def test_only_if_cached_never_asks_the_backend(t):
    fake, weir = caching(t)
    answer = ask(weir, headers={"cache-control": "only-if-cached"})
    assert answer.status == 504 and answer.json()["error"]["code"] == "not_cached" and fake.stats()["requests"] == 0, answer
    ask(weir)
    answer = ask(weir, headers={"cache-control": "only-if-cached"})
    assert (answer.status, state(answer)) == (200, "HIT") and fake.stats()["requests"] == 1
    answer = ask(weir, headers={"cache-control": "only-if-cached", "x-weir-cache": "off"})
    assert answer.status == 504 and fake.stats()["requests"] == 1


def test_a_request_may_switch_the_cache_off(t):
    fake, weir = caching(t)
    assert states(weir, None, None, headers={"x-weir-cache": "off"}) == ["BYPASS"] * 2 and stores(weir) == 0
    assert states(weir, None, None, headers={"x-weir-cache": "on"}) == ["MISS", "HIT"]
    assert states(weir, None, headers={"x-weir-cache": "Off"}) == ["BYPASS"] and fake.stats()["requests"] == 4


def test_an_opt_in_cache_serves_who_asks_for_it(t):
    fake, weir = caching(t, "mode: opt_in")
    assert states(weir, None, None) == ["BYPASS"] * 2 and stores(weir) == 0
    assert states(weir, None, None, headers={"x-weir-cache": "on"}) == ["MISS", "HIT"]
    assert states(weir, None) == ["BYPASS"] and fake.stats()["requests"] == 4


def test_a_cache_for_deterministic_questions(t):
    _, weir = caching(t, "for: deterministic")
    for more in ({}, {"temperature": 0.1}, {"temperature": 1}, {"temperature": None}, {"seed": None}, {"temperature": "0"}):
        assert states(weir, chat(False, **more), chat(False, **more)) == ["BYPASS"] * 2, more
    for more in ({"temperature": 0}, {"temperature": 0.0}, {"seed": 7}, {"seed": 7, "temperature": 1}):
        assert states(weir, chat(False, **more), chat(False, **more)) == ["MISS", "HIT"], more


# ---------------------------------------------------------------- entity tags

@smoke
def test_an_answer_that_the_client_has_is_304(t):
    fake, weir = caching(t)
    first = ask(weir, chat(False))
    tag = ask(weir, chat(False)).header("etag")
    assert tag and tag[0] == tag[-1] == '"' and len(tag) > 10, tag
    with weir.connect() as wire:
        for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            wire.request("POST", CHAT, {"if-none-match": value}, chat(False))
            answer = wire.response()
            assert answer.status == 304 and answer.body == b"" and answer.header("content-length") is None, (value, answer)
            assert answer.header("transfer-encoding") is None and answer.header("content-type") is None, answer
            assert (answer.header("etag"), state(answer)) == (tag, "HIT") and answer.header("age"), answer
            for other in ('"other"', tag[1:-1], tag[:-1] + 'x"', ""):
                wire.request("POST", CHAT, {"if-none-match": other}, chat(False))
                answer = wire.response()
                assert answer.status == 200 and answer.body == first.body, (other, answer)
    other = ask(weir, chat(False, seed=1), behave="size=20"), ask(weir, chat(False, seed=1))
    assert other[1].header("etag") not in (None, tag), "another answer has another tag"
    assert fake.stats()["requests"] == 2


def test_a_miss_and_a_stream_are_never_304(t):
    _, weir = caching(t)
    answer = ask(weir, chat(False), {"if-none-match": "*"})
    assert (answer.status, state(answer)) == (200, "MISS")
    for _ in range(2):
        answer = ask(weir, chat(), {"if-none-match": "*"})
        assert answer.status == 200 and answer.header("etag") is None and answer.body.endswith(b"[DONE]\n\n"), answer


# ---------------------------------------------------------------- what is not kept

def broken(weir, behave, body, path=CHAT):
    """Asks and takes what comes, whole or not; returns the head, if there was one."""
    with weir.connect() as wire:
        wire.request("POST", path, {"x-fake": behave}, body)
        try:
            head = wire.head()
            b"".join(wire.pieces(head))
            return head
        except (Truncated, EOFError, OSError):
            return None


@smoke
def test_errors_and_broken_answers_are_not_kept(t):
    _, weir = caching(t)
    for behave in ("status=500", "status=404", "status=429", "status=201", "status=203", "error_event=0", "error_event=2", "cut_after=2",
                   "reset_after=2", "cut_inside=2", "end_after=2", "end_after=0", "end_inside=2", "bad_chunk", "half_chunk",
                   "close_body,cut_after=2", "drop"):
        for path, body in ((CHAT, chat(seed=behave)), ("/v1/messages", chat(max_tokens=1, seed=behave)),
                           ("/v1/responses", {"model": "m", "input": behave, "stream": True, "store": False})):
            broken(weir, behave, body, path)
            assert stores(weir) == 0, (behave, path)
    for behave in ("status=500", "status=404", "status=201", "short_length", "half_chunk", "bad_chunk", "drop=2", "garbage"):
        broken(weir, behave, chat(False, seed=behave))
        assert stores(weir) == 0, behave


def test_what_broke_once_is_asked_for_again(t):
    _, weir = caching(t)
    for body in (chat(), chat(False)):
        for behave in ("status=500", "cut_after=2", "short_length", "half_chunk", "bad_chunk", "error_event=2", "end_after=2", "drop"):
            asked = {**body, "seed": behave}
            plain = not body.get("stream")
            if behave in (("cut_after=2", "end_after=2") if plain else ("short_length",)):
                continue
            broken(weir, behave, asked)
            answers = ask(weir, asked), ask(weir, asked)
            assert [x.status for x in answers] == [200, 200] and [state(x) for x in answers] == ["MISS", "HIT"], (behave, answers)
            assert answers[0].body == answers[1].body


@smoke
def test_a_plain_answer_that_tells_of_an_error_is_given_to_nobody_else(t):
    """It may be found out only when somebody asks for it; a good answer that is there never goes for it."""
    _, weir = caching(t)
    asked = chat(False)
    for behave, turns in (("error_event=0", 2), ("", 1)):
        answers = [ask(weir, asked, behave=behave) for _ in range(turns)]
        assert [(x.status, state(x)) for x in answers] == [(200, "MISS")] * turns, answers
        assert all(("error" in x.json()) == bool(behave) for x in answers), answers
    good = ask(weir, asked)
    assert state(good) == "HIT" and weir.metric(r"^weir_cache_entries$") == 1
    again = ask(weir, asked, {"cache-control": "no-cache"}, behave="error_event=0")
    assert state(again) == "MISS" and "error" in again.json()
    last = ask(weir, asked)
    assert (state(last), last.body) == ("HIT", good.body), last


def test_what_is_too_long_is_not_kept_and_arrives_all_the_same(t):
    _, weir = caching(t, "max_entry: 64KiB")
    for body, behave in ((chat(), "events=2000,size=100"), (chat(False), "size=100000")):
        answers = [ask(weir, body, behave=behave) for _ in range(2)]
        assert [state(x) for x in answers] == ["MISS", "MISS"] and answers[0].body == answers[1].body
        assert len(answers[0].body) > 65536
    assert stores(weir) == 0 and weir.metric(r"^weir_cache_bytes$") < 65536
    assert states(weir, chat(seed=1), chat(seed=1)) == ["MISS", "HIT"]


@smoke
def test_a_client_that_leaves_mid_stream_cancels_and_leaves_nothing(t):
    fake, weir = caching(t)
    for turn in (1, 2):
        with weir.connect() as wire:
            wire.request("POST", CHAT, {"x-fake": "events=100000,pace_ms=5"}, chat())
            answer = wire.head()
            assert state(answer) == "MISS"
            next(wire.pieces(answer))
        fake.wait_aborts(turn)
    assert stores(weir) == 0
    assert states(weir, None, None) == ["MISS", "HIT"]


def test_a_client_that_leaves_a_plain_answer_cancels_and_leaves_nothing(t):
    fake, weir = caching(t)
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "first_ms=60000"}, chat(False))
        fake.wait_requests()
    fake.wait_aborts()
    assert stores(weir) == 0 and states(weir, chat(False)) == ["MISS"]


def test_responses_are_kept_only_if_they_are_stored_nowhere_else(t):
    _, weir = caching(t)
    base = {"model": "m", "input": "x"}
    for more in ({}, {"store": True}, {"store": None}, {"store": False, "previous_response_id": "r"},
                 {"store": False, "conversation": "c"}, {"store": False, "background": True}):
        for stream in ({}, {"stream": True}):
            body = {**base, **more, **stream}
            assert states(weir, body, body, path="/v1/responses") == ["BYPASS"] * 2, body
    for more in ({}, {"previous_response_id": None}, {"background": False}):
        body = {**base, "store": False, **more}
        assert states(weir, body, body, path="/v1/responses") == ["MISS", "HIT"], body
    assert weir.metric(r'^weir_cache_requests_total{result="bypass",reason="stateful"}') == 24


def test_pings_are_not_part_of_what_is_kept(t):
    _, weir = caching(t, more="sse_ping: 1s\n")
    first, second = ask(weir, behave="events=2,pace_ms=1700"), ask(weir)
    assert b": ping\n" in first.body and b"ping" not in second.body
    assert (state(first), state(second)) == ("MISS", "HIT") and first.body.replace(b": ping\n", b"") == second.body


def test_an_answer_that_began_with_an_early_head_is_kept(t):
    _, weir = caching(t, more="early_head: 1s\n")
    first, second = ask(weir, behave="delay_ms=1500"), ask(weir)
    assert (state(first), state(second)) == ("MISS", "HIT") and first.body.replace(b": ping\n", b"") == second.body


def test_cookies_and_limits_of_the_backend_are_not_repeated(t):
    _, weir = caching(t, behave="setcookie")
    for body in (chat(), chat(False)):
        answers = ask(weir, body), ask(weir, body)
        assert state(answers[1]) == "HIT" and not any(x.header("set-cookie") for x in answers), answers
        assert answers[1].header("x-ratelimit-limit-requests") is None, answers[1]


# ---------------------------------------------------------------- how long, how much

def test_answers_expire(t):
    fake, weir = t.pair(args=["--cache-ttl", "1s"])
    first = ask(weir, behave="events=3")
    end = time.monotonic() + 15 * Options.slow
    while True:
        answer = ask(weir, behave="events=6")
        if state(answer) == "MISS":
            break
        assert answer.body == first.body and number(answer, "age") <= 1 and time.monotonic() < end, "it never expires"
        time.sleep(0.1)
    assert answer.body != first.body and fake.stats()["requests"] == 2


def test_the_least_recently_used_answer_makes_room(t):
    _, weir = caching(t, "max_bytes: 1MiB, max_entry: 300KiB")

    def have(name):
        return state(ask(weir, chat(False, seed=name), behave="size=200000"))

    assert [have(x) for x in "abc"] == ["MISS"] * 3
    assert have("a") == "HIT"
    for name in "defg":
        assert have(name) == "MISS"
        assert weir.metric(r"^weir_cache_bytes$") <= 1 << 20
        assert have("a") == "HIT", "what is used stays"
    assert have("g") == "HIT"
    assert weir.metric(r"^weir_cache_evictions_total$") >= 2
    assert have("b") == "MISS", "what was not used longest has gone"


@limit(240)
def test_questions_by_the_thousand_do_not_grow_the_cache(t):
    _, weir = caching(t, "max_bytes: 1MiB")
    with weir.connect() as wire:
        for i in range(3000):
            wire.request("POST", CHAT, {"x-fake": "size=1000"}, chat(False, seed=i))
            assert wire.response().status == 200
            if i % 500 == 0:
                assert weir.metric(r"^weir_cache_bytes$") <= 1 << 20
    assert 100 < weir.metric(r"^weir_cache_entries$") < 1100 and weir.metric(r"^weir_cache_bytes$") <= 1 << 20
    assert states(weir, chat(False, seed=2999), chat(False, seed=0)) == ["HIT", "MISS"]


# ---------------------------------------------------------------- where it is said

def test_the_cache_from_option_environment_and_file(t):
    fake = t.fake()
    for options in ({"args": ["--cache-ttl", "10m"]}, {"env": {"WEIR_CACHE_TTL": "600s"}}, {"config": "cache: { ttl: 10m }\n"}):
        weir = t.weir(fake, **options)
        assert states(weir, None, None) == ["MISS", "HIT"], options


def test_a_cache_that_makes_no_sense_stops_the_start(t):
    config = t.dir / "x.yaml"
    for text, line in (("cache: { max_bytes: 2MiB }", 1), ("cache: { ttl: soon }", 1), ("cache:\n  ttl: 1m\n  scope: all", 3),
                       ("cache:\n  ttl: 1m\n  mode: off", 3), ("cache: { ttl: 1m, for: some }", 1), ("cache: { ttl: 1m, size: 1 }", 1),
                       ("cache: { ttl: 1m, max_bytes: 2MiB, max_entry: 3MiB }", 1),
                       ("routes:\n  - { path: /v1/embeddings, depends: [api_key, cache, validate] }", 2),
                       ("limits: { a: { limit: 1/hour } }\nroutes:\n  - { path: /v1/embeddings, depends: [api_key, cache, limit] }", 3),
                       (f"cache: {{ ttl: 1m }}\n{KEYS}routes:\n  - {{ path: /v1/embeddings, depends: [cache, api_key] }}", 6)):
        config.write_text(text + "\n")
        done = t.run("check", config)
        assert done.returncode != 0 and f"{config}:{line}:" in done.stderr + done.stdout, (text, done)
    done = t.run("run", "--cache-ttl", "soon")
    assert done.returncode != 0 and "--cache-ttl" in done.stderr, done


def test_a_route_without_cache_is_not_cached(t):
    _, weir = caching(t, more="routes:\n  - { path: /v1/completions, depends: [api_key, validate] }\n")
    body = {"model": "m", "prompt": "x"}
    assert states(weir, body, body, path="/v1/completions") == [None, None]
    assert states(weir, None, None) == ["MISS", "HIT"]


# ---------------------------------------------------------------- limits and the cache

@smoke
def test_a_hit_consumes_a_request_and_no_tokens(t):
    _, weir = caching(t, more="limits:\n  r: { limit: 4/hour }\n  t: { limit: 1000 tokens/hour }\n")
    body = chat(False, max_tokens=100)
    reserved = 100 + len(json.dumps(body)) // 4
    answers = [ask(weir, body) for _ in range(4)]
    assert [state(x) for x in answers] == ["MISS", "HIT", "HIT", "HIT"]
    assert [number(x, "x-ratelimit-remaining-requests") for x in answers] == [3, 2, 1, 0]
    left = [number(x, "x-ratelimit-remaining-tokens") for x in answers]
    # What a hit tells may have its own reservation in it or not; the twelve of the one that was generated stay.
    assert left[0] == 1000 - reserved and set(left[2:]) <= {988, 988 - reserved}, left
    answer = ask(weir, body)
    assert answer.status == 429 and answer.header("x-ratelimit-remaining-tokens") == "988", answer
    assert state(answer) is None, "a request that is refused does not get as far as the cache"


def test_a_streamed_hit_and_a_304_consume_no_tokens(t):
    _, weir = caching(t, more="limits:\n  r: { limit: 6/hour }\n  t: { limit: 1000 tokens/hour }\n")
    streamed = chat(max_tokens=10, stream_options={"include_usage": True})
    assert states(weir, streamed, streamed, streamed, behave="events=9") == ["MISS", "HIT", "HIT"]
    plain = chat(False, max_tokens=10)
    ask(weir, plain)
    tag = ask(weir, plain).header("etag")
    assert ask(weir, plain, {"if-none-match": tag}).status == 304
    answer = ask(weir, plain)
    assert answer.status == 429 and answer.header("x-ratelimit-remaining-tokens") == str(1000 - 16 - 12), answer


def test_hits_may_be_free(t):
    _, weir = caching(t, more="limits:\n  r: { limit: 3/hour }\n  t: { limit: 1000 tokens/hour }\ncount_hits: false\n")
    assert states(weir, *[chat(max_tokens=1)] * 12) == ["MISS"] + ["HIT"] * 11
    tag = (ask(weir, chat(False)), ask(weir, chat(False)))[1].header("etag")
    assert [ask(weir, chat(False), {"if-none-match": tag}).status for _ in range(5)] == [304] * 5
    assert [ask(weir, chat(False, seed=i)).status for i in range(2)] == [200, 429], "misses count"


def test_hits_give_back_their_places(t):
    fake, weir = caching(t, more="max_streams: 1\n")
    assert states(weir, *[None] * 5) == ["MISS"] + ["HIT"] * 4
    ask(weir, chat(False))
    tag = ask(weir, chat(False)).header("etag")
    assert [ask(weir, chat(False), {"if-none-match": tag}).status for _ in range(3)] == [304] * 3
    assert fake.stats()["requests"] == 2


def test_a_refused_request_does_not_get_a_stored_answer(t):
    _, weir = caching(t, more="limits:\n  r: { limit: 1/hour }\n")
    ask(weir)
    answer = ask(weir)
    assert answer.status == 429 and b"xxxx" not in answer.body and state(answer) is None


def test_headers_of_limits_on_a_hit_are_those_of_now(t):
    _, weir = caching(t, more="limits:\n  r: { limit: 9/hour }\n")
    seen = [ask(weir, chat(False)) for _ in range(3)]
    assert [x.all("x-ratelimit-remaining") for x in seen] == [["8"], ["7"], ["6"]], seen


# ---------------------------------------------------------------- what operators see

@smoke
def test_hits_in_metrics_and_log(t):
    _, weir = caching(t)
    body = chat(stream_options={"include_usage": True})
    for name, headers in (("r-miss", {}), ("r-hit", {}), ("r-off", {"x-weir-cache": "off"}), ("r-none", {"cache-control": "no-store"})):
        ask(weir, body, {"x-request-id": name, **headers}, behave="events=3")
    assert [weir.request_line(x)["cache"] for x in ("r-miss", "r-hit", "r-off", "r-none")] == ["miss", "hit", "bypass", "bypass"]
    hit = weir.request_line("r-hit")
    assert hit["status"] == 200 and hit["end"] == "finished" and hit["bytes"] == weir.request_line("r-miss")["bytes"], hit
    assert not hit.get("backend"), "no backend answered it"
    for result, reason, n in (("hit", "", 1), ("miss", "", 1), ("bypass", "off", 1), ("bypass", "no_store", 1)):
        assert weir.metric(rf'^weir_cache_requests_total{{result="{result}",reason="{reason}"}}$') == n, weir.metrics()
    assert weir.metric(r'^weir_tokens_total{.*kind="completion"}') == 9, "tokens are counted when they are generated"
    assert stores(weir) == 1 and weir.metric(r"^weir_cache_entries$") == 1
    assert weir.metric(r"^weir_cache_bytes$") > len(ask(weir, body).body)


def test_a_crowd_at_one_stored_answer(t):
    fake, weir = caching(t, args=["--workers", "2"])
    whole = ask(weir, behave="events=300,size=500").body
    wires = [weir.connect() for _ in range(40)]
    for _ in range(3):
        for wire in wires:
            wire.request("POST", CHAT, None, chat())
        for wire in wires:
            answer = wire.response()
            assert state(answer) == "HIT" and answer.body == whole
    for wire in wires:
        wire.close()
    assert fake.stats()["requests"] == 1
