"""WebSockets by the book (RFC 6455): handshakes, frames, closes, and clients that get them wrong. What is said over them
is test_ws_chat.py's."""
import base64
import json
import os
import resource
import socket
import time

from harness import KEY, Defect, Options, limit, smoke, wait_until
from websocket import WebSocket, handshake_headers
from ws_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Closed, close_payload, frame

UNKNOWN = json.dumps({"id": "é", "cancel": True}, ensure_ascii=False)  # a message with one answer, whatever the backend


def answered(socket_):
    """The socket works: its answer to UNKNOWN comes next."""
    told = json.loads(socket_.read_text())
    assert told["id"] == "é" and told["error"]["code"] == "unknown_id", told


def refused(weir, status, path="/ws/chat", **changes):
    headers, _ = handshake_headers(**changes)
    answer = weir.ask("GET", path, headers)
    assert answer.status == status, answer
    assert answer.json()["error"]["message"] and answer.header("content-type") == "application/json", answer
    return answer


# ---------------------------------------------------------------- the handshake

@smoke
def test_a_handshake_is_answered_as_the_standard_says(t):
    weir = t.weir("demo:")
    # The example of RFC 6455 §1.3.
    with WebSocket(weir, headers={"sec_websocket_version": "13"}) as ws:
        assert ws.status == 101 and ws.headers["upgrade"].lower() == "websocket", ws.headers
        assert "upgrade" in ws.headers["connection"].lower() and ws.headers["x-request-id"]
        assert "sec-websocket-protocol" not in ws.headers and "sec-websocket-extensions" not in ws.headers
        ws.text(UNKNOWN)
        answered(ws)
        assert ws.close(1000, "bye") == (1000, "bye")
    with weir.connect() as wire:
        headers, _ = handshake_headers(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==")
        wire.request("GET", "/ws/chat", headers)
        while b"\r\n\r\n" not in wire.buffer:
            wire.buffer += wire.sock.recv(4096)
        assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in wire.buffer.lower().replace(
            b"s3pplmbitxaq9kygzzhzrbk+xoo=", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), wire.buffer


def test_other_spellings_of_a_good_handshake_are_taken(t):
    weir = t.weir("demo:")
    for changes in ({"upgrade": "WebSocket"}, {"connection": "keep-alive, Upgrade"}, {"connection": "upgrade"},
                    {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits"},
                    {"origin": "http://localhost:3000"}):
        with WebSocket(weir, headers=changes) as ws:
            assert ws.status == 101, changes
            assert "sec-websocket-extensions" not in ws.headers
            ws.text(UNKNOWN)
            answered(ws)


def test_bad_handshakes_get_an_http_error(t):
    weir = t.weir("demo:")
    answer = refused(weir, 426, upgrade=None, connection=None)
    assert answer.header("upgrade") == "websocket"
    refused(weir, 426, upgrade="h2c")
    refused(weir, 426, connection="keep-alive")
    for version in (None, "8", "14", "13, 8"):
        answer = refused(weir, 426, sec_websocket_version=version)
        assert answer.header("sec-websocket-version") == "13"
    for key in (None, "", "short", base64.b64encode(os.urandom(15)).decode(), base64.b64encode(os.urandom(17)).decode(),
                "!" * 22 + "==", "A" * 24, "A" * 5000):
        refused(weir, 400, sec_websocket_key=key)
    for method in ("POST", "HEAD", "PUT"):
        headers, _ = handshake_headers()
        answer = weir.ask(method, "/ws/chat", {**headers, "content-length": "0"} if method != "HEAD" else headers)
        assert answer.status == 405 and answer.header("allow") == "GET", answer
    headers, _ = handshake_headers()
    assert weir.ask("GET", "/ws/chat", headers, b"body").status == 400
    with weir.connect() as wire:
        wire.request("GET", "/ws/chat", headers, version="1.0")
        assert wire.response().status == 426
    # None of this hurt the next.
    with WebSocket(weir) as ws:
        ws.text(UNKNOWN)
        answered(ws)


def test_half_a_handshake_times_out(t):
    weir = t.weir("demo:", config="request_timeout: 1s\n")
    with weir.connect() as wire:
        wire.send("GET /ws/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConn")
        assert wire.sock.recv(4096) in (b"", None) or True
        with WebSocket(weir) as ws:
            time.sleep(1.5)  # longer than a request may take
            ws.text(UNKNOWN)
            answered(ws)


def test_http2_gets_a_plain_answer(t):
    t.need("curl")
    weir = t.weir("demo:")
    done = t.curl("--http2-prior-knowledge", "-i", weir.url + "/ws/chat")
    assert b"HTTP/2 400" in done.stdout and b"bad_handshake" in done.stdout, done


@smoke
def test_keys_are_asked_for_before_the_upgrade(t):
    weir = t.weir("demo:", keys=[KEY])
    assert refused(weir, 401).header("www-authenticate") == "Bearer"
    refused(weir, 401, authorization="Bearer wrong-key-0123456789")
    refused(weir, 401, sec_websocket_protocol="weir.chat, openai-insecure-api-key.wrong-key-0123456789")
    refused(weir, 401, path=f"/ws/chat?api_key={KEY}")  # no route allows it here
    for changes in ({"authorization": f"Bearer {KEY}"}, {"x_api_key": KEY},
                    {"sec_websocket_protocol": f"openai-insecure-api-key.{KEY}"}):
        with WebSocket(weir, headers=changes) as ws:
            assert ws.status == 101 and "sec-websocket-protocol" not in ws.headers, ws.headers
            ws.text(UNKNOWN)
            answered(ws)
    # The answer never selects what carries the key.
    offered = f"openai-insecure-api-key.{KEY}, openai-organization.o, other,weir.chat"
    with WebSocket(weir, headers={"sec_websocket_protocol": offered}) as ws:
        assert ws.headers["sec-websocket-protocol"] == "weir.chat", ws.headers
    assert KEY not in weir.log()


def test_a_key_in_the_query_works_where_the_route_says_so_and_is_never_logged(t):
    config = f"""
keys: [{{name: alice, key: "{KEY}"}}]
routes: [{{path: /ws/chat, query_key: true}}]
"""
    weir = t.weir("demo:", config=config)
    for query in (f"?api_key={KEY}", f"?x=1&api_key={KEY.replace('-', '%2D')}&y"):
        with WebSocket(weir, path="/ws/chat" + query) as ws:
            assert ws.status == 101
            ws.text(UNKNOWN)
            answered(ws)
            assert ws.close()[0] == 1000
    refused(weir, 401, path="/ws/chat?api_key=wrong-key-0123456789")
    refused(weir, 401, path="/ws/chat?api_key=" + "x" * 2000)
    refused(weir, 401, path="/ws/chat?api_keys=" + KEY)
    wait_until(lambda: sum(line["msg"] == "websocket" for line in weir.log_lines()) == 2, "two lines")
    assert [x["key"] for x in weir.log_lines() if x["msg"] == "websocket"] == ["alice", "alice"]
    assert KEY not in weir.log() and "api_key=" not in weir.log() and "wrong-key" not in weir.log()
    done = t.run("check", _file(t, config.replace("/ws/chat", "/v1/chat/completions")))
    assert done.returncode == 1 and "query_key" in done.stderr, done


def _file(t, text):
    path = t.dir / "checked.yaml"
    path.write_text(text)
    return path


def test_origins_are_held_to_the_list(t):
    weir = t.weir("demo:", config='websocket: { origins: ["https://chat.example.com"] }\n')
    assert refused(weir, 403, origin="https://evil.example").json()["error"]["code"] == "origin_not_allowed"
    refused(weir, 403, origin="null")
    refused(weir, 403, origin="https://chat.example.com.evil.example")
    for changes in ({"origin": "https://chat.example.com"}, {}):
        with WebSocket(weir, headers=changes) as ws:
            assert ws.status == 101


def test_without_keys_and_list_pages_of_other_sites_stay_out(t):
    weir = t.weir("demo:")
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://evil.example/127.0.0.1", "://", "file://"):
        refused(weir, 403, origin=origin)
    for origin in ("http://localhost", "https://localhost:8443", "http://127.0.0.1:1", "http://[::1]:3000", "http://gateway.lan:8080"):
        with WebSocket(weir, headers={"origin": origin, **({"host": "gateway.lan:8080"} if "lan" in origin else {})}) as ws:
            assert ws.status == 101, origin
    weir = t.weir("demo:", keys=[KEY])  # whoever has a key may come from anywhere
    with WebSocket(weir, headers={"origin": "https://anywhere.example", "authorization": f"Bearer {KEY}"}) as ws:
        assert ws.status == 101


@limit(60)
def test_out_of_descriptors_is_a_refusal_that_passes(t):
    weir = t.weir("demo:")
    WebSocket(weir).drop()
    used = int(weir.metric("process_open_fds"))
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    sockets, status = [], 101
    for _ in range(30):
        try:
            sockets.append(WebSocket(weir, timeout=2))
        except (TimeoutError, Closed):
            status = "no answer"
            break
        status = sockets[-1].status
        if status != 101:
            break
    assert status in (503, "no answer") and len(sockets) >= 4, (status, len(sockets))
    sockets[0].text(UNKNOWN)
    answered(sockets[0])
    for ws in sockets:
        ws.drop()
    def works():
        try:
            with WebSocket(weir, timeout=2) as ws:
                return ws.status == 101
        except (TimeoutError, Closed):
            return False
    wait_until(works, "another WebSocket")


# ---------------------------------------------------------------- frames

def pair(t, **options):
    weir = t.weir("demo:", **options)
    return weir, WebSocket(weir)


@smoke
def test_messages_may_come_in_fragments_with_control_frames_between(t):
    weir, ws = pair(t)
    text = UNKNOWN.encode()
    for cuts in ((1,), (5, 6, 7), tuple(range(1, len(text)))):  # between the bytes of a character too
        parts = [text[a:b] for a, b in zip((0, *cuts), (*cuts, len(text)))]
        for i, part in enumerate(parts):
            ws.send(TEXT if i == 0 else CONT, part, fin=i == len(parts) - 1)
            if i % 4 == 0:
                ws.send(PING, b"%d" % i)
                assert ws.read_frame() == (True, PONG, b"%d" % i)
            if i % 4 == 2:
                ws.send(PONG, b"\xff\xfe")  # of no concern to the text
        answered(ws)
    ws.send(TEXT, b"", fin=False)
    ws.send(CONT, b"", fin=False)
    ws.send(CONT, text)
    answered(ws)
    assert ws.close() == (1000, "")


def test_frames_may_come_byte_by_byte_and_all_at_once(t):
    weir, ws = pair(t)
    for byte in frame(TEXT, UNKNOWN):
        ws.raw(bytes([byte]))
        time.sleep(0.001)
    answered(ws)
    ws.raw(frame(TEXT, UNKNOWN) * 200)
    for _ in range(200):
        answered(ws)
    ws.drop()
    # Right behind the request, before the 101.
    with WebSocket(weir, extra=frame(TEXT, UNKNOWN)) as early:
        answered(early)


def test_masks_of_zero_and_lengths_around_the_borders(t):
    weir, ws = pair(t)
    ws.send(TEXT, UNKNOWN, key=b"\0\0\0\0")
    answered(ws)
    for n in (124, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20):
        ws.text(UNKNOWN.rstrip("}") + " " * (n - len(UNKNOWN.encode())) + "}")
        answered(ws)
    ws.send(PING, b"x" * 125)
    assert ws.read_frame() == (True, PONG, b"x" * 125)


def test_pongs_repeat_the_pings_payload(t):
    _, ws = pair(t)
    for payload in (b"", b"a", b"\0\xff\x80", b"x" * 125):
        ws.send(PING, payload)
        assert ws.read_frame() == (True, PONG, payload)
    ws.send(PONG, b"nobody asked")
    ws.text(UNKNOWN)
    answered(ws)


WRONG = {
    "reserved bit 1": frame(TEXT, "x", rsv=4),
    "reserved bit 2": frame(TEXT, "x", rsv=2),
    "reserved bit 3": frame(PING, "x", rsv=1),
    "opcode 3": frame(3, "x"),
    "opcode 7": frame(7, "x"),
    "opcode 11": frame(11),
    "opcode 15": frame(15),
    "no mask": frame(TEXT, "x", masked=False),
    "no mask on a ping": frame(PING, "x", masked=False),
    "no mask on a close": frame(CLOSE, close_payload(1000), masked=False),
    "a continuation of nothing": frame(CONT, "x"),
    "a continuation after a whole message": frame(TEXT, UNKNOWN) + frame(CONT, "x"),
    "text inside a message": frame(TEXT, "x", fin=False) + frame(TEXT, "y"),
    "binary inside a message": frame(TEXT, "x", fin=False) + frame(BINARY, "y"),
    "a fragmented ping": frame(PING, "x", fin=False),
    "a fragmented close": frame(CLOSE, b"", fin=False),
    "a long ping": frame(PING, "x" * 126),
    "a long close": frame(CLOSE, close_payload(1000, "x" * 124)),
    "a close of one byte": frame(CLOSE, b"\3"),
    **{f"close code {code}": frame(CLOSE, close_payload(code))
       for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)},
}


@smoke
@limit(120)
def test_protocol_errors_close_with_1002(t):
    weir = t.weir("demo:")
    for what, wrong in WRONG.items():
        ws = WebSocket(weir)
        ws.raw(wrong + frame(TEXT, UNKNOWN) * 3)
        code, reason = ws.read_close(skip=True)
        assert code == 1002 and reason, (what, code, reason)
        ws.read_end()
        ws.drop()
    # The client may see the end before the other worker has counted it.
    wait_until(lambda: weir.metric(r'weir_websocket_closes_total\{.*code="1002"') == len(WRONG), "all to be counted")
    wait_until(lambda: weir.metric("weir_websockets{") == 0, "all of them to be gone")


def test_good_close_codes_are_repeated(t):
    weir = t.weir("demo:")
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        assert WebSocket(weir).close(code, "wörter") == (code, "wörter"), code
    assert WebSocket(weir).close(None) == (1005, "")
    assert WebSocket(weir).close(1000, "x" * 123) == (1000, "x" * 123)
    lines = [line for line in weir.log_lines() if line["msg"] == "websocket"]
    assert lines[0]["code"] == 1000 and lines[0]["reason"] == "wörter" and lines[0]["closed_by"] == "client", lines[0]
    assert weir.metric(r'closes_total\{.*code="4xxx"') == 2


def test_nothing_is_read_behind_a_close(t):
    weir, ws = pair(t)
    ws.raw(frame(CLOSE, close_payload(1000)) + frame(TEXT, UNKNOWN) + frame(15))
    assert ws.read_close() == (1000, "")
    ws.read_end()


NOT_UTF8 = [b"\xff", b"\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x80\x80\x80",
            b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"ok\xce", b"\xf0\x9f\x98", b"\xe2\x28\xa1", b"\xfe"]


def test_text_that_is_not_utf8_closes_with_1007(t):
    weir = t.weir("demo:")
    for wrong in NOT_UTF8:
        for at in (None, 0, 1):
            ws = WebSocket(weir)
            if at is None:
                ws.send(TEXT, wrong)
            else:
                ws.send(TEXT, wrong[:at], fin=False)
                ws.send(CONT, wrong[at:])
            code, _ = ws.read_close()
            assert code == 1007, (wrong, at, code)
            ws.read_end()
            ws.drop()
    ws = WebSocket(weir)
    ws.send(CLOSE, b"\x03\xe8\xff")
    assert ws.read_close()[0] == 1007
    # Known to be wrong before the message is whole.
    ws = WebSocket(weir)
    ws.send(TEXT, b"abc\xff", fin=False)
    assert ws.read_close()[0] == 1007


def test_large_messages_close_with_1009(t):
    weir = t.weir("demo:", config="websocket: { max_message: 64KiB }\n")
    for wrong in (frame(TEXT, length=65537)[:14], frame(TEXT, length=1 << 62)[:14], frame(BINARY, length=(1 << 63) - 1)[:14],
                  frame(TEXT, length=1 << 63)[:14], frame(TEXT, length=(1 << 64) - 1)[:14],
                  frame(TEXT, b"x" * 65536, fin=False) + frame(CONT, b"x"),
                  b"".join(frame(TEXT if i == 0 else CONT, b"x" * 8192, fin=False) for i in range(9))):
        ws = WebSocket(weir)
        ws.raw(wrong)
        code, _ = ws.read_close(skip=True)
        assert code == 1009, (wrong[:14], code)
        ws.drop()
    with WebSocket(weir) as ws:
        ws.text(UNKNOWN.rstrip("}") + " " * (65536 - len(UNKNOWN.encode())) + "}")
        answered(ws)


# ---------------------------------------------------------------- floods, silence

def flood(weir, ws, data, code):
    """Sends until the gateway closes; another socket must not notice."""
    other = WebSocket(weir)
    before = weir.metric("process_resident_memory_bytes")
    ws.sock.settimeout(20)
    try:
        for _ in range(400):
            ws.raw(data)
    except OSError:
        pass
    other.text(UNKNOWN)
    answered(other)
    try:
        while True:
            opcode, payload = ws.read()
            if opcode == CLOSE:
                assert int.from_bytes(payload[:2], "big") == code, payload
                break
    except (Closed, OSError):
        pass  # what it still sent reset the connection
    ws.drop()
    wait_until(lambda: weir.metric(rf'weir_websocket_closes_total\{{.*code="{code}"') >= 1, f"a close with {code}")
    grown = weir.metric("process_resident_memory_bytes") - before
    assert grown < 32 << 20 or not Options.strict, grown
    other.text(UNKNOWN)
    answered(other)
    other.drop()


@limit(120)
def test_a_ping_flood_is_ended(t):
    weir, ws = pair(t)
    flood(weir, ws, frame(PING, b"x" * 125) * 500, 1008)


@limit(120)
def test_a_million_tiny_fragments_are_ended(t):
    weir, ws = pair(t)
    ws.send(TEXT, b"x", fin=False)
    flood(weir, ws, frame(CONT, b"x", fin=False) * 2500, 1008)


@limit(120)
def test_empty_fragments_are_ended(t):
    weir, ws = pair(t)
    ws.send(TEXT, b"", fin=False)
    flood(weir, ws, frame(CONT, b"", fin=False) * 2500, 1008)


@limit(120)
def test_a_flood_of_small_messages_is_ended(t):
    weir, ws = pair(t)
    flood(weir, ws, frame(TEXT, UNKNOWN) * 500, 1008)


@smoke
def test_silent_peers_are_pinged_and_dropped_after_two_missed_pongs(t):
    weir = t.weir("demo:", config="websocket: { ping: 1s }\n")
    lively, silent = WebSocket(weir), WebSocket(weir)
    for _ in range(4):
        assert lively.read_frame() == (True, PING, b"")
        lively.send(PONG)
    # The silent one had two pings and was then cut off.
    frames = []
    try:
        while True:
            frames.append(silent.read_frame())
    except (Closed, ConnectionResetError):
        pass
    assert frames == [(True, PING, b"")] * 2, frames
    wait_until(lambda: weir.metric(r'closes_total\{.*code="1006"') == 1, "the close to be counted")
    lively.text(UNKNOWN)
    answered(lively)


@smoke
def test_a_client_that_vanishes_or_resets_is_let_go(t):
    weir = t.weir("demo:")
    sockets = [WebSocket(weir) for _ in range(6)]
    wait_until(lambda: weir.metric("weir_websockets{") == 6, "six sockets")
    for i, ws in enumerate(sockets):
        if i % 3 == 0:
            ws.wire.reset()
        elif i % 3 == 1:
            ws.sock.shutdown(socket.SHUT_WR)
        else:
            ws.raw(frame(TEXT, UNKNOWN)[:-3])
            ws.drop()
    wait_until(lambda: weir.metric("weir_websockets{") == 0, "no sockets")
    assert weir.metric(r'closes_total\{.*code="1006"') == 6
    for ws in sockets:
        ws.drop()


def test_a_client_may_go_right_behind_its_close(t):
    weir = t.weir("demo:")
    for _ in range(5):
        ws = WebSocket(weir)
        ws.raw(frame(TEXT, UNKNOWN) + frame(CLOSE, close_payload(4321, "gone")))
        ws.drop()
    wait_until(lambda: sum(x["msg"] == "websocket" for x in weir.log_lines()) == 5, "five lines")
    for line in weir.log_lines():
        if line["msg"] == "websocket":
            assert (line["code"], line["reason"], line["messages_in"]) == (4321, "gone", 1), line


# ---------------------------------------------------------------- TLS, unix sockets, the log

@smoke
def test_wss_works_like_ws(t):
    weir = t.weir("demo:", tls=t.certificate())
    with WebSocket(weir) as ws:
        ws.text(UNKNOWN)
        answered(ws)
        ws.raw(frame(TEXT, UNKNOWN.rstrip("}") + " " * 300000 + "}") + frame(PING, b"p"))
        answered(ws)
        assert ws.read_frame() == (True, PONG, b"p")
        assert ws.close(1000, "x") == (1000, "x")
    for wrong, code in ((frame(TEXT, "x", masked=False), 1002), (frame(TEXT, b"\xff"), 1007), (frame(TEXT, length=1 << 40)[:14], 1009)):
        with WebSocket(weir) as ws:
            ws.raw(wrong)
            assert ws.read_close()[0] == code


def test_unix_sockets_carry_websockets(t):
    weir = t.weir("demo:", listen=[f"unix:{t.dir}/weir.sock"])
    with WebSocket(weir) as ws:
        ws.text(UNKNOWN)
        answered(ws)
        assert ws.close() == (1000, "")


def test_a_connection_may_be_used_for_requests_before(t):
    weir = t.weir("demo:")
    with weir.connect() as wire:
        wire.request("GET", "/livez")
        assert wire.response().status == 200
        headers, _ = handshake_headers()
        wire.request("GET", "/ws/chat", headers)
        while b"\r\n\r\n" not in wire.buffer:
            wire.buffer += wire.sock.recv(4096)
        assert wire.buffer.startswith(b"HTTP/1.1 101")
        wire.send(frame(PING, b"hi"))
        assert wire.sock.recv(100) == b"\x8a\x02hi"


def test_the_log_has_one_line_for_each_socket(t):
    weir = t.weir("demo:", keys=[KEY])
    with WebSocket(weir, headers={"authorization": f"Bearer {KEY}", "x_request_id": "mine-1"}) as ws:
        ws.text(UNKNOWN)
        answered(ws)
        ws.close(1000, "done")
    line = wait_until(lambda: next((x for x in weir.log_lines() if x["msg"] == "websocket"), None), "the line")
    assert line["request_id"] == "mine-1" and line["key"] == "key-1" and line["route"] == "/ws/chat", line
    assert line["code"] == 1000 and line["messages_in"] == line["messages_out"] == 1, line
    assert line["bytes_in"] == len(UNKNOWN.encode()) and line["bytes_out"] > 50 and line["client"] == "127.0.0.1", line
    assert weir.metric(r'weir_websocket_messages_total\{.*direction="in"') == 1
    assert weir.metric(r'weir_websocket_bytes_total\{.*direction="in"') == len(UNKNOWN.encode())
    request = weir.request_line("mine-1")
    assert request["status"] == 101 and request["end"] == "upgraded", request


# ---------------------------------------------------------------- the end of the gateway

@smoke
def test_open_sockets_are_closed_with_1001_when_the_gateway_ends(t):
    weir = t.weir("demo:")
    sockets = [WebSocket(weir) for _ in range(5)]
    weir.signal()
    for ws in sockets:
        assert ws.read_close() == (1001, "the gateway is ending")
        ws.send(CLOSE, close_payload(1001))
        ws.read_end()
        ws.drop()
    weir.wait()


@smoke
@limit(60)
def test_the_gateway_ends_although_sockets_do_not_answer(t):
    weir = t.weir("demo:", args=["--drain-timeout", "1s"])
    sockets = [WebSocket(weir) for _ in range(3)]
    sockets[0].send(TEXT, b"half of", fin=False)
    weir.signal()
    weir.wait(20)
    for ws in sockets:
        ws.drop()


def test_another_connection_is_not_disturbed_by_sockets_that_come_and_go(t):
    weir = t.weir("demo:")
    with weir.connect() as wire:
        for _ in range(30):
            ws = WebSocket(weir)
            ws.text(UNKNOWN)
            ws.drop()
            wire.request("GET", "/livez")
            assert wire.response().status == 200
    wait_until(lambda: weir.metric("weir_websockets{") == 0, "no sockets")
    before = weir.metric("process_open_fds")
    for _ in range(50):
        WebSocket(weir).drop()
    wait_until(lambda: weir.metric("process_open_fds") <= before + 2, "descriptors to be given back", error=Defect)
