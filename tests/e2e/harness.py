"""What the end-to-end scenarios stand on: starting the real gateway and model-server fakes, and talking to them.

A scenario is a function `test_NAME(t)` in a test_*.py file; `t` is a Scenario. Everything it starts is stopped when it
returns, and the gateway must then have ended with status 0 and without a word from a sanitizer or from valgrind.
"""
import errno
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from options import Options
from wire import Response, Truncated, Wire, chat, events_of, make_request  # noqa: F401 - scenarios take them from here

HERE = pathlib.Path(__file__).resolve().parent
TROUBLE = re.compile(r"ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion .* failed|"
                     r"==\d+== (Invalid|Conditional jump|Use of uninit|Syscall param|"
                     r"[0-9,]+ .*bytes in [0-9,]+ blocks are definitely lost)")
KEY = "sk-test-0123456789abcdef"


class Skip(Exception):
    """The scenario cannot run here; the text says why."""


class Defect(AssertionError):
    """Nothing that a busy machine could bring about: a scenario that finds this has failed for good."""


def wait_until(check, what, timeout=20.0, error=AssertionError):
    """Calls `check` until it returns something true, and returns that."""
    end = time.monotonic() + timeout * Options.slow
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise error(f"waited in vain for {what}")
        time.sleep(0.005)


def claim(port):
    """Whether no other scenario has been given the port. The claim is a name that the kernel drops with this process."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0weir-e2e-port-{port}")
    except OSError as e:
        name.close()
        if e.errno != errno.EADDRINUSE:
            raise
        return False
    _claims.append(name)
    return True


_claims = []


def own_ports():
    """Ports outside the range from which the kernel picks for outgoing connections: there one that is free now may be taken in
    the next moment."""
    try:
        low, high = map(int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        low, high = 32768, 60999
    below, above = range(10000, min(low, 32768)), range(high + 1, 65536)
    widest = max(below, above, key=len)
    return widest if len(widest) >= 2000 else range(10000, 32768)


def free_port(host="127.0.0.1"):
    """A port that nobody uses, one of own_ports(). No other scenario on this machine gets it as long as this one runs."""
    ports = own_ports()
    while True:
        port = random.SystemRandom().choice(ports)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
            try:
                s.bind((host, port))
            except OSError as e:
                if e.errno != errno.EADDRINUSE:
                    raise
                continue
        if claim(port):
            return port


def mono_us():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


# ---------------------------------------------------------------- processes

class PortTaken(AssertionError):
    """The program has ended, for its port was in use."""


def on_a_port(start, attempts=5):
    """start(port) on a free port; on another if a stranger has taken that before the program could."""
    for attempt in range(attempts):
        try:
            return start(free_port())
        except PortTaken:
            if attempt == attempts - 1:
                raise
    return None


def end_gateway(popen):
    """Ends a gateway that the scenario started by itself, if it has not ended. How it ended is for the scenario to say, unless it was
    by a signal of its own or a sanitizer."""
    popen.kill()
    if popen.wait() not in (0, 1, 2, -signal.SIGKILL):
        raise Defect(f"it ended with {popen.returncode}")


class Process:
    def __init__(self, scenario, name, argv, env=None, prefix=()):
        self.name, self.scenario = name, scenario
        self.log_path = scenario.dir / f"{name}.log"
        self.log_file = open(self.log_path, "wb")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        environment.update(ASAN_OPTIONS="detect_leaks=1:exitcode=66:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1",
                           TSAN_OPTIONS=f"exitcode=66:suppressions={HERE / 'tsan.supp'}")
        environment.update(env or {})
        self.popen = subprocess.Popen([*prefix, *map(str, argv)], stdout=self.log_file, stderr=subprocess.STDOUT,
                                      stdin=subprocess.DEVNULL, env=environment, cwd=scenario.dir)
        scenario.processes.append(self)

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def give_up_if_taken(self, log):
        """Raises PortTaken if it has ended and its log says that this is why."""
        if not self.alive() and re.search(r"(?i)address already in use|the port is in use", log):
            if TROUBLE.search(log) or self.popen.returncode < 0:
                raise Defect(f"{self.name} ended with {self.popen.returncode}: {log[-2000:]}")
            self.kill()
            self.scenario.processes.remove(self)
            raise PortTaken(log[-500:])

    def signal(self, number=signal.SIGTERM):
        if self.alive():
            self.popen.send_signal(number)

    def wait(self, timeout=20.0):
        return self.popen.wait(timeout * Options.slow)

    def kill(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait()
        self.log_file.close()


class Fake(Process):
    """A model server. `behave` is its default behaviour; see fake_behave.h."""
    def __init__(self, scenario, name, behave="", listen=None, cert=None, tls_max=None, client_ca=None, models=None, sndbuf=None):
        self.default_behave = behave
        argv = [Options.fake, "--listen", listen or "127.0.0.1:0"]
        for option, value in (("--behave", behave), ("--tls-max", tls_max), ("--client-ca", client_ca),
                              ("--models", models), ("--sndbuf", sndbuf)):
            if value:
                argv += [option, value]
        self.tls = None
        if cert:
            argv += ["--tls-cert", cert.cert, "--tls-key", cert.key]
            self.tls = ssl.create_default_context()
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE
        super().__init__(scenario, name, argv)
        where = wait_until(self._listening, f"{name} to listen")[1]
        if where.startswith("unix:"):
            self.address = where[5:]
            self.url = "http://" + where
        else:
            host, port = where.rsplit(":", 1)
            self.port = int(port)
            self.address = (host.strip("[]"), self.port)
            self.url = f"{'https' if cert else 'http'}://{where}"

    def _listening(self):
        log = self.log()
        self.give_up_if_taken(log)
        return re.search(r"listening on (\S+)\n", log)

    def ask(self, method, path, headers=None, body=None):
        with Wire(self.address, self.tls) as wire:
            wire.request(method, path, headers, body)
            return wire.response()

    def stats(self):
        return self.ask("GET", "/fake/stats").json()

    def last(self):
        return Last(self.ask("GET", "/fake/last").json())

    def reset(self):
        self.ask("POST", "/fake/reset")

    def behave(self, text):
        assert self.ask("POST", "/fake/behave", body=text).status == 200, text

    def crash(self):
        """Dies at once, with all its connections."""
        self.kill()
        self.scenario.processes.remove(self)

    def revive(self):
        """Another one in the place of one that crashed."""
        return Fake(self.scenario, self.name, self.default_behave, listen=f"127.0.0.1:{self.port}")

    def wait_requests(self, n=1):
        return wait_until(lambda: self.stats()["requests"] >= n, f"{n} requests at {self.name}")

    def wait_aborts(self, n=1):
        """Waits until the fake has seen `n` clients go in the middle of an answer."""
        wait_until(lambda: self.stats()["aborts"] >= n, f"{self.name} to be left by its client ({self.stats()})")
        return self.stats()


class Last:
    """The request that a fake saw last."""
    def __init__(self, described):
        self.__dict__.update(described)
        self.body = described.get("body", "").encode("latin-1")

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self):
        return json.loads(self.body)


class Weir(Process):
    def __init__(self, scenario, name, backends, args, config, env, listen, tls, keys, fail):
        self.host, self.tls_context, self.cert = "127.0.0.1", None, tls
        argv, self.backends = [Options.weir], backends
        if config is not None:
            path = scenario.dir / f"{name}.yaml"
            path.write_text(config)
            argv += ["--config", path]
        if listen is None:
            self.port = free_port()
            listen = [f"127.0.0.1:{self.port}"]
        elif not listen[0].startswith("unix:"):
            host, port = listen[0].rsplit(":", 1)
            self.host, self.port = host.strip("[]"), int(port)
        self.address = listen[0][5:] if listen[0].startswith("unix:") else (self.host, self.port)
        for where in listen:
            argv += ["--listen", where]
        for backend in backends:
            argv += ["--backend", backend.url if isinstance(backend, Fake) else backend]
        for key in keys:
            argv += ["--api-key", key]
        if tls:
            argv += ["--tls-cert", tls.cert, "--tls-key", tls.key]
            self.tls_context = tls.client()
        if "--workers" not in args and "workers:" not in (config or ""):
            argv += ["--workers", Options.workers or "1"]
        argv += ["--log-format", "json", *args]
        prefix = ()
        self.valgrind_log = scenario.dir / f"{name}.valgrind"
        if Options.valgrind:
            prefix = ("valgrind", "--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite",
                      "--error-exitcode=66", "--num-callers=24", "--fullpath-after=", f"--suppressions={HERE / 'valgrind.supp'}",
                      f"--log-file={self.valgrind_log}")
        self.expected_status = 0
        super().__init__(scenario, name, argv, env, prefix)
        if not fail:
            wait_until(self._ready, f"{name} to serve", 40)

    def _ready(self):
        if not self.alive():
            self.give_up_if_taken(self.log())
            raise AssertionError(f"weir ended with {self.popen.returncode} at its start:\n{self.log()[-2000:]}")
        try:
            Wire(self.address).close()
            return True
        except OSError:
            return False

    @property
    def url(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_context else 'http'}://{host}:{self.port}"

    @staticmethod
    def is_sanitized():
        program = Options.weir.read_bytes()
        return b"__asan_init" in program or b"__tsan_init" in program

    def connect(self, **options):
        return Wire(self.address, self.tls_context, **options)

    def connect_http2(self, **options):
        return Wire(self.address, self.cert.client(("h2",)) if self.tls_context else None, **options)

    def refuses(self):
        """Whether nobody listens (any more)."""
        try:
            Wire(self.address).close()
            return False
        except OSError:
            return True

    def ask(self, method, path, headers=None, body=None):
        with self.connect() as wire:
            wire.request(method, path, headers, body)
            return wire.response(head_only=method == "HEAD")

    def stream(self, behave="", path="/v1/chat/completions", body=None, headers=None):
        headers = {"x-fake": behave, **(headers or {})} if behave else headers
        return self.ask("POST", path, headers, body or chat())

    def log(self):
        """With all that was logged before. What logs may still be at it, and the log's writer naps for 10 ms between two
        rounds; on a busy machine both have to wait for a processor."""
        for _ in range(2):
            time.sleep(0.02)
            self._rest()
        return super().log()

    def _rest(self):
        """Waits until all threads sleep, though not for long: some have always something to do."""
        end = time.monotonic() + 0.5 * Options.slow
        while self._runs() and time.monotonic() < end:
            time.sleep(0.005)

    def _runs(self):
        """Whether one of its threads runs, or waits for a processor."""
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{thread}/stat", encoding="ascii", errors="replace") as stat:
                    if stat.read().rsplit(")", 1)[1].split()[0] in "RD":
                        return True
        except (FileNotFoundError, ProcessLookupError):  # a thread that has ended, or all have
            pass
        return False

    def log_lines(self):
        lines = []
        for line in self.log().split("\n")[:-1]:
            if line.startswith("{"):
                try:
                    lines.append(json.loads(line))
                except ValueError as e:
                    raise AssertionError(f"a log line is not JSON: {line}") from e
        return lines

    def request_line(self, request_id):
        """The log line of one request."""
        def find():
            return next((line for line in self.log_lines() if request_id in line.values() and "status" in line), None)
        return wait_until(find, f"the log line of {request_id}\n{self.log()[-1500:]}")

    def metrics(self):
        return self.ask("GET", "/metrics").body.decode()

    def metric(self, pattern):
        """The sum over all series whose line matches the pattern before its value."""
        total = 0.0
        for line in self.metrics().splitlines():
            if not line.startswith("#") and re.search(pattern, line.rsplit(" ", 1)[0]):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self, timeout=20.0):
        self.signal()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end after SIGTERM\n{self.log()[-1000:]}") from None

    def verdict(self):
        """What is wrong with how it ended; None if nothing is."""
        log = self.log() + (self.valgrind_log.read_text(errors="replace") if self.valgrind_log.exists() else "")
        trouble = TROUBLE.search(log)
        if trouble:
            return f"{self.name}: {log[max(0, trouble.start() - 200):trouble.start() + 5000]}"
        if self.popen.returncode != self.expected_status:
            return f"{self.name} ended with {self.popen.returncode}, expected {self.expected_status}\n{log[-3000:]}"
        return None


# ---------------------------------------------------------------- certificates

class Certificate:
    def __init__(self, cert, key, ca):
        self.cert, self.key, self.ca = cert, key, ca

    def client(self, alpn=("http/1.1",), version=None):
        """A context that trusts this certificate's authority."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(list(alpn))
        if version:
            context.minimum_version = context.maximum_version = version
        return context


class Authority:
    """A private certificate authority in a directory."""
    def __init__(self, directory):
        self.dir = directory
        self.ca, self.key = directory / "ca.pem", directory / "ca.key"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                      "/CN=test authority", "-keyout", self.key, "-out", self.ca, "-addext", "keyUsage=critical,keyCertSign",
                      "-addext", "basicConstraints=critical,CA:TRUE")

    def _openssl(self, *args):
        done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def issue(self, name, *subjects):
        """A certificate for names such as "DNS:localhost" and "IP:127.0.0.1"."""
        base = self.dir / name
        cert, key, request, ext = (base.with_suffix(s) for s in (".pem", ".key", ".csr", ".ext"))
        ext.write_text(f"subjectAltName={','.join(subjects)}\n")
        self._openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                      "-keyout", key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-days", "2",
                      "-extfile", ext, "-out", cert)
        return Certificate(cert, key, self.ca)


# ---------------------------------------------------------------- scenarios

class Scenario:
    def __init__(self, name):
        self.name = name
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="weir-e2e-"))
        self.processes = []
        self.redises = 0
        self._authority = None

    def skip(self, why):
        raise Skip(why)

    def need(self, command):
        if shutil.which(command) is None:
            self.skip(f"{command} is not installed")

    def _name(self, kind):
        return f"{kind}{sum(1 for p in self.processes if p.name.startswith(kind)) + 1}"

    def fake(self, behave="", listen=None, **options):
        def start(where):
            return Fake(self, self._name("fake"), behave, listen=where, **options)
        # No port of the kernel's choice: one that dies must find its own free when it is revived.
        return start(listen) if listen else on_a_port(lambda port: start(f"127.0.0.1:{port}"))

    def weir(self, *backends, args=(), config=None, env=None, listen=None, tls=None, keys=(), fail=False):
        """A gateway in front of `backends` (fakes or URLs). `fail` means that it is not expected to start."""
        def start(where):
            return Weir(self, self._name("weir"), backends, list(args), config, env, where, tls, keys, fail)
        return start(listen) if listen or fail else on_a_port(lambda port: start([f"127.0.0.1:{port}"]))

    def pair(self, behave="", **options):
        """The usual case: one fake, one gateway."""
        fake = self.fake(behave)
        return fake, self.weir(fake, **options)

    def redis(self, *args):
        """A redis-server with more arguments; see redis_server.py."""
        from redis_server import RedisServer  # pylint: disable=import-outside-toplevel,cyclic-import
        self.redises += 1
        return RedisServer(self, f"redis{self.redises}", *args)

    def sentinel(self, master, name="shop", *lines):
        """A Sentinel with more lines of configuration; see redis_server.py."""
        from redis_server import RedisSentinel  # pylint: disable=import-outside-toplevel,cyclic-import
        self.redises += 1
        return RedisSentinel(self, f"sentinel{self.redises}", master, name, *lines)

    def redis_fake(self, server=None, mode="pass", **more):
        """A Redis that misbehaves, in front of `server`; see redis_server.py."""
        from redis_server import RedisFake  # pylint: disable=import-outside-toplevel,cyclic-import
        return RedisFake(server, mode, **more)

    def run(self, *args, env=None, stdin=None, timeout=30.0, preexec_fn=None):
        """The weir command, to its end. That must not be a signal's or a sanitizer's."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        environment.update(env or {})
        done = subprocess.run([str(Options.weir), *map(str, args)], capture_output=True, text=True, env=environment, input=stdin,
                              timeout=timeout * Options.slow, cwd=self.dir, preexec_fn=preexec_fn, check=False)
        if TROUBLE.search(done.stderr) or done.returncode < 0:
            raise Defect(f"it ended with {done.returncode}: {done.stderr}")
        return done

    def npm(self, home, package):
        """Installs a package of Node's in a directory. The network is not what is tested: without it the scenario is skipped."""
        try:
            done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(home), package],
                                  capture_output=True, text=True, timeout=100, check=False)
        except subprocess.TimeoutExpired:
            self.skip(f"npm did not install {package} in time")
        if done.returncode != 0:
            self.skip(f"npm could not install {package}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")

    def curl(self, *args, stdin=None, timeout=30.0):
        self.need("curl")
        return subprocess.run(["curl", "-sS", "-N", "--max-time", str(timeout * Options.slow), *map(str, args)],
                              capture_output=True, input=stdin, check=False)

    @property
    def authority(self):
        if self._authority is None:
            self.need("openssl")
            self._authority = Authority(self.dir)
        return self._authority

    def certificate(self):
        return self.authority.issue("server", "DNS:localhost", "IP:127.0.0.1", "IP:::1")

    def close(self):
        """Ends everything; returns what was wrong with the gateways' ends."""
        wrong = []
        for process in self.processes:
            if isinstance(process, Weir):
                try:
                    if process.alive():
                        process.stop(40)
                except AssertionError as e:
                    wrong.append(str(e))
        for process in self.processes:
            was_alive = process.alive()
            process.kill()
            if isinstance(process, Weir):
                verdict = process.verdict()
                if verdict and not (was_alive and wrong):
                    wrong.append(verdict)
            elif not was_alive:
                wrong.append(f"{process.name} ended by itself:\n{process.log()[-1000:]}")
        return wrong

    def trouble(self):
        """Whether any program that was started has had a word from a sanitizer or from valgrind."""
        logs = [p.log_path for p in self.processes] + [p.valgrind_log for p in self.processes if isinstance(p, Weir)]
        return any(TROUBLE.search(path.read_text(errors="replace")) for path in logs if path.exists())

    def logs(self):
        return "\n".join(f"--- {p.name}\n{p.log()[-1500:]}" for p in self.processes if isinstance(p, Weir))

    def clean(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def smoke(scenario):
    """Marks a scenario for the runs under valgrind and ThreadSanitizer too."""
    scenario.smoke = True
    return scenario


def limit(seconds):
    """Gives a scenario so many seconds, if that is more than all have (SECONDS in run.py)."""
    def mark(scenario):
        scenario.seconds = seconds
        return scenario
    return mark
