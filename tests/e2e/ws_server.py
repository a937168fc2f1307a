"""A backend that speaks WebSocket, as correct, or as wrong, as a scenario wants it: each connection is a thread that runs
the scenario's own function on a `Peer`."""
import socket
import ssl
import threading

from ws_frames import CLOSE, Closed, Frames, accept_key


class Peer(Frames):
    """One connection of a client's, whose request has been read."""
    def __init__(self, sock):
        super().__init__(sock, masks=False)
        head = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.method, self.target, _ = head[0].split(" ", 2)
        self.headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            assert name.lower() not in self.headers, f"{name} stands twice"
            self.headers[name.lower()] = value.strip()
        self.pongs = []

    def _fill(self):
        try:
            super()._fill()
        except (ConnectionResetError, ssl.SSLError) as e:
            raise Closed from e

    def answer(self, status, *headers, body=b""):
        lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}"]
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def accept(self, protocol=None, key=None, headers=()):
        key = key or accept_key(self.headers["sec-websocket-key"])
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {key}", *headers]
        if protocol:
            lines.append(f"Sec-WebSocket-Protocol: {protocol}")
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    def close(self, code=1000, reason=""):
        self.send_close(code, reason)


def echo(peer):
    """Says everything back, and closes as it is asked to."""
    offered = [x.strip() for x in peer.headers.get("sec-websocket-protocol", "").split(",")]
    peer.accept(protocol="realtime" if "realtime" in offered else None)
    while True:
        opcode, payload = peer.read()
        peer.send(opcode, payload)
        if opcode == CLOSE:
            return


class Server:
    def __init__(self, serve=echo, cert=None, host="127.0.0.1"):
        self.serve, self.peers, self.errors, self.ended = serve, [], [], 0
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.context = None
        if cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(cert.cert, cert.key)
        self.url = f"{'https' if cert else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            peer = Peer(sock)
            self.peers.append(peer)
            self.serve(peer)
        except (Closed, OSError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)
        finally:
            self.ended += 1
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        assert not self.errors, self.errors
