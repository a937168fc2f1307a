"""Requests that two servers could read in two ways, towards weir and from it; answers that would split into two."""
import json
import socket
import threading

from harness import Options, chat, smoke, wait_until
from http2 import DATA, END_STREAM, Http2, frame, head_frames, hpack

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat(False)).encode()
HIDDEN = b"POST /v1/audio/smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % CHAT.encode()
CHUNKED = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"


def everything(weir, raw):
    """All that comes back until the end, or until nothing more comes."""
    with weir.connect() as wire:
        wire.send(raw)
        data = b""
        try:
            while more := wire.sock.recv(65536):
                data += more
                wire.sock.settimeout(3 * Options.slow)
            return data, True
        except TimeoutError:
            return data, False
        except ConnectionResetError:
            return data, True


def refused(weir, raw, what):
    data, ended = everything(weir, raw)
    assert ended and data.count(b"HTTP/1.1 ") <= 1, (what, data)
    assert data == b"" or data.split(b" ")[1] in (b"400", b"501"), (what, data)


def answers(data):
    return [line.split(b" ")[1] for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@smoke
def test_codings_that_are_disguised_are_refused(t):
    """TE.TE, CL.TE and TE.CL: what one server takes for chunked and another does not."""
    fake, weir = t.pair()
    length = b"content-length: %d\r\n" % len(BODY)
    for line in (b"transfer-encoding: xchunked", b"transfer-encoding : chunked", b"transfer-encoding\t: chunked",
                 b"transfer-encoding: chunked, identity", b"transfer-encoding: identity, chunked", b"transfer-encoding: chunked;q=1",
                 b"transfer-encoding:\x0bchunked", b"transfer-encoding: \x00chunked", b"transfer-encoding: chunked\x00",
                 b"transfer-encoding:\r\n chunked", b" transfer-encoding: chunked", b"\ttransfer-encoding: chunked",
                 b"x: y\r\n transfer-encoding: chunked", b"transfer-encoding: 'chunked'", b"transfer-encoding: \"chunked\"",
                 b"transfer-encoding: ", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
                 b"transfer-encoding: x\r\ntransfer-encoding: chunked", b"transfer-encoding: chunked\r\ntransfer-encoding: x",
                 b"x: y\ntransfer-encoding: chunked", b"x: y\rtransfer-encoding: chunked", b"transfer-encoding: chunked\n"):
        refused(weir, HEAD + line + b"\r\n\r\n" + CHUNKED + HIDDEN, line)
        refused(weir, HEAD + length + line + b"\r\n\r\n" + BODY + HIDDEN, line)
        refused(weir, HEAD + line + b"\r\n" + length + b"\r\n" + CHUNKED + HIDDEN, line)
    assert "smuggled" not in weir.log() and fake.stats()["requests"] == 0
    assert weir.stream().status == 200


@smoke
def test_lengths_that_are_disguised_are_refused(t):
    fake, weir = t.pair()
    n = len(BODY)
    for text in (b"+%d" % n, b"-0", b"0x%x" % n, b"%d, %d" % (n, n), b"%d,%d" % (n, n), b"%d %d" % (n, n), b"%d;" % n, b"%d." % n, b"",
                 b" ", b"%d\x00" % n, b"\x0b%d" % n, b"%d\xa0" % n, b"18446744073709551%03d" % 616, b"9" * 40, b"\r\n %d" % n,
                 b"%d\r\ncontent-length: 0" % n, b"0\r\ncontent-length: %d" % n, b"%d\r\ncontent-length : 0" % n,
                 b"%d\ncontent-length: 0" % n):
        data, ended = everything(weir, HEAD + b"content-length: " + text + b"\r\n\r\n" + BODY + HIDDEN)
        assert ended and answers(data)[:1] in ([b"400"], [b"413"], []) and len(answers(data)) <= 1, (text, data)
    assert "smuggled" not in weir.log() and fake.stats()["requests"] == 0
    data, _ = everything(weir, HEAD + b"content-length: 000%d\r\n\r\n" % n + BODY)
    assert answers(data) == [b"200"], data


def test_lines_that_end_without_carriage_return_are_refused(t):
    fake, weir = t.pair()
    for raw in (b"GET /livez HTTP/1.1\nhost: x\n\n", b"GET /livez HTTP/1.1\r\nhost: x\n\r\n", b"GET /livez HTTP/1.1\nhost: x\r\n\r\n",
                b"GET /livez HTTP/1.1\r\nhost: x\r\na: b\nc: d\r\n\r\n", b"GET /livez HTTP/1.1\r\nhost: x\r\na: b\rc: d\r\n\r\n"):
        refused(weir, raw, raw)
    assert answers(everything(weir, b"\r\nGET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")[0]) == [b"200"], "RFC 9112 2.2"
    assert fake.stats()["requests"] == 0
    assert any(line["msg"] == "security" and line["event"] == "malformed" for line in weir.log_lines())


@smoke
def test_chunks_are_taken_as_they_are_or_refused(t):
    fake, weir = t.pair()
    size = b"%x" % len(BODY)
    chunked = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    for text in (size + b";ext=1\r\n" + BODY + b"\r\n0\r\n\r\n", size + b";a=\"b\"\r\n" + BODY + b"\r\n0;last\r\n\r\n",
                 size.upper() + b"\r\n" + BODY + b"\r\n0\r\n\r\n", b"000" + size + b"\r\n" + BODY + b"\r\n000\r\nx: y\r\n\r\n"):
        data, ended = everything(weir, chunked + text)
        assert ended and answers(data) == [b"200"], (text, data)
        last = fake.last()
        assert last.body == BODY and last.header("content-length") == str(len(BODY)) and not last.header("transfer-encoding"), last.headers
        assert last.header("x") is None, "trailers are not headers"
    seen = fake.stats()["requests"]
    for text in (b"0x" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n", b"+" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
                 b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
                 b" " + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n", b"\r\n" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
                 size + b"\r\n" + BODY + b"0\r\n\r\n", size + b"\r\n" + BODY + b"xx\r\n0\r\n\r\n",
                 b"10000000000000001\r\n" + BODY + b"\r\n0\r\n\r\n"):
        refused(weir, chunked + text + HIDDEN, text)
    assert "smuggled" not in weir.log() and fake.stats()["requests"] == seen


def test_what_follows_a_request_that_is_refused_is_not_read(t):
    fake, weir = t.pair()
    for raw in (HEAD + b"host: y\r\ncontent-length: 0\r\n\r\n", b"GET  /livez HTTP/1.1\r\nhost: x\r\n\r\n",
                b"GET /livez HTTP/1.1 \r\nhost: x\r\n\r\n",
                b"GET /livez HTTP/2.0\r\nhost: x\r\n\r\n", b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n"):
        data, ended = everything(weir, raw + HIDDEN)
        assert ended and len(answers(data)) <= 1, (raw, data)
        assert answers(data) != [b"200"], (raw, data)
    assert "smuggled" not in weir.log() and fake.stats()["requests"] == 0


@smoke
def test_connection_names_no_header_that_weir_needs(t):
    """What Connection names goes no further (RFC 9110 7.6.1), but framing, host and keys are weir's own business."""
    fake = t.fake()
    weir = t.weir(keys=["sk-front-0123456789"], config=f"backends: [{{name: b, url: '{fake.url}', api_key: sk-back-0123456789}}]\n")
    answer = weir.ask("POST", CHAT, {"connection": "content-length, host, authorization, x-request-id, x-hop", "x-hop": "1",
                                     "authorization": "Bearer sk-front-0123456789"}, chat(False))
    assert answer.status == 200, answer
    last = fake.last()
    names = [name.lower() for name, _ in last.headers]
    assert names.count("content-length") == 1 and names.count("host") == 1 and "x-hop" not in names, names
    assert last.header("authorization") == "Bearer sk-back-0123456789", last.headers
    assert last.json() == chat(False), last.body


# ---------------------------------------------------------------- HTTP/2

def ask2(weir, headers, body=BODY):
    """(status, body) of a request with exactly these fields; (None, code) if it was reset or the connection ended."""
    with Http2(weir) as client:
        client.send(head_frames(1, hpack(headers)) + frame(DATA, END_STREAM, 1, body))
        return client.answer(1)


GOOD = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", CHAT.encode()),
        (b"content-type", b"application/json")]


def with_field(name, value):
    return [(n, value if n == name else v) for n, v in GOOD] if name.startswith(b":") else GOOD + [(name, value)]


@smoke
def test_pseudo_headers_are_what_they_must_be(t):
    fake, weir = t.pair()
    assert ask2(weir, GOOD)[0] == 200
    cases = [GOOD + [(b":path", b"/livez")], GOOD + [(b":method", b"GET")], GOOD + [(b":unknown", b"x")], GOOD + [(b":status", b"200")],
             GOOD[:4] + [(b"x", b"y"), (b":authority", b"localhost")], [field for field in GOOD if field[0] != b":method"],
             [field for field in GOOD if field[0] != b":path"], [field for field in GOOD if field[0] != b":scheme"]]
    for name in (b":path", b":method", b":authority"):
        for text in (b"\r\nx: y", b"\nx: y", b"\rx", b"\0", b"a\r\n\r\n" + HIDDEN):
            value = dict(GOOD)[name] + text
            cases.append(with_field(name, value))
    for path in (b"", b"*", b"v1/chat/completions", CHAT.encode() + b" HTTP/1.1", CHAT.encode() + b"#x"):
        cases.append(with_field(b":path", path))
    cases += [with_field(b":method", method) for method in (b"", b"GET /smuggled HTTP/1.1", b"PO ST", b"POST\t")]
    for headers in cases:
        status, body = ask2(weir, headers)
        assert status in (400, 404, 405, None), (headers, status, body)
    assert fake.stats()["requests"] == 1 and "smuggled" not in fake.log() and weir.stream().status == 200


@smoke
def test_header_values_that_would_break_a_line_are_refused(t):
    fake, weir = t.pair(config="cors: {origins: ['*']}\n")
    for name in (b"x-any", b"x-request-id", b"traceparent", b"origin", b"content-type", b"authorization", b"cookie", b"x-forwarded-for",
                 b"host"):
        for bad in (b"a\r\nx-evil: 1", b"a\nx-evil: 1", b"a\rb", b"a\0b", b"a\x7fb", b"a\x01", b"\r\n", b"a\r\n\r\n" + HIDDEN):
            status, body = ask2(weir, [field for field in GOOD if field[0] != name] + [(name, bad)])
            assert status in (400, None), (name, bad, status, body)
    assert fake.stats()["requests"] == 0 and weir.stream().status == 200


@smoke
def test_framing_headers_mean_nothing_over_http2(t):
    """RFC 9113 8.2.2: connection-specific fields make a request malformed; a length that lies as well (8.1.1)."""
    fake, weir = t.pair()
    for name, value in ((b"transfer-encoding", b"chunked"), (b"connection", b"keep-alive"), (b"content-length", b"%d" % (len(BODY) - 1)),
                        (b"content-length", b"%d" % (len(BODY) + 1)), (b"content-length", b"0"), (b"content-length", b"x"),
                        (b"upgrade", b"h2c"), (b"keep-alive", b"1"), (b"proxy-connection", b"close"), (b"te", b"gzip"),
                        (b"host", b"elsewhere")):
        before = fake.stats()["requests"]
        status, body = ask2(weir, with_field(name, value))
        assert status in (200, 400, None), (name, value, status, body)
        if status == 200:
            last = fake.last()
            names = [n.lower() for n, _ in last.headers]
            assert last.body == BODY and names.count("content-length") == 1 and names.count("host") == 1, (name, last.headers)
            assert not {"transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "te"} & set(names), (name, names)
        else:
            assert fake.stats()["requests"] == before, (name, value)
        if name == b"content-length":
            assert status != 200, value


# ---------------------------------------------------------------- from the backend

class RawBackend:
    """Answers every request with the same bytes, whatever they are."""
    def __init__(self, answer):
        self.answer, self.listener = answer, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self.listener.accept()
            connection.settimeout(10)
            try:
                data = b""
                while b"\r\n\r\n" not in data or len(data.split(b"\r\n\r\n", 1)[1]) < len(BODY):
                    more = connection.recv(65536)
                    if not more:
                        break
                    data += more
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
            except OSError:
                pass
            connection.close()


def test_backends_answers_do_not_split(t):
    """Neither into two answers nor into headers that were none; over HTTP/1.1 and HTTP/2."""
    second = b"HTTP/1.1 200 OK\r\nx-evil: 2\r\ncontent-length: 4\r\n\r\nevil"
    ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    chunked = b"2\r\n{}\r\n0\r\n\r\n"
    for answer, status in (
            (ok + b"content-length: 2\r\n\r\n{}" + second, (200,)),
            (ok + b"transfer-encoding: chunked\r\n\r\n" + chunked + second, (200,)),
            (ok + b"content-length: 2\r\ncontent-length: 60\r\n\r\n{}" + second, (502,)),
            (ok + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n" + chunked + second, (502,)),
            (ok + b"content-length: 2\r\nx: a\rx-evil: 1\r\n\r\n{}", (502,)),
            (ok + b"content-length: 2\r\nx: a\0x-evil: 1\r\n\r\n{}", (502,)),
            (ok + b"x-request-id: a\x0bb\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (ok + b"x: y\r\n x-evil: 1\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (ok + b"retry-after: 1\x01\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (ok + b"content-length : 2\r\n\r\n{}", (502,)),
            (ok + b"x evil: 1\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (ok + b"set-cookie: a=b\r\r\nx-evil: 1\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (b"HTTP/1.1 302 Found\r\nlocation: /a\rx-evil: 1\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (b"HTTP/1.1 429 Too Many\r\nx-evil: 1\r\nretry-after: 1\0\r\ncontent-length: 2\r\n\r\n{}", (502,)),
            (b"HTTP/1.1 200 OK\x0b\r\ncontent-length: 2\r\n\r\n{}", (200, 502))):
        weir = t.weir(RawBackend(answer).url)
        with weir.connect() as wire:
            wire.request("POST", CHAT, None, chat(False))
            got = wire.response()
            assert got.status in status, (answer, got)
            assert got.header("x-evil") is None and b"evil" not in got.body, (answer, got)
            wire.request("GET", "/livez")
            assert wire.response().json()["status"] == "ok", "the next answer is the next request's"
        assert ask2(weir, GOOD)[0] == got.status
        weir.stop()


@smoke
def test_what_weir_copies_into_headers_splits_nothing(t):
    fake, weir = t.pair(config="cors: {origins: ['*', 'https://good.example']}\nlimits: {a: {limit: 100/minute}}\ncache: {ttl: 1m}\n")
    evil = "evil\\r\\nx-evil: 1"
    for headers in ({"x-request-id": "a b\t" + "c" * 200}, {"x-request-id": "ä"}, {"x-request-id": "%0d%0ax-evil:%201"},
                    {"origin": "https://x\tx-evil: 1"}, {"traceparent": "00-zz\t-x"}):
        answer = weir.ask("POST", CHAT, headers, chat(False, model=evil))
        assert answer.status in (200, 400) and answer.header("x-evil") is None, answer
        assert len(answer.all("x-request-id")) == 1 and "\t" not in answer.header("x-request-id"), answer
    preflight = weir.ask("OPTIONS", CHAT, {"origin": "https://good.example", "access-control-request-method": "POST",
                                           "access-control-request-headers": "x-a, x-b\tx-evil: 1"})
    assert preflight.header("x-evil") is None and preflight.status in (200, 400), preflight
    status, _ = ask2(weir, [(b":method", b"OPTIONS"), *GOOD[1:4], (b"origin", b"https://good.example"),
                            (b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"x\r\nx-evil: 1")], b"")
    assert status in (400, None)
    wait_until(lambda: weir.stream().status == 200, "an ordinary answer")
    body = json.dumps({"model": "m\r\nx-evil: 1", "messages": [{"role": "user", "content": "x"}]})
    answer = weir.ask("POST", CHAT, {"content-type": "application/json"}, body)
    assert answer.header("x-evil") is None and fake.last().header("x-evil") is None
