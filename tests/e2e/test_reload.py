"""A new configuration while the gateway runs: SIGHUP."""
import concurrent.futures
import signal
import socket
import ssl
import threading

from harness import Options, Process, Wire, chat, free_port, smoke, wait_until

CHAT = "/v1/chat/completions"
HOLDS = "reload: the new configuration holds"


def reload(weir, config, expect=HOLDS):
    seen = weir.log().count(expect)
    (weir.scenario.dir / f"{weir.name}.yaml").write_text(config)
    weir.signal(signal.SIGHUP)
    wait_until(lambda: weir.log().count(expect) > seen, f"the log to say '{expect}'\n{weir.log()[-800:]}")


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@smoke
def test_new_requests_follow_the_new_file_and_running_ones_the_old(t):
    first, second = t.fake(), t.fake()
    weir = t.weir(config=f"backends: [{{name: a, url: '{first.url}'}}]\nkeys: [{{name: old, key: sk-old-0123456789}}]\n")
    with weir.connect() as running, weir.connect() as idle:
        running.request("POST", CHAT, {"x-fake": "events=60,pace_ms=20", **bearer("sk-old-0123456789")}, chat())
        head = running.head()
        idle.request("GET", "/livez")
        idle.response()
        reload(weir, f"backends: [{{name: b, url: '{second.url}'}}]\nkeys: [{{name: new, key: sk-new-0123456789}}]\n"
                     "limits: {few: {limit: 2/minute}}\ncache: {ttl: 1m}\n")
        # The connection that was idle is still there, and the new file holds on it.
        idle.request("POST", CHAT, bearer("sk-old-0123456789"), chat())
        assert idle.response().status == 401
        for expected in (200, 200, 429):
            idle.request("POST", CHAT, bearer("sk-new-0123456789"), chat(stream=False))
            answer = idle.response()
            assert answer.status == expected and answer.header("x-ratelimit-limit") == "2", answer
        assert b"".join(running.pieces(head)).endswith(b"[DONE]\n\n")
    assert first.stats()["requests"] == 1
    assert second.stats()["requests"] == 1  # the second was a hit


def test_a_key_that_a_connection_has_used_ends_with_its_configuration(t):
    fake = t.fake()
    weir = t.weir(config=f"backends: [{{name: a, url: '{fake.url}'}}]\nkeys: [{{name: old, key: sk-old-0123456789}}]\n")
    with weir.connect() as wire:
        for turn in range(2):
            wire.request("POST", CHAT, bearer("sk-old-0123456789"), chat(stream=False))
            assert wire.response().status == 200
        reload(weir, f"backends: [{{name: a, url: '{fake.url}'}}]\nkeys: [{{name: new, key: sk-new-0123456789}}]\n")
        for key, status in (("sk-old-0123456789", 401), ("sk-new-0123456789", 200), ("sk-old-0123456789", 401)):
            wire.request("POST", CHAT, bearer(key), chat(stream=False))
            assert wire.response().status == status, key


def test_a_file_that_is_wrong_changes_nothing_and_the_log_says_where(t):
    fake = t.fake()
    good = f"backends: [{{name: a, url: '{fake.url}'}}]\n"
    weir = t.weir(config=good)
    for wrong, where in ((good + "limits: {x: {limit: many}}\n", ".yaml:2: "), (good + "nonsense: 1\n", ".yaml:2: "),
                         ("backends: [", "not YAML"),
                         ("backends: [{name: b, url: 'https://localhost:1', tls: {ca: nowhere.pem}}]\n", "nowhere.pem")):
        reload(weir, wrong, "the configuration in use stays")
        line = [line for line in weir.log_lines() if line["msg"].startswith("reload:")][-1]
        assert where in line["msg"] and line["level"] == "error", line
        assert weir.stream().status == 200
    assert fake.stats()["requests"] == 4


def test_a_change_that_takes_a_restart_is_told(t):
    fake = t.fake()
    config = f"backends: [{{name: a, url: '{fake.url}'}}]\n"
    weir = t.weir(config=config, args=["--workers", "1"])
    reload(weir, config + "limit_memory: 1MiB\n", "reload: limit_memory stays as it was")
    assert weir.stream().status == 200


def test_a_new_certificate_is_shown_to_new_connections(t):
    fake, old = t.fake(), t.certificate()
    new = t.authority.issue("renewed", "DNS:localhost", "IP:127.0.0.1")
    weir = t.weir(fake, tls=old)

    def shown():
        with weir.connect() as wire:
            return wire.sock.getpeercert(True)

    with weir.connect() as before:
        first = before.sock.getpeercert(True)
        for source, target in ((new.cert, old.cert), (new.key, old.key)):
            target.write_bytes(source.read_bytes())
        weir.signal(signal.SIGHUP)
        wait_until(lambda: HOLDS in weir.log(), "the reload")
        assert wait_until(lambda: shown() != first, "the new certificate")
        assert shown() == ssl.PEM_cert_to_DER_cert(new.cert.read_text())
        before.request("POST", CHAT, None, chat())
        assert before.response().status == 200


@smoke
def test_reloads_under_load_lose_nothing(t):
    fakes = [t.fake(), t.fake()]
    configs = [f"backends: [{{name: a{i}, url: '{fake.url}'}}]\n" for i, fake in enumerate(fakes)]
    weir = t.weir(config=configs[0])
    wires = [weir.connect() for _ in range(8)]
    for turn in range(12):
        for wire in wires:
            wire.request("POST", CHAT, {"x-fake": "events=10,pace_ms=5"}, chat())
        reload(weir, configs[(turn + 1) % 2])
        for wire in wires:
            answer = wire.response()
            assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n"), answer
    for wire in wires:
        wire.close()
    assert sum(fake.stats()["requests"] for fake in fakes) == 12 * 8
    assert all(fake.stats()["requests"] > 0 for fake in fakes)


def test_limits_over_redis_outlive_the_configuration_that_brought_them(t):
    redis = t.redis()
    config = f"redis: {{ url: 'redis://127.0.0.1:{redis.port}', timeout: 1s, prefix: 'first:' }}\n"
    weir = t.weir(t.fake(), config=config)
    backends = (weir.scenario.dir / f"{weir.name}.yaml").read_text()
    for n, (limits, statuses) in enumerate((("limits: { a: { limit: 2/hour, by: constant } }\n", [200, 200, 429]),
                                            ("limits: { b: { limit: 1/hour, by: constant } }\n", [200, 429]),
                                            ("limits: { b: { limit: 2/hour, by: constant } }\n", [200, 200, 429]))):
        reload(weir, backends.replace("'first:'", f"'other{n}:'") + limits)
        wait_until(lambda: weir.ask("GET", "/readyz").json()["redis"] == "up", "redis to be up")
        assert [weir.ask("POST", CHAT, None, chat(False)).status for _ in statuses] == statuses, n
    assert weir.metric("^weir_limit_fallbacks_total") == 0
    keys = redis.ask("KEYS", "*")
    assert keys and all(key.startswith(b"first:") for key in keys), keys


def test_metrics_can_be_read_while_limits_and_cache_come(t):
    redis = t.redis()
    config = f"redis: {{ url: 'redis://127.0.0.1:{redis.port}', timeout: 1s }}\n"
    for _ in range(3):
        weir = t.weir(t.fake(), config=config, args=["--workers", "8"])
        before = (weir.scenario.dir / f"{weir.name}.yaml").read_text()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            ended = threading.Event()

            def read(weir=weir, ended=ended):
                statuses = set()
                while not ended.is_set():
                    statuses.add(weir.ask("GET", "/metrics").status)
                return statuses
            runs = [pool.submit(read) for _ in range(2)]
            reload(weir, before + "limits: { a: { limit: 1000/hour } }\ncache: { ttl: 1m }\n")
            reload(weir, before + "limits: { a: { limit: 900/hour } }\ncache: { ttl: 2m }\n")
            ended.set()
            assert all(run.result() == {200} for run in runs)
        wait_until(lambda weir=weir: weir.ask("POST", CHAT, None, chat()).header("x-ratelimit-limit") == "900", "the limit")
        weir.stop()


def test_an_address_that_is_gone_from_the_file_serves_on(t):
    """With the certificate of the last configuration that had it, which is long gone otherwise."""
    fake, tls = t.fake(), t.certificate()
    port = free_port()
    backends = f"backends: [{{name: a, url: '{fake.url}'}}]\n"
    listen = f"listen: [{{address: '127.0.0.1:{port}', tls: {{cert: {tls.cert}, key: {tls.key}}}}}]\n"
    (t.dir / "tls.yaml").write_text(backends + listen)
    process = Process(t, "tls", [Options.weir, "--config", t.dir / "tls.yaml", "--workers", "1", "--log-format", "json"])
    context = tls.client()

    def ask():
        with Wire(("127.0.0.1", port), context) as wire:
            wire.request("GET", "/livez")
            return wire.response().status

    def reloaded(text, count):
        (t.dir / "tls.yaml").write_text(text)
        process.signal(signal.SIGHUP)
        wait_until(lambda: process.log().count(HOLDS) == count, "the reload")

    wait_until(lambda: "serves on" in process.log(), "weir to serve")
    assert ask() == 200
    preconnected = socket.create_connection(("127.0.0.1", port))
    reloaded(backends + listen, 1)
    reloaded(backends + f"listen: [{{address: '127.0.0.1:{free_port()}'}}]\n", 2)
    for _ in range(3):
        assert ask() == 200
    # TLS taken from the address, with a connection open that has said nothing yet.
    reloaded(backends + f"listen: ['127.0.0.1:{port}']\n", 3)
    preconnected.sendall(b"\x16\x03\x01")
    assert preconnected.recv(100) == b""
    preconnected.close()
    with Wire(("127.0.0.1", port)) as wire:
        wire.request("GET", "/livez")
        assert wire.response().status == 200
    process.signal()
    assert process.wait() == 0, process.log()[-2000:]
    process.kill()  # closes its log
    t.processes.remove(process)
