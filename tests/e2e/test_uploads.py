"""Large prompts: however they come they arrive unchanged, and what they take is given back."""
import hashlib
import json
import random
import threading
import time

from harness import Options, chat, smoke, wait_until
from http2 import DATA, END_STREAM, Http2, frame, head, head_frames

CHAT = "/v1/chat/completions"
SIZES = (3_000, 16_200, 70_000, 300_000, 2_000_000)


def prompt(size, seed):
    """A request of about `size` bytes that is like no other."""
    letters = random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz äé\n", k=997)
    text = "".join(letters)
    return json.dumps(chat(False, filler=(text * (size // 997 + 1))[:size])).encode()


def head_of(*headers):
    return "\r\n".join((f"POST {CHAT} HTTP/1.1", "host: x", "content-type: application/json", *headers, "", "")).encode()


def send_slowly(wire, data, piece):
    for at in range(0, len(data), piece):
        wire.send(data[at:at + piece])
        time.sleep(0.002)


def chunked(body, piece):
    out = b"".join(b"%x\r\n%s\r\n" % (len(body[at:at + piece]), body[at:at + piece]) for at in range(0, len(body), piece))
    return out + b"0\r\n\r\n"


def is_last(fake, body):
    return fake.last().body_sha256 == hashlib.sha256(body).hexdigest()


def check(fake, wire, body):
    answer = wire.response()
    assert answer.status == 200, answer
    assert is_last(fake, body)


def upload_in_every_way(fake, weir):
    with weir.connect() as wire:
        for seed, size in enumerate(SIZES):
            body = prompt(size, seed)
            length = head_of(f"Content-Length: {len(body)}")
            wire.send(length + body)
            check(fake, wire, body)
            wire.send(length)
            time.sleep(0.01)
            send_slowly(wire, body, 31_013)
            check(fake, wire, body)
            send_slowly(wire, length + body[:2000], 177)
            wire.send(body[2000:])
            check(fake, wire, body)
            wire.send(head_of("transfer-encoding: chunked") + chunked(body, 50_021))
            check(fake, wire, body)
            wire.send(head_of(f"content-length: {len(body)}", "expect: 100-continue"))
            assert wire.head(interim=True).status == 100
            wire.send(body)
            check(fake, wire, body)
            small = prompt(10, seed)
            wire.send(head_of(f"content-length: {len(small)}") + small)
            check(fake, wire, small)


@smoke
def test_large_prompts_arrive_unchanged_however_they_come(t):
    fake, weir = t.pair()
    upload_in_every_way(fake, weir)


def test_large_prompts_arrive_unchanged_over_tls(t):
    fake = t.fake()
    upload_in_every_way(fake, t.weir(fake, tls=t.certificate()))


def test_large_prompts_arrive_unchanged_over_http2(t):
    fake, weir = t.pair()
    with Http2(weir) as client:
        stream = 1
        for announce in (True, False):
            for size in SIZES[:4]:
                body = prompt(size, stream)
                length = [(b"content-length", b"%d" % len(body))] if announce else []
                client.send(head_frames(stream, head("POST", CHAT, [(b"content-type", b"application/json"), *length])))
                for at in range(0, len(body), 16_000):
                    last = at + 16_000 >= len(body)
                    client.send(frame(DATA, END_STREAM if last else 0, stream, body[at:at + 16_000]))
                assert client.answer(stream)[0] == 200
                assert is_last(fake, body)
                stream += 2


def test_large_prompts_that_follow_each_other_without_waiting(t):
    fake, weir = t.pair()
    bodies = [prompt(size, i) for i, size in enumerate((200_000, 10, 1_500_000, 50_000, 10, 400_000))]
    with weir.connect() as wire:
        together = b"".join(head_of(f"content-length: {len(body)}") + body for body in bodies)
        sender = threading.Thread(target=wire.send, args=(together,))
        sender.start()
        for _ in bodies:
            assert wire.response().status == 200
        sender.join()
    assert is_last(fake, bodies[-1]) and fake.stats()["requests"] == len(bodies)


def test_more_bytes_than_were_announced_are_another_request(t):
    fake, weir = t.pair()
    body = prompt(100_000, 1)
    with weir.connect() as wire:
        wire.send(head_of(f"content-length: {len(body)}") + body + b"BAD\r\n\r\n" * 20_000)
        check(fake, wire, body)
        assert wire.response().status == 400
    assert fake.stats()["requests"] == 1


def resident(weir):
    return weir.metric("process_resident_memory_bytes")


@smoke
def test_the_memory_of_large_prompts_returns(t):
    fake = t.fake()
    weir = t.weir(fake, args=("--workers", "1"))
    if weir.is_sanitized() or Options.valgrind:
        t.skip("a sanitizer keeps what was freed")
    idle = [weir.connect() for _ in range(3)]  # as long as there are clients
    weir.ask("POST", CHAT, None, chat(False))
    before = resident(weir)
    def burst(seed):
        with weir.connect() as wire:
            for i in range(3):
                body = prompt(3_000_000 >> seed % 4, seed)
                wire.send(head_of(f"content-length: {len(body)}") + body)
                assert wire.response().status == 200
    threads = [threading.Thread(target=burst, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: resident(weir) < before + (8 << 20), "the memory to return", 20.0)
    for wire in idle:
        wire.close()


def test_to_announce_a_large_prompt_costs_nothing(t):
    fake = t.fake()
    weir = t.weir(fake, args=("--workers", "1"), config="connections: {per_address: 1000}\n")
    if weir.is_sanitized() or Options.valgrind:
        t.skip("a sanitizer looks at its own memory")
    weir.ask("POST", CHAT, None, prompt(3_000_000, 1))
    before = resident(weir)
    wires = []
    for _ in range(200):
        wire = weir.connect()
        wire.send(head_of("content-length: 30000000") + b"{" + b" " * 20_000)
        wires.append(wire)
    time.sleep(0.5)
    assert resident(weir) < before + (16 << 20), (before, resident(weir))
    assert weir.ask("POST", CHAT, None, chat(False)).status == 200
    for wire in wires:
        wire.close()
