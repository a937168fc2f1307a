#!/usr/bin/env python3
"""outage.py --weir FILE --fake FILE [--rate 500] [--seconds 20] [--up 1.0] [--down 1.0] [--probes] [--workers 2]

Three model servers behind the gateway, streamed requests at a steady rate, and one of the servers is killed and started
again, over and over. Prints what became of the requests; exits 1 if a client saw an error before its first token. An
answer may break off after it: the server that gave it is dead. Not for CI: it takes a quiet machine."""
import argparse
import asyncio
import collections
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()


def start_fake(options, behave, listen="127.0.0.1:0"):
    process = subprocess.Popen([options.fake, "--listen", listen, "--behave", behave], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    line = process.stdout.readline().decode()
    found = re.search(r"listening on (\S+)", line)
    if not found:
        process.kill()
        raise OSError(line)
    return process, found[1]


class Run:
    def __init__(self, options):
        self.options = options
        self.counts, self.problems = collections.Counter(), collections.Counter()
        self.attempts, self.slowest_ms, self.kills = collections.Counter(), 0.0, 0

    async def one(self, port):
        begun, events, status, writer = time.monotonic(), 0, None, None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            text = b""
            while True:
                piece = await asyncio.wait_for(reader.read(65536), 30)
                if not piece:
                    break
                if not events and b"data: " in text + piece:
                    self.slowest_ms = max(self.slowest_ms, 1000 * (time.monotonic() - begun))
                    events = 1
                text += piece
            head = text.split(b"\r\n\r\n")[0].decode()
            status = int(head.split()[1]) if head else None
            found = re.search(r"(?i)x-weir-attempts: (\d+)", head)
            self.attempts[found[1] if found else "-"] += 1
            whole = b"data: [DONE]" in text
            what = "whole" if status == 200 and whole else "broken after the first token" if status == 200 and events else "error before it"
            if what == "error before it":
                self.problems[text[-300:].decode(errors="replace")] += 1
        except (OSError, asyncio.TimeoutError, ValueError, IndexError) as e:
            what = "broken after the first token" if events else "error before it"
            self.problems[f"{what}: {e!r}"] += 1
        finally:
            if writer:
                writer.close()
        self.counts[what] += 1

    async def trouble(self, fakes, which, end):
        """Kills and revives one of the servers, the next one after each three times."""
        while time.monotonic() < end:
            await asyncio.sleep(self.options.up)
            process, where = fakes[which]
            process.kill()
            process.wait()
            self.kills += 1
            await asyncio.sleep(self.options.down)
            fakes[which] = start_fake(self.options, self.options.behave, where)

    async def paced(self, port, end):
        tasks, due = set(), time.monotonic()
        while (now := time.monotonic()) < end:
            while due <= now:
                task = asyncio.ensure_future(self.one(port))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += 1 / self.options.rate
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)

    async def play(self, port, fakes):
        end = time.monotonic() + self.options.seconds
        trouble = asyncio.ensure_future(self.trouble(fakes, 1, end))
        await self.paced(port, end)
        await trouble


def main():
    parser = argparse.ArgumentParser()
    for name, kind, default in (("weir", str, None), ("fake", str, None), ("rate", float, 500), ("seconds", float, 20), ("up", float, 1.0),
                                ("down", float, 1.0), ("workers", int, 2), ("behave", str, "events=8,pace_ms=5")):
        parser.add_argument("--" + name, type=kind, default=default, required=default is None)
    parser.add_argument("--probes", action="store_true")
    options = parser.parse_args()
    run, gateway = Run(options), None
    fakes = [start_fake(options, options.behave) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = pathlib.Path(folder) / "weir.yaml"
            probes = "path: /health, interval: 200ms, timeout: 1s, " if options.probes else ""
            lines = "".join(f'  - {{ name: s{i}, url: "http://{where}" }}\n' for i, (_, where) in enumerate(fakes))
            config.write_text(f"backends:\n{lines}health: {{ {probes}ejection: 500ms, slow_start: 500ms }}\n")
            with open(pathlib.Path(folder) / "log", "wb") as log:
                gateway = subprocess.Popen([options.weir, "--config", config, "--listen", "127.0.0.1:18399", "--workers", str(options.workers),
                                            "--log-level", "warn"], stderr=log)
                time.sleep(1)
                asyncio.run(run.play(18399, fakes))
            gateway.send_signal(signal.SIGTERM)
            status = gateway.wait(60)
        finally:
            for process, _ in fakes:
                process.kill()
            if gateway and gateway.poll() is None:
                gateway.kill()
    total = sum(run.counts.values())
    print(f"requests={total} rate={options.rate:g}/s seconds={options.seconds:g} kills={run.kills} gateway_exit={status}")
    for name in ("whole", "broken after the first token", "error before it"):
        print(f"{name}: {run.counts[name]}")
    print(f"attempts: {dict(run.attempts)}; slowest first token: {run.slowest_ms:.0f} ms")
    for text, count in run.problems.most_common(5):
        print(f"  {count} x {text}")
    return 1 if run.counts["error before it"] or status else 0


if __name__ == "__main__":
    sys.exit(main())
