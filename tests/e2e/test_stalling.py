"""Clients that take nothing, or little: who is cut off, who is not, and what is said of it."""
import os
import resource
import signal
import socket
import time

from harness import Truncated, chat, smoke, wait_until

CHAT = "/v1/chat/completions"
FLOOD = "flood,events=200000,size=1000"


def idle_again(weir):
    wait_until(lambda: weir.metric("^weir_requests_in_flight") == 1 and weir.metric("^weir_streams_in_flight") == 0,
               "the request to end")


@smoke
def test_a_stalled_reader_finds_a_cut_and_the_log_says_why(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake, config="send_timeout: 1s\n")
    own = fake.ask("POST", CHAT, {"x-fake": "flood,events=10000,size=1000"}, chat()).body
    with weir.connect(rcvbuf=4096) as wire:
        wire.request("POST", CHAT, {"x-fake": FLOOD, "x-request-id": "stalled"}, chat())
        fake.wait_aborts()
        idle_again(weir)
        head = wire.head()
        body = b""
        try:
            for piece in wire.pieces(head):
                body += piece
            raise AssertionError("the answer ended as if it were whole")
        except Truncated as cut:
            assert own.startswith(cut.body), "nothing but what was meant for this client"
    line = weir.request_line("stalled")
    assert line["end"] == "send_timeout" and line["bytes"] > 0, line
    assert weir.stream().body.endswith(b"[DONE]\n\n")


def test_a_reader_that_stalls_late_need_not_wait_for_a_ping(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake, config="send_timeout: 1s\nsse_ping: 10m\n")
    with weir.connect(rcvbuf=4096) as wire:
        wire.request("POST", CHAT, {"x-fake": "events=1000000,pace_ms=1,size=2000", "x-request-id": "late"}, chat())
        pieces, end = wire.pieces(wire.head()), time.monotonic() + 1.5
        while time.monotonic() < end:
            next(pieces)
        fake.wait_aborts()
        idle_again(weir)
    assert weir.request_line("late")["end"] == "send_timeout"


@smoke
def test_stalled_readers_do_not_see_each_others_bytes(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake, config="send_timeout: 1s\n", args=["--workers", "1"])
    readers = []
    for _ in range(6):
        wire = weir.connect(rcvbuf=4096)
        wire.request("POST", CHAT, {"x-fake": FLOOD}, chat())
        readers.append(wire)
    fake.wait_aborts(6)
    idle_again(weir)
    for _ in range(20):
        assert weir.ask("POST", "/v1/audio/x", None, b"SECRET " * 10000).status == 200
    for wire in readers:
        data = b""
        try:
            while piece := wire.sock.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        assert b"SECRET" not in data
        wire.close()


def test_a_reader_that_steadily_takes_a_little_is_not_cut_off(t):
    """It takes longer over one piece than send_timeout; what counts is that it takes something."""
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake, config="send_timeout: 2s\n")
    with weir.connect(rcvbuf=4096) as wire:
        wire.request("POST", CHAT, {"x-fake": FLOOD, "x-request-id": "steady"}, chat())
        total, longest, before = 0, 0.0, time.monotonic()
        end = before + 6.5
        while time.monotonic() < end:
            data = wire.sock.recv(2000)
            assert data or longest > 1.0, f"cut off after {total} bytes"
            if not data:
                return  # a machine this slow makes a stalled reader of it
            total += len(data)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
            time.sleep(0.1)
        assert fake.stats()["aborts"] == 0 and not any("steady" in x.values() and "end" in x for x in weir.log_lines())
    fake.wait_aborts()
    assert weir.request_line("steady")["end"] == "client_left"


def test_pings_are_off_when_told_so(t):
    """A deadline that is left from sending must not bring them back."""
    _, weir = t.pair(config="sse_ping: 0s\nsend_timeout: 1s\n")
    body = weir.stream("events=3,pace_ms=2500").body
    assert body.endswith(b"[DONE]\n\n") and b": ping" not in body, body


@smoke
def test_early_head_adds_nothing_to_a_plain_answer(t):
    fake = t.fake()
    weir = t.weir(fake, config="early_head: 1s\nsse_ping: 100ms\n")
    body = {"model": "fake-1", "input": "x", "stream": True}
    for behave in ("first_ms=2000", "first_ms=2000,close_body", "delay_ms=2000,first_ms=400"):
        direct = fake.ask("POST", "/v1/embeddings", {"x-fake": behave}, body)
        with weir.connect() as wire:
            wire.request("POST", "/v1/embeddings", {"x-fake": behave}, body)
            answer = wire.response()
            if "delay" in behave:  # the head was promised before anybody knew what comes
                assert answer.status == 200, answer
                continue
            assert (answer.status, answer.body) == (200, direct.body), answer
            wire.request("GET", "/livez")
            assert wire.response().status == 200, "no bytes are over that would be read as the next answer"


# ---------------------------------------------------------------- descriptors

def ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_without_descriptors_the_loop_rests_and_then_recovers(t):
    _, weir = t.pair(args=["--workers", "1"])
    assert weir.stream().status == 200
    most = int(weir.metric("process_open_fds")) + 10
    old = resource.prlimit(weir.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, (most, old[1]))
    wires = [weir.connect() for _ in range(40)]
    wait_until(lambda: "descriptors" in weir.log(), "the gateway to say that it has run out")
    before, start = ticks(weir.pid), time.monotonic()
    time.sleep(2)
    used, passed = ticks(weir.pid) - before, (time.monotonic() - start) * os.sysconf("SC_CLK_TCK")
    assert used < passed / 3, f"{used} of {passed:.0f} ticks"
    wires[0].request("GET", "/livez")
    assert wires[0].response().status == 200, "who has a connection is served"
    for wire in wires[:30]:
        wire.close()
    for wire in wires[30:]:
        wire.request("GET", "/livez")
        assert wire.response().status == 200, "who waited is taken in"
        wire.close()
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, old)
    assert weir.stream().status == 200
    assert weir.log().count("out of file descriptors") == 1, "said once"


# ---------------------------------------------------------------- leaving at an awkward moment

@smoke
def test_a_client_that_asks_and_leaves_at_once_is_noticed(t):
    """Request and FIN wait together when the gateway comes to look. Some of these connections have once had a request
    waiting behind another, from when on the gateway watches them in another way."""
    fake, weir = t.pair(args=["--workers", "1"])
    wires = [weir.connect() for _ in range(20)]
    for turn, wire in enumerate(wires):
        wire.request("POST", CHAT, {"x-fake": "delay_ms=100"}, chat())
        if turn % 4 < 2:
            fake.wait_requests(turn + 1)
            wire.request("GET", "/livez")
    for turn, wire in enumerate(wires):
        for _ in range(2 if turn % 4 < 2 else 1):
            assert wire.response().status == 200
    weir.signal(signal.SIGSTOP)
    try:
        for turn, wire in enumerate(wires):
            wire.request("POST", CHAT, {"x-fake": "delay_ms=60000"}, chat())
            if turn % 2:
                wire.close()
            else:
                wire.sock.shutdown(socket.SHUT_WR)
    finally:
        weir.signal(signal.SIGCONT)
    wait_until(lambda: weir.metric("^weir_requests_in_flight") == 1, "all of them to be let go")
    wait_until(lambda: fake.stats()["aborts"] >= fake.stats()["requests"] - 20, "the backend to hear of it")
    for wire in wires:
        wire.close()
