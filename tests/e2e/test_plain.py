"""Small plain answers over HTTP/1.1 in clear text: head and body go out in one piece, past libh2o, from a worker's second
answer on. Nobody may notice."""
import email.utils
import threading
import time

from harness import chat, limit, make_request, smoke, wait_until

CHAT = "/v1/chat/completions"
ONE = ["--workers", "1"]


def ask(wire, behave="", headers=None, version="1.1"):
    wire.request("POST", CHAT, {"x-fake": behave, "x-request-id": "same", **(headers or {})}, chat(False), version=version)
    return wire.response()


def shape(answer):
    """All of the head but for the time and the backend's number."""
    varies = ("date", "x-upstream-request-id")
    return answer.status, answer.reason, [(name, None if name in varies else value) for name, value in answer.headers]


@smoke
def test_the_second_plain_answer_looks_like_the_first(t):
    _, weir = t.pair(args=ONE)
    with weir.connect() as wire:
        first = ask(wire)
        assert first.status == 200 and first.json()["choices"], first
        for _ in range(5):
            answer = ask(wire)
            assert shape(answer) == shape(first) and answer.body == first.body, (answer, first)
            assert email.utils.parsedate_to_datetime(answer.header("date")).tzinfo is not None
            assert weir.request_line("same")["bytes"] == len(first.body)
        wire.request("GET", "/livez")
        assert wire.response().status == 200, "the connection is still in step"


def test_plain_answers_of_any_size_and_status_are_whole(t):
    fake, weir = t.pair(args=ONE)
    with weir.connect() as wire:
        ask(wire)
        for size in (1, 100, 3000, 3849, 3850, 3851, 5000, 100000):
            behave = f"size={size}"
            own = fake.ask("POST", CHAT, {"x-fake": behave}, chat(False)).json()
            answer = ask(wire, behave)
            assert answer.json()["choices"] == own["choices"] and answer.header("content-length"), size
        for status in (400, 404, 422):
            assert ask(wire, f"status={status}").status == status
        assert ask(wire).status == 200


def test_a_plain_answer_in_pieces_has_the_same_head(t):
    fake, weir = t.pair(args=ONE)
    with weir.connect() as wire:
        first = ask(wire)
        for behave in ("split", "bytes", "first_ms=50"):
            answer = ask(wire, behave)
            assert shape(answer) == shape(first) and answer.body == first.body, (behave, answer)
        assert ask(wire, "drop=1").status == 502
        answer = ask(wire)
        assert shape(answer) == shape(first) and answer.body == first.body, answer


def test_the_end_of_a_connection_is_told_and_kept(t):
    _, weir = t.pair(args=ONE)
    with weir.connect() as wire:
        first = ask(wire)
        answer = ask(wire, headers={"connection": "keep-alive"}, version="1.0")
        assert answer.header("connection") == "keep-alive" and answer.body == first.body, answer
        answer = ask(wire, headers={"connection": "close"})
        assert answer.header("connection") == "close" and answer.body == first.body and wire.at_end(), answer


@limit(180)
def test_plain_answers_wait_for_a_client_that_reads_late(t):
    """What the socket does not take at once comes later, and nothing of it twice."""
    _, weir = t.pair(args=ONE, config="send_timeout: 60s\n")
    count = 3000
    with weir.connect(rcvbuf=4096, timeout=60) as wire:
        first = ask(wire, "size=3700")
        all_of_them = make_request("POST", CHAT, {"x-fake": "size=3700"}, chat(False)) * count
        sender = threading.Thread(target=wire.send, args=(all_of_them,), daemon=True)
        sender.start()
        seen = []
        def stuck():
            time.sleep(0.2)
            seen.append(weir.metric("^weir_requests_total"))
            return len(seen) > 1 and seen[-1] == seen[-2] + 1  # the question itself
        wait_until(stuck, "the socket to take no more", timeout=60)
        for turn in range(count):
            answer = wire.response()
            assert answer.status == 200 and answer.body == first.body, (turn, answer)
        sender.join()
