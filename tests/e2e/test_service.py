"""What a service manager, a container engine and whoever runs weir under them rely on."""
import os
import re
import resource
import signal
import socket
import subprocess
import time

from harness import KEY, Options, Wire, chat, end_gateway, free_port, smoke, wait_until
from test_upgrade import Successors


# ---------------------------------------------------------------- weir health

@smoke
def test_health_finds_the_gateway_by_its_configuration(t):
    weir = t.weir("demo:", config="open: true\n", listen=[f"0.0.0.0:{free_port()}"])
    where = {"WEIR_LISTEN": f"0.0.0.0:{weir.port}", "WEIR_OPEN": "true"}
    done = t.run("health", env=where)
    assert done.returncode == 0 and done.stdout == f"http://127.0.0.1:{weir.port}/readyz: ok\n", done
    path = t.dir / "health.yaml"
    path.write_text(f"listen: [{{ address: 0.0.0.0:{weir.port} }}]\nopen: true\n")
    assert t.run("health", "--config", path).returncode == 0
    assert t.run("health", env={"WEIR_CONFIG": str(path)}).returncode == 0
    assert t.run("health", "--listen", f"127.0.0.1:{weir.port}").returncode == 0
    done = t.run("health", "--live", "--url", f"http://localhost:{weir.port}")
    assert done.returncode == 0 and "/livez: ok" in done.stdout, done
    for address in ("[::]", "[::1]"):
        six = t.weir("demo:", listen=[f"{address}:{free_port('::')}"], args=["--open"])
        done = t.run("health", "--listen", f"{address}:{six.port}", env={"WEIR_OPEN": "true"})
        assert done.returncode == 0 and f"http://[::1]:{six.port}/" in done.stdout, done


def test_health_over_tls_and_a_unix_socket(t):
    tls = t.certificate()
    weir = t.weir("demo:", tls=tls)
    done = t.run("health", env={"WEIR_LISTEN": f"127.0.0.1:{weir.port}", "WEIR_TLS_CERT": str(tls.cert), "WEIR_TLS_KEY": str(tls.key)})
    assert done.returncode == 0 and done.stdout.startswith("https://127.0.0.1:"), done
    assert t.run("health", "--url", weir.url).returncode == 0
    done = t.run("health", "--url", weir.url.replace("https", "http"))
    assert done.returncode == 1 and done.stderr, done
    plain = t.weir("demo:")
    done = t.run("health", "--url", plain.url.replace("http", "https"))
    assert done.returncode == 1 and "no TLS" in done.stderr, done
    path = t.dir / "health.sock"
    t.weir("demo:", listen=[f"unix:{path}"])
    done = t.run("health", "--listen", f"unix:{path}")
    assert done.returncode == 0 and done.stdout == f"unix:{path}/readyz: ok\n", done


def test_health_says_why_not(t):
    port = free_port()
    done = t.run("health", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1 and f"127.0.0.1:{port}" in done.stderr and "refused" in done.stderr, done
    done = t.run("health", "--listen", f"unix:{t.dir}/none.sock")
    assert done.returncode == 1 and "No such file" in done.stderr, done
    done = t.run("health", "--config", t.dir / "none.yaml")
    assert done.returncode == 1 and "none.yaml" in done.stderr, done
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and says nothing
        done = t.run("health", "--timeout", "300ms", "--url", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert done.returncode == 1 and "no answer within 300ms" in done.stderr, done
    done = t.run("health", "--url", "nonsense")
    assert done.returncode == 1 and "expected http://" in done.stderr, done
    guarded = t.weir("demo:", keys=[KEY], config="routes: [{ path: /readyz, depends: [api_key] }]\n")
    done = t.run("health", "--url", guarded.url)
    assert done.returncode == 1 and "401" in done.stderr and "public" in done.stderr, done
    assert t.run("health", "--live", "--url", guarded.url).returncode == 0


def test_health_fails_while_draining_and_live_does_not(t):
    """A connection that stands since before the drain shows what a probe that still gets in is told."""
    import threading
    answers = iter([b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            for answer in answers:
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(answer)
                connection.close()
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = t.run("health", "--url", url)
        assert done.returncode == 1 and "draining" in done.stderr, done
        assert t.run("health", "--live", "--url", url).returncode == 0
        thread.join()


# ---------------------------------------------------------------- weir env

@smoke
def test_env_tells_values_and_where_they_come_from(t):
    (t.dir / "weir.yaml").write_text("log_level: warn\nworkers: 1\nopen: true\ncache:\n  ttl: 10m\n")
    done = t.run("env", "--drain-timeout", "5s", env={"WEIR_WORKERS": "2"})
    assert done.returncode == 0, done
    rows = {line.split()[0]: line.split(None, 2)[1:] for line in done.stdout.splitlines()}
    assert rows["WEIR_CONFIG"] == ["weir.yaml", "the usual place"], rows
    assert rows["WEIR_LOG_LEVEL"] == ["warn", "weir.yaml:1"] and rows["WEIR_OPEN"] == ["true", "weir.yaml:3"], rows
    assert rows["WEIR_WORKERS"] == ["2", "environment"] and rows["WEIR_DRAIN_TIMEOUT"] == ["5s", "--drain-timeout"], rows
    assert rows["WEIR_CACHE_TTL"] == ["10m", "weir.yaml:5"] and rows["WEIR_LISTEN"] == ["127.0.0.1:8080", "default"], rows
    listed = set(re.findall(r"WEIR_[A-Z_]+", t.run("--help").stdout))
    assert listed <= set(rows), listed - set(rows)
    assert rows["WEIR_API_KEY_FILE"] == ["none", "default"] and rows["WEIR_REDIS_FILE"] == ["none", "default"], rows
    (t.dir / "redis").write_text("redis://:hush@127.0.0.1:1/0\n")
    done = t.run("env", env={"WEIR_REDIS_FILE": str(t.dir / "redis")})
    rows = {line.split()[0]: line.split(None, 2)[1:] for line in done.stdout.splitlines()}
    assert rows["WEIR_REDIS_FILE"] == [str(t.dir / "redis"), "environment"], rows
    assert rows["WEIR_REDIS"] == ["redis://…@127.0.0.1:1/0", "the file that WEIR_REDIS_FILE names"], rows


def test_env_hides_secrets(t):
    secret = t.dir / "keys"
    secret.write_text("wk-of-the-file-0123456789\nwk-of-the-file-9876543210\n")
    done = t.run("env", env={"WEIR_API_KEY": "wk-secret-0123456789", "WEIR_BACKEND": "http://10.0.0.1:8000?api-key=s3cr3t",
                             "WEIR_URL": "http://me:s3cr3t@127.0.0.1:8080"})
    assert "s3cr3t" not in done.stdout + done.stderr and "wk-secret" not in done.stdout and "1, hidden" in done.stdout, done
    done = t.run("env", env={"WEIR_API_KEY_FILE": str(secret)})
    assert done.returncode == 0 and "of-the-file" not in done.stdout and "2, hidden" in done.stdout, done
    assert "WEIR_API_KEY_FILE" in done.stdout, done
    done = t.run("env", env={"WEIR_REDIS": "redis://:s3cr3t@127.0.0.1:1/0"})
    assert done.returncode == 0 and "s3cr3t" not in done.stdout and "redis://…@127.0.0.1:1/0" in done.stdout, done
    (t.dir / "weir.yaml").write_text("keys: [{ name: a, key: wk-in-the-file-0123456789 }]\n")
    done = t.run("env", "--api-key", "wk-option-0123456789")
    assert done.returncode == 0 and "wk-" not in done.stdout, done
    done = t.run("env")
    assert done.returncode == 0 and "wk-" not in done.stdout and "weir.yaml:1" in done.stdout, done


def test_env_says_what_run_would_refuse(t):
    done = t.run("env", env={"WEIR_WORKERS": "many"})
    assert done.returncode == 1 and "many" in done.stdout and "WEIR_WORKERS" in done.stderr, done
    done = t.run("env", env={"WEIR_LISTEM": "127.0.0.1:1"})
    assert done.returncode == 1 and "WEIR_LISTEN" in done.stderr, done


# ---------------------------------------------------------------- sd_notify

class Manager:
    """The socket on which systemd hears of its services."""
    def __init__(self, t, abstract=False):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.name = f"@weir-test-{os.getpid()}-{id(self)}" if abstract else str(t.dir / "notify.sock")
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.settimeout(20 * Options.slow)

    def next(self):
        return self.socket.recv(4096).decode()

    def wait(self, text):
        end = time.monotonic() + 20 * Options.slow
        while time.monotonic() < end:
            if self.next() == text:
                return
        raise AssertionError(f"the manager never heard {text}")


@smoke
def test_a_service_manager_hears_of_start_and_end(t):
    for abstract in (False, True):
        manager = Manager(t, abstract)
        weir = t.weir("demo:", env={"NOTIFY_SOCKET": manager.name})
        assert manager.next() == "READY=1"
        assert weir.ask("GET", "/readyz").status == 200
        weir.signal()
        assert manager.next() == "STOPPING=1"
        assert weir.wait() == 0
        manager.socket.close()


@smoke
def test_the_watchdog_is_fed_while_the_loops_turn(t):
    manager = Manager(t)
    t.weir("demo:", env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000"}, args=["--workers", "2"])
    for _ in range(3):
        manager.wait("WATCHDOG=1")


def test_a_service_manager_hears_of_reloads(t):
    manager = Manager(t)
    weir = t.weir("demo:", env={"NOTIFY_SOCKET": manager.name}, config="log_level: info\n")
    assert manager.next() == "READY=1"
    for broken in (False, True):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        if broken:
            (t.dir / f"{weir.name}.yaml").write_text("nonsense: 1\n")
        weir.signal(signal.SIGHUP)
        said = dict(line.split("=") for line in manager.next().splitlines())
        assert said["RELOADING"] == "1" and before <= int(said["MONOTONIC_USEC"]) <= before + 60_000_000, said
        assert manager.next() == "READY=1"


def test_a_service_manager_watches_the_process_that_takes_over(t):
    manager = Manager(t)
    weir = t.weir("demo:", env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000"})
    line = Successors(weir)
    manager.wait("READY=1")
    line.upgrade()
    try:
        manager.wait(f"MAINPID={line.pid}")
        assert weir.wait() == 0
        while True:  # what the old process still said
            manager.socket.settimeout(0.001)
            try:
                assert manager.next() != "STOPPING=1", "the service goes on"
            except TimeoutError:
                break
        manager.socket.settimeout(20 * Options.slow)
        for _ in range(2):
            assert manager.next() == "WATCHDOG=1"
    finally:
        line.end()


def test_a_watchdog_of_another_process_is_not_fed(t):
    manager = Manager(t)
    t.weir("demo:", env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    manager.wait("READY=1")
    manager.socket.settimeout(1)
    try:
        raise AssertionError(f"the manager heard {manager.next()}")
    except TimeoutError:
        pass


def test_a_manager_that_is_not_there_does_no_harm(t):
    for name in (str(t.dir / "gone.sock"), "@", "nonsense", "/" + "x" * 200):
        assert t.weir("demo:", env={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"}).ask("GET", "/readyz").status == 200


# ---------------------------------------------------------------- bad input

def one_line(done, *words, status=1):
    assert done.returncode == status, done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("weir: "), done
    for word in words:
        assert word in done.stderr, (word, done)


def test_a_port_in_use_is_one_line(t):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        one_line(t.run("--listen", f"127.0.0.1:{port}"), f"127.0.0.1:{port}", "in use", "--listen")


def test_a_certificate_without_its_key_is_one_line(t):
    good = t.certificate()
    one_line(t.run("--tls-cert", good.cert), "--tls-cert", "--tls-key")
    one_line(t.run(env={"WEIR_TLS_KEY": str(good.key)}), "WEIR_TLS_KEY", "WEIR_TLS_CERT")
    one_line(t.run("--tls-cert", good.cert, "--tls-key", t.dir / "gone.key"), "gone.key", "No such file")
    path = t.dir / "weir.yaml"
    path.write_text(f"listen:\n  - address: 127.0.0.1:{free_port()}\n    tls: {{ cert: {good.cert} }}\n")
    one_line(t.run("check"), "weir.yaml:3: ", "key")


def test_a_file_that_cannot_be_read_is_one_line(t):
    if os.geteuid() == 0:
        unreadable = ("/proc/self/mem", t.dir)  # root may read any plain file
    else:
        unreadable = (t.dir / "secret.yaml", t.dir)
        unreadable[0].write_text("open: true\n")
        unreadable[0].chmod(0)
    for file in unreadable:
        one_line(t.run("--config", file), str(file))
        one_line(t.run("check", file), str(file))
    one_line(t.run(env={"WEIR_API_KEY_FILE": str(t.dir / "gone")}), "WEIR_API_KEY_FILE", "gone", "No such file")


def test_a_full_disk_costs_log_lines_only(t):
    """/dev/full answers every write as a full disk does."""
    fake, port = t.fake(), free_port()
    with open("/dev/full", "wb") as full:
        env = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
        weir = subprocess.Popen([Options.weir, "--listen", f"127.0.0.1:{port}", "--backend", fake.url, "--log-format", "json"],
                                stdout=full, stderr=full, env=env)
    try:
        def ask(method, path, body=None):
            with Wire(("127.0.0.1", port)) as wire:
                wire.request(method, path, {}, body)
                return wire.response()

        def up():
            try:
                return ask("GET", "/readyz").status == 200
            except OSError:
                return False
        wait_until(up, "weir", 20)
        for _ in range(20):
            assert ask("POST", "/v1/chat/completions", chat(False)).status == 200

        def dropped():
            return int(re.search(r"^weir_log_lines_dropped_total (\d+)$", ask("GET", "/metrics").body.decode(), re.M)[1]) >= 20
        wait_until(dropped, "the lost lines to be counted")
        weir.send_signal(signal.SIGTERM)
        assert weir.wait(20 * Options.slow) == 0
    finally:
        end_gateway(weir)


def test_init_on_a_full_disk_leaves_no_half_file(t):
    def one_block():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    done = t.run("init", preexec_fn=one_block)
    assert done.returncode == 1 and "weir.yaml" in done.stderr and not (t.dir / "weir.yaml").exists(), done


def test_init_names_the_place_that_cannot_be_written(t):
    one_line(t.run("init", t.dir / "no" / "weir.yaml"), "no/weir.yaml", "No such file")
