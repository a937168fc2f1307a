"""Clients that need more than the load generator knows: HTTP/2, TLS and WebSockets, at a few requests a second each. Each notes what
became of what it sent: `asked` as the load generator's lines, `sockets` what each generation of a WebSocket came to."""
import json
import random
import ssl
import threading
import time

from accounts import Asked
from http2 import Http2
from websocket import WebSocket
from ws_frames import CLOSE, TEXT
from wire import Truncated, Wire

KEY = "sk-soak-main-0000000000"
CHAT = "/v1/chat/completions"


class Others:
    def __init__(self, place, prefix, rate):
        """`place` is where the gateway is: `address`, `tls_address`, `tls` and `tls_h2` (contexts); `rate` is that of all."""
        self.place, self.prefix, self.troubles = place, prefix, []
        self.asked, self.sockets, self.numbers = {}, {}, iter(range(1, 1 << 60))
        self.closed = 0  # WebSockets, by a gateway that ends
        self.stopping = threading.Event()
        jobs = [(self._http2, 0.35), (self._tls, 0.3), (self._websocket, 0.2), (self._http2_tls, 0.15)]
        self.threads = [threading.Thread(target=self._run, args=(job, 1 / (rate * share))) for job, share in jobs]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self, job, pause):
        chance = random.Random(pause)
        while not self.stopping.is_set():
            begun = time.monotonic()
            try:
                done = job(chance)
            except Exception as e:  # noqa: BLE001 - whatever it is, it is to be told
                self.troubles.append(f"{job.__name__}: {e!r}")
                done = 1
            self.stopping.wait(max(0, begun + pause * done - time.monotonic()))

    def _name(self):
        return f"{self.prefix}-o{next(self.numbers)}"

    def _note(self, name, kind, outcome, status):
        self.asked[name] = Asked(kind, outcome, status, name, 0)

    # ---- each returns how many requests it made

    def _tls(self, chance):
        """Up to three requests on one connection. One that a kept connection does not take is sent once more on another."""
        wire = None
        for number in range(3):
            name, leaves = self._name(), chance.random() < 0.2
            headers = {"authorization": "Bearer " + KEY, "x-request-id": name, "x-fake": "events=15,pace_ms=10"}
            body = question(name, chance.random() < 0.7 or leaves)
            if chance.random() < 0.3:
                body["user"] = "u" * 40000
            try:
                if wire is None:
                    raise ConnectionResetError
                wire.request("POST", CHAT, headers, body)
                response = wire.head()
            except (EOFError, ConnectionResetError, BrokenPipeError, ssl.SSLError):
                wire = Wire(self.place.tls_address, self.place.tls, timeout=60)
                wire.request("POST", CHAT, headers, body)
                response = wire.head()
            if not self._read_tls(wire, response, name, leaves):
                wire.close()
                return number + 1
        wire.close()
        return 3

    def _read_tls(self, wire, response, name, leaves):
        """Whether the connection may be used again."""
        kind, body = "tls_leave" if leaves else "tls", b""
        try:
            for piece in wire.pieces(response):
                body += piece
                if leaves and response.status == 200:
                    self._note(name, kind, "left", 0)
                    return False
        except Truncated:
            self._note(name, kind, "broken", response.status)
            return False
        self._note(name, kind, *verdict(response.status, body))
        return response.header("connection") != "close"

    def _over_http2(self, chance, kind, client):
        """Four requests at once, of which some are left."""
        names, left = {}, set()
        with client as http2:
            for stream in (1, 3, 5, 7):
                names[stream] = self._name()
                more = [(b"authorization", b"Bearer " + KEY.encode()), (b"x-request-id", names[stream].encode())]
                http2.post(stream, CHAT, json.dumps(question(names[stream], True)).encode(), "events=15,pace_ms=10", more)
            for stream in names:
                if chance.random() < 0.25:
                    http2.read_until(lambda: stream in http2.status, "a head")  # pylint: disable=cell-var-from-loop
                    if http2.status.get(stream) == 200 and not http2.is_over(stream):
                        http2.reset(stream)
                        left.add(stream)
            for stream, name in names.items():
                if stream in left:
                    self._note(name, kind + "_leave", "left", 0)
                    continue
                status, body = http2.answer(stream)
                if status is None:
                    self._note(name, kind, "broken" if stream in http2.status else "lost", http2.status.get(stream, 0))
                else:
                    self._note(name, kind, *verdict(status, body or b""))
        return 4

    def _http2(self, chance):
        return self._over_http2(chance, "http2", Http2(Clear(self.place.address)))

    def _http2_tls(self, chance):
        return self._over_http2(chance, "http2_tls", Http2(Encrypted(self.place.tls_address, self.place.tls_h2)))

    def _websocket(self, chance):
        """A conversation of up to three generations, one after the other, some cancelled, some sockets left."""
        name, outcomes = self._name(), []
        socket = WebSocket(Clear(self.place.address), headers={"authorization": "Bearer " + KEY, "x-request-id": name}, timeout=60)
        self.sockets[name] = outcomes
        assert socket.status == 101, socket.status
        with socket:
            for number in range(1, 1 + chance.randint(1, 3)):
                socket.text(json.dumps({"id": number, "model": "fake-1", "message": f"{name} {number}", "max_tokens": 50}))
                way, event = chance.choice(["whole", "whole", "cancel", "leave"]), self._event(socket, number)
                if event is None:
                    return number
                if way == "leave" and event["event"] == "delta":
                    outcomes.append("left")
                    return number
                if way == "cancel":
                    socket.text(json.dumps({"id": number, "cancel": True}))
                while event["event"] == "delta":
                    event = self._event(socket, number)
                outcomes.append(200 if event["event"] == "done" else event["status"])
            socket.close()
        return len(outcomes)


    def _event(self, socket, number):
        """The next of a generation's events; None if the gateway, which ends, has closed before it got the question."""
        while True:
            opcode, payload = socket.read()
            if opcode == CLOSE and payload[:2] == b"\x03\xe9":  # 1001
                self.closed += 1
                return None
            assert opcode == TEXT, (opcode, payload)
            event = json.loads(payload)
            if event["id"] == number:
                return event
            # One that was cancelled just as it ended: there is no such generation any more.
            assert event["event"] == "error" and event["status"] == 404, event


def question(name, stream):
    return {"model": "fake-1", "stream": stream, "max_tokens": 50, "messages": [{"role": "user", "content": name}]}


def verdict(status, body):
    """The outcome of an answer whose framing is whole."""
    if status != 200:
        return "refused", status
    whole = body.endswith(b"data: [DONE]\n\n") or body.startswith(b"{")
    return "served" if whole else "broken", status


class Clear:
    """What Http2 and WebSocket need to know of a gateway."""
    def __init__(self, address):
        self.address, self.tls_context = address, None

    def connect(self, **options):
        return Wire(self.address, self.tls_context, **options)

    connect_http2 = connect


class Encrypted(Clear):
    def __init__(self, address, tls):
        super().__init__(address)
        self.tls_context = tls


__all__ = ["Clear", "Others"]
