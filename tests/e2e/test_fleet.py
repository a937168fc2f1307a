"""Several servers behind one door: who is chosen, what is tried again, who is left alone for a while."""
import json
import threading
import time

from harness import Options, Truncated, chat, free_port, limit, smoke, wait_until

CHAT = "/v1/chat/completions"
ONE_WORKER = ["--workers", "1"]  # each has its own turns


def fleet(fakes, more="", per_backend=""):
    """A configuration with these backends, named a, b, c and so on."""
    lines = "".join(f'  - {{ name: {chr(97 + i)}, url: "{fake if isinstance(fake, str) else fake.url}"{per_backend} }}\n'
                    for i, fake in enumerate(fakes))
    return f"backends:\n{lines}{more}"


def state(weir, name):
    return next(backend for backend in weir.ask("GET", "/health").json()["backends"] if backend["name"] == name)["state"]


def served(fakes):
    return [fake.stats()["requests"] for fake in fakes]


def dead():
    return f"http://127.0.0.1:{free_port()}"


class Load:
    """Clients that ask again and again; what became of each request."""
    def __init__(self, weir, clients=6, pause=0.0, body=None, headers=None):
        self.weir, self.pause, self.body, self.headers = weir, pause, body or chat(), headers
        self.whole, self.broken, self.errors = 0, 0, []
        self.attempts = 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._stop.is_set():
            whole = broken = 0
            error = None
            try:
                answer = self.weir.ask("POST", CHAT, self.headers, self.body)
                if answer.status != 200:
                    error = answer
                elif answer.body.endswith(b"[DONE]\n\n") or b'"error"' not in answer.body:
                    whole = 1
                else:
                    broken = 1
            except Truncated:
                broken = 1
            except Exception as e:  # pylint: disable=broad-except
                error = e
            with self._lock:
                self.whole += whole
                self.broken += broken
                if error is not None:
                    self.errors.append(error)
            time.sleep(self.pause)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self


# ---------------------------------------------------------------- outages

@smoke
@limit(90)
def test_a_server_that_is_killed_and_restarted_again_and_again_costs_no_client_its_first_token(t):
    fakes = [t.fake("events=4,pace_ms=2") for _ in range(3)]
    weir = t.weir(config=fleet(fakes, "health: { ejection: 300ms, slow_start: 300ms }\n"))
    load = Load(weir, clients=4 if Options.valgrind else 8, pause=0.01)
    for _ in range(3):
        time.sleep(0.5 * Options.slow)
        fakes[1].crash()
        time.sleep(0.5 * Options.slow)
        fakes[1] = fakes[1].revive()
    time.sleep(0.5 * Options.slow)
    load.stop()
    assert not load.errors, load.errors[:3]
    assert load.whole > 50, (load.whole, load.broken)
    assert load.broken <= 3 * 8, "only answers that had begun on the one that died"
    wait_until(lambda: weir.stream().status == 200 and fakes[1].stats()["requests"] > 0, "the third to serve again")


@smoke
def test_a_dead_server_is_found_out_once_and_then_left_alone(t):
    fake, gone = t.fake(), dead()
    weir = t.weir(config=fleet([gone, fake], "health: { ejection: 1m }\n"), args=ONE_WORKER)
    answers = [weir.stream() for _ in range(20)]
    assert [answer.status for answer in answers] == [200] * 20
    attempts = [answer.header("x-weir-attempts") for answer in answers]
    assert attempts.count("2") == 3 and attempts.count("1") == 17, attempts
    assert state(weir, "a") == "ejected" and state(weir, "b") == "healthy"
    assert weir.metric(r'weir_backend_ejections_total\{backend="a"\}') == 1
    assert weir.metric(r'weir_retries_total\{backend="a",reason="connect"\}') == 3
    lines = [line for line in weir.log_lines() if line["msg"] == "backend"]
    assert len(lines) == 1 and lines[0]["state"] == "ejected" and lines[0]["backend"] == "a", lines


def test_a_server_that_comes_back_is_tried_by_one_request_and_then_gets_its_share(t):
    fake, other = t.fake(), t.fake()
    weir = t.weir(config=fleet([fake, other], "health: { ejection: 4s, slow_start: 500ms }\n"), args=ONE_WORKER)
    fake.behave("drop=2")
    for _ in range(12):
        assert weir.stream().status == 200
    assert state(weir, "a") == "ejected"
    before = fake.stats()["requests"]
    assert before == 3, "three failures in a row"
    fake.behave("events=5")
    wait_until(lambda: weir.stream().status == 200 and fake.stats()["requests"] > before, "a trial")
    wait_until(lambda: state(weir, "a") in ("slow_start", "healthy"), "recovery")
    wait_until(lambda: weir.stream().status == 200 and state(weir, "a") == "healthy", "the end of the slow start")
    words = [line["state"] for line in weir.log_lines() if line["msg"] == "backend"]
    assert words == ["ejected", "trial", "slow_start", "healthy"], words


def test_the_last_server_standing_is_never_ejected(t):
    fake, weir = t.pair("drop=2")
    for _ in range(10):
        assert weir.stream().status == 502
    assert fake.stats()["requests"] == 10
    fake.behave("events=5")
    assert weir.stream().status == 200


def test_a_clients_mistakes_do_not_count_against_a_server(t):
    fakes = [t.fake("status=400"), t.fake("status=400")]
    weir = t.weir(config=fleet(fakes), args=ONE_WORKER)
    for status in (400, 404, 422, 413, 429):
        for fake in fakes:
            fake.behave(f"status={status}")
        for _ in range(6):
            answer = weir.stream()
            assert answer.status == status
    assert [state(weir, "a"), state(weir, "b")] == ["healthy"] * 2
    assert served(fakes)[0] > 10 and served(fakes)[1] > 10


# ---------------------------------------------------------------- what is tried again

@smoke
def test_what_fails_before_the_first_token_is_served_by_another(t):
    good = t.fake()
    for behave in ("status=500", "status=502", "status=503", "status=529", "status=429", "status=429,retry_after=1", "drop", "drop=2",
                   "garbage", "cut_after=0", "cut_inside=1", "end_after=0", "reset_after=0"):
        bad = t.fake(behave)
        weir = t.weir(config=fleet([bad, good]), args=ONE_WORKER)
        answer = weir.stream()
        assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n"), (behave, answer)
        assert answer.header("x-weir-attempts") == "2", (behave, answer)
        assert b"error" not in answer.body and bad.stats()["requests"] == 1, behave
        line = weir.request_line(answer.header("x-request-id"))
        assert line["attempts"] == 2 and line["backend"] == "b" and line["status"] == 200 and line["level"] == "info", line
        weir.stop()
        bad.crash()


def test_plain_answers_are_tried_again_too(t):
    good = t.fake()
    for behave in ("status=500", "status=429", "drop=2", "garbage"):
        bad = t.fake(behave)
        weir = t.weir(config=fleet([bad, good]), args=ONE_WORKER)
        answer = weir.stream(body=chat(False))
        assert answer.status == 200 and answer.header("x-weir-attempts") == "2", (behave, answer)
        weir.stop()
        bad.crash()


@smoke
def test_a_server_that_stalls_before_its_first_token_is_given_up_for_another(t):
    for behave in ("first_ms=60000", "delay_ms=60000", "comments,first_ms=60000"):
        slow, good = t.fake(behave), t.fake()
        weir = t.weir(config=fleet([slow, good], per_backend=", timeouts: { first_token: 1500ms }"), args=ONE_WORKER)
        answer = weir.stream()
        assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n"), (behave, answer)
        assert answer.header("x-weir-attempts") == "2"
        slow.wait_aborts()
        weir.stop()


@smoke
def test_the_last_failing_answer_comes_as_it_was(t):
    first, second = t.fake("status=500"), t.fake("status=429,retry_after=7")
    weir = t.weir(config=fleet([first, second]), args=ONE_WORKER)
    answer = weir.stream()
    direct = second.ask("POST", CHAT, None, chat())
    assert (answer.status, answer.body, answer.header("retry-after")) == (429, direct.body, "7"), answer
    assert answer.header("x-weir-attempts") == "2"
    first.behave("status=503,retry_after=3")
    second.crash()
    weir = t.weir(config=fleet([first, second]), args=ONE_WORKER)
    answer = weir.stream()
    assert (answer.status, answer.header("retry-after")) == (503, "3"), "better than that nobody can be reached"


def test_nothing_is_tried_again_after_the_first_token(t):
    for behave, events in (("events=60,cut_after=40", 40), ("events=60,reset_after=40", 40), ("events=60,end_after=40", 40),
                           ("events=9,end_after=3", 3)):
        fakes = [t.fake(behave), t.fake(behave)]
        weir = t.weir(config=fleet(fakes))
        answer = weir.stream()
        assert answer.status == 200 and b'"error"' in answer.body and b"[DONE]" not in answer.body, answer
        assert sum(served(fakes)) == 1
        line = weir.request_line(answer.header("x-request-id"))
        assert line["events"] >= events and line["level"] == "warn" and "attempts" not in line, line
        broke = next(line for line in weir.log_lines() if line["msg"] == "backend broke off an answer")
        assert broke["events"] == line["events"] and broke["backend"] == line["backend"]
        weir.stop()


def test_a_server_whose_streams_keep_dying_is_ejected(t):
    dying, good = t.fake("events=60,cut_after=40"), t.fake("events=60")
    weir = t.weir(config=fleet([dying, good]), args=ONE_WORKER)
    for _ in range(12):
        weir.stream()
    assert state(weir, "a") == "ejected" and dying.stats()["requests"] == 3
    fakes = [t.fake("events=60,stall_after=40"), good]
    weir = t.weir(config=fleet(fakes, per_backend=", timeouts: { idle: 1500ms }"), args=ONE_WORKER)
    for _ in range(12):
        weir.stream()
    assert state(weir, "a") == "ejected" and fakes[0].stats()["requests"] == 3


def test_an_outage_is_not_multiplied(t):
    fakes = [t.fake("status=500") for _ in range(3)]
    weir = t.weir(config=fleet(fakes, "health: { failures: 0, error_rate: 0 }\nretries: { backoff: 1ms }\n"), args=ONE_WORKER)
    begun = time.monotonic()
    for _ in range(100):
        assert weir.stream().status == 500
    total, seconds = sum(served(fakes)), time.monotonic() - begun
    assert 110 <= total <= 100 + 20 + 10 + 2 + seconds, (total, seconds)  # a fifth of them, the minimum, and one per second
    assert weir.metric("weir_retries_refused_total") > 0
    assert weir.metric("weir_retries_total") == total - 100


def test_a_request_is_sent_at_most_three_times(t):
    fakes = [t.fake("status=500") for _ in range(5)]
    weir = t.weir(config=fleet(fakes), args=ONE_WORKER)
    answer = weir.stream()
    assert answer.status == 500 and answer.header("x-weir-attempts") == "3" and sum(served(fakes)) == 3


def test_what_is_passed_on_unread_is_sent_once(t):
    fakes = [t.fake("drop=2"), t.fake("drop=2")]
    weir = t.weir(config=fleet(fakes), args=ONE_WORKER)
    assert weir.ask("POST", "/v1/images/generations", None, {"model": "m", "prompt": "x"}).status == 502
    assert sum(served(fakes)) == 1
    fake, gone = t.fake(), dead()
    weir = t.weir(config=fleet([gone, fake]), args=ONE_WORKER)
    assert weir.ask("POST", "/v1/images/generations", None, {"model": "m", "prompt": "x"}).status == 200


def test_only_the_delivered_answer_is_charged(t):
    bad, good = t.fake("status=500"), t.fake("events=5,usage")
    weir = t.weir(config=fleet([bad, good], "limits: { all: { limit: 100/hour, by: address } }\n"), args=ONE_WORKER)
    answer = weir.stream()
    assert answer.status == 200 and answer.header("x-weir-attempts") == "2"
    assert answer.header("x-ratelimit-remaining") == "99"


# ---------------------------------------------------------------- pauses

@smoke
def test_retry_after_leaves_a_server_alone_for_that_long(t):
    for behave in ("status=429,retry_after=2", "status=503,retry_after=2"):
        busy, good = t.fake(behave), t.fake()
        weir = t.weir(config=fleet([busy, good]), args=ONE_WORKER)
        begun = time.monotonic()
        assert weir.stream().status == 200
        assert state(weir, "a") == "paused"
        while time.monotonic() < begun + 1.5:
            assert weir.stream().status == 200
            asked = busy.stats()["requests"]
            assert asked == 1 or time.monotonic() > begun + 2, "it asked for two seconds"
        busy.behave("events=5")
        wait_until(lambda: weir.stream().status == 200 and busy.stats()["requests"] > 1, "it to be asked again")
        assert state(weir, "a") == "healthy", "nothing was wrong with it"
        weir.stop()


def test_a_pause_is_bounded(t):
    busy, good = t.fake("status=429,retry_after=3600"), t.fake()
    weir = t.weir(config=fleet([busy, good], "health: { max_pause: 500ms }\n"), args=ONE_WORKER)
    assert weir.stream().status == 200
    wait_until(lambda: weir.stream().status == 200 and busy.stats()["requests"] > 1, "it to be asked again")


def test_a_limit_on_the_clients_own_credential_pauses_nobody(t):
    busy, good = t.fake("status=429,retry_after=60"), t.fake()
    weir = t.weir(config=fleet([busy, good]), args=ONE_WORKER)
    assert weir.stream(headers={"authorization": "Bearer clients-own"}).status == 200
    assert state(weir, "a") == "healthy"


# ---------------------------------------------------------------- fallback orders

def test_a_fallback_order_goes_across_backends_and_names(t):
    cloud, local = t.fake(), t.fake()
    weir = t.weir(config=f"""
backends:
  - {{ name: cloud, url: "{cloud.url}", models: {{ gpt-x: big-one }} }}
  - {{ name: local, url: "{local.url}", models: [llama] }}
models: {{ best: [gpt-x@cloud, llama@local] }}
""", args=ONE_WORKER)
    body = {**chat(), "model": "best"}
    assert weir.stream(body=body).status == 200
    assert cloud.last().json()["model"] == "big-one" and local.stats()["requests"] == 0
    cloud.behave("status=500")
    answer = weir.stream(body=body)
    assert answer.status == 200 and local.last().json()["model"] == "llama"
    assert weir.stream(body={**chat(), "model": "worst"}).status == 404
    names = [model["id"] for model in weir.ask("GET", "/v1/models").json()["data"]]
    assert sorted(names) == ["best", "gpt-x", "llama"], names


@smoke
def test_a_first_choice_that_stays_silent_is_passed_over_although_nobody_else_serves_its_model(t):
    """Ejected it cannot be: those who ask for its model by name have nobody else. But who has another choice takes it."""
    silent, good = t.fake("delay_ms=600000"), t.fake()
    short = "timeouts: { first_token: 300ms }"
    weir = t.weir(config=f"""
backends:
  - {{ name: a, url: "{silent.url}", models: [gpt-x], {short} }}
  - {{ name: b, url: "{good.url}", models: [llama] }}
models: {{ best: [gpt-x@a, llama@b] }}
health: {{ ejection: 3s }}
""", args=ONE_WORKER)
    best = {**chat(), "model": "best"}
    for _ in range(3):
        assert weir.stream(body={**chat(), "model": "gpt-x"}).status == 504
    assert state(weir, "a") == "failing"
    before, begin = silent.stats()["requests"], time.monotonic()
    for _ in range(5):
        assert weir.stream(body=best).status == 200
    if time.monotonic() - begin < 2.5:
        assert silent.stats()["requests"] == before, "nobody waits for it who need not"
    before = silent.stats()["requests"]
    assert weir.stream(body={**chat(), "model": "gpt-x"}).status == 504
    assert silent.stats()["requests"] == before + 1, "it is all that there is"
    def tried():
        assert weir.stream(body=best).status == 200, "whoever tries it is served by the other"
        return silent.stats()["requests"] > before + 1
    wait_until(tried, "a request to try it again")
    assert state(weir, "a") == "failing"
    silent.behave("")
    wait_until(lambda: weir.stream(body=best).status == 200 and state(weir, "a") == "healthy", "its return", 20)
    wait_until(lambda: [line["state"] for line in weir.log_lines() if line["msg"] == "backend"] == ["failing", "healthy"], "the log")
    before = good.stats()["requests"]
    assert weir.stream(body=best).status == 200 and good.stats()["requests"] == before


def test_the_only_server_is_failing_as_long_as_its_answers_break_off(t):
    """That they begin does not make it healthy for the time being."""
    dying = t.fake("events=60,cut_after=40")
    weir = t.weir(config=fleet([dying]), args=ONE_WORKER)
    def states():
        return [line["state"] for line in weir.log_lines() if line["msg"] == "backend"]
    for _ in range(3):
        assert b"[DONE]" not in weir.stream().body
    wait_until(lambda: state(weir, "a") == "failing", "the broken answers to be counted")
    assert weir.metric(r'weir_backend_failing\{backend="a"\}') == 1 and weir.metric(r'weir_backend_up\{backend="a"\}') == 1
    for _ in range(4):
        assert b"[DONE]" not in weir.stream().body, "it is all that there is"
        assert state(weir, "a") == "failing"
    assert states() == ["failing"], states()
    dying.behave("status=500")
    assert weir.stream().status == 500
    assert state(weir, "a") == "failing", "an error is no answer, though it be complete"
    for status in (400, 404, 422):
        dying.behave(f"status={status}")
        assert weir.stream().status == status
        assert state(weir, "a") == "failing", "nor is a client's"
    dying.behave("events=60")
    assert b"[DONE]" in weir.stream().body
    wait_until(lambda: states() == ["failing", "healthy"], "the log")
    assert weir.metric(r'weir_backend_failing\{backend="a"\}') == 0


# ---------------------------------------------------------------- balancing

def counts(t, balance, weights, requests, ask):
    fakes = [t.fake("events=2") for _ in weights]
    lines = "".join(f'  - {{ name: {chr(97 + i)}, url: "{fake.url}", weight: {weight} }}\n'
                    for i, (fake, weight) in enumerate(zip(fakes, weights)))
    weir = t.weir(config=f"backends:\n{lines}balance: {balance}\n", args=ONE_WORKER)
    for i in range(requests):
        assert ask(weir, i).status == 200
    return served(fakes)


def test_weights_are_kept_to_the_request(t):
    for balance in ("round_robin", "least_requests"):
        assert counts(t, balance, [3, 1, 2], 60, lambda weir, _: weir.stream()) == [30, 10, 20], balance


def test_a_user_stays_with_a_server(t):
    def ask(weir, i):
        return weir.stream(body={**chat(), "user": f"user-{i % 2}"})
    got = counts(t, "{ policy: consistent_hash, by: user }", [1, 1, 1, 1], 40, ask)
    assert sorted(got) in ([0, 0, 20, 20], [0, 0, 0, 40]), got

    def by_header(weir, i):
        return weir.stream(headers={"x-session": f"s{i}"})
    got = counts(t, "{ policy: consistent_hash, header: x-session }", [1, 1], 100, by_header)
    assert min(got) > 20, got
    got = counts(t, "{ policy: consistent_hash, header: x-session }", [1, 1], 20, lambda weir, _: by_header(weir, 7))
    assert sorted(got) == [0, 20], got


def test_a_conversation_stays_where_its_prefix_is_warm(t):
    def conversation(number, turns):
        messages = [{"role": "system", "content": f"You are assistant {number}. " + "Be helpful. " * 50}]
        for turn in range(turns):
            messages += [{"role": "user", "content": f"question {turn} of {number}"}, {"role": "assistant", "content": "an answer"}]
        return {**chat(), "messages": messages + [{"role": "user", "content": "and now?"}]}
    fakes = [t.fake("events=2") for _ in range(3)]
    weir = t.weir(config=fleet(fakes, "balance: prefix\n"), args=ONE_WORKER)
    home = {}
    for turn in range(5):
        for number in range(6):
            before = served(fakes)
            assert weir.stream(body=conversation(number, turn)).status == 200
            after = served(fakes)
            at = next(i for i in range(3) if after[i] != before[i])
            assert home.setdefault(number, at) == at, f"conversation {number} moved in turn {turn}"
    assert len(set(home.values())) == 3, home


def test_the_fast_server_gets_more_by_latency_and_least_requests(t):
    for balance in ("latency", "least_requests", "power_of_two"):
        fast, slow = t.fake("first_ms=5,events=2"), t.fake("first_ms=1000,events=2")  # a busy machine slows both down
        weir = t.weir(config=fleet([fast, slow], f"balance: {balance}\n"))
        load = Load(weir, clients=4)
        time.sleep(1.5)
        try:
            wait_until(lambda: fast.stats()["requests"] > 3 * slow.stats()["requests"], f"{balance} to prefer the fast one")
        finally:
            load.stop()
        assert not load.errors


# ---------------------------------------------------------------- time

@smoke
def test_the_clients_own_deadline_shortens_the_total(t):
    fake, weir = t.pair("first_ms=60000")
    for body in (chat(), chat(False)):
        begun = time.monotonic()
        answer = weir.ask("POST", CHAT, {"x-weir-timeout": "0.5", "x-fake": "delay_ms=60000"}, body)
        assert answer.status == 504 and time.monotonic() - begun < 20, answer
    assert state(weir, weir.ask("GET", "/health").json()["backends"][0]["name"]) == "healthy", "no fault of the server's"
    fake.wait_aborts(2)
    for bad in ("0", "-1", "soon", "1e3", "", "5 s", "0.0", "1."):
        answer = weir.ask("POST", CHAT, {"x-weir-timeout": bad}, chat())
        assert answer.status == 400 and answer.json()["error"]["param"] == "X-Weir-Timeout", (bad, answer)
    assert weir.ask("POST", CHAT, {"x-weir-timeout": "30", "x-fake": "events=2"}, chat()).status == 200
    assert fake.last().header("x-weir-timeout") is None


def test_a_deadline_is_for_all_attempts_together(t):
    fakes = [t.fake("first_ms=60000") for _ in range(3)]
    weir = t.weir(config=fleet(fakes, per_backend=", timeouts: { first_token: 2s }"), args=ONE_WORKER)
    begun = time.monotonic()
    answer = weir.ask("POST", CHAT, {"x-weir-timeout": "3"}, chat())
    assert answer.status == 504 and sum(served(fakes)) == 2, answer
    assert time.monotonic() - begun < 20


def test_a_route_has_timeouts_of_its_own(t):
    fake = t.fake("first_ms=60000")
    weir = t.weir(config=fleet([fake], "routes: [{ path: /v1/completions, timeouts: { first_token: 300ms } }]\n"))
    answer = weir.ask("POST", "/v1/completions", None, {"model": "m", "prompt": "x", "stream": True})
    assert answer.status == 504, answer


# ---------------------------------------------------------------- waiting for a place

def ask_later(weir, answers, name, **options):
    def run():
        answers.append((name, weir.stream(**options)))
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def waiting(weir):
    return weir.ask("GET", "/health").json()["waiting"]


@smoke
def test_requests_wait_for_a_place_and_all_are_served(t):
    fake = t.fake("events=3,pace_ms=5")
    weir = t.weir(config=fleet([fake], per_backend=", max_concurrent: 2"))
    most, answers, threads = 0, [], []
    for i in range(30):
        threads.append(ask_later(weir, answers, i))
    while any(thread.is_alive() for thread in threads):
        most = max(most, weir.ask("GET", "/health").json()["backends"][0]["in_flight"])
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    assert len(answers) == 30 and all(answer.status == 200 for _, answer in answers)
    assert 1 <= most <= 2, most
    assert weir.metric(r'weir_queue_duration_seconds_count\{result="served"\}') > 0
    assert waiting(weir) == 0
    wait_until(lambda: weir.ask("GET", "/health").json()["backends"][0]["in_flight"] == 0, "the last place to be given back")
    assert fake.stats()["requests"] == 30


def test_a_full_queue_and_a_long_wait_are_503_with_retry_after(t):
    fake = t.fake("first_ms=8000,events=1")
    weir = t.weir(config=fleet([fake], "queue: { max: 1, timeout: 4s }\n", per_backend=", max_concurrent: 1"))
    answers = []
    threads = [ask_later(weir, answers, "first")]
    fake.wait_requests()
    threads.append(ask_later(weir, answers, "second"))
    wait_until(lambda: waiting(weir) == 1, "one to wait")
    third = weir.stream()
    assert third.status == 503 and int(third.header("retry-after")) >= 1, third
    assert third.json()["error"]["code"] == "queue_full"
    for thread in threads:
        thread.join()
    by_name = dict(answers)
    assert by_name["first"].status == 200
    second = by_name["second"]
    assert second.status == 503 and second.json()["error"]["code"] == "queue_timeout" and second.header("retry-after")
    assert fake.stats()["requests"] == 1 and waiting(weir) == 0


@smoke
def test_a_client_that_leaves_while_it_waits_leaves_the_queue(t):
    fake = t.fake("first_ms=5000,events=1")
    weir = t.weir(config=fleet([fake], per_backend=", max_concurrent: 1"))
    answers = []
    thread = ask_later(weir, answers, "first")
    fake.wait_requests()
    with weir.connect() as wire:
        wire.request("POST", CHAT, None, chat())
        wait_until(lambda: waiting(weir) == 1, "one to wait")
    wait_until(lambda: waiting(weir) == 0, "the queue to be left")
    thread.join()
    assert answers[0][1].status == 200 and fake.stats()["requests"] == 1
    assert weir.stream().status == 200


def test_keys_take_turns_and_higher_classes_go_first(t):
    fake = t.fake("first_ms=40,events=1")
    weir = t.weir(config=fleet([fake], """
keys:
  - { name: greedy, key: greedy-key }
  - { name: modest, key: modest-key }
  - { name: urgent, key: urgent-key, priority: high }
  - { name: patient, key: patient-key, priority: low }
""", per_backend=", max_concurrent: 1"))
    answers, threads = [], []

    def ask(name):
        threads.append(ask_later(weir, answers, name, headers={"authorization": f"Bearer {name}-key"}))

    def settled(n):
        wait_until(lambda: waiting(weir) >= n, f"{n} to wait")
    fake.behave("first_ms=8000,events=1")  # until all the others wait
    ask("greedy")
    fake.wait_requests()
    fake.behave("first_ms=40,events=1")
    ask("patient")
    settled(1)
    for _ in range(10):
        ask("greedy")
    settled(11)
    ask("modest")
    settled(12)
    ask("urgent")
    settled(13)
    for thread in threads:
        thread.join()
    order = [line["key"] for line in weir.log_lines() if line.get("path") == CHAT]
    assert len(order) == 14 and all(answer.status == 200 for _, answer in answers)
    assert order[1] == "urgent", order
    assert order.index("modest") <= 3, order
    assert order[-1] == "patient", order


def test_a_free_server_is_used_before_anybody_waits(t):
    fakes = [t.fake("first_ms=4000,events=1") for _ in range(3)]
    weir = t.weir(config=fleet(fakes, per_backend=", max_concurrent: 1"))
    answers = []
    threads = [ask_later(weir, answers, i) for i in range(3)]
    for thread in threads:
        thread.join()
    assert served(fakes) == [1, 1, 1]
    assert weir.metric("weir_queue_duration_seconds_count") == 0


# ---------------------------------------------------------------- what can be seen

def test_health_and_metrics_tell_of_each_backend(t):
    fake = t.fake("first_ms=60000")
    weir = t.weir(config=fleet([fake, dead()]))
    with weir.connect() as wire:
        wire.request("POST", CHAT, None, chat())
        fake.wait_requests()
        backends = {backend["name"]: backend for backend in weir.ask("GET", "/health").json()["backends"]}
        assert backends["a"]["in_flight"] == 1 and backends["a"]["state"] == "healthy"
        assert weir.metric(r'weir_backend_requests_in_flight\{backend="a",model="\*"\}') == 1
    wait_until(lambda: weir.metric(r'weir_backend_requests_in_flight') == 0, "the place to be given back")
    text = weir.metrics()
    for name in ("weir_backend_up", "weir_backend_failing", "weir_backend_ejections_total", "weir_backend_pauses_total", "weir_queue_waiting"):
        assert f"# TYPE {name} " in text, name
    assert json.loads(weir.ask("GET", "/health").body)["status"] == "ok"
