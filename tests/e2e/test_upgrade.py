"""A new program in the place of the running one (SIGUSR2), and the supervisor that starts a serving process again."""
import os
import re
import signal
import threading

from harness import Defect, Options, Wire, chat, limit, smoke, wait_until

CHAT = "/v1/chat/completions"


def exists(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Successors:
    """The processes that came out of a gateway; they are not the harness's children."""
    def __init__(self, weir):
        self.weir, self.pid = weir, weir.pid

    def upgrade(self):
        before = self.pid
        os.kill(before, signal.SIGUSR2)
        self.pid = wait_until(lambda: next((pid for pid in (self._newest(),) if pid != before), None),
                              f"the new process to serve\n{self.weir.log()[-800:]}", 30)
        return before

    def _newest(self):
        return serving(self.weir)

    def end(self):
        if exists(self.pid):
            os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not exists(self.pid), "the newest process to end", 40)


class Load:
    """Clients that ask one request after the other, each on a connection of its own, and count."""
    def __init__(self, weir, clients=4):
        self.weir, self.stopping, self.good, self.bad = weir, False, 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        while not self.stopping:
            try:
                answer = self.weir.stream("events=3")
                wrong = None if answer.status == 200 and answer.body.endswith(b"[DONE]\n\n") else str(answer)
            except Exception as e:  # noqa: BLE001 - whatever went wrong is what is counted
                wrong = repr(e)
            with self.lock:
                self.good += wrong is None
                if wrong:
                    self.bad.append(wrong)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        assert not self.bad, (len(self.bad), self.good, self.bad[:3])
        return self.good


@limit(150)
def test_twenty_upgrades_under_load_lose_no_request_and_no_stream(t):
    count = 5 if Options.valgrind else 20
    fake, weir = t.pair(args=["--workers", "2", "--drain-timeout", "60s"])
    line, load = Successors(weir), Load(weir)
    streams = []
    try:
        for _ in range(count):
            wire = weir.connect()
            wire.request("POST", CHAT, {"x-fake": "events=50,pace_ms=100"}, chat())
            streams.append((wire, wire.head()))
            line.upgrade()
    finally:
        good = load.stop()
    assert good > count
    for wire, head in streams:
        body = b"".join(wire.pieces(head))
        assert body.endswith(b"[DONE]\n\n") and body.count(b"data: ") >= 50, body[-200:]
        wire.close()
    assert weir.wait() == 0
    assert fake.stats()["requests"] == good + count
    line.end()


@smoke
def test_the_new_process_reads_the_new_file_and_takes_the_sockets(t):
    fake = t.fake()
    config = f"backends: [{{name: a, url: '{fake.url}'}}]\n"
    weir = t.weir(config=config, args=["--workers", "2"])
    line = Successors(weir)
    (t.dir / "weir1.yaml").write_text(config + "keys: [{name: k, key: sk-new-0123456789}]\n")
    old = line.upgrade()
    assert weir.wait() == 0 and not exists(old)
    assert weir.stream().status == 401
    assert weir.stream(headers={"authorization": "Bearer sk-new-0123456789"}).status == 200
    line.upgrade()
    assert weir.stream(headers={"authorization": "Bearer sk-new-0123456789"}).status == 200
    line.end()


def test_fewer_and_more_workers_after_an_upgrade(t):
    """Sockets beyond the number of workers are shared out: what the kernel has queued on one would be lost with it."""
    fake = t.fake()
    config = f"backends: [{{name: a, url: '{fake.url}'}}]\nworkers: "
    weir = t.weir(config=config + "4\n")
    line = Successors(weir)
    for workers in (1, 3, 6):
        (t.dir / "weir1.yaml").write_text(f"{config}{workers}\n")
        line.upgrade()
        wait_until(lambda: f"with {workers} worker" in weir.log(), "the greeting")
        for _ in range(40):
            assert weir.stream("events=1").status == 200
    line.end()


def test_an_upgrade_that_fails_leaves_the_old_process_serving(t):
    fake = t.fake()
    config = f"backends: [{{name: a, url: '{fake.url}'}}]\n"
    weir = t.weir(config=config)
    (t.dir / "weir1.yaml").write_text(config + "nonsense: 1\n")
    weir.signal(signal.SIGUSR2)
    wait_until(lambda: "no upgrade: the new process ended with status 1" in weir.log(), "the failure to be told")
    assert weir.stream().status == 200
    why = [line for line in weir.log_lines() if "nonsense" in line["msg"]]
    assert len(why) == 1 and why[0]["level"] == "error" and "\nweir: " not in weir.log(), weir.log()
    (t.dir / "weir1.yaml").write_text(config)
    line = Successors(weir)
    line.upgrade()
    assert weir.wait() == 0 and weir.stream().status == 200
    line.end()


def test_a_unix_socket_stays_where_it_is(t):
    fake = t.fake()
    path = t.dir / "weir.sock"
    weir = t.weir(fake, listen=[f"unix:{path}"])
    inode, line = path.stat().st_ino, Successors(weir)
    line.upgrade()
    assert weir.wait() == 0
    assert path.stat().st_ino == inode and weir.stream().status == 200
    line.end()
    assert not path.exists()


# ---------------------------------------------------------------- the supervisor

def serving(weir):
    pids = re.findall(r"process (\d+) serves", weir.log())
    return int(pids[-1]) if pids else None


def supervised(t, **options):
    fake = t.fake()
    weir = t.weir(fake, args=["--supervise", *options.pop("args", [])], **options)
    wait_until(lambda: serving(weir), "the serving process")
    return fake, weir


@smoke
def test_a_serving_process_that_is_killed_is_replaced_and_nobody_is_refused(t):
    _, weir = supervised(t)
    for _ in range(3):
        pid = serving(weir)
        assert pid != weir.pid
        os.kill(pid, signal.SIGKILL)
        # The connection waits in the supervisor's socket.
        assert weir.stream().status == 200
        wait_until(lambda: serving(weir) != pid, "the next process")
    assert weir.log().count("was killed by signal 9 (Killed); starting another") == 3
    weir.signal()
    assert weir.wait() == 0


def test_a_crash_is_reported_with_a_backtrace(t):
    _, weir = supervised(t)
    if weir.is_sanitized() or Options.valgrind:
        t.skip("sanitizers report by themselves")
    pid = serving(weir)
    os.kill(pid, signal.SIGSEGV)
    wait_until(lambda: serving(weir) != pid, "the next process")
    assert "crashed: SIGSEGV; the calls that led there:" in weir.log()
    assert "weir(" in weir.log().split("led there:")[1] or "libc" in weir.log().split("led there:")[1]
    assert weir.stream().status == 200


def test_the_supervisor_upgrades_in_place(t):
    fake = t.fake()
    config = f"backends: [{{name: a, url: '{fake.url}'}}]\n"
    weir = t.weir(config=config, args=["--supervise"])
    wait_until(lambda: serving(weir), "the serving process")
    with weir.connect() as running:
        running.request("POST", CHAT, {"x-fake": "events=40,pace_ms=50"}, chat())
        head = running.head()
        first, load = serving(weir), Load(weir, 2)
        for _ in range(3):
            pid = serving(weir)
            weir.signal(signal.SIGUSR2)
            wait_until(lambda: serving(weir) != pid, f"the next process\n{weir.log()[-600:]}", 30)
        assert load.stop() > 0
        assert b"".join(running.pieces(head)).endswith(b"[DONE]\n\n")
    wait_until(lambda: not exists(first), "the first process to end")
    # A file that is wrong: everything stays.
    pid = serving(weir)
    (t.dir / "weir1.yaml").write_text("nonsense: 1\n")
    weir.signal(signal.SIGUSR2)
    wait_until(lambda: "supervisor: no upgrade" in weir.log(), "the failure to be told")
    assert serving(weir) == pid and weir.alive() and weir.stream().status == 200
    weir.signal()
    assert weir.wait() == 0 and not exists(pid)


def test_a_gateway_that_cannot_start_ends_its_supervisor(t):
    fake = t.fake()
    weir = t.weir(fake)
    second = t.weir(fake, args=["--supervise"], listen=[f"127.0.0.1:{weir.port}"], fail=True)
    second.expected_status = 1
    assert second.wait() == 1 and "the port is in use" in second.log()


def test_the_serving_process_drains_when_its_supervisor_dies(t):
    _, weir = supervised(t)
    pid = serving(weir)
    weir.popen.kill()
    weir.expected_status = -signal.SIGKILL
    wait_until(lambda: not exists(pid), "the serving process to end")
    try:
        Wire(weir.address).close()
        raise AssertionError("somebody still listens")
    except OSError:
        pass


def test_a_supervisor_leaves_no_dead_processes_and_waits_for_those_that_drain(t):
    _, weir = supervised(t)
    with weir.connect() as running:
        running.request("POST", CHAT, {"x-fake": "events=30,pace_ms=100"}, chat())
        head = running.head()
        for _ in range(2):
            pid = serving(weir)
            weir.signal(signal.SIGUSR2)
            wait_until(lambda: serving(weir) != pid, f"the next process\n{weir.log()[-600:]}", 30)
        weir.signal()
        assert b"".join(running.pieces(head)).endswith(b"[DONE]\n\n")
    assert weir.wait() == 0


def test_no_descriptor_reaches_the_next_program_but_those_that_are_meant_to(t):
    redis = t.redis()
    fake = t.fake()
    weir = t.weir(config=f"backends: [{{name: a, url: '{fake.url}'}}]\nredis: redis://127.0.0.1:{redis.port}/0\n"
                         "limits: {l: {limit: 100/minute}}\n")
    wait_until(lambda: weir.ask("GET", "/readyz").json().get("redis") == "up", "redis to be up")
    assert weir.stream().status == 200
    with weir.connect() as wire:
        wire.request("GET", "/ws/chat", {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
                                         "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
        assert b" 101 " in wire._until(b"\r\n\r\n")
        for fd in os.listdir(f"/proc/{weir.pid}/fdinfo"):
            try:
                with open(f"/proc/{weir.pid}/fdinfo/{fd}", encoding="ascii") as f:
                    flags = int(re.search(r"flags:\s+(\d+)", f.read())[1], 8)
                where = os.readlink(f"/proc/{weir.pid}/fd/{fd}")
            except FileNotFoundError:
                continue
            if int(fd) > 2 and not flags & os.O_CLOEXEC:
                raise Defect((fd, where))
