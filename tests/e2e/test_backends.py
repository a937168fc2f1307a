"""HTTP towards backends: how they are reached, what they are sent, what comes back, and what misbehaving ones cause."""
import json
import time

from harness import Options, Truncated, chat, free_port, limit, smoke

CHAT = "/v1/chat/completions"
ONE_WORKER = ["--workers", "1"]  # each has connections of its own


def backends(*lines):
    return "backends:\n" + "".join(f"  - {line}\n" for line in lines)


# ---------------------------------------------------------------- what is sent

@smoke
def test_the_request_goes_out_as_it_came(t):
    fake, weir = t.pair()
    body = json.dumps(chat(text="żółć", n=1.0e5), ensure_ascii=False, indent=1)
    answer = weir.ask("POST", CHAT + "?beta=true&x=%20", {"content-type": "application/json", "anthropic-version": "2023-06-01",
                                                          "openai-beta": "assistants=v2", "accept-encoding": "gzip, br",
                                                          "connection": "keep-alive, x-hop", "x-hop": "1", "te": "trailers",
                                                          "keep-alive": "timeout=5", "x-request-id": "abc-1",
                                                          "user-agent": "tester/1"}, body)
    assert answer.status == 200
    last = fake.last()
    assert last.method == "POST" and last.target == CHAT + "?beta=true&x=%20"
    assert last.body == body.encode(), "the body is not re-serialised"
    assert last.header("host") == f"127.0.0.1:{fake.port}"
    assert last.header("accept-encoding") == "identity"
    assert last.header("anthropic-version") == "2023-06-01" and last.header("openai-beta") == "assistants=v2"
    assert last.header("content-type") == "application/json" and last.header("content-length") == str(len(body.encode()))
    assert last.header("x-request-id") == "abc-1" and last.header("user-agent")
    for hop in ("x-hop", "te", "keep-alive", "transfer-encoding", "proxy-connection", "upgrade"):
        assert last.header(hop) is None, hop
    assert not last.header("connection") or "x-hop" not in last.header("connection")


def test_a_path_in_the_url_replaces_v1_and_its_query_is_kept(t):
    fake = t.fake()
    weir = t.weir(config=backends(f'{{ name: a, url: "{fake.url}/api/v9?api-version=2024-10" }}'))
    assert weir.stream().status == 200
    assert fake.last().target.split("?")[0] == "/api/v9/chat/completions", fake.last().target
    assert "api-version=2024-10" in fake.last().target
    weir.ask("POST", CHAT + "?x=1", None, chat())
    assert "api-version=2024-10" in fake.last().target and "x=1" in fake.last().target


def test_a_mebibyte_prompt_arrives_whole(t):
    fake, weir = t.pair()
    answer = weir.ask("POST", CHAT, None, chat(True, padding="p" * (1 << 20)))
    assert answer.status == 200 and fake.last().body_length > 1 << 20


@smoke
def test_the_backends_own_key_and_headers_are_sent(t):
    fake = t.fake()
    for auth, header, value in (("bearer", "authorization", "Bearer backend-secret"), ("x-api-key", "x-api-key", "backend-secret"),
                                ("api-key", "api-key", "backend-secret")):
        weir = t.weir(config=backends(f'{{ name: a, url: "{fake.url}", api_key: backend-secret, auth: {auth}, '
                                      'headers: { OpenAI-Organization: org-1 } }'))
        assert weir.stream(headers={"authorization": "Bearer clients-own", "x-api-key": "clients-own"}).status == 200
        last = fake.last()
        assert last.header(header) == value and last.header("openai-organization") == "org-1"
        assert "clients-own" not in json.dumps(last.headers), last.headers
        assert "backend-secret" not in weir.log()


@smoke
def test_a_credential_among_the_backends_headers_is_the_only_one(t):
    """On an open gateway, where the client's own would be forwarded otherwise."""
    fake = t.fake()
    for name in ("Authorization", "X-Api-Key", "api-key"):
        weir = t.weir(config=backends(f'{{ name: a, url: "{fake.url}", headers: {{ {name}: "Bearer of-the-backend" }} }}'))
        assert weir.stream(headers={name.lower(): "Bearer clients-own"}).status == 200
        seen = [value for key, value in fake.last().headers if key.lower() == name.lower()]
        assert seen == ["Bearer of-the-backend"], seen
        assert weir.stream(headers={"user-agent": "mine"}).status == 200
        assert fake.last().header("user-agent") == "mine"


def test_a_model_is_renamed_in_place(t):
    fake = t.fake()
    weir = t.weir(config=backends(f'{{ name: a, url: "{fake.url}", models: {{ gpt-4o: "llama \\"3\\"", "plain": fake-1 }} }}'))
    body = '{ "messages" : [ {"role":"user","content":"say \\"model\\": \\"gpt-4o\\""} ], "model" : "gpt-4o" , "stream":true, "x": 1e2 }'
    assert weir.ask("POST", CHAT, {"content-type": "application/json"}, body).status == 200
    last = fake.last()
    assert last.json()["model"] == 'llama "3"'
    assert last.body.decode() == body.replace('"model" : "gpt-4o"', '"model" : "llama \\"3\\""'), last.body
    assert int(last.header("content-length")) == len(last.body)


# ---------------------------------------------------------------- what comes back

@smoke
def test_status_body_and_retry_after_pass_through(t):
    fake, weir = t.pair()
    for status in (400, 401, 404, 422, 429, 500, 503, 529):
        direct = fake.ask("POST", CHAT, {"x-fake": f"status={status},retry_after=7"}, chat())
        answer = weir.stream(f"status={status},retry_after=7")
        assert (answer.status, answer.body) == (status, direct.body), answer
        assert answer.header("retry-after") == "7" and answer.header("content-type") == "application/json"


def test_the_backends_request_id_and_cookies_are_told_apart(t):
    _, weir = t.pair()
    answer = weir.stream("setcookie", headers={"x-request-id": "mine"})
    assert answer.all("x-request-id") == ["mine"], answer
    assert answer.header("x-upstream-request-id", "").startswith("fake-")
    assert answer.header("set-cookie") is None
    assert answer.header("x-ratelimit-limit-requests") == "60", "weir has no limits of its own here"
    assert answer.header("connection") in (None, "keep-alive")


def test_interim_answers_are_skipped(t):
    _, weir = t.pair()
    for behave in ("1xx=1", "1xx=5,events=3"):
        answer = weir.stream(behave)
        assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n")


@smoke
def test_bad_answers_are_502_and_the_next_request_is_served(t):
    _, weir = t.pair()
    for behave in ("garbage", "head_endless", "1xx_forever", "bad_length", "bad_length=2", "bad_length=3", "gzip_te"):
        for body in (chat(), chat(False)):
            answer = weir.stream(behave, body=body)
            assert answer.status == 502 and answer.json()["error"]["message"], (behave, answer)
        assert weir.stream().status == 200, behave


def test_a_bad_chunk_breaks_the_answer(t):
    _, weir = t.pair()
    answer = weir.stream("events=5,bad_chunk")
    assert b'"error"' in answer.body and b"[DONE]" not in answer.body and b"zzz" not in answer.body, answer
    try:
        assert weir.stream("bad_chunk", body=chat(False)).status == 502
    except Truncated:
        pass


def test_a_backend_that_answers_before_the_request_is_sent_is_heard(t):
    fake, weir = t.pair()
    big = chat(True, padding="p" * (4 << 20))
    answer = weir.ask("POST", CHAT, {"x-fake": "early=1,status=429,retry_after=3"}, big)
    assert answer.status == 429 and answer.header("retry-after") == "3", answer
    answer = weir.ask("POST", CHAT, {"x-fake": "early=2,status=429"}, big)
    assert answer.status in (429, 502), answer  # its reset may overtake its answer
    assert weir.stream().status == 200


# ---------------------------------------------------------------- connections

@smoke
def test_connections_to_the_backend_are_kept(t):
    fake, weir = t.pair(args=ONE_WORKER)
    for turn in range(12):
        assert weir.stream(body=chat(turn % 2 == 0)).status == 200
    assert fake.stats()["accepted"] == 1, fake.stats()


@smoke
def test_a_stale_kept_connection_is_retried_once_on_a_fresh_one(t):
    fake, weir = t.pair(args=ONE_WORKER)
    for body in (chat(), chat(False)):
        fake.reset()
        for _ in range(6):
            assert weir.stream("stale", body=body).status == 200
        stats = fake.stats()
        assert stats["requests"] == 6 and stats["stale_closed"] >= 5, stats
    for _ in range(4):
        assert weir.stream("close_idle").status == 200


def test_a_request_that_dies_after_a_while_is_not_repeated(t):
    """A kept connection that the backend had closed shows at once; later the backend may have been at work."""
    fake, weir = t.pair(args=ONE_WORKER)
    for body in (chat(), chat(False)):
        fake.reset()
        assert weir.stream(body=body).status == 200
        answer = weir.stream("delay_ms=2000,drop=2", body=body)
        assert answer.status == 502, answer
        assert fake.stats()["requests"] == 2, fake.stats()


def test_a_request_that_dies_on_a_fresh_connection_is_not_repeated(t):
    fake, weir = t.pair()
    assert weir.stream("drop").status == 502
    assert fake.stats()["requests"] == 1


def test_an_answer_that_is_framed_by_the_end_is_not_reused(t):
    fake, weir = t.pair()
    for _ in range(3):
        assert weir.stream("close_body").body.endswith(b"[DONE]\n\n")
    assert fake.stats()["accepted"] == 3


@smoke
def test_an_unreachable_backend_is_502_and_the_next_one_is_tried(t):
    fake = t.fake()
    nobody = f"http://127.0.0.1:{free_port()}"
    alone = t.weir(nobody)
    answer = alone.stream()
    assert answer.status == 502 and answer.json()["error"]["message"], answer
    both = t.weir(nobody, fake)
    for _ in range(6):
        assert both.stream().status == 200
    assert fake.stats()["requests"] == 6


def test_requests_go_round_among_equals(t):
    one, two = t.fake(), t.fake()
    weir = t.weir(one, two, args=ONE_WORKER)
    for _ in range(10):
        assert weir.stream().status == 200
    assert (one.stats()["requests"], two.stats()["requests"]) == (5, 5)


@smoke
def test_backends_are_chosen_by_model(t):
    one, two, other = t.fake(), t.fake(), t.fake()
    weir = t.weir(config=backends(f'{{ name: one, url: "{one.url}", models: [llama-3] }}',
                                  f'{{ name: two, url: "{two.url}", models: ["qwen*"] }}',
                                  f'{{ name: other, url: "{other.url}", models: [embedder], default: true }}'))
    for model, fake in (("llama-3", one), ("qwen-2.5", two), ("qwen", two), ("embedder", other)):
        fake.reset()
        assert weir.stream(body=chat(model=model)).status == 200, model
        assert fake.stats()["requests"] == 1, model
    answer = weir.stream(body=chat(model="nobody-has-this"))
    assert answer.status in (200, 404), answer
    if answer.status == 404:
        assert answer.json()["error"]["code"] == "model_not_found", answer


def test_a_backend_behind_a_unix_socket(t):
    fake = t.fake(listen=f"unix:{t.dir / 'model.sock'}")
    weir = t.weir(fake, args=ONE_WORKER)
    assert weir.stream().body.endswith(b"[DONE]\n\n")
    assert weir.stream(body=chat(False)).status == 200
    assert fake.stats()["accepted"] == 1


def test_a_name_that_does_not_resolve_is_502(t):
    weir = t.weir("http://no-such-host.invalid:1234")
    answer = weir.stream()
    assert answer.status in (502, 504) and answer.json()["error"]["message"], answer


def test_localhost_by_name_is_reached(t):
    fake = t.fake()
    weir = t.weir(f"http://localhost:{fake.port}")
    assert weir.stream().status == 200
    assert fake.last().header("host") == f"localhost:{fake.port}"


# ---------------------------------------------------------------- TLS

def tls_backend(t, version, names=("DNS:localhost", "IP:127.0.0.1"), **options):
    return t.fake(cert=t.authority.issue("backend-" + version.replace(".", ""), *names), tls_max=version, **options)


def tls_weir(t, fake, host, tls="ca: {ca}", name="a"):
    tls = tls.format(ca=t.authority.ca)
    return t.weir(config=backends(f'{{ name: {name}, url: "https://{host}:{fake.port}", tls: {{ {tls} }}, '
                                  'timeouts: { connect: 1m } }'), args=ONE_WORKER)


def tls_works(t, version):
    fake = tls_backend(t, version)
    for host in ("localhost", "127.0.0.1"):
        weir = tls_weir(t, fake, host)
        for _ in range(3):
            assert weir.stream("events=30").body.endswith(b"[DONE]\n\n"), host
        transport = fake.last().transport
        assert transport.startswith("TLSv" + version), transport
        assert ("sni=localhost" in transport) == (host == "localhost"), transport
    assert fake.stats()["accepted"] == 2


@smoke
def test_a_backend_over_tls_1_2_with_a_private_authority(t):
    tls_works(t, "1.2")


@smoke
def test_a_backend_over_tls_1_3_with_a_private_authority(t):
    tls_works(t, "1.3")


def wrong_name(t, version):
    fake = tls_backend(t, version, names=("DNS:other.example", "IP:127.0.0.9"))
    for host in ("localhost", "127.0.0.1"):
        answer = tls_weir(t, fake, host).stream()
        assert answer.status == 502, (host, answer)
    assert fake.stats()["requests"] == 0
    assert tls_weir(t, fake, "localhost", "ca: {ca}, verify: false").stream().status == 200


@smoke
def test_a_certificate_for_another_name_is_refused_on_tls_1_2(t):
    wrong_name(t, "1.2")


@smoke
def test_a_certificate_for_another_name_is_refused_on_tls_1_3(t):
    wrong_name(t, "1.3")


def test_an_unknown_authority_is_refused(t):
    for version in ("1.2", "1.3"):
        fake = tls_backend(t, version)
        weir = t.weir(f"https://localhost:{fake.port}")
        assert weir.stream().status == 502 and fake.stats()["requests"] == 0


def test_a_client_certificate_is_presented(t):
    ours = t.authority.issue("gateway", "DNS:gateway")
    for version in ("1.2", "1.3"):
        fake = tls_backend(t, version, client_ca=t.authority.ca)
        fake.tls.load_cert_chain(ours.cert, ours.key)
        weir = tls_weir(t, fake, "localhost", f"ca: {{ca}}, cert: {ours.cert}, key: {ours.key}")
        assert weir.stream().status == 200
        assert "client_cert=yes" in fake.last().transport
        assert tls_weir(t, fake, "localhost").stream().status == 502, "without one the backend refuses"


def test_clear_text_where_tls_was_expected_is_502(t):
    fake = t.fake()
    assert t.weir(f"https://127.0.0.1:{fake.port}").stream().status == 502


def test_a_cut_over_tls_is_told_in_the_stream(t):
    fake = tls_backend(t, "1.3")
    answer = tls_weir(t, fake, "localhost").stream("events=5,cut_after=2")
    assert b'"error"' in answer.body and b"[DONE]" not in answer.body


# ---------------------------------------------------------------- timeouts

def impatient(t, fake, timeouts):
    return t.weir(config=backends(f'{{ name: a, url: "{fake.url}", timeouts: {{ {timeouts} }} }}'))


@smoke
def test_no_first_token_in_time_is_504(t):
    fake = t.fake()
    weir = impatient(t, fake, "first_token: 300ms")
    for behave in ("delay_ms=60000", "first_ms=60000", "stall_after=0"):
        answer = weir.stream(behave)
        assert answer.status == 504 and answer.json()["error"]["message"], answer
    fake.wait_aborts(3)
    answer = weir.stream("delay_ms=900", body=chat(False))
    assert answer.status == 200, "a plain answer knows connect and total only"


@smoke
def test_silence_between_tokens_breaks_the_stream(t):
    fake = t.fake()
    weir = impatient(t, fake, "idle: 300ms")
    answer = weir.stream("events=9,stall_after=3")
    assert answer.status == 200 and b"00000003" in answer.body and b'"error"' in answer.body and b"[DONE]" not in answer.body
    fake.wait_aborts()
    assert weir.stream("events=8,pace_ms=100").body.endswith(b"[DONE]\n\n") or Options.slow > 1


def test_a_total_timeout_ends_streams_and_plain_answers(t):
    fake = t.fake()
    weir = impatient(t, fake, "total: 700ms")
    answer = weir.stream("events=1000,pace_ms=50")
    assert b'"error"' in answer.body and b"[DONE]" not in answer.body
    assert weir.stream("delay_ms=60000", body=chat(False)).status == 504
    fake.wait_aborts(2)


@limit(60)
def test_a_backend_that_does_not_accept_is_504_or_502(t):
    # A listener whose queue is full: connections hang.
    import socket
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(full.getsockname())
        fillers.append(s)
    time.sleep(0.2)
    weir = t.weir(config=backends(f'{{ name: a, url: "http://127.0.0.1:{full.getsockname()[1]}", timeouts: {{ connect: 400ms, '
                                  'first_token: 5s } }'))
    answer = weir.stream()
    assert answer.status in (502, 504), answer
    for s in (*fillers, full):
        s.close()
