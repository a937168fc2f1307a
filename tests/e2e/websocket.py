"""A raw WebSocket client (RFC 6455): as correct, or as wrong, as a scenario wants it. No library."""
import base64
import os

from options import Options
from wire import Wire
from ws_frames import Frames, accept_key


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


class WebSocket(Frames):
    def __init__(self, weir, path="/ws/chat", headers=None, extra=b"", receive_buffer=None, timeout=30.0):
        self.wire = Wire(weir.address, weir.tls_context, **({"rcvbuf": receive_buffer} if receive_buffer else {}))
        super().__init__(self.wire.sock, masks=True)
        self.sock.settimeout(timeout * Options.slow)
        wanted, key = handshake_headers(**(headers or {}))
        lines = "".join(f"{name}: {value}\r\n" for name, value in wanted.items())
        host = "" if "host" in wanted else "host: test\r\n"
        self.sock.sendall(f"GET {path} HTTP/1.1\r\n{host}{lines}\r\n".encode() + extra)
        head = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if self.status == 101:
            assert self.headers["sec-websocket-accept"] == accept_key(key), self.headers

    def read_end(self):
        """The connection ends now."""
        try:
            data = self.buffer or self.sock.recv(65536)
        except ConnectionResetError:
            return
        assert data == b"", data

    def close(self, code=1000, reason=""):
        """The whole closing handshake; returns the server's code."""
        self.send_close(code, reason)
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
