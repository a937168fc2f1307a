"""HTTP/2 framing, stream states and flow control, clause by clause of RFC 9113 (sections 3 to 7)."""
import struct
import time

from h2_cases import (BODY, CHAT, ECHO, GET, JSON, OPEN, POST, Case, Client, after_answer, answers, closes, echoes, ends, headers,
                      ignored, ping, play, post, priority, reset, resets, settings, waiting)
from harness import smoke, wait_until
from http2 import (ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR,
                   FRAME_SIZE_ERROR, COMPRESSION_ERROR, GOAWAY, HEADERS, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS,
                   MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, PADDED, PING, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM,
                   RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, WITH_PRIORITY, frame, head, hpack, window_update)

FIELD = hpack([(b"x-a", b"b")])
SHUT = {"window": 0}  # no answer has a body until the client gives window
WIDE = 0x7fffffff


def data(stream, payload=b"", flags=END_STREAM):
    return frame(DATA, flags, stream, payload)


def more(stream, payload=b"", flags=END_HEADERS):
    return frame(CONTINUATION, flags, stream, payload)


def reserved(sent):
    """The same frame with the reserved bit of its stream identifier set."""
    return sent[:5] + bytes([sent[5] | 0x80]) + sent[6:]


# ---------------------------------------------------------------- 3 and 4

STARTING = [
    Case("3.4", "a preface, SETTINGS and a request at once", headers(1), answers()),
    Case("3.4", "empty SETTINGS", headers(1), answers(), options={"greeting": PREFACE + settings()}),
    Case("3.4", "a preface byte by byte", lambda c: [c.send(bytes([b])) for b in PREFACE + settings() + headers(1)], answers(),
         options={"greeting": b""}),
    Case("3.4", "no SETTINGS after the preface", headers(1), ends(PROTOCOL_ERROR), options={"greeting": PREFACE}),
    Case("3.4", "an acknowledgement in place of SETTINGS", headers(1), ends(PROTOCOL_ERROR),
         options={"greeting": PREFACE + frame(SETTINGS, ACK, 0)}),
    Case("3.4", "an extension frame in place of SETTINGS", headers(1), ends(PROTOCOL_ERROR),
         options={"greeting": PREFACE + frame(0x20, 0, 0) + settings()}),
    Case("3.4", "a preface that goes wrong", b"", closes(), options={"greeting": PREFACE[:-6] + b"XX\r\n\r\n"}),
]

FORMAT = [
    Case("4.1", "a frame of unknown type", frame(0xfe, 0, 0, b"x" * 8), ignored),
    Case("4.1", "a frame of unknown type on an idle stream", frame(0xfe, 0xff, 77, b"x"), ignored),
    Case("4.1", "flags that mean nothing", frame(PING, 0xfe, 0, b"flagged!") + frame(SETTINGS, 0xfe, 0), ignored),
    Case("4.1", "the reserved bit on a PING", reserved(ping(b"reserved")), ignored),
    Case("4.1", "the reserved bit on a request", reserved(headers(1)), answers()),
    Case("4.2", "DATA of 2^14 bytes", headers(1, ECHO, END_HEADERS) + data(1, b"x" * 16384), echoes(body=b"x" * 16384)),
    Case("4.2", "DATA of 2^14 + 1 bytes", OPEN + data(1, b"x" * 16385), ends(FRAME_SIZE_ERROR)),
    Case("4.2", "HEADERS of 2^14 + 1 bytes", headers(1, b"x" * 16385), ends(FRAME_SIZE_ERROR)),
    Case("4.2", "CONTINUATION of 2^14 + 1 bytes", headers(1, GET, END_STREAM) + more(1, b"x" * 16385), ends(FRAME_SIZE_ERROR)),
    Case("4.2", "SETTINGS of more than 2^14 bytes", settings(*[(99, 0)] * 2731), ends(FRAME_SIZE_ERROR)),
    Case("4.2", "an unknown frame of 2^24 - 1 bytes", b"\xff\xff\xff\x20\0\0\0\0\0", ends(FRAME_SIZE_ERROR)),
    Case("4.3", "a block that cannot be decoded", headers(1, b"\x40"), ends(COMPRESSION_ERROR)),
    Case("4.3", "an empty block", headers(1, b""), resets(PROTOCOL_ERROR)),
    Case("4.3", "PRIORITY inside a block", headers(1, GET, END_STREAM) + priority(1), ends(PROTOCOL_ERROR)),
    Case("4.3", "HEADERS of another stream inside a block", headers(1, GET, END_STREAM) + headers(3), ends(PROTOCOL_ERROR)),
    Case("4.3", "DATA inside a block", headers(1, POST, 0) + data(1, BODY), ends(PROTOCOL_ERROR)),
    Case("4.3", "PING inside a block", headers(1, GET, END_STREAM) + ping(b"between!"), ends(PROTOCOL_ERROR)),
    Case("4.3", "RST_STREAM inside a block", headers(1, GET, END_STREAM) + reset(1), ends(PROTOCOL_ERROR)),
]

# ---------------------------------------------------------------- 5

STATES = [
    Case("5.1", "idle: DATA", data(1, b"x"), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: DATA on a server's stream", headers(3) + data(2, b"x"), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: DATA after PRIORITY", priority(1) + data(1, b"x"), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: RST_STREAM", reset(1), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: WINDOW_UPDATE", window_update(1, 100), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: WINDOW_UPDATE of nothing", window_update(1, 0), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: WINDOW_UPDATE on a server's stream", window_update(2, 100), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: CONTINUATION", more(1, GET), ends(PROTOCOL_ERROR)),
    Case("5.1", "idle: PRIORITY, then a lower stream", priority(5) + headers(3), answers(stream=3)),
    Case("5.1", "idle: PRIORITY, then the stream", priority(1) + headers(1), answers()),
    Case("5.1", "half-closed: DATA", waiting(1) + data(1, b"x"), resets(STREAM_CLOSED)),
    Case("5.1", "half-closed: HEADERS", waiting(1) + headers(1, FIELD), ends(STREAM_CLOSED)),
    Case("5.1", "half-closed: CONTINUATION", waiting(1) + more(1, FIELD), ends(PROTOCOL_ERROR)),
    Case("5.1", "half-closed: WINDOW_UPDATE", headers(1) + window_update(1, 1000), answers(), options=SHUT),
    Case("5.1", "half-closed: PRIORITY", headers(1) + priority(1) + window_update(1, 1000), answers(), options=SHUT),
    Case("5.1", "half-closed: RST_STREAM", waiting(1) + reset(1), ignored),
    Case("5.1", "reset: DATA", waiting(1) + reset(1) + data(1, b"x"), resets(STREAM_CLOSED)),
    Case("5.1", "reset: HEADERS", waiting(1) + reset(1) + headers(1), ends(STREAM_CLOSED)),
    Case("5.1", "reset: CONTINUATION", waiting(1) + reset(1) + more(1, GET), ends(PROTOCOL_ERROR)),
    Case("5.1", "reset: WINDOW_UPDATE, PRIORITY, RST_STREAM", waiting(1) + reset(1) + window_update(1, 1) + priority(1) + reset(1), ignored),
    Case("5.1", "closed: DATA", after_answer(data(1, b"x")), resets(STREAM_CLOSED)),
    Case("5.1", "closed: HEADERS", after_answer(headers(1)), ends(STREAM_CLOSED)),
    Case("5.1", "closed: CONTINUATION", after_answer(more(1, GET)), ends(PROTOCOL_ERROR)),
    Case("5.1", "closed: WINDOW_UPDATE, PRIORITY, RST_STREAM", after_answer(window_update(1, 1) + priority(1) + reset(1)), ignored),
    Case("5.1.1", "an even stream", headers(2), ends(PROTOCOL_ERROR)),
    Case("5.1.1", "stream 0", headers(0), ends(PROTOCOL_ERROR)),
    Case("5.1.1", "a lower stream than the last", headers(5) + headers(3), ends(STREAM_CLOSED), "PROTOCOL_ERROR"),
    Case("5.1.1", "the highest stream there is", headers(WIDE), answers(stream=WIDE)),
    Case("5.1.1", "a stream after the highest", headers(WIDE) + headers(1), ends(STREAM_CLOSED), "PROTOCOL_ERROR"),
    Case("5.1.2", "one stream more than allowed", b"".join(headers(i, POST, END_HEADERS) for i in range(1, 202, 2)) + reset(1) + reset(3),
         resets(REFUSED_STREAM, 201)),
    Case("5.1.2", "as many as allowed, again and again", b"".join(headers(i, POST, END_HEADERS) + reset(i) for i in range(1, 241, 2)),
         ignored),
    Case("5.3", "weights, exclusive dependencies, loops", priority(3, 1) + priority(5, 3, 255, True) + priority(3, 5) +
         headers(1, b"\x80\0\0\5\x10" + GET, END_STREAM | END_HEADERS | WITH_PRIORITY), answers()),
    Case("5.3", "HEADERS that depend on themselves", headers(1, b"\0\0\0\1\x10" + GET, END_STREAM | END_HEADERS | WITH_PRIORITY),
         ends(PROTOCOL_ERROR)),
    Case("5.3", "PRIORITY that depends on itself", priority(1, 1), ends(PROTOCOL_ERROR)),
    Case("5.3", "sixteen idle streams with a priority", b"".join(priority(i) for i in range(1, 33, 2)), ignored),
    Case("5.3", "more of them than anybody needs (10.5)", b"".join(priority(i) for i in range(1, 41, 2)), ends(ENHANCE_YOUR_CALM)),
    Case("5.5", "an extension frame inside a block", headers(1, GET, END_STREAM) + frame(0xfe, 0, 1), ends(PROTOCOL_ERROR)),
    Case("5.5", "an unknown setting", settings((0x99, 1), (0xffff, WIDE)), ignored),
]

# ---------------------------------------------------------------- 6 and 7

FRAMES = [
    Case("6.1", "DATA on stream 0", data(0, b"x"), ends(PROTOCOL_ERROR)),
    Case("6.1", "several DATA frames", headers(1, ECHO, END_HEADERS) + data(1, b"ab", 0) + data(1, b"c", 0) + data(1), echoes(body=b"abc")),
    Case("6.1", "padding", headers(1, ECHO, END_HEADERS) + data(1, b"\x05abc" + b"\0" * 5, PADDED) +
         data(1, b"\xff" + b"\0" * 255, PADDED) + data(1, b"\0def", PADDED | END_STREAM), echoes(body=b"abcdef")),
    Case("6.1", "padding as long as the payload", OPEN + data(1, b"\4abc", PADDED | END_STREAM), ends(PROTOCOL_ERROR)),
    Case("6.1", "padding longer than the payload", OPEN + data(1, b"\xffabc", PADDED | END_STREAM), ends(PROTOCOL_ERROR)),
    Case("6.1", "padding without its length", OPEN + data(1, b"", PADDED | END_STREAM), ends(PROTOCOL_ERROR), "FRAME_SIZE_ERROR (4.2)"),
    Case("6.2", "padding and priority", headers(1, b"\7\0\0\0\0\x10" + GET + b"\0" * 7, 0x2d), answers()),
    Case("6.2", "padding alone", headers(1, b"\xff" + GET + b"\0" * 255, END_STREAM | END_HEADERS | PADDED), answers()),
    Case("6.2", "padding longer than the block", headers(1, b"\xff" + GET, END_STREAM | END_HEADERS | PADDED), ends(PROTOCOL_ERROR)),
    Case("6.2", "padding without its length", headers(1, b"", END_STREAM | END_HEADERS | PADDED), ends(PROTOCOL_ERROR),
         "FRAME_SIZE_ERROR (4.2)"),
    Case("6.2", "a priority that is cut off", headers(1, b"\0\0\0\0", END_STREAM | END_HEADERS | WITH_PRIORITY), ends(PROTOCOL_ERROR),
         "FRAME_SIZE_ERROR (4.2)"),
    Case("6.2", "padding that leaves no priority", headers(1, b"\5" + b"\0" * 9, 0x2d), ends(PROTOCOL_ERROR)),
    Case("6.3", "PRIORITY on stream 0", priority(0), ends(PROTOCOL_ERROR)),
    Case("6.3", "PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, b"\0" * 4), ends(FRAME_SIZE_ERROR), "an error of the stream only"),
    Case("6.3", "PRIORITY of 6 bytes", frame(PRIORITY, 0, 1, b"\0" * 6), ends(FRAME_SIZE_ERROR), "an error of the stream only"),
    Case("6.4", "RST_STREAM on stream 0", reset(0), ends(PROTOCOL_ERROR)),
    Case("6.4", "RST_STREAM of 3 bytes", waiting(1) + frame(RST_STREAM, 0, 1, b"\0" * 3), ends(FRAME_SIZE_ERROR)),
    Case("6.4", "RST_STREAM of 5 bytes", waiting(1) + frame(RST_STREAM, 0, 1, b"\0" * 5), ends(FRAME_SIZE_ERROR)),
    Case("6.4", "RST_STREAM of a request that is half sent", OPEN + reset(1), ignored),
    Case("6.5", "an acknowledgement with a payload", frame(SETTINGS, ACK, 0, b"\0\4\0\0\0\1"), ends(FRAME_SIZE_ERROR)),
    Case("6.5", "an acknowledgement of nothing", frame(SETTINGS, ACK, 0) * 3, ignored),
    Case("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1), ends(PROTOCOL_ERROR)),
    Case("6.5", "SETTINGS of 3 bytes", frame(SETTINGS, 0, 0, b"\0\3\0"), ends(FRAME_SIZE_ERROR)),
    Case("6.5", "SETTINGS of 7 bytes", frame(SETTINGS, 0, 0, b"\0\3\0\0\0\1\0"), ends(FRAME_SIZE_ERROR)),
    Case("6.5.2", "ENABLE_PUSH of 2", settings((ENABLE_PUSH, 2)), ends(PROTOCOL_ERROR)),
    Case("6.5.2", "ENABLE_PUSH of 1 and 0", settings((ENABLE_PUSH, 1), (ENABLE_PUSH, 0)), ignored),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", settings((INITIAL_WINDOW_SIZE, 1 << 31)), ends(FLOW_CONTROL_ERROR)),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31 - 1", settings((INITIAL_WINDOW_SIZE, WIDE)), ignored),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^14 - 1", settings((MAX_FRAME_SIZE, 16383)), ends(PROTOCOL_ERROR)),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^24", settings((MAX_FRAME_SIZE, 1 << 24)), ends(PROTOCOL_ERROR)),
    Case("6.5.2", "values at their bounds", settings((MAX_FRAME_SIZE, (1 << 24) - 1), (MAX_CONCURRENT_STREAMS, 0), (MAX_HEADER_LIST_SIZE, 0),
                                                    (HEADER_TABLE_SIZE, 0xffffffff)), ignored),
    Case("6.6", "PUSH_PROMISE from a client", waiting(1) + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + GET), ends(PROTOCOL_ERROR)),
    Case("6.7", "an answer to no PING", frame(PING, ACK, 0, b"unasked!"), ignored),
    Case("6.7", "PING on a stream", frame(PING, 0, 1, b"12345678"), ends(PROTOCOL_ERROR)),
    Case("6.7", "PING of 6 bytes", ping(b"123456"), ends(FRAME_SIZE_ERROR)),
    Case("6.7", "PING of 9 bytes", ping(b"123456789"), ends(FRAME_SIZE_ERROR)),
    Case("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), ends(PROTOCOL_ERROR)),
    Case("6.8", "GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, b"\0" * 7), ends(FRAME_SIZE_ERROR)),
    Case("6.8", "GOAWAY after a request", headers(1) + frame(GOAWAY, 0, 0, b"\0" * 8 + b"so long"), answers()),
    Case("6.9", "an increment of 0 to the connection", window_update(0, 0), ends(PROTOCOL_ERROR)),
    Case("6.9", "an increment of 0 to a stream", waiting(1) + window_update(1, 0), resets(PROTOCOL_ERROR)),
    Case("6.9", "the reserved bit of an increment", headers(1) + window_update(1, 1 << 31 | 1000), answers(), options=SHUT),
    Case("6.9", "WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), ends(FRAME_SIZE_ERROR)),
    Case("6.9", "WINDOW_UPDATE of 5 bytes", waiting(1) + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\0\1"), ends(FRAME_SIZE_ERROR)),
    Case("6.9.1", "the connection's window beyond 2^31 - 1", window_update(0, WIDE), ends(FLOW_CONTROL_ERROR)),
    Case("6.9.1", "a stream's window beyond 2^31 - 1", waiting(1) + window_update(1, WIDE), resets(FLOW_CONTROL_ERROR)),
    Case("6.9.1", "the connection's window just at 2^31 - 1", window_update(0, WIDE - 65535), ignored),
    Case("6.9.2", "SETTINGS that overflow a stream's window", waiting(1) + window_update(1, WIDE - 65535) +
         settings((INITIAL_WINDOW_SIZE, 65536)), ends(FLOW_CONTROL_ERROR)),
    Case("6.9.2", "SETTINGS that just do not", waiting(1) + window_update(1, WIDE - 65536) + settings((INITIAL_WINDOW_SIZE, 65536)), ignored),
    Case("6.10", "a block in three", headers(1, GET[:9], END_STREAM) + more(1, GET[9:20], 0) + more(1, GET[20:]), answers()),
    Case("6.10", "CONTINUATIONs that are empty", headers(1, b"", END_STREAM) + more(1, b"", 0) + more(1, GET, 0) + more(1), answers()),
    Case("6.10", "CONTINUATION on stream 0", headers(1, GET, END_STREAM) + more(0), ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION on another stream", headers(1, GET, END_STREAM) + more(3), ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION on another open stream", OPEN + headers(3, FIELD, 0) + more(1, FIELD), ends(PROTOCOL_ERROR)),
    Case("6.10", "trailers that go on on another stream", OPEN + headers(3, POST, END_HEADERS) + headers(1, b"", END_STREAM) + more(3, FIELD),
         ends(PROTOCOL_ERROR)),
    Case("6.10", "another frame after a CONTINUATION", headers(1, GET, END_STREAM) + more(1, b"", 0) + data(1, b"x"), ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION after a whole block", OPEN + more(1, FIELD), ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION after the last one", headers(1, POST, 0) + more(1) + more(1, FIELD), ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION after DATA", OPEN + data(1, b"x", 0) + more(1, FIELD), ends(PROTOCOL_ERROR)),
    Case("7", "an unknown code in GOAWAY", frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0xffffffff)), ignored),
    Case("7", "an unknown code in RST_STREAM", waiting(1) + reset(1, 0xffffffff), ignored),
]



# ---------------------------------------------------------------- what the gateway sends

def speaks_first(client):
    client.read_until(lambda: client.frames, "the gateway's preface")
    assert client.frames[0][:3] == (SETTINGS, 0, 0) and len(client.frames[0][3]) % 6 == 0, client.frames[0]


def acknowledges_all(client):
    client.is_alive()
    assert [f[1:] for f in client.frames if f[0] == SETTINGS and f[1] & ACK] == [(ACK, 0, b"")] * 5, client.frames


def returns_pings(client):
    client.read_until(lambda: len(client.pongs) == 2, "both answers")
    assert [f[1:] for f in client.frames if f[0] == PING] == [(ACK, 0, b"12345678"), (ACK, 0, b"\0" * 8)], client.frames


def tells_the_last_stream(client):
    ends(PROTOCOL_ERROR)(client)
    last = next(f for f in client.frames if f[0] == GOAWAY)
    assert last[2] == 0 and last[3][:4] == b"\0\0\0\1" and client.frames[-1] == last, client.frames


def sizes(client, stream=1):
    return [len(f[3]) for f in client.frames if f[0] == DATA and f[2] == stream]


def obeys_a_window_of_1(client):
    client.is_alive()
    assert sizes(client) == [1], sizes(client)
    client.open_window(1, 2)
    client.is_alive(b"mark two")
    assert sum(sizes(client)) == 3, sizes(client)
    client.open_window(1, 1000)
    answers()(client)


def obeys_windows_that_change(client):
    """To 1, then to -1 by a setting; what is given then makes it 0, and 1."""
    client.is_alive()
    assert sizes(client) == [], sizes(client)
    client.send(settings((INITIAL_WINDOW_SIZE, 3)))
    client.is_alive(b"mark two")
    assert sum(sizes(client)) == 3
    client.send(settings((INITIAL_WINDOW_SIZE, 0)) + window_update(1, 3))
    client.is_alive(b"mark 003")
    assert sum(sizes(client)) == 3, "3 given and 3 taken away"
    client.send(window_update(1, 1))
    client.is_alive(b"mark 004")
    assert sum(sizes(client)) == 4
    client.send(settings((INITIAL_WINDOW_SIZE, 1000)))
    answers()(client)


def obeys_the_connections_window(client):
    """Two streams may have 65535 bytes between them, whatever each may have."""
    def got():
        return sum(sizes(client, 1)) + sum(sizes(client, 3))
    client.read_until(lambda: got() >= 65535, "the window to be used up")
    client.is_alive()
    assert got() == 65535 and max(sizes(client, 1) + sizes(client, 3)) <= 16384, got()
    client.send(window_update(0, WIDE - 65535))
    assert client.answer(1)[0] == client.answer(3)[0] == 200


LONG = head("POST", CHAT, [JSON, (b"x-fake", b"events=60,size=1000")])
LARGE = BODY.replace(b"Hello", b"Hello " * 20000)
SENDING = [
    Case("3.4", "SETTINGS come first", b"", speaks_first),
    Case("5.4.1", "GOAWAY comes last and names the last stream", after_answer(headers(2)), tells_the_last_stream),
    Case("6.5.3", "all SETTINGS are acknowledged", settings() + settings((INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 2)) * 3,
         acknowledges_all),
    Case("6.5.3", "the last of equal settings counts", settings((INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 1)) + headers(1),
         obeys_a_window_of_1),
    Case("6.7", "PING comes back", ping(b"12345678") + ping(b"\0" * 8), returns_pings),
    Case("6.9.1", "a window of 1", headers(1), obeys_a_window_of_1, options={"window": 1}),
    Case("6.9.1", "the connection's window", post(1, LONG) + post(3, LONG), obeys_the_connections_window, options={"window": WIDE}),
    Case("6.9.1", "DATA beyond the window (it may be taken)", OPEN + b"".join(data(1, LARGE[i:i + 16384], 0) for i in
                                                                            range(0, len(LARGE), 16384)) + data(1), answers()),
    Case("6.9.2", "windows that change and are less than nothing", headers(1), obeys_windows_that_change, options=SHUT),
]


@smoke
def test_preface_and_frame_format(t):
    _, weir = t.pair()
    play(weir, STARTING + FORMAT)


def test_stream_states(t):
    fake, weir = t.pair()
    play(weir, STATES)
    wait_until(lambda: weir.metric("weir_requests_in_flight") == 1, "the requests to end")
    assert fake.ask("GET", "/fake/stats").status == 200


@smoke
def test_what_is_sent_keeps_the_rules(t):
    _, weir = t.pair()
    play(weir, SENDING)


@smoke
def test_frames_one_by_one(t):
    _, weir = t.pair()
    play(weir, FRAMES)


def test_all_of_it_over_tls(t):
    certificate = t.certificate()
    weir = t.weir(t.fake(), tls=certificate)
    weir.tls_context = certificate.client(alpn=("h2",))
    play(weir, STARTING + FORMAT + STATES + FRAMES + SENDING)


@smoke
def test_a_window_that_opens_behind_an_answer_harms_nobody(t):
    """The answers fill their windows to the last byte and wait in the socket. As over a real network, that one takes
    little: libh2o would take what it cannot write at once for a bug of its own, and abort."""
    _, weir = t.pair()
    page = headers(1, head("GET", "/"))
    with Client(weir) as client:
        client.send(page)
        size = len(client.answer(1)[1])
    streams = range(1, 121, 2)
    for opening in (b"".join(window_update(i, 1) for i in streams), settings((INITIAL_WINDOW_SIZE, size + 1)),
                    settings((INITIAL_WINDOW_SIZE, 0)) + settings((INITIAL_WINDOW_SIZE, size + 1)) * 2):
        with Client(weir, window=size, rcvbuf=2048, maxseg=536) as client:
            client.send(window_update(0, 1 << 20) + b"".join(headers(i, head("GET", "/")) for i in streams))
            time.sleep(0.3)  # for them to be written, as far as that goes
            client.send(opening)
            time.sleep(0.1)
            for stream in streams:
                status, body = client.answer(stream)
                assert status == 200 and len(body) == size, (stream, status, body)
            client.is_alive()


def test_a_connection_that_breaks_a_rule_is_told_of(t):
    _, weir = t.pair()
    with Client(weir) as client:
        client.send(OPEN + headers(3, FIELD, 0) + more(1, FIELD))
        ends(PROTOCOL_ERROR)(client)
    wait_until(lambda: [line["detail"] for line in weir.log_lines() if line.get("event") == "malformed"] ==
               ["a header block is interrupted"], "the line")
