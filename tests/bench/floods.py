#!/usr/bin/env python3
"""How long a client of weir waits while others flood it: p50 and p99 of a small request, undisturbed and under each attack, in
clear text and over TLS; weir's memory, and how the attackers fared. By hand, on a machine with nothing else to do:

    python3 tests/bench/floods.py --weir build/weir --fake build-test/tests/model_fake [--seconds 5] [-k PATTERN]
"""
import argparse
import json
import multiprocessing
import pathlib
import socket
import ssl
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
# pylint: disable=wrong-import-position
from harness import Options, Scenario, chat  # noqa: E402
from http2 import (CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY,  # noqa: E402
                   RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head, head_frames)

CHAT = "/v1/chat/completions"
READY_MAX = 60  # seconds within which an attacker must have all its connections
POST = head("POST", CHAT, [(b"content-type", b"application/json")])
GET = head("GET", "/livez")
BODY = json.dumps(chat()).encode()


def many(make, batch=200):
    """A flood of make(0), make(1), … in batches."""
    def run():
        i = 0
        while True:
            yield b"".join(make(i + n) for n in range(batch))
            i += batch
    return run


def first(start, rest):
    def run():
        yield start
        while True:
            yield rest
    return run


def half_sent():
    yield b"".join(head_frames(stream, POST) + frame(DATA, 0, stream, b"x" * 16000) for stream in range(1, 201, 2))
    while True:
        time.sleep(0.5)
        yield frame(PING, 0, 0, b"keepopen")


def idle():
    yield b""
    while True:
        time.sleep(0.5)
        yield b""


# name: (bytes to send, connections at once, HTTP/2)
ATTACKS = {
    "rapid reset": (many(lambda i: head_frames(2 * i + 1, POST) + frame(DATA, END_STREAM, 2 * i + 1, BODY) +
                         frame(RST_STREAM, 0, 2 * i + 1, struct.pack(">I", CANCEL))), 1, True),
    "made you reset": (many(lambda i: head_frames(2 * i + 1, POST) + frame(DATA, END_STREAM, 2 * i + 1, BODY) +
                            frame(WINDOW_UPDATE, 0, 2 * i + 1, struct.pack(">I", 0))), 1, True),
    "ping": (many(lambda i: frame(PING, 0, 0, b"12345678"), 1000), 1, True),
    "settings": (many(lambda i: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535 + i % 2)), 1000), 1, True),
    "priority": (many(lambda i: frame(PRIORITY, 0, 1, struct.pack(">IB", 0, i % 256)), 1000), 1, True),
    "window update": (many(lambda i: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)), 1000), 1, True),
    "empty data": (first(head_frames(1, POST), frame(DATA, 0, 1) * 1000), 1, True),
    "continuation": (first(frame(HEADERS, 0, 1, POST), frame(CONTINUATION, 0, 1, b"\0" * 100) * 100), 1, True),
    "hpack bomb": (many(lambda i: head_frames(2 * i + 1, POST + b"\x40\x04bomb\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 60000), 1), 1, True),
    "complete requests": (many(lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, GET)), 1, True),
    "held half sent": (half_sent, 20, True),
    "a thousand connections": (idle, 1000, True),
    "pipelining": (first(b"", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 2000), 1, False),
}


def client_context(http2):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
    return context


def connect(address, context, http2, source):
    sock = socket.socket()
    sock.bind((source, 0))
    sock.settimeout(5)
    sock.connect(address)
    if context:
        sock = context.wrap_socket(sock)
    if http2:
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
    sock.setblocking(False)
    return sock


def attack(address, tls, name, source, counts):
    """Sends, and takes what comes so that it is not the one who stalls; connects again when it is thrown out."""
    make, width, http2 = ATTACKS[name]
    context = client_context(http2) if tls else None
    live = []
    while True:
        while len(live) < width:
            try:
                live.append([connect(address, context, http2, source), make(), b"", b""])
                counts[0] += 1
            except OSError:
                counts[1] += 1
                time.sleep(0.01)
                break
        for entry in list(live):
            sock, source_of, waiting, seen = entry
            gone = False
            try:
                waiting = waiting or next(source_of)
                sent = sock.send(waiting) if waiting else 0
                entry[2] = waiting[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                entry[2] = waiting
            except OSError:
                gone = True
            try:
                data = sock.recv(262144)
                entry[3] = (seen + data)[-60:]
                gone |= not data
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except OSError:
                gone = True
            if gone:
                counts[3] += b"\0\0\0\x0bflood" in entry[3]
                live.remove(entry)
                sock.close()
                counts[2] += 1


def measure(weir, seconds, ready=lambda: True):
    """Milliseconds of each of a client's small requests, for so long and until `ready`, but not for ever."""
    times, start = [], time.monotonic()
    with weir.connect() as wire:
        while time.monotonic() < start + seconds or not ready() and time.monotonic() < start + READY_MAX:
            begin = time.monotonic()
            wire.request("POST", CHAT, None, chat(False))
            assert wire.response().status == 200
            times.append((time.monotonic() - begin) * 1000)
            time.sleep(0.005)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], len(times)


def memory(weir):
    with open(f"/proc/{weir.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--fake", required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("-k", dest="pattern", default="")
    options = parser.parse_args()
    Options.weir, Options.fake = pathlib.Path(options.weir).resolve(), pathlib.Path(options.fake).resolve()
    Options.valgrind = Options.workers = None
    Options.slow = 1.0
    failed = False
    print(f"{'':34}{'p50 ms':>8}{'p99 ms':>8}{'bound':>8}{'MB':>6}  attackers: connected, refused, ended, with ENHANCE_YOUR_CALM")
    for tls in (False, True):
        for name in ATTACKS:
            if options.pattern not in name:
                continue
            scenario = Scenario(name)
            fake = scenario.fake()
            weir = scenario.weir(fake, tls=scenario.certificate() if tls else None)
            _, calm, _ = measure(weir, options.seconds)
            counts = multiprocessing.Array("l", 4)
            process = multiprocessing.Process(target=attack, args=(weir.address, tls, name, "127.0.0.66", counts), daemon=True)
            process.start()
            time.sleep(0.3)
            # On a busy machine it may take an attacker long to make a thousand connections, over TLS above all.
            width = ATTACKS[name][1]
            p50, p99, _ = measure(weir, options.seconds, lambda: counts[0] >= width)
            most = memory(weir)
            process.kill()
            process.join()
            bound = 3 * calm + 5
            wrong = "  <-- beyond" if p99 > bound or most >= 128 else "  <-- not all connected" if counts[0] < width else ""
            print(f"{'TLS' if tls else 'clear':6}{name:28}{p50:8.2f}{p99:8.2f}{bound:8.2f}{most:6.0f}  {list(counts)}{wrong}", flush=True)
            failed = failed or bool(wrong)
            weir.kill()
            fake.kill()
            scenario.clean()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
