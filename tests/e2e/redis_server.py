"""Redis for the scenarios: a real redis-server that can be stopped, frozen, killed and started again at the same port
and socket, and a server between weir and it that misbehaves in every way a network and a stranger's port can."""
import contextlib
import os
import shutil
import signal
import socket
import threading
import time

from harness import Process, Skip, free_port, on_a_port, wait_until


def encode(*pieces):
    """A command as Redis reads it."""
    pieces = [p if isinstance(p, bytes) else str(p).encode() for p in pieces]
    return b"*%d\r\n" % len(pieces) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in pieces)


class RedisError(Exception):
    pass


def read_reply(file):
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the connection was closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode()
    if kind == b"-":
        return RedisError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
    return None if rest == b"-1" else [read_reply(file) for _ in range(int(rest))]


class RedisServer:
    """`t.redis()`. Runs when it is made."""
    def __init__(self, scenario, name, *args):
        if shutil.which("redis-server") is None:
            raise Skip("redis-server is not installed")
        self.scenario, self.name, self.args = scenario, name, list(args)
        self.dir = scenario.dir / name
        self.dir.mkdir()
        self.path = self.dir / "socket"
        self.unix_url = f"unix://{self.path}"
        self.process, self.starts = None, 0
        on_a_port(self._start_at)

    def _start_at(self, port):
        self.port, self.url = port, f"redis://127.0.0.1:{port}/0"
        self.start()

    def start(self):
        """At the same port and socket, with what it had written to disk."""
        self.starts += 1
        argv = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--unixsocket", self.path, "--dir", self.dir,
                "--save", "", "--appendonly", "no", "--logfile", self.dir / "redis.log", *self.args]
        self.process = Process(self.scenario, f"{self.name}-{self.starts}", argv)
        wait_until(self._ready, f"{self.name} to serve")

    def _ready(self):
        if not self.process.alive():
            log = self.dir / "redis.log"
            self.process.give_up_if_taken(log.read_text(errors="replace") if log.exists() else "")
        try:
            return isinstance(self.ask("PING"), (str, RedisError))
        except OSError:
            return False

    def _gone(self):
        self.scenario.processes.remove(self.process)
        self.process.kill()
        self.process = None

    def stop(self):
        """As an administrator stops it."""
        self.process.signal(signal.SIGTERM)
        self.process.wait()
        self._gone()

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self._gone()

    def restart(self):
        self.kill()
        self.start()

    def freeze(self):
        self.process.signal(signal.SIGSTOP)

    def thaw(self):
        self.process.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def connect(self):
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock, sock.makefile("rb") as file:
            def ask(*command):
                sock.sendall(encode(*command))
                return read_reply(file)
            yield ask

    def ask(self, *command):
        """One command on a connection of its own; returns str, int, bytes, list, None or a RedisError."""
        with self.connect() as ask:
            return ask(*command)

    def kill_clients(self):
        """Cuts every connection but the one that says so."""
        return self.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def stat(self, section, name):
        """A number of INFO."""
        text = self.ask("INFO", section).decode()
        return next(int(line.split(":")[1]) for line in text.splitlines() if line.startswith(name + ":"))


class RedisFake:
    """`t.redis_fake(server)`: listens on `url`; `mode` says what it does, and may be changed at any time:

    pass        passes everything to and from `server`
    silent      accepts, reads, says nothing
    slow        passes, each reply `seconds` late
    garbage     answers with random bytes
    http        answers as a web server would
    huge        answers with a string of a gigabyte
    deep        answers with nested arrays without end
    wide        answers with an array of 2^31 - 1 elements
    half        passes the first half of what the server says, then nothing more
    cut         passes `after` bytes of replies, then closes
    loading     answers -LOADING to everything
    refuse      closes each connection at once
    """
    def __init__(self, server=None, mode="pass", seconds=0.2, after=200):
        self.server, self.mode, self.seconds, self.after = server, mode, seconds, after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.accepted = 0
        self.open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, mode, **more):
        """Changes the mode and cuts what is connected, unless the new mode is one that a connection can slip into."""
        self.__dict__.update(more)
        self.mode = mode
        if mode not in ("pass", "slow", "silent", "half"):
            self.cut()

    def cut(self):
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client:
            if self.mode != "refuse":
                self._talk(client)
        self.open.discard(client)

    def _talk(self, client):
        server = None
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := client.recv(65536):
                said = self._say(data)
                if said is not None:
                    for piece in said:
                        client.sendall(piece)
                    continue
                if server is None:
                    server = socket.create_connection(("127.0.0.1", self.server.port))
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._back, args=(server, client), daemon=True).start()
                server.sendall(data)
        finally:
            if server is not None:
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)

    def _say(self, data):
        """What is answered without asking the server; None to ask it."""
        mode = self.mode
        if mode == "silent":
            return []
        if mode == "garbage":
            return [os.urandom(4096)]
        if mode == "http":
            return [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"]
        if mode == "huge":
            return [b"$1073741824\r\n"] + [bytes(1 << 20)] * 1024
        if mode == "deep":
            return [b"*1\r\n" * 100000]
        if mode == "wide":
            return [b"*2147483647\r\n" + b"$-1\r\n" * 100000] * 50
        if mode == "loading":
            return [b"-LOADING Redis is loading the dataset in memory\r\n" * max(1, data.count(b"\r\n*") + 1)]
        return None

    def _back(self, server, client):
        passed = 0
        with contextlib.suppress(OSError), server:
            while data := server.recv(65536):
                mode = self.mode
                if mode == "slow":
                    time.sleep(self.seconds)
                if mode == "silent":
                    continue
                if mode == "half":
                    data = data[:len(data) // 2]
                if mode == "cut":
                    data = data[:max(0, self.after - passed)]
                client.sendall(data)
                passed += len(data)
                if mode == "half":
                    self.mode = "silent"
                if mode == "cut" and passed >= self.after:
                    break
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


class RedisSentinel:
    """`t.sentinel(master, name)`: watches a RedisServer, impatiently."""
    def __init__(self, scenario, title, master, name, *lines):
        self.scenario, self.name, self.port = scenario, name, free_port()
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/{name}/0"
        self.password = next((line.split()[1] for line in lines if line.startswith("requirepass ")), None)
        directory = scenario.dir / title
        directory.mkdir()
        config = directory / "sentinel.conf"  # which it rewrites
        config.write_text("\n".join([
            f"port {self.port}", "bind 127.0.0.1", f"dir {directory}", f"logfile {directory}/sentinel.log",
            f"sentinel monitor {name} 127.0.0.1 {master.port} 1", f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 5000", *lines, ""]))
        self.process = Process(scenario, title, ["redis-server", config, "--sentinel"])
        wait_until(lambda: self.master() == master.port, f"{title} to know the master")

    def ask(self, *command):
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock, sock.makefile("rb") as file:
            if self.password:
                sock.sendall(encode("AUTH", self.password))
                read_reply(file)
            sock.sendall(encode(*command))
            return read_reply(file)

    def master(self):
        """The master's port."""
        try:
            reply = self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        except OSError:
            return None
        return int(reply[1]) if isinstance(reply, list) else reply

    def knows_replica(self):
        replicas = self.ask("SENTINEL", "REPLICAS", self.name)
        return isinstance(replicas, list) and any(b"ok" == r[r.index(b"master-link-status") + 1] for r in replicas)
