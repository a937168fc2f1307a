"""Bodies beyond `max_body` over HTTP/2: the answer is a whole one, and no invitation to send them again (RFC 9113 8.1, 8.7)."""
import json

from h2_cases import BODY, CHAT, JSON, POST, Client, headers
from harness import chat, smoke, wait_until
from http2 import DATA, END_HEADERS, END_STREAM, NO_ERROR, PADDED, WINDOW_UPDATE, frame, head

KIB64 = "max_body: 64KiB\n"
PART = b"x" * 16000
WINDOW = 16 << 20  # what libh2o grants a stream and the connection


def upload(stream, parts, flags=0, block=POST):
    return headers(stream, block, END_HEADERS) + b"".join(frame(DATA, 0, stream, PART) for _ in range(parts - 1)) + \
        frame(DATA, flags, stream, PART)


def answer(client, stream):
    """As Client.answer, which tells of a stream that was reset no more than that."""
    client.read_until(lambda: stream in client.ended or stream in client.resets or client.goaway, f"the answer on stream {stream}")
    assert stream in client.ended, (client.resets, client.goaway)
    return client.status.get(stream), client.data.get(stream)


def is_refused(client, stream):
    status, body = answer(client, stream)
    fields = dict(client.fields[stream][0])
    assert status == 413 and len(client.fields[stream]) == 1, (status, client.fields[stream])
    assert fields["content-type"] == "application/json" and fields["content-length"] == str(len(body)), fields
    assert fields["x-request-id"] and fields["date"], fields
    error = json.loads(body)["error"]
    assert "max_body" in error["message"], error
    assert stream not in client.resets, client.resets
    return fields["x-request-id"]


@smoke
def test_a_body_beyond_the_maximum_is_413_over_http2(t):
    fake, weir = t.pair(config=KIB64)
    long = head("POST", CHAT, [JSON, (b"content-length", b"70000")])
    padded = b"\xff" + b"x" * 15000 + b"\0" * 255
    cases = {
        "no length": upload(1, 5),
        "the end in the frame that is too much": upload(1, 5, END_STREAM),
        "announced, one short frame": headers(1, long, END_HEADERS) + frame(DATA, 0, 1, b"{"),
        "padded": headers(1, POST, END_HEADERS) + frame(DATA, PADDED, 1, padded) * 5,
    }
    for name, sent in cases.items():
        with Client(weir) as client:
            client.send(sent)
            request_id = is_refused(client, 1)
            client.is_alive()
            assert not client.resets, client.resets
            client.send(headers(3))
            assert client.answer(3)[0] == 200
        line = weir.request_line(request_id)
        assert line["status"] == 413 and line["end"] == "refused", (name, line)
    wait_until(lambda: weir.metric(r'weir_requests_total\{.*status="413"') == len(cases), "all to be counted")
    with Client(weir) as client:  # padding is no part of the body
        rest = BODY + b" " * (65536 - 60000 - len(BODY))
        client.send(headers(1, POST, END_HEADERS) + frame(DATA, 0, 1, b" " * 15000) * 4 +
                    frame(DATA, PADDED | END_STREAM, 1, b"\xff" + rest + b"\0" * 255))
        assert client.answer(1)[0] == 200, "just as much as may be"
    assert fake.stats()["requests"] == 1, "only the good one went out"


@smoke
def test_the_answer_to_a_body_beyond_the_maximum_needs_no_window(t):
    _, weir = t.pair(config=KIB64)
    for method, window in (("POST", 0), ("HEAD", 65535)):
        with Client(weir, window=window) as client:
            client.send(upload(1, 5, block=head(method, CHAT, [JSON])))
            status, body = answer(client, 1)
            assert status == 413 and not body and 1 in client.ended, (method, status, body)
            assert ("content-length" in dict(client.fields[1][0])) == (method == "HEAD"), client.fields
            client.is_alive()


@smoke
def test_refused_uploads_leave_the_connection_as_it_was(t):
    """What still comes is passed over, and given back to the connection's window; who does not stop is told to."""
    _, weir = t.pair(config=KIB64)
    with Client(weir) as client:
        client.post(1, CHAT, BODY, "events=100000,pace_ms=20")
        client.open_window(0, 1 << 30)
        client.open_window(1, 1 << 30)
        client.read_until(lambda: client.data.get(1), "the stream to begin")
        for stream in range(3, 43, 2):
            client.send(upload(stream, 40))
            is_refused(client, stream)
            client.send(frame(DATA, END_STREAM, stream, PART) if stream < 23 else b"")
        for _ in range(WINDOW * 2 // len(PART)):
            client.send(frame(DATA, 0, 41, PART))
            client.take_what_has_come()
        seen = len(client.data[1])
        client.read_until(lambda: len(client.data[1]) > seen + 1000, "the other stream to go on")
        given = sum(int.from_bytes(payload, "big") for kind, _, stream, payload in client.frames
                    if kind == WINDOW_UPDATE and stream == 0)
        assert given > WINDOW, given
        client.post(101, CHAT, BODY)
        assert client.answer(101)[0] == 200 and client.resets == {41: NO_ERROR}, client.resets
        client.reset(1)
    wait_until(lambda: weir.metric(r'weir_requests_total\{.*status="413"') == 20, "all to be counted")


@smoke
def test_curl_hears_of_a_body_beyond_the_maximum_over_http2(t):
    t.need("curl")
    fake = t.fake()
    weir = t.weir(fake)
    big = t.dir / "big.json"
    big.write_text(json.dumps(chat(False, padding="x" * (33 << 20))))
    for source, stdin in ((("--data-binary", f"@{big}"), None), (("-X", "POST", "-T", "-"), big.read_bytes())):
        done = t.curl("--http2-prior-knowledge", "-H", "content-type: application/json", *source,
                      "-w", "\n%{http_version} %{http_code}", weir.url + CHAT, stdin=stdin)
        assert done.returncode == 0, done
        text, numbers = done.stdout.rsplit(b"\n", 1)
        assert numbers == b"2 413" and "max_body" in json.loads(text)["error"]["message"], done.stdout
    wait_until(lambda: weir.metric(r'weir_requests_total\{.*status="413"') == 2, "both to be counted")
    assert fake.stats()["requests"] == 0
