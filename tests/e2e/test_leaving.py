"""Clients that leave or do not read: the backend stops working for them."""
import json
import signal
import statistics
import subprocess
import time

from harness import Options, chat, limit, mono_us, smoke, wait_until


def bound_ms():
    """How soon the backend must notice; under sanitizers, valgrind and other work that says nothing about the gateway."""
    return 50 if Options.strict else 10000 * Options.slow


PHASES = {
    "before_the_head": ("delay_ms=60000", chat()),
    "before_the_first_event": ("first_ms=60000", chat()),
    "mid_stream": ("events=100000,pace_ms=10", chat()),
    "while_the_backend_is_silent": ("events=9,stall_after=3", chat()),
    "plain_answer": ("delay_ms=60000", chat(False)),
    "plain_answer_half_sent": ("first_ms=60000,size=200", chat(False)),
}


def leave(t, phase, how="close"):
    """Leaves several times in the same phase; the median time to cancel must keep the bound."""
    behave, body = PHASES[phase]
    fake, weir = t.pair()
    took = []
    for turn in range(1, 6):
        wire = weir.connect()
        wire.request("POST", "/v1/chat/completions", {"x-fake": behave}, body)
        fake.wait_requests(turn)
        if phase in ("mid_stream", "while_the_backend_is_silent"):
            pieces, text = wire.pieces(wire.head()), b""
            while text.count(b"\n\n") < 3:
                text += next(pieces)
        else:
            time.sleep(0.05)
        left = mono_us()
        if how == "reset":
            wire.reset()
        else:
            wire.close()
        stats = fake.wait_aborts(turn)
        took.append((stats["last_abort_us"] - left) / 1000)
    assert statistics.median(took) <= bound_ms(), took
    wait_until(lambda: sum(1 for x in weir.log_lines() if x.get("end") == "client_left") == 5, "log lines of the five that left")


@smoke
def test_leaving_before_the_head_cancels(t):
    leave(t, "before_the_head")


@smoke
def test_leaving_before_the_first_event_cancels(t):
    leave(t, "before_the_first_event")


@smoke
def test_leaving_mid_stream_cancels(t):
    leave(t, "mid_stream")


def test_leaving_by_reset_mid_stream_cancels(t):
    leave(t, "mid_stream", "reset")


@smoke
def test_leaving_while_the_backend_is_silent_cancels(t):
    leave(t, "while_the_backend_is_silent")


@smoke
def test_leaving_during_a_plain_answer_cancels(t):
    leave(t, "plain_answer")


def test_leaving_during_the_body_of_a_plain_answer_cancels(t):
    leave(t, "plain_answer_half_sent")


def over_http2(t, phase):
    t.need("curl")
    behave, body = PHASES[phase]
    fake, weir = t.pair()
    for turn in (1, 2, 3):
        curl = subprocess.Popen(["curl", "-sN", "--http2-prior-knowledge", "-H", f"x-fake: {behave}", "-H",
                                 "content-type: application/json", "-d", json.dumps(body), weir.url + "/v1/chat/completions"],
                                stdout=subprocess.DEVNULL)
        fake.wait_requests(turn)
        time.sleep(0.1)
        left = mono_us()
        curl.send_signal(signal.SIGKILL)
        curl.wait()
        stats = fake.wait_aborts(turn)
        assert (stats["last_abort_us"] - left) / 1000 <= 2 * bound_ms()


def test_leaving_over_http2_before_the_first_event_cancels(t):
    over_http2(t, "before_the_first_event")


@smoke
def test_leaving_over_http2_mid_stream_cancels(t):
    over_http2(t, "mid_stream")


def test_leaving_over_tls_cancels(t):
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate())
    wire = weir.connect()
    wire.request("POST", "/v1/chat/completions", {"x-fake": "delay_ms=60000"}, chat())
    fake.wait_requests()
    time.sleep(0.05)
    wire.close()
    fake.wait_aborts()


def leave_at_the_last_event(t, weir, fake):
    """The client has its answer, and closes before the backend has ended the body."""
    wire = weir.connect()
    wire.request("POST", "/v1/chat/completions", {"x-fake": "end_ms=60000"}, chat())
    head = wire.head()
    pieces, text = wire.pieces(head), b""
    while not text.endswith(b"data: [DONE]\n\n"):
        text += next(pieces)
    wire.close()
    fake.wait_aborts()
    line = weir.request_line(head.header("x-request-id"))
    assert line["status"] == 200 and line["end"] == "finished" and line["bytes"] == len(text), line
    assert weir.metric(r'weir_requests_total.*status="200"') >= 1 and weir.metric(r'weir_requests_total.*status="499"') == 0


@smoke
def test_leaving_at_the_last_event_is_no_leaving(t):
    fake, weir = t.pair()
    leave_at_the_last_event(t, weir, fake)


def test_leaving_at_the_last_event_over_tls_is_no_leaving(t):
    fake = t.fake()
    leave_at_the_last_event(t, t.weir(fake, tls=t.certificate()), fake)


def test_leaving_before_the_last_event_is_leaving(t):
    fake, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "events=5,stall_after=5"}, chat())
        head = wire.head()
        pieces, text = wire.pieces(head), b""
        while text.count(b"xxxxxxxx") < 5:
            text += next(pieces)
    fake.wait_aborts()
    line = weir.request_line(head.header("x-request-id"))
    assert line["status"] == 499 and line["end"] == "client_left", line


def test_leaving_after_a_kept_connection_served_others_cancels(t):
    fake, weir = t.pair()
    with weir.connect() as wire:
        for _ in range(3):
            wire.request("POST", "/v1/chat/completions", {}, chat())
            assert wire.response().status == 200
        wire.request("POST", "/v1/chat/completions", {"x-fake": "delay_ms=60000"}, chat())
        fake.wait_requests(4)
    fake.wait_aborts()


def test_a_client_that_half_closes_is_taken_as_gone_or_served(t):
    import socket
    fake, weir = t.pair()
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "delay_ms=300"}, chat(False))
        wire.sock.shutdown(socket.SHUT_WR)
        try:
            served = wire.response().status == 200
        except (EOFError, ConnectionResetError):
            served = False
    if not served:
        fake.wait_aborts()


def test_others_are_undisturbed_when_one_leaves(t):
    fake, weir = t.pair()
    with weir.connect() as stays:
        stays.request("POST", "/v1/chat/completions", {"x-fake": "events=60,pace_ms=10"}, chat())
        for _ in range(5):
            with weir.connect() as leaves:
                leaves.request("POST", "/v1/chat/completions", {"x-fake": "events=1000,pace_ms=5"}, chat())
                leaves.head()
        body = stays.response().body
    assert body.count(b"xxxxxxxx") == 60 and body.endswith(b"[DONE]\n\n")
    fake.wait_aborts(5)


# ---------------------------------------------------------------- readers that do not read

FLOOD = "flood,events=200000,size=4096"  # 850 MB, if somebody took them


def flooded(t, weir, fake, open_reader):
    """Starts a flood at a reader that does not read; returns how many bytes the backend could get rid of."""
    reader = open_reader()
    fake.wait_requests()
    last, same = -1, 0
    end = time.monotonic() + 20 * Options.slow
    while same < 10:
        sent = fake.stats()["bytes"]
        same = same + 1 if sent == last and sent > 0 else 0
        last = sent
        assert time.monotonic() < end, f"the backend is never paused: {sent} bytes went out"
        time.sleep(0.05)
    return last, reader


@smoke
def test_a_reader_that_does_not_read_pauses_the_backend(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake)

    def reader():
        wire = weir.connect(rcvbuf=65536)
        wire.request("POST", "/v1/chat/completions", {"x-fake": FLOOD}, chat())
        return wire

    sent, wire = flooded(t, weir, fake, reader)
    # Both kernels' socket buffers and what weir may hold; weir's own share is at most 1 MiB.
    assert sent < 12 << 20, sent
    rss = int(next(x for x in open(f"/proc/{weir.pid}/status") if x.startswith("VmRSS")).split()[1])
    assert Options.valgrind or rss < 400 * 1024, rss
    other = weir.stream()
    assert other.status == 200 and other.body.endswith(b"[DONE]\n\n"), "others are served meanwhile"
    wire.close()
    fake.wait_aborts()


def test_a_slow_reader_gets_everything_in_the_end(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake)
    behave = "flood,events=5000,size=4096"
    direct = fake.ask("POST", "/v1/chat/completions", {"x-fake": behave}, chat()).body
    with weir.connect(rcvbuf=65536) as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": behave}, chat())
        time.sleep(0.7)
        assert wire.response().body == direct


def test_a_slow_reader_over_http2_gets_everything_in_the_end(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake)
    behave = "flood,events=2000,size=4096"
    direct = fake.ask("POST", "/v1/chat/completions", {"x-fake": behave}, chat()).body
    done = t.curl("--http2-prior-knowledge", "--limit-rate", "8M", weir.url + "/v1/chat/completions", "-H", f"x-fake: {behave}",
                  "-H", "content-type: application/json", "-d", json.dumps(chat()), timeout=30)
    assert done.stdout == direct, (len(done.stdout), len(direct))


@limit(60)
def test_a_reader_that_takes_nothing_is_cut_off(t):
    fake = t.fake(sndbuf=65536)
    weir = t.weir(fake, config="send_timeout: 1s\n")

    def reader():
        wire = weir.connect(rcvbuf=65536)
        wire.request("POST", "/v1/chat/completions", {"x-fake": FLOOD}, chat())
        return wire

    _, wire = flooded(t, weir, fake, reader)
    fake.wait_aborts()
    wire.close()
