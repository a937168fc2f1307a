"""/admin/backends and /admin/reload: model servers come and go while streams run."""
import json
import threading

from harness import KEY, chat, free_port, smoke, wait_until

ADMIN = "admin-key-0123456789"
AUTH = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
ADMINS = f"admin: {{ keys: [{{ name: root, key: {ADMIN} }}] }}\n"
PATH = "/admin/backends"


def config(fakes, more=""):
    lines = "".join(f'  - {{ name: {chr(97 + i)}, url: "{fake.url}" }}\n' for i, fake in enumerate(fakes))
    return f"{ADMINS}backends:\n{lines}{more}"


def ask(weir, method, path=PATH, body=None):
    return weir.ask(method, path, AUTH, json.dumps(body) if isinstance(body, (dict, list)) else body)


def listed(weir):
    return {backend["name"]: backend for backend in ask(weir, "GET").json()["backends"]}


@smoke
def test_who_serves_is_listed_with_its_state_and_without_its_secrets(t):
    fake, dead = t.fake(), f"http://127.0.0.1:{free_port()}"
    weir = t.weir(config=f'{ADMINS}backends:\n  - {{ name: a, url: "{fake.url}/v1?key=sekret", api_key: sk-sekret, weight: 3, max_concurrent: 7 }}\n'
                         f'  - {{ name: b, url: "{dead}", models: [m*, x] }}\nhealth: {{ failures: 1, ejection: 1m }}\n', args=["--workers", "1"])
    for _ in range(4):
        assert weir.stream(body=chat(model="m1")).status == 200
    answer = ask(weir, "GET")
    assert answer.status == 200 and "sekret" not in answer.body.decode(), answer
    assert answer.json()["waiting"] == 0
    a, b = listed(weir)["a"], listed(weir)["b"]
    assert a["url"] == fake.url + "/v1" and a["weight"] == 3 and a["max_concurrent"] == 7 and a["in_flight"] == 0, a
    assert a["state"] == "healthy" and a["until"] is None and a["models"] == ["*"] and a["probe"] is None, a
    assert b["state"] == "ejected" and b["until"].endswith("Z") and b["ejections"] == 1 and b["models"] == ["m*", "x"], b
    assert weir.ask("GET", PATH).status == 401 and ask(weir, "PUT").status == 405
    assert weir.ask("HEAD", PATH, AUTH).status == 200
    plain = t.weir(fake, keys=[KEY])
    assert plain.ask("GET", PATH, AUTH).status == 404 and plain.ask("POST", "/admin/reload", AUTH).status == 404


@smoke
def test_a_server_is_added_and_serves(t):
    a, b = t.fake(), t.fake()
    weir = t.weir(config=config([a]), args=["--workers", "2"])
    body = {"name": "new/one", "url": b.url, "models": {"public": "fake-1"}, "weight": 5, "max_concurrent": 4, "api_key": "sk-0123456789",
            "timeouts": {"connect": "1s"}, "health": {"failures": 2}}
    answer = ask(weir, "POST", body=body)
    assert answer.status == 201 and answer.json()["models"] == ["public"] and answer.json()["state"] == "healthy", answer
    answers = [weir.stream(body=chat(model="public")) for _ in range(8)]
    assert [x.status for x in answers] == [200] * 8
    assert b.stats()["requests"] >= 3 and b.last().json()["model"] == "fake-1"
    assert b.last().header("authorization") == "Bearer sk-0123456789"
    again = ask(weir, "POST", body=body)
    assert again.status == 409 and again.json()["error"]["code"] == "backend_conflict", again
    line = next(line for line in weir.log_lines() if line["msg"] == "backend")
    assert line["state"] == "added" and line["key"] == "root", line
    assert ask(weir, "DELETE", PATH + "/new/%6fne").status == 200 and set(listed(weir)) == {"a"}


def test_what_is_wrong_with_a_new_server_is_said(t):
    fake = t.fake()
    weir = t.weir(config=config([fake]))

    def problem(body):
        answer = ask(weir, "POST", body=body)
        assert answer.status == 422, (body, answer)
        first = answer.json()["detail"][0]
        return first["loc"][1:], first["msg"]

    def names(body, member, words):
        loc, msg = problem(body)
        assert loc == member and words in msg and "body:" not in msg, (body, loc, msg)

    names([1], [], "object")
    names({}, [], "no \"url\"")
    names({"url": fake.url}, [], "no \"name\"")
    names({"name": "x", "url": "nonsense"}, ["url"], "scheme")
    names({"name": "x y", "url": fake.url}, ["name"], "name")
    names({"name": "x", "url": fake.url, "weight": 0}, ["weight"], "number")
    names({"name": "x", "url": fake.url, "weight": None}, ["weight"], "expected")
    names({"name": "x", "url": fake.url, "models": []}, ["models"], "at least one")
    names({"name": "x", "url": fake.url, "wieght": 1}, [], "did you mean \"weight\"")
    names({"name": "x", "url": fake.url, "timeouts": {"connect": "soon"}}, ["timeouts"], "soon")
    names({"name": "x", "url": fake.url, "api_key": "${HOME}"}, ["api_key"], "HOME")
    names({"name": "x", "url": fake.url.replace("http:", "https:"), "tls": {"ca": "/nowhere.pem"}}, ["tls"], "/nowhere.pem")
    loc, _ = problem('{"name": "x"')
    assert isinstance(loc[0], int)
    problem('{"name": "x", "name": "y", "url": "http://127.0.0.1:1"}')
    problem('{"name": "x", "url": "http://127.0.0.1:1"}, {"name": "y"}')
    assert ask(weir, "POST", body='{"name": "' + "x" * 70000 + '"}').status == 413
    for path in ("/nobody", "/%zz", "/%", "/a%00", "/", "/" + "x" * 600):
        assert ask(weir, "DELETE", PATH + path).status == 404, path
    for path in ("/nobody/drain", "/nobody/undrain", "/a/x", "/a", "/drain", "/undrain", "/a/redrain"):
        assert ask(weir, "POST", PATH + path).status == 404, path
    assert ask(weir, "DELETE", PATH + "/a?force=maybe").status == 422
    assert set(listed(weir)) == {"a"} and listed(weir)["a"]["state"] == "healthy"


def stream_in_background(weir, results):
    def run():
        results.append(weir.stream(body=chat(model="m")))
    thread = threading.Thread(target=run)
    thread.start()
    return thread


@smoke
def test_a_server_that_is_removed_ends_its_streams_first(t):
    a, b = t.fake("events=30,pace_ms=50"), t.fake("events=2")
    weir = t.weir(config=f'{ADMINS}backends:\n  - {{ name: a, url: "{a.url}" }}\n')
    results = []
    thread = stream_in_background(weir, results)
    a.wait_requests()
    assert ask(weir, "POST", body={"name": "b", "url": b.url}).status == 201
    answer = ask(weir, "DELETE", PATH + "/a")
    assert answer.status == 202 and answer.json()["state"] == "draining" and answer.json()["leaving"] is True, answer
    for _ in range(4):
        assert weir.stream().status == 200
    assert a.stats()["requests"] == 1 and b.stats()["requests"] == 4
    assert listed(weir)["a"]["in_flight"] == 1
    thread.join()
    assert results[0].status == 200 and results[0].body.count(b"data:") > 30 and results[0].body.endswith(b"[DONE]\n\n")
    wait_until(lambda: set(listed(weir)) == {"b"}, "a to be gone")
    assert [line["state"] for line in weir.log_lines() if line["msg"] == "backend"] == ["added", "draining", "removed"]


@smoke
def test_a_server_removed_by_force_is_gone_at_once_but_its_streams_go_on(t):
    a, b = t.fake("events=20,pace_ms=50"), t.fake("events=2")
    weir = t.weir(config=config([a]))
    results = []
    thread = stream_in_background(weir, results)
    a.wait_requests()
    assert ask(weir, "POST", body={"name": "b", "url": b.url}).status == 201
    assert ask(weir, "DELETE", PATH + "/a?force=true").json() == {"status": "removed"}
    assert set(listed(weir)) == {"b"}
    thread.join()
    assert results[0].body.endswith(b"[DONE]\n\n")
    assert weir.stream().status == 200 and a.stats()["requests"] == 1


def test_a_drained_server_gets_nothing_more_and_stays_in_the_list(t):
    a, b = t.fake(), t.fake()
    weir = t.weir(config=config([a, b]), args=["--workers", "2"])
    answer = ask(weir, "POST", PATH + "/a/drain")
    assert answer.status == 200 and answer.json()["state"] == "draining", answer
    for _ in range(6):
        assert weir.stream().status == 200
    assert a.stats()["requests"] == 0 and listed(weir)["a"]["state"] == "draining"
    assert ask(weir, "POST", PATH + "/b/drain").status == 200
    assert weir.stream().status == 503
    answer = ask(weir, "POST", PATH + "/a/undrain")
    assert answer.status == 200 and answer.json()["state"] == "healthy", answer
    assert weir.stream().status == 200 and a.stats()["requests"] == 1
    assert ask(weir, "DELETE", PATH + "/a").status == 200 and ask(weir, "DELETE", PATH + "/b").status == 200
    assert listed(weir) == {}
    assert weir.stream().status == 404


@smoke
def test_reload(t):
    a, b = t.fake("events=20,pace_ms=50"), t.fake("events=2")
    weir = t.weir(config=config([a]), args=["--workers", "2"])
    assert ask(weir, "POST", body={"name": "added", "url": a.url}).status == 201
    results = []
    thread = stream_in_background(weir, results)
    a.wait_requests()
    path = t.dir / f"{weir.name}.yaml"
    path.write_text(config([b], "wieght: 1\n"))
    answer = ask(weir, "POST", "/admin/reload")
    assert answer.status == 422 and "wieght" in answer.json()["error"]["message"], answer
    assert set(listed(weir)) == {"a", "added"}
    path.write_text(config([b]))
    answer = ask(weir, "POST", "/admin/reload")
    assert answer.status == 200 and answer.json() == {"status": "ok"}, answer
    wait_until(lambda: listed(weir)["a"]["url"] == b.url, "the new configuration")
    assert set(listed(weir)) == {"a", "added"}
    wait_until(lambda: weir.stream().status == 200 and b.stats()["requests"] > 1, "its server")
    thread.join()
    assert results[0].body.endswith(b"[DONE]\n\n")
    assert weir.ask("POST", "/admin/reload").status == 401


def test_what_is_known_of_servers_outlives_a_reload(t):
    a, dead, slow = t.fake(), f"http://127.0.0.1:{free_port()}", t.fake("events=30,pace_ms=100")
    text = (f'{ADMINS}health: {{ failures: 1, ejection: 10m, max_ejection: 10m }}\nbackends:\n  - {{ name: a, url: "{a.url}", models: [m] }}\n'
            f'  - {{ name: dead, url: "{dead}", models: [m] }}\n  - {{ name: resting, url: "{a.url}", models: [m] }}\n  - {{ name: leaving, url: "{slow.url}", models: [slow] }}\n')
    weir = t.weir(config=text, args=["--workers", "2"])
    path = t.dir / f"{weir.name}.yaml"

    def states():
        return {name: backend["state"] for name, backend in listed(weir).items()}

    wait_until(lambda: weir.stream(body=chat(model="m")).status == 200 and states()["dead"] == "ejected", "the ejection")
    assert ask(weir, "POST", PATH + "/resting/drain").status == 200
    thread = threading.Thread(target=lambda: weir.stream(body=chat(model="slow")))
    thread.start()
    slow.wait_requests()
    assert ask(weir, "DELETE", PATH + "/leaving").status == 202
    assert ask(weir, "POST", PATH + "/leaving/undrain").json()["error"]["code"] == "backend_leaving"
    path.write_text(text.replace("name: a,", "name: a, weight: 7,"))
    assert ask(weir, "POST", "/admin/reload").status == 200
    wait_until(lambda: listed(weir)["a"]["weight"] == 7, "the new configuration")
    # The file has the one that was leaving.
    assert states() == {"a": "healthy", "dead": "ejected", "resting": "draining", "leaving": "healthy"}
    assert listed(weir)["dead"]["ejections"] == 1
    before = a.stats()["requests"]
    assert [weir.stream(body=chat(model="m")).header("x-weir-attempts") for _ in range(4)] == ["1"] * 4
    assert a.stats()["requests"] == before + 4
    thread.join()
    # Whose settings have changed is another one.
    path.write_text(text.replace("dead, ", "dead, api_key: sk-new, "))
    assert ask(weir, "POST", "/admin/reload").status == 200
    wait_until(lambda: states()["dead"] == "healthy" and states()["resting"] == "draining", "the new configuration")


@smoke
def test_a_server_that_was_added_stays_over_reloads_until_it_is_removed(t):
    a, b = t.fake(), t.fake()
    mine = f'  - {{ name: a, url: "{a.url}", models: [m] }}\n'
    weir = t.weir(config=config([], mine), args=["--workers", "2"])
    path = t.dir / f"{weir.name}.yaml"

    def reload(text):
        path.write_text(text)
        assert ask(weir, "POST", "/admin/reload").status == 200

    for name in ("kept", "resting", "listed", "gone"):
        body = {"name": name, "url": b.url, "models": [name], "max_concurrent": 3, "api_key": "sk-0123456789"}
        assert ask(weir, "POST", body=body).status == 201
    assert ask(weir, "POST", PATH + "/resting/drain").status == 200
    assert ask(weir, "DELETE", PATH + "/gone").status == 200
    for weight in (2, 3):
        more = f'  - {{ name: listed, url: "{a.url}", models: [listed], weight: {weight} }}\n'
        reload(config([], mine + more))
        wait_until(lambda n=weight: listed(weir).get("listed", {}).get("weight") == n, "the new configuration")
        servers = listed(weir)
        # The file's word goes before the administrator's.
        assert set(servers) == {"a", "listed", "kept", "resting"} and servers["listed"]["url"] == a.url, servers
        assert servers["kept"]["max_concurrent"] == 3 and servers["resting"]["state"] == "draining", servers
    before = a.stats()["requests"]
    assert [weir.stream(body=chat(model=model)).status for model in ("listed", "kept", "resting")] == [200, 200, 503]
    assert (a.stats()["requests"] - before, b.stats()["requests"]) == (1, 1)
    assert b.last().json()["model"] == "kept" and b.last().header("authorization") == "Bearer sk-0123456789"
    assert any("listed" in line["msg"] and "file" in line["msg"] for line in weir.log_lines() if line["level"] == "warn"), weir.log()
    assert ask(weir, "DELETE", PATH + "/kept").status == 200
    reload(config([], mine))
    wait_until(lambda: set(listed(weir)) == {"a", "resting"}, "the new configuration")


def test_servers_come_and_go_under_load(t):
    a, b = t.fake("events=3"), t.fake("events=3")
    weir = t.weir(config=config([a]), args=["--workers", "2"])
    bad, count, stop = [], [0], threading.Event()

    def run():
        while not stop.is_set():
            answer = weir.stream()
            count[0] += 1
            if answer.status != 200 or not answer.body.endswith(b"[DONE]\n\n"):
                bad.append(answer)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(12):
        assert ask(weir, "POST", body={"name": f"b{i}", "url": b.url, "discover": "100ms"}).status == 201
        before = count[0]
        wait_until(lambda n=before: count[0] > n + 8, "requests")
        assert ask(weir, "DELETE", f"{PATH}/b{i}{'?force=true' if i % 2 else ''}").status in (200, 202)
        if i % 4 == 3:
            assert ask(weir, "POST", "/admin/reload").status == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert not bad, bad[:3]
    assert b.stats()["requests"] > 0
    wait_until(lambda: set(listed(weir)) == {"a"}, "all to be gone")
