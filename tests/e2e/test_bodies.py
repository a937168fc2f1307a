"""What request bodies are taken, and how bad ones are refused."""
import json

from harness import chat, smoke

CHAT = "/v1/chat/completions"


def post(weir, text, path=CHAT):
    return weir.ask("POST", path, {"content-type": "application/json"}, text)


@smoke
def test_bodies_that_fail_validation_are_400_with_param(t):
    fake, weir = t.pair()
    messages = chat(False)["messages"]
    for body, param in (({"messages": messages}, "model"), ({"model": 7, "messages": messages}, "model"),
                        ({"model": None, "messages": messages}, "model"), ({"model": "m"}, "messages"),
                        ({"model": "m", "messages": []}, "messages"), ({"model": "m", "messages": "hi"}, "messages"),
                        ({"model": "m", "messages": {}}, "messages"), ({"model": "m", "messages": messages, "stream": "yes"}, "stream"),
                        ({"model": "m", "messages": messages, "stream": 1}, "stream")):
        answer = weir.ask("POST", CHAT, None, body)
        assert answer.status == 400, (body, answer)
        error = answer.json()["error"]
        assert error["param"] == param and param in error["message"] and error["type"] == "invalid_request_error", (body, error)
        assert answer.json()["detail"] and answer.header("x-request-id")
    for text in ("[]", '"text"', "7", "null", "true"):
        assert post(weir, text).status == 400
    answer = weir.ask("POST", "/v1/messages", None, {"model": "m", "messages": []})
    assert answer.status == 400 and answer.json()["error"]["type"] == "invalid_request_error" and answer.json()["type"] == "error"
    assert fake.stats()["requests"] == 0


@smoke
def test_malformed_json_is_400_and_reaches_no_backend(t):
    fake, weir = t.pair()
    good = json.dumps(chat(False))
    bad = ["", " ", "{", good[:-1], good + "}", good + good, "{'a': 1}", '{"a": }', '{"a" 1}', '{,}', '{"a": 1,}', "[1,]", '{"a": 01}',
           '{"a": 1.}', '{"a": .5}', '{"a": +1}', '{"a": NaN}', '{"a": Infinity}', '{"a": "\\x"}', '{"a": "\\u12"}', '{"a": "\t"}',
           '{"a": "unended', "nul", "truee", '{"a": tru}', "\ufeff" + good, "// c\n" + good, '{"a": 1e}', '{"a": --1}']
    for text in bad:
        answer = post(weir, text)
        assert answer.status == 400, (text, answer)
        assert "JSON" in answer.json()["error"]["message"] or "body" in answer.json()["error"]["message"], answer
    assert fake.stats()["requests"] == 0
    assert post(weir, "\n\t " + good + " \r\n").status == 200


def test_invalid_utf_8_and_nul_are_400(t):
    fake, weir = t.pair()
    for piece in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x00", b"\x1f"):
        body = b'{"model": "m", "messages": [{"role": "user", "content": "' + piece + b'"}]}'
        assert post(weir, body).status == 400, piece
    assert post(weir, b"\x00" + json.dumps(chat(False)).encode()).status == 400
    assert fake.stats()["requests"] == 0


def test_strange_but_valid_json_reaches_the_backend_unchanged(t):
    fake, weir = t.pair()
    for extra in ('"n": 1e400', '"n": -0', '"n": ' + "9" * 5000, '"s": "\\ud800"', '"s": "\\u0000"', '"s": "\\ud83d\\ude00 😀"',
                  '"e": {}', '"": ""', '"a": ' + "[" * 100 + "]" * 100, '"user": "a", "user": "b"', '"k": 1E-2'):
        text = '{"model": "m", "messages": [{"role": "user", "content": "x"}], ' + extra + "}"
        answer = post(weir, text)
        assert answer.status == 200, (extra[:60], answer)
        assert fake.last().body == text.encode()


@smoke
def test_nesting_that_is_too_deep_is_400(t):
    fake, weir = t.pair()
    for depth in (1000, 100000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inner = opening * depth + "1" + closing * depth
            assert post(weir, '{"model": "m", "messages": [1], "x": ' + inner + "}").status == 400
        assert post(weir, "[" * depth).status == 400
    assert fake.stats()["requests"] == 0


def test_duplicate_members_do_not_fool_the_gateway(t):
    fake = t.fake()
    weir = t.weir(config=f"""
backends: [{{ name: a, url: "{fake.url}" }}]
keys: [{{ name: a, key: "test-key-0123456789", models: [allowed] }}]
""")
    for text in ('{"model": "allowed", "model": "forbidden", "messages": [1]}',
                 '{"model": "forbidden", "model": "allowed", "messages": [1]}',
                 '{"model": "allowed", "mod\\u0065l": "forbidden", "messages": [1]}'):
        answer = weir.ask("POST", CHAT, {"content-type": "application/json", "x-api-key": "test-key-0123456789"}, text)
        if answer.status == 200:
            assert fake.last().json()["model"] == "allowed", "the backend, like most parsers, takes the last one"
        else:
            assert answer.status in (400, 403), answer


def test_model_names_that_are_not_text_are_refused(t):
    fake, weir = t.pair()
    for name in ('"\\ud800"', '""', '"' + "m" * 100000 + '"'):
        answer = post(weir, '{"model": ' + name + ', "messages": [1]}')
        assert answer.status == 400 and answer.json()["error"]["param"] == "model", (name[:20], answer)
    assert fake.stats()["requests"] == 0


def test_no_body_at_all_is_400_or_415(t):
    _, weir = t.pair()
    for headers in ({}, {"content-type": "application/json"}, {"content-length": "0"}):
        answer = weir.ask("POST", CHAT, headers)
        assert answer.status in (400, 411, 415) and answer.json()["error"]["message"], (headers, answer)


def test_without_validate_the_backend_judges(t):
    fake = t.fake()
    weir = t.weir(config=f'backends: [{{ name: a, url: "{fake.url}" }}]\nroutes: [{{ path: /v1/chat/completions, depends: [api_key] }}]\n')
    assert post(weir, '{"model": "m", "messages": []}').status == 200
    assert fake.last().body == b'{"model": "m", "messages": []}'


@smoke
def test_hostile_forms_are_read_in_one_pass(t):
    """Two megabytes of boundaries, which a search that begins anew at each of them would be minutes over."""
    fake, weir = t.pair(args=["--workers", "1"])
    size = 2 << 20
    bodies = {"boundaries in one line": b"--a\r\n" + b"--a" * (size // 3) + b"\r\n\r\n",
              "boundaries on lines": b"--a\r\n" * (size // 5),
              "empty parts": b"--a\r\n\r\n" * (size // 7),
              "headers without an end": b"--a\r\n" + b"x: y\r\n" * (size // 6),
              "half boundaries": b"--a\r\n\r\n" + b"\r\n--" * (size // 4),
              "names without an end": b'--a\r\ncontent-disposition: form-data; name="' + b'\\"' * (size // 2)}
    for what, body in bodies.items():
        answer = weir.ask("POST", "/v1/audio/transcriptions", {"content-type": "multipart/form-data; boundary=a"}, body)
        assert answer.status in (200, 400), (what, answer)
    assert weir.stream().status == 200
    assert fake.stats()["requests"] >= 1
