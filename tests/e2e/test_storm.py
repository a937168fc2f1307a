"""Everything at once: backends that misbehave in every way, clients that leave at any time, over HTTP/1.1, HTTP/2 and TLS."""
import json
import random
import ssl
import subprocess
import threading

from harness import Options, Truncated, Wire, chat, limit, smoke, wait_until

BEHAVIOURS = ["", "events=40,pace_ms=3", "events=9,cut_after=3", "events=9,cut_inside=3", "events=9,reset_after=2", "drop", "drop=2",
              "garbage", "bad_chunk", "half_chunk", "bad_length=2", "gzip_te", "stale", "close_idle", "close_body", "delay_ms=50",
              "first_ms=50", "split,events=5", "bytes,events=1", "flood,events=400,size=4000", "1xx=3", "status=429,retry_after=1",
              "error_event=2", "end_after=2", "end_inside=2", "stall_after=2", "early=1", "early=2", "big_line=200000",
              "size=300000,events=3", "comments,crlf", "usage", "length_body", "short_length", "cut_after=0"]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"]
BODY = {**chat(), "prompt": "x", "input": "x", "max_tokens": 5}


def one_client(weir, chance, turns, troubles):
    """Requests that are read to their end, or left at any moment."""
    try:
        for _ in range(turns):
            behave, patience = chance.choice(BEHAVIOURS), chance.choice([0, 1, 2, 1000000])
            if "stall" in behave:
                patience = min(patience, 1)  # what was sent may come as one piece, and nothing more
            body = {**BODY, "stream": chance.random() < 0.7, "user": "u" * chance.choice([0, 100, 100000])}
            with weir.connect() as wire:
                try:
                    wire.request("POST", chance.choice(PATHS), {"x-fake": behave}, body)
                    if patience == 0:
                        continue
                    for _, _ in zip(range(patience), wire.pieces(wire.head())):
                        pass
                except (EOFError, Truncated, ConnectionError, ssl.SSLError):
                    pass
    except Exception as e:  # pylint: disable=broad-except
        troubles.append(e)


def storm(t, weir, fake, turns):
    clients, troubles = [], []
    for number in range(8):
        clients.append(threading.Thread(target=one_client, args=(weir, random.Random(number), turns, troubles)))
    for client in clients:
        client.start()
    for number in range(6 if weir.tls_context is None else 0):
        chance = random.Random(100 + number)
        command = ["curl", "-s", "-o", "/dev/null", "--http2-prior-knowledge", "--max-time", "3", "--parallel"]
        for _ in range(5):
            command += ["-H", f"x-fake: {chance.choice(BEHAVIOURS)}", "-H", "content-type: application/json", "-d", json.dumps(BODY),
                        weir.url + chance.choice(PATHS), "--next", "--http2-prior-knowledge", "-s", "-o", "/dev/null"]
        curl = subprocess.Popen(command[:-5], stderr=subprocess.DEVNULL)
        try:
            curl.wait(chance.choice([0.05, 0.2, 5]))
        except subprocess.TimeoutExpired:
            curl.kill()
            curl.wait()
    for client in clients:
        client.join()
    assert not troubles, troubles
    assert fake.stats()["requests"] > 4 * turns, "most of the storm reached the backend"
    answer = weir.stream()
    assert answer.status == 200 and answer.body.endswith(b"[DONE]\n\n")
    wait_until(lambda: weir.metric(r"^weir_streams_in_flight") == 0, "all streams to be over")
    wait_until(lambda: weir.metric(r"^weir_requests_in_flight") <= 1, "all requests to be over")  # this one is


@smoke
@limit(120)
def test_a_storm_leaves_the_gateway_in_good_order(t):
    fake, weir = t.pair(config="early_head: 30ms\nsse_ping: 20ms\n")
    storm(t, weir, fake, 10 if Options.slow > 1 else 150)


@limit(120)
def test_a_storm_over_tls_leaves_the_gateway_in_good_order(t):
    fake = t.fake()
    storm(t, t.weir(fake, tls=t.certificate(), args=["--workers", "2"]), fake, 25)


@limit(60)
def test_ending_in_a_storm(t):
    fake, weir = t.pair(args=["--drain-timeout", "1s", "--workers", "2"])
    troubles, clients = [], []

    def until_refused(number):
        chance = random.Random(number)
        while True:
            try:
                with Wire(weir.address) as wire:
                    behave = chance.choice(BEHAVIOURS)
                    wire.request("POST", chance.choice(PATHS), {"x-fake": behave}, BODY)
                    for _, _ in zip(range(1 if "stall" in behave else chance.choice([1, 3, 100])), wire.pieces(wire.head())):
                        pass
            except ConnectionRefusedError:
                return
            except (EOFError, Truncated, ConnectionError):
                pass
            except Exception as e:  # pylint: disable=broad-except
                troubles.append(e)
                return

    for number in range(8):
        clients.append(threading.Thread(target=until_refused, args=(number,)))
        clients[-1].start()
    wait_until(lambda: fake.stats()["requests"] > 100, "the storm")
    assert weir.stop() == 0
    for client in clients:
        client.join()
    assert not troubles, troubles
