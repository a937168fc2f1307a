"""Backends that are asked now and then: whether they are well, and which models they serve."""
import http.server
import json
import threading

from harness import smoke, wait_until

MODELS = "/v1/models"
CHAT = "/v1/chat/completions"


class Server:
    """A model server in whose place the scenario decides what it says of itself."""
    def __init__(self, models=("m",)):
        self.health, self.models = 200, list(models)
        self.raw = None  # in place of the list of models
        self.hang = threading.Event()
        self.hang.set()
        self.asked = {"/health": 0, MODELS: 0, CHAT: 0}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def say(self, status, body):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):  # pylint: disable=invalid-name
                server.asked[self.path] = server.asked.get(self.path, 0) + 1
                if self.path == "/health":
                    server.hang.wait(60)
                    self.say(server.health, b"x" * 100)
                else:
                    listed = {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "test"} for name in server.models]}
                    self.say(200, json.dumps(listed).encode() if server.raw is None else server.raw)

            def do_POST(self):  # pylint: disable=invalid-name
                self.rfile.read(int(self.headers["content-length"]))
                server.asked[CHAT] += 1
                self.say(200, b'{"id":"x","object":"chat.completion","choices":[]}')

            def log_message(self, *args):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            def handle_error(self, *args):
                pass  # the gateway closes connections whose answers it does not want

        self.http = Listener(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.hang.set()
        self.http.shutdown()
        self.http.server_close()


def fleet(servers, more="", each=""):
    lines = "".join(f'  - {{ name: {chr(97 + i)}, url: "{server.url}"{each} }}\n' for i, server in enumerate(servers))
    return f"backends:\n{lines}{more}"


def state(weir, name):
    return next(backend for backend in weir.ask("GET", "/health").json()["backends"] if backend["name"] == name)["state"]


def plain(model="m"):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})


def ids(weir):
    return [model["id"] for model in weir.ask("GET", MODELS).json()["data"]]


PROBES = "health: { path: /health, interval: 100ms, timeout: 1s, rise: 2, fall: 2, ejection: 10m, max_ejection: 10m, slow_start: 0s }\n"


# ---------------------------------------------------------------- health

@smoke
def test_a_server_that_fails_probes_gets_no_requests_until_it_answers_them_again(t):
    with Server() as a, Server() as b:
        weir = t.weir(config=fleet([a, b], PROBES))
        wait_until(lambda: a.asked["/health"] > 2 and b.asked["/health"] > 2, "probes")
        assert state(weir, "a") == state(weir, "b") == "healthy"
        a.health = 500
        wait_until(lambda: state(weir, "a") == "ejected", "the ejection")
        before = a.asked[CHAT]
        for _ in range(6):
            assert weir.ask("POST", CHAT, body=plain()).status == 200
        assert a.asked[CHAT] == before and b.asked[CHAT] == 6, "no request has found out what probes knew"
        a.health = 204
        wait_until(lambda: state(weir, "a") == "healthy", "its return")
        for _ in range(4):
            assert weir.ask("POST", CHAT, body=plain()).status == 200
        assert a.asked[CHAT] > before
        lines = [line for line in weir.log_lines() if line["msg"] == "backend"]
        assert [line["state"] for line in lines][0] == "ejected" and lines[0]["reason"] == "it fails probes", lines
        assert "status 500" in lines[0]["problem"], lines


def test_a_health_endpoint_that_hangs_is_as_good_as_one_that_fails(t):
    with Server() as a, Server() as b:
        weir = t.weir(config=fleet([a, b], PROBES.replace("timeout: 1s", "timeout: 200ms")))
        a.hang.clear()
        wait_until(lambda: state(weir, "a") == "ejected", "the ejection")
        assert state(weir, "b") == "healthy"
        problem = next(line for line in weir.log_lines() if line["msg"] == "backend")["problem"]
        assert problem, "it says why"
        a.hang.set()
        wait_until(lambda: state(weir, "a") == "healthy", "its return")


@smoke
def test_probes_never_eject_the_last_server_standing(t):
    with Server() as a:
        a.health = 503
        weir = t.weir(config=fleet([a], PROBES))
        wait_until(lambda: a.asked["/health"] > 6, "probes")
        assert weir.ask("POST", CHAT, body=plain()).status == 200 and state(weir, "a") == "failing"
        lines = [line for line in weir.log_lines() if line["msg"] == "backend"]
        assert len(lines) == 1 and lines[0]["state"] == "failing", lines
        a.health = 204
        wait_until(lambda: state(weir, "a") == "healthy", "its return")
        wait_until(lambda: [line["state"] for line in weir.log_lines() if line["msg"] == "backend"] == ["failing", "healthy"], "the log")


def test_a_first_choice_that_fails_probes_is_passed_over_although_nobody_else_serves_its_model(t):
    with Server() as a, Server() as b:
        config = (f'backends:\n  - {{ name: a, url: "{a.url}", models: [gpt-x] }}\n  - {{ name: b, url: "{b.url}", models: [llama] }}\n'
                  f'models: {{ best: [gpt-x@a, llama@b] }}\n{PROBES}')
        a.health = 503
        weir = t.weir(config=config)
        wait_until(lambda: state(weir, "a") == "failing", "the probes to fail")
        for _ in range(4):
            assert weir.ask("POST", CHAT, body=plain("best")).status == 200
        assert (a.asked.get(CHAT, 0), b.asked.get(CHAT, 0)) == (0, 4), "who has a choice goes elsewhere"
        assert weir.ask("POST", CHAT, body=plain("gpt-x")).status == 200 and a.asked[CHAT] == 1
        assert state(weir, "a") == "failing", "probes are asked, not answers"
        a.health = 204
        wait_until(lambda: state(weir, "a") == "healthy", "its return")
        assert weir.ask("POST", CHAT, body=plain("best")).status == 200 and a.asked[CHAT] == 2


def test_a_backend_may_be_probed_elsewhere_or_not_at_all(t):
    with Server() as a, Server() as b, Server() as c:
        config = (f'backends:\n  - {{ name: a, url: "{a.url}/v1", health: {{ path: "/ready?deep=1" }} }}\n'
                  f'  - {{ name: b, url: "{b.url}", health: {{ path: off }} }}\n  - {{ name: c, url: "{c.url}" }}\n{PROBES}')
        t.weir(config=config)
        wait_until(lambda: a.asked.get("/ready?deep=1", 0) > 1 and c.asked["/health"] > 1, "probes")
        assert a.asked["/health"] == 0 and b.asked["/health"] == 0


def test_a_reload_ends_the_old_probes_and_begins_the_new(t):
    with Server() as a, Server() as b:
        weir = t.weir(config=fleet([a], PROBES))
        wait_until(lambda: a.asked["/health"] > 1, "probes")
        (t.dir / f"{weir.name}.yaml").write_text(fleet([b], PROBES))
        weir.signal(1)
        wait_until(lambda: b.asked["/health"] > 1, "probes of the new one")
        before = a.asked["/health"]
        seen = b.asked["/health"]
        wait_until(lambda: b.asked["/health"] > seen + 3, "more probes")
        assert a.asked["/health"] <= before + 1


def test_probes_of_a_dead_server_find_it_again(t):
    a, b = t.fake(), t.fake()
    weir = t.weir(config=f'backends:\n  - {{ name: a, url: "{a.url}" }}\n  - {{ name: b, url: "{b.url}" }}\n{PROBES}')
    a.crash()
    wait_until(lambda: state(weir, "a") == "ejected", "the ejection")
    answers = [weir.stream() for _ in range(5)]
    assert [answer.header("x-weir-attempts") for answer in answers] == ["1"] * 5
    a = a.revive()
    wait_until(lambda: state(weir, "a") == "healthy", "its return")


# ---------------------------------------------------------------- models

@smoke
def test_a_server_serves_the_models_that_it_lists(t):
    with Server(["x", "both"]) as a, Server(["y", "both"]) as b:
        weir = t.weir(config=fleet([a, b], each=", discover: 200ms"), args=["--workers", "2"])
        wait_until(lambda: weir.ask("POST", CHAT, body=plain("nobody")).status == 404, "both lists")
        before = a.asked[CHAT], b.asked[CHAT]
        for _ in range(4):
            assert weir.ask("POST", CHAT, body=plain("x")).status == 200
            assert weir.ask("POST", CHAT, body=plain("y")).status == 200
        assert (a.asked[CHAT] - before[0], b.asked[CHAT] - before[1]) == (4, 4)
        for _ in range(4):
            assert weir.ask("POST", CHAT, body=plain("both")).status == 200
        assert a.asked[CHAT] > before[0] + 4 or b.asked[CHAT] > before[1] + 4
        answer = weir.ask("POST", CHAT, body=plain("nobody"))
        assert answer.status == 404 and answer.json()["error"]["code"] == "model_not_found", answer
        assert sorted(ids(weir)) == ["both", "x", "y"]
        assert weir.ask("GET", MODELS).json()["data"][0]["owned_by"] == "test", "entries as the server gives them"
        a.models = ["z"]
        wait_until(lambda: weir.ask("POST", CHAT, body=plain("z")).status == 200, "the new model")
        assert weir.ask("POST", CHAT, body=plain("x")).status == 404
        assert sorted(ids(weir)) == ["both", "y", "z"]


def test_garbage_for_a_list_leaves_the_last_good_one(t):
    with Server(["x"]) as a:
        weir = t.weir(config=fleet([a], each=", discover: 150ms"))
        wait_until(lambda: weir.ask("POST", CHAT, body=plain("nobody")).status == 404, "the list")
        known = [line for line in weir.log_lines() if line["msg"] == "models"]
        assert len(known) == 1 and known[0]["models"] == 1, known
        for raw, words in ((b"<html>", "not JSON"), (b'{"data": 5}', "data"), (b"[]", "data"), (b'{"data": [{}]}', "id"),
                           (b'{"data": ["x"]}', "id"), (b" " * 10_000_000, "1 MiB"),
                           (json.dumps({"data": [{"id": f"m{i}"} for i in range(10001)]}).encode(), "10000")):
            a.raw = raw
            asked = a.asked[MODELS]
            wait_until(lambda n=asked: a.asked[MODELS] > n + 2, "questions")
            assert weir.ask("POST", CHAT, body=plain("x")).status == 200, words
            assert weir.ask("POST", CHAT, body=plain("nobody")).status == 404, words
            a.raw = None
            asked = a.asked[MODELS]
            wait_until(lambda n=asked: a.asked[MODELS] > n + 2, "questions")
            lines = [line for line in weir.log_lines() if line["msg"] == "models" and words in line.get("problem", "")]
            assert lines, (words, [line for line in weir.log_lines() if line["msg"] == "models"])
        assert len([line for line in weir.log_lines() if line["msg"] == "models"]) <= 1 + 2 * 7 + 7, "not with every question"
        a.raw = b'{"data": null}'
        wait_until(lambda: weir.ask("POST", CHAT, body=plain("x")).status == 404, "a server without models")


def test_until_the_first_list_a_server_serves_all(t):
    with Server(["x"]) as a:
        a.raw = b"nothing"
        weir = t.weir(config=fleet([a], each=", discover: 150ms"))
        wait_until(lambda: a.asked[MODELS] > 2, "questions")
        assert weir.ask("POST", CHAT, body=plain("any")).status == 200


@smoke
def test_the_list_of_models_leaves_out_those_of_ejected_servers(t):
    with Server(["x", "both"]) as a, Server(["both"]) as b, Server(["x", "w"]) as c:
        weir = t.weir(config=fleet([a, b, c], PROBES))
        wait_until(lambda: len(ids(weir)) == 3, "all")
        c.health = 500
        wait_until(lambda: state(weir, "c") == "ejected", "the ejection")
        assert sorted(ids(weir)) == ["both", "x"]
        assert a.asked[MODELS] and b.asked[MODELS]


def test_what_stops_the_start(t):
    for line, words in (("health: { path: health }", "path"), ("health: { path: '/a b' }", "blank"), ("health: { interval: 10ms }", "100ms"),
                        ("health: { rise: 0 }", "rise"), ("health: { fall: x }", "fall"), ("health: { timeout: 0s }", "timeout"),
                        ("backends: [{ url: 'http://127.0.0.1:1', discover: 1ms }]", "100ms"),
                        ("backends: [{ url: 'http://127.0.0.1:1', discover: 1s, models: [a] }]", "one of them"),
                        ("backends: [{ url: 'demo:', discover: 1s }]", "demo")):
        path = t.dir / "bad.yaml"
        path.write_text(line + "\n")
        done = t.run("check", path)
        assert done.returncode == 1 and words in done.stderr, (line, done.stderr)
