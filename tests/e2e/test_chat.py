"""GET /chat: what a browser's EventSource gets."""
import fcntl
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import time
import urllib.parse

from harness import HERE, KEY, Options, Truncated, chat, events_of, free_port, limit, mono_us, smoke, wait_until
from test_leaving import bound_ms

CHAT = "/v1/chat/completions"
BROWSER = {"accept": "text/event-stream", "cache-control": "no-cache", "pragma": "no-cache"}


def url(message="Hello", **more):
    return "/chat?" + urllib.parse.urlencode({"message": message, "model": "fake-1", **more})


def ask(weir, target=None, behave="", headers=None):
    return weir.ask("GET", target or url(), {**BROWSER, **({"x-fake": behave} if behave else {}), **(headers or {})})


def blocks(body):
    """The events of a body, each as a dictionary of its fields."""
    text = body.decode()
    assert text.endswith("\n\n") or text == "", text[-200:]
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = [line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")]
        assert all(len(field) == 2 for field in fields), block
        if fields:
            found.append(dict(fields))
    return found


def names(body):
    return [block["event"] for block in blocks(body)]


def idle(weir):
    wait_until(lambda: weir.metric("^weir_requests_in_flight") == 1 and weir.metric("^weir_streams_in_flight") == 0,
               "the requests to end")


# ---------------------------------------------------------------- the answer

@smoke
def test_the_chunks_come_as_deltas_byte_for_byte(t):
    fake, weir = t.pair()
    for behave in ("", "events=300", "crlf", "comments", "split", "bytes,events=3", "big_line=300000", "length_body", "close_body",
                   "usage,events=2"):
        body = {**chat(), "stream_options": {"include_usage": True}}
        own = [data for _, data in events_of(fake.ask("POST", CHAT, {"x-fake": behave}, body).body)]
        answer = ask(weir, behave=behave)
        assert answer.status == 200 and answer.header("content-type").startswith("text/event-stream"), answer
        assert answer.header("cache-control") == "no-cache" and answer.header("x-accel-buffering") == "no", answer
        events, stream = blocks(answer.body), answer.header("x-request-id")
        own = [re.sub(r'"(id|created)":("[^"]*"|\d+)', '"":0', data) for data in own]
        got = [re.sub(r'"(id|created)":("[^"]*"|\d+)', '"":0', event["data"]) for event in events]
        assert got[:-1] == own[:-2], (behave, got[-3:], own[-3:])  # without usage alone, which weir asked for, and [DONE]
        assert [event["event"] for event in events[:-1]] == ["delta"] * (len(own) - 2)
        assert [event["id"] for event in events[:-1]] == [f"{stream}.{n + 1}" for n in range(len(own) - 2)]
        assert events[-1]["event"] == "done" and events[-1]["id"] == f"{stream}.done"
        usage, reported = json.loads(events[-1]["data"])["usage"], json.loads(own[-2])["usage"]
        assert usage["prompt_tokens"] == reported["prompt_tokens"] and usage["completion_tokens"] == reported["completion_tokens"]
        line = weir.request_line(stream)
        assert (line["method"], line["path"], line["route"]) == ("GET", "/chat", "/chat") and line["end"] == "finished", line
        assert line["completion_tokens"] == usage["completion_tokens"] and line["bytes"] == len(answer.body), line
        assert line["events"] == len(events), line


@smoke
def test_the_query_becomes_a_chat_request(t):
    fake, weir = t.pair()
    ask(weir, "/chat?message=Hi+there%21+%C3%A9%0A%22&model=fake-1&system=Be+brief&temperature=0.50&max_tokens=7&seed=3&top_p=1&x=y",
        headers={"cookie": "a=b", "origin": "http://x", "x-own": "1", "range": "bytes=0-", "if-none-match": '"x"'})
    last = fake.last()
    assert (last.method, last.target) == ("POST", CHAT), vars(last)
    assert last.json() == {"model": "fake-1", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "top_p": 1,
                           "max_tokens": 7, "seed": 3, "messages": [{"role": "system", "content": "Be brief"},
                                                                    {"role": "user", "content": 'Hi there! é\n"'}]}
    assert last.header("content-type") == "application/json" and last.header("accept") == "text/event-stream", last.headers
    assert last.header("x-own") == "1" and last.header("content-length") == str(len(last.body))
    for gone in ("cache-control", "pragma", "cookie", "origin", "range", "if-none-match"):
        assert last.header(gone) is None, (gone, last.headers)


def test_the_demo_model_needs_no_model(t):
    weir = t.weir("demo:?delay=1ms&pace=1ms")
    answer = ask(weir, "/chat?message=Hello")
    assert names(answer.body)[-1] == "done" and "Hello" in answer.body.decode(), answer
    assert '"/chat"' in weir.ask("GET", "/").body.decode()


def test_defaults_and_keys_in_the_query(t):
    fake, weir = t.pair(config=f"""
        chat: {{ model: base, system: "Be \\"kind\\"." }}
        keys: [{{ name: alice, key: {KEY} }}]
        routes: [{{ path: /chat, query_key: true }}]
        """)
    assert ask(weir, "/chat?message=Hi").status == 401 and ask(weir, "/chat?message=Hi&api_key=wrong").status == 401
    assert ask(weir, f"/chat?message=Hi&api_key={KEY}").status == 200
    last = fake.last()
    assert last.json()["model"] == "base" and last.json()["messages"][0] == {"role": "system", "content": 'Be "kind".'}, last.body
    assert last.target == CHAT and KEY not in str(last.headers) and KEY.encode() not in last.body
    assert ask(weir, f"/chat?message=Hi&model=other&system=&api_key={KEY}").status == 200
    assert fake.last().json()["model"] == "other" and len(fake.last().json()["messages"]) == 1


def test_over_http2(t):
    t.need("curl")
    _, weir = t.pair()
    done = t.curl("--http2-prior-knowledge", "-N", "-i", weir.url + url())
    head, body = done.stdout.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/2 200") and names(body) == ["delta"] * (len(blocks(body)) - 1) + ["done"], done.stdout


# ---------------------------------------------------------------- coming back

@smoke
def test_an_eventsource_that_comes_back_is_stopped(t):
    fake, weir = t.pair(keys=[KEY], args=["--limit", "1/hour"])
    for target in (url(), "/chat", url(api_key=KEY)):
        for value in ("req_1.done", "req_1.17", "", "\xff"):
            answer = ask(weir, target, headers={"last-event-id": value})
            assert answer.status == 204 and answer.body == b"" and answer.header("content-length") is None, answer
            assert answer.header("transfer-encoding") is None and answer.header("x-ratelimit-remaining") is None, answer
    assert fake.stats()["requests"] == 0
    key = {"authorization": f"Bearer {KEY}"}
    assert ask(weir, headers=key).status == 200, "the limit was not used up"
    assert ask(weir, headers=key).status == 429
    with weir.connect() as wire:  # the connection can be used again
        for _ in range(2):
            wire.request("GET", url(), {"last-event-id": "1"})
            assert wire.response().status == 204


# ---------------------------------------------------------------- refusals

def test_a_bad_query_is_told_as_fastapi_does(t):
    fake, weir = t.pair()
    answer = ask(weir, "/chat?temperature=hot&model=fake-1")
    assert answer.status == 422 and answer.header("content-type") == "application/json", answer
    assert answer.json()["detail"] == [
        {"type": "missing", "loc": ["query", "message"], "msg": "Field required", "input": None},
        {"type": "float_parsing", "loc": ["query", "temperature"],
         "msg": "Input should be a valid number, unable to parse string as a number", "input": "hot"}]
    assert answer.json()["error"]["param"] == "message" and answer.json()["error"]["type"] == "invalid_request_error"
    for query in ("", "?", "?message=", "?message=%ff", "?message=x&model=" + "m" * 300, "?message=" + "m" * 33000, "?message=x&seed=1.5"):
        answer = ask(weir, "/chat" + query + ("" if "model=" in query else "&model=fake-1" if query else ""))
        assert answer.status == 422 and answer.json()["detail"], (query[:50], answer)
    assert ask(weir, "/chat?message=x").json()["detail"][0]["loc"] == ["query", "model"]
    assert ask(weir, url("m" * 32768)).status == 200
    assert fake.stats()["requests"] == 1
    for method in ("POST", "HEAD", "PUT"):
        answer = weir.ask(method, url(), None, None if method == "HEAD" else "{}")
        assert answer.status == 405 and answer.header("allow") == "GET", answer


def test_who_asks_comes_before_what(t):
    """Without a key nothing is said about the query; a bad query counts as a request and costs nothing else."""
    fake, weir = t.pair(config=f"""
        keys:
          - {{ name: alice, key: {KEY}, models: [other], routes: [/chat] }}
        limits:
          chat: {{ limit: 3/hour, routes: [/chat] }}
        """)
    key = {"authorization": f"Bearer {KEY}"}
    assert ask(weir, "/chat").status == 401
    assert ask(weir, "/chat", headers={"authorization": "Bearer wrong"}).status == 401
    assert ask(weir, "/chat", headers=key).status == 422
    refused = ask(weir, headers=key)
    assert refused.status == 403 and refused.json()["error"]["code"] == "model_not_allowed", refused
    assert ask(weir, url(model="other"), headers=key).status == 200
    answer = ask(weir, url(model="other"), headers=key)
    assert answer.status == 429 and int(answer.header("retry-after")) > 0 and answer.json()["detail"], answer
    assert weir.ask("POST", CHAT, key, chat(model="other")).status == 403, "the key is for /chat alone"
    assert fake.stats()["requests"] == 1


def test_without_validate_the_query_is_checked_all_the_same(t):
    fake, weir = t.pair(config="routes:\n  - { path: /chat, depends: [public] }\n")
    assert ask(weir, "/chat").status == 422 and ask(weir).status == 200
    assert fake.stats()["requests"] == 1


@smoke
def test_failures_before_the_first_token_are_statuses(t):
    _, weir = t.pair()
    for behave, status in (("status=503,retry_after=7", 503), ("drop", 502), ("garbage", 502), ("events=0,end_after=0", 502)):
        answer = ask(weir, behave=behave)
        assert answer.status == status and answer.header("content-type").startswith("application/json"), (behave, answer)
        assert answer.json()["error"], answer
    nobody = t.weir(f"http://127.0.0.1:{free_port()}")
    answer = ask(nobody)
    assert answer.status == 502 and answer.json()["error"]["code"] == "backend_unreachable", answer


def test_a_backend_that_does_not_stream_is_no_stream(t):
    """Ollama and others answer what they do not understand with JSON; EventSource would not say why it failed."""
    import http.server
    import threading

    class Plain(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        weir = t.weir(f"http://127.0.0.1:{server.server_address[1]}")
        answer = ask(weir, headers={"x-request-id": "plain"})
        assert answer.status == 502 and answer.json()["error"]["code"] == "backend_failed", answer
        assert weir.request_line("plain")["end"] == "protocol"
    finally:
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------- breaks

@smoke
def test_a_stream_that_breaks_ends_with_an_error_event(t):
    _, weir = t.pair()
    for behave in ("events=9,cut_after=3", "events=9,cut_inside=3", "events=9,end_after=3", "events=9,end_inside=3", "reset_after=3",
                   "bad_chunk"):
        answer = ask(weir, behave=behave)
        events, stream = blocks(answer.body), answer.header("x-request-id")
        assert answer.status == 200 and names(answer.body) == ["delta"] * (len(events) - 1) + ["error"], (behave, answer.body)
        assert events[-1]["id"] == f"{stream}.error" and json.loads(events[-1]["data"])["error"]["code"] == "backend_failed", events[-1]
        assert weir.request_line(stream)["end"] not in ("finished", "client_left"), behave
    answer = ask(weir, behave="error_event=2")
    assert names(answer.body) == ["delta"] * (len(blocks(answer.body)) - 1) + ["error"], answer.body
    assert json.loads(blocks(answer.body)[-1]["data"])["error"]["message"] == "fake trouble"


def test_errors_after_an_early_head_have_an_id(t):
    """Else an EventSource would ask again, and again."""
    _, weir = t.pair(config="early_head: 100ms\n")
    for behave in ("delay_ms=1500,status=500", "delay_ms=1500,drop", "first_ms=1500,cut_after=0"):
        answer = ask(weir, behave=behave)
        events = blocks(answer.body)
        assert answer.status == 200 and answer.body.startswith(b": ping\n"), (behave, answer)
        assert [event["event"] for event in events] == ["error"], (behave, answer.body)
        assert events[0]["id"] == answer.header("x-request-id") + ".error", (behave, answer)
    answer = ask(weir, behave="delay_ms=1500")
    assert names(answer.body)[-1] == "done", answer.body


def test_pings_stand_between_events(t):
    _, weir = t.pair(config="sse_ping: 100ms\n")
    answer = ask(weir, behave="events=3,pace_ms=350,bytes")
    assert names(answer.body)[-1] == "done" and answer.body.count(b": ping\n") >= 3, answer.body
    for ping in re.finditer(b": ping\n", answer.body):
        before = answer.body[:ping.start()]
        assert before.endswith((b"\n\n", b": ping\n")) or not before, answer.body


def test_a_drain_tells_the_reader(t):
    fake, weir = t.pair(args=["--drain-timeout", "300ms"])
    with weir.connect() as wire:
        wire.request("GET", url(), {"x-fake": "events=9,stall_after=3"})
        pieces, text = wire.pieces(wire.head()), b""
        while text.count(b"event: delta") < 3:
            text += next(pieces)
        weir.signal()
        for piece in pieces:
            text += piece
    assert names(text)[-1] == "error" and json.loads(blocks(text)[-1]["data"])["error"]["code"] == "gateway_ending", text
    fake.wait_aborts()


# ---------------------------------------------------------------- readers

def left_within(t, behave, until):
    fake, weir = t.pair()
    took = []
    for turn in range(1, 6):
        wire = weir.connect()
        wire.request("GET", url(), {"x-fake": behave})
        fake.wait_requests(turn)
        if until:
            pieces, text = wire.pieces(wire.head()), b""
            while text.count(b"event: delta") < until:
                text += next(pieces)
        else:
            time.sleep(0.05)
        left = mono_us()
        wire.close()
        took.append((fake.wait_aborts(turn)["last_abort_us"] - left) / 1000)
    assert statistics.median(took) <= bound_ms(), took
    wait_until(lambda: sum(1 for x in weir.log_lines() if x.get("end") == "client_left") == 5, "log lines of the five that left")
    idle(weir)


@smoke
def test_leaving_cancels_the_backend(t):
    left_within(t, "events=100000,pace_ms=10", 3)


def test_leaving_before_anything_came_cancels_the_backend(t):
    left_within(t, "delay_ms=60000", 0)


def test_leaving_a_silent_backend_cancels_it(t):
    left_within(t, "events=9,stall_after=3", 3)


@smoke
def test_a_stalled_reader_pauses_the_backend_and_is_cut_off(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake, config="send_timeout: 1s\nsse_ping: 0s\n")
    with weir.connect(rcvbuf=4096) as wire:
        wire.request("GET", url(), {"x-fake": "flood,events=200000,size=1000", "x-request-id": "stalled"})
        fake.wait_aborts()
        idle(weir)
        head, text = wire.head(), b""
        try:
            for piece in wire.pieces(head):
                text += piece
            raise AssertionError("the answer ended as if it were whole")
        except Truncated as cut:
            assert names(cut.body[:cut.body.rfind(b"\n\n") + 2]).count("delta") > 3
    line = weir.request_line("stalled")
    assert line["end"] == "send_timeout" and line["bytes"] < 16000000, line


def test_a_slow_reader_gets_everything(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake)
    with weir.connect(rcvbuf=4096) as wire:
        wire.request("GET", url(), {"x-fake": "flood,events=20000,size=200"})
        time.sleep(0.3)
        answer = wire.response()
    events = blocks(answer.body)
    assert events[-1]["event"] == "done" and len(events) > 20000
    assert [int(event["id"].rsplit(".", 1)[1]) for event in events[:-1]] == list(range(1, len(events)))


# ---------------------------------------------------------------- the cache

@smoke
def test_answers_are_cached_whatever_the_browser_says(t):
    fake, weir = t.pair(config="cache: { ttl: 10m }\n")
    first, second = ask(weir, behave="events=2000"), ask(weir)
    assert (first.header("x-cache"), second.header("x-cache")) == ("MISS", "HIT") and second.header("age") is not None, second
    assert fake.stats()["requests"] == 1
    ids = [answer.header("x-request-id").encode() for answer in (first, second)]
    assert ids[0] != ids[1] and second.body == first.body.replace(ids[0], ids[1])
    assert ask(weir, url(x="1")).header("x-cache") == "HIT", "what means nothing changes nothing"
    assert ask(weir, url(temperature="0.0")).header("x-cache") == "MISS"
    assert ask(weir, url(temperature="0")).header("x-cache") == "HIT"
    assert ask(weir, headers={"x-weir-cache": "off"}).header("x-cache") == "BYPASS"
    assert ask(weir, url("broken"), behave="cut_after=3").header("x-cache") == "MISS"
    assert ask(weir, url("broken")).header("x-cache") == "MISS", "what broke was not kept"


def test_the_cache_is_that_of_chat_completions(t):
    fake, weir = t.pair(config="cache: { ttl: 10m }\n")
    body = {"messages": [{"content": "Hello", "role": "user"}], "model": "fake-1", "stream": True, "stream_options": {"include_usage": True}}
    plain = weir.ask("POST", CHAT, None, body)
    assert plain.header("x-cache") == "MISS"
    answer = ask(weir)
    assert answer.header("x-cache") == "HIT" and names(answer.body)[-1] == "done", answer
    data = [data for _, data in events_of(plain.body)]
    assert [event["data"] for event in blocks(answer.body)][:-1] == data[:-2]
    assert ask(weir, url("Other")).header("x-cache") == "MISS"
    body["messages"][0]["content"] = "Other"
    again = weir.ask("POST", CHAT, None, body)
    assert again.header("x-cache") == "HIT" and again.body.endswith(b"data: [DONE]\n\n"), again
    assert fake.stats()["requests"] == 2


def test_a_reader_that_leaves_a_hit_leaves_nothing_behind(t):
    _, weir = t.pair(config="cache: { ttl: 10m }\n")
    assert ask(weir, behave="flood,events=20000,size=200").status == 200
    for _ in range(5):
        with weir.connect(rcvbuf=4096) as wire:
            wire.request("GET", url())
            assert wire.head().header("x-cache") == "HIT"
    idle(weir)


# ---------------------------------------------------------------- the real thing

VERSION = "4.1.0"


def package(t):
    """The directory with Node's eventsource in it; installed once, outside the tree."""
    t.need("node")
    t.need("npm")
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "weir-tests" / f"eventsource-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            t.npm(home, f"eventsource@{VERSION}")
            (home / "complete").touch()
    return home


def example():
    """The browser's example in README.md, as it stands there."""
    readme = (HERE.parent.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```html\n(.*?EventSource.*?)```", readme, re.DOTALL)
    assert found, "README.md has no example"
    return found[1]


def run_node(t, weir, script):
    home = package(t)
    path = home / f"{t.dir.name}.mjs"
    path.write_text("import { EventSource } from 'eventsource';\n" + script)
    try:
        done = subprocess.run(["node", path, weir.url], capture_output=True, text=True, timeout=120 * Options.slow, check=False)
    finally:
        os.unlink(path)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@limit(300)
def test_the_example_of_the_readme_runs_in_node(t):
    weir = t.weir("demo:?delay=1ms&pace=1ms")
    script = re.search(r"<script>(.*)</script>", example(), re.DOTALL)[1]
    out = run_node(t, weir, """
        const base = process.argv[2], Real = EventSource;
        let shown = '', source;
        globalThis.document = { body: { append: (...texts) => { shown += texts.join(''); } } };
        globalThis.EventSource = class extends Real { constructor(url) { super(base + url); source = this; } };
        (0, eval)(SCRIPT);
        const wait = setInterval(() => {
            if (source.readyState !== Real.CLOSED) return;
            clearInterval(wait);
            console.log(JSON.stringify(shown));
        }, 20);
        """.replace("SCRIPT", json.dumps(script)))
    assert "Hello, weir!" in json.loads(out) and "undefined" not in out, out


@limit(300)
def test_an_eventsource_that_is_not_closed_does_not_ask_twice(t):
    fake, weir = t.pair()
    out = run_node(t, weir, """
        const source = new EventSource(process.argv[2] + '/chat?message=Hello&model=fake-1'), seen = [];
        for (const name of ['delta', 'done', 'error'])
            source.addEventListener(name, (e) => seen.push([name, e.data ?? null, e.code ?? null]));
        const wait = setInterval(() => {
            if (source.readyState !== EventSource.CLOSED) return;
            clearInterval(wait);
            console.log(JSON.stringify(seen));
        }, 20);
        """)
    seen = json.loads(out)
    kinds = [name for name, _, _ in seen]
    assert kinds[0] == "delta" and kinds.count("done") == 1 and seen[-1][2] == 204, seen
    assert fake.stats()["requests"] == 1


@limit(300)
def test_the_example_of_the_readme_runs_in_chromium(t):
    chromium = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
    if chromium is None:
        t.skip("chromium is not installed")
    weir = t.weir("demo:?delay=1ms&pace=1ms", config="cors: { origins: ['*'] }\n")
    page = t.dir / "page.html"
    page.write_text(example().replace('"/chat?', f'"{weir.url}/chat?'))
    done = subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={t.dir}/profile",
                           "--virtual-time-budget=4000", "--dump-dom", page.as_uri()],
                          capture_output=True, text=True, timeout=120 * Options.slow, check=False)
    assert "You said: Hello, weir!" in done.stdout, (done.stdout, done.stderr[-500:])


# ---------------------------------------------------------------- what is kept quiet

def test_queries_are_not_logged(t):
    _, weir = t.pair()
    for target in (url("a-secret-question"), "/chat?temperature=a-secret-question", "/chat?message=a-secret-question&model=%ff"):
        ask(weir, target)
    weir.stop()
    assert "a-secret-question" not in weir.log()
