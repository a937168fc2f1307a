"""What a drain must not lose: requests that have come but were not read, connections without a request yet, and the
gateway that takes over."""
import json
import signal
import time

from harness import Options, chat, smoke, wait_until
from http2 import DATA, END_STREAM, Http2, frame, head, head_frames

CHAT = "/v1/chat/completions"
GRACE = 1.0  # seconds for which a new connection is surely kept


@smoke
def test_requests_that_wait_to_be_read_are_answered(t):
    """Each was sent behind a stream that was promised to keep the connection, and waits there when the drain looks for
    what is idle."""
    count = 20 if Options.valgrind else 60
    fake, weir = t.pair(args=["--workers", "1"])
    wires = [weir.connect() for _ in range(count)]
    heads = []
    for wire in wires:
        wire.request("POST", CHAT, {"x-fake": "events=2,pace_ms=1000"}, chat())
    for wire in wires:
        heads.append(wire.head())
        assert heads[-1].header("connection") == "keep-alive"
        wire.request("POST", CHAT, {"x-fake": "delay_ms=300,events=2"}, chat())
    weir.signal()
    for wire, head_of_first in zip(wires, heads):
        assert b"".join(wire.pieces(head_of_first)).endswith(b"[DONE]\n\n")
    for wire in wires:
        answer = wire.response()
        assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n"), answer
        wire.close()
    assert weir.wait() == 0 and fake.stats()["requests"] == 2 * count


@smoke
def test_a_connection_made_just_before_the_drain_gets_its_answer(t):
    _, weir = t.pair()
    with weir.connect() as holds, weir.connect() as asks:
        holds.request("POST", CHAT, {"x-fake": "pace_ms=100,events=20"}, chat())
        pieces = holds.head()
        wait_until(lambda: weir.metric("^weir_connections") == 3, "both connections to be accepted")
        start = time.monotonic()
        weir.signal()
        wait_until(weir.refuses, "the drain to begin")
        time.sleep(0.2)
        try:
            asks.request("POST", CHAT, {"x-fake": "delay_ms=300"}, chat())
            sent = time.monotonic()
            answer = asks.response()
            assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n"), answer
        except (EOFError, ConnectionResetError, BrokenPipeError):
            assert sent - start > GRACE, "closed before its request could come"
        assert b"".join(holds.pieces(pieces)).endswith(b"[DONE]\n\n")
    assert weir.wait() == 0


@smoke
def test_connections_that_nobody_accepted_yet_are_served(t):
    """More than one round of accepting takes."""
    _, weir = t.pair(args=["--workers", "1"])
    weir.signal(signal.SIGSTOP)
    try:
        wires = [weir.connect() for _ in range(60)]
        for wire in wires:
            wire.request("POST", CHAT, None, chat())
        weir.signal(signal.SIGTERM)
    finally:
        weir.signal(signal.SIGCONT)
    for wire in wires:
        assert wire.response().body.endswith(b"[DONE]\n\n")
        wire.close()
    assert weir.wait() == 0


@smoke
def test_an_upload_over_http2_survives_the_drain(t):
    _, weir = t.pair()
    body = json.dumps(chat()).encode()
    with Http2(weir) as client:
        client.send(head_frames(1, head("POST", CHAT, [(b"content-type", b"application/json")])) + frame(DATA, 0, 1, body[:9]))
        wait_until(lambda: weir.metric("^weir_connections") == 2, "the connection to be accepted")
        time.sleep(0.2)
        weir.signal()
        wait_until(weir.refuses, "the drain to begin")
        time.sleep(0.2)
        client.send(frame(DATA, END_STREAM, 1, body[9:]))
        status, answer = client.answer(1)
        assert status == 200 and answer.endswith(b"[DONE]\n\n"), (status, answer, client.goaway)
    assert weir.wait() == 0


@smoke
def test_an_ending_gateway_leaves_the_socket_of_its_successor(t):
    fake = t.fake()
    path = str(t.dir / "weir.sock")
    old = t.weir(fake, listen=[f"unix:{path}"])
    wire = old.connect()
    wire.request("POST", CHAT, {"x-fake": "events=9,stall_after=2"}, chat())
    wire.head()
    old.signal()
    wait_until(old.refuses, "the drain to begin")
    new = t.weir(fake, listen=[f"unix:{path}"])
    assert new.stream().status == 200 and old.alive()
    wire.close()
    assert old.wait() == 0
    assert new.stream().status == 200, "still to be found"
    assert new.stop() == 0
    assert not (t.dir / "weir.sock").exists(), "one's own is removed"


@smoke
def test_sigusr1_is_nobodys_business(t):
    _, weir = t.pair()
    for _ in range(3):
        weir.signal(signal.SIGUSR1)
        time.sleep(0.05)
    assert weir.stream().status == 200
    assert weir.stop(10) == 0
