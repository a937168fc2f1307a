"""HTTP/2 floods end with ENHANCE_YOUR_CALM and disturb nobody; users who merely ask for much are never cut."""
import json
import struct
import time

from harness import Options, chat, limit, smoke, wait_until
from http2 import (CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, REFUSED_STREAM,
                   RST_STREAM, SETTINGS, WINDOW_UPDATE, Http2, frame, head, head_frames, hpack, window_update)

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat()).encode()
ATTACKER = "127.0.0.66"
GET = head("GET", "/livez")
POST = head("POST", CHAT, [(b"content-type", b"application/json")])
WIDE = 0x3fffffff
CALM = 30  # seconds that an attack may last before weir must have had enough


def in_clear_and_over_tls(t, behave="", **options):
    """A fake and a gateway in front of it, once with TLS and once without."""
    fake = t.fake(behave)
    for tls in (None, t.certificate()):
        fake.reset()
        weir = t.weir(fake, tls=tls, **options)
        yield fake, weir
        assert weir.stop() == 0


def flood(weir, make, kind, batch=1):
    """Sends make(i) until the connection ends; checks how it ended and that others were served."""
    before = weir.metric(rf'weir_http2_floods_total{{kind="{kind}"')
    with Http2(weir, source=ATTACKER, acknowledge=False) as client:
        i, end = 0, time.monotonic() + CALM * Options.slow
        while not client.closed and client.goaway is None and time.monotonic() < end:
            client.send(b"".join(make(i + n) for n in range(batch)))
            i += batch
            client.take_what_has_come()
        client.read_until(lambda: False, "the connection to be closed")
        assert client.calmed(), (kind, client.goaway, i)
    wait_until(lambda: weir.metric(rf'weir_http2_floods_total{{kind="{kind}"') == before + 1, f"the flood of {kind} to be counted")
    assert weir.stream().status == 200


def security_lines(weir, event):
    return [line for line in weir.log_lines() if line["msg"] == "security" and line["event"] == event]


@smoke
def test_rapid_reset_is_ended(t):
    _, weir = t.pair("events=1")
    def make(i):
        return head_frames(2 * i + 1, POST) + frame(DATA, END_STREAM, 2 * i + 1, BODY) + \
            frame(RST_STREAM, 0, 2 * i + 1, struct.pack(">I", CANCEL))
    flood(weir, make, "reset", batch=50)
    line = security_lines(weir, "flood")[0]
    assert line["client"] == ATTACKER and line["detail"] == "reset", line


@smoke
def test_resets_that_the_server_is_made_to_send_are_ended(t):
    """MadeYouReset: a window update of nothing is an error of the stream (RFC 9113 6.9)."""
    fake, weir = t.pair("delay_ms=5000")
    def make(i):
        return head_frames(2 * i + 1, POST) + frame(DATA, END_STREAM, 2 * i + 1, BODY) + \
            frame(WINDOW_UPDATE, 0, 2 * i + 1, struct.pack(">I", 0))
    before = weir.metric('weir_http2_floods_total{kind="aborted"')
    with Http2(weir, source=ATTACKER) as client:
        for i in range(2000):
            client.send(make(i))
            client.take_what_has_come()
            if client.closed or client.goaway:
                break
        client.read_until(lambda: False, "the connection to be closed")
        assert client.calmed(), client.goaway
    assert weir.metric('weir_http2_floods_total{kind="aborted"') == before + 1
    fake.behave("")
    assert weir.stream().status == 200


@smoke
def test_floods_of_control_frames_are_ended(t):
    _, weir = t.pair()
    flood(weir, lambda i: frame(PING, 0, 0, b"12345678"), "ping", batch=100)
    flood(weir, lambda i: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535 + i % 2)), "settings", batch=100)


def test_floods_of_priorities_and_windows_are_ended(t):
    _, weir = t.pair()
    flood(weir, lambda i: frame(PRIORITY, 0, 1, struct.pack(">IB", 0, i % 256)), "priority", batch=100)
    flood(weir, lambda i: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)), "window_update", batch=5000)


def test_floods_of_unknown_frames_are_ended_and_a_few_are_ignored(t):
    _, weir = t.pair()
    with Http2(weir) as client:
        for kind in range(10, 60):
            client.send(frame(kind, 0xff, 0, b"whatever"))
        client.send(head_frames(1, GET)[:-len(GET) - 5] + bytes([END_HEADERS | END_STREAM]) + b"\0\0\0\1" + GET)
        assert client.answer(1)[0] == 200
    assert "skipping frame" not in weir.log()
    flood(weir, lambda i: frame(0x20 + i % 100, 0, 0), "other", batch=100)


def test_floods_of_empty_and_tiny_data_are_ended(t):
    _, weir = t.pair()
    def tiny(size):
        return lambda i: (head_frames(1, POST) if i == 0 else b"") + frame(DATA, 0, 1, b"x" * size)
    flood(weir, tiny(0), "empty_data", batch=100)
    flood(weir, tiny(1), "small_data", batch=1000)


@smoke
def test_floods_of_continuations_are_ended(t):
    _, weir = t.pair()
    for size in (0, 1, 1000):
        def make(i, size=size):
            return frame(HEADERS, 0, 1, POST) if i == 0 else frame(CONTINUATION, 0, 1, b"x" * size)
        flood(weir, make, "header_block", batch=10)


@smoke
def test_header_bombs_are_ended(t):
    """One entry in the table, named a hundred thousand times (RFC 7541 7.3), in a request that never ends."""
    _, weir = t.pair()
    bomb = POST + b"\x40\x04bomb" + b"\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 100000
    with Http2(weir, source=ATTACKER) as client:
        client.send(head_frames(1, bomb) + frame(PING, 0, 0, b"12345678"))
        client.read_until(lambda: False, "the connection to be closed")
        assert client.calmed(), client.goaway
    assert weir.metric('weir_http2_floods_total{kind="header_block"') == 1


def test_requests_that_lead_nowhere_are_ended(t):
    """Each is refused by libh2o itself, for it has no path."""
    _, weir = t.pair()
    block = hpack([(b":method", b"GET"), (b":scheme", b"http")])
    flood(weir, lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, block), "request", batch=200)


@limit(100)
def test_a_client_that_reads_no_acknowledgements_does_not_fill_memory(t):
    """Each of its frames is answered with one that it never reads. The kernel takes some megabytes before weir has to."""
    _, weir = t.pair(config="send_timeout: 2s\n")
    frames = b"".join(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 0)) for _ in range(3900))
    with Http2(weir, source=ATTACKER, rcvbuf=4096) as client:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, GET))
        client.wire.sock.settimeout(5)
        end = time.monotonic() + 60
        try:
            while time.monotonic() < end:
                client.wire.sock.sendall(frames)
                time.sleep(0.1)  # not so many a second that their number alone ends it
        except (ConnectionError, TimeoutError):
            pass
        wait_until(lambda: weir.metric("weir_connections$") <= 1, "the connection to go")
    assert weir.metric("process_resident_memory_bytes") < 128 << 20 or weir.is_sanitized() or Options.valgrind


@smoke
def test_requests_held_half_sent_are_reset_in_the_end(t):
    _, weir = t.pair(config="request_timeout: 2s\n")
    with Http2(weir) as client:
        for stream in range(1, 101, 2):
            client.send(head_frames(stream, POST) + frame(DATA, 0, stream, b"{"))
        end = time.monotonic() + 20
        while len(client.resets) < 50 and time.monotonic() < end and not client.closed:
            client.send(frame(PING, 0, 0, b"keepmeup"))
            client.take_what_has_come()
            time.sleep(0.1)
        assert set(client.resets.values()) == {REFUSED_STREAM} and len(client.resets) == 50, client.resets
        client.post(201, CHAT, BODY, "events=2")
        assert client.answer(201)[0] == 200, "the connection is as good as before"


@smoke
def test_half_sent_uploads_of_one_connection_are_bounded(t):
    _, weir = t.pair(config="max_body: 1MiB\n")
    with Http2(weir, source=ATTACKER) as client:
        for stream in range(1, 41, 2):
            client.send(head_frames(stream, POST))
            for _ in range(60):
                client.send(frame(DATA, 0, stream, b"x" * 16000))
            client.take_what_has_come()
        client.read_until(lambda: len(client.resets) >= 10, "the uploads to be refused")
        assert set(client.resets.values()) == {REFUSED_STREAM}, client.resets
    assert weir.stream().status == 200


def test_an_address_that_floods_again_and_again_is_shut_out_for_a_while(t):
    _, weir = t.pair()
    block = POST + b"\0" * 10
    def attack():
        with Http2(weir, source=ATTACKER) as client:
            client.send(frame(HEADERS, 0, 1, block) + frame(CONTINUATION, 0, 1) * 100)
            client.read_until(lambda: False, "the connection to be closed")
            return client.calmed()
    shut = 0
    for _ in range(8):
        try:
            shut += not attack()
        except ConnectionError:
            shut += 1
    assert shut >= 2, shut
    assert weir.stream().status == 200, "others are served"
    assert weir.metric('weir_connections_refused_total{reason="penalty"') >= 2
    assert any(line["detail"] == "penalty" for line in security_lines(weir, "connections"))
    def served_again():
        try:
            with weir.connect(source=ATTACKER) as wire:
                wire.request("GET", "/livez")
                return wire.response().status == 200
        except (ConnectionError, EOFError):
            return False
    wait_until(served_again, "the address to be let in again", 20)


@limit(90)
def test_floods_over_tls_are_ended(t):
    weir = t.weir(t.fake("events=1"), tls=t.certificate())
    flood(weir, lambda i: head_frames(2 * i + 1, POST) + frame(DATA, END_STREAM, 2 * i + 1, BODY) +
          frame(RST_STREAM, 0, 2 * i + 1, struct.pack(">I", CANCEL)), "reset", batch=50)
    flood(weir, lambda i: frame(PING, 0, 0, b"12345678"), "ping", batch=100)
    flood(weir, lambda i: frame(HEADERS, 0, 1, POST) if i == 0 else frame(CONTINUATION, 0, 1, b"x"), "header_block", batch=10)
    flood(weir, lambda i: (head_frames(1, POST) if i == 0 else b"") + frame(DATA, 0, 1), "empty_data", batch=100)


# ---------------------------------------------------------------- those who merely ask for much

@smoke
@limit(90)
def test_a_hundred_streams_at_once_cancelled_by_the_dozen_are_never_cut(t):
    for fake, weir in in_clear_and_over_tls(t, "events=100000,pace_ms=50"):
        with Http2(weir) as client:
            client.open_window(0, WIDE)
            stream = 1
            for _ in range(3):
                streams = list(range(stream, stream + 200, 2))
                stream += 200
                for each in streams:
                    client.post(each, CHAT, BODY)
                client.read_until(lambda: all(s in client.data for s in streams), "all to stream")
                for start in range(0, 100, 12):
                    for each in streams[start:start + 12]:
                        client.reset(each)
                    client.take_what_has_come()
            assert client.goaway is None and not client.closed
            client.post(stream, CHAT, BODY, "events=3")
            assert client.answer(stream)[1].endswith(b"[DONE]\n\n")
        fake.wait_aborts(300)
        assert weir.metric("weir_http2_floods_total") == 0


@limit(90)
def test_large_prompts_at_once_are_never_cut(t):
    for fake, weir in in_clear_and_over_tls(t):
        body = json.dumps(chat(filler="x" * 1000000)).encode()
        with Http2(weir) as client:
            for stream in range(1, 41, 2):
                client.send(head_frames(stream, POST))
            for offset in range(0, len(body), 16000):
                last = END_STREAM if offset + 16000 >= len(body) else 0
                for stream in range(1, 41, 2):
                    client.send(frame(DATA, last, stream, body[offset:offset + 16000]))
                client.take_what_has_come()
            for stream in range(1, 41, 2):
                assert client.answer(stream)[0] == 200, (stream, client.resets)
            assert client.goaway is None
        assert fake.stats()["requests"] == 20


@limit(90)
def test_slow_readers_and_busy_windows_are_never_cut(t):
    """Window for each frame of data, as simple clients give it, a hundred streams at once."""
    for _, weir in in_clear_and_over_tls(t, "events=60,pace_ms=10,size=200"):
        with Http2(weir) as client:
            given = {}
            for stream in range(1, 201, 2):
                client.post(stream, CHAT, BODY)
            def done():
                for stream, data in client.data.items():
                    n = len(data) - given.get(stream, 0)
                    if n:
                        given[stream] = len(data)
                        client.open_window(0, n)
                        if stream not in client.ended:
                            client.open_window(stream, n)
                return len(client.ended) == 100
            client.read_until(done, "all to end", 30)
            assert len(client.ended) == 100 and client.goaway is None, (client.ended, client.goaway)


@limit(90)
def test_thousands_of_answered_requests_on_one_connection_are_never_cut(t):
    for _, weir in in_clear_and_over_tls(t):
        with Http2(weir) as client:
            client.open_window(0, WIDE)
            for start in range(1, 12001, 120):
                streams = range(start, start + 120, 2)
                client.send(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET) for stream in streams))
                client.read_until(lambda: all(s in client.ended for s in streams), "the answers")
                assert not client.closed, (start, client.goaway)
            assert len(client.ended) == 6000 and client.goaway is None and not client.resets


@limit(90)
def test_pings_and_settings_of_a_careful_client_are_answered(t):
    for _, weir in in_clear_and_over_tls(t, "events=40,pace_ms=50"):
        with Http2(weir) as client:
            client.post(1, CHAT, BODY)
            while 1 not in client.ended:
                client.send(frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0))
                seen = len(client.data.get(1, b""))
                client.read_until(lambda seen=seen: 1 in client.ended or len(client.data.get(1, b"")) > seen, "an event")
            assert client.goaway is None and client.data[1].endswith(b"[DONE]\n\n")


@smoke
def test_a_header_block_that_goes_on_after_the_last_goaway_ends_the_connection(t):
    """libh2o would look at the same frame for ever."""
    fake, weir = t.pair("events=10000,pace_ms=50", args=["--drain-timeout", "20s"])
    with Http2(weir, acknowledge=False) as client:
        client.post(1, CHAT, BODY)
        client.read_until(lambda: 1 in client.data, "the stream")
        client.send(frame(HEADERS, 0, 3, POST))
        weir.signal()
        client.read_until(lambda: client.goaway is not None, "the first GOAWAY")
        client.goaway = None
        client.read_until(lambda: client.goaway is not None, "the last GOAWAY")
        client.send(frame(CONTINUATION, END_HEADERS, 3, b""))
        client.read_until(lambda: False, "the connection to be closed")
        assert client.goaway == (1, b"no progress"), client.goaway
    assert weir.wait(10) == 0
    fake.wait_aborts(1)


@smoke
def test_what_comes_after_the_last_goaway_leaves_other_requests_alone(t):
    """Its sender had not heard of the GOAWAY yet."""
    _, weir = t.pair("events=60,pace_ms=50", args=["--drain-timeout", "20s"])
    large = POST + hpack([(b"x-large", b"x" * 9000)] * 2)
    late = (head_frames(3, POST) + frame(DATA, END_STREAM, 3, BODY), head_frames(3, large) + frame(DATA, END_STREAM, 3, BODY),
            head_frames(3, POST) + window_update(3, 1000), head_frames(3, POST) + frame(RST_STREAM, 0, 3, b"\0\0\0\x08"))
    clients = [Http2(weir) for _ in late]
    for client in clients:
        client.post(1, CHAT, BODY)
        client.read_until(lambda client=client: 1 in client.data, "the stream")
    weir.signal()
    for client, data in zip(clients, late):
        client.read_until(lambda client=client: client.goaway == (0, b""), "the last GOAWAY")
        client.send(data)
    for client, data in zip(clients, late):
        client.read_until(lambda client=client: 1 in client.ended, "the answer")
        assert client.goaway == (0, b"") and client.data[1].endswith(b"[DONE]\n\n"), (data[:30], client.goaway)
        assert 3 not in client.status
        client.wire.close()
    assert weir.wait(10) == 0
