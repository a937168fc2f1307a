"""HTTP/2 clients that break the rules: windows that stay shut, header blocks beyond all measure, names that are none."""
import json

from harness import chat, smoke, wait_until
from http2 import DATA, END_STREAM, Http2, frame, head, head_frames, hpack

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat()).encode()
FLOOD = "flood,events=100000,size=1000"
WIDE = 0x3fffffff


def in_flight(weir):
    """Requests, without the one that asks, and streams."""
    text = weir.metrics()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return sum(int(float(value)) for name, value in values.items()
               if name.startswith(("weir_requests_in_flight", "weir_streams_in_flight"))) - 1


# ---------------------------------------------------------------- windows that stay shut

@smoke
def test_a_window_that_opens_after_the_cut_off_gets_nothing_of_others(t):
    """Another stream keeps the connection, so that the stalled ones can still be written to."""
    fake, weir = t.pair(config="send_timeout: 1s\n", args=["--workers", "1"])
    own = fake.ask("POST", CHAT, {"x-fake": "flood,events=3000,size=1000"}, chat()).body
    stalled, secret = range(3, 23, 2), b"SECRET-OF-ANOTHER-CLIENT "
    with Http2(weir, window=0) as client:
        client.open_window(0, WIDE)
        client.post(1, CHAT, BODY, "events=100000,pace_ms=20")
        client.open_window(1, WIDE)
        for stream in stalled:
            client.post(stream, CHAT, BODY, FLOOD)
        # The live stream has to be read meanwhile, or it would stall as well.
        client.read_until(lambda: fake.stats()["aborts"] >= len(stalled) and 1 in client.data, "the backend to be let go")
        assert not client.closed
        others = []
        for _ in range(20):
            wire = weir.connect()
            wire.request("POST", "/v1/audio/x", {"x-fake": "delay_ms=1500", "authorization": secret.decode() * 100},
                         secret * 4000)
            others.append(wire)
        fake.wait_requests(1 + 1 + len(stalled) + len(others))
        seen = len(client.data[1])
        for stream in stalled:
            client.open_window(stream, 1 << 20)
        client.read_until(lambda: len(client.data[1]) > seen + 5000, "the live stream to go on")
        client.read_until(lambda: any(client.data.get(stream) for stream in stalled), "what was written before the cut-off")
        assert not client.closed
        for stream in stalled:
            got = client.data.get(stream, b"")
            assert stream not in client.ended or stream in client.resets, "what was cut off is not passed off as whole"
            assert own.startswith(got), (stream, got[:200], secret in got)
        for wire in others:
            assert wire.response().status == 200
            wire.close()
        client.reset(1)
    wait_until(lambda: in_flight(weir) == 0, "the requests to end")


@smoke
def test_a_connection_on_which_everything_is_stalled_is_closed(t):
    fake, weir = t.pair(config="send_timeout: 1s\n", args=["--workers", "1"])
    with Http2(weir, window=0) as client:
        for stream in range(1, 41, 2):
            client.post(stream, CHAT, BODY, FLOOD, [(b"x-request-id", b"stalled-%d" % stream)])
        client.read_until(lambda: False, "the connection to be closed")
        assert client.closed and not client.data
    fake.wait_aborts(20)
    wait_until(lambda: in_flight(weir) == 0, "the requests to end")
    line = weir.request_line("stalled-39")
    assert line["end"] == "send_timeout", line
    assert weir.stream().body.endswith(b"[DONE]\n\n")


# ---------------------------------------------------------------- header blocks

@smoke
def test_more_header_fields_than_anybody_sends_are_refused(t):
    """One byte each: an index into HPACK's table. Nothing may be sized by their number before it is checked."""
    fake, weir = t.pair()
    for count, index in ((400000, b"\x90"), (400000, b"\x93"), (101, b"\x90")):
        with Http2(weir) as client:
            block = head("POST", CHAT, [(b"content-type", b"application/json")]) + index * count
            client.send(head_frames(1, block) + frame(DATA, END_STREAM, 1, BODY))
            status, body = client.answer(1)
            assert status in (431, None), (count, status, body)
            assert count > 1000 or status == 431
        assert weir.alive() and weir.stream().status == 200
    assert fake.stats()["requests"] == 3, "only the good ones went out"


@smoke
def test_a_header_block_of_100_kilobytes_is_refused_and_one_of_300_ends_the_connection(t):
    fake, weir = t.pair()
    with Http2(weir) as client:
        block = head("POST", CHAT, [(b"content-type", b"application/json")])
        for i in range(10):
            block += hpack([(b"x-%d" % i, b"v" * 10000)])
        client.send(head_frames(1, block) + frame(DATA, END_STREAM, 1, BODY))
        status, body = client.answer(1)
        assert status == 431 and json.loads(body)["error"]["message"], (status, body)
        client.post(3, CHAT, BODY, "events=2")
        status, body = client.answer(3)
        assert status == 200 and body.endswith(b"[DONE]\n\n"), "the connection is as good as before"
        client.send(head_frames(5, block * 3) + frame(DATA, END_STREAM, 5, BODY))
        client.read_until(lambda: False, "the connection to be closed")
        assert client.calmed(), client.goaway
    assert fake.stats()["requests"] == 1


@smoke
def test_header_names_that_http_1_could_not_carry_are_refused(t):
    """The backend would read `: b`, or two lines instead of one."""
    fake, weir = t.pair()
    with Http2(weir) as client:
        client.post(1, CHAT, BODY, "events=2", [(b"x-odd.~!#$%&'*+^_`|name", b"b")])
        assert client.answer(1)[0] == 200
    assert fake.last().header("x-odd.~!#$%&'*+^_`|name") == "b"
    for name in (b"", b" ", b"x y", b"x:y", b":", b"x\r\nx-evil", b"x\ny", b"x\0y", b'x"y', b"x\x80", b"x(y)",
                 b"x/y", b"x\x7f", b"X-Upper"):
        with Http2(weir) as client:
            client.post(1, CHAT, BODY, "events=2", [(name, b"b")])
            status, body = client.answer(1)
            assert status in (400, None), (name, status, body)
            assert status == 400 or 1 in client.resets or client.goaway, name
            assert name != b"" or status == 400
    assert fake.stats()["requests"] == 1 and weir.stream().status == 200
