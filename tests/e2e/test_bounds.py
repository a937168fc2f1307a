"""Slow, many, large and nosy clients: each meets a bound, and the others are served."""
import json
import os
import socket
import subprocess
import threading
import time

from harness import KEY, Options, chat, limit, smoke, wait_until
from http2 import DATA, END_HEADERS, HEADERS, Http2, frame, head, head_frames

CHAT = "/v1/chat/completions"
ATTACKER = "127.0.0.66"
HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % CHAT.encode()


def is_untouched(wire):
    """Whether the peer has neither answered nor closed; takes nothing."""
    wire.sock.settimeout(0.01)
    try:
        wire.sock.recv(1, socket.MSG_PEEK)
        return False
    except TimeoutError:
        return True
    except OSError:
        return False


def trickle(wire, data, pause=0.2, patience=20):
    """Sends a byte at a time until the peer closes; returns the seconds that took."""
    begin = time.monotonic()
    for i in range(len(data)):
        if time.monotonic() - begin > patience * Options.slow:
            raise AssertionError("the trickle was never ended")
        try:
            wire.send(data[i:i + 1])
            if wire.sock.gettimeout() is not None:
                wire.sock.settimeout(pause)
            if wire.sock.recv(65536) == b"":
                return time.monotonic() - begin
        except TimeoutError:
            pass
        except OSError:
            return time.monotonic() - begin
    raise AssertionError("everything was taken")


# ---------------------------------------------------------------- connections

@smoke
def test_connections_are_bounded_overall(t):
    fake = t.fake()
    weir = t.weir(fake, config="connections: {max: 4}\n")
    def join():
        """The connection that the harness tried may still be going."""
        wire = weir.connect()
        try:
            wire.request("GET", "/livez")
            return wire if wire.response().status == 200 else None
        except (EOFError, OSError):
            wire.close()
            return None
    wires = [wait_until(join, "a connection") for _ in range(4)]
    for _ in range(20):
        with weir.connect() as more:
            assert more.at_end()
    wires[0].request("GET", "/livez")
    assert wires[0].response().status == 200, "who is in stays in"
    wires.pop().close()
    def admitted():
        try:
            return weir.ask("GET", "/livez").status == 200
        except (EOFError, OSError):
            return False
    wait_until(admitted, "room for another")
    for wire in wires:
        wire.close()
    wait_until(admitted, "room")
    assert wait_until(lambda: weir.metric('weir_connections_refused_total{reason="max"'), "the count") >= 20
    lines = [line for line in weir.log_lines() if line["msg"] == "security" and line["event"] == "connections"]
    assert 1 <= len(lines) <= 28 and lines[0]["detail"] == "max" and lines[0]["client"] == "127.0.0.1", lines


@smoke
def test_connections_are_bounded_for_each_address(t):
    fake = t.fake()
    weir = t.weir(fake, config="connections: {per_address: 3}\n")
    held = [weir.connect(source=ATTACKER) for _ in range(3)]
    wait_until(lambda: weir.metric("weir_connections$") >= 4, "the connections")
    for _ in range(5):
        with weir.connect(source=ATTACKER) as more:
            assert more.at_end()
    assert weir.stream().status == 200, "others are served"
    held.pop().close()
    def admitted():
        with weir.connect(source=ATTACKER) as wire:
            try:
                wire.request("GET", "/livez")
                return wire.response().status == 200
            except (EOFError, OSError):
                return False
    wait_until(admitted, "room for another")
    assert weir.metric('weir_connections_refused_total{reason="per_address"') >= 5
    for wire in held:
        wire.close()


def test_a_trusted_proxy_may_have_any_number_of_connections(t):
    fake = t.fake()
    weir = t.weir(fake, config="connections: {per_address: 3}\ntrusted_proxies: [127.0.0.66/32]\n")
    held = [weir.connect(source=ATTACKER) for _ in range(10)]
    for wire in held:
        wire.request("GET", "/livez")
        assert wire.response().status == 200
        wire.close()


# ---------------------------------------------------------------- slow ones

@smoke
def test_a_trickle_of_a_byte_at_a_time_is_ended(t):
    """request_timeout is the time that a request may take as a whole, not that between two bytes."""
    fake = t.fake()
    weir = t.weir(fake, config="request_timeout: 2s\n")
    for start, rest in ((b"", HEAD + b"x-filler: " + b"a" * 1000), (HEAD, b"x-filler: " + b"a" * 1000),
                        (HEAD + b"content-length: 1000\r\n\r\n", b"{" * 999),
                        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n{\r\n" * 100), (b"P", b"RI * HTTP/1.1\r\n" + b"a" * 100)):
        with weir.connect() as wire:
            wire.send(start or b"P")
            assert trickle(wire, rest) >= 1, start
    with Http2(weir) as client:
        client.send(head_frames(1, head("POST", CHAT)))
        begin = time.monotonic()
        while 1 not in client.resets and not client.closed:
            client.send(frame(DATA, 0, 1, b"{"))
            client.take_what_has_come()
            time.sleep(0.1)
            assert time.monotonic() - begin < 20 * Options.slow
    with Http2(weir) as client:
        client.send(frame(HEADERS, 0, 1, b"\x83"))
        begin = time.monotonic()
        while 1 not in client.resets and not client.closed:
            client.take_what_has_come()
            time.sleep(0.1)
            assert time.monotonic() - begin < 20 * Options.slow
    assert fake.stats()["requests"] == 0 and weir.stream().status == 200


@smoke
def test_handshakes_that_never_end_are_ended(t):
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate(), config="request_timeout: 2s\n")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 400
    wires = []
    for start in (b"", hello[:1], hello[:20], hello):
        wire = socket.create_connection(weir.address)
        wire.sendall(start)
        wires.append(wire)
    assert weir.stream().status == 200, "others are served meanwhile"
    for wire in wires:
        wire.settimeout(20 * Options.slow)
        try:
            while wire.recv(4096):
                pass
        except ConnectionResetError:
            pass
        wire.close()
    wait_until(lambda: weir.metric("weir_connections$") == 1, "the connections to go")


def test_a_hundred_handshakes_at_once_are_all_done(t):
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate())
    good, lock = [], threading.Lock()
    def one():
        with weir.connect() as wire:
            wire.request("GET", "/livez")
            status = wire.response().status
        with lock:
            good.append(status)
    threads = [threading.Thread(target=one) for _ in range(100)]
    for thread in threads:
        thread.start()
    junk = [socket.create_connection(weir.address) for _ in range(50)]
    for wire in junk:
        wire.sendall(b"\x16\x03\x01 junk that is no hello")
    for thread in threads:
        thread.join()
    assert good == [200] * 100, good
    for wire in junk:
        wire.close()


def test_renegotiation_is_refused(t):
    t.need("openssl")
    fake = t.fake()
    weir = t.weir(fake, tls=t.certificate())
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{weir.port}", "-tls1_2", "-CAfile", str(weir.cert.ca)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        client.stdin.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        client.stdin.flush()
        time.sleep(1)
        client.stdin.write(b"R\n")
        client.stdin.flush()
        time.sleep(1)
        client.stdin.close()
        out = client.stdout.read()
    assert b"RENEGOTIATING" in out and (b"no renegotiation" in out or b"handshake failure" in out or b":error:" in out), out[-500:]
    assert weir.stream().status == 200


@limit(60)
def test_pipelined_requests_by_the_thousand_are_answered_in_order_and_others_have_their_turn(t):
    fake, weir = t.pair()
    count, done = 20000, threading.Event()
    with weir.connect() as wire, weir.connect() as other:
        def send():
            wire.sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * (count - 1) + b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        thread = threading.Thread(target=send)
        thread.start()
        def others():
            while not done.is_set():
                other.request("GET", "/livez")
                assert other.response().status == 200
                served.append(1)
        served = []
        other_thread = threading.Thread(target=others)
        other_thread.start()
        for _ in range(count - 1):
            assert wire.response().json() == {"status": "ok"}
        assert wire.response().json()["name"] == "weir"
        thread.join()
        done.set()
        other_thread.join()
        assert len(served) > 10, len(served)


# ---------------------------------------------------------------- large ones

@smoke
def test_unfinished_uploads_have_a_budget(t):
    fake = t.fake()
    weir = t.weir(fake, config="max_body: 1MiB\nbody_memory: 4MiB\n")  # 2 MiB for the unfinished
    wires = []
    for _ in range(8):
        wire = weir.connect()
        wire.send(HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 500000)
        wires.append(wire)
    wait_until(lambda: sum(is_untouched(wire) for wire in wires) <= 4, "the uploads to be refused")
    time.sleep(0.5)
    left = [wire for wire in wires if is_untouched(wire)]
    assert len(left) >= 2, "no more than needed are refused"
    statuses = []
    for wire in wires:
        if wire not in left:
            wire.sock.settimeout(10)
            try:
                statuses.append(wire.head().status)
            except OSError:
                pass
    assert set(statuses) <= {503} and statuses, statuses
    with weir.connect() as wire:
        wire.request("POST", CHAT, None, chat(filler="x" * 100000))
        assert wire.response().status == 200, "small requests go on"
    assert weir.metric('weir_security_events_total{event="uploads"') >= 4
    for wire in wires:
        wire.close()
    with Http2(weir) as client:
        for stream in range(1, 9, 2):
            client.send(head_frames(stream, head("POST", CHAT, [(b"content-type", b"application/json")])))
            for _ in range(55):
                client.send(frame(DATA, 0, stream, b"x" * 16000))
        client.read_until(lambda: client.resets, "an upload to be refused")
        assert set(client.resets.values()) == {7} and client.goaway is None
    assert weir.stream().status == 200


@smoke
def test_bodies_that_are_being_answered_have_a_budget(t):
    fake = t.fake("delay_ms=8000")  # enough for the next three, on any machine
    weir = t.weir(fake, config="max_body: 1MiB\nbody_memory: 1MiB\n")
    big = chat(False, filler="x" * 600000)
    with weir.connect() as first:
        first.request("POST", CHAT, None, big)
        fake.wait_requests(1)
        for _ in range(3):
            answer = weir.ask("POST", CHAT, None, big)
            assert answer.status == 503 and answer.header("retry-after") == "1" and answer.json()["error"]["code"] == "overloaded", answer
        fake.behave("")
        assert weir.ask("POST", CHAT, None, chat(False)).status == 200, "small ones go on"
        assert first.response().status == 200
    assert weir.ask("POST", CHAT, None, big).status == 200
    assert fake.stats()["requests"] == 3


# ---------------------------------------------------------------- keys

@smoke
def test_many_wrong_keys_from_one_address_have_to_wait(t):
    fake = t.fake()
    weir = t.weir(fake, keys=[KEY], config="trusted_proxies: [127.0.0.1/32]\n")
    def ask(key, client):
        return weir.ask("POST", CHAT, {"x-forwarded-for": client, **({"authorization": f"Bearer {key}"} if key else {})}, chat(False))
    answers = [ask("sk-wrong-%d" % i if i % 2 else None, "192.0.2.1") for i in range(60)]
    statuses = [answer.status for answer in answers]
    assert statuses[:20] == [401] * 20 and 429 in statuses and set(statuses) == {401, 429}, statuses
    waiting = next(answer for answer in answers if answer.status == 429)
    assert int(waiting.header("retry-after")) >= 1 and waiting.json()["error"]["code"] == "too_many_failures", waiting
    assert ask("sk-wrong", "192.0.2.2").status == 401, "another address"
    for _ in range(30):
        assert ask(KEY, "192.0.2.1").status == 200, "a good key is never held up"
    assert ask("sk-wrong", "2001:db8::1").status == 401
    statuses = [ask("sk-wrong", f"2001:db8::{i:x}").status for i in range(2, 60)]
    assert 429 in statuses, "a /64 is one client"
    assert ask("sk-wrong", "2001:db8:0:1::1").status == 401
    for _ in range(50):
        assert ask(KEY, "192.0.2.3").status == 200
    assert [ask("sk-wrong", "192.0.2.3").status for _ in range(10)] == [401] * 10, "good keys do not count"
    lines = [line for line in weir.log_lines() if line["msg"] == "security" and line["event"] == "bad_key"]
    total = weir.metric('weir_security_events_total{event="bad_key"')
    assert 10 <= len(lines) < 40 and total == 60 + 1 + 59 + 1 + 10, (len(lines), total)
    assert lines[0]["client"] == "192.0.2.1" and lines[0]["detail"] in ("no_api_key", "invalid_api_key"), lines[0]


def test_other_processes_of_the_user_cannot_read_the_memory(t):
    fake, weir = t.pair()
    if weir.is_sanitized() or Options.valgrind:
        t.skip("a sanitizer looks at its own memory")
    assert os.stat(f"/proc/{weir.pid}/environ").st_uid == 0
    with open(f"/proc/{weir.pid}/status", encoding="ascii") as status:
        assert "CoreDumping:\t0" in status.read()
    core = subprocess.run(["grep", "-c", "process_open_fds [1-9]"], input=weir.metrics(), text=True, capture_output=True, check=False)
    assert core.stdout.strip() == "1", "it still counts its own descriptors"
    assert fake.stats()["requests"] == 0 and json.loads(weir.ask("GET", "/livez").body)
