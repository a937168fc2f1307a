"""Cases of HTTP/2: what a raw client sends, and what the gateway must make of it.

A case names the clause (of RFC 9113 unless it says otherwise). `known` says what that clause asks for where libh2o does
something else; the case then holds it to what it does, so that a change is noticed."""
import json
import struct
from collections import namedtuple

from hpack import Decoder, Malformed
from harness import chat
from http2 import (ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, CANCEL, Http2, frame, head,
                   setting)

CHAT, ECHO_PATH = "/v1/chat/completions", "/v1/audio/x"
JSON = (b"content-type", b"application/json")
BODY = json.dumps(chat()).encode()
GET = head("GET", "/livez")
POST = head("POST", CHAT, [JSON])
ECHO = head("POST", ECHO_PATH, [JSON])
WAITING = head("POST", CHAT, [JSON, (b"x-fake", b"delay_ms=60000")])
PATIENCE = 30  # seconds for what takes milliseconds on a machine that has nothing else to do

Case = namedtuple("Case", "clause name send expect known options", defaults=("", {}))


# ---------------------------------------------------------------- what is sent

def headers(stream, block=GET, flags=END_STREAM | END_HEADERS):
    return frame(HEADERS, flags, stream, block)


def post(stream, block=POST, body=BODY):
    return headers(stream, block, END_HEADERS) + frame(DATA, END_STREAM, stream, body)


def waiting(stream):
    """A whole request that is not answered for a long time."""
    return post(stream, WAITING)


OPEN = headers(1, POST, END_HEADERS)  # a request whose body is still to come


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(setting(*pair) for pair in pairs))


def priority(stream, on=0, weight=15, exclusive=False):
    return frame(PRIORITY, 0, stream, struct.pack(">IB", on | exclusive << 31, weight))


def ping(text):
    return frame(PING, 0, 0, text)


def after_answer(data, block=GET):
    """Sends `data` when stream 1 has been answered."""
    def send(client):
        client.send(headers(1, block))
        assert client.answer(1)[0] == 200
        client.send(data)
    return send


class Client(Http2):
    """Notes and decodes everything that comes back."""
    def __init__(self, weir, **options):
        self.decoder, self.frames, self.pongs, self.acks, self.fields = Decoder(), [], [], 0, {}
        self.sent_tables, self.block = [], b""
        super().__init__(weir, **options)

    def lower_table(self, size):
        self.sent_tables.append(size)
        self.send(settings((1, size)))

    def _take(self, kind, flags, stream, payload):
        self.frames.append((kind, flags, stream, payload))
        if kind == PING and flags & ACK:
            self.pongs.append(payload)
        elif kind == SETTINGS and flags & ACK:
            self.acks += 1
            if self.acks > 1 and self.sent_tables:  # the first is for the greeting's
                self.decoder.allow(self.sent_tables.pop(0))
        elif kind in (HEADERS, 9):
            self.block += payload
            if flags & END_HEADERS:
                fields, self.block = self.decoder.decode(self.block), b""
                self.fields.setdefault(stream, []).append(fields)
                if not fields[0][1].startswith("1"):
                    self.status.setdefault(stream, int(fields[0][1]))
        if kind != HEADERS:
            super()._take(kind, flags, stream, payload)
        elif flags & END_STREAM:
            self.ended.add(stream)

    def read_until(self, check, what, timeout=PATIENCE):
        super().read_until(check, what, timeout)

    def is_alive(self, mark=b"still ok"):
        """Whether it answers what comes after all the rest."""
        self.send(ping(mark))
        self.read_until(lambda: mark in self.pongs or self.goaway, "the connection to go on")
        assert self.goaway is None and not self.closed, f"the connection ended: {self.goaway}"

    def answer(self, stream):
        self.read_until(lambda: self.is_over(stream) or self.goaway, f"the answer on stream {stream}")
        assert self.goaway is None and not self.closed, f"the connection ended: {self.goaway}"
        return super().answer(stream)


# ---------------------------------------------------------------- what is expected

def ends(code):
    """A connection error (5.4.1): GOAWAY, and the connection is closed."""
    def check(client):
        client.read_until(lambda: False, "the connection to be closed")
        assert client.closed and client.goaway and client.goaway[0] == code, \
            f"expected GOAWAY {code}: {client.goaway}, closed {client.closed}, status {client.status}, resets {client.resets}"
    return check


def closes():
    """Closed without a GOAWAY, which may be left out (3.4)."""
    def check(client):
        client.read_until(lambda: False, "the connection to be closed")
        assert client.closed and client.goaway is None, client.goaway
    return check


def resets(code, stream=1):
    """A stream error (5.4.2): the connection goes on."""
    def check(client):
        client.read_until(lambda: stream in client.resets or client.goaway, f"stream {stream} to be reset")
        assert client.resets.get(stream) == code, (client.resets, client.status, client.goaway)
        client.is_alive()
        client.send(headers(9001))
        assert client.answer(9001)[0] == 200, "others are served"
    return check


def ignored(client):
    """Nothing comes of it, and another request on the connection is served."""
    client.is_alive()
    assert not client.resets, client.resets
    client.send(headers(9001))
    assert client.answer(9001)[0] == 200


def answers(status=200, stream=1, body=None):
    def check(client):
        got, data = client.answer(stream)
        assert got == status, f"expected {status}: {got} {data!r}"
        assert body is None or data == body, data
        client.is_alive()
    return check


def echoes(*fields, stream=1, body=None, without=()):
    """The backend has seen these fields, this body, and none of the fields in `without`."""
    def check(client):
        status, data = client.answer(stream)
        assert status == 200, f"expected 200: {status} {data!r}"
        seen = json.loads(data)
        for field in fields:
            assert list(field) in seen["headers"], (field, seen["headers"])
        assert not [name for name, _ in seen["headers"] if name in without], seen["headers"]
        assert body is None or seen["body"].encode("latin-1") == body, (len(seen["body"]), seen["body"][:100])
        client.is_alive()
    return check


def both(first, second):
    return lambda client: [first(client), second(client)]


# ---------------------------------------------------------------- the run

def play_one(weir, case):
    """What is wrong, or None."""
    try:
        with Client(weir, **case.options) as client:
            if callable(case.send):
                case.send(client)
            else:
                client.send(case.send)
            case.expect(client)
    except (AssertionError, OSError, EOFError, Malformed) as e:
        return f"{e or type(e)}"
    try:
        with Client(weir) as client:
            client.send(headers(1))
            assert client.answer(1)[0] == 200, client.status
    except (AssertionError, OSError, Malformed) as e:
        return f"afterwards nobody is served: {e}"
    return None


def play(weir, cases):
    assert len({(case.clause, case.name) for case in cases}) == len(cases), "two cases have one name"
    wrong = []
    for case in cases:
        problem = play_one(weir, case)
        if problem:
            wrong.append(f"{case.clause} {case.name}: {problem}")
        if not weir.alive():
            wrong.append(f"{case.clause} {case.name}: the gateway has ended")
            break
    assert not wrong, f"{len(wrong)} of {len(cases)} cases\n" + "\n".join(wrong)
