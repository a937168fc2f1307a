"""WebSocket frames (RFC 6455) as either side writes and reads them; as correct, or as wrong, as a scenario wants. No
library."""
import base64
import hashlib
import os
import struct

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


def accept_key(key):
    """What a server answers to a handshake's key (§4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


class Frames:
    """One end of a connection: what it has received, and what it sends. `masks` is whether this end does so: a client's
    frames have a mask, a server's have none (§5.1)."""
    def __init__(self, sock, masks):
        self.sock, self.masks, self.buffer = sock, masks, b""
        self.pongs = None  # a list: pongs go there, instead of being read like messages

    def _fill(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed
        self.buffer += data

    def until(self, mark):
        """What comes before the mark, which is taken too."""
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
        self.raw(frame(opcode, payload, **{"masked": self.masks, **options}))

    def text(self, text):
        self.send(TEXT, text)

    def read_frame(self):
        """(fin, opcode, payload) of the next frame."""
        first, second = self._take(2)
        assert not first & 0x70, "reserved bits are set"
        assert bool(second & 0x80) != self.masks, "a client's frames have a mask, a server's have none"
        n = second & 0x7f
        if n == 126:
            n, = struct.unpack("!H", self._take(2))
            assert n > 125, "not the shortest length"
        elif n == 127:
            n, = struct.unpack("!Q", self._take(8))
            assert n > 65535, "not the shortest length"
        key = None if self.masks else self._take(4)
        data = self._take(n)
        return bool(first & 0x80), first & 15, mask(key, data) if key else data

    def read(self):
        """(opcode, payload) of the next message, pong or close; pings are answered and passed over."""
        opcode, payload = None, b""
        while True:
            fin, code, data = self.read_frame()
            if code >= 8:
                assert fin and len(data) <= 125
                if code == PING:
                    self.send(PONG, data)
                elif code == PONG and self.pongs is not None:
                    self.pongs.append(data)
                else:
                    return code, data
                continue
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

    def send_close(self, code=1000, reason=""):
        self.send(CLOSE, close_payload(code, reason) if code else b"")
