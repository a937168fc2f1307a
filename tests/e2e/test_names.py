"""Backends whose names have several addresses, which come and go."""
import json
import pathlib

from harness import Options, Skip, chat, free_port, smoke, wait_until

ADMIN = "admin-key-0123456789"
AUTH = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
NAMES = pathlib.Path(Options.fake).parent / "libfake_names.so"


class Names:
    """What the gateway's lookups find."""
    def __init__(self, t):
        if Options.valgrind or not NAMES.exists():
            raise Skip("lookups cannot be faked here")
        self.file = t.dir / "names"
        self.env = {"LD_PRELOAD": str(NAMES.resolve()), "FAKE_NAMES": str(self.file),
                    "ASAN_OPTIONS": "detect_leaks=1:exitcode=66:abort_on_error=0:verify_asan_link_order=0"}

    def say(self, *addresses):
        new = self.file.with_suffix(".new")
        new.write_text(" ".join(["models.test", *addresses]) + "\n")
        new.rename(self.file)


def fakes_at(t, *hosts):
    """One at each of these addresses, all at the same port."""
    port = free_port()
    return [t.fake("events=4", listen=f"{host}:{port}") for host in hosts], port


def listed(weir):
    return {backend["name"]: backend for backend in weir.ask("GET", "/admin/backends", AUTH).json()["backends"]}


def config(port, more="resolve: 150ms\n"):
    return (f"admin: {{ keys: [{{ name: root, key: {ADMIN} }}] }}\n{more}"
            f"backends:\n  - {{ name: m, url: 'http://models.test:{port}', weight: 2 }}\n")


@smoke
def test_all_addresses_of_a_name_are_servers_of_their_own(t):
    names = Names(t)
    (a, b, c), port = fakes_at(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    names.say("127.0.0.1", "127.0.0.2")
    weir = t.weir(config=config(port), env=names.env, args=["--workers", "2"])
    wait_until(lambda: set(listed(weir)) == {"m [127.0.0.1]", "m [127.0.0.2]"}, "both")
    for _ in range(8):
        assert weir.stream().status == 200
    assert a.stats()["requests"] >= 3 and b.stats()["requests"] >= 3
    assert a.last().header("host") == f"models.test:{port}"
    assert listed(weir)["m [127.0.0.1]"]["weight"] == 2
    names.say("127.0.0.2", "127.0.0.3")
    wait_until(lambda: set(listed(weir)) == {"m [127.0.0.2]", "m [127.0.0.3]"}, "the change")
    before = a.stats()["requests"]
    for _ in range(8):
        assert weir.stream().status == 200
    assert a.stats()["requests"] == before and c.stats()["requests"] >= 3
    names.say()
    wait_until(lambda: any(line["msg"] == "name" and line.get("problem") for line in weir.log_lines()), "the failure")
    assert len(listed(weir)) == 2 and weir.stream().status == 200, "a lookup that fails changes nothing"
    names.say("127.0.0.1")
    wait_until(lambda: set(listed(weir)) == {"m"}, "one address, one server")
    assert weir.stream().status == 200 and a.stats()["requests"] == before + 1


def test_streams_go_on_when_their_address_is_gone_from_the_name(t):
    names = Names(t)
    (a, b), port = fakes_at(t, "127.0.0.1", "127.0.0.2")
    names.say("127.0.0.1")
    weir = t.weir(config=config(port), env=names.env)
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "events=30,pace_ms=40"}, chat())
        a.wait_requests()
        names.say("127.0.0.2", "127.0.0.3")
        wait_until(lambda: "m [127.0.0.2]" in listed(weir), "the change")
        assert listed(weir)["m"]["state"] == "draining"
        answer = wire.response()
    assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n")
    wait_until(lambda: "m" not in listed(weir), "the old one to be gone")
    assert weir.stream().status == 200 and b.stats()["requests"] >= 1


def test_an_administrator_removes_all_addresses_of_a_name(t):
    names = Names(t)
    _, port = fakes_at(t, "127.0.0.1", "127.0.0.2")
    names.say("127.0.0.1", "127.0.0.2")
    weir = t.weir(config=config(port), env=names.env)
    wait_until(lambda: len(listed(weir)) == 2 and "m" not in listed(weir), "both")
    assert weir.ask("DELETE", "/admin/backends/m", AUTH).json() == {"status": "removed"}
    names.say("127.0.0.1", "127.0.0.2", "127.0.0.3")
    added = json.dumps({"name": "n", "url": f"http://models.test:{port}"})
    assert weir.ask("POST", "/admin/backends", AUTH, added).status == 201
    wait_until(lambda: set(listed(weir)) == {f"n [127.0.0.{i}]" for i in (1, 2, 3)}, "those of the new one alone")


def test_what_is_drained_before_its_name_is_looked_up_is_drained_at_all_addresses(t):
    names = Names(t)
    _, port = fakes_at(t, "127.0.0.1", "127.0.0.2")
    names.say()
    weir = t.weir(config=config(port), env=names.env, args=["--workers", "2"])

    def states():
        return {name: backend["state"] for name, backend in listed(weir).items()}

    def found(state):
        names.say("127.0.0.1", "127.0.0.2")
        wait_until(lambda: "m" not in listed(weir), "both")
        assert states() == {"m [127.0.0.1]": state, "m [127.0.0.2]": state}, states()

    assert weir.ask("POST", "/admin/backends/m/drain", AUTH).status == 200
    found("draining")
    for weight, what, state in ((3, "undrain", "healthy"), (4, "drain", "draining")):
        names.say()
        (t.dir / f"{weir.name}.yaml").write_text(config(port).replace("weight: 2", f"weight: {weight}"))
        assert weir.ask("POST", "/admin/reload", AUTH).status == 200
        wait_until(lambda n=weight: listed(weir).get("m", {}).get("weight") == n, "the new configuration")
        assert weir.ask("POST", f"/admin/backends/m/{what}", AUTH).status == 200
        found(state)


def test_a_name_is_undrained_while_an_address_of_it_leaves(t):
    names = Names(t)
    (a, _), port = fakes_at(t, "127.0.0.1", "127.0.0.2")
    names.say("127.0.0.1", "127.0.0.2")
    weir = t.weir(config=config(port), env=names.env)
    wait_until(lambda: len(listed(weir)) == 2, "both")
    assert weir.ask("POST", "/admin/backends/m%20[127.0.0.2]/drain", AUTH).status == 200
    with weir.connect() as wire:
        wire.request("POST", "/v1/chat/completions", {"x-fake": "events=60,pace_ms=50"}, chat())
        a.wait_requests()
        assert weir.ask("POST", "/admin/backends/m/drain", AUTH).status == 200
        names.say("127.0.0.2", "127.0.0.3")
        wait_until(lambda: listed(weir)["m [127.0.0.1]"]["leaving"], "the change")
        assert weir.ask("POST", "/admin/backends/m%20[127.0.0.1]/undrain", AUTH).json()["error"]["code"] == "backend_leaving"
        assert weir.ask("POST", "/admin/backends/m/undrain", AUTH).status == 200
        states = {name: backend["state"] for name, backend in listed(weir).items()}
        assert states == {"m [127.0.0.1]": "draining", "m [127.0.0.2]": "healthy", "m [127.0.0.3]": "healthy"}, states


def test_addresses_are_known_again_after_a_reload(t):
    names = Names(t)
    (a, _), port = fakes_at(t, "127.0.0.1", "127.0.0.2")
    names.say("127.0.0.1", "127.0.0.2")
    weir = t.weir(config=config(port), env=names.env, args=["--workers", "2"])
    added = json.dumps({"name": "n", "url": f"http://models.test:{port}", "weight": 5})
    assert weir.ask("POST", "/admin/backends", AUTH, added).status == 201
    every = {f"{name} [127.0.0.{i}]" for name in "mn" for i in (1, 2)}
    wait_until(lambda: set(listed(weir)) == every, "all")
    for name in ("m%20[127.0.0.1]", "n%20[127.0.0.1]"):
        assert weir.ask("POST", f"/admin/backends/{name}/drain", AUTH).status == 200
    for weight in (3, 4):
        (t.dir / f"{weir.name}.yaml").write_text(config(port).replace("weight: 2", f"weight: {weight}"))
        assert weir.ask("POST", "/admin/reload", AUTH).status == 200
        wait_until(lambda n=weight: set(listed(weir)) == every and listed(weir)["m [127.0.0.1]"]["weight"] == n, "all, anew")
        drained = {name for name, backend in listed(weir).items() if backend["state"] == "draining"}
        assert drained == {"m [127.0.0.1]", "n [127.0.0.1]"}, listed(weir)
    before = a.stats()["requests"]
    assert [weir.stream().status for _ in range(6)] == [200] * 6 and a.stats()["requests"] == before
    assert weir.ask("POST", "/admin/backends/m/undrain", AUTH).status == 200
    wait_until(lambda: weir.stream().status == 200 and a.stats()["requests"] > before, "the one that is back")


def test_without_lookups_a_name_stays_one_server(t):
    names = Names(t)
    _, port = fakes_at(t, "127.0.0.1", "127.0.0.2")
    names.say("127.0.0.1", "127.0.0.2")
    weir = t.weir(config=config(port, "resolve: 0s\n"), env=names.env)
    for _ in range(4):
        assert weir.stream().status == 200
    assert set(listed(weir)) == {"m"}
