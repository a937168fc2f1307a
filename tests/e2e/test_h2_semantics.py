"""Requests and answers over HTTP/2, clause by clause of RFC 9113 section 8. More of smuggling is in test_smuggling.py."""
from h2_cases import (BODY, CHAT, ECHO, ECHO_PATH, GET, JSON, OPEN, POST, Case, answers, both, echoes, ends, headers, ignored, play, post, resets)
from hpack import INCREMENTAL, indexed, literal
from harness import Options, smoke
from http2 import (CONTINUATION, DATA, END_HEADERS, END_STREAM, PROTOCOL_ERROR, PUSH_PROMISE, STREAM_CLOSED, frame, head, hpack)

LENGTH = len(BODY)


def data(stream, payload=b"", flags=END_STREAM):
    return frame(DATA, flags, stream, payload)


def request(*fields, body=b"", method=b"GET", path=b"/livez"):
    """Just these fields; those of a GET that are None are left out."""
    pseudo = {b":method": method, b":scheme": b"http", b":authority": b"localhost", b":path": path}
    block = hpack([(name, value) for name, value in pseudo.items() if value is not None] + list(fields))
    return headers(1, block) if not body else post(1, block, body)


def malformed(name, block, clause, code=PROTOCOL_ERROR):
    return Case(clause, name, headers(1, block), ends(code))


def length(value, body=BODY, more=b""):
    return post(1, POST + hpack([(b"content-length", value)]) + more, body)


EXCHANGES = [
    Case("8.1", "a second HEADERS without END_STREAM", OPEN + headers(1, hpack([(b"x-a", b"b")]), END_HEADERS), ends(PROTOCOL_ERROR)),
    Case("8.1", "trailers", headers(1, ECHO, END_HEADERS) + data(1, BODY, 0) + headers(1, hpack([(b"x-sum", b"1")])), echoes(body=BODY)),
    Case("8.1", "trailers are no headers (RFC 9110 6.5.1)", headers(1, ECHO + hpack([(b"x-true", b"1")]), END_HEADERS) + data(1, BODY, 0) +
         headers(1, hpack([(b"x-true", b"0"), (b"authorization", b"Bearer x"), (b"x-forwarded-for", b"192.0.2.1"), (b"x-late", b"1")])),
         echoes(("x-true", "1"), body=BODY, without=("authorization", "x-late"))),
    Case("8.1", "trailers in two frames", headers(1, ECHO, END_HEADERS) + data(1, BODY, 0) + headers(1, hpack([(b"x-late", b"1")]), END_STREAM) +
         frame(CONTINUATION, END_HEADERS, 1, hpack([(b"x-later", b"1")])), echoes(body=BODY, without=("x-late", "x-later"))),
    Case("8.1", "empty trailers", headers(1, ECHO, END_HEADERS) + data(1, BODY, 0) + headers(1, b""), echoes(body=BODY)),
    Case("8.1", "trailers without a body", headers(1, ECHO, END_HEADERS) + headers(1, hpack([(b"x-late", b"1")])), echoes(without=("x-late",))),
    Case("8.1", "DATA after trailers", headers(1, ECHO + hpack([(b"x-fake", b"delay_ms=60000")]), END_HEADERS) + data(1, BODY, 0) +
         headers(1, hpack([(b"x-a", b"b")])) + data(1, b"x"), resets(STREAM_CLOSED)),
    Case("8.1", "a body that is empty", headers(1, ECHO, END_HEADERS) + data(1), echoes(body=b"")),
    Case("8.1.1", "Content-Length as long as the body", length(b"%d" % LENGTH), answers()),
    Case("8.1.1", "Content-Length and several frames", headers(1, POST + hpack([(b"content-length", b"%d" % LENGTH)]), END_HEADERS) +
         data(1, BODY[:10], 0) + data(1, BODY[10:], 0) + data(1), answers()),
    Case("8.1.1", "Content-Length less than the body", length(b"%d" % (LENGTH - 1)), resets(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length more than the body", length(b"%d" % (LENGTH + 1)), resets(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length more than the frames", headers(1, POST + hpack([(b"content-length", b"%d" % (LENGTH + 1))]), END_HEADERS) +
         data(1, BODY[:10], 0) + data(1, BODY[10:]), resets(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length more than the body before trailers", headers(1, POST + hpack([(b"content-length", b"%d" % (LENGTH + 1))]),
                                                                               END_HEADERS) +
         data(1, BODY, 0) + headers(1, hpack([(b"x-a", b"b")])), resets(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length of 0 with a body", length(b"0"), resets(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length of 0 without one", request((b"content-length", b"0")), answers()),
    Case("8.1.1", "Content-Length without a body", request((b"content-length", b"5")), answers(400)),
    Case("8.1.1", "Content-Length without a body, POST", request(JSON, (b"content-length", b"5"), method=b"POST", path=CHAT.encode()),
         answers(400)),
    Case("8.1.1", "Content-Length that is no number", length(b"1x"), ends(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length that is empty", length(b""), ends(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length beyond 2^64", length(b"9" * 30), ends(PROTOCOL_ERROR)),
    Case("8.1.1", "Content-Length twice, the last true", length(b"1", more=hpack([(b"content-length", b"%d" % LENGTH)])), answers(),
         "malformed: RFC 9110 8.6"),
    Case("8.1.1", "Content-Length twice, the first true", length(b"%d" % LENGTH, more=hpack([(b"content-length", b"1")])),
         resets(PROTOCOL_ERROR)),
]

FIELDS = [
    malformed("a capital in a name", GET + hpack([(b"x-Up", b"v")]), "8.2.1"),
    malformed("a capital in a name that libh2o knows", GET + hpack([(b"Accept", b"*/*")]), "8.2.1"),
    Case("8.2.1", "a capital in a trailer's name", OPEN + data(1, BODY, 0) + headers(1, hpack([(b"x-Up", b"v")])), ends(PROTOCOL_ERROR)),
    Case("8.2.1", "a blank in a trailer's name", OPEN + data(1, BODY, 0) + headers(1, hpack([(b"x up", b"v")])), ends(PROTOCOL_ERROR)),
    Case("8.2.1", "a line feed in a trailer's value", OPEN + data(1, BODY, 0) + headers(1, hpack([(b"x-a", b"v\nw")])), ends(PROTOCOL_ERROR)),
    Case("8.2.1", "a value that begins with a blank", request((b"x-a", b" v")), answers(400)),
    Case("8.2.1", "a value that ends with a blank", request((b"x-a", b"v ")), answers(400)),
    Case("8.2.1", "a value that ends with a tab", request((b"x-a", b"v\t")), answers(400)),
    Case("8.2.1", "a value of one blank", request((b"x-a", b" ")), answers(400)),
    Case("8.2.1", "blanks and tabs inside a value", request((b"x-a", b"v \t w")), answers()),
    Case("8.2.1", "bytes beyond ASCII in a value", request((b"x-a", b"\x80\xff")), answers()),
    *[malformed(f"{name.decode()}", GET + hpack([(name, value)]), "8.2.2") for name, value in (
        (b"connection", b"keep-alive"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"websocket"), (b"te", b"trailers, deflate"))],
    Case("8.2.2", "keep-alive", request((b"keep-alive", b"timeout=5")), answers(400)),
    Case("8.2.2", "proxy-connection", request((b"proxy-connection", b"keep-alive")), answers(400)),
    Case("8.2.2", "te: trailers", post(1, ECHO + hpack([(b"te", b"trailers")])), echoes(without=("te",))),
    Case("8.2.2", "connection in trailers", OPEN + data(1, BODY, 0) + headers(1, hpack([(b"connection", b"close")])), ends(PROTOCOL_ERROR)),
    Case("8.2.3", "cookies one by one", post(1, head("POST", "/cookies/x", [(b"cookie", b"a=b"), (b"x-between", b"1"), (b"cookie", b"c=d"),
                                                                             (b"cookie", b"e=\"f\"")])),
         echoes(("cookie", 'a=b; c=d; e="f"'), ("x-between", "1"))),
    Case("8.2.3", "one cookie", post(1, head("POST", "/cookies/x", [(b"cookie", b"a=b; c=d")])), echoes(("cookie", "a=b; c=d"))),
    Case("8.2.3", "cookies that are empty", post(1, head("POST", "/cookies/x", [(b"cookie", b""), (b"cookie", b"a=b")])),
         echoes(("cookie", "; a=b"))),
]

PSEUDO = [
    malformed("an unknown one", GET + hpack([(b":test", b"x")]), "8.3"),
    malformed("one without a name", GET + hpack([(b":", b"x")]), "8.3"),
    malformed("one of an answer", GET + hpack([(b":status", b"200")]), "8.3"),
    malformed("one after a header", hpack([(b":method", b"GET"), (b":scheme", b"http"), (b"x-a", b"b"), (b":path", b"/livez")]), "8.3"),
    *[malformed(f"{name.decode()} twice", GET + hpack([(name, value)]), "8.3") for name, value in (
        (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/livez"), (b":authority", b"localhost"))],
    Case("8.3", "one in trailers", OPEN + data(1, BODY, 0) + headers(1, hpack([(b":path", b"/x")])), ends(PROTOCOL_ERROR)),
    *[Case("8.3.1", f"no :{name}", request(**{name: None}), resets(PROTOCOL_ERROR)) for name in ("method", "path")],
    Case("8.3.1", "no :scheme", headers(1, hpack([(b":method", b"GET"), (b":path", b"/livez")])), resets(PROTOCOL_ERROR)),
    Case("8.3.1", "no :authority", headers(1, hpack([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/livez")])), answers()),
    Case("8.3.1", "Host in place of :authority", headers(1, hpack([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/livez"),
                                                                   (b"host", b"localhost")])), answers()),
    Case("8.3.1", "Host that is not :authority", request((b"host", b"elsewhere")), answers(), "malformed (a SHOULD)"),
    Case("8.3.1", "an empty :path", request(path=b""), answers(400), "a stream error after the answer"),
    Case("8.3.1", "a :path without a slash", request(path=b"livez"), answers(400)),
    Case("8.3.1", "a :path with a blank", request(path=b"/livez x"), answers(400)),
    Case("8.3.1", "an empty :method", request(method=b""), answers(400)),
    Case("8.3.1", "a :method that is no token", request(method=b"GE T"), answers(400)),
    Case("8.3.1", "a user in :authority", headers(1, hpack([(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"me@localhost"),
                                                            (b":path", b"/livez")])), answers(400)),
    Case("8.3.1", "a :scheme that is neither http nor https", headers(1, hpack([(b":method", b"GET"), (b":scheme", b"gopher"),
                                                                               (b":path", b"/livez")])), answers()),
    Case("8.4", "PUSH_PROMISE", OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + GET), ends(PROTOCOL_ERROR)),
    Case("8.5", "CONNECT", headers(1, hpack([(b":method", b"CONNECT"), (b":authority", b"localhost:443")])), resets(PROTOCOL_ERROR)),
    Case("8.5", "CONNECT with everything", request(method=b"CONNECT"), answers(405)),
]

# A header that libh2o would decode each time it is named (-A____ stands for very many entries), before anybody counts fields.
DIGEST = literal(INCREMENTAL, b"cache-digest", b"-A" + b"_" * 4000)
BOMBS = [
    Case("10.5.1", "a Cache-Digest", headers(1, GET + hpack([(b"cache-digest", b"AfdA")])), ends(PROTOCOL_ERROR)),
    Case("10.5.1", "a Cache-Digest in trailers", OPEN + data(1, BODY, 0) + headers(1, hpack([(b"cache-digest", b"AfdA")])),
         ends(PROTOCOL_ERROR)),
    Case("10.5.1", "one that is named a thousand times", headers(1, GET + DIGEST + indexed(62) * 1000), ends(PROTOCOL_ERROR)),
    Case("10.5.1", "one that is kept half sent", headers(1, POST + DIGEST + indexed(62) * 90, END_HEADERS), ends(PROTOCOL_ERROR)),
]


# ---------------------------------------------------------------- answers

def has_no_body(client):
    answers(200)(client)
    assert not client.data.get(1) and client.frames and 1 in client.ended, client.frames


def is_an_answer(status):
    """8.3.2, 8.2: :status first and once; names in lower case, nothing of HTTP/1.1's connections."""
    def check(client):
        assert client.answer(1)[0] == status, client.status
        (fields,) = client.fields[1]
        names = [name for name, _ in fields]
        assert names[0] == ":status" and not [name for name in names[1:] if name.startswith(":")], names
        assert all(name == name.lower() for name in names), names
        assert not {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"} & set(names), names
        client.is_alive()
    return check


def answered_once(client):
    answers()(client)
    assert len(client.fields[1]) == 1, "an answer of 100 came first"


SENT = [
    Case("8.1", "HEAD", request(method=b"HEAD"), has_no_body),
    Case("8.3.2", "a preflight", request((b"origin", b"https://a.example"), (b"access-control-request-method", b"POST"),
                                                             method=b"OPTIONS", path=CHAT.encode()), is_an_answer(200)),
    Case("8.3.2", "an answer of weir's", headers(1), is_an_answer(200)),
    Case("8.3.2", "a refusal", headers(1, head("GET", "/nowhere")), is_an_answer(404)),
    *[Case("8.3.2", f"a backend's answer, {path}, {fake or 'chunked'}", post(1, head("POST", path, [JSON, (b"x-fake", fake.encode())])),
           is_an_answer(200))
      for path in (CHAT, ECHO_PATH) for fake in ("", "close_body", "length_body", "setcookie")],
    Case("8.1", "Expect: 100-continue", post(1, POST + hpack([(b"expect", b"100-continue")])), answered_once,
         "an interim answer before the body (RFC 9110 10.1.1)"),
]


@smoke
def test_exchanges(t):
    _, weir = t.pair()
    play(weir, EXCHANGES)


@smoke
def test_fields_and_pseudo_headers(t):
    fake = t.fake()
    weir = t.weir(config=f"backends: [{{name: b, url: '{fake.url}'}}]\nroutes: [{{path: '/cookies/*', proxy: b, depends: [public]}}]\n")
    play(weir, FIELDS + PSEUDO)


@smoke
def test_headers_that_unpack_to_more(t):
    _, weir = t.pair()
    play(weir, BOMBS)
    assert weir.metric("process_resident_memory_bytes") < 128 << 20 or weir.is_sanitized() or Options.valgrind


def test_answers(t):
    fake, weir = t.pair(config="cors: {origins: ['https://a.example']}\n")
    play(weir, SENT)


@smoke
def test_a_block_that_changes_streams_gets_nobody_elses_bytes(t):
    """libh2o would take it for the other stream's trailers, and send on what stands where that one's body stood once."""
    fake, weir = t.pair()
    held = headers(1, ECHO, END_HEADERS) + headers(3, ECHO, END_HEADERS) + data(1, b"A" * 3000, 0)
    field = hpack([(b"x-a", b"b")])
    stray = headers(1, b"", END_STREAM) + frame(CONTINUATION, END_HEADERS, 3, b"")
    grow = b"".join(data(1, b"B" * 16000, 0) for _ in range(20))
    turn = headers(5, field, 0) + frame(CONTINUATION, END_HEADERS, 1, b"")
    play(weir, [
        Case("6.10", "one stream's trailers end another's", held + stray, ends(PROTOCOL_ERROR)),
        Case("6.10", "a new stream's headers end another's", held + turn, ends(PROTOCOL_ERROR)),
        Case("6.10", "both, and the body has moved meanwhile", held + stray + grow + turn, ends(PROTOCOL_ERROR)),
    ])
    assert fake.stats()["requests"] == 0, "none of them went out"
