"""The routes: aliases, models, what is passed on, proxied prefixes, CORS."""
from harness import KEY, chat, smoke

CHAT = "/v1/chat/completions"


@smoke
def test_paths_without_v1_are_aliases(t):
    fake, weir = t.pair()
    for path, body in (("/chat/completions", chat()), ("/completions", {"model": "m", "prompt": "x"}),
                       ("/embeddings", {"model": "m", "input": "x"}), ("/responses", {"model": "m", "input": "x"})):
        assert weir.ask("POST", path, None, body).status == 200, path
        assert fake.last().target == "/v1" + path
    assert weir.ask("GET", "/models").json() == weir.ask("GET", "/v1/models").json()


@smoke
def test_models_are_merged_over_the_backends(t):
    one, two = t.fake(models="alpha,beta"), t.fake(models="beta,gamma")
    weir = t.weir(one, two)
    answer = weir.ask("GET", "/v1/models")
    models = answer.json()
    assert answer.status == 200 and models["object"] == "list"
    assert sorted(m["id"] for m in models["data"]) == ["alpha", "beta", "gamma"], models
    assert all(m["object"] == "model" and "created" in m and "owned_by" in m for m in models["data"])


def test_models_shows_only_what_the_key_may_use_and_what_is_served(t):
    one, two = t.fake(models="alpha,beta"), t.fake(models="gamma,delta")
    weir = t.weir(config=f"""
backends:
  - {{ name: one, url: "{one.url}" }}
  - {{ name: two, url: "{two.url}", models: [gamma] }}
keys:
  - {{ name: all, key: "{KEY}" }}
  - {{ name: some, key: "some-key-0123456789", models: ["al*"] }}
""")

    def names(key):
        return sorted(m["id"] for m in weir.ask("GET", "/v1/models", {"x-api-key": key}).json()["data"])

    assert names(KEY) == ["alpha", "beta", "gamma"], names(KEY)
    assert names("some-key-0123456789") == ["alpha"]


def test_models_survives_a_dead_backend(t):
    from harness import free_port
    one = t.fake(models="alpha")
    weir = t.weir(one, f"http://127.0.0.1:{free_port()}")
    answer = weir.ask("GET", "/v1/models")
    assert answer.status == 200 and [m["id"] for m in answer.json()["data"]] == ["alpha"], answer


@smoke
def test_other_v1_routes_are_passed_on_with_any_method(t):
    fake, weir = t.pair()
    for method, path in (("POST", "/v1/audio/transcriptions"), ("POST", "/v1/images/generations"), ("GET", "/v1/files/file-1/content"),
                         ("DELETE", "/v1/files/file-1"), ("GET", "/v1/files?limit=3"), ("POST", "/v1/uploads/u/parts"),
                         ("POST", "/v1/batches"), ("POST", "/v1/moderations"), ("POST", "/v1/rerank"),
                         ("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1")):
        body = b"\x00\x01 binary" if method == "POST" else None
        answer = weir.ask(method, path, {"content-type": "application/octet-stream"} if body else None, body)
        assert answer.status == 200, (method, path, answer)
        last = fake.last()
        assert (last.method, last.target) == (method, path) and last.body == (body or b"")
    answer = weir.ask("POST", "/v1/messages/count_tokens", None, {"model": "m", "messages": []})
    assert answer.json() == {"input_tokens": 7}
    for path in ("/v1/fine_tuning/jobs", "/v1/assistants", "/v1/organization/users", "/v1/filesystem", "/v1/files/../admin"):
        answer = weir.ask("GET", path)
        assert answer.status in (400, 404), (path, answer)


def test_passed_routes_find_their_backend_by_model(t):
    one, two = t.fake(), t.fake()
    weir = t.weir(config=f"""
backends:
  - {{ name: one, url: "{one.url}", models: [whisper] }}
  - {{ name: two, url: "{two.url}", models: [painter], default: true }}
""")
    form = (b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nmodel=painter\r\n'
            b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n')
    assert weir.ask("POST", "/v1/audio/transcriptions", {"content-type": "multipart/form-data; boundary=b"}, form).status == 200
    assert one.stats()["requests"] == 1 and one.last().body == form
    assert weir.ask("POST", "/v1/images/generations", None, {"model": "painter"}).status == 200
    assert weir.ask("GET", "/v1/files").status == 200
    assert two.stats()["requests"] == 2


@smoke
def test_a_proxied_prefix_goes_to_its_backend(t):
    one, two = t.fake(), t.fake()
    weir = t.weir(config=f"""
backends:
  - {{ name: one, url: "{one.url}" }}
  - {{ name: tools, url: "{two.url}" }}
keys: [{{ name: a, key: "{KEY}" }}]
routes:
  - {{ path: "/tools/*", proxy: tools, depends: [api_key] }}
  - {{ path: "/open/*", proxy: tools, depends: [public] }}
""")
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        answer = weir.ask(method, "/tools/run?x=1", {"x-api-key": KEY}, b"data" if method != "GET" else None)
        assert answer.status == 200 and answer.json()["method"] == method and answer.json()["target"] == "/tools/run?x=1", answer
        assert KEY not in answer.body.decode()
    assert weir.ask("GET", "/tools/run").status == 401
    assert weir.ask("GET", "/open/thing").status == 200
    assert weir.ask("GET", "/toolsmith").status == 404
    assert one.stats()["requests"] == 0


def test_paths_that_climb_do_not_leave_their_route(t):
    fake = t.fake()
    weir = t.weir(config=f"""
backends: [{{ name: a, url: "{fake.url}" }}]
keys: [{{ name: a, key: "{KEY}" }}]
routes: [{{ path: "/open/*", proxy: a, depends: [public] }}]
""")
    for path in ("/open/../v1/chat/completions", "/open/%2e%2e/v1/chat/completions", "/open/%2E%2e/v1/models", "/open/..%2fv1/models",
                 "/open/./../v1/models", "/open//../v1/models"):
        answer = weir.ask("POST", path, None, chat(False))
        if answer.status == 200:
            target = fake.last().target
            assert target.startswith("/open/") and ".." not in target and "%2e" not in target.lower(), (path, target)
        else:
            assert answer.status in (400, 401, 404, 405), (path, answer)


# ---------------------------------------------------------------- CORS

PAGE = "https://chat.example.com"
ASKS = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type,x-extra"}


def cors(t, origins=f'["{PAGE}"]', **options):
    return t.weir(t.fake(), config=f"cors: {{ origins: {origins} }}\n", **options)


@smoke
def test_preflights_are_answered_before_the_key_is_asked_for(t):
    weir = cors(t, keys=[KEY])
    answer = weir.ask("OPTIONS", CHAT, ASKS)
    assert answer.status in (200, 204), answer
    assert answer.header("access-control-allow-origin") == PAGE and "origin" in answer.header("vary", "").lower()
    assert "POST" in answer.header("access-control-allow-methods")
    allowed = answer.header("access-control-allow-headers", "").lower()
    assert allowed == "*" or all(name in allowed for name in ("authorization", "content-type")), allowed


def test_simple_requests_carry_the_origin_back_even_when_refused(t):
    weir = cors(t, keys=[KEY])
    for headers, status in (({"x-api-key": KEY}, 200), ({}, 401)):
        answer = weir.stream(headers={"origin": PAGE, **headers})
        assert answer.status == status and answer.header("access-control-allow-origin") == PAGE, answer
        assert "x-request-id" in answer.header("access-control-expose-headers", "").lower() or \
            answer.header("access-control-expose-headers") == "*"
    assert weir.stream(headers={"x-api-key": KEY}).header("access-control-allow-origin") is None


def test_other_origins_get_no_cors_headers(t):
    weir = cors(t)
    for origin in ("https://evil.example.com", PAGE + ".evil.com", "null", PAGE.replace("https", "http"), PAGE + ":8443"):
        answer = weir.ask("OPTIONS", CHAT, {**ASKS, "origin": origin})
        assert answer.header("access-control-allow-origin") is None, (origin, answer)
        answer = weir.stream(headers={"origin": origin})
        assert answer.status == 200 and answer.header("access-control-allow-origin") is None


def test_every_origin_may_be_allowed(t):
    weir = cors(t, '["*"]')
    assert weir.stream(headers={"origin": "https://a.example"}).header("access-control-allow-origin") in ("*", "https://a.example")


def test_without_cors_options_is_405(t):
    _, weir = t.pair()
    answer = weir.ask("OPTIONS", CHAT, ASKS)
    assert answer.status == 405 and answer.header("access-control-allow-origin") is None, answer
