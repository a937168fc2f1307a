"""Rate limits, token limits and limits on streams at the same time, as a client meets them."""
import json
import re
import subprocess
import time

from harness import Options, chat, free_port, limit, smoke, wait_until

CHAT = "/v1/chat/completions"
ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789"
KEYS = f"keys:\n  - {{ name: alice, key: {ALICE} }}\n  - {{ name: bob, key: {BOB} }}\n"
GO_DURATION = re.compile(r"\d+ms|(\d+h)?(\d+m)?\d+(\.\d+)?s")


def limited(t, limits, more="", behave="", **options):
    """A gateway with these `limits:` entries."""
    return t.pair(behave, config="limits:\n" + "".join(f"  {line}\n" for line in limits) + more, **options)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def ask(weir, headers=None, path=CHAT, **more):
    return weir.ask("POST", path, headers, chat(False, input="x", prompt="x", **more))


def statuses(weir, n, headers=None, path=CHAT, **more):
    return [ask(weir, headers, path, **more).status for _ in range(n)]


def number(answer, name):
    value = answer.header(name)
    assert value is not None and re.fullmatch(r"\d+", value), (name, answer)
    return int(value)


def seconds_of(duration):
    """What a Go duration says."""
    assert GO_DURATION.fullmatch(duration), duration
    if duration.endswith("ms"):
        return int(duration[:-2]) / 1000
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"([\d.]+)([hms])", duration))


def sleep_until(moment):
    time.sleep(max(0.0, moment - time.monotonic()))


# ---------------------------------------------------------------- strategies

@smoke
def test_the_request_over_the_limit_is_429(t):
    fake, weir = t.pair(args=["--limit", "3/hour"])
    assert statuses(weir, 5) == [200, 200, 200, 429, 429]
    assert fake.stats()["requests"] == 3, "what is refused never reaches a backend"


def test_a_refused_client_that_waits_as_long_as_told_gets_in(t):
    for strategy in ("fixed_window", "moving-window", "sliding_window_counter"):
        _, weir = limited(t, [f"a: {{ limit: 2 per 2 seconds, by: constant, strategy: {strategy} }}"])
        first = ask(weir)
        assert first.status == 200, first
        refused = first
        for _ in range(20):
            refused = ask(weir)
            if refused.status == 429:
                break
        assert refused.status == 429, strategy
        told = number(refused, "retry-after")
        assert 1 <= told <= 4, refused
        time.sleep(told)
        assert ask(weir).status == 200, strategy


def test_each_strategy_counts_its_own_way(t):
    fake, weir = limited(t, ["f: { limit: 2 per 4 seconds, by: constant, strategy: fixed_window, routes: [/v1/chat/completions] }",
                             "m: { limit: 2 per 4 seconds, by: constant, strategy: moving_window, routes: [/v1/completions] }",
                             "s: { limit: 4 per 4 seconds, by: constant, strategy: sliding_window_counter,"
                             " routes: [/v1/messages] }"])
    fixed, moving, sliding = CHAT, "/v1/completions", "/v1/messages"
    begin = time.monotonic()
    assert statuses(weir, 1, path=fixed) + statuses(weir, 1, path=moving) == [200, 200]
    assert statuses(weir, 5, path=sliding) == [200] * 4 + [429]
    began = time.monotonic()
    sleep_until(begin + 2)
    early, middle = (statuses(weir, 2, path=fixed), statuses(weir, 2, path=moving)), time.monotonic()
    sleep_until(began + 4.1)
    # The whole amount again; only what the first request of the log had; what is left of the window before.
    seen = statuses(weir, 3, path=fixed), statuses(weir, 2, path=moving), statuses(weir, 2, path=sliding)
    if time.monotonic() > begin + 5 or middle > begin + 3.5:
        t.skip("this machine is too slow to ask within a window")
    assert early == ([200, 429], [200, 429]), early
    assert seen == ([200, 200, 429], [200, 429], [200, 429]), seen
    assert fake.stats()["requests"] == 6 + 2 + 4


# ---------------------------------------------------------------- several limits

def test_a_refused_request_consumes_nothing_of_any_limit(t):
    for order in (("a", "z"), ("z", "a")):
        _, weir = limited(t, sorted([f"{order[0]}: {{ limit: 5/hour, by: constant }}",
                                     f"{order[1]}: {{ limit: 2/hour, by: model }}"]))
        assert statuses(weir, 6, model="m1") == [200, 200, 429, 429, 429, 429]
        assert statuses(weir, 3, model="m2") == [200, 200, 429], "the refusals for m1 have not used up the common limit"
        assert statuses(weir, 4, model="m3") == [200, 429, 429, 429], "nor have those for m2"
        assert weir.metric(r"weir_limit_decisions_total.*allowed") == 10


def test_a_request_refused_by_one_window_waits_for_it_without_using_up_the_other(t):
    _, weir = limited(t, ['a: { limit: "1 per 2 seconds; 3/hour", by: constant }'])
    admitted, refused = 0, 0
    end = time.monotonic() + 25 * Options.slow
    while admitted < 3 and time.monotonic() < end:
        answer = ask(weir)
        admitted += answer.status == 200
        refused += answer.status == 429
        if answer.status == 429:
            assert answer.header("x-ratelimit-limit") == "1", answer
        time.sleep(0.3)
    assert admitted == 3 and refused >= 3, (admitted, refused)
    time.sleep(2)
    answer = ask(weir)
    assert answer.status == 429 and answer.header("x-ratelimit-limit") == "3", answer
    assert "3 per 1 hour" in answer.body.decode()


def test_a_step_that_refuses_gives_back_what_earlier_steps_took(t):
    _, weir = limited(t, ["a: { limit: 4/hour, by: constant }", "b: { limit: 1/hour, by: model }"],
                      "routes:\n  - { path: /v1/chat/completions, depends: [api_key, 'limit:a', 'limit:b', validate] }\n")
    assert statuses(weir, 4, model="m1") == [200, 429, 429, 429]
    assert [ask(weir, model=f"n{i}").status for i in range(4)] == [200, 200, 200, 429]


# ---------------------------------------------------------------- whom a limit counts against

@smoke
def test_limits_by_api_key(t):
    _, weir = limited(t, ["a: { limit: 2/hour }"], KEYS)
    assert statuses(weir, 3, bearer(ALICE)) == [200, 200, 429]
    assert statuses(weir, 1, {"x-api-key": ALICE}) == [429], "the same key in another header"
    assert statuses(weir, 3, bearer(BOB)) == [200, 200, 429]
    assert statuses(weir, 3, bearer("wrong-key-0123456789")) == [401] * 3


def test_limits_by_address(t):
    _, weir = limited(t, ["a: { limit: 2/hour, by: address }"], "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\n")

    def asked(n, forwarded):
        return statuses(weir, n, {"x-forwarded-for": forwarded} if forwarded else None)

    assert asked(3, "192.0.2.1") == [200, 200, 429]
    assert asked(1, "6.6.6.6, 192.0.2.1") == [429], "what the client put before its address does not matter"
    assert asked(1, "192.0.2.1, 10.1.2.3") == [429], "nor do trusted proxies behind it"
    assert asked(3, "192.0.2.2") == [200, 200, 429]
    assert asked(2, "2001:db8:1:2::1") == [200, 200]
    assert asked(2, "2001:db8:1:2:ffff::9") == [429, 429], "one /64 is one client"
    assert asked(1, "2001:db8:1:3::1") == [200]
    assert asked(1, "::ffff:192.0.2.2") == [429], "an IPv4 address in IPv6 form is that address"
    assert asked(3, None) == [200, 200, 429]


def test_forwarded_addresses_of_strangers_are_not_believed(t):
    _, weir = t.pair(args=["--limit", "2/hour"])
    assert [statuses(weir, 1, {"x-forwarded-for": f"192.0.2.{i}", "forwarded": f"for=192.0.2.{i}", "x-real-ip": f"192.0.2.{i}"})[0]
            for i in range(4)] == [200, 200, 429, 429]


def test_limits_by_route(t):
    _, weir = limited(t, ["a: { limit: 2/hour, by: route }"])
    assert statuses(weir, 3) == [200, 200, 429]
    assert statuses(weir, 1, path="/chat/completions") == [429], "an alias is the same route"
    assert statuses(weir, 1, path=CHAT + "?x=1") == [429]
    assert statuses(weir, 3, path="/v1/completions") == [200, 200, 429]


def test_limits_by_model(t):
    _, weir = limited(t, ["a: { limit: 2/hour, by: model }"])
    assert statuses(weir, 3, model="m1") == [200, 200, 429] and statuses(weir, 3, model="m2") == [200, 200, 429]
    body = json.dumps(chat(False, model="m1")).replace('"m1"', '"\\u006d1"')
    assert weir.ask("POST", CHAT, {"content-type": "application/json"}, body).status == 429, "the same name, escaped"


def test_limits_by_user(t):
    _, weir = limited(t, ["a: { limit: 2/hour, by: user }"])
    assert statuses(weir, 3, user="u1") == [200, 200, 429] and statuses(weir, 3, user="u2") == [200, 200, 429]
    for path in ("/v1/completions", "/v1/embeddings", "/v1/responses"):
        for user in ("u3", "u4"):
            assert statuses(weir, 3, path=path, user=path + user) == [200, 200, 429], (path, user)
    assert statuses(weir, 3) == [200, 200, 429], "those who do not say who they are are one"
    body = json.dumps(chat(False, user="u1")).replace('"u1"', '"\\u00751"')
    assert weir.ask("POST", CHAT, {"content-type": "application/json"}, body).status == 429, "the same user, escaped"


def test_limits_by_constant(t):
    _, weir = limited(t, ["a: { limit: 3/hour, by: constant }"], KEYS)
    assert statuses(weir, 2, bearer(ALICE)) + statuses(weir, 2, bearer(BOB), path="/v1/completions") == [200, 200, 200, 429]


def test_a_value_that_looks_like_anothers_uses_up_nothing_of_theirs(t):
    _, weir = limited(t, ["k: { limit: 2/hour, by: api_key }", "m: { limit: 9/hour, by: model }", "u: { limit: 9/hour, by: user }",
                          "r: { limit: 9/hour, by: route }"], KEYS)
    for value in ("bob", "m", "k", CHAT, "127.0.0.1"):
        ask(weir, bearer(ALICE), model=value, user=value)
    assert statuses(weir, 3, bearer(BOB)) == [200, 200, 429]


def test_a_limit_is_shared_by_the_routes_it_names_and_by_no_other(t):
    _, weir = limited(t, ["a: { limit: 3/hour, routes: [/v1/chat/completions, /v1/completions] }"])
    assert statuses(weir, 2) + statuses(weir, 2, path="/v1/completions") == [200, 200, 200, 429]
    assert statuses(weir, 4, path="/v1/messages") == [200] * 4
    _, weir = limited(t, ["a: { limit: 3/hour, routes: ['/v1/*'] }"])
    assert statuses(weir, 2) + statuses(weir, 2, path="/v1/messages") == [200, 200, 200, 429]


def test_what_is_no_model_route_is_not_limited(t):
    _, weir = t.pair(args=["--limit", "1/hour"])
    assert statuses(weir, 2) == [200, 429]
    for path in ("/", "/health", "/metrics", "/v1/models", "/version"):
        answer = weir.ask("GET", path)
        assert answer.status == 200 and answer.header("x-ratelimit-limit") is None, answer
    assert weir.ask("POST", "/v1/files", None, {}).status == 429, "what is passed on is"


def test_exempt_keys_and_addresses(t):
    _, weir = limited(t, ["a: { limit: 1/hour, by: constant, exempt: { keys: [alice], addresses: [192.0.2.0/24] } }"],
                      KEYS + "trusted_proxies: [127.0.0.1]\n")
    assert statuses(weir, 3, bearer(ALICE)) == [200] * 3
    assert ask(weir, bearer(ALICE)).header("x-ratelimit-limit") is None
    assert statuses(weir, 3, {**bearer(BOB), "x-forwarded-for": "192.0.2.77"}) == [200] * 3
    assert statuses(weir, 2, {**bearer(BOB), "x-forwarded-for": "192.0.3.77"}) == [200, 429], "and consume nothing"


def test_a_keys_own_limit_is_in_place_of_the_routes(t):
    keys = KEYS.replace("alice, ", "alice, limit: 4/hour, ")
    _, weir = limited(t, ["a: { limit: 2/hour, by: api_key }", "all: { limit: 100/hour, by: constant }"], keys)
    assert statuses(weir, 5, bearer(ALICE)) == [200] * 4 + [429], "more than the others have"
    assert statuses(weir, 3, bearer(BOB)) == [200, 200, 429]
    _, weir = limited(t, ["a: { limit: 4/hour, by: api_key }", "all: { limit: 5/hour, by: constant }"],
                      keys.replace("4/hour", "1/hour"))
    assert statuses(weir, 2, bearer(ALICE)) == [200, 429], "or less"
    assert statuses(weir, 5, bearer(BOB)) == [200] * 4 + [429]
    assert "4 per 1 hour" in ask(weir, bearer(BOB)).body.decode()
    _, weir = t.pair(config=keys.replace("4/hour", "2/hour"))
    assert statuses(weir, 3, bearer(ALICE)) == [200, 200, 429], "or where nobody else is limited"
    assert statuses(weir, 5, bearer(BOB)) == [200] * 5
    _, weir = limited(t, ["all: { limit: 3/hour, by: constant }"], keys)
    assert statuses(weir, 4, bearer(ALICE)) == [200] * 3 + [429], "limits by something else hold for it too"


def test_a_request_may_cost_more_than_one(t):
    _, weir = limited(t, ["a: { limit: 10/hour, cost: 3, routes: [/v1/chat/completions] }"])
    seen = [ask(weir) for _ in range(4)]
    assert [x.status for x in seen] == [200, 200, 200, 429]
    assert [x.header("x-ratelimit-remaining") for x in seen] == ["7", "4", "1", "1"]


def test_two_workers_count_together(t):
    fake, weir = t.pair(args=["--limit", "50/hour;49/day", "--workers", "2"])
    wires = [weir.connect() for _ in range(20)]
    for _ in range(5):
        for wire in wires:
            wire.request("POST", CHAT, None, chat(False))
        seen = [wire.response().status for wire in wires]
        assert set(seen) <= {200, 429}, seen
    for wire in wires:
        wire.close()
    assert fake.stats()["requests"] == 49


# ---------------------------------------------------------------- the 429 and the headers

def check_standing(answer, amount, remaining, window):
    assert (number(answer, "x-ratelimit-limit"), number(answer, "x-ratelimit-remaining")) == (amount, remaining), answer
    reset = number(answer, "x-ratelimit-reset") - time.time()
    assert -30 < reset <= window + 2, answer
    assert number(answer, "x-ratelimit-limit-requests") == amount and number(answer, "x-ratelimit-remaining-requests") == remaining
    full = seconds_of(answer.header("x-ratelimit-reset-requests"))
    assert window - 30 < full <= window, answer


@smoke
def test_each_answer_tells_what_is_left(t):
    _, weir = t.pair(args=["--limit", "3/hour"])
    for left in (2, 1, 0):
        answer = ask(weir)
        check_standing(answer, 3, left, 3600)
        assert answer.header("retry-after") is None and answer.header("x-should-retry") is None
    refused = ask(weir)
    check_standing(refused, 3, 0, 3600)
    assert 3500 < number(refused, "retry-after") <= 3600
    assert refused.header("x-should-retry") == "false", "nobody should wait an hour"
    assert abs(number(refused, "x-ratelimit-reset") - time.time() - number(refused, "retry-after")) <= 3


def test_a_streamed_answer_tells_what_is_left(t):
    _, weir = t.pair(args=["--limit", "3/hour"])
    check_standing(weir.stream(), 3, 2, 3600)
    answer = weir.stream("error_event=0")
    check_standing(answer, 3, 1, 3600)
    answer = weir.stream("status=500", body=chat(False))
    assert answer.status == 500
    check_standing(answer, 3, 0, 3600)


def test_who_need_not_wait_long_may_try_again(t):
    _, weir = t.pair(args=["--limit", "1/minute"])
    seen = ask(weir), ask(weir)
    assert seen[1].status == 429 and 30 <= number(seen[1], "retry-after") <= 60, seen
    assert seen[1].header("x-should-retry") is None, "a minute is worth waiting for"


def test_the_tightest_of_several_limits_speaks(t):
    _, weir = t.pair(args=["--limit", "9/minute, 3/hour; 100/day"])
    seen = [ask(weir) for _ in range(4)]
    assert [(x.header("x-ratelimit-limit"), x.header("x-ratelimit-remaining")) for x in seen] == [
        ("3", "2"), ("3", "1"), ("3", "0"), ("3", "0")]


@smoke
def test_a_429_in_the_words_of_each_protocol(t):
    _, weir = t.pair(args=["--limit", "0/minute"])
    for path in (CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses"):
        answer = ask(weir, path=path)
        assert answer.status == 429 and answer.header("content-type") == "application/json", answer
        assert answer.header("x-request-id")
        body = answer.json()
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        assert (body["error"]["type"], body["error"]["code"]) == ("requests", "rate_limit_exceeded"), body
        assert "0 per 1 minute" in body["error"]["message"] and body["detail"] == "Rate limit exceeded: 0 per 1 minute", body
    answer = ask(weir, path="/v1/messages")
    body = answer.json()
    assert answer.status == 429 and body["type"] == "error" and body["error"]["type"] == "rate_limit_error", body
    assert "0 per 1 minute" in body["error"]["message"] and body["request_id"] == answer.header("x-request-id")
    assert weir.stream().status == 429 and weir.stream().header("content-type") == "application/json"


def test_what_never_fits_is_not_to_be_tried_again(t):
    _, weir = t.pair(args=["--limit", "0/minute"])
    answer = ask(weir)
    assert answer.header("x-should-retry") == "false" and answer.header("retry-after") is None, answer


def test_a_message_of_ones_own(t):
    _, weir = limited(t, ['a: { limit: 1/hour, message: "Slow down, \\"please\\" \u2603." }'])
    ask(weir)
    body = ask(weir).json()
    assert body["detail"] == 'Rate limit exceeded: Slow down, "please" \u2603.' and "please" in body["error"]["message"], body


def test_headers_off(t):
    _, weir = limited(t, ["a: { limit: 1/hour, headers: off }"])
    for status in (200, 429):
        answer = ask(weir)
        assert answer.status == status and not [k for k, _ in answer.headers if k.startswith("x-ratelimit")], answer
    assert number(answer, "retry-after") > 3500
    _, weir = limited(t, ["a: { limit: 2/hour, headers: off }", "b: { limit: 9/hour }"])
    assert ask(weir).header("x-ratelimit-limit") == "9"


def test_the_backends_own_rate_limit_headers_do_not_come_through(t):
    _, weir = t.pair("setcookie", args=["--limit", "7/hour"])
    for answer in (ask(weir), weir.stream()):
        assert answer.all("x-ratelimit-limit-requests") == ["7"], answer


# ---------------------------------------------------------------- where limits are said

def test_limits_from_option_environment_and_file(t):
    fake = t.fake()
    for options in ({"args": ["--limit", "1/HOUR"]}, {"env": {"WEIR_LIMIT": "1 per hour"}},
                    {"env": {"WEIR_LIMIT": "9/hour"}, "args": ["--limit", "1/hour"]},
                    {"config": "limits:\n  a: { limit: 1 per 1 hour }\n"}):
        weir = t.weir(fake, **options)
        assert statuses(weir, 2) == [200, 429], options
    weir = t.weir(fake, env={"WEIR_LIMIT": "9/hour,2/day"})
    assert statuses(weir, 3) == [200, 200, 429], "commas in it separate limits"
    weir = t.weir(fake, args=["--limit", "1/hour"], keys=[ALICE, BOB])
    assert statuses(weir, 2, bearer(ALICE)) + statuses(weir, 2, bearer(BOB)) == [200, 429] * 2, "by API key where there are keys"


def test_a_limit_that_does_not_parse_stops_the_start(t):
    config = t.dir / "x.yaml"
    for text in ("5/", "", "5/week", "5/min", "-1/minute", "1.5/minute", "5/1/minute", "5/minute;", "5/minute;;3/hour", "five/minute",
                 "5 tokens", "1e3/hour", "5/minute\\n3/hour", "99999999999999999999/hour", "5/minute, " * 20 + "1/hour"):
        config.write_text(f'max_body: 1MiB\nlimits:\n  a:\n    limit: "{text}"\n')
        done = t.run("check", config)
        said = done.stderr + done.stdout
        assert done.returncode != 0 and f"{config}:4:" in said, (text, done)
        if "\\" not in text:
            done = t.run("run", "--listen", f"127.0.0.1:{free_port()}", "--limit", text)
            assert done.returncode != 0 and "limit" in done.stderr.lower(), (text, done)
    for more, line in (("by: nobody", 5), ("strategy: fixed-window-elastic-expiry", 5), ("cost: 0", 5), ("cost: 9", 3),
                       ("routes: [/v1/nothing]", 3), ("exempt: { keys: [nobody] }", 3), ("colour: red", 5)):
        config.write_text(f"max_body: 1MiB\nlimits:\n  a:\n    limit: 5/minute\n    {more}\n")
        done = t.run("check", config)
        assert done.returncode != 0 and f"{config}:{line}:" in done.stderr + done.stdout, (more, done)


def test_one_limit_of_a_route(t):
    _, weir = limited(t, ["a: { limit: 1/hour }", "b: { limit: 2/hour }"],
                      "routes:\n  - { path: /v1/completions, depends: [api_key, 'limit:b', validate] }\n"
                      "  - { path: /v1/messages, depends: [api_key, validate] }\n")
    assert statuses(weir, 3, path="/v1/completions") == [200, 200, 429], "a does not run there"
    assert statuses(weir, 4, path="/v1/messages") == [200] * 4
    assert statuses(weir, 1) == [429], "b has been used up"
    done = t.run("check", *[x for x in [t.dir / "bad.yaml"] if x.write_text(
        "limits:\n  a: { limit: 1/hour }\nroutes:\n  - { path: /v1/completions, depends: [api_key, 'limit:b'] }\n")])
    assert done.returncode != 0 and "bad.yaml:4:" in done.stderr + done.stdout, done


# ---------------------------------------------------------------- order

def test_a_validation_error_consumes_a_request_and_no_tokens(t):
    fake, weir = limited(t, ["r: { limit: 3/hour }", "t: { limit: 1000 tokens/hour }"])
    for left in (2, 1):
        answer = weir.ask("POST", CHAT, None, {"model": "m", "messages": [], "max_tokens": 100})
        assert answer.status == 400 and answer.header("x-ratelimit-remaining-requests") == str(left), answer
    assert spent(weir, 1000) == 0
    assert statuses(weir, 1) == [429] and fake.stats()["requests"] == 0


def test_a_wrong_key_consumes_nothing(t):
    _, weir = limited(t, ["a: { limit: 1/hour, by: constant }"], KEYS)
    assert statuses(weir, 3, bearer("wrong-key-0123456789")) == [401] * 3
    assert statuses(weir, 2, bearer(ALICE)) == [200, 429]


# ---------------------------------------------------------------- tokens

PROBE = json.dumps({"model": "fake-1", "messages": [], "max_tokens": 1})


def spent(weir, amount, headers=None):
    """How many tokens of `amount` are used; found out by a request that fails validation and so consumes none."""
    answer = weir.ask("POST", CHAT, {"content-type": "application/json", **(headers or {})}, PROBE)
    assert answer.status in (400, 429), answer
    reserved = len(PROBE) // 4 + 1 if answer.status == 400 else 0
    return amount - number(answer, "x-ratelimit-remaining-tokens") - reserved


def wait_spent(weir, amount, expected, headers=None):
    wait_until(lambda: spent(weir, amount, headers) in expected, f"{expected} tokens spent")


def body_of(**more):
    return json.dumps(chat(**more))


def post(weir, body, behave="", headers=None):
    return weir.ask("POST", CHAT, {"content-type": "application/json", "x-fake": behave, **(headers or {})}, body)


def test_each_strategy_reserves_and_settles_tokens(t):
    for strategy in ("fixed_window", "moving_window", "sliding_window_counter"):
        _, weir = limited(t, [f"t: {{ limit: 1000 tokens/hour, strategy: {strategy} }}"])
        for n in range(1, 6):
            body = body_of(stream=False, max_tokens=500)
            assert number(post(weir, body), "x-ratelimit-remaining-tokens") == 1000 - 500 - len(body) // 4 - 12 * (n - 1), strategy
            wait_spent(weir, 1000, [12 * n])
        assert post(weir, body_of(stream=False, max_tokens=950)).status == 429, strategy


@smoke
def test_tokens_are_reserved_first_and_settled_with_what_was_used(t):
    _, weir = limited(t, ["t: { limit: 1000 tokens/hour }"])
    body = body_of(stream=False, max_tokens=500)
    answer = post(weir, body)
    assert answer.status == 200
    assert number(answer, "x-ratelimit-limit-tokens") == 1000
    assert number(answer, "x-ratelimit-remaining-tokens") == 1000 - 500 - len(body) // 4, "a quarter of the body and max_tokens"
    assert 0 < seconds_of(answer.header("x-ratelimit-reset-tokens")) <= 3600
    wait_spent(weir, 1000, [12])
    body = body_of(max_tokens=500, stream_options={"include_usage": True})
    assert post(weir, body, "events=30").status == 200
    wait_spent(weir, 1000, [12 + 37])
    answer = weir.ask("POST", "/v1/messages", None, {"model": "m", "max_tokens": 50, "stream": True,
                                                     "messages": [{"role": "user", "content": "x"}]})
    assert answer.status == 200
    wait_spent(weir, 1000, [49 + 12])


def test_tokens_of_a_stream_without_usage_are_counted_by_its_events(t):
    _, weir = limited(t, ["t: { limit: 1000 tokens/hour }"])
    body = body_of(max_tokens=500)
    assert post(weir, body, "events=40").status == 200
    guess = len(body) // 4
    # Or with the usage, if weir asked for that.
    wait_spent(weir, 1000, [47, *range(guess + 40, guess + 46)])


@smoke
def test_a_client_that_leaves_is_charged_for_what_was_generated(t):
    fake, weir = limited(t, ["t: { limit: 10000 tokens/hour }"])
    body = body_of(max_tokens=5000)
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "events=9999,stall_after=30", "content-type": "application/json"}, body)
        text = b""
        for piece in wire.pieces(wire.head()):
            text += piece
            if text.count(b"\n\n") >= 31:
                break
        assert spent(weir, 10000) >= 5000, "reserved while it runs"
    fake.wait_aborts()
    guess = len(body) // 4
    wait_spent(weir, 10000, range(guess + 30, guess + 36))


def test_a_client_that_leaves_before_anything_came_is_charged_its_prompt_at_most(t):
    fake, weir = limited(t, ["t: { limit: 10000 tokens/hour }"])
    body = body_of(max_tokens=5000)
    for turn, behave in enumerate(("delay_ms=60000", "first_ms=60000")):
        with weir.connect() as wire:
            wire.request("POST", CHAT, {"x-fake": behave, "content-type": "application/json"}, body)
            fake.wait_requests(turn + 1)
        fake.wait_aborts(turn + 1)
        wait_spent(weir, 10000, range((turn + 1) * (len(body) // 4) + 1))


def test_tokens_of_a_broken_stream_are_those_that_came(t):
    _, weir = limited(t, ["t: { limit: 10000 tokens/hour }"])
    body = body_of(max_tokens=5000)
    guess = len(body) // 4
    for turn, behave in enumerate(("cut_after=20", "end_after=20", "error_event=20"), 1):
        with begin(weir, "events=50," + behave, json.loads(body)) as wire:
            text = wire.response().body
        assert b"00000020" in text and b"00000021" not in text and b"[DONE]" not in text, text
        wait_spent(weir, 10000, range(turn * (guess + 20), turn * (guess + 23) + 1))


def test_tokens_of_requests_that_fail_are_given_back(t):
    fake, weir = limited(t, ["t: { limit: 10000 tokens/hour }"])
    body = body_of(max_tokens=5000)
    assert post(weir, body, "status=500").status == 500
    wait_spent(weir, 10000, [0])
    assert post(weir, body, "drop").status == 502
    wait_spent(weir, 10000, [0])
    assert post(weir, body_of(model="nothing-like-it", max_tokens=5000), "status=404").status == 404
    wait_spent(weir, 10000, [0])
    fake.signal()
    fake.wait()
    t.processes.remove(fake)
    assert post(weir, body).status == 502
    wait_spent(weir, 10000, [0])


def test_a_request_that_would_take_too_many_tokens_is_refused(t):
    fake, weir = limited(t, ["t: { limit: 1000 tokens/hour }", "r: { limit: 3/hour }"])
    answer = post(weir, body_of(stream=False, max_tokens=2000))
    body = answer.json()
    assert answer.status == 429 and body["error"]["type"] == "tokens" and body["error"]["code"] == "rate_limit_exceeded", body
    assert body["detail"] == "Rate limit exceeded: 1000 tokens per 1 hour", body
    assert answer.header("x-should-retry") == "false" and answer.header("retry-after") is None, "it will never fit"
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "stall_after=1", "content-type": "application/json"}, body_of(max_tokens=900))
        wire.head()
        answer = post(weir, body_of(stream=False, max_tokens=200))
        assert answer.status == 429 and number(answer, "retry-after") > 3000, answer
        assert number(answer, "x-ratelimit-remaining-requests") == 2, "refused by one limit, it consumed nothing of the other"
    fake.wait_aborts()
    wait_until(lambda: post(weir, body_of(stream=False, max_tokens=200)).status == 200, "the reservation to be given back")


def test_a_maximum_that_is_beyond_all_reason_frees_nobody(t):
    fake, weir = limited(t, ["t: { limit: 1000 tokens/hour }"])
    for tokens in (1001, 10**6, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 20, 2**64 - 1):
        for name in ("max_tokens", "max_completion_tokens"):
            assert ask(weir, **{name: tokens}).status == 429, (name, tokens)
    assert fake.stats()["requests"] == 0
    for tokens in (2**64, 10**40, -1, -10**30, 1e300, 0.5, "9", None, [], {}):
        answer = ask(weir, max_tokens=tokens)
        assert answer.status in (200, 400, 429), (tokens, answer)
    # At most the twelve of each that was let through.
    assert 0 <= spent(weir, 1000) <= 12 * fake.stats()["requests"]


def test_a_large_prompt_counts_as_large(t):
    fake, weir = limited(t, ["t: { limit: 1000 tokens/hour }"])
    large = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x" * 3600}]}
    with begin(weir, "stall_after=1", {**large, "stream": True}):
        fake.wait_requests()
        assert post(weir, json.dumps(large)).status == 429, "there is no room for two of them"
        answer = ask(weir, max_tokens=1)
        assert answer.status == 200 and number(answer, "x-ratelimit-remaining-tokens") < 100, answer
    fake.wait_aborts()
    assert ask(weir, max_tokens=1).status == 200


def test_a_request_that_says_no_maximum_is_not_refused_for_a_guess(t):
    _, weir = limited(t, ["t: { limit: 100 tokens/hour }"])
    answer = ask(weir)
    assert answer.status == 200 and number(answer, "x-ratelimit-remaining-tokens") == 0, answer
    wait_until(lambda: ask(weir, max_tokens=1).status == 200, "room for another")


def test_used_tokens_beyond_the_limit_hold_up_the_next(t):
    _, weir = limited(t, ["t: { limit: 100 tokens/hour }"])
    assert post(weir, body_of(max_tokens=10, stream_options={"include_usage": True}), "events=500").status == 200
    wait_until(lambda: ask(weir, max_tokens=1).status == 429, "the overdraft to count")
    answer = ask(weir, max_tokens=1)
    assert number(answer, "x-ratelimit-remaining-tokens") == 0 and number(answer, "retry-after") > 3000, answer


def test_tokens_by_key_and_by_a_keys_own_limit(t):
    _, weir = limited(t, ["t: { limit: 1000 tokens/hour }"], KEYS.replace("bob, ", "bob, limit: 50 tokens/hour, "))
    assert ask(weir, bearer(ALICE), max_tokens=100).status == 200
    wait_spent(weir, 1000, [12], bearer(ALICE))
    assert ask(weir, bearer(BOB), max_tokens=100).status == 429
    assert ask(weir, bearer(BOB), max_tokens=5).status == 200
    wait_spent(weir, 50, [12], bearer(BOB))


# ---------------------------------------------------------------- at once

STREAM_PHASES = {
    "before the head": ("delay_ms=60000", chat()),
    "before the first event": ("first_ms=60000", chat()),
    "mid-stream": ("events=100000,pace_ms=10", chat()),
    "while the backend is silent": ("events=9,stall_after=3", chat()),
    "waiting for a plain answer": ("delay_ms=60000", chat(False)),
    "in a plain answer": ("first_ms=60000,size=200", chat(False)),
}


def begin(weir, behave, body, headers=None):
    wire = weir.connect()
    wire.request("POST", CHAT, {"x-fake": behave, **(headers or {})}, body)
    return wire


def is_full(answer):
    if answer.status == 200:
        return False
    assert answer.status == 429 and answer.json()["error"]["code"] == "concurrency_limit_exceeded", answer
    assert 1 <= number(answer, "retry-after") <= 60
    return True


@smoke
def test_max_streams_places_are_given_back_when_clients_leave(t):
    fake, weir = t.pair(config="max_streams: 1\n")
    for turn, (behave, body) in enumerate(STREAM_PHASES.values()):
        before = fake.stats()["requests"]
        wire = begin(weir, behave, body)
        fake.wait_requests(before + 1)
        assert is_full(ask(weir)) and is_full(weir.stream()), behave
        assert fake.stats()["requests"] == before + 1
        wire.close()
        fake.wait_aborts(turn + 1)
        wait_until(lambda: not is_full(ask(weir)), f"the place of a client that left {behave}")


@smoke
def test_max_streams_places_are_given_back_however_an_answer_ends(t):
    fake, weir = t.pair(config="max_streams: 1\n")
    for behave in ("events=3", "drop", "drop=2", "status=500", "cut_after=2", "reset_after=2", "cut_inside=2", "end_after=2", "garbage",
                   "error_event=1", "half_chunk", "bad_chunk", "early=2", "status=429,retry_after=1"):
        for body in (chat(), chat(False)):
            with begin(weir, behave, body) as wire:
                try:
                    wire.response()
                except Exception:  # pylint: disable=broad-except
                    pass  # how it breaks is other scenarios' business
            wait_until(lambda: not is_full(ask(weir)), f"the place after {behave}")
    assert fake.alive()


def test_max_streams_places_are_given_back_by_what_is_refused_afterwards(t):
    _, weir = limited(t, ["a: { limit: 1/hour, by: model }"], "max_streams: 1\n")
    assert statuses(weir, 3, model="m1") == [200, 429, 429]
    assert statuses(weir, 1, model="m2") == [200]
    assert weir.ask("POST", CHAT, None, {"model": "m3", "messages": []}).status == 400
    assert ask(weir, model="m4").status == 200
    assert weir.stream("status=404", body=chat(False, model="m5")).status == 404
    assert ask(weir, model="m6").status == 200


def test_a_request_refused_for_too_many_at_once_consumes_nothing(t):
    fake, weir = limited(t, ["a: { limit: 3/hour, by: constant }", "t: { limit: 10000 tokens/hour, by: constant }"],
                         "max_streams: 1\n")
    with begin(weir, "stall_after=1", chat(max_tokens=10)):
        fake.wait_requests()
        assert all(is_full(ask(weir, max_tokens=500)) for _ in range(5))
    fake.wait_aborts()
    wait_until(lambda: ask(weir, max_tokens=1).status == 200, "the place")
    assert [ask(weir, max_tokens=1).status for _ in range(2)] == [200, 429]


def test_max_streams_over_http2(t):
    t.need("curl")
    fake, weir = t.pair(config="max_streams: 1\n")
    curl = subprocess.Popen(["curl", "-sN", "--http2-prior-knowledge", "-H", "x-fake: stall_after=2", "-H",
                             "content-type: application/json", "-d", json.dumps(chat()), weir.url + CHAT], stdout=subprocess.DEVNULL)
    fake.wait_requests()
    assert is_full(ask(weir))
    curl.kill()
    curl.wait()
    wait_until(lambda: not is_full(ask(weir)), "the place of a stream that was reset")


def test_leaving_a_messages_stream_early_pays_for_its_events(t):
    fake, weir = limited(t, ["t: { limit: 1000 tokens/hour }"])
    body = json.dumps({"model": "m", "max_tokens": 500, "stream": True, "messages": [{"role": "user", "content": "x"}]})
    with weir.connect() as wire:
        wire.request("POST", "/v1/messages", {"x-fake": "events=200,stall_after=100", "content-type": "application/json"}, body)
        pieces, text = wire.pieces(wire.head()), b""
        while text.count(b"event: content_block_delta") < 100:
            text += next(pieces)
    fake.wait_aborts()
    wait_until(lambda: spent(weir, 1000) < 400, "the reservation to be settled")
    assert spent(weir, 1000) >= 90, "what message_start says is not what was generated"


def test_max_streams_of_a_key_hold_behind_a_limit_that_needs_none(t):
    route = f"routes:\n  - {{ path: {CHAT}, depends: [\"limit:ip\", api_key, \"limit:key\", validate] }}\n"
    keys = KEYS.replace("alice, ", "alice, max_streams: 1, ")
    fake, weir = limited(t, ["ip: { limit: 100/hour, by: address }", "key: { limit: 100/hour, by: api_key }"],
                         keys + "max_streams: 50\n" + route)
    with weir.connect() as wire:
        wire.request("POST", CHAT, {"x-fake": "stall_after=1", "content-type": "application/json", **bearer(ALICE)},
                     json.dumps(chat(True)))
        wire.head()
        assert ask(weir, bearer(ALICE)).status == 429
        assert ask(weir, bearer(BOB)).status == 200
    fake.wait_aborts()
    wait_until(lambda: ask(weir, bearer(ALICE)).status == 200, "the place to be given back")


def test_a_keys_own_limit_counts_once_whatever_the_steps(t):
    route = f"routes:\n  - {{ path: {CHAT}, depends: [api_key, \"limit:a\", \"limit:b\", validate] }}\n"
    keys = KEYS.replace("alice, ", "alice, limit: 4/hour, ")
    _, weir = limited(t, ["a: { limit: 1/hour, by: api_key }", "b: { limit: 2/hour, by: api_key }"], keys + route)
    assert statuses(weir, 5, bearer(ALICE)) == [200, 200, 200, 200, 429]
    assert statuses(weir, 2, bearer(BOB)) == [200, 429]


def test_max_streams_of_a_key_leave_others_alone(t):
    keys = KEYS.replace("alice, ", "alice, max_streams: 2, ")
    fake, weir = t.pair(config=keys + "max_streams: 3\n", args=["--workers", "2"])
    held = [begin(weir, "stall_after=1", chat(), bearer(ALICE)) for _ in range(2)]
    fake.wait_requests(2)
    assert all(is_full(ask(weir, bearer(ALICE))) for _ in range(6)), "on whichever worker"
    for _ in range(3):
        wait_until(lambda: not is_full(ask(weir, bearer(BOB))), "a place for another key")

    def hold():
        """A third stream; its place may still be that of the request before, on the other worker."""
        wire = begin(weir, "stall_after=1", chat(), bearer(BOB))
        if wire.head().status == 200:
            held.append(wire)
            return True
        wire.close()
        return False

    wait_until(hold, "the third place")
    assert all(is_full(ask(weir, bearer(BOB))) for _ in range(6)), "all together have 3"
    held.pop(0).close()
    wait_until(lambda: not is_full(ask(weir, bearer(BOB))), "a place")
    wait_until(lambda: not is_full(ask(weir, bearer(ALICE))), "a place")
    for wire in held:
        wire.close()


def test_unfinished_answers_count_and_open_connections_do_not(t):
    _, weir = t.pair(config="max_streams: 1\n")
    with weir.connect() as idle, weir.connect() as wire:
        for _ in range(3):
            wire.request("POST", CHAT, None, chat())
            assert wire.response().status == 200
            idle.request("POST", CHAT, None, chat(False))
            assert idle.response().status == 200


def test_a_client_that_asks_one_after_the_other_never_meets_itself(t):
    _, weir = t.pair(config="max_streams: 1\n", args=["--workers", "4"])
    wires = [weir.connect() for _ in range(16)]
    for turn in range(10):
        for wire in wires:
            wire.request("POST", CHAT, None, chat(turn % 2 == 0))
            assert wire.response().status == 200, turn
    for wire in wires:
        wire.close()


# ---------------------------------------------------------------- what operators see

@smoke
def test_decisions_in_metrics_and_log(t):
    _, weir = limited(t, ["per_model: { limit: 2/hour, by: model }", "all: { limit: 100/hour, by: constant }"])
    for i in range(3):
        ask(weir, {"x-request-id": f"r{i}"})
    line = weir.request_line("r1")
    assert line["limit_remaining"] == 0 and "refusal" not in line, line
    assert weir.request_line("r0")["limit_remaining"] == 1
    line = weir.request_line("r2")
    assert (line["status"], line["refusal"], line["end"], line["limit_remaining"]) == (429, "rate_limit_exceeded", "refused", 0), line
    for limit_name, result, n in (("per_model", "allowed", 2), ("per_model", "refused", 1), ("all", "allowed", 2), ("all", "refused", 0)):
        pattern = rf'^weir_limit_decisions_total{{limit="{limit_name}",result="{result}"}}$'
        assert weir.metric(pattern) == n, (limit_name, result, weir.metrics())
    assert weir.metric(r'^weir_refusals_total{.*reason="rate_limit_exceeded"') == 1
    assert weir.metric(r"^weir_limit_entries$") >= 2 and weir.metric(r"^weir_limit_bytes$") > 0


def test_too_many_at_once_in_metrics_and_log(t):
    fake, weir = t.pair(config="max_streams: 1\n")
    with begin(weir, "stall_after=1", chat()):
        fake.wait_requests()
        assert is_full(ask(weir, {"x-request-id": "full"}))
    assert weir.request_line("full")["refusal"] == "concurrency_limit_exceeded"
    assert weir.metric(r'^weir_limit_decisions_total{limit="max_streams",result="refused"}') == 1


# ---------------------------------------------------------------- bad input

def flood(weir, requests):
    """Sends them one after the other on one connection; returns how often each status came."""
    counts = {}
    with weir.connect() as wire:
        for headers, body in requests:
            wire.request("POST", CHAT, headers, body)
            status = wire.response().status
            counts[status] = counts.get(status, 0) + 1
    return counts


@limit(300)
def test_fresh_clients_by_the_thousand_neither_grow_the_store_nor_free_a_limit(t):
    for by, make in (("user", lambda i: ({}, chat(False, user=f"u{i}"))), ("model", lambda i: ({}, chat(False, model=f"m{i}"))),
                     ("address", lambda i: ({"x-forwarded-for": f"2001:db8:{i:x}::1"}, chat(False)))):
        fake, weir = limited(t, [f"a: {{ limit: 2/hour, by: {by} }}"], "limit_memory: 128KiB\ntrusted_proxies: [127.0.0.1]\n")
        headers, body = make(0)

        def victim(headers=headers, body=body):
            return weir.ask("POST", CHAT, headers, body).status

        assert [victim() for _ in range(3)] == [200, 200, 429]
        counts = flood(weir, (make(i) for i in range(1, 4000)))
        assert set(counts) == {200, 429}, (by, counts)
        assert 100 <= counts[200] <= 3000, (by, counts, "each gets in until there is no room, then they share one count")
        assert 0 < weir.metric(r"^weir_limit_bytes$") <= 128 << 10
        assert weir.metric(r"^weir_limit_overflows_total$") > 500
        assert victim() == 429, f"a limit by {by} in force was pushed out"
        assert fake.stats()["requests"] == 2 + counts[200]
        assert weir.stop() == 0


def test_max_streams_hold_when_the_store_is_full(t):
    fake, weir = limited(t, ["a: { limit: 2/hour, by: user }"], "limit_memory: 128KiB\nmax_streams: 1\n")
    flood(weir, (({}, {"model": "m", "messages": [], "user": f"u{i}"}) for i in range(3000)))
    fake.reset()
    with begin(weir, "stall_after=1", chat(user="u1")):
        fake.wait_requests()
        assert is_full(ask(weir, user="u2"))
    fake.wait_aborts()
    wait_until(lambda: not is_full(ask(weir, user="u3")), "the place")


def test_values_that_clients_choose_reach_the_log_escaped(t):
    _, weir = limited(t, ["a: { limit: 1/hour, by: user }", "b: { limit: 1/hour, by: model }"])
    bad = 'x\u0000\u0001\n{"level":"error","msg":"forged","status":1}\r\u001b[31m\u007f\u2028"'
    for i, more in enumerate(({"user": bad}, {"model": bad}, {"user": bad, "model": bad}, {"user": ["a", {"b": bad}]}, {"user": 7},
                              {"user": None}, {"user": bad * 500}, {"model": bad * 500})):
        for turn in range(2):
            answer = ask(weir, {"x-request-id": f"r{i}-{turn}"}, **{"user": f"u{i}", "model": f"m{i}", **more})
            assert answer.status in (200, 400, 404, 429), answer
    weir.request_line("r7-1")
    raw = weir.log_path.read_bytes()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", raw), "control characters in the log"
    lines = weir.log_lines()
    banner = [line for line in raw.split(b"\n")[:-1] if not line.startswith(b"{")]
    assert all(line.startswith((b"weir ", b"  ")) for line in banner) and not any(line.get("msg") == "forged" for line in lines)
    assert sum(1 for line in lines if re.fullmatch(r"r\d-\d", str(line.get("request_id", "")))) == 16


def test_addresses_that_are_none_do_not_pass_as_fresh_ones(t):
    _, weir = limited(t, ["a: { limit: 2/hour, by: address }"], "trusted_proxies: [127.0.0.1]\n")
    junk = ["", "unknown", "_hidden", "999.1.1.1", "192.0.2.1.5", "a" * 3000, "::g", "1" * 50, "192.0.2.1 192.0.2.2", ",,,", "%s%n"]
    seen = [ask(weir, {"x-forwarded-for": value}).status for value in junk]
    assert seen.count(200) <= 2 and set(seen) <= {200, 400, 429}, seen
