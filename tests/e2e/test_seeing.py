"""What an operator sees: ids, log lines, metrics, health; and whose address is believed."""
import re

from harness import KEY, Wire, chat, end_gateway, free_port, smoke, wait_until

CHAT = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@smoke
def test_request_ids_are_taken_over_or_made(t):
    fake, weir = t.pair()
    for wanted in ("abc", "req_0123456789", "a" * 128, "A-Z_a.z:0/9+=@"):
        answer = weir.stream(headers={"x-request-id": wanted})
        assert answer.header("x-request-id") == wanted and fake.last().header("x-request-id") == wanted
    seen = set()
    for bad in ("", "a" * 129, "has blank", 'quo"te', "<script>", "é", None):
        answer = weir.stream(headers={"x-request-id": bad} if bad is not None else {})
        made = answer.header("x-request-id")
        assert re.fullmatch(r"req_[0-9a-f]{24}", made), (bad, made)
        seen.add(made)
    assert len(seen) == 7
    for path in ("/livez", "/nowhere", "/v1/models"):
        assert weir.ask("GET", path).header("x-request-id")


@smoke
def test_each_request_leaves_one_log_line_that_tells_all(t):
    fake, weir = t.pair(keys=[KEY])
    answer = weir.ask("POST", CHAT + "?secret=1", {"x-fake": "events=4,usage,pace_ms=5", "x-api-key": KEY, "x-request-id": "look-at-me",
                                                   "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, chat())
    line = weir.request_line("look-at-me")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) and line["level"] == "info", line
    assert line["trace_id"] == TRACE and line["route"] == CHAT and line["model"] == "fake-1" and line["status"] == 200
    assert line["key"] == "key-1" and line["backend"] == "127.0.0.1" or line["backend"]
    assert line["bytes"] == len(answer.body) and line["events"] == 8, line
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (7, 4, 3)
    assert 0 < line["first_ms"] <= line["duration_ms"] and line["end"] and line["client"] == "127.0.0.1"
    assert fake.last().header("traceparent").startswith(f"00-{TRACE}-"), fake.last().header("traceparent")
    assert "secret=1" not in weir.log()
    assert sum(1 for x in weir.log_lines() if x.get("request_id") == "look-at-me") == 1


def test_usage_is_read_in_each_dialect(t):
    _, weir = t.pair()
    bodies = {CHAT: chat(False), "/v1/completions": {"model": "m", "prompt": "x"}, "/v1/responses": {"model": "m", "input": "x"},
              "/v1/messages": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}}
    for number, (path, body) in enumerate(bodies.items()):
        for stream in (False, True):
            name = f"usage-{number}-{stream}"
            weir.ask("POST", path, {"x-fake": "events=5,usage,size=100", "x-request-id": name}, {**body, "stream": stream})
            line = weir.request_line(name)
            assert (line.get("prompt_tokens"), line.get("completion_tokens")) == (7, 5), (path, stream, line)
    weir.ask("POST", "/v1/embeddings", {"x-request-id": "usage-e"}, {"model": "m", "input": "x"})
    assert weir.request_line("usage-e").get("prompt_tokens") == 7


def test_a_bad_traceparent_starts_a_new_trace(t):
    fake, weir = t.pair()
    for number, bad in enumerate(("garbage", f"00-{'0' * 32}-b7ad6b7169203331-01", f"ff-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE[:-1]}")):
        weir.stream(headers={"traceparent": bad, "tracestate": "a=1", "x-request-id": f"trace-{number}"})
        line = weir.request_line(f"trace-{number}")
        assert re.fullmatch(r"[0-9a-f]{32}", line["trace_id"]) and line["trace_id"] not in (TRACE, "0" * 32), line
        assert fake.last().header("tracestate") is None
        assert line["trace_id"] in fake.last().header("traceparent")


@smoke
def test_failures_say_why_in_the_log(t):
    fake, weir = t.pair()
    for number, (behave, status) in enumerate((("drop", 502), ("garbage", 502), ("events=5,cut_after=2", 200))):
        weir.stream(behave, headers={"x-request-id": f"bad-{number}"})
        line = weir.request_line(f"bad-{number}")
        assert line["status"] == status and line["level"] in ("warn", "error") and line["end"] != "finished", line
    weir.stream("status=500", headers={"x-request-id": "bad-500"})
    assert weir.request_line("bad-500")["status"] == 500
    wire = weir.connect()
    wire.request("POST", CHAT, {"x-fake": "delay_ms=60000", "x-request-id": "left"}, chat())
    fake.wait_requests(5)
    wire.close()
    assert weir.request_line("left")["status"] == 499


def test_a_text_log_is_for_people(t):
    fake = t.fake()
    weir = t.weir(fake, args=["--log-format", "text"])
    weir.stream(headers={"x-request-id": "for-people"})
    wait_until(lambda: "for-people" in weir.log(), "the line")
    line = next(x for x in weir.log().splitlines() if "for-people" in x)
    assert not line.startswith("{") and "200" in line


def test_log_level_hides_what_is_less_important(t):
    fake = t.fake()
    weir = t.weir(fake, args=["--log-level", "error"])
    weir.stream(headers={"x-request-id": "unseen"})
    assert weir.stop() == 0 and "unseen" not in weir.log()


def test_control_characters_cannot_forge_log_lines(t):
    _, weir = t.pair()
    weir.ask("POST", CHAT, {"x-request-id": "forged"}, chat(model='x","status":999,"y":"\n{"forged":true}\u2028'))
    line = weir.request_line("forged")
    assert line["status"] in (200, 400)
    assert all("forged" not in x for x in weir.log_lines() if x.get("request_id") != "forged")


# ---------------------------------------------------------------- metrics

@smoke
def test_metrics_are_in_prometheus_format_and_true(t):
    _, weir = t.pair(keys=[KEY])
    good = {"x-api-key": KEY}
    for _ in range(3):
        weir.stream("events=4,usage,pace_ms=2", headers=good)
    weir.stream(headers={"x-api-key": "wrong-key-0123456789"})
    weir.stream("drop", headers=good)
    answer = weir.ask("GET", "/metrics")
    assert answer.header("content-type").startswith("text/plain; version=0.0.4"), answer
    text = answer.body.decode()
    assert text.endswith("\n")
    families = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} is declared twice"
            families[name] = kind
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? (\S+)', line)
            assert match, line
            float(match[5])
            base = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert match[1] in families or families.get(base) == "histogram", line
    assert weir.metric(r'weir_requests_total\{.*completions.*status="200"') == 3
    assert weir.metric(r'weir_requests_total\{.*completions.*status="401"') == 1
    assert weir.metric(r'weir_refusals_total\{.*invalid_api_key') == 1
    assert weir.metric(r"weir_upstream_errors_total") == 1
    assert weir.metric(r'weir_tokens_total\{.*kind="completion"') == 12 and weir.metric(r'weir_tokens_total\{.*kind="prompt"') == 21
    assert weir.metric(r"weir_time_to_first_token_seconds_count") == 3
    assert KEY not in text
    # Events that come together, as they may on a busy machine, are not told apart.
    wait_until(lambda: weir.metric(r"weir_time_between_events_seconds_count") >= 12 or
               not weir.stream("events=4,pace_ms=50", headers=good), "times between events")


def test_streams_in_flight_go_up_and_down(t):
    fake, weir = t.pair()
    wires = []
    for _ in range(3):
        wire = weir.connect()
        wire.request("POST", CHAT, {"x-fake": "events=9,stall_after=1"}, chat())
        wire.head()
        wires.append(wire)
    wait_until(lambda: weir.metric(r"^weir_streams_in_flight") == 3, "three streams")
    for wire in wires:
        wire.close()
    fake.wait_aborts(3)
    wait_until(lambda: weir.metric(r"^weir_streams_in_flight") == 0, "none")


def test_clients_cannot_make_series_at_will(t):
    _, weir = t.pair()
    before = len(weir.metrics().splitlines())
    for n in range(60):
        weir.ask("GET", f"/made/up/{n}")
        weir.ask(f"METHOD{n}", "/livez")
        weir.stream("status=404", body=chat(model=f"made-up-{n}"))
    assert len(weir.metrics().splitlines()) < before + 200


def test_metrics_add_up_over_workers(t):
    weir = t.weir(t.fake(), args=["--workers", "2"])
    for _ in range(20):
        assert weir.stream().status == 200
    assert weir.metric(r'weir_requests_total\{.*completions.*status="200"') == 20


# ---------------------------------------------------------------- health

@smoke
def test_health_pages(t):
    _, weir = t.pair()
    for path in ("/livez", "/readyz", "/health", "/version", "/"):
        answer = weir.ask("GET", path)
        assert answer.status == 200, (path, answer)
    assert weir.ask("GET", "/version").json()["version"]
    index = weir.ask("GET", "/").body.decode()
    assert "/v1" in index
    health = weir.ask("GET", "/health").json()
    assert "127.0.0.1" in str(health) or "backends" in health, health


def test_a_dead_backend_does_not_fail_readiness(t):
    weir = t.weir(f"http://127.0.0.1:{free_port()}")
    assert weir.stream().status == 502
    assert weir.ask("GET", "/readyz").status == 200 and weir.ask("GET", "/livez").status == 200


# ---------------------------------------------------------------- addresses

def client_of(weir, name, headers):
    weir.stream(headers={"x-request-id": name, **headers})
    return weir.request_line(name)["client"]


@smoke
def test_forwarded_addresses_are_believed_from_trusted_proxies_only(t):
    fake = t.fake()
    plain = t.weir(fake)
    assert client_of(plain, "a", {"x-forwarded-for": "9.9.9.9"}) == "127.0.0.1"
    weir = t.weir(fake, config="trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\n")
    for name, forwarded, expected in (("b", "9.9.9.9", "9.9.9.9"), ("c", "6.6.6.6, 9.9.9.9", "9.9.9.9"),
                                      ("d", "6.6.6.6, 9.9.9.9, 10.1.2.3", "9.9.9.9"), ("e", "10.1.2.3", "10.1.2.3"),
                                      ("f", "garbage", "127.0.0.1"), ("g", "2001:db8::7", "2001:db8::7"),
                                      ("h", "9.9.9.9, garbage", "127.0.0.1")):
        assert client_of(weir, name, {"x-forwarded-for": forwarded}) == expected, (name, forwarded)


def test_a_blocked_log_pipe_stalls_nothing(t):
    import os
    import subprocess
    from harness import Options
    fake, port = t.fake(), free_port()
    read_end, write_end = os.pipe()  # nobody reads
    env = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
    weir = subprocess.Popen([Options.weir, "--listen", f"127.0.0.1:{port}", "--backend", fake.url, "--log-format", "json"],
                            stdout=write_end, stderr=write_end, env=env)
    try:
        def up():
            try:
                Wire(("127.0.0.1", port)).close()
                return True
            except OSError:
                return False
        wait_until(up, "weir", 20)
        for _ in range(500):  # more lines than a pipe holds
            with Wire(("127.0.0.1", port)) as wire:
                wire.request("POST", CHAT, {}, chat(False))
                assert wire.response().status == 200
        weir.terminate()
        assert weir.wait(20 * Options.slow) == 0
    finally:
        end_gateway(weir)
        os.close(read_end)
        os.close(write_end)
