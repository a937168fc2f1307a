"""Ending well: SIGTERM and SIGINT drain, and the exit is clean."""
import json
import signal
import subprocess
import time

from harness import chat, smoke, wait_until

CHAT = "/v1/chat/completions"


@smoke
def test_sigterm_lets_streams_finish_and_exits_0(t):
    fake, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=40,pace_ms=25"}, chat())
        head = wire.head()
        weir.signal(signal.SIGTERM)
        wait_until(weir.refuses, "the listener to close")
        body = b"".join(wire.pieces(head))
        assert body.endswith(b"[DONE]\n\n") and body.count(b"xxxxxxxx") == 40
        assert wire.at_end()
    assert weir.wait() == 0
    assert fake.stats()["aborts"] == 0


def test_sigint_does_the_same(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=20,pace_ms=25"}, chat())
        head = wire.head()
        weir.signal(signal.SIGINT)
        assert b"".join(wire.pieces(head)).endswith(b"[DONE]\n\n")
    assert weir.wait() == 0


@smoke
def test_idle_connections_do_not_hold_up_the_end(t):
    _, weir = t.pair()
    idle = [weir.connect() for _ in range(4)]
    for wire in idle[:3]:
        wire.request("GET", "/livez")
        assert wire.response().status == 200
    start = time.monotonic()
    assert weir.stop(15) == 0
    for wire in idle[:3]:
        assert wire.at_end()
    assert time.monotonic() - start < 15
    for wire in idle:
        wire.close()


def test_a_half_sent_request_does_not_hold_up_the_end_beyond_the_drain_timeout(t):
    weir = t.weir(t.fake(), args=["--drain-timeout", "1s"])
    with weir.connect() as wire:
        wire.send(b"GET /livez HT")
        time.sleep(0.1)
        assert weir.stop(15) == 0


def test_readyz_fails_while_draining(t):
    _, weir = t.pair()
    stream, asks = weir.connect(), weir.connect()
    stream.request("POST", CHAT, {"x-fake": "events=200,pace_ms=25"}, chat())
    head = stream.head()
    asks.request("GET", "/readyz")
    assert asks.response().status == 200
    # A request that is under way when the drain begins is still answered, truthfully.
    asks.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\n")
    time.sleep(0.2)
    weir.signal(signal.SIGTERM)
    wait_until(lambda: "drain" in weir.log().lower() or weir.refuses(), "the drain to begin")
    try:
        asks.send(b"\r\n")
        assert asks.response().status == 503
    except (EOFError, ConnectionResetError, BrokenPipeError):
        pass  # its connection was ended, which is as clear
    assert b"".join(stream.pieces(head)).endswith(b"[DONE]\n\n")
    stream.close()
    asks.close()
    assert weir.wait() == 0


@smoke
def test_the_drain_timeout_ends_what_is_left(t):
    fake = t.fake()
    weir = t.weir(fake, args=["--drain-timeout", "700ms"])
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=9,stall_after=2"}, chat())
        head = wire.head()
        start = time.monotonic()
        weir.signal()
        body = b""
        try:
            for piece in wire.pieces(head):
                body += piece
        except Exception:  # a reset is as honest as an error event
            pass
        assert b"[DONE]" not in body
    assert weir.wait() == 0 and time.monotonic() - start >= 0.6
    fake.wait_aborts()


def test_a_second_signal_does_not_harm(t):
    fake = t.fake()
    weir = t.weir(fake, args=["--drain-timeout", "2s"])
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=9,stall_after=2"}, chat())
        wire.head()
        weir.signal()
        time.sleep(0.2)
        weir.signal()
        status = weir.wait()
    weir.expected_status = status
    assert status in (0, 1, 130, 143, -signal.SIGTERM), status


@smoke
def test_http2_clients_are_told_and_their_streams_finish(t):
    t.need("curl")
    fake, weir = t.pair()
    curl = subprocess.Popen(["curl", "-sN", "--http2-prior-knowledge", "-d", json.dumps(chat()), "-H",
                             "content-type: application/json", "-H", "x-fake: events=40,pace_ms=25", weir.url + CHAT],
                            stdout=subprocess.PIPE)
    fake.wait_requests()
    weir.signal()
    out, _ = curl.communicate(timeout=30)
    assert curl.returncode == 0 and out.endswith(b"[DONE]\n\n")
    assert weir.wait() == 0


def test_http2_clients_see_goaway(t):
    """A connection preface, then the frames that come until the end."""
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        time.sleep(0.2)
        weir.signal()
        data = b""
        try:
            while chunk := wire.sock.recv(65536):
                data += chunk
        except ConnectionResetError:
            pass
    kinds, at = [], 0
    while at + 9 <= len(data):
        kinds.append(data[at + 3])
        at += 9 + int.from_bytes(data[at:at + 3], "big")
    assert 7 in kinds, kinds
    assert weir.wait() == 0


def test_a_request_that_waits_for_its_first_token_survives_the_drain(t):
    _, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "delay_ms=700"}, chat())
        time.sleep(0.2)
        weir.signal()
        assert wire.response().body.endswith(b"[DONE]\n\n")
    assert weir.wait() == 0


def test_the_end_is_quick_when_there_is_nothing_to_wait_for(t):
    _, weir = t.pair(args=["--workers", "2"])
    weir.stream()
    assert weir.stop(10) == 0
    lines = [json.loads(x) for x in weir.log().splitlines() if x.startswith("{")]
    assert lines and all("time" in x and "level" in x for x in lines)
