"""/admin: there only with an admin key, for nobody else, and at an address of its own if that is wanted."""
import json

from harness import KEY, Wire, chat, free_port, smoke

ADMIN = "admin-key-0123456789"
PATH = "/admin/cache/purge"
ADMINS = f"keys: [{{ name: root, key: {ADMIN} }}]"
JSON = {"content-type": "application/json"}
ALL = '{"all": true}'


def ask(weir, method="POST", path=PATH, headers=None, body=ALL, address=None):
    with Wire(address or weir.address) as wire:
        wire.request(method, path, {**JSON, **(headers or {})}, body if method == "POST" else None)
        return wire.response()


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@smoke
def test_without_an_admin_key_there_is_no_administration(t):
    weir = t.weir("demo:", args=["--cache-ttl", "1m"], keys=[KEY])
    for path in (PATH, "/admin", "/admin/", "/admin/cache", "/admin/x"):
        assert ask(weir, path=path, headers=bearer(KEY)).status == 404, path
    assert "admin" not in weir.ask("GET", "/").body.decode()


@smoke
def test_who_may(t):
    weir = t.weir("demo:", config=f"admin: {{ {ADMINS} }}\ncache: {{ ttl: 1m }}\nkeys: [{{ name: alice, key: {KEY} }}]\n")
    for headers in (bearer(ADMIN), {"x-api-key": ADMIN}, {"api-key": ADMIN}, {"authorization": f"bearer   {ADMIN} "}):
        answer = ask(weir, headers=headers)
        assert answer.status == 200 and answer.json() == {"purged": 0, "redis": "none"}, (headers, answer)
    for headers in ({}, bearer(KEY), bearer(ADMIN + "x"), bearer(ADMIN[:-1]), bearer(""), {"x-api-key": "x" * 4000}):
        answer = ask(weir, headers=headers)
        assert answer.status == 401 and answer.header("www-authenticate") == "Bearer", (headers, answer)
        assert answer.json()["detail"] == "Not authenticated" and ADMIN not in answer.body.decode()
    answer = weir.ask("POST", "/v1/chat/completions", {**JSON, **bearer(ADMIN)}, chat())
    assert answer.status == 401, "an admin is no client"
    assert ask(weir, "GET", headers=bearer(ADMIN)).status == 405
    line = weir.request_line(ask(weir, headers=bearer(ADMIN)).header("x-request-id"))
    assert line["key"] == "root" and line["route"] == PATH, line
    assert PATH in weir.ask("GET", "/").json()["routes"]
    assert weir.ask("GET", "/metrics").status == 200, "open on loopback"


def test_bodies(t):
    weir = t.weir("demo:", config=f"admin: {{ {ADMINS} }}\ncache: {{ ttl: 1m }}\n")

    def problem(body):
        answer = ask(weir, headers=bearer(ADMIN), body=body if isinstance(body, str) else json.dumps(body))
        assert answer.status == 422, (body, answer)
        assert answer.json()["error"]["message"] and len(answer.json()["detail"]) == 1
        first = answer.json()["detail"][0]
        assert list(first)[:4] == ["type", "loc", "msg", "input"], first
        return first["type"], first["loc"], first["input"]

    assert problem("{") == ("json_invalid", ["body", 1], {})
    assert problem("") == ("json_invalid", ["body", 0], {})
    assert problem('{"all": true} x') == ("json_invalid", ["body", 14], {})
    assert problem([1]) == ("model_attributes_type", ["body"], [1])
    assert problem("null") == ("model_attributes_type", ["body"], None)
    assert problem({"key": 5}) == ("string_type", ["body", "key"], 5)
    assert problem({"model": ["a"]}) == ("string_type", ["body", "model"], ["a"])
    assert problem({"model": ""}) == ("string_too_short", ["body", "model"], "")
    assert problem({"key": "x" * 1025})[:2] == ("string_too_long", ["body", "key"])
    assert problem({"key": "x" * 60000})[:2] == ("string_too_long", ["body", "key"])
    assert problem({"all": "yes"}) == ("bool_type", ["body", "all"], "yes")
    assert problem({"modle": "x", "key": "a"})[0] == "extra_forbidden"
    assert problem('{"key": "a", "key": "b"}')[0] == "extra_forbidden"
    for body in ({}, {"all": False}, {"key": None}, {"all": True, "key": "a"}, {"all": True, "model": "a"}):
        assert problem(body) == ("value_error", ["body"], body), body
    assert ask(weir, headers=bearer(ADMIN), body='{"all":true' + " " * 70000 + "}").status == 413
    for body in ({"all": True}, {"all": True, "key": None}, {"key": "alice"}, {"all": False, "model": "é\"\\"}):
        assert ask(weir, headers=bearer(ADMIN), body=json.dumps(body)).status == 200, body
    shared = t.weir("demo:", config=f"admin: {{ {ADMINS} }}\ncache: {{ ttl: 1m, scope: shared }}\n")
    answer = ask(shared, headers=bearer(ADMIN), body='{"key": "alice"}')
    assert answer.status == 422 and "shared" in answer.json()["detail"][0]["msg"]
    off = t.weir("demo:", config=f"admin: {{ {ADMINS} }}\n")
    assert ask(off, headers=bearer(ADMIN)).json() == {"purged": 0, "redis": "none"}


@smoke
def test_an_address_of_its_own(t):
    port = free_port()
    there = ("127.0.0.1", port)
    weir = t.weir("demo:", config=f"admin: {{ {ADMINS}, listen: '127.0.0.1:{port}' }}\ncache: {{ ttl: 1m }}\n", args=["--workers", "2"])
    assert ask(weir, headers=bearer(ADMIN)).status == 404
    assert ask(weir, headers=bearer(ADMIN), address=there).status == 200
    assert ask(weir, address=there).status == 401
    for path in ("/metrics", "/livez", "/readyz", "/health", "/version", "/"):
        assert ask(weir, "GET", path, address=there).status == 200, path
        assert ask(weir, "GET", path).status == 200, path
    for path in ("/v1/chat/completions", "/v1/models", "/v1/files/x"):
        assert ask(weir, path=path, address=there, body=json.dumps(chat())).status == 404, path
    assert "/admin" not in weir.ask("GET", "/").body.decode()
    pointers = ask(weir, "GET", "/", address=there).json()["routes"]
    assert PATH in pointers and "/v1/models" not in pointers
    assert "(admin)" in weir.log()
    assert weir.ask("POST", "/v1/chat/completions", JSON, chat()).status == 200


def test_metrics_from_elsewhere(t):
    """A trusted proxy says that the client is from elsewhere."""
    far = {"x-forwarded-for": "192.0.2.7"}
    proxies = "trusted_proxies: [127.0.0.1]\n"
    plain = t.weir("demo:", config=proxies)
    assert plain.ask("GET", "/metrics", far).status == 403 and plain.ask("GET", "/metrics").status == 200
    port = free_port()
    weir = t.weir("demo:", config=f"{proxies}admin: {{ {ADMINS}, listen: '127.0.0.1:{port}' }}\n", keys=[KEY])
    assert weir.ask("GET", "/metrics", far).status == 401
    assert weir.ask("GET", "/metrics", {**far, **bearer(KEY)}).status == 401
    assert weir.ask("GET", "/metrics", {**far, **bearer(ADMIN)}).status == 200
    assert ask(weir, "GET", "/metrics", far, address=("127.0.0.1", port)).status == 200
    public = t.weir("demo:", config=f"{proxies}admin: {{ {ADMINS} }}\nroutes: [{{ path: /metrics, depends: [public] }}]\n")
    assert public.ask("GET", "/metrics", far).status == 200


def test_what_stops_the_start(t):
    for config, words in (("admin: {}\n", "keys"), (f"admin: {{ listen: '127.0.0.1:1' }}\n", "keys"),
                          (f"admin: {{ {ADMINS}, listen: nonsense }}\n", "nonsense"),
                          (f"admin: {{ {ADMINS} }}\nroutes: [{{ path: {PATH}, depends: [public] }}]\n", "admin keys"),
                          (f"admin: {{ {ADMINS} }}\nkeys: [{{ name: a, key: {ADMIN} }}]\n", "API key"),
                          (f"admin: {{ {ADMINS} }}\nbackends: [{{ url: 'http://127.0.0.1:1', name: x }}]\n"
                           "routes: [{ path: '/admin/*', proxy: x }]\n", "hide")):
        path = t.dir / "bad.yaml"
        path.write_text(config)
        done = t.run("check", path)
        assert done.returncode == 1 and words in done.stderr and ADMIN not in done.stderr, (config, done.stderr)
    taken = free_port()
    path = t.dir / "taken.yaml"
    path.write_text(f"listen: ['127.0.0.1:{taken}']\nadmin: {{ {ADMINS}, listen: '127.0.0.1:{taken}' }}\n")
    assert t.run("check", path).returncode == 1
