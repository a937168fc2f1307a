"""HTTP over a raw socket, byte by byte, and the bodies that scenarios send and read."""
import json
import re
import socket
import ssl

from options import Options


class Truncated(Exception):
    """The peer ended a body before its end. `body` is what came; `how` is "closed", "reset" or "malformed"."""
    def __init__(self, body, how):
        super().__init__(f"body cut ({how}) after {len(body)} bytes: {body[-200:]!r}")
        self.body, self.how = body, how


class Response:
    def __init__(self, status, reason, headers, body=b""):
        self.status, self.reason, self.headers, self.body = status, reason, headers, body

    def header(self, name, default=None):
        for key, value in self.headers:
            if key == name.lower():
                return value
        return default

    def all(self, name):
        return [value for key, value in self.headers if key == name.lower()]

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class Wire:
    """One client connection, byte by byte."""
    def __init__(self, address, tls=None, sni=None, timeout=30.0, rcvbuf=None, source=None, maxseg=None):
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
            if rcvbuf:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            if maxseg:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, maxseg)
        if source:
            self.sock.bind((source, 0))
        self.sock.settimeout(timeout * Options.slow)
        self.sock.connect(address)
        if not isinstance(address, str):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=sni or "localhost")
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def request(self, method, path, headers=None, body=None, version="1.1"):
        self.send(make_request(method, path, headers, body, version))

    def _more(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return len(data) != 0

    def _until(self, mark):
        while mark not in self.buffer:
            if not self._more():
                raise EOFError(f"closed; {self.buffer[:300]!r} had come")
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def head(self, interim=False):
        """The next response head; 1xx ones are skipped unless wanted."""
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            _, status, *reason = lines[0].split(" ", 2)
            headers = []
            for line in lines[1:]:
                name, value = line.split(":", 1)
                headers.append((name.lower(), value.strip()))
            if int(status) >= 200 or interim:
                return Response(int(status), " ".join(reason), headers)

    def _exactly(self, n, sofar):
        """The next n bytes; if they do not come, what came before them is in `sofar`."""
        while len(self.buffer) < n:
            try:
                more = self._more()
            except (ConnectionResetError, ssl.SSLEOFError) as e:
                raise Truncated(b"".join(sofar) + self.buffer, "reset") from e
            if not more:
                raise Truncated(b"".join(sofar) + self.buffer, "closed")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def pieces(self, response):
        """The body as it is framed: each chunk, or each read."""
        sofar = []
        length = response.header("content-length")
        if response.status in (204, 304) or length == "0":
            return
        if (response.header("transfer-encoding") or "").lower() == "chunked":
            while True:
                while (end := self.buffer.find(b"\r\n")) < 0:
                    self.buffer = self._exactly(len(self.buffer) + 1, sofar) + self.buffer
                line, self.buffer = self.buffer[:end], self.buffer[end + 2:]
                if re.fullmatch(rb"[0-9a-fA-F]+(;.*)?", line) is None:
                    raise Truncated(b"".join(sofar), "malformed")
                size = int(line.split(b";")[0], 16)
                data = self._exactly(size + 2, sofar)[:-2]
                if size == 0:
                    return
                sofar.append(data)
                yield data
        elif length is not None:
            data = self._exactly(int(length), sofar)
            yield data
        else:
            try:
                while self.buffer or self._more():
                    data, self.buffer = self.buffer, b""
                    sofar.append(data)
                    yield data
            except (ConnectionResetError, ssl.SSLEOFError) as e:
                raise Truncated(b"".join(sofar), "reset") from e

    def response(self, head_only=False):
        response = self.head()
        if not head_only:
            response.body = b"".join(self.pieces(response))
        return response

    def read_event(self, pieces, carry=None):
        """Pieces until they end with a blank line."""
        text = carry or b""
        while not text.endswith(b"\n\n") and not text.endswith(b"\r\n\r\n"):
            text += next(pieces)
        return text

    def at_end(self):
        """Whether the peer has closed, waiting for it."""
        try:
            return not self.buffer and not self._more()
        except ConnectionResetError:
            return True


def make_request(method, path, headers=None, body=None, version="1.1"):
    headers = dict(headers or {})
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        headers.setdefault("content-type", "application/json")
    if isinstance(body, str):
        body = body.encode()
    lines = [f"{method} {path} HTTP/{version}"]
    headers.setdefault("host", "localhost")
    if body is not None and "transfer-encoding" not in headers:
        headers.setdefault("content-length", str(len(body)))
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def chat(stream=True, model="fake-1", **more):
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
    if stream:
        body["stream"] = True
    return body


def events_of(body):
    """Server-sent events as (event, data); comments are left out."""
    found = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
        if data:
            found.append((name, "\n".join(data)))
    return found
