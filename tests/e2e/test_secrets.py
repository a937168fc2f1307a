"""What nobody may read: keys of clients, admins and backends, passwords, prompts. They are told by no log line, metric,
page, error or command, whichever way they came."""
import json

from harness import free_port, limit, smoke, wait_until
from websocket import WebSocket

CHAT = "/v1/chat/completions"
MARK = "5ec2e7"  # is in every secret and nowhere else


def secret(name):
    return f"sk-{name}-{MARK}"


class Ears:
    """All that is told, by whom."""
    def __init__(self):
        self.texts = []

    def hear(self, who, text):
        self.texts.append((who, text.decode("latin-1") if isinstance(text, bytes) else text))

    def check(self):
        told = [(who, text[max(0, text.find(MARK) - 200):text.find(MARK) + 60]) for who, text in self.texts if MARK in text]
        assert not told, told


def everything_secret(fake, dead, redis):
    return f"""
log_level: debug
keys: [{{name: a, key: {secret('client')}}}, {{name: b, key: "${{SECRET_KEY}}"}}]
admin: {{keys: [{{name: root, key: {secret('admin')}}}]}}
routes: [{{path: /ws/chat, query_key: true}}, {{path: /chat, query_key: true}}, {{path: /v1/realtime, query_key: true}}]
backends:
  - {{name: good, url: '{fake.url}/v1?key={secret('url')}', api_key: {secret('backend')}, headers: {{x-private: {secret('header')}}}, models: [fake-1]}}
  - {{name: bad, url: '{dead}/v1?key={secret('url')}', api_key: {secret('backend')}, models: [dead]}}
  - {{name: odd, url: '{fake.url}', auth: x-api-key, api_key: {secret('backend')}, models: [odd], health: {{path: '/fake/health?key={secret('probe')}', interval: 100ms}}}}
cache: {{ttl: 1m}}
limits: {{a: {{limit: 1000/minute}}, b: {{limit: 2/minute, by: user, routes: [/v1/embeddings]}}}}
redis: {{url: 'redis://u:{secret('redis')}@{redis}/0'}}
"""


def ask_everything(weir, ears):
    """Good and bad requests of every kind, with secrets wherever one can stand."""
    auth = {"authorization": f"Bearer {secret('client')}", "cookie": secret("cookie"), "proxy-authorization": f"Basic {secret('proxy')}",
            "referer": f"http://x/?key={secret('referer')}"}
    wrong, say = secret("wrong"), [{"role": "user", "content": secret("prompt")}]
    statuses = []
    def ask(method, path, headers, body=None):
        answer = weir.ask(method, path, headers, body)
        ears.hear(f"{method} {path}", repr(answer) + repr(answer.headers) + answer.body.decode("latin-1"))
        statuses.append(answer.status)
        return answer.status
    for stream in (True, False):
        body = {"model": "fake-1", "stream": stream, "messages": say}
        assert ask("POST", CHAT, auth, body) == 200
        assert ask("POST", CHAT, auth, {**body, "model": "dead"}) == 502
        for headers in ({"x-api-key": wrong}, {"api-key": wrong}, {"authorization": f"Bearer {wrong}"}, {"authorization": f"Basic {wrong}"},
                        {"x-api-key": secret("admin")}):
            assert ask("POST", CHAT, headers, body) in (401, 429)
        assert ask("POST", CHAT, {**auth, "x-fake": "status=500"}, {**body, "n": 2}) == 500
        assert ask("POST", CHAT, {**auth, "x-fake": "status=401"}, {**body, "n": 4}) == 401
        assert ask("POST", CHAT, {**auth, "x-fake": "garbage"}, {**body, "n": 5}) in (200, 502)
        assert ask("POST", CHAT, {**auth, "x-fake": "cut_after=1"}, {**body, "stream": True, "n": 3}) == 200
        assert ask("POST", CHAT, auth, {**body, "messages": secret("prompt")}) in (400, 422)
        assert ask("POST", CHAT, auth, {**body, "temperature": secret("prompt")}) in (200, 400, 422)
    for _ in range(4):
        ask("POST", "/v1/embeddings", auth, {"model": "fake-1", "input": secret("prompt"), "user": secret("user")})
    assert 429 in statuses
    assert ask("POST", CHAT, auth, '{"model": "fake-1", "messages": "' + secret("prompt")) in (400, 415, 422)
    assert ask("GET", f"/v1/models?api_key={secret('query')}", auth) == 200
    assert ask("GET", f"/nowhere?key={secret('query')}", {"api-key": wrong}) == 404
    assert ask("GET", f"/v1/models?api_key={secret('client')}", {}) in (401, 429)
    for key in (wrong, secret("client")):
        assert ask("GET", f"/chat?api_key={key}&message={secret('prompt')}", {}) in (200, 401, 429)
    for path in ("/metrics", "/readyz", "/version", "/", "/admin/backends"):
        ask("GET", path, auth)
        ask("GET", path, {"authorization": f"Bearer {secret('admin')}"})
        ask("GET", path, {"authorization": f"Bearer {wrong}"})
    ask_administration(ask)
    with weir.connect() as wire:
        wire.send(f"GET /livez?key={secret('query')} HTTP/1.1\r\nauthorization: Bearer {secret('client')}\r\nhost: x\r\nhost: y\r\n\r\n")
        ears.hear("what is malformed", repr(wire.response()))


def ask_administration(ask):
    admin = {"authorization": f"Bearer {secret('admin')}", "content-type": "application/json"}
    new = {"name": "new", "url": f"http://127.0.0.1:1/?key={secret('url')}", "api_key": secret("backend"), "headers": {"x-private": secret("header")}}
    assert ask("POST", "/admin/backends", admin, json.dumps(new)) == 201
    assert ask("POST", "/admin/backends", admin, json.dumps(new)) == 409
    for wrong in ({"api_key": secret("back end")}, {"headers": {"x": secret("header") + "\n"}}, {"url": f"http://u:{secret('password')}@h/"},
                  {"auth": secret("backend")}, {"headers": secret("header")}, {"api_key": [secret("backend")]}):
        assert ask("POST", "/admin/backends", admin, json.dumps({**new, "name": "newer", **wrong})) == 422, wrong
    assert ask("GET", "/admin/backends", admin) == 200
    assert ask("POST", "/admin/cache/purge", admin, json.dumps({"model": "x"})) == 503
    assert ask("DELETE", "/admin/backends?name=new&now=true", admin) in (200, 202, 204, 404, 405)
    assert ask("POST", "/admin/reload", admin) in (200, 202, 204)


def talk_over_websockets(weir, ears):
    client, wrong = secret("client"), secret("wrong")
    for path in ("/ws/chat", "/v1/realtime?model=dead", "/v1/realtime?model=fake-1"):
        for key in (client, wrong):
            for headers, query in (({"authorization": f"Bearer {key}"}, ""), ({}, f"api_key={key}"),
                                   ({"sec_websocket_protocol": f"realtime, openai-insecure-api-key.{key}"}, "")):
                ws = WebSocket(weir, path + ("&" if "?" in path else "?") + query if query else path, headers)
                ears.hear(f"the handshake of {path}", repr(ws.headers) + ws.buffer.decode("latin-1"))
                if ws.status == 101:
                    for message in ({"id": 1, "model": "dead", "message": secret("prompt")}, {"id": 2, "model": "fake-1", "messages": secret("prompt")}):
                        ws.text(json.dumps(message))
                        ears.hear("an event", ws.read_text())
                    ws.close()
                else:
                    ws.drop()


@smoke
def test_no_secret_leaves_a_gateway(t):
    """The log is at its most talkative."""
    fake, ears = t.fake(), Ears()
    config = everything_secret(fake, f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    weir = t.weir(config=config, env={"SECRET_KEY": secret("file")})
    ask_everything(weir, ears)
    talk_over_websockets(weir, ears)
    assert secret("backend") in str(fake.last().headers), "it went where it belongs"
    for mistake in ("log_level: nonsense\n", f"keys: [{{name: a, key: {secret('x')[:5]}}}]\n", f"api_key: {secret('stray')}\n"):
        (t.dir / "weir1.yaml").write_text(config + mistake)
        before = weir.log().count("reload")
        weir.signal(1)
        wait_until(lambda before=before: weir.log().count("reload") > before, "the reload")
    (t.dir / "weir1.yaml").write_text(config)
    weir.signal(1)
    wait_until(lambda: "the new configuration holds" in weir.log(), "the reload")
    assert weir.stream(headers={"authorization": f"Bearer {secret('client')}"}).status == 200
    ears.hear("metrics", weir.ask("GET", "/metrics", {"authorization": f"Bearer {secret('admin')}"}).body)
    weir.stop()
    ears.hear("the log", weir.log())
    ears.hear("weir check", "".join((done := t.run("check", t.dir / "weir1.yaml", env={"SECRET_KEY": secret("file")})).stdout + done.stderr))
    assert done.returncode == 0, done
    done = t.run("env", "--config", t.dir / "weir1.yaml", env={"SECRET_KEY": secret("file")})
    assert done.returncode == 0, done
    ears.hear("weir env", done.stdout + done.stderr)
    ears.check()


def test_a_text_log_tells_no_secret(t):
    fake, ears = t.fake(), Ears()
    config = everything_secret(fake, f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    weir = t.weir(config=config, env={"SECRET_KEY": secret("file")}, args=["--log-format", "text"])
    ask_everything(weir, ears)
    weir.stop()
    ears.hear("the log", weir.log())
    ears.check()


MISTAKES = (  # what is wrong is next to a secret, or is the secret
    "keys: [{{name: a, key: 'blank {s}'}}]", "keys: [{{name: a, key: '{s}', hash: '{s}'}}]", "keys: [{{name: a, hash: '{s}'}}]",
    "keys: [{{name: a, hash: 'sha256:{s}'}}]", "keys: [{{name: a, key: [{s}]}}]", "keys: ['{s}']", "keys: {s}", "keys: {{a: '{s}'}}",
    "keys: [{{name: a, key: '{s}'}}, {{name: b, key: '{s}'}}]", "keys: [{{name: a, key: \"{s}\\n\"}}]", "keys: [{{name: a, key: '${{NOT_THERE}}{s}'}}]",
    "keys: [{{name: a, key: '{s}', more: 1}}]", "admin: {{keys: [{{name: a, key: 'blank {s}'}}]}}", "admin: {{keys: '{s}'}}",
    "admin: {{keys: [{{name: a, hash: '{s}'}}]}}",
    "backends: [{{name: a, url: 'http://h', api_key: 'blank {s}'}}]", "backends: [{{name: a, url: 'http://h', api_key: [{s}]}}]",
    "backends: [{{name: a, url: 'http://user:{s}@h'}}]", "backends: [{{name: a, url: 'http://user:{s}@h:99999/x'}}]",
    "backends: [{{name: a, url: 'http://h:x/?key={s}'}}]", "backends: [{{name: a, url: 'http://h/ ?key={s}'}}]",
    "backends: [{{name: a, url: 'ftp://h/?key={s}'}}]",
    "backends: [{{name: a, url: 'http://h', headers: {{x: \"{s}\\n\"}}}}]", "backends: [{{name: a, url: 'http://h', headers: ['{s}']}}]",
    "backends: [{{name: a, url: 'http://h', headers: {{authorization: '{s}'}}, api_key: '{s}'}}]",
    "backends: [{{name: a, url: 'http://h', auth: '{s}', api_key: '{s}'}}]",
    "redis: {{url: 'redis://u:{s}@'}}", "redis: {{url: 'redis://u:{s}@h:x/0'}}", "redis: {{url: 'redis://u:{s}@h/x'}}", "redis: {{url: 'http://u:{s}@h/0'}}",
    "redis: {{url: ['redis://u:{s}@h/0']}}", "redis: 'redis://u:{s}@h/x'", "redis: 'redis://u:{s}'", "redis: 'redis://{s}@h'")


@limit(120)
def test_no_secret_is_told_of_a_configuration_that_is_wrong(t):
    ears, path = Ears(), t.dir / "wrong.yaml"
    for mistake in MISTAKES:
        text = mistake.format(s=secret("x"))
        path.write_text(text + "\n")
        done = t.run("check", path)
        assert done.returncode == 1, (text, done)
        ears.hear(text.replace(MARK, "…"), done.stdout + done.stderr)
        done = t.run("env", "--config", path)
        ears.hear("weir env of " + text.replace(MARK, "…"), done.stdout + done.stderr)
    path.write_text("")
    for url in (f"redis://u:{secret('x')}@", f"redis://u:{secret('x')}@h:x", f"http://u:{secret('x')}@h", f"redis://{secret('x')}@h"):
        for args, env in ((["--redis", url], {}), ([], {"WEIR_REDIS": url})):
            for command in ([], ["env"]):
                done = t.run(*command, *args, "--config", path, env=env)
                assert done.returncode == 1, (url, done)
                ears.hear(f"weir {command} with a wrong Redis", done.stdout + done.stderr)
    for url in (f"http://u:{secret('x')}@h", f"http://h:x/?key={secret('x')}", f"ftp://h/?key={secret('x')}"):
        for args, env in ((["--backend", url], {}), ([], {"WEIR_BACKEND": url})):
            for command in ([], ["env"]):
                done = t.run(*command, *args, "--config", path, env=env)
                assert done.returncode == 1, (url, done)
                ears.hear(f"weir {command} with a wrong backend", done.stdout + done.stderr)
    for args in (["--api-key", f"blank {secret('x')}"], ["--api-key", f"{secret('x')}\n"], ["--api-key", secret("x"), "--api-key", secret("x")]):
        for command in ([], ["env"]):
            done = t.run(*command, *args, "--config", path)
            assert done.returncode == 1, (args, done)
            ears.hear(f"weir {command} with a wrong key", done.stdout + done.stderr)
    for env in ({"WEIR_API_KEY_FILE": secret("x")}, {"WEIR_REDIS_FILE": f"redis://u:{secret('x')}@h"}, {"WEIR_REDIS": f"redis://u:1/{secret('x')}@h:6379"},
                {"WEIR_REDIS": f"redis://u:1?{secret('x')}@h:6379"}, {"WEIR_REDIS": f"h?password={secret('x')}"}, {"WEIR_URL": f"h?key={secret('x')}"},
                {"WEIR_BACKEND": f"h/v1?key={secret('x')}"}):
        for command in ("check", "env"):
            done = t.run(command, "--config", path, env=env) if command == "env" else t.run(command, path, env=env)
            ears.hear(f"weir {command} with {list(env)[0]}", done.stdout + done.stderr)
    ears.check()


def test_commands_that_ask_a_gateway_tell_no_secret(t):
    ears = Ears()
    dead = f"127.0.0.1:{free_port()}"
    weir = t.weir(t.fake(), keys=[secret("client")])
    for command, url in (("ask", f"http://u:{secret('x')}@{dead}"), ("ask", f"http://{dead}/?key={secret('x')}"), ("ask", f"ftp://u:{secret('x')}@h"),
                         ("health", f"http://u:{secret('x')}@{dead}"), ("health", f"http://{dead}/?key={secret('x')}"),
                         ("health", f"ftp://u:{secret('x')}@h")):
        for args, env in ((["--url", url], {}), ([], {"WEIR_URL": url})):
            if command == "health" and env:
                continue
            done = t.run(command, *args, *(["hello"] if command == "ask" else []), env=env)
            assert done.returncode != 0, (command, url, done)
            ears.hear(f"weir {command}", done.stdout + done.stderr)
    for key in (secret("wrong"), f"blank {secret('x')}"):
        done = t.run("ask", "--url", weir.url, "hello", env={"WEIR_API_KEY": key})
        assert done.returncode != 0, done
        ears.hear("weir ask", done.stdout + done.stderr)
    done = t.run("ask", "--url", weir.url, "hello", env={"WEIR_API_KEY": secret("client")})
    assert done.returncode == 0, done
    ears.check()
