"""API keys: who may use what, and whose credential goes where."""
import hashlib
import json

from harness import KEY, chat, smoke

CHAT = "/v1/chat/completions"
WRONG = "sk-wrong-0123456789abcdef"


def hashed(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


@smoke
def test_a_key_is_accepted_in_each_header(t):
    fake, weir = t.pair(keys=[KEY, "second-key-0123456789"])
    for headers in ({"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}, {"api-key": KEY},
                    {"authorization": "Bearer second-key-0123456789"}):
        assert weir.stream(headers=headers).status == 200, headers
        seen = json.dumps(fake.last().headers)
        assert KEY not in seen and "second-key" not in seen, "an accepted credential is never forwarded"
        assert fake.last().header("authorization") is None
    assert KEY not in weir.log()


@smoke
def test_no_key_or_a_wrong_one_is_401(t):
    fake, weir = t.pair(keys=[KEY])
    for headers in ({}, {"authorization": f"Bearer {WRONG}"}, {"x-api-key": WRONG}, {"authorization": f"Basic {KEY}"},
                    {"authorization": "Bearer "}, {"authorization": f"Bearer {KEY}x"}, {"authorization": f"Bearer {KEY[:-1]}"},
                    {"x-api-key": ""}, {"cookie": f"key={KEY}"}):
        answer = weir.stream(headers=headers)
        assert answer.status == 401, (headers, answer)
        assert answer.header("www-authenticate", "").startswith("Bearer"), answer
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error", error
        if any(WRONG in value or KEY + "x" in value for value in headers.values()):
            assert error["code"] == "invalid_api_key", error
        assert WRONG not in answer.body.decode() and answer.json()["detail"]
    assert weir.ask("POST", CHAT + f"?api_key={KEY}", None, chat()).status == 401, "keys do not stand in URLs"
    assert fake.stats()["requests"] == 0 and WRONG not in weir.log() and KEY not in weir.log()
    answer = weir.ask("POST", "/v1/messages", None, {"model": "m", "messages": [{"role": "user", "content": "x"}]})
    assert answer.status == 401 and answer.json()["error"]["type"] == "authentication_error", answer


def test_one_connection_may_bring_one_key_after_the_other(t):
    _, weir = t.pair(config=f"""
keys:
  - {{ name: alice, hash: "{hashed('alice-key-0123456789')}" }}
  - {{ name: bobby, hash: "{hashed('bobby-key-0123456789')}", routes: [/v1/models] }}
""")
    with weir.connect() as wire:
        for turn, (key, status, name) in enumerate((("alice-key-0123456789", 200, "alice"),) * 2 + (
                ("alice-key-012345678x", 401, None), ("alice-key-012345678", 401, None), ("", 401, None),
                ("bobby-key-0123456789", 403, "bobby"), ("alice-key-0123456789", 200, "alice"))):
            wire.request("POST", CHAT, {"x-api-key": key, "x-request-id": f"turn-{turn}"}, chat(False))
            answer = wire.response()
            assert answer.status == status and weir.request_line(f"turn-{turn}").get("key") == name, (turn, answer)


def test_a_refused_request_is_not_even_validated(t):
    _, weir = t.pair(keys=[KEY])
    assert weir.ask("POST", CHAT, {"content-type": "application/json"}, "not json").status == 401


@smoke
def test_keys_with_models_routes_and_expiry(t):
    fake = t.fake()
    weir = t.weir(config=f"""
backends:
  - {{ name: a, url: "{fake.url}" }}
keys:
  - {{ name: alice, hash: "{hashed('alice-key-0123456789')}", models: ["fake-*"] }}
  - {{ name: bob, key: "${{BOB_KEY}}", routes: [/v1/embeddings, /v1/models] }}
  - {{ name: carol, key: "carol-key-0123456789", expires: 2020-01-01 }}
  - {{ name: dave, key: "dave-key-0123456789", expires: 2099-01-01 }}
""", env={"BOB_KEY": "bob-key-0123456789"})
    embed = {"model": "other", "input": "x"}

    def ask(name, path=CHAT, body=None):
        return weir.ask("POST", path, {"authorization": f"Bearer {name}-key-0123456789", "x-request-id": f"from-{name}"},
                        body or chat())

    assert ask("alice").status == 200 and weir.request_line("from-alice")["key"] == "alice"
    answer = ask("alice", body=chat(model="gpt-9"))
    assert answer.status == 403 and answer.json()["error"]["message"], answer
    assert ask("bob").status == 403
    assert ask("bob", "/v1/embeddings", embed).status == 200
    assert ask("bob", "/embeddings", embed).status == 200, "an alias is the same route"
    answer = ask("carol")
    assert answer.status == 401 and answer.json()["error"]["code"] == "invalid_api_key", answer
    assert ask("dave").status == 200
    log = weir.log()
    assert not any(f"{name}-key" in log for name in ("alice", "bob", "carol", "dave"))


def test_health_and_index_need_no_key_but_models_do(t):
    _, weir = t.pair(keys=[KEY])
    for path in ("/", "/livez", "/readyz", "/health", "/version", "/metrics"):
        assert weir.ask("GET", path).status == 200, path
    for path in ("/v1/models", "/models"):
        assert weir.ask("GET", path).status == 401, path
        assert weir.ask("GET", path, {"x-api-key": KEY}).status == 200, path
    assert weir.ask("POST", "/v1/files", None, {}).status == 401
    assert weir.ask("GET", "/v1/responses/abc").status == 401


@smoke
def test_an_open_gateway_forwards_the_clients_credential(t):
    fake, weir = t.pair()
    for name, value in (("authorization", "Bearer clients-own-key"), ("x-api-key", "clients-own-key"), ("api-key", "clients-own")):
        assert weir.stream(headers={name: value}).status == 200
        assert fake.last().header(name) == value
    assert "clients-own" not in weir.log()


def test_a_public_model_route_beside_keys(t):
    fake = t.fake()
    weir = t.weir(config=f"""
backends: [{{ name: a, url: "{fake.url}" }}]
keys: [{{ name: alice, key: "{KEY}" }}]
routes:
  - {{ path: /v1/embeddings, depends: [public, validate] }}
""")
    assert weir.ask("POST", "/v1/embeddings", None, {"model": "m", "input": "x"}).status == 200
    assert weir.ask("POST", "/v1/embeddings", None, {"model": 7, "input": "x"}).status == 400
    assert weir.stream().status == 401


def test_a_route_that_would_be_open_by_accident_stops_the_start(t):
    config = t.dir / "x.yaml"
    config.write_text(f'keys: [{{ name: a, key: "{KEY}" }}]\nroutes:\n  - path: /v1/embeddings\n    depends: [validate]\n')
    done = t.run("check", config)
    assert done.returncode != 0 and f"{config}:" in done.stderr + done.stdout and "public" in done.stderr + done.stdout, done


def test_keys_from_environment_and_file(t):
    secret = t.dir / "keys"
    secret.write_text("file-key-0123456789\n")
    fake = t.fake()
    weir = t.weir(fake, env={"WEIR_API_KEY_FILE": str(secret)})
    assert weir.stream(headers={"x-api-key": "file-key-0123456789"}).status == 200 and weir.stream().status == 401
    weir = t.weir(fake, env={"WEIR_API_KEY": "one-key-0123456789,two-key-0123456789"})
    assert weir.stream(headers={"x-api-key": "two-key-0123456789"}).status == 200 and weir.stream().status == 401


def test_other_machines_are_not_served_without_keys_unless_open(t):
    from harness import free_port
    refused = t.weir(listen=[f"0.0.0.0:{free_port()}"], fail=True)
    assert refused.wait() != 0
    refused.expected_status = refused.popen.returncode
    assert "--open" in refused.log(), refused.log()
    for extra in ({"args": ["--open"]}, {"keys": [KEY]}):
        weir = t.weir(listen=[f"0.0.0.0:{free_port()}"], **extra)
        assert weir.alive()


# ---------------------------------------------------------------- ways round the list of models

FORM = {"content-type": "multipart/form-data; boundary=b"}


def form(*models):
    parts = "".join(f'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n{model}\r\n' for model in models)
    return (parts + "--b--\r\n").encode()


@smoke
def test_two_models_in_one_request_do_not_get_round_the_list(t):
    """Whichever of the two the backend would take."""
    fake = t.fake()
    weir = t.weir(config=f"""
backends: [{{ name: a, url: "{fake.url}" }}]
keys:
  - {{ name: some, key: "some-key-0123456789", models: [allowed] }}
  - {{ name: all, key: "{KEY}" }}
""")

    def ask(path, headers, body, key="some-key-0123456789"):
        return weir.ask("POST", path, {"authorization": f"Bearer {key}", **headers}, body)

    plain = {"content-type": "application/json"}
    for path in ("/v1/moderations", "/v1/rerank", "/v1/images/generations"):
        assert ask(path, plain, '{"model":"allowed","input":"x"}').status == 200
        assert ask(path, plain, '{"model":"forbidden","input":"x"}').status == 403
        for one, two in (("forbidden", "allowed"), ("allowed", "forbidden"), ("allowed", "allowed")):
            text = f'{{"model":"{one}","input":"x","model":"{two}"}}'
            answer = ask(path, plain, text)
            assert answer.status == 403 and answer.json()["error"]["code"] == "model_not_allowed", (one, two, answer)
    assert ask("/v1/moderations", plain, '{"model":"forbidden","mod\\u0065l":"allowed"}').status == 403
    assert ask("/v1/audio/transcriptions", FORM, form("allowed")).status == 200
    for models in (("forbidden",), ("allowed", "forbidden"), ("forbidden", "allowed"), ()):
        assert ask("/v1/audio/transcriptions", FORM, form(*models)).status == 403, models
    assert fake.stats()["requests"] == 4, "none of the refused ones went out"
    assert ask("/v1/moderations", plain, '{"model":"a","input":"x","model":"b"}', KEY).status == 200, "a free key may"


@smoke
def test_a_proxied_prefix_does_not_get_round_the_list(t):
    fake, tools = t.fake(), t.fake()
    weir = t.weir(config=f"""
backends:
  - {{ name: a, url: "{fake.url}" }}
  - {{ name: tools, url: "{tools.url}", models: [of-tools] }}
keys:
  - {{ name: held, key: "held-key-0123456789", models: [allowed] }}
  - {{ name: let, key: "let-key-0123456789", models: [allowed], routes: ["/tools/*", "/v1/chat/completions"] }}
  - {{ name: all, key: "{KEY}" }}
routes:
  - {{ path: "/tools/*", proxy: tools, depends: [api_key] }}
""")

    def ask(key, method="POST", body=b"data"):
        return weir.ask(method, "/tools/run", {"x-api-key": key}, body).status

    for method, body in (("POST", b"data"), ("GET", None), ("POST", {"model": "forbidden"})):
        assert ask("held-key-0123456789", method, body) == 403, (method, body)
    assert tools.stats()["requests"] == 0
    assert ask("let-key-0123456789", "GET", None) == 200
    assert ask("let-key-0123456789", "POST", {"model": "forbidden"}) == 403
    for method, body in (("POST", b"data"), ("GET", None), ("POST", {"model": "anything"})):
        assert ask(KEY, method, body) == 200
    assert tools.stats()["requests"] == 4 and fake.stats()["requests"] == 0
