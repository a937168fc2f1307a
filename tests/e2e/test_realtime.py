"""GET /v1/realtime: a client's WebSocket carried through to a backend's."""
import json
import os
import socket
import threading
import time

from harness import KEY, Options, free_port, limit, smoke, wait_until
from websocket import WebSocket
from ws_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from ws_server import Server, echo

PATH = "/v1/realtime?model=gpt-realtime"
BACKEND_KEY = "sk-backend-secret"


def through(weir, path=PATH, **headers):
    options = headers.pop("options", {})
    ws = WebSocket(weir, path, headers=headers, **options)
    return ws


def opened(weir, path=PATH, **headers):
    ws = through(weir, path, **headers)
    assert ws.status == 101, (ws.status, ws.headers)
    return ws


def refused(weir, path=PATH, **headers):
    """The status and body of a refused handshake."""
    with weir.connect() as wire:
        head = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13",
                "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", **{name.replace("_", "-"): value for name, value in headers.items()}}
        wire.request("GET", path, head)
        answer = wire.response()
    assert answer.status != 101 and answer.header("content-type") == "application/json", answer
    return answer


def patient():
    """Enough time for a handshake in a slow build too."""
    return f"timeouts: {{ connect: {int(20 * Options.slow)}s }}"


def pair(t, serve=echo, cert=None, config="", backend="", **options):
    server = Server(serve, cert)
    weir = t.weir(config=f"backends:\n  - {{ name: rt, url: \"{options.pop('url', server.url)}\" {backend} }}\n{config}", **options)
    return server, weir


# ---------------------------------------------------------------- messages

@smoke
def test_messages_pass_in_both_directions(t):
    server, weir = pair(t)
    with server, opened(weir) as ws:
        for opcode, payload in ((TEXT, b"hello"), (BINARY, bytes(range(256))), (TEXT, b""), (BINARY, b""), (TEXT, "ü€😀".encode() * 5000),
                                (BINARY, os.urandom(1000000)), (TEXT, b"x" * 4096), (TEXT, b"y" * 65536)):
            ws.send(opcode, payload)
            assert ws.read() == (opcode, payload), (opcode, len(payload))
        assert ws.close(1000, "bye") == (1000, "bye")
        wait_until(lambda: server.ended == 1, "the backend's side to end")


def test_fragments_keep_the_bounds_of_their_messages(t):
    server, weir = pair(t)
    with server, opened(weir) as ws:
        ws.raw(frame(TEXT, b"a", fin=False) + frame(CONT, b"", fin=False) + frame(PING, b"mid") + frame(CONT, b"b", fin=False) +
               frame(CONT, b"c") + frame(BINARY, b"next"))
        got = [ws.read() for _ in range(3)]
        assert sorted(got) == sorted([(PONG, b"mid"), (TEXT, b"abc"), (BINARY, b"next")]), got
        text = "😀".encode()
        ws.raw(frame(TEXT, text[:1], fin=False) + frame(CONT, text[1:3], fin=False) + frame(CONT, text[3:]))
        assert ws.read() == (TEXT, text)
        for size in (1, 100, 1000):
            ws.raw(b"".join(frame(TEXT if i == 0 else CONT, b"z" * size, fin=i == 99) for i in range(100)))
            assert ws.read() == (TEXT, b"z" * size * 100)


def test_fragments_of_the_backend(t):
    def serve(peer):
        peer.accept()
        text = "ü€😀".encode()
        peer.raw(frame(TEXT, text[:1], fin=False, masked=False) + frame(CONT, b"", fin=False, masked=False) +
                 frame(PING, b"mid", masked=False) + frame(CONT, text[1:4], fin=False, masked=False) + frame(CONT, text[4:], masked=False))
        peer.send(BINARY, b"q" * 100000)
        peer.raw(frame(BINARY, b"", fin=False, masked=False) + b"".join(frame(CONT, b"", fin=False, masked=False) for _ in range(10000)) +
                 frame(CONT, b"", masked=False))
        peer.raw(b"".join(frame(BINARY if i == 0 else CONT, b"t", fin=i == 9999, masked=False) for i in range(10000)))
        assert peer.read() == (TEXT, b"all")
        assert peer.pongs == [b"mid"], peer.pongs
        peer.close(1000)
    server, weir = pair(t, serve)
    with server, opened(weir) as ws:
        assert ws.read() == (TEXT, "ü€😀".encode())
        assert ws.read() == (BINARY, b"q" * 100000)
        assert ws.read() == (BINARY, b"")
        assert ws.read() == (BINARY, b"t" * 10000)
        ws.text("all")
        assert ws.read_close()[0] == 1000


def test_what_the_backend_says_first_is_not_lost(t):
    def serve(peer):
        peer.accept()
        for n in range(200):
            peer.text(json.dumps({"type": "session.created", "n": n}))
        peer.read_close()
    server, weir = pair(t, serve)
    with server, opened(weir) as ws:
        assert [json.loads(ws.read_text())["n"] for _ in range(200)] == list(range(200))


@smoke
def test_order_is_kept_when_both_talk_at_once(t):
    def serve(peer):
        peer.accept()
        threading.Thread(target=lambda: [peer.send(BINARY, n.to_bytes(4, "big") * 500) for n in range(2000)], daemon=True).start()
        for n in range(2000):
            assert peer.read() == (BINARY, n.to_bytes(4, "big") * 500)
        peer.text("done")
        peer.read_close()
    server, weir = pair(t, serve)
    with server, opened(weir) as ws:
        threading.Thread(target=lambda: [ws.send(BINARY, n.to_bytes(4, "big") * 500) for n in range(2000)], daemon=True).start()
        got = [ws.read() for _ in range(2001)]
        assert [p for p in got if p != (TEXT, b"done")] == [(BINARY, n.to_bytes(4, "big") * 500) for n in range(2000)]



# ---------------------------------------------------------------- what the backend gets

def test_the_backend_gets_its_own_key_and_none_of_the_clients(t):
    server, weir = pair(t, backend=f", api_key: {BACKEND_KEY}, models: {{ gpt-realtime: 'real/1' }}, headers: {{ OpenAI-Beta: realtime=v1 }}",
                        config=f"keys: [{{ name: alice, key: {KEY} }}]\nroutes: [{{ path: /v1/realtime, query_key: true }}]\n")
    with server:
        ways = [({"authorization": f"Bearer {KEY}"}, ""), ({"x-api-key": KEY}, ""), ({"api-key": KEY}, ""),
                ({"sec-websocket-protocol": f"realtime, openai-insecure-api-key.{KEY}, openai-beta.realtime-v1, openai-organization.o"}, ""),
                ({}, f"&api_key={KEY}")]
        for headers, query in ways:
            path = f"/v1/realtime?x=%20a+b&model=gpt-realtime{query}&model=gpt-realtime&y"
            with opened(weir, path, **headers, cookie="a=b", origin="http://x", openai_project="p1", x_request_id="abc",
                        x_weir_cache="off") as ws:
                ws.text("hi")
                assert ws.read_text() == "hi"
                offered = "sec-websocket-protocol" in headers
                assert ws.headers.get("sec-websocket-protocol") == ("realtime" if offered else None), ws.headers
                assert ws.headers["x-request-id"] == "abc"
            peer = server.peers[-1]
            assert peer.target == "/v1/realtime?model=real%2F1&x=%20a+b&y=", peer.target
            assert peer.headers["authorization"] == f"Bearer {BACKEND_KEY}" and peer.headers["host"] == f"127.0.0.1:{server.port}"
            assert KEY not in str(peer.headers) + peer.target, peer.headers
            assert peer.headers["openai-beta"] == "realtime=v1" and peer.headers["openai-project"] == "p1", peer.headers
            assert peer.headers["x-request-id"] == "abc" and peer.headers["traceparent"].startswith("00-")
            assert peer.headers.get("sec-websocket-protocol") == ("realtime, openai-beta.realtime-v1" if offered else None), peer.headers
            for gone in ("cookie", "origin", "x-api-key", "api-key", "x-weir-cache", "x-forwarded-for"):
                assert gone not in peer.headers, (gone, peer.headers)


def test_an_open_gateway_passes_the_clients_credentials_on(t):
    server, weir = pair(t)
    with server:
        with opened(weir, authorization="Bearer own", sec_websocket_protocol="realtime, openai-insecure-api-key.own"):
            peer = server.peers[-1]
            assert peer.headers["authorization"] == "Bearer own"
            assert peer.headers["sec-websocket-protocol"] == "realtime, openai-insecure-api-key.own"


def test_a_url_with_a_path_and_a_query(t):
    with Server() as server:
        weir = t.weir(config=f"backends: [{{ name: rt, url: '{server.url}/openai/v1?api-version=7' }}]\n")
        for path, target in (("/v1/realtime?model=m&intent=x", "/openai/v1/realtime?api-version=7&model=m&intent=x"),
                             ("/v1/realtime", "/openai/v1/realtime?api-version=7")):
            with opened(weir, path):
                assert server.peers[-1].target == target


def test_the_backend_is_chosen_by_model(t):
    with Server() as one, Server() as two:
        weir = t.weir(config=f"""
            backends:
              - {{ name: demo, url: "demo:" }}
              - {{ name: one, url: "{one.url}", models: [a] }}
              - {{ name: two, url: "{two.url}", models: ["b*"] }}
            """)
        for model, server, other in (("a", one, two), ("bb", two, one)):
            before = len(other.peers)
            with opened(weir, f"/v1/realtime?model={model}"):
                assert server.peers[-1].target == f"/v1/realtime?model={model}" and len(other.peers) == before
        answer = refused(weir, "/v1/realtime?model=nobodys")
        assert answer.status == 404 and answer.json()["error"]["code"] == "model_not_found", answer


def test_a_backend_that_is_down_gives_way_to_the_next(t):
    with Server() as server:
        weir = t.weir(config=f"backends: [{{ name: down, url: 'http://127.0.0.1:{free_port()}' }}, {{ name: up, url: '{server.url}' }}]\n")
        for n in range(4):
            with opened(weir, x_request_id=f"try{n}") as ws:
                ws.text("x")
                assert ws.read_text() == "x"
        assert {weir.request_line(f"try{n}").get("attempts", 1) for n in range(4)} >= {2}


@smoke
def test_names_are_resolved(t):
    with Server() as server:
        weir = t.weir(config=f"backends: [{{ name: rt, url: 'http://localhost:{server.port}', {patient()} }}]\n")
        with opened(weir) as ws:
            ws.text("x")
            assert ws.read_text() == "x" and server.peers[0].headers["host"] == f"localhost:{server.port}"
        nowhere = t.weir("http://name.invalid")
        answer = refused(nowhere)
        assert answer.status == 502 and answer.json()["error"]["code"] == "backend_unreachable", answer


def test_a_proxy_in_the_environment_is_not_used(t):
    with Server() as server:
        weir = t.weir(server.url, env={"http_proxy": f"http://127.0.0.1:{free_port()}", "HTTP_PROXY": "http://127.0.0.1:1"})
        with opened(weir) as ws:
            ws.text("x")
            assert ws.read_text() == "x"


# ---------------------------------------------------------------- before the upgrade

@smoke
def test_refusals_come_before_the_upgrade_and_before_the_backend(t):
    server, weir = pair(t, config=f"""
keys:
  - {{ name: alice, key: {KEY} }}
  - {{ name: bob, key: bob-key-0123456789, models: [other] }}
  - {{ name: eve, key: eve-key-0123456789, routes: [/v1/models] }}
limits: {{ rt: {{ limit: 3/hour, routes: [/v1/realtime] }} }}
""")
    with server:
        assert refused(weir).status == 401
        wrong = refused(weir, authorization="Bearer wrong")
        assert wrong.status == 401 and wrong.json()["error"]["code"] == "invalid_api_key"
        assert refused(weir, authorization="Bearer eve-key-0123456789").status == 403
        bob = refused(weir, authorization="Bearer bob-key-0123456789")
        assert bob.status == 403 and bob.json()["error"]["code"] == "model_not_allowed", bob
        key = f"Bearer {KEY}"
        assert refused(weir, PATH + "%ff", authorization=key).status == 400
        assert server.peers == []
        with opened(weir, authorization=key) as first, opened(weir, authorization=key) as ws:
            assert (first.headers["x-ratelimit-remaining"], ws.headers["x-ratelimit-remaining"]) == ("1", "0"), ws.headers
            limited = refused(weir, authorization=key)
            assert limited.status == 429 and int(limited.header("retry-after")) > 0, limited
        assert len(server.peers) == 2


def test_what_is_no_handshake_is_refused(t):
    server, weir = pair(t)
    with server:
        assert weir.ask("GET", PATH).status == 426
        assert refused(weir, sec_websocket_version="12").status == 426
        assert refused(weir, sec_websocket_key="short").status == 400
        assert weir.ask("POST", PATH, None, "{}").status == 405
        assert refused(weir, PATH + "&x=" + "y" * 3000).status == 431
        assert refused(weir, x_long="y" * 9000).status == 431
        assert server.peers == []


@smoke
def test_a_backend_that_fails_the_handshake_is_an_honest_status(t):
    import base64
    modes = {
        "401 Unauthorized": 401, "403 Forbidden": 403, "404 Not Found": 404, "429 Too Many Requests": 429, "500 Internal Server Error": 500,
        "503 Service Unavailable": 503, "200 OK": 502, "302 Found\r\nLocation: http://127.0.0.1:1/": 502, "426 Upgrade Required": 426,
    }
    mode = [None]

    def serve(peer):
        if callable(mode[0]):
            mode[0](peer)
        else:
            peer.answer(mode[0], body=b"secret words")
    server, weir = pair(t, serve)
    with server:
        for mode[0], status in modes.items():
            answer = refused(weir)
            assert answer.status == status and "secret" not in answer.body.decode(), (mode, answer)
        wrong = base64.b64encode(b"x" * 20).decode()
        for mode[0] in (lambda peer: peer.accept(key=wrong),
                        lambda peer: peer.accept(protocol="unasked"),
                        lambda peer: peer.accept(headers=["Sec-WebSocket-Extensions: permessage-deflate"]),
                        lambda peer: peer.raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
                        lambda peer: peer.raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"),
                        lambda peer: peer.raw(b"HTTP/1.1 101 X\r\nX-Long: " + b"y" * 100000 + b"\r\n\r\n"),
                        lambda peer: peer.raw(b"garbage\r\n\r\n" * 10),
                        lambda peer: peer.raw(b"\0" * 1000),
                        lambda peer: peer.raw(b"HTTP/1.1 101 Switch"),
                        lambda peer: None):
            answer = refused(weir)
            assert answer.status == 502 and answer.json()["error"]["type"] == "server_error", answer
        mode[0] = echo
        with opened(weir) as ws:
            ws.text("still here")
            assert ws.read_text() == "still here"
    down = t.weir(f"http://127.0.0.1:{free_port()}")
    assert refused(down).status == 502


def test_a_backend_that_does_not_answer_is_timed_out(t):
    def silent(peer):
        peer.sock.recv(1)
    server, weir = pair(t, silent, backend=", timeouts: { connect: 300ms }")
    with server:
        answer = refused(weir)
        assert answer.status == 504 and answer.json()["error"]["code"] == "backend_timeout", answer
        wait_until(lambda: server.ended == 1, "the backend's connection to be let go")
        held = socket.socket()  # takes no connections beyond its backlog, and reads none
        held.bind(("127.0.0.1", 0))
        held.listen(0)
        weir = t.weir(config=f"backends: [{{ name: x, url: 'http://127.0.0.1:{held.getsockname()[1]}', timeouts: {{ connect: 300ms }} }}]\n")
        assert refused(weir).status == 504
        held.close()


def test_a_client_that_leaves_during_the_handshake_ends_it(t):
    waiting = threading.Event()

    def silent(peer):
        waiting.set()
        peer.sock.recv(1)
    server, weir = pair(t, silent)
    with server:
        for n in range(3):
            with weir.connect() as wire:
                wire.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
                assert waiting.wait(10)
                waiting.clear()
            wait_until(lambda n=n: server.ended == n + 1, "the backend to be let go")
        wait_until(lambda: weir.metric("^weir_requests_in_flight") == 1, "the requests to end")


# ---------------------------------------------------------------- limits

@smoke
def test_messages_over_a_limit_are_dropped_and_the_client_is_told(t):
    server, weir = pair(t, config="""
limits:
  talk: { limit: 3/hour, per: message, routes: [/v1/realtime] }
  open: { limit: 100/hour, routes: [/v1/realtime] }
""")
    with server, opened(weir) as ws:
        assert ws.headers["x-ratelimit-limit"] == "100", ws.headers
        for n in range(3):
            ws.raw(frame(TEXT, str(n), fin=False) + frame(CONT, b"!"))
            assert ws.read_text() == f"{n}!"
        ids = set()
        for payload in (b"over", b"", b"x" * 100000):
            ws.raw(frame(BINARY, payload, fin=False) + frame(CONT, payload))
            event = json.loads(ws.read_text())
            ids.add(event.pop("event_id"))
            assert event == {"type": "error", "error": {
                "type": "requests", "code": "rate_limit_exceeded", "message": "Rate limit exceeded: 3 per 1 hour", "param": None,
                "event_id": None}}, event
        assert len(ids) == 3
        assert ws.close(1000, "") == (1000, "")
        with opened(weir) as again:  # the same client's count
            again.text("still over")
            assert json.loads(again.read_text())["type"] == "error"
    assert weir.metric(r'^weir_limit.*limit="talk"') >= 7, weir.metrics()


def test_an_error_event_waits_for_the_backends_message(t):
    go = threading.Event()

    def serve(peer):
        peer.accept()
        assert peer.read() == (TEXT, b"first")
        peer.raw(frame(TEXT, b"begin ", fin=False, masked=False))
        go.wait(10)
        peer.raw(frame(CONT, b"end", masked=False))
        opcode, payload = peer.read()
        assert opcode == CLOSE, "nothing over the limit came through"
        peer.send(CLOSE, payload)
    server, weir = pair(t, serve, config="limits: { talk: { limit: 1/hour, per: message, routes: [/v1/realtime], message: Slowly! } }\n")
    with server, opened(weir) as ws:
        ws.text("first")
        assert ws.read_frame() == (False, TEXT, b"begin ")
        for _ in range(5):
            ws.text("over")
        ws.send(PING, b"through")
        assert ws.read_frame() == (True, PONG, b"through")
        go.set()
        assert ws.read_frame() == (True, CONT, b"end")
        event = json.loads(ws.read_text())
        assert event["error"]["message"] == "Rate limit exceeded: Slowly!", event
        ws.close(1000)


def test_a_flood_over_the_limit_is_held_back(t):
    server, weir = pair(t, config="limits: { talk: { limit: 1/hour, per: message, routes: [/v1/realtime] } }\nsend_timeout: 1s\n")
    with server, opened(weir, options={"receive_buffer": 4096}) as ws:
        ws.sock.settimeout(20)
        try:
            for _ in range(100000):
                ws.text("x" * 100)
            raise AssertionError("weir took everything from a client that reads nothing")
        except (OSError, TimeoutError):
            pass
    line = wait_until(lambda: next((x for x in weir.log_lines() if x.get("msg") == "websocket"), None), "the log line")
    assert line["code"] in (1008, 1013), line


def test_a_socket_holds_its_place_as_long_as_it_lasts(t):
    server, weir = pair(t, config=f"keys: [{{ name: alice, key: {KEY}, max_streams: 2 }}]\n")
    key = f"Bearer {KEY}"
    with server:
        with opened(weir, authorization=key) as one, opened(weir, authorization=key):
            limited = refused(weir, authorization=key)
            assert limited.status == 429 and limited.json()["error"]["code"] == "concurrency_limit_exceeded", limited
            one.close(1000)

            def again():
                ws = through(weir, authorization=key)
                ws.drop()
                return ws.status == 101
            wait_until(again, "the place to be free")


def test_what_cannot_be_counted_by_message_is_refused_at_the_start(t):
    for text, words in (("limit: 5 tokens/minute, per: message, routes: [/v1/realtime]", "counts tokens per message"),
                        ("limit: 5/minute, per: message", "expected routes: [/v1/realtime]"),
                        ("limit: 5/minute, per: message, routes: [/v1/*]", "expected routes: [/v1/realtime]"),
                        ("limit: 5/minute, per: message, by: user, routes: [/v1/realtime]", "names no user"),
                        ("limit: 5/minute, per: minute", "per")):
        path = t.dir / "bad.yaml"
        path.write_text(f"limits: {{ talk: {{ {text} }} }}\n")
        done = t.run("check", path)
        assert done.returncode != 0 and words in done.stderr + done.stdout, (text, done)


# ---------------------------------------------------------------- TLS

@smoke
def test_the_certificates_name_is_checked(t):
    good, other = t.authority.issue("good", "DNS:localhost", "IP:127.0.0.1", "IP:::1"), t.authority.issue("other", "DNS:elsewhere.example")
    ca = t.authority.ca
    with Server(cert=good) as server, Server(cert=other) as wrong:
        def weir_to(host, where, tls):
            return t.weir(config=f"backends: [{{ name: rt, url: 'https://{host}:{where.port}', tls: {tls}, {patient()} }}]\n")
        for host in ("localhost", "127.0.0.1"):
            weir = weir_to(host, server, f"{{ ca: {ca} }}")
            with opened(weir) as ws:
                ws.send(BINARY, b"x" * 300000)
                assert ws.read() == (BINARY, b"x" * 300000)
                assert ws.close(1000) == (1000, "")
            weir = weir_to(host, wrong, f"{{ ca: {ca} }}")  # a good certificate for another name
            assert refused(weir, x_request_id="wrong-name").status == 502
            assert weir.request_line("wrong-name")["end"] in ("connect", "client_left")  # the client goes at once
            assert refused(weir_to(host, server, "{ }")).status == 502, "an authority that nobody knows"
            with opened(weir_to(host, wrong, "{ verify: false }")) as ws:
                ws.text("as asked")
                assert ws.read_text() == "as asked"
        assert len(wrong.peers) == 2, "nothing was said to the wrong server"


def test_a_self_signed_certificate_is_refused(t):
    import subprocess
    cert, key = t.dir / "self.pem", t.dir / "self.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)

    class SelfSigned:
        pass
    own = SelfSigned()
    own.cert, own.key = cert, key
    with Server(cert=own) as server:
        url = f"https://localhost:{server.port}"
        assert refused(t.weir(url)).status == 502 and not server.peers
        with opened(t.weir(config=f"backends: [{{ name: rt, url: '{url}', tls: {{ ca: {cert} }} }}]\n")) as ws:
            ws.text("trusted by name")
            assert ws.read_text() == "trusted by name"


def test_ipv6_and_its_name(t):
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        t.skip("no IPv6 here")
    good = t.authority.issue("good", "IP:::1")
    with Server(host="::1") as clear, Server(cert=good, host="::1") as secure:
        for server, tls in ((clear, ""), (secure, f", tls: {{ ca: {t.authority.ca} }}")):
            weir = t.weir(config=f"backends: [{{ name: rt, url: '{server.url}'{tls} }}]\n")
            with opened(weir) as ws:
                ws.text("x")
                assert ws.read_text() == "x" and server.peers[0].headers["host"] == f"[::1]:{server.port}"


def test_wss_in_front_and_behind(t):
    with Server(cert=t.certificate()) as server:
        weir = t.weir(config=f"backends: [{{ name: rt, url: '{server.url}', tls: {{ ca: {t.authority.ca} }} }}]\n", tls=t.certificate())
        with opened(weir) as ws:
            for size in (1, 5000, 200000):
                ws.send(BINARY, b"x" * size)
                assert ws.read() == (BINARY, b"x" * size)
            assert ws.close(3001, "done") == (3001, "done")


# ---------------------------------------------------------------- ends

@smoke
def test_close_codes_and_reasons_are_carried_across(t):
    told = []

    def serve(peer):
        peer.accept()
        opcode, payload = peer.read()
        if opcode == CLOSE:
            told.append((int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (1005, ""))
            peer.send(CLOSE, payload)
            return
        code, _, reason = payload.decode().partition(" ")
        if code == "gone":
            return
        peer.close(int(code), reason)
        peer.read_close()
    server, weir = pair(t, serve)
    with server:
        for code, reason, seen in ((1000, "bye", None), (1001, "", None), (1003, "ä" * 60, None), (1008, "policy", None), (1009, "", None),
                                   (1011, "trouble", None), (3000, "invalid_request_error.invalid_api_key", None), (4999, "x" * 123, None),
                                   (0, "", (1000, "")), (1002, "mine", (1011, "mine")), (1012, "restart", (1011, "restart")),
                                   (1006, "never", (1011, "never")), (999, "bad", (1011, "bad"))):
            with opened(weir, x_request_id=f"c{code}") as ws:
                ws.text(f"{code} {reason}")
                assert ws.read_close() == (seen or (code, reason)), code
                ws.send(CLOSE, b"")
                ws.read_end()
        with opened(weir) as ws:
            ws.text("gone")
            assert ws.read_close()[0] == 1011
        for code, reason, seen in ((1000, "bye", None), (1001, "", None), (3000, "ä" * 60, None), (4000, "", None), (0, "", (1000, ""))):
            told.clear()
            with opened(weir) as ws:
                assert ws.close(code, reason) == ((code, reason) if code else (1000, "")) or not code
            wait_until(lambda: told, "the backend to hear of it")
            assert told == [seen or (code, reason)], (told, code)
        told.clear()
        opened(weir).drop()
        wait_until(lambda: told, "the backend to hear of the client that left")
        assert told[0][0] == 1001, told
        wait_until(lambda: server.ended == len(server.peers), "all connections to end")
    line = next(x for x in weir.log_lines() if x.get("msg") == "websocket" and x["request_id"] == "c1008")
    assert line["code"] == 1008 and line["reason"] == "policy" and line["closed_by"] == "gateway", line


def test_what_was_said_before_a_close_arrives(t):
    heard = []

    def serve(peer):
        peer.accept()
        while True:
            opcode, payload = peer.read()
            heard.append((opcode, payload))
            if opcode == CLOSE:
                peer.send(CLOSE, payload)
                return
            if payload == b"go":
                for n in range(300):
                    peer.send(BINARY, bytes([n % 256]) * 3000)
                peer.close(4001, "all said")
                peer.read_close()
                return
    server, weir = pair(t, serve)
    with server:
        with opened(weir) as ws:
            ws.raw(b"".join(frame(BINARY, bytes([n % 256]) * 3000) for n in range(100)) + frame(CLOSE, b"\x0f\xa1all said"))
            assert ws.read_close() == (4001, "all said")
        wait_until(lambda: len(heard) == 101, "everything to arrive")
        assert heard == [(BINARY, bytes([n % 256]) * 3000) for n in range(100)] + [(CLOSE, b"\x0f\xa1all said")]
        with opened(weir) as ws:
            ws.text("go")
            assert [ws.read() for _ in range(300)] == [(BINARY, bytes([n % 256]) * 3000) for n in range(300)]
            assert ws.read_close() == (4001, "all said")


@smoke
def test_a_backend_that_misbehaves_ends_its_own_session_alone(t):
    mode = [None]

    def serve(peer):
        peer.accept()
        opcode, _ = peer.read()
        if opcode == CLOSE:
            return
        mode[0](peer)
        try:
            peer.sock.settimeout(10)
            while peer.sock.recv(65536):
                pass
        except OSError:
            pass
    server, weir = pair(t, serve)
    with server:
        bad = {
            "2^63": lambda peer: peer.raw(frame(BINARY, b"x", length=1 << 63, masked=False)),
            "reserved bits": lambda peer: peer.raw(frame(TEXT, b"x", rsv=4, masked=False)),
            "reserved opcode": lambda peer: peer.raw(frame(3, b"x", masked=False)),
            "continuation of nothing": lambda peer: peer.raw(frame(CONT, b"x", masked=False)),
            "text in text": lambda peer: peer.raw(frame(TEXT, b"x", fin=False, masked=False) + frame(TEXT, b"y", masked=False)),
            "long ping": lambda peer: peer.raw(frame(PING, b"x" * 126, masked=False)),
            "fragmented ping": lambda peer: peer.raw(frame(PING, b"x", fin=False, masked=False)),
            "not UTF-8": lambda peer: peer.raw(frame(TEXT, b"\xff", masked=False)),
            "half a character": lambda peer: peer.raw(frame(TEXT, b"\xc3", masked=False)),
            "gone in a message": lambda peer: (peer.raw(frame(TEXT, b"x" * 100, length=1000, masked=False)), peer.sock.shutdown(socket.SHUT_RDWR)),
            "closed in a message": lambda peer: peer.raw(frame(TEXT, b"part", fin=False, masked=False) + frame(CLOSE, b"\x03\xe8", masked=False)),
            "an empty reason of one byte": lambda peer: peer.raw(frame(CLOSE, b"x", masked=False)),
            "a bad reason": lambda peer: peer.raw(frame(CLOSE, b"\x03\xe8\xff", masked=False)),
        }
        with opened(weir) as bystander:
            for name, mode[0] in bad.items():
                with opened(weir) as ws:
                    ws.text("go")
                    parts = []
                    while True:
                        fin, opcode, payload = ws.read_frame()
                        if opcode == CLOSE:
                            break
                        parts.append((fin, opcode, payload))
                    code = int.from_bytes(payload[:2], "big")
                    assert code in (1011, 1000), (name, code, parts)
                    assert (code == 1000) == (name in ("closed in a message", "an empty reason of one byte", "a bad reason")), (name, code)
                    assert all(not fin for fin, _, _ in parts), (name, parts)
            mode[0] = lambda peer: peer.text("fine")
            bystander.text("go")
            assert bystander.read_text() == "fine"
        wait_until(lambda: server.ended == len(server.peers), "the backend's connections to end", 30)


def test_a_huge_frame_passes_without_being_held(t):
    """A frame of 2^40 bytes: what comes of it goes on, piece by piece, in bounded memory."""
    def serve(peer):
        peer.accept()
        peer.raw(frame(BINARY, b"", length=1 << 40, masked=False))
        for _ in range(500):
            peer.raw(b"z" * 65536)
        peer.read_close()
    server, weir = pair(t, serve)
    with server, opened(weir) as ws:
        total = 0
        while total < 500 * 65536:
            fin, _, payload = ws.read_frame()
            assert not fin and len(payload) <= 65536
            total += len(payload)
        if Options.strict:
            assert weir.metric("^process_resident_memory_bytes") < 64 << 20


# ---------------------------------------------------------------- time and pressure

@smoke
def test_a_client_that_does_not_read_pauses_the_backend(t):
    sent = [0]

    def serve(peer):
        peer.accept()
        peer.sock.settimeout(60)
        for _ in range(4000):
            peer.send(BINARY, b"x" * 10000)
            sent[0] += 10000
        peer.read_close()
    server, weir = pair(t, serve)
    with server, opened(weir, options={"receive_buffer": 4096}) as ws:
        before = -1
        while sent[0] != before:
            before = sent[0]
            time.sleep(0.5)
        assert before < 16000000, "the backend was not held back"
        total = 0
        while total < 40000000:
            _, payload = ws.read()
            assert payload == b"x" * 10000
            total += len(payload)


def test_a_backend_that_does_not_read_pauses_the_client(t):
    go = threading.Event()

    def serve(peer):
        peer.accept()
        go.wait(30)
        for n in range(3000):
            assert peer.read() == (BINARY, n.to_bytes(2, "big") * 5000)
        peer.text("all")
        peer.read_close()
    server, weir = pair(t, serve)
    with server, opened(weir) as ws:
        sent = [0]

        def send():
            for n in range(3000):
                ws.send(BINARY, n.to_bytes(2, "big") * 5000)
                sent[0] += 10000
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        before = -1
        while sent[0] != before:
            before = sent[0]
            time.sleep(0.5)
        assert before < 16000000, "the client was not held back"
        go.set()
        assert ws.read_text() == "all"
        thread.join(10)


def test_a_client_that_never_reads_is_closed(t):
    def serve(peer):
        peer.accept()
        while True:
            peer.send(BINARY, b"x" * 10000)
    server, weir = pair(t, serve, config="send_timeout: 1s\n")
    with server, opened(weir, options={"receive_buffer": 4096}):
        wait_until(lambda: server.ended == 1, "the backend to be let go", 30)
    line = wait_until(lambda: next((x for x in weir.log_lines() if x.get("msg") == "websocket"), None), "the log line")
    assert line["code"] == 1013, line


def test_idle_and_total_timeouts(t):
    for timeouts, reason in (("idle: 2s", "nobody has said anything for too long"),
                             ("total: 2s", "the session has lasted as long as it may")):
        server, weir = pair(t, backend=f", timeouts: {{ {timeouts} }}")
        with server, opened(weir) as ws:
            end = time.monotonic() + (3 if "idle" in timeouts else 0)
            while time.monotonic() < end:  # while somebody talks it is not idle
                ws.text("x")
                assert ws.read_text() == "x"
                time.sleep(0.05)
            assert ws.read_close() == (1001, reason)
            ws.send(CLOSE, b"")
            ws.read_end()
        wait_until(lambda server=server: server.ended == 1, "the backend's side to end")


def test_pings_go_to_the_backend_and_a_dead_one_is_noticed(t):
    def answering(peer):
        peer.accept()
        peer.read()
        peer.text("still here")
        peer.read_close()

    def dead(peer):
        peer.accept()
        pings = 0
        while True:
            _, opcode, _ = peer.read_frame()
            pings += opcode == PING
            if opcode == CLOSE:
                return
    server, weir = pair(t, answering, config="websocket: { ping: 1s }\n")
    with server, opened(weir) as ws:
        for _ in range(4):  # the client answers too
            fin, opcode, payload = ws.read_frame()
            assert fin and opcode == PING
            ws.send(PONG, payload)
        ws.text("x")
        assert ws.read_text() == "still here"
    server, weir = pair(t, dead, config="websocket: { ping: 1s }\n")
    with server, opened(weir) as ws:
        assert ws.read_close(skip=True)[0] == 1011
        wait_until(lambda: server.ended == 1, "the dead backend to be let go")


def test_a_drain_lets_a_conversation_come_to_a_pause(t):
    server, weir = pair(t)
    with server, opened(weir) as ws:
        weir.signal()
        spoken = time.monotonic()
        end = spoken + 2.0
        while time.monotonic() < end:
            ws.text("x")
            heard = ws.read()
            if heard[0] == CLOSE and time.monotonic() - spoken > 0.9:
                t.skip("this machine is too slow to keep a conversation going")
            assert heard == (TEXT, b"x"), heard
            spoken = time.monotonic()
            time.sleep(0.05)
        assert ws.read_close() == (1001, "the gateway is ending")
        assert weir.wait() == 0
        wait_until(lambda: server.ended == 1, "the backend's side to end")


def test_a_drain_does_not_wait_for_ever(t):
    def serve(peer):
        peer.accept()
        while True:
            peer.text("tick")
            time.sleep(0.05)
    server, weir = pair(t, serve, args=["--drain-timeout", "500ms"])
    with server, opened(weir) as ws:
        weir.signal()
        assert ws.read_close(skip=True)[0] == 1001
        assert weir.wait() == 0


def test_messages_and_bytes_are_counted(t):
    server, weir = pair(t)
    with server:
        with opened(weir, x_request_id="counted") as ws:
            for n in range(5):
                ws.raw(frame(TEXT, b"ab", fin=False) + frame(CONT, b"c"))
                assert ws.read() == (TEXT, b"abc")
            assert weir.metric(r'^weir_websockets{route="/v1/realtime"}') == 1
            ws.close(1000)
        line = wait_until(lambda: next((x for x in weir.log_lines() if x.get("msg") == "websocket"), None), "the log line")
        assert (line["messages_in"], line["messages_out"], line["bytes_in"], line["bytes_out"]) == (5, 5, 15, 15), line
        assert line["request_id"] == "counted" and weir.request_line("counted")["backend"] == "rt"
        assert weir.metric(r'^weir_websocket_messages_total{route="/v1/realtime"') == 10
        assert weir.metric(r'^weir_websocket_bytes_total{route="/v1/realtime"') == 30
        wait_until(lambda: weir.metric(r'^weir_websockets{route="/v1/realtime"}') == 0, "none to be left")


@limit(90)
def test_many_at_once_and_none_left_behind(t):
    server, weir = pair(t)
    with server:
        sockets = [opened(weir) for _ in range(60)]
        for n, ws in enumerate(sockets):
            ws.text(str(n))
        for n, ws in enumerate(sockets):
            assert ws.read_text() == str(n)
        for n, ws in enumerate(sockets):
            ws.drop() if n % 2 else ws.close(1000)
        wait_until(lambda: server.ended == 60, "all to end")
        wait_until(lambda: weir.metric(r'^weir_websockets{route="/v1/realtime"}') == 0, "none to be left")
