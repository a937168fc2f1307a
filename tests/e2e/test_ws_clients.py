"""WebSocket clients that others wrote, and those that README.md shows, as written there."""
import fcntl
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

from harness import HERE, KEY, Options, limit, wait_until

VERSION = "8.18.0"
README_KEY = "sk-tour-0123456789"  # as README.md has it
SAID = "You said: Hello! This"


def package(t):
    """The directory with Node's ws package in it; installed once, outside the tree."""
    t.need("node")
    t.need("npm")
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "weir-tests" / f"ws-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            t.npm(home, f"ws@{VERSION}")
            (home / "complete").touch()
    return home


def node(t, script, *args, flags=(), home=None, env=None):
    home = home or t.dir
    path = home / f"{t.dir.name}.mjs"  # beside the package, so that node finds it
    path.write_text(script)
    try:
        done = subprocess.run(["node", *flags, str(path), *map(str, args)], capture_output=True, text=True, timeout=120 * Options.slow,
                              env={**os.environ, **(env or {})}, check=False)
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def readme_client(start):
    """The code in README.md whose first line begins so."""
    text = (HERE.parent.parent / "README.md").read_text()
    found = [code for code in re.findall(r"```js\n(.*?)```", text, re.S) if code.startswith(start)]
    assert len(found) == 1, (start, len(found))
    assert len(found[0].splitlines()) <= 12, found[0]
    return found[0]


def ws_url(weir):
    return weir.url.replace("http", "ws", 1)


@limit(300)
def test_the_readmes_node_client_runs_as_written(t):
    home = package(t)
    weir = t.weir("demo:?tokens=4&delay=1ms&pace=1ms", keys=[README_KEY])
    client = readme_client("import WebSocket").replace("ws://127.0.0.1:8080", ws_url(weir))
    assert node(t, client, home=home) == SAID
    weir = t.weir("demo:", keys=["another-key-0123456789"])
    path = home / f"{t.dir.name}.mjs"
    path.write_text(client.replace(ws_url(t.processes[0]), ws_url(weir)))
    done = subprocess.run(["node", str(path)], capture_output=True, text=True, timeout=120 * Options.slow, check=False)
    path.unlink()
    assert done.returncode != 0 and "401" in done.stderr, done


@limit(300)
def test_the_readmes_browser_client_runs_as_written(t):
    t.need("node")
    weir = t.weir("demo:?tokens=4&delay=1ms&pace=1ms", keys=[README_KEY])
    client = readme_client("const show").replace("ws://127.0.0.1:8080", ws_url(weir))
    page = 'let said = ""; globalThis.document = { body: { append: (text) => (said += text) } };\n' + client
    page += 'ws.onclose = ({ code }) => console.log(JSON.stringify({ said, code, protocol: ws.protocol }));\n'
    # Node's own WebSocket is the browsers' (WHATWG), in older versions behind a flag.
    probe = subprocess.run(["node", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"], check=False)
    flags = () if probe.returncode == 0 else ("--experimental-websocket",)
    if flags and subprocess.run(["node", *flags, "-e", "0"], capture_output=True, check=False).returncode != 0:
        t.skip("this Node has no WebSocket of its own")
    told = json.loads(node(t, page, flags=flags))
    assert told["said"] == SAID and told["protocol"] == "weir.chat", told
    assert told["code"] in (1000, 1005), told


@limit(300)
def test_chromium_runs_the_readmes_browser_client(t):
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        t.skip("chromium is not installed")
    said = []

    class Ear(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            said.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    ear = http.server.HTTPServer(("127.0.0.1", 0), Ear)
    threading.Thread(target=ear.serve_forever, daemon=True).start()
    weir = t.weir("demo:?tokens=4&delay=1ms&pace=1ms", keys=[README_KEY])
    page = t.dir / "page.html"
    client = readme_client("const show").replace("ws://127.0.0.1:8080", ws_url(weir))
    tell = f'fetch("http://127.0.0.1:{ear.server_port}/", {{ method: "POST", mode: "no-cors", body: document.body.innerText }})'
    page.write_text(f"<!doctype html><body><script>{client}\nws.onclose = () => {tell};</script>")
    # Virtual time does not wait for WebSockets: the page says itself when it is done.
    running = subprocess.Popen([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={t.dir}/profile",
                                "--remote-debugging-port=0", page.as_uri()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: said, "the page to speak", 60)
    finally:
        running.kill()
        running.wait()
        ear.shutdown()
        ear.server_close()
    assert SAID in said[0], said


# What Node's ws does with one socket: node SCRIPT URL KEY; prints one JSON object.
NODE = """
import WebSocket from "ws";
const [url, key] = process.argv.slice(2);
const told = { events: {}, pongs: 0 };
const ws = new WebSocket(url + "/ws/chat", { headers: { Authorization: `Bearer ${key}` }, perMessageDeflate: true });
const ask = (id, more) => ws.send(JSON.stringify({ id, model: "fake-1", messages: [{ role: "user", content: "x" }], ...more }));
ws.on("open", () => {
  ws.ping("are you there?");
  ask(1);
  const large = JSON.stringify({ id: 2, model: "fake-1", messages: [{ role: "user", content: "ü".repeat(200000) }] });
  for (let at = 0; at < large.length; at += 50000)
    ws.send(large.slice(at, at + 50000), { fin: at + 50000 >= large.length });
});
ws.on("pong", (data) => (told.pongs += data.toString() === "are you there?"));
ws.on("message", (message, binary) => {
  const { id, event } = JSON.parse(message);
  told.binary = binary;
  told.events[id] = told.events[id] ?? {};
  told.events[id][event] = (told.events[id][event] ?? 0) + 1;
  if (told.events[1]?.done && told.events[2]?.done) ws.close(4000, "enough");
});
ws.on("close", (code, reason) => {
  told.code = code;
  told.reason = reason.toString();
  console.log(JSON.stringify(told));
});
"""


@limit(300)
def test_nodes_ws_talks_over_ws_and_wss(t):
    home = package(t)
    fake = t.fake("events=20")
    for tls in (None, t.certificate()):
        weir = t.weir(fake, keys=[KEY], tls=tls)
        env = {"NODE_EXTRA_CA_CERTS": str(tls.ca)} if tls else {}
        url = ws_url(weir).replace("127.0.0.1", "localhost") if tls else ws_url(weir)
        told = json.loads(node(t, NODE, url, KEY, home=home, env=env))
        assert told["pongs"] == 1 and told["binary"] is False, told
        assert told["events"]["1"]["delta"] >= 20 and told["events"]["2"]["done"] == 1, told
        assert (told["code"], told["reason"]) == (4000, "enough"), told


PYTHON = """
import asyncio, json, ssl, sys, websockets

async def main(url, key, ca):
    tls = ssl.create_default_context(cafile=ca) if ca else None
    headers = {"Authorization": f"Bearer {key}"}
    async with websockets.connect(url + "/ws/chat", extra_headers=headers, ssl=tls, ping_interval=None) as ws:
        await asyncio.wait_for(await ws.ping(), 10)
        await ws.send(json.dumps({"id": 1, "model": "fake-1", "messages": [{"role": "user", "content": "x"}]}))
        await ws.send(iter(['{"id":2,"model":"fake-1",', '"messages":[{"role":"user",', '"content":"x"}]}']))
        deltas, done = 0, 0
        while done < 2:
            event = json.loads(await ws.recv())["event"]
            deltas, done = deltas + (event == "delta"), done + (event == "done")
    print(json.dumps({"deltas": deltas, "code": ws.close_code}))
    try:
        await websockets.connect(url + "/ws/chat", ssl=tls)
    except websockets.InvalidStatusCode as e:
        assert e.status_code == 401, e

asyncio.run(main(*sys.argv[1:]))
"""


@limit(300)
def test_pythons_websockets_talks_over_ws_and_wss(t):
    python = next((p for p in (sys.executable, "/usr/bin/python3") if os.path.exists(p) and
                   subprocess.run([p, "-c", "import websockets"], capture_output=True, check=False).returncode == 0), None)
    if python is None:
        t.skip("python3-websockets is not installed")
    fake = t.fake("events=20")
    for tls in (None, t.certificate()):
        weir = t.weir(fake, keys=[KEY], tls=tls)
        url = ws_url(weir).replace("127.0.0.1", "localhost") if tls else ws_url(weir)
        done = subprocess.run([python, "-c", PYTHON, url, KEY, str(tls.ca) if tls else ""], capture_output=True, text=True,
                              timeout=120 * Options.slow, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        told = json.loads(done.stdout)
        assert told["deltas"] >= 40 and told["code"] == 1000, told
