"""A raw WebSocket client (RFC 6455): as correct, or as wrong, as a scenario wants it. No library."""
import base64
import hashlib
import os
import socket
import struct

from options import Options
from wire import Wire

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Closed(Exception):
    """The connection ended without a close frame."""


def mask(key, data):
    if not data:
        return b""
    repeated = (key * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True, length=None, key=None):
    """One frame; `length` is the length that it claims, if that is not the truth."""
    if isinstance(payload, str):
        payload = payload.encode()
    n = len(payload) if length is None else length
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    if n < 126:
        head = struct.pack("!BB", first, bit | n)
    elif n < 65536:
        head = struct.pack("!BBH", first, bit | 126, n)
    else:
        head = struct.pack("!BBQ", first, bit | 127, n)
    if not masked:
        return head + payload
    key = key or os.urandom(4)
    return head + key + mask(key, payload)


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


def handshake_headers(**changes):
    """The headers of a good handshake, and its key; a header is changed by its name in lower case with '_' for '-'."""
    key = base64.b64encode(os.urandom(16)).decode()
    headers = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13", "sec-websocket-key": key}
    for name, value in changes.items():
        name = name.replace("_", "-")
        if value is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    return headers, key


class WebSocket:
    def __init__(self, weir, path="/ws/chat", headers=None, extra=b"", receive_buffer=None, timeout=15.0):
        self.wire = Wire(weir.address, weir.tls_context, **({"rcvbuf": receive_buffer} if receive_buffer else {}))
        self.sock = self.wire.sock
        self.sock.settimeout(timeout * Options.slow)
        self.buffer = b""
        wanted, key = handshake_headers(**(headers or {}))
        lines = "".join(f"{name}: {value}\r\n" for name, value in wanted.items())
        host = "" if "host" in wanted else "host: test\r\n"
        self.sock.sendall(f"GET {path} HTTP/1.1\r\n{host}{lines}\r\n".encode() + extra)
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if self.status == 101:
            accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
            assert self.headers["sec-websocket-accept"] == accept, self.headers

    def _fill(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._fill()
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    def _take(self, n):
        while len(self.buffer) < n:
            self._fill()
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, opcode, payload=b"", **options):
        self.raw(frame(opcode, payload, **options))

    def text(self, text):
        self.send(TEXT, text)

    def read_frame(self):
        """(fin, opcode, payload) of the next frame."""
        first, second = self._take(2)
        assert not first & 0x70, "reserved bits are set"
        assert not second & 0x80, "a server's frames have no mask"
        n = second & 0x7f
        if n == 126:
            n, = struct.unpack("!H", self._take(2))
            assert n > 125, "not the shortest length"
        elif n == 127:
            n, = struct.unpack("!Q", self._take(8))
            assert n > 65535, "not the shortest length"
        return bool(first & 0x80), first & 15, self._take(n)

    def read(self):
        """(opcode, payload) of the next message or control frame; pings are answered and passed over."""
        opcode, payload = None, b""
        while True:
            fin, code, data = self.read_frame()
            if code == PING:
                self.send(PONG, data)
                continue
            if code >= 8:
                assert fin and len(data) <= 125
                return code, data
            assert (code == CONT) == (opcode is not None), "fragments are mixed up"
            opcode = code or opcode
            payload += data
            if fin:
                if opcode == TEXT:
                    payload.decode()
                return opcode, payload

    def read_text(self):
        opcode, payload = self.read()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def read_close(self, skip=False):
        """The code and reason of the close frame that comes next (or, with `skip`, some time)."""
        while True:
            opcode, payload = self.read()
            if opcode == CLOSE:
                break
            assert skip, (opcode, payload)
        if not payload:
            return 1005, ""
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def read_end(self):
        """The connection ends now."""
        try:
            data = self.buffer or self.sock.recv(65536)
        except ConnectionResetError:
            return
        assert data == b"", data

    def close(self, code=1000, reason=""):
        """The whole closing handshake; returns the server's code."""
        self.send(CLOSE, close_payload(code, reason) if code else b"")
        told = self.read_close(skip=True)
        self.read_end()
        self.drop()
        return told

    def drop(self):
        self.wire.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop()


__all__ = ["BINARY", "CLOSE", "CONT", "Closed", "PING", "PONG", "TEXT", "WebSocket", "close_payload", "frame", "handshake_headers",
           "socket"]
