"""Node's openai package against the gateway."""
import fcntl
import json
import os
import pathlib
import shutil
import subprocess

from harness import HERE, KEY, Options, chat, limit

VERSION = "6.49.0"


def package(t):
    """The directory with openai in it; installed once, outside the tree."""
    t.need("node")
    t.need("npm")
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "weir-tests" / f"openai-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            t.npm(home, f"openai@{VERSION}")
            (home / "complete").touch()
    return home


def node(t, script, weir, key=KEY):
    home = package(t)
    shutil.copy(HERE / "openai.mjs", home / f"{t.dir.name}.mjs")  # so that node finds the package beside it
    try:
        done = subprocess.run(["node", home / f"{t.dir.name}.mjs", script, weir.url + "/v1", key], capture_output=True, text=True,
                              timeout=120 * Options.slow, check=False)
    finally:
        os.unlink(home / f"{t.dir.name}.mjs")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@limit(300)
def test_streaming_and_plain_answers(t):
    fake, weir = t.pair(keys=[KEY])
    fake.behave("events=12,usage")
    told = node(t, "stream", weir)
    assert told["text"] == "".join(f"{n:08d} xxxxxxxx" for n in range(1, 13)), told
    assert told["finish"] == "stop" and told["usage"]["completion_tokens"] == 12
    told = node(t, "plain", weir)
    assert told["content"] == "xxxxxxxx" and told["request_id"], told
    told = node(t, "rest", weir)
    assert told["models"] == ["fake-1"] and told["embedding"] == [0.5, -1] and told["response"] == "xxxxxxxx", told


@limit(300)
def test_abort_cancels_the_backend(t):
    fake, weir = t.pair(keys=[KEY])
    fake.behave("events=100000,pace_ms=10")
    told = node(t, "abort", weir)
    assert told["events"] >= 3, told
    fake.wait_aborts()


@limit(300)
def test_errors_arrive_as_the_package_knows_them(t):
    fake, weir = t.pair(keys=[KEY])
    told = node(t, "error", weir, key="wrong-key-0123456789")
    assert (told["name"], told["status"], told["code"]) == ("AuthenticationError", 401, "invalid_api_key"), told
    assert told["request_id"]
    fake.behave("events=5,cut_after=2")
    told = node(t, "broken", weir)
    assert told["events"] == 3 and told["error"] == "APIError" and told["message"], told
    fake.behave("status=429,retry_after=1")
    told = node(t, "error", weir)
    assert (told["name"], told["status"]) == ("RateLimitError", 429), told


@limit(300)
def test_the_streaming_helper_works_with_the_demo_model(t):
    weir = t.weir("demo:?delay=1ms&pace=1ms", keys=[KEY])
    told = node(t, "helper", weir)
    assert len(told["content"]) > 20 and told["usage"]["total_tokens"] > 0, told
    assert chat()["stream"]
