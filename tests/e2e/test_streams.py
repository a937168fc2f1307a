"""Streams: what the backend sent is what the client gets, when it was sent; and what is told when a stream breaks."""
import contextlib
import json
import time
from pathlib import Path

from harness import Options, Truncated, chat, events_of, limit, smoke, wait_until

DIALECTS = {
    "chat": ("/v1/chat/completions", chat()),
    "completions": ("/v1/completions", {"model": "fake-1", "prompt": "Hello", "stream": True}),
    "responses": ("/v1/responses", {"model": "fake-1", "input": "Hello", "stream": True}),
    "messages": ("/v1/messages", {"model": "fake-1", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
                                  "stream": True}),
}
SHAPES = ["", "usage", "crlf", "comments", "split,events=3", "bytes,events=2", "close_body", "length_body", "flood,events=5000",
          "size=40000,events=20", "comments,crlf,bytes,events=1", "events=0"]


def same_bytes(t, dialect):
    fake, weir = t.pair()
    path, body = DIALECTS[dialect]
    for shape in SHAPES:
        headers = {"x-fake": shape} if shape else {}
        direct, through = (where.ask("POST", path, headers, body) for where in (fake, weir))
        assert through.status == 200, (shape, through)
        assert through.header("content-type") == "text/event-stream; charset=utf-8", through
        assert through.body == direct.body, (shape, direct.body[-300:], through.body[-300:])


@smoke
def test_chat_streams_arrive_byte_for_byte(t):
    same_bytes(t, "chat")


def test_completions_streams_arrive_byte_for_byte(t):
    same_bytes(t, "completions")


def test_responses_streams_arrive_byte_for_byte(t):
    same_bytes(t, "responses")


@smoke
def test_messages_streams_arrive_byte_for_byte(t):
    same_bytes(t, "messages")


def test_curl_shows_the_same_stream_as_the_backend(t):
    fake, weir = t.pair()
    for path, body in DIALECTS.values():
        direct, through = (t.curl(where + path, "-H", "content-type: application/json", "-d", json.dumps(body))
                           for where in (fake.url, weir.url))
        assert through.returncode == 0, through.stderr
        assert through.stdout == direct.stdout


def test_curl_over_http2_shows_the_same_stream_as_the_backend(t):
    fake, weir = t.pair()
    for path, body in DIALECTS.values():
        post = ("-H", "content-type: application/json", "-H", "x-fake: events=50", "-d", json.dumps(body))
        direct = t.curl(fake.url + path, *post)
        through = t.curl("--http2-prior-knowledge", "-w", "%{http_version}", weir.url + path, *post)
        assert through.stdout == direct.stdout + b"2", through.stdout[-300:]


def test_stream_answers_carry_the_headers_that_proxies_heed(t):
    _, weir = t.pair()
    answer = weir.stream()
    assert answer.header("cache-control") == "no-cache", answer
    assert answer.header("x-accel-buffering") == "no", answer
    assert answer.header("x-request-id"), answer
    assert answer.header("openai-processing-ms") == "7", answer


@smoke
def test_every_event_is_there_before_the_next_is_made(t):
    _, weir = t.pair()
    for stalled in (1, 2, 7):
        with weir.connect() as wire:
            wire.request("POST", "/v1/chat/completions", {"x-fake": f"events=20,stall_after={stalled}"}, chat())
            pieces, text = wire.pieces(wire.head()), b""
            while text.count(b"\n\n") < stalled + 1:
                text += next(pieces)
            assert f"{stalled:08d}".encode() in text


def test_every_event_is_there_before_the_next_is_made_over_http2(t):
    t.need("curl")
    import subprocess
    _, weir = t.pair()
    curl = subprocess.Popen(["curl", "-sN", "--http2-prior-knowledge", "-H", "x-fake: events=9,stall_after=3",
                             "-d", json.dumps(chat()), "-H", "content-type: application/json", weir.url + "/v1/chat/completions"],
                            stdout=subprocess.PIPE)
    try:
        text = b""
        while text.count(b"\n\n") < 4:
            text += curl.stdout.read1(65536)
        assert b"00000003" in text
    finally:
        curl.kill()
        curl.wait()


def test_events_are_not_gathered(t):
    _, weir = t.pair()

    def come_one_by_one():
        with weir.connect() as wire:
            wire.request("POST", "/v1/chat/completions", {"x-fake": "events=20,pace_ms=40"}, chat())
            return sum(1 for piece in wire.pieces(wire.head()) if piece.count(b"\n\n") == 1) >= 14
    # A machine that is busy elsewhere gathers them now and then.
    wait_until(come_one_by_one, "events that come alone")


@smoke
def test_events_that_a_socket_takes_only_in_part_arrive_byte_for_byte(t):
    taken_in_part(t)


def test_events_that_a_socket_takes_only_in_part_arrive_byte_for_byte_over_tls(t):
    taken_in_part(t, tls=t.certificate())


def taken_in_part(t, **options):
    fake, weir = t.pair(**options)
    path, body = DIALECTS["chat"]
    shape = {"x-fake": "events=1500,size=900,pace_ms=1"}
    direct = fake.ask("POST", path, shape, body)
    with weir.connect(rcvbuf=4096, maxseg=536) as wire:
        wire.request("POST", path, shape, body)
        head = wire.head()
        time.sleep(1.5)
        assert b"".join(wire.pieces(head)) == direct.body
        wire.request("POST", path, {}, body)
        assert wire.response().status == 200


@smoke
def test_plain_answers_arrive_byte_for_byte(t):
    fake, weir = t.pair()
    bodies = {path: {k: v for k, v in body.items() if k != "stream"} for path, body in DIALECTS.values()}
    bodies["/v1/embeddings"] = {"model": "fake-1", "input": "Hello"}
    for path, body in bodies.items():
        for shape in ("size=20", "size=300000", "chunked", "close_body", "first_ms=20", "bytes", "split"):
            direct, through = (where.ask("POST", path, {"x-fake": shape}, body) for where in (fake, weir))
            assert (through.status, through.body) == (200, direct.body), (path, shape, through)
            assert through.header("content-type") == "application/json"


def test_stream_null_and_false_mean_not_streamed(t):
    _, weir = t.pair()
    for value in (None, False):
        answer = weir.ask("POST", "/v1/chat/completions", None, {**chat(False), "stream": value})
        assert answer.status == 200 and answer.json()["object"] == "chat.completion"


# ---------------------------------------------------------------- streams that break

def broken(answer, dialect):
    """Checks that the last event tells of an error in the dialect's way, and that nothing pretends an end."""
    events = events_of(answer.body)
    name, data = events[-1]
    assert b"[DONE]" not in answer.body and '"finish_reason":"stop"' not in answer.body.decode(), answer.body[-400:]
    told = json.loads(data)
    if dialect == "messages":
        assert name == "error" and told["type"] == "error" and told["error"]["type"] and told["error"]["message"], told
        assert told["request_id"] == answer.header("x-request-id"), told
    elif dialect == "responses":
        assert name == "error" and told["type"] == "error" and told["message"] and "param" in told and "code" in told, told
        assert isinstance(told["sequence_number"], int), told
    else:
        assert name is None and set(told["error"]) >= {"message", "type", "param", "code"}, told
    return events


def cut_between_events(t, dialect, how):
    fake, weir = t.pair()
    path, body = DIALECTS[dialect]
    answer = weir.ask("POST", path, {"x-fake": f"events=9,{how}=3"}, body)
    assert answer.status == 200
    events = broken(answer, dialect)
    assert "00000003" in events[-2][1], events
    assert weir.request_line(answer.header("x-request-id"))["status"] == 200
    good = fake.ask("POST", path, None, body)
    assert weir.ask("POST", path, None, body).body == good.body


@smoke
def test_a_cut_between_events_is_told_in_the_stream(t):
    cut_between_events(t, "chat", "cut_after")


def test_a_cut_between_events_is_told_in_a_completions_stream(t):
    cut_between_events(t, "completions", "cut_after")


def test_a_cut_between_events_is_told_in_a_responses_stream(t):
    cut_between_events(t, "responses", "cut_after")


def test_a_cut_between_events_is_told_in_a_messages_stream(t):
    cut_between_events(t, "messages", "cut_after")


def test_a_stream_that_ends_without_its_terminal_event_is_told_as_broken(t):
    for dialect in DIALECTS:
        cut_between_events(t, dialect, "end_after")


def test_a_reset_between_events_is_told_in_the_stream(t):
    cut_between_events(t, "chat", "reset_after")


def test_a_stream_without_framing_that_ends_early_is_told_as_broken(t):
    _, weir = t.pair()
    broken(weir.stream("events=9,close_body,cut_after=2"), "chat")


@smoke
def test_a_cut_inside_an_event_resets_the_transport(t):
    _, weir = t.pair()
    for behave in ("events=9,cut_inside=3", "events=9,half_chunk", "events=9,end_inside=3", "events=9,close_body,cut_inside=2"):
        try:
            answer = weir.stream(behave)
        except Truncated as cut:
            assert b"00000001" in cut.body and b"error" not in cut.body, cut.body
        else:
            raise AssertionError(f"{behave}: passed off as whole: {answer}")
    assert weir.stream().status == 200


def test_a_cut_inside_an_event_resets_the_http2_stream_only(t):
    """Events that come together with the cut may go with the stream: libh2o drops what it has not sent yet. Hence the pace."""
    _, weir = t.pair()
    cut = t.curl("--http2-prior-knowledge", weir.url + "/v1/chat/completions", "-H", "x-fake: events=9,cut_inside=3,pace_ms=700", "-H",
                 "content-type: application/json", "-d", json.dumps(chat()))
    assert cut.returncode == 92, (cut.returncode, cut.stderr)  # HTTP/2 stream not closed cleanly
    assert b"00000002" in cut.stdout and b'"error"' not in cut.stdout, cut.stdout
    assert t.curl("--http2-prior-knowledge", weir.url + "/livez").returncode == 0


def test_a_plain_answer_that_is_cut_resets_the_transport(t):
    _, weir = t.pair()
    for behave in ("size=100000,short_length", "size=100000,half_chunk"):
        try:
            answer = weir.ask("POST", "/v1/chat/completions", {"x-fake": behave}, chat(False))
        except Truncated:
            continue
        assert answer.status == 502, answer  # nothing had been sent yet


@smoke
def test_a_failure_before_the_first_event_is_an_honest_status(t):
    _, weir = t.pair()
    for behave in ("cut_after=0", "reset_after=0", "end_after=0", "drop", "drop=2"):
        answer = weir.stream(behave)
        assert answer.status == 502 and answer.header("content-type") == "application/json", (behave, answer)
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
        assert answer.header("x-request-id")


def test_a_failure_before_the_first_event_speaks_the_messages_dialect(t):
    _, weir = t.pair()
    path, body = DIALECTS["messages"]
    answer = weir.ask("POST", path, {"x-fake": "cut_after=0"}, body)
    told = answer.json()
    assert answer.status == 502 and told["type"] == "error" and told["error"]["message"], told
    assert told["request_id"] == answer.header("x-request-id")


def test_comments_alone_do_not_commit_the_head(t):
    fake, weir = t.pair()
    fake.behave("comments,events=1,end_after=0")
    assert weir.stream().status == 502


def test_an_error_event_of_the_backend_passes_through(t):
    fake, weir = t.pair()
    for path, body in DIALECTS.values():
        direct, through = (w.ask("POST", path, {"x-fake": "events=5,error_event=2"}, body) for w in (fake, weir))
        assert through.body.startswith(direct.body) and b"fake trouble" in through.body, through.body[-400:]


def test_an_event_line_of_a_mebibyte_is_relayed_or_refused_but_never_stalls(t):
    fake, weir = t.pair()
    for size in (1 << 20, 8 << 20):
        direct = fake.ask("POST", "/v1/chat/completions", {"x-fake": f"big_line={size}"}, chat())
        try:
            through = weir.stream(f"big_line={size}")
            assert through.body == direct.body or through.status == 502 or b'"error"' in through.body[-2000:]
        except Truncated:
            pass
    assert weir.stream().status == 200


# ---------------------------------------------------------------- silence

PING = "sse_ping: 200ms\n"


def test_a_silent_stream_is_kept_alive_by_comments_between_events(t):
    fake = t.fake()
    weir = t.weir(fake, config=PING)
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "events=9,stall_after=2"}, chat())
        pieces, text = wire.pieces(wire.head()), b""
        while text.count(b": ping\n") < 3:
            text += next(pieces)
    events, pings = text[:text.index(b": ping")], text[text.index(b": ping"):]
    assert events.endswith(b"\n\n") and pings.replace(b": ping\n", b"") == b"", text
    assert b"id:" not in text.replace(b'"id":', b"") and b"retry:" not in text


def test_a_silence_inside_an_event_is_not_filled(t):
    fake = t.fake()
    weir = t.weir(fake, config=PING)
    direct = fake.ask("POST", "/v1/chat/completions", {"x-fake": "events=3"}, chat()).body
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "events=3,pace_ms=500,split"}, chat())
        body = b"".join(wire.pieces(wire.head()))
    assert b": ping\n" in body, "there was time for comments between the events"
    assert body.replace(b": ping\n", b"") == direct
    for part in body.split(b": ping\n")[:-1]:
        assert part == b"" or part.endswith(b"\n\n"), body


def test_early_head_commits_to_200_and_starts_the_comments(t):
    fake = t.fake()
    weir = t.weir(fake, config="early_head: 300ms\n" + PING)
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "delay_ms=600000"}, chat())
        assert wire.head().status == 200, "although the backend has said nothing"
    fake.wait_aborts()
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "delay_ms=2500,events=2"}, chat())
        head = wire.head()
        assert head.status == 200
        body = b"".join(wire.pieces(head))
    assert body.startswith(b": ping\n") and body.endswith(b"data: [DONE]\n\n"), body[:200]


def test_after_an_early_head_a_failure_is_an_error_event(t):
    weir = t.weir(t.fake(), config="early_head: 200ms\n")
    answer = weir.stream("delay_ms=2000,status=503")
    if answer.status == 200:
        assert "error" in json.loads(events_of(answer.body)[-1][1]) and b"[DONE]" not in answer.body, answer
    answer = weir.stream("delay_ms=2000,drop")
    assert answer.status == 200
    broken(answer, "chat")


# ---------------------------------------------------------------- many at once

@smoke
@limit(90)
def test_many_streams_at_once_do_not_mix(t):
    t.need("h2load")
    fake, weir = t.pair()
    import subprocess
    body = t.dir / "body.json"
    body.write_text(json.dumps(chat()))
    for flags in (["--h1"], []):
        n = 40 if Options.slow > 1 else 200
        done = subprocess.run(["h2load", *flags, "-n", str(n), "-c", "20", "-d", str(body), "-H",
                               "content-type: application/json", "-H", "x-fake: events=40,pace_ms=5",
                               weir.url + "/v1/chat/completions"], capture_output=True, text=True, check=False)
        assert f"{n} succeeded, 0 failed, 0 errored" in done.stdout, done.stdout + done.stderr
    wait_until(lambda: fake.stats()["streams_finished"] == 2 * n, "all streams to finish")
    assert fake.stats()["aborts"] == 0


def delayed(fake):
    """How many of the gateway's connections to the server put off acknowledging: the kernel's "pingpong" bit."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == fake.port and fields[3] == "01":
            count += int(fields[14]) & 1
    return count


def test_acknowledgements_of_many_streams_are_put_off(t):
    """A packet of its own for each event costs more than all that the gateway does with it."""
    fake, weir = t.pair(args=["--workers", "1"])
    with contextlib.ExitStack() as wires:
        def begin(count):
            for _ in range(count):
                wire = wires.enter_context(weir.connect())
                wire.request("POST", "/v1/chat/completions", {"x-fake": "events=6000,pace_ms=10"}, chat())
                wire.head()
        begin(62)
        for _ in range(20):
            assert delayed(fake) == 0
            time.sleep(0.01)
        begin(1)

        # It lasts until the first pause, so on a busy machine one more may be needed.
        def more():
            begin(1)
            return delayed(fake) > 0
        wait_until(more, "a connection that puts off acknowledgements")
