"""HTTP towards clients: connections, methods, framing, TLS, addresses; and what hostile clients get."""
import json
import socket
import ssl
import subprocess
import threading
import time

from harness import Wire, chat, free_port, limit, make_request, smoke, wait_until

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@smoke
def test_a_connection_serves_many_requests(t):
    fake, weir = t.pair()
    with weir.connect() as wire:
        for turn in range(10):
            wire.request("POST", CHAT, {}, chat(turn % 2 == 0))
            answer = wire.response()
            assert answer.status == 200 and answer.all("server") == ["weir"], answer
            wire.request("GET", "/livez")
            assert wire.response().status == 200
    stats = fake.stats()
    assert stats["requests"] == 10 and stats["accepted"] <= 2, stats


def test_pipelined_requests_are_answered_in_order(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.send(make_request("POST", CHAT, {"x-fake": "events=3,delay_ms=100", "x-request-id": "first"}, chat()) +
                  make_request("GET", "/livez", {"x-request-id": "second"}) +
                  make_request("POST", CHAT, {"x-request-id": "third"}, chat(False)))
        for name in ("first", "second", "third"):
            answer = wire.response()
            assert answer.status == 200 and answer.header("x-request-id") == name, answer


def test_http_1_0_is_served_and_closed(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {}, chat(), version="1.0")
        answer = wire.response()
        assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n") and answer.header("transfer-encoding") is None
        assert wire.at_end()
    with weir.connect() as wire:
        for _ in range(2):
            wire.request("POST", CHAT, {"connection": "keep-alive"}, chat(False), version="1.0")
            assert wire.response().header("connection") == "keep-alive"
        wire.request("POST", CHAT, {"connection": "keep-alive"}, chat(), version="1.0")
        answer = wire.response()
        assert answer.header("connection") == "close" and answer.body.endswith(b"[DONE]\n\n"), "nothing else tells of its end"


def test_connection_close_is_obeyed(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"connection": "close"}, chat())
        assert wire.response().body.endswith(b"[DONE]\n\n") and wire.at_end()


def test_expect_100_continue_is_answered_before_the_body(t):
    _, weir = t.pair()
    body = json.dumps(chat()).encode()
    with weir.connect() as wire:
        wire.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\n"
                  f"content-length: {len(body)}\r\n\r\n")
        assert wire.head(interim=True).status == 100
        wire.send(body)
        assert wire.response().status == 200


def test_a_chunked_request_body_is_accepted(t):
    fake, weir = t.pair()
    body = json.dumps(chat()).encode()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {**JSON, "transfer-encoding": "chunked"})
        for byte in body:
            wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        wire.send(b"0\r\n\r\n")
        assert wire.response().status == 200
    assert fake.last().body == body


def test_a_request_that_trickles_in_is_served(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        for byte in make_request("POST", CHAT, {}, chat()):
            wire.send(bytes([byte]))
        assert wire.response().status == 200


@smoke
def test_head_answers_like_get_without_a_body(t):
    _, weir = t.pair()
    for path in ("/", "/livez", "/readyz", "/health", "/version", "/metrics"):
        with weir.connect() as wire:
            wire.request("HEAD", path)
            answer = wire.response(head_only=True)
            assert answer.status == 200, (path, answer)
            wire.request("GET", "/livez")
            assert wire.response().status == 200, "the connection is still in step"


@smoke
def test_unknown_paths_are_404_and_other_methods_405_with_allow(t):
    _, weir = t.pair()
    answer = weir.ask("GET", "/nowhere")
    assert answer.status == 404 and answer.json()["error"]["message"] and answer.json()["detail"], answer
    assert weir.ask("POST", "/v1/unheard/of", None, {}).status == 404
    answer = weir.ask("GET", CHAT)
    assert answer.status == 405 and answer.header("allow") == "POST", answer
    assert answer.json()["error"]["message"]
    answer = weir.ask("DELETE", "/livez")
    assert answer.status == 405 and set(answer.header("allow").split(", ")) == {"GET", "HEAD"}, answer


def test_v1_twice_names_the_right_base_url(t):
    _, weir = t.pair()
    answer = weir.ask("POST", "/v1" + CHAT, None, chat())
    assert answer.status == 404 and "/v1" in answer.json()["error"]["message"], answer
    assert "base" in answer.json()["error"]["message"].lower(), answer


@smoke
def test_a_body_beyond_the_maximum_is_413(t):
    fake = t.fake()
    weir = t.weir(fake, config="max_body: 64KiB\n")
    body = chat(False, padding="x" * 70000)
    answer = weir.ask("POST", CHAT, None, body)
    assert answer.status == 413, answer
    with weir.connect() as wire:  # without an announced length
        wire.request("POST", CHAT, {**JSON, "transfer-encoding": "chunked"})
        try:
            for _ in range(100):
                wire.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            assert wire.head().status == 413
        except (EOFError, ConnectionResetError):
            pass  # closed before everything was sent: the answer may be lost, the request is refused all the same
    assert weir.stream().status == 200
    assert fake.stats()["requests"] == 1
    big = t.weir(fake)
    answer = big.ask("POST", CHAT, None, chat(False, padding="x" * (8 << 20)))
    assert answer.status == 200, "the default maximum is 32 MiB"


def test_a_body_that_is_not_json_by_its_content_type_is_415(t):
    _, weir = t.pair()
    body = json.dumps(chat())
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        answer = weir.ask("POST", CHAT, {"content-type": kind}, body)
        assert answer.status == 415, (kind, answer)
        assert answer.json()["error"]["message"]
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"):
        assert weir.ask("POST", CHAT, {"content-type": kind}, body).status == 200, kind


def test_an_encoded_request_body_is_refused_or_passed_never_misread(t):
    _, weir = t.pair()
    answer = weir.ask("POST", CHAT, {**JSON, "content-encoding": "gzip"}, json.dumps(chat()))
    assert answer.status in (200, 400, 415), answer


# ---------------------------------------------------------------- framing tricks

def refused(weir, raw, statuses=(400,)):
    """The request is refused and the connection ended, so that nothing can be smuggled behind it."""
    with weir.connect() as wire:
        wire.send(raw)
        try:
            answer = wire.head()
            list(wire.pieces(answer))
        except (ConnectionResetError, EOFError):
            return
        assert answer.status in statuses, (raw[:200], answer)
        assert wire.at_end(), f"still open after {raw[:200]!r}"


SMUGGLED = b"GET /livez HTTP/1.1\r\nhost: smuggled\r\nx-request-id: smuggled\r\n\r\n"


@smoke
def test_content_length_with_transfer_encoding_is_refused(t):
    fake, weir = t.pair()
    body = json.dumps(chat()).encode()
    chunked = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    for lines in (b"content-length: 6\r\ntransfer-encoding: chunked\r\n", b"transfer-encoding: chunked\r\ncontent-length: 6\r\n",
                  b"Content-Length: 6\r\nX-A: b\r\nTRANSFER-ENCODING: chunked\r\n"):
        refused(weir, b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + lines + b"\r\n" +
                chunked + SMUGGLED)
    assert fake.stats()["requests"] == 0 and "smuggled" not in weir.log()


@smoke
def test_two_content_lengths_are_refused(t):
    fake, weir = t.pair()
    body = json.dumps(chat()).encode()
    for first, second in ((len(body), 5), (5, len(body)), (len(body), len(body))):
        refused(weir, b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\ncontent-length: %d"
                b"\r\n\r\n" % (CHAT.encode(), first, second) + body + SMUGGLED)
    assert fake.stats()["requests"] == 0 and "smuggled" not in weir.log()


def test_framing_tricks_behind_a_good_request_are_refused_too(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {}, chat())
        assert wire.response().status == 200
        wire.send(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" % CHAT.encode() +
                  SMUGGLED)
        assert wire.response().status == 400 and wire.at_end()


def test_malformed_requests_are_refused_and_others_undisturbed(t):
    _, weir = t.pair()
    post = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % CHAT.encode()
    with weir.connect() as other:
        other.request("POST", CHAT, {"x-fake": "events=100,pace_ms=20"}, chat())
        for raw in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9 x\r\n\r\n",
                    b"GET /livez HTTP/1.1\r\nno colon here\r\n\r\n", b"GET /livez HTTP/1.1\r\n: empty\r\n\r\n",
                    b"GET /livez HTTP/1.1\r\nbad name: x\r\n\r\n", b"GET /livez HTTP/1.1\r\nx: a\x00b\r\n\r\n",
                    post + b"content-length: -1\r\n\r\n{}", post + b"content-length: 99999999999999999999\r\n\r\n{}",
                    post + b"content-length: 1x\r\n\r\n{}", post + b"transfer-encoding: gzip\r\n\r\nxx\r\n\r\n",
                    post + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
                    post + b"transfer-encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n",
                    post + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n",
                    post + b"transfer-encoding: chunked\r\n\r\n2\r\n{}garbage\r\n0\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200):
            refused(weir, raw, (400, 411, 413, 501, 505, 405, 422))
        body = other.response().body
    assert body.endswith(b"[DONE]\n\n") and body.count(b"xxxxxxxx") == 100
    assert weir.stream().status == 200


def answer_to(weir, raw):
    with weir.connect() as wire:
        wire.send(raw)
        return wire.response()


@smoke
def test_a_request_of_http_1_1_names_its_host(t):
    fake, weir = t.pair()
    for path in ("/livez", "/v1/audio/x"):
        assert answer_to(weir, b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode()).status == 200, path
        assert answer_to(weir, b"GET %s HTTP/1.1\r\n\r\n" % path.encode()).status == 400, path
        assert answer_to(weir, b"GET %s HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n" % path.encode()).status == 400, path
        assert answer_to(weir, b"GET %s HTTP/1.0\r\n\r\n" % path.encode()).status == 200, "HTTP/1.0 had no such header"
    assert fake.stats()["requests"] == 2


@smoke
def test_targets_in_absolute_form_are_taken_and_fragments_are_not(t):
    fake, weir = t.pair()
    for target, path in (("http://localhost/v1/audio/x?a=b", "/v1/audio/x?a=b"), ("http://localhost:1/v1/audio/x", "/v1/audio/x"),
                         ("https://x/v1/audio/x", "/v1/audio/x")):
        assert weir.ask("GET", target).status == 200, target
        assert fake.last().target == path, target
    assert weir.ask("GET", "http://localhost/livez").status == 200
    seen = fake.stats()["requests"]
    for target in ("/v1/audio/x#f", "/v1/audio/x?a=b#f", "/livez#", "http://localhost/v1/audio/x#f"):
        assert weir.ask("GET", target).status == 400, target
    assert weir.ask("GET", "/v1/audio/x%23f").status == 200 and fake.stats()["requests"] == seen + 1


def test_endless_heads_and_lines_end_the_connection(t):
    _, weir = t.pair()
    for start, more in ((b"GET /", b"a" * 4096), (b"GET /livez HTTP/1.1\r\n", b"x-filler: %s\r\n" % (b"a" * 2000)),
                        (b"GET /livez HTTP/1.1\r\n", b"a:b\r\n" * 400), (b"GET /livez HTTP/1.1\r\nx: ", b"a" * 4096)):
        with weir.connect() as wire:
            try:
                wire.send(start)
                for _ in range(20000):
                    wire.send(more)
                raise AssertionError(f"took 40 MB of {more[:20]!r}")
            except (ConnectionResetError, BrokenPipeError):
                pass
    assert weir.stream().status == 200


def test_a_request_that_never_ends_times_out(t):
    fake = t.fake()
    weir = t.weir(fake, config="request_timeout: 1s\n")
    for raw in (b"GET /livez HT", b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{" %
                CHAT.encode()):
        with weir.connect() as wire:
            wire.send(raw)
            try:
                assert wire.head().status in (400, 408)
            except (EOFError, ConnectionResetError):
                pass
            assert wire.at_end()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=20,pace_ms=100"}, chat())
        assert wire.response().body.endswith(b"[DONE]\n\n"), "an answer may take longer than a request"
    assert fake.stats()["requests"] == 1


# ---------------------------------------------------------------- TLS and addresses

@smoke
def test_tls_1_2_and_1_3_are_served(t):
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate())
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        with Wire(weir.address, weir.cert.client(version=version)) as wire:
            assert wire.sock.version() == name and wire.sock.selected_alpn_protocol() == "http/1.1"
            wire.request("POST", CHAT, {"x-fake": "events=50"}, chat())
            assert wire.response().body.endswith(b"[DONE]\n\n")


def test_answers_over_tls_arrive_byte_for_byte(t):
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate())
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with Wire(weir.address, weir.cert.client(version=version)) as wire:
            for size in (1, 400, 1100, 1500, 3000, 5000, 60000, 1):
                for body in (chat(False), chat()):
                    shape = {"x-fake": f"size={size}"}
                    wire.request("POST", CHAT, shape, body)
                    assert wire.response().body == fake.ask("POST", CHAT, shape, body).body, (version, size, body)


def records(wire, end):
    """What came in each TLS record (OpenSSL hands out one at a time), until one closes with `end`."""
    found = [wire.sock.recv(65536)]
    while found[-1] and not found[-1].endswith(end):
        found.append(wire.sock.recv(65536))
    return found


def test_each_event_over_tls_is_one_record(t):
    weir = t.weir(t.fake(), tls=t.certificate())
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=30,pace_ms=10"}, chat())
        found = records(wire, b"0\r\n\r\n")
    # The first, which brings the head, and the last go libh2o's way.
    assert b"".join(found).count(b"data: ") > 30 and found.count(b"\r\n") <= 2, found


def test_a_small_answer_over_tls_is_one_record(t):
    weir = t.weir(t.fake(), tls=t.certificate())
    with weir.connect() as wire:
        found = []
        for _ in range(10):
            wire.request("POST", CHAT, {}, chat(False))
            found.append(records(wire, b"}"))
    # The first goes libh2o's way, and so does one whose body came behind its head.
    assert min(map(len, found)) == 1 and found[0][0].startswith(b"HTTP/1.1 200 "), found


def test_a_large_answer_over_tls_has_large_records(t):
    weir = t.weir(t.fake(), tls=t.certificate())
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "size=60000"}, chat(False))
        found = records(wire, b"}")
    assert sum(map(len, found)) > 60000 and max(map(len, found)) > 4000, list(map(len, found))


def test_old_tls_is_refused(t):
    weir = t.weir(t.fake(), tls=t.certificate())
    context = weir.cert.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        Wire(weir.address, context).close()
    except (ssl.SSLError, ConnectionResetError):
        return
    raise AssertionError("TLS 1.1 was accepted")


@smoke
def test_tls_selects_http2_by_alpn(t):
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate())
    with Wire(weir.address, weir.cert.client(alpn=("h2", "http/1.1"))) as wire:
        assert wire.sock.selected_alpn_protocol() == "h2"
    for flag, version in (("--http2", b"2"), ("--http1.1", b"1.1")):
        done = t.curl("--cacert", weir.cert.ca, flag, "-w", "%{http_version}", "-d", json.dumps(chat()), "-H",
                      "content-type: application/json", weir.url + CHAT)
        assert done.stdout.endswith(b"data: [DONE]\n\n" + version), (done.stdout[-200:], done.stderr)


def test_clear_text_on_a_tls_port_and_junk_in_handshakes_do_no_harm(t):
    weir = t.weir(t.fake(), tls=t.certificate())
    for junk in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 300, b""):
        with Wire(weir.address) as wire:
            wire.send(junk)
            if junk:
                wire.at_end()
    assert weir.stream().status == 200


@smoke
def test_http2_without_tls_by_prior_knowledge(t):
    _, weir = t.pair()
    done = t.curl("--http2-prior-knowledge", "-w", "%{http_version}", weir.url + "/livez")
    assert done.returncode == 0 and done.stdout.endswith(b"2"), done


def test_http2_garbage_does_no_harm(t):
    _, weir = t.pair()
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    for junk in (b"\xff" * 3000, b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff", b"\0\0\0\1\5\0\0\0\0", b"\0\0\0\0\0\0\0\0\7",
                 b"\0\0\1\6\0\0\0\0\0x", b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", b"\0\0\0\x09\4\0\0\0\1", b"\xff\xff\xff\0\0\0\0\0\1"):
        with weir.connect() as wire:
            wire.send(preface + junk)
            wire.sock.shutdown(socket.SHUT_WR)
            try:
                while wire.sock.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert weir.stream().status == 200


def test_there_is_no_upgrade_to_http2(t):
    _, weir = t.pair()
    done = t.curl("--http2", "-w", "%{http_version}", weir.url + "/livez")
    assert done.returncode == 0 and done.stdout.endswith(b"1.1"), done


def test_ipv6_is_served(t):
    if not socket.has_ipv6:
        t.skip("no IPv6")
    try:
        port = free_port("::1")
    except OSError:
        t.skip("no IPv6 loopback")
    fake = t.fake(listen="[::1]:0")
    weir = t.weir(fake, listen=[f"[::1]:{port}"])
    assert weir.stream().status == 200
    line = weir.request_line(weir.stream("", headers={"x-request-id": "six"}).header("x-request-id"))
    assert "::1" in line.values(), line


def test_a_unix_socket_is_served_and_goes_with_the_process(t):
    path = t.dir / "weir.sock"
    weir = t.weir(t.fake(), listen=[f"unix:{path}"])
    assert weir.stream().status == 200
    done = t.curl("--unix-socket", path, "http://weir/livez", "-w", "%{http_code}")
    assert done.stdout.endswith(b"200"), done
    assert weir.stop() == 0 and not path.exists()


def test_several_addresses_are_served(t):
    ports = [free_port(), free_port()]
    path = t.dir / "also.sock"
    weir = t.weir(t.fake(), listen=[f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", f"unix:{path}"])
    for address in (("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]), str(path)):
        with Wire(address) as wire:
            wire.request("GET", "/livez")
            assert wire.response().status == 200


@smoke
def test_two_workers_serve_one_port(t):
    fake = t.fake()
    weir = t.weir(fake, args=["--workers", "2"])
    answers = []

    def one():
        answers.append(weir.stream("events=20,pace_ms=5"))

    threads = [threading.Thread(target=one) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24 and all(a.status == 200 and a.body.endswith(b"[DONE]\n\n") for a in answers)
    assert weir.metric(r"^weir_requests?_total.*completions") >= 24 or "24" in weir.metrics()


def test_a_port_in_use_stops_the_start(t):
    fake, weir = t.pair()
    second = t.weir(fake, listen=[f"127.0.0.1:{weir.port}"], fail=True)
    assert second.wait() == 1
    second.expected_status = 1
    assert str(weir.port) in second.log() and "in use" in second.log(), second.log()
    assert weir.stream().status == 200


@limit(60)
def test_http2_concurrency_on_one_connection(t):
    t.need("h2load")
    fake, weir = t.pair()
    body = t.dir / "body.json"
    body.write_text(json.dumps(chat()))
    done = subprocess.run(["h2load", "-n", "300", "-c", "1", "-m", "100", "-d", str(body), "-H", "content-type: application/json",
                           weir.url + CHAT], capture_output=True, text=True, check=False)
    assert "300 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
    wait_until(lambda: fake.stats()["streams_finished"] == 300, "all streams to finish")


def test_idle_connections_are_closed_in_the_end(t):
    weir = t.weir(t.fake(), config="request_timeout: 1s\n")
    with weir.connect() as wire:
        wire.request("GET", "/livez")
        assert wire.response().status == 200
        start = time.monotonic()
        assert wire.at_end() and time.monotonic() - start > 0.5
