"""Runs the soak; tests/soak.sh says what it is and what it checks, --help the options."""
import argparse
import ctypes
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from accounts import Growth, Ledger, Metrics  # noqa: E402
from harness import TROUBLE, Scenario, free_port, wait_until  # noqa: E402
from measure import Sampler, descriptors, sample, thirds  # noqa: E402
from options import Options  # noqa: E402
from others import Clear, Others  # noqa: E402
from websocket import WebSocket  # noqa: E402
from wire import Wire  # noqa: E402

CONFIG = """
listen:
  - address: 127.0.0.1:{port}
  - address: 127.0.0.1:{tls_port}
    tls: {{ cert: {cert}, key: {key} }}
workers: 2
backends:
  - {{ name: a, models: [fake-1, queued], url: "http://127.0.0.1:{a}", max_concurrent: 12 }}
  - {{ name: b, models: [fake-1], url: "http://127.0.0.1:{b}" }}
  - {{ name: c, models: [fake-1], url: "http://127.0.0.1:{c}", weight: 2 }}
balance: least_requests
health: {{ path: /health, interval: 1s, timeout: 2s, ejection: 1s, max_ejection: 4s, slow_start: 2s }}
queue: {{ max: 1000, timeout: 10s }}
keys:
  - {{ name: main, key: sk-soak-main-0000000000 }}
  - {{ name: limited, key: sk-soak-limited-000000, limit: 10/second }}
  - {{ name: tokens, key: sk-soak-tokens-0000000 }}
  - {{ name: few, key: sk-soak-few-0000000000, max_streams: 4 }}
limits:
  tokens: {{ limit: 3000 tokens/minute, by: api_key, exempt: {{ keys: [main, limited, few] }} }}
  plenty: {{ limit: 100000000/minute, by: api_key }}
max_streams: 2000
limit_memory: 4MiB
cache: {{ ttl: 15s, max_bytes: {cache}KiB, max_entry: 512KiB, memory_ttl: 10s }}
redis: {{ url: "{redis}", timeout: 50ms }}
max_body: 64KiB
request_timeout: 6s
send_timeout: 3s
sse_ping: 250ms
retries: {{ attempts: 3, budget: 50% }}
log_format: json
drain_timeout: 30s
"""
SERVERS = "abc"
CONNECTION_KIB = 16  # of memory for each descriptor of a peak
WARM_UP = 80  # seconds at least, until the cache is full, each thing has happened more than once, and malloc has its peaks
TSAN = f"exitcode=66:suppressions={HERE.parent / 'e2e' / 'tsan.supp'}"
ASAN = "detect_leaks=1:exitcode=66:abort_on_error=0:quarantine_size_mb=16"


class Servers:
    """The model servers; one that dies comes back at the same port, and begins a journal of its own."""
    def __init__(self, directory):
        self.dir, self.ports = directory, {name: free_port() for name in SERVERS}
        self.running, self.journals, self.starts, self.deaths = {}, [], 0, 0
        for name in SERVERS:
            self.start(name)

    def start(self, name):
        self.starts += 1
        journal = self.dir / f"journal-{name}-{self.starts}"
        argv = [Options.fake, "--listen", f"127.0.0.1:{self.ports[name]}", "--behave", "events=6,pace_ms=20", "--journal", journal]
        log = open(self.dir / "servers.log", "ab")
        process = subprocess.Popen([*map(str, argv)], stdout=log, stderr=log)
        log.close()
        self.running[name] = (process, journal)
        wait_until(lambda: reachable(self.ports[name]), f"server {name}")

    def kill(self, name):
        process, journal = self.running.pop(name)
        process.kill()
        process.wait()
        self.deaths += 1
        self.journals.append((name, journal))

    def read_journals(self, ledger):
        """Of a moment when nothing is under way; empties them."""
        ledger.killed = bool(self.journals)
        for name, journal in self.journals:
            ledger.read_journal(journal, name, True)
            journal.unlink()
        self.journals = []
        for name, (_, journal) in self.running.items():
            ledger.read_journal(journal, name, False)
            os.truncate(journal, 0)

    def stop(self):
        for process, _ in self.running.values():
            process.kill()
            process.wait()


def reachable(port):
    try:
        Wire(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


class Gateway:
    """weir, and what it says of itself."""
    def __init__(self, directory, servers, redis, certificate, rate):
        self.dir, self.log_path = directory, directory / "weir.log"
        self.port, self.tls_port = free_port(), free_port()
        self.address, self.tls_address = ("127.0.0.1", self.port), ("127.0.0.1", self.tls_port)
        self.tls, self.tls_h2 = certificate.client(), certificate.client(alpn=("h2",))
        config = directory / "weir.yaml"
        config.write_text(CONFIG.format(port=self.port, tls_port=self.tls_port, cert=certificate.cert, key=certificate.key,
                                        redis=redis.url, cache=16 * max(rate, 64), **servers.ports))
        self.names = {port: "backend" for port in servers.ports.values()} | {redis.port: "redis"}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        environment.update(ASAN_OPTIONS=ASAN, UBSAN_OPTIONS="print_stacktrace=1", TSAN_OPTIONS=TSAN)
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen([str(Options.weir), "--config", str(config)], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env=environment)
        self.pid = self.process.pid
        wait_until(lambda: reachable(self.port), "weir to serve", 30)
        self.troubles = ""

    def metrics(self):
        with Wire(self.address) as wire:
            wire.request("GET", "/metrics", {"connection": "close"})
            return Metrics(wire.response().body.decode())

    def descriptors(self):
        return descriptors(self.pid, self.names)

    def upgrade(self):
        """SIGUSR2; the process that serves from now on is a grandchild, which main() adopts."""
        before = self.pid
        os.kill(before, signal.SIGUSR2)
        self.pid = wait_until(lambda: next((pid for pid in self._told() if pid != before), None), "the new process to serve", 60)
        return before

    def statuses(self):
        """(process, exit status) of all that have ended; waits a minute for the first."""
        try:
            yield self.process.pid, self.process.wait(60)
        except subprocess.TimeoutExpired:
            yield self.process.pid, "none"
        if self.pid != self.process.pid and not exists(self.pid):
            yield self.pid, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _told(self):
        return [int(pid) for pid in re.findall(r"process (\d+) serves", self.log_path.read_text(errors="replace"))]

    def empty_log(self):
        text = self.log_path.read_text(errors="replace")
        found = TROUBLE.search(text)
        if found:
            self.troubles += text[max(0, found.start() - 200):found.start() + 6000]
        os.truncate(self.log_path, 0)


def exists(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Troublemaker(threading.Thread):
    """Kills a server and starts it again, the same with Redis, freezes Redis, tells the gateway to read its configuration again: each
    in its turn, one thing every `pause` seconds."""
    def __init__(self, run, pause):
        super().__init__(daemon=True)
        self.run_, self.pause, self.over = run, pause, threading.Event()
        self.done, self.failure = 0, None

    def run(self):
        acts = [self._death, self._redis_restart, self._reload, self._redis_freeze]
        chance = random.Random(7)
        try:
            while not self.over.wait(self.pause):
                acts[self.done % len(acts)](chance)
                self.done += 1
        except Exception as e:  # noqa: BLE001
            self.failure = e

    def _death(self, chance):
        name = SERVERS[1 + chance.randrange(2)]
        self.run_.servers.kill(name)
        time.sleep(0.5 + chance.random())
        self.run_.servers.start(name)

    def _redis_restart(self, chance):
        self.run_.redis.kill()
        time.sleep(0.2 + chance.random())
        self.run_.redis.start()

    def _redis_freeze(self, chance):
        self.run_.redis.freeze()
        time.sleep(0.1 + chance.random())
        self.run_.redis.thaw()

    def _reload(self, _):
        os.kill(self.run_.gateway.pid, signal.SIGHUP)

    def stop(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure


class Soak:
    def __init__(self, arguments):
        self.arguments = arguments
        self.scenario = Scenario("soak")
        self.dir = self.scenario.dir
        self.redis = self.scenario.redis("--maxmemory", "300mb", "--maxmemory-policy", "noeviction")
        self.servers = Servers(self.dir)
        self.gateway = Gateway(self.dir, self.servers, self.redis, self.scenario.certificate(), arguments.rate)
        self.sampler = Sampler()
        self.passed, self.failed, self.sent = 0, 0, 0
        self.rows, self.crossings, self.retired = {}, {}, []
        self.begun = time.monotonic()

    def check(self, name, breaches):
        breaches = list(breaches)
        if not breaches:
            self.passed += 1
            print(f"ok   {name}", flush=True)
            return
        self.failed += 1
        print(f"FAIL {name}: {len(breaches)}")
        for breach in breaches[:self.arguments.show]:
            print(f"     {breach}")
        sys.stdout.flush()

    def at_rest(self):
        """Nothing under way: what is wrong with the gauges, once they have had time."""
        def busy():
            metrics = self.gateway.metrics()
            # The scrape is a request on a connection.
            allowed = {"weir_requests_in_flight": 1, "weir_streams_in_flight": 0, "weir_connections": 1, "weir_websockets": 0,
                       "weir_backend_requests_in_flight": 0, "weir_queue_waiting": 0}
            return [f"{name} is {metrics.sum(name):.0f}, expected {n}" for name, n in allowed.items() if metrics.sum(name) != n]
        return settle(busy)

    def leases(self):
        """What Redis still holds of places (s) and token reservations (r) once nothing is under way. What a Redis that was frozen
        heard too late lapses by itself, after 45 seconds at most."""
        def held():
            seconds, more = map(int, self.redis.ask("TIME"))
            found = []
            for kind in "sr":
                for name in self.redis.ask("KEYS", f"weir:{kind}*"):
                    left = self.redis.ask("ZCOUNT", name, f"({seconds * 1000000 + more}", "+inf")
                    if left:
                        found.append(f"{name!r} holds {left}")
            return found
        return settle(held, 50)

    def places_are_free(self):
        """The key of four streams may have four at once, and no fifth."""
        def wrong():
            wires = []
            try:
                statuses = []
                for _ in range(5):
                    wires.append(Wire(self.gateway.address))
                    wires[-1].request("POST", "/v1/chat/completions",
                                      {"authorization": "Bearer sk-soak-few-0000000000", "x-fake": "events=100,pace_ms=50",
                                       "cache-control": "no-cache, no-store"},
                                      {"model": "fake-1", "stream": True, "messages": [{"role": "user", "content": "places"}]})
                    statuses.append(wires[-1].head().status)
                return [] if statuses == [200] * 4 + [429] else [f"statuses {statuses}"]
            finally:
                for wire in wires:
                    wire.close()
        return settle(wrong, 30)  # Redis may have died with a place: that is back within 15 seconds

    def stretch(self, number, seconds, act=None):
        """Load for so long; then, with nothing under way, the books."""
        before, prefix, out = self.gateway.metrics(), f"s{number}", self.dir / f"driver-{number}"
        load = subprocess.Popen([str(self.arguments.load), "--port", str(self.gateway.port), "--rate", str(self.arguments.rate),
                                 "--seconds", str(seconds), "--prefix", prefix, "--out", str(out)], stdout=subprocess.PIPE, text=True)
        others = Others(self.gateway, prefix, max(2.0, self.arguments.rate * 0.04))
        trouble = Troublemaker(self, self.arguments.pause)
        others.start()
        trouble.start()
        if act:
            time.sleep(seconds / 3)
            act()
        end = self.begun + self.passed_seconds() + seconds + 90
        while load.poll() is None:
            self.progress()
            if time.monotonic() > end:
                load.kill()
            time.sleep(0.2)
        trouble.stop()
        others.stop()
        ledger = Ledger()
        ledger.read_driver(out)
        out.unlink()
        ledger.asked.update(others.asked)
        ledger.sockets = others.sockets
        for old in self.retired:
            wait_until(lambda old=old: not exists(old), f"process {old} to drain and end", 60)
        self.retired = []
        resting = self.at_rest()
        after = self.gateway.metrics()
        ledger.upgraded = act is not None
        ledger.metrics = None if act else Growth(before, after)
        # The log has a thread of its own. Lines of our own scrapes are among those counted here, hence the rest.
        settle(lambda: [] if self._lines("request") >= len(ledger.asked) - self._unfinished(ledger) and
               self._lines("websocket") >= len(ledger.sockets) else ["lines are missing"])
        self._wait_for_log()
        ledger.read_log(self.gateway.log_path)
        self.gateway.empty_log()
        self.servers.read_journals(ledger)
        self.sent += len(ledger.asked) + sum(map(len, ledger.sockets.values()))
        self.check(f"stretch {number}: {len(ledger.asked)} requests, {sum(map(len, ledger.sockets.values()))} by {len(ledger.sockets)} "
                   f"WebSockets, {trouble.done} troubles: accounts", ledger.wrong() + others.troubles +
                   ([f"{others.closed} WebSockets closed"] if others.closed and not act else []))
        self.check(f"stretch {number}: nothing left under way", resting + self.leases())
        for kind, outcomes in ledger.table().items():
            row = self.rows.setdefault(kind, {})
            for outcome, n in outcomes.items():
                row[outcome] = row.get(outcome, 0) + n
        ledger.crossings["WebSockets closed between answers"] += others.closed
        for what, n in ledger.crossings.items():
            self.crossings[what] = self.crossings.get(what, 0) + n

    def _lines(self, kind):
        with open(self.gateway.log_path, "rb") as f:
            return f.read().count(f'"msg":"{kind}"'.encode())

    def _wait_for_log(self):
        """Until nothing has been added to it for a second."""
        def grown():
            before = os.path.getsize(self.gateway.log_path)
            time.sleep(1)
            return os.path.getsize(self.gateway.log_path) != before
        settle(grown)

    @staticmethod
    def _unfinished(ledger):
        return sum(asked.outcome == "unfinished" for asked in ledger.asked.values())

    def passed_seconds(self):
        return time.monotonic() - self.begun

    def progress(self):
        minute = int(self.passed_seconds() / 60)
        if minute > getattr(self, "minute", 0):
            self.minute = minute
            now = sample(self.gateway.pid)
            if now:
                print(f"-- {minute} min: process {self.gateway.pid}, {now.rss} KiB resident, {now.private} private, {now.fds} descriptors, "
                      f"{self.servers.deaths} servers died, Redis started {self.redis.starts} times", flush=True)

    def upgrade(self):
        before = self.gateway.upgrade()
        self.retired.append(before)
        self.sampler.pid = self.gateway.pid

    def wake_workers(self):
        """A worker makes its loop for WebSockets with its first one; the kernel deals so many to both."""
        name = ("authorization", "Bearer sk-soak-main-0000000000")
        sockets = [WebSocket(Clear(self.gateway.address), headers=dict([name])) for _ in range(24)]
        for socket in sockets:
            socket.close()
        self.at_rest()
        self._wait_for_log()
        self.gateway.empty_log()

    def descriptors(self, baseline):
        """Back to what there was before the load, but for connections that are kept for the backends."""
        def wrong():
            now = self.gateway.descriptors()
            return [f"{sort}: {now[sort]}, at the start {baseline[sort]}" for sort in now.keys() | baseline.keys()
                    if sort != "backend" and now[sort] != baseline[sort]]
        return settle(wrong)

    def memory(self, pid, name):
        samples = self.sampler.samples[pid]
        warm = samples[0].at + max(WARM_UP, (samples[-1].at - samples[0].at) / 5)
        samples = [s for s in samples if s.at >= warm]
        if self.arguments.sanitized or not samples or samples[-1].at - samples[0].at < WARM_UP:
            print(f"SKIP memory of {name}: " + ("a sanitizer keeps its own" if self.arguments.sanitized else "too short a run"))
            return
        first, last = thirds(samples, "private")
        rss = thirds(samples, "rss")
        # What a higher peak of connections took stays with malloc.
        third = len(samples) // 3
        before = max(s.fds for s in self.sampler.samples[pid] if s.at <= samples[third].at)
        peak = max(s.fds for s in self.sampler.samples[pid])
        bound = 2048 + first // 20 + CONNECTION_KIB * (peak - before)
        figures = (f"private {first:.0f} KiB, then {last:.0f}, with a bound of {bound:.0f} more; resident {rss[0]:.0f}, then {rss[1]:.0f}; "
                   f"most descriptors {before}, then {peak}")
        self.check(f"memory of {name} is flat: {figures}", [figures] if last > first + bound else [])

    def run(self):
        arguments = self.arguments
        seconds = int(arguments.minutes * 60)
        self.sampler.pid = first = self.gateway.pid
        self.sampler.start()
        # A little of everything first, so that what is made once has been made.
        self.stretch(0, max(4, min(20, seconds // 6)))
        self.wake_workers()
        baseline = self.gateway.descriptors()
        count = max(1, round(seconds / 2 / 120))
        each = max(5, int((seconds - max(4, min(20, seconds // 6))) / 2 / count))
        for number in range(1, count + 1):
            self.stretch(number, each)
        self.check(f"descriptors half-way: {dict(baseline)}", self.descriptors(baseline))
        self.stretch(count + 1, each, self.upgrade if arguments.upgrade else None)
        for number in range(count + 2, 2 * count + 1):
            self.stretch(number, each)
        for number, pid in enumerate(dict.fromkeys((first, self.gateway.pid)), 1):
            self.memory(pid, f"process {number}")
        self.wake_workers()
        self.check("descriptors at the end", self.descriptors(baseline))
        self.check("the places of max_streams are free", self.places_are_free())
        self.end()

    def end(self):
        pid = self.gateway.pid
        os.kill(pid, signal.SIGTERM)
        gone = settle(lambda: [f"process {pid} is still there"] if exists(pid) else [], 60)
        gone += [f"process {ended} ended with status {status}" for ended, status in self.gateway.statuses() if status != 0]
        self.gateway.empty_log()
        self.check("what was started has ended with status 0", gone)
        self.check("no word of a sanitizer", [self.gateway.troubles] if self.gateway.troubles else [])

    def report(self):
        print(f"{'':16} what became of them")
        for kind, row in self.rows.items():
            parts = (f"{n} {outcome}" for outcome, n in sorted(row.items(), key=lambda item: -item[1]))
            print(f"{kind:16} {sum(row.values()):8}: " + ", ".join(parts))
        print(f"{self.sent} sent; " + ", ".join(f"{what}: {n}" for what, n in sorted(self.crossings.items())))
        print(f"{self.passed} passed, {self.failed} failed")

    def close(self):
        self.sampler.over.set()
        with open(self.dir / "samples", "w", encoding="ascii") as f:
            for pid, samples in self.sampler.samples.items():
                f.writelines(f"{pid} {s.at - self.begun:.1f} {s.rss} {s.pss} {s.private} {s.fds}\n" for s in samples)
        if exists(self.gateway.pid):
            os.kill(self.gateway.pid, signal.SIGKILL)
        self.gateway.process.kill()
        self.gateway.process.wait()
        self.servers.stop()
        self.scenario.close()
        if self.arguments.keep:
            print(f"kept: {self.dir}")
        else:
            self.scenario.clean()


def settle(wrong, seconds=20.0):
    """What `wrong` finds, after it has had time to find nothing."""
    end = time.monotonic() + seconds * Options.slow
    while (found := wrong()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def main():
    parser = argparse.ArgumentParser(prog="tests/soak.sh")
    parser.add_argument("minutes", nargs="?", type=float, default=30)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="where it was built, with the tests' tools")
    parser.add_argument("--weir", type=pathlib.Path, help="another gateway than that of the build")
    parser.add_argument("--rate", type=int, default=500, help="requests a second (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=6, help="seconds between two troubles (default: %(default)s)")
    parser.add_argument("--no-upgrade", dest="upgrade", action="store_false", help="one process for the whole run")
    parser.add_argument("--show", type=int, default=8, help="breaches to show of each check (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the directory, with the samples of memory")
    arguments = parser.parse_args()
    Options.weir, Options.fake = arguments.weir or arguments.build / "weir", arguments.build / "tests" / "model_fake"
    arguments.load = arguments.build / "tests" / "soak_load"
    program = Options.weir.read_bytes()
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    arguments.sanitized = b"__asan_init" in program or b"__tsan_init" in program
    if arguments.sanitized:
        Options.slow = 3.0
    soak = Soak(arguments)
    try:
        soak.run()
        soak.report()
    finally:
        soak.close()
    return soak.failed != 0


if __name__ == "__main__":
    sys.exit(main())
