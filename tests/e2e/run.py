#!/usr/bin/env python3
"""Runs the end-to-end scenarios: one line each, and `N passed, N failed, N skipped` at the end."""
import argparse
import importlib.util
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
import traceback

from harness import TROUBLE, Defect, Options, Scenario, Skip

HERE = pathlib.Path(__file__).resolve().parent


def collect(pattern, smoke, few):
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        before = len(found)
        for name, function in vars(module).items():
            if not name.startswith("test_") or not callable(function) or (smoke and not getattr(function, "smoke", False)):
                continue
            title = f"{path.stem[5:]}: {name[5:].replace('_', ' ')}"
            if few and len(found) - before >= few:
                break
            if not pattern or pattern in title or pattern in name or pattern in path.stem:
                found.append((title, function))
    return found


# What a busy machine can bring about: an order or a time that was taken for granted. See run_again().
BY_CHANCE = (AssertionError, TimeoutError, subprocess.TimeoutExpired)
SECONDS = 120  # that a scenario may take at least; on a quiet machine most take one or two
FEW = 3  # failures beyond which something is broken, and no second attempt says otherwise


class TooLong(BaseException):
    """The scenario's own limit. No OSError, as TimeoutError is: scenarios expect some of those, and would go on."""


def on_alarm(*_):
    raise TooLong("the scenario took too long")


def seconds_for(function):
    return max(SECONDS, getattr(function, "seconds", 0)) * Options.slow


def play(title, function):
    """One scenario, in a process of its own. Returns (verdict, text); the verdict "wavered" is a failure that may be chance:
    nothing but an assertion or a limit on time, with every program in good order to its end."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(int(seconds_for(function)))
    scenario, verdict, text = Scenario(title), "passed", ""
    try:
        function(scenario)
    except Skip as e:
        verdict, text = "skipped", str(e)
    except BaseException as e:  # pylint: disable=broad-except
        chance = isinstance(e, (*BY_CHANCE, TooLong)) and not isinstance(e, Defect)
        verdict, text = "wavered" if chance else "failed", traceback.format_exc() + scenario.logs()
    signal.alarm(int(60 * Options.slow))
    try:
        wrong = scenario.close()
    except BaseException:  # pylint: disable=broad-except
        wrong = [traceback.format_exc()]
    if wrong:
        verdict, text = "failed", text + "\n".join(wrong)
    if verdict == "wavered" and (TROUBLE.search(text) or scenario.trouble()):
        verdict = "failed"
    scenario.clean()
    return verdict, text


def start(title, function):
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(read_end)
        result = play(title, function)
        with os.fdopen(write_end, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(write_end)
    seconds = seconds_for(function) + 70 * Options.slow
    return {"title": title, "pid": pid, "pipe": read_end, "data": b"", "start": time.monotonic(), "limit": seconds}


def say(word, job, note=""):
    print(f"{word:4} {job['title']} ({time.monotonic() - job['start']:.1f} s){note}", flush=True)


def show(text):
    print("     " + text.rstrip().replace("\n", "\n     "), flush=True)


def finish(job):
    """Collects a scenario that has ended. Returns (verdict, text)."""
    os.killpg(job["pid"], signal.SIGKILL)  # what it left, such as a gateway's successor; itself it has nothing more to do
    os.close(job["pipe"])
    os.waitpid(job["pid"], 0)
    try:
        return json.loads(job["data"])
    except ValueError:
        return "failed", "the scenario's process died"


def tell(job, verdict, text):
    if verdict == "wavered":
        say("WAIT", job, " - failed, see below; its verdict comes at the end")
    else:
        say({"passed": "ok", "skipped": "SKIP", "failed": "FAIL"}[verdict], job, f" - {text}" if verdict == "skipped" else "")
    if verdict in ("failed", "wavered"):
        show(text)


def run_all(scenarios, jobs, ended):
    """Plays them, so many at a time; ended(scenario, job, verdict, text) hears of each."""
    waiting, running = list(reversed(scenarios)), []
    while waiting or running:
        while waiting and len(running) < jobs:
            scenario = waiting.pop()
            running.append({**start(*scenario), "scenario": scenario})
        ready, _, _ = select.select([job["pipe"] for job in running], [], [], 1)
        for job in list(running):
            if job["pipe"] in ready:
                data = os.read(job["pipe"], 65536)
                job["data"] += data
                if not data:
                    running.remove(job)
                    ended(job["scenario"], job, *finish(job))
            elif time.monotonic() - job["start"] > job["limit"]:
                os.killpg(job["pid"], signal.SIGKILL)


def run_again(wavered, counts):
    """Plays those that may have failed by chance once more, each alone. Returns the titles of those that then passed."""
    passed = []

    def ended(_, job, verdict, text):
        if verdict == "passed":
            passed.append(job["title"])
            counts["passed"] += 1
            print(f"ok   {job['title']} (at the second attempt; the first is above)", flush=True)
        else:
            counts["failed"] += 1
            say("FAIL", job, f" - {verdict if verdict == 'skipped' else 'failed'} at the second attempt; the first is above")
            show(text)

    run_all(wavered, 1, ended)
    return passed


def run(scenarios, jobs, once):
    """Plays all. Returns how many passed, failed and were skipped, and prints who needed a second attempt."""
    counts, wavered, second = {"passed": 0, "failed": 0, "skipped": 0}, [], []

    def ended(scenario, job, verdict, text):
        if once and verdict == "wavered":
            verdict = "failed"
        tell(job, verdict, text)
        if verdict == "wavered":
            wavered.append(scenario)
        else:
            counts[verdict] += 1

    run_all(scenarios, jobs, ended)
    if counts["failed"] + len(wavered) > FEW:
        counts["failed"] += len(wavered)
        for title, _ in wavered:
            print(f"FAIL {title} - with so many that failed there is no second attempt; the first is above", flush=True)
    else:
        second = run_again(wavered, counts)
    if second:
        print(f"{len(second)} needed a second attempt: {'; '.join(second)}")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weir", default="build-test/weir")
    parser.add_argument("--fake", default="build-test/tests/model_fake")
    parser.add_argument("-k", dest="pattern", default="", help="only scenarios whose name contains this")
    parser.add_argument("-j", dest="jobs", type=int, default=4)
    parser.add_argument("--smoke", action="store_true", help="only the scenarios marked for slow checkers")
    parser.add_argument("--few", type=int, default=0, metavar="N", help="at most so many of each file")
    parser.add_argument("--valgrind", action="store_true")
    parser.add_argument("--workers", help="threads of the gateway where a scenario does not say")
    parser.add_argument("--strict", action="store_true", default=os.environ.get("WEIR_STRICT_TIMING") == "1",
                        help="hold the gateway to its promised times; for a Release build on a quiet machine")
    parser.add_argument("--once", action="store_true", help="no second attempt for what failed by an assertion or a time limit: to find"
                        " tests that fail by chance")
    parser.add_argument("--slow", type=float, help="multiplies every time limit")
    options = parser.parse_args()
    Options.weir = pathlib.Path(options.weir).resolve()
    Options.fake = pathlib.Path(options.fake).resolve()
    Options.valgrind, Options.workers, Options.strict = options.valgrind, options.workers, options.strict
    Options.slow = options.slow or (5.0 if options.valgrind else 1.0)
    for program in (Options.weir, Options.fake):
        if not os.access(program, os.X_OK):
            sys.exit(f"{program} is not there: build first")
    # Under nohup it would be ignored, by the gateways too, and the scenarios that reload would wait for ever.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    scenarios = collect(options.pattern, options.smoke, options.few)
    counts = run(scenarios, options.jobs, options.once)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(1 if counts["failed"] or not scenarios else 0)


if __name__ == "__main__":
    main()
