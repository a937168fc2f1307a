"""HTTP/2 frame by frame, for what a well-behaved client never sends. Header blocks go out as plain literals."""
import ssl
import struct
import time

from options import Options

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)
FRAGMENT = 16000  # a frame holds 16384 bytes unless the peer allows more
STATIC = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}  # RFC 7541 Appendix A


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def setting(identifier, value):
    return struct.pack(">HI", identifier, value)


def window_update(stream, by):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", by))


def hpack_length(n):
    if n < 127:
        return bytes([n])
    out, n = bytearray([127]), n - 127
    while n >= 128:
        out.append(n % 128 | 128)
        n //= 128
    return bytes(out) + bytes([n])


def hpack(headers):
    return b"".join(b"\0" + hpack_length(len(name)) + name + hpack_length(len(value)) + value for name, value in headers)


def head(method, path, more=()):
    return hpack([(b":method", method.encode()), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path.encode()),
                  *more])


def head_frames(stream, block):
    """HEADERS and as many CONTINUATIONs as the block needs."""
    parts = [block[i:i + FRAGMENT] for i in range(0, len(block), FRAGMENT)]
    out = b""
    for i, part in enumerate(parts):
        out += frame(HEADERS if i == 0 else CONTINUATION, END_HEADERS if i == len(parts) - 1 else 0, stream, part)
    return out


def status_of(block):
    """The status at the start of an answer's header block; libh2o writes it indexed or as three plain digits."""
    if block[0] & 0x80:
        return STATIC[block[0] & 0x7f]
    assert block[0] & 0x0f == 8 and block[1] == 3, block[:8]
    return int(block[2:5])


class Http2:
    """One client connection. `window` is what each stream may send before it is given more; `greeting` is sent in place of
    the preface and its SETTINGS."""
    def __init__(self, weir, window=None, acknowledge=True, greeting=None, **options):
        self.wire, self.acknowledge = weir.connect_http2(**options), acknowledge
        self.buffer = b""
        self.status, self.data, self.ended, self.resets = {}, {}, set(), {}
        self.goaway, self.closed = None, False
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.wire.send(PREFACE + frame(SETTINGS, 0, 0, settings) if greeting is None else greeting)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()

    def send(self, data):
        """What the peer does not want to hear any more is for the reading side to find out."""
        try:
            self.wire.send(data)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            pass

    def post(self, stream, path, body, fake="", more=()):
        headers = [(b"content-type", b"application/json"), *more]
        if fake:
            headers.append((b"x-fake", fake.encode()))
        self.send(head_frames(stream, head("POST", path, headers)) + frame(DATA, END_STREAM, stream, body))

    def open_window(self, stream, by):
        self.send(window_update(stream, by))

    def reset(self, stream):
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))

    def _take(self, kind, flags, stream, payload):
        if kind == SETTINGS:
            if self.acknowledge and not flags & 1:
                self.send(frame(SETTINGS, 1, 0))
        elif kind == HEADERS and stream not in self.status:
            self.status[stream] = status_of(payload)
        elif kind == DATA:
            self.data[stream] = self.data.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.resets.setdefault(stream, int.from_bytes(payload, "big"))
        elif kind == GOAWAY:
            self.goaway = (int.from_bytes(payload[4:8], "big"), payload[8:])
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)

    def calmed(self):
        """Whether the connection was ended for flooding."""
        return self.goaway is not None and self.goaway[0] == ENHANCE_YOUR_CALM

    def is_over(self, stream):
        return stream in self.ended or stream in self.resets

    def take_what_has_come(self):
        """Takes the frames that are there, without waiting."""
        try:
            while not self.closed:
                self.wire.sock.settimeout(0.001)
                self._feed()
        except (TimeoutError, BlockingIOError):
            pass
        self.wire.sock.settimeout(30 * Options.slow)

    def _feed(self):
        try:
            data = self.wire.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            data = b""
        self.closed = data == b""
        self.buffer += data
        while len(self.buffer) >= 9 and len(self.buffer) >= 9 + (size := int.from_bytes(self.buffer[:3], "big")):
            kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
            payload, self.buffer = self.buffer[9:9 + size], self.buffer[9 + size:]
            self._take(kind, flags, stream & 0x7fffffff, payload)

    def read_until(self, check, what, timeout=30.0):
        """Takes frames until `check` is true or the peer closes."""
        end = time.monotonic() + timeout * Options.slow
        while not self.closed and not check():
            self.wire.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                self._feed()
            except TimeoutError:
                raise AssertionError(f"waited in vain for {what}: {self.status} {self.ended} {self.resets}") from None

    def answer(self, stream):
        """(status, body), or (None, error code) of a stream that was reset; (None, None) if the connection ended."""
        self.read_until(lambda: self.is_over(stream), f"the answer on stream {stream}")
        return (None, self.resets[stream]) if stream in self.resets else (self.status.get(stream), self.data.get(stream))
