"""The link to Redis as operators see it: health, metrics, log, and that nothing a Redis does takes the gateway down."""
import json
import threading
import time

from harness import Options, chat, free_port, limit, smoke, wait_until


def health(weir):
    answer = weir.ask("GET", "/readyz")
    return answer.status, answer.json()


def wait_for(weir, redis, timeout=10.0):
    def check():
        status, body = health(weir)
        return status == 200 and body["redis"] == redis and body["status"] == ("ok" if redis == "up" else "degraded")
    wait_until(check, f"redis to be {redis}\n{weir.log()[-800:]}", timeout)


def said(weir, message):
    return [line for line in weir.log_lines() if line["msg"] == message]


def line_of(weir, message):
    """The one line that says so; the log is written behind what is answered."""
    lines = wait_until(lambda: said(weir, message), f"the log to say: {message}")
    assert len(lines) == 1, weir.log()
    return lines[0]


def serves(weir):
    assert weir.ask("POST", "/v1/chat/completions", body=chat()).status == 200


def with_redis(t, url, *args, **options):
    """One that is patient: on a busy machine a Redis that is well may be late for a while."""
    return t.weir("demo:?tokens=2", config=f"redis: {{ url: '{url}', timeout: 1s }}\n", args=args, **options)


@smoke
def test_redis_goes_and_comes_back(t):
    redis = t.redis()
    weir = with_redis(t, redis.url, "--workers", "2")
    wait_for(weir, "up")
    # On a slow machine one more may have been given up.
    assert weir.metric("weir_redis_up") == 1 and 2 <= weir.metric("weir_redis_connects_total") <= 4
    redis.kill()
    wait_for(weir, "down")
    serves(weir)
    assert weir.metric("weir_redis_up") == 0
    time.sleep(0.5)  # several attempts of two workers
    redis.start()
    wait_for(weir, "up")
    down = line_of(weir, "redis is not reachable")
    line_of(weir, "redis is reachable again")
    assert down["redis"] == redis.url and down["reason"] and down["level"] == "warn"
    assert weir.ask("GET", "/health").json()["redis"] == "up"


def test_without_redis_nothing_speaks_of_it(t):
    weir = t.weir("demo:")
    assert "redis" not in health(weir)[1] and "redis" not in weir.metrics()


def test_a_unix_socket_and_a_database(t):
    redis = t.redis()
    weir = with_redis(t, redis.unix_url + "?db=5")
    wait_for(weir, "up")
    clients = redis.ask("CLIENT", "LIST").decode()
    assert "name=weir " in clients and " db=5 " in clients, clients


@smoke
def test_a_frozen_redis_is_noticed_and_found_again(t):
    redis = t.redis()
    weir = with_redis(t, redis.url)
    wait_for(weir, "up")
    redis.freeze()
    wait_for(weir, "down")
    serves(weir)
    redis.thaw()
    wait_for(weir, "up")


def test_a_password_from_a_file_is_told_to_nobody(t):
    redis = t.redis("--requirepass", "open sesame/1@")
    secret = t.dir / "redis-url"
    secret.write_text(f"# the shared Redis\n{redis.url.replace('//', '//:open%20sesame%2F1%40@')}\n")
    weir = t.weir("demo:", env={"WEIR_REDIS_FILE": str(secret)}, args=["--log-level", "debug"])
    wait_for(weir, "up")
    redis.ask("CONFIG", "GET", "x")
    with redis.connect() as ask:
        ask("AUTH", "open sesame/1@")
        ask("CONFIG", "SET", "requirepass", "another")
        ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_for(weir, "down")
    line_of(weir, "redis is not reachable")
    assert "sesame" not in weir.log() + weir.metrics()


def test_what_stops_the_start(t):
    for url, words in (("rediss://:hush@127.0.0.1/0", "TLS to Redis is not supported"), ("redis://:hush@/0", "host"),
                       ("redis+cluster://127.0.0.1", "Cluster"), ("http://127.0.0.1", "redis://"),
                       ("redis://127.0.0.1/x", "database"), ("redis+sentinel://127.0.0.1", "master")):
        done = t.run("--redis", url)
        assert done.returncode == 1 and words in done.stderr and "hush" not in done.stderr, done.stderr
    good = t.dir / "good.yaml"
    good.write_text("redis: { url: 'redis://u:hush@127.0.0.1:1/2', prefix: 'shop:', timeout: 20ms }\n")
    done = t.run("check", good)
    assert done.returncode == 0 and "redis://127.0.0.1:1/2" in done.stdout and "hush" not in done.stdout, done.stdout
    for text, words in (("{ url: 'rediss://a' }", ":1: "), ("{ prefix: 'x y', url: redis://a }", "prefix"),
                        ("{ url: redis://a, timeout: 1h }", "timeout"), ("{ prefix: x }", "url")):
        bad = t.dir / "bad.yaml"
        bad.write_text(f"redis: {text}\n")
        done = t.run("check", bad)
        assert done.returncode == 1 and words in done.stderr, done.stderr


def test_a_replica_and_a_cluster_node_are_no_place_to_count(t):
    master = t.redis()
    weir = with_redis(t, master.url)
    wait_for(weir, "up")
    time.sleep(1.1)
    master.ask("REPLICAOF", "127.0.0.1", "1")
    master.kill_clients()
    wait_for(weir, "down")
    assert "replica" in line_of(weir, "redis is not reachable")["reason"]
    master.ask("REPLICAOF", "NO", "ONE")
    wait_for(weir, "up")
    node = t.redis("--cluster-enabled", "yes", "--cluster-port", free_port())
    weir = with_redis(t, node.url)
    wait_for(weir, "down")
    assert "Cluster" in line_of(weir, "redis is not reachable")["reason"]


@smoke
def test_strangers_at_the_port_do_no_harm(t):
    redis = t.redis()
    fake = t.redis_fake(redis)
    weir = with_redis(t, fake.url)
    wait_for(weir, "up")
    for mode in ("garbage", "http", "wide", "deep", "loading", "refuse", "silent", "half", "cut"):
        fake.switch(mode)
        wait_for(weir, "down")
        serves(weir)
        fake.switch("pass")
        fake.cut()
        wait_for(weir, "up")
    wait_until(lambda: len(said(weir, "redis is not reachable")) == len(said(weir, "redis is reachable again")), "as many lines")


def watched(t, *lines):
    """A master with a replica, and a Sentinel that knows both."""
    master = t.redis()
    replica = t.redis("--replicaof", "127.0.0.1", str(master.port))
    sentinel = t.sentinel(master, "shop", *lines)
    wait_until(sentinel.knows_replica, "the Sentinel to know the replica", 30)
    return master, replica, sentinel


def connected(redis):
    """Whether weir is among the clients."""
    def ask():
        try:
            return redis.ask("CLIENT", "LIST")
        except OSError:  # one that becomes a replica cuts every client, this one too
            return None
    return b"name=weir " in wait_until(ask, "the list of clients")


@limit(90)
def test_sentinel_finds_the_master_and_follows_a_failover(t):
    master, replica, sentinel = watched(t)
    nobody = free_port()
    weir = with_redis(t, sentinel.url.replace("127.0.0.1", f"127.0.0.1:{nobody},127.0.0.1", 1))
    wait_for(weir, "up")
    assert connected(master) and not connected(replica)
    master.kill()
    wait_for(weir, "down")
    wait_until(lambda: sentinel.master() == replica.port, "the failover", 60)
    decided = time.monotonic()
    wait_for(weir, "up", 30)
    if Options.strict:
        assert time.monotonic() - decided < 1.5
    assert connected(replica)
    line_of(weir, "redis is not reachable")
    line_of(weir, "redis is reachable again")


@limit(90)
def test_an_ordered_failover_is_followed(t):
    master, replica, sentinel = watched(t)
    weir = with_redis(t, sentinel.url)
    wait_for(weir, "up")
    wait_until(lambda: sentinel.ask("SENTINEL", "FAILOVER", "shop") == "OK", "the order to be taken", 30)
    wait_until(lambda: connected(replica), "weir to follow", 40)
    wait_for(weir, "up")
    wait_until(lambda: not connected(master), "weir to leave")


def test_a_sentinel_that_wants_a_password_or_knows_no_such_master(t):
    master = t.redis("--requirepass", "hush")
    sentinel = t.sentinel(master, "shop", "sentinel auth-pass shop hush", "requirepass hush")
    weir = with_redis(t, sentinel.url.replace("//", "//:hush@"))
    wait_for(weir, "up")
    weir = with_redis(t, sentinel.url)
    reason = line_of(weir, "redis is not reachable")["reason"]
    assert "NOAUTH" in reason, reason
    weir = with_redis(t, sentinel.url.replace("//", "//:hush@").replace("shop", "shed"))
    reason = line_of(weir, "redis is not reachable")["reason"]
    assert "knows no master" in reason and "shed" in reason, reason
    weir = with_redis(t, f"redis://:hush@127.0.0.1:{sentinel.port}")
    reason = line_of(weir, "redis is not reachable")["reason"]
    assert "Sentinel" in reason and "hush" not in reason, reason


def test_a_string_of_a_gigabyte_is_not_taken_in(t):
    redis = t.redis()
    fake = t.redis_fake(redis)
    weir = with_redis(t, fake.url)
    wait_for(weir, "up")
    before = weir.metric("process_resident_memory_bytes")
    fake.switch("huge")
    wait_for(weir, "down")
    for _ in range(20):
        serves(weir)
        time.sleep(0.05)
        assert weir.metric("process_resident_memory_bytes") < before + (640 << 20)  # a checked build keeps what it frees for a while


@smoke
def test_cutting_the_connection_in_a_loop_costs_no_request(t):
    redis = t.redis()
    weir = with_redis(t, redis.url, "--workers", "2")
    wait_for(weir, "up")
    over = threading.Event()

    def cut():
        while not over.is_set():
            redis.kill_clients()
            time.sleep(0.01)
    cutter = threading.Thread(target=cut)
    cutter.start()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        serves(weir)
    over.set()
    cutter.join()
    wait_for(weir, "up")
    assert json.loads(weir.ask("GET", "/readyz").body)["status"] == "ok"
