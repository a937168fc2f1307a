"""The command line: what a user types and is told."""
import os
import re
import stat

from harness import KEY, chat, smoke, free_port, wait_until

CHAT = "/v1/chat/completions"


def fails(t, config, *words):
    path = t.dir / "weir.yaml"
    path.write_text(config)
    for args in (("check", path), ("run", "--config", path, "--listen", f"127.0.0.1:{free_port()}")):
        done = t.run(*args)
        said = done.stderr + done.stdout
        assert done.returncode != 0, (config, said)
        assert re.search(rf"{re.escape(str(path))}:\d+: ", said), said
        for word in words:
            assert word in said, (word, said)


@smoke
def test_mistakes_in_the_file_are_named_by_line(t):
    fails(t, "lisen: [127.0.0.1:8080]\n", ":1: ", "lisen")
    fails(t, "workers: 1\nbackends:\n  - { name: a, url: 'ftp://x' }\n", ":3: ", "http")
    fails(t, "backends:\n  - { name: a }\n", ":2: ", "url")
    fails(t, "backends: 7\n", ":1: ", "list")
    fails(t, "max_body: many\n", ":1: ", "max_body")
    fails(t, "drain_timeout: 30\n", ":1: ", "drain_timeout")
    fails(t, "a: [\n", "YAML")
    fails(t, "workers: 1\nworkers: 2\n", ":2: ", "workers")
    fails(t, "keys: [{ name: a, key: '${NOT_SET_ANYWHERE}' }]\n", ":1: ", "NOT_SET_ANYWHERE")
    fails(t, "keys: [{ name: a, hash: 'sha256:123' }]\n", ":1: ", "hash")
    fails(t, "routes: [{ path: '/tools/*', proxy: nobody }]\n", ":1: ", "nobody")
    fails(t, "routes: [{ path: /v1/embeddings, depends: [validate, api_key] }]\nkeys: [{ name: a, key: 0123456789abcdefg }]\n", ":1: ")


@smoke
def test_wrong_options_are_refused_before_a_port_is_opened(t):
    for args in (["--listen", "nonsense"], ["--listen", "127.0.0.1:99999"], ["--backend", "ftp://x"], ["--workers", "0"],
                 ["--workers", "many"], ["--drain-timeout", "10"], ["--log-level", "loud"], ["--log-format", "xml"], ["--nonsense"],
                 ["--limit", "often"], ["--limit", "5/fortnight"], ["--cache-ttl", "10"], ["--cache-ttl", "0s"],
                 ["--tls-cert", "/nonexistent"], ["--config", "/nonexistent/weir.yaml"], ["frobnicate"], ["check"],
                 ["check", "/nonexistent"]):
        done = t.run(*args)
        assert done.returncode not in (0, None) and done.returncode > 0, (args, done)
        assert done.stderr.strip(), args


def test_a_certificate_that_does_not_load_stops_the_start(t):
    bad = t.dir / "bad.pem"
    bad.write_text("not a certificate\n")
    done = t.run("--tls-cert", bad, "--tls-key", bad, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1 and "bad.pem holds no certificate" in done.stderr, done


def test_tls_files_are_checked_with_the_file(t):
    good, other = t.certificate(), t.authority.issue("other", "DNS:other")
    path = t.dir / "weir.yaml"

    def fails(config, *words):
        path.write_text(config)
        for args in (["check", path], ["--config", path]):
            done = t.run(*args)
            assert done.returncode == 1, (config, done)
            for word in (str(path), *words):
                assert word in done.stderr, (word, done)

    listen = "listen:\n  - address: 127.0.0.1:{port}\n    tls: {{ cert: {cert}, key: {key} }}\n"
    fails(listen.format(port=free_port(), cert="nowhere.pem", key=good.key), ":3: ", "nowhere.pem: No such file or directory")
    fails(listen.format(port=free_port(), cert=good.cert, key=t.dir), ":3: ", "holds no private key")
    fails(listen.format(port=free_port(), cert=good.cert, key=other.key), ":3: ", "does not belong to the certificate")
    backend = "backends:\n  - name: a\n    url: https://localhost:1\n    tls: {{ {tls} }}\n"
    fails(backend.format(tls="ca: nowhere.pem"), ":4: ", "nowhere.pem: No such file or directory")
    fails(backend.format(tls=f"cert: {good.cert}, key: {other.key}"), ":4: ", "does not belong to the certificate")
    path.write_text(listen.format(port=free_port(), cert=good.cert, key=good.key))
    done = t.run("check")
    assert done.returncode == 0 and done.stdout.startswith("weir.yaml: ok\n"), done


def test_option_beats_environment_beats_file(t):
    fakes = [t.fake() for _ in range(3)]
    config = f'backends: [{{ name: a, url: "{fakes[2].url}" }}]\n'
    t.weir(config=config).stream()
    assert [f.stats()["requests"] for f in fakes] == [0, 0, 1]
    t.weir(config=config, env={"WEIR_BACKEND": fakes[1].url}).stream()
    assert [f.stats()["requests"] for f in fakes] == [0, 1, 1]
    t.weir(fakes[0], config=config, env={"WEIR_BACKEND": fakes[1].url}).stream()
    assert [f.stats()["requests"] for f in fakes] == [1, 1, 1]


def test_service_links_of_kubernetes_are_never_read(t):
    weir = t.weir(t.fake(), env={"WEIR_PORT": "tcp://10.0.0.1:8080", "WEIR_SERVICE_HOST": "10.0.0.1", "WEIR_SERVICE_PORT": "8080",
                                 "WEIR_PORT_8080_TCP_ADDR": "10.0.0.1"})
    assert weir.stream().status == 200


@smoke
def test_init_writes_a_file_that_works(t):
    done = t.run("init")
    assert done.returncode == 0, done
    path = t.dir / "weir.yaml"
    assert t.run("check", path).returncode == 0
    assert "#" in path.read_text()
    again = t.run("init")
    assert again.returncode != 0, "an existing file is not overwritten"
    weir = t.weir(config=path.read_text())
    assert weir.stream(body=chat(model="demo")).status == 200


def test_keys_are_made_and_hashed(t):
    made = t.run("keys", "create", "--name", "alice")
    assert made.returncode == 0, made
    key = re.search(r"\b(wk-\S{20,})", made.stdout)[1]
    value = re.search(r"sha256:[0-9a-f]{64}", made.stdout + made.stderr)[0]
    assert t.run("keys", "create").stdout != made.stdout
    assert value in t.run("keys", "hash", stdin=key + "\n").stdout
    weir = t.weir(t.fake(), config=f'keys: [{{ name: alice, hash: "{value}" }}]\n')
    assert weir.stream(headers={"x-api-key": key}).status == 200 and weir.stream().status == 401


@smoke
def test_ask_streams_an_answer_to_the_terminal(t):
    weir = t.weir("demo:?delay=1ms&pace=1ms")
    done = t.run("ask", "--url", weir.url, "Say something")
    assert done.returncode == 0 and len(done.stdout.strip()) > 10, done
    assert t.run("ask", "--url", weir.url, "Say something").stdout == done.stdout
    piped = t.run("ask", "--url", weir.url, stdin="Say something")
    assert piped.returncode == 0 and piped.stdout.strip(), piped


def test_ask_with_keys_models_and_failures(t):
    fake, weir = t.pair(keys=[KEY])
    done = t.run("ask", "--url", weir.url, "--key", KEY, "Hello")
    assert done.returncode == 0 and "00000001" in done.stdout and fake.last().json()["model"] == "fake-1", done
    done = t.run("ask", "--url", weir.url, "--model", "other", "Hello", env={"WEIR_API_KEY": KEY})
    assert done.returncode == 0 and fake.last().json()["model"] == "other"
    done = t.run("ask", "--url", weir.url, "--key", "wrong-key-0123456789", "--model", "m", "Hello")
    assert done.returncode != 0 and "Incorrect API key" in done.stderr, done
    done = t.run("ask", "--model", "m", "Hello", env={"WEIR_URL": weir.url})
    assert done.returncode != 0 and "--key" in done.stderr and "WEIR_API_KEY" in done.stderr, done
    done = t.run("ask", "--url", f"http://127.0.0.1:{free_port()}", "--model", "m", "Hello")
    assert done.returncode != 0 and done.stderr.strip(), done
    fake.behave("events=5,cut_after=2")
    done = t.run("ask", "--url", weir.url, "--key", KEY, "--model", "m", "Hello")
    assert done.returncode != 0 and done.stderr.strip(), done


def test_ask_with_a_key_that_may_not_list_models(t):
    config = f"keys: [{{ name: bob, key: {KEY}, routes: [/v1/chat/completions] }}]\n"
    weir = t.weir("demo:?delay=1ms&pace=1ms", config=config)
    env = {"WEIR_URL": weir.url, "WEIR_API_KEY": KEY}
    done = t.run("ask", "Hello", env=env)
    assert done.returncode != 0 and "--model" in done.stderr, done
    assert t.run("ask", "--model", "demo", "Hello", env=env).returncode == 0


def test_the_greeting_says_what_to_use(t):
    port = free_port()
    weir = t.weir("http://127.0.0.1:1", args=["--open"], listen=[f"0.0.0.0:{port}"], tls=t.certificate())
    wait_until(lambda: "try:" in weir.log(), "the greeting")
    said = weir.log()
    assert f"0.0.0.0:{port} (TLS)" in said and f"https://127.0.0.1:{port}/v1\n" in said and "(one of your backend's)" in said, said


def test_version_and_help(t):
    done = t.run("version")
    assert done.returncode == 0 and re.search(r"weir \d+\.\d+\.\d+", done.stdout), done
    done = t.run("--help")
    assert done.returncode == 0
    for option in ("--config", "--listen", "--tls-cert", "--tls-key", "--backend", "--api-key", "--open", "--workers", "--log-level",
                   "--log-format", "--drain-timeout"):
        assert option in done.stdout, option
    assert t.run("-h").stdout == done.stdout
    for command in ("check", "init", "keys", "ask", "health", "env"):
        assert t.run(command, "--help").returncode == 0, command


def test_a_socket_left_behind_by_a_crash_is_replaced(t):
    import socket
    path = t.dir / "left.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert t.weir(t.fake(), listen=[f"unix:{path}"]).stream().status == 200


def test_ask_reaches_a_unix_socket(t):
    path = t.dir / "ask.sock"
    fake = t.fake()
    t.weir(fake, listen=[f"unix:{path}"])
    (t.dir / "weir.yaml").write_text("listen: ['unix:ask.sock']\n")
    # By the configuration, whose file names count from the working directory, by the environment, and by its URL.
    for args, env in (((), {}), ((), {"WEIR_LISTEN": f"unix:{path}"}), (("--url", f"http://unix:{path}"), {})):
        done = t.run("ask", *args, "Hello", env=env)
        assert done.returncode == 0 and "00000001" in done.stdout, (args, done)
    assert fake.last().header("host") is not None
    health = t.run("health", "--url", f"http://unix:{path}")
    assert health.returncode == 0 and health.stdout == f"unix:{path}/readyz: ok\n", health
    done = t.run("ask", "--url", f"http://unix:{t.dir}/none.sock", "Hello")
    assert done.returncode == 1 and "none.sock: No such file or directory; is the gateway running there?" in done.stderr, done


def test_ask_finds_the_gateway_by_its_configuration(t):
    weir = t.weir(t.fake())
    path = t.dir / "its.yaml"
    path.write_text(f"listen: [{{address: '0.0.0.0:{weir.port}'}}]\nopen: true\n")
    for env in ({"WEIR_CONFIG": str(path)}, {"WEIR_LISTEN": f"127.0.0.1:{weir.port}"}):
        done = t.run("ask", "hello", env=env)
        assert done.returncode == 0 and done.stdout, done
    assert weir.metric('weir_requests_total{.*route="/v1/chat/completions"') == 2
    path.write_text("listen: 127.0.0.1:8080\n")
    done = t.run("ask", "--key", "nobody-knows-it", "hello", env={"WEIR_CONFIG": str(path)})
    told = f"http://127.0.0.1:8080 was asked because the configuration does not say where: {path}:1: "
    assert done.returncode == 1 and told in done.stderr, done
    done = t.run("ask", "--url", f"http://127.0.0.1:{free_port()}", "hello", env={"WEIR_CONFIG": str(path)})
    assert done.returncode == 1 and "configuration" not in done.stderr, done


def test_no_configuration_sends_a_key_to_another_machine(t):
    """A weir.yaml may lie in any directory."""
    for where in ("192.0.2.1:81", "[2001:db8::1]:81", "elsewhere.example:81"):
        (t.dir / "weir.yaml").write_text(f"listen: [{{address: '{where}'}}]\nopen: true\n")
        done = t.run("env")
        assert "WEIR_URL             http://127.0.0.1:8080 " in done.stdout, (where, done)


def test_check_shows_names_that_stand_for_others(t):
    (t.dir / "weir.yaml").write_text("backends: [{name: a, url: 'http://h', models: [x]}, {name: b, url: 'http://h2', models: [y]}]\n"
                                     "models: {best: [x@a, y], other: [y]}\n")
    done = t.run("check")
    assert done.returncode == 0 and "models     best = x@a, then y; other = y\n" in done.stdout, done
