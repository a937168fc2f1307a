"""What was sent, held against what the gateway's log and metrics say of it and what the model servers wrote down. The equalities are
in tests/soak.sh; here each is one function that yields a sentence for every breach of it. Nothing is tolerated that is not named."""
import collections
import json
import re

Asked = collections.namedtuple("Asked", "kind outcome status told again")

# What only a model server could make right, so that it may come to any request that reaches one.
BACKEND_TROUBLE = {502, 503, 504}
# Kinds of requests that the gateway must refuse, with what.
REFUSALS = {"bad_key": {401, 429}, "too_large": {413}, "not_json": {400}, "no_model": {400}, "unknown": {404}, "no_route": {404}}
# Kinds that a limit may refuse.
LIMITED = {"limited", "tokens", "few"}
# Kinds whose model server misbehaves as it was told to, with what may come of it.
MISCHIEF = {"cut": "broken", "reset": "broken", "cut_inside": "broken", "end_after": "broken", "error_event": "broken", "drop": 502,
            "status_500": 500, "status_429": 429}
# How long a server takes at least for an answer that clients leave, in milliseconds.
TAKES = {"leave": 1000, "leave_waiting": 600, "leave_json": 600, "leave_at_once": 200, "queued_leave": 300, "chat_leave": 120,
         "tls_leave": 150, "http2_leave": 150, "http2_tls_leave": 150}
# How the log says that a backend failed an answer; base/stream's stream_failure_name.
FAILURES = {"connect", "reset", "protocol", "unterminated", "connect_timeout", "first_token_timeout", "idle_timeout", "total_timeout",
            "overflow"}
OWN_ROUTES = {"/metrics", "/readyz"}  # what the soak itself asks


class Ledger:
    """The books of one stretch of the run, between two moments when nothing was under way."""
    def __init__(self):
        self.asked = {}  # by the request's own name
        self.sockets = {}  # by the WebSocket's name: what became of each of its generations, in order
        self.lines, self.sockets_closed, self.other_lines = [], [], collections.Counter()
        self.journal = collections.defaultdict(list)  # by the gateway's name for the request: (server, how it ended)
        self.killed = False  # a server was
        self.upgraded = False  # the gateway was, whose old process closes the connections that it has kept
        self.metrics = None  # how the counters grew; None: a process that counted is gone
        self.crossings = collections.Counter()

    def read_driver(self, path):
        with open(path, encoding="ascii") as f:
            for line in f:
                name, kind, outcome, status, told, again = line.split()
                self.asked[name] = Asked(kind, outcome, int(status), name if told == "-" else told, int(again))

    def read_log(self, path):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                if not line.startswith("{"):
                    continue
                fields = json.loads(line)
                if fields["msg"] == "request":
                    self.lines.append(fields)
                elif fields["msg"] == "websocket":
                    self.sockets_closed.append(fields)
                else:
                    self.other_lines[fields["msg"]] += 1

    def read_journal(self, path, server, killed):
        """How each request ended there: "done", "cut" by the server, "left" by the gateway, "died" with it, or "open"."""
        under_way = collections.Counter()
        with open(path, encoding="ascii") as f:
            for line in f:
                name, what = line.split()
                if what == "begun":
                    under_way[name] += 1
                else:
                    under_way[name] -= 1
                    self.journal[name].append((server, what))
        for name in under_way.elements():
            self.journal[name].append((server, "died" if killed else "open"))

    def wrong(self):
        """Every breach of every equality."""
        self.by_name = collections.defaultdict(list)
        for line in self.lines:
            self.by_name[line["request_id"]].append(line)
        checks = [self._one_line_each, self._same_outcome, self._right_outcome, self._servers_agree, self._cancelled,
                  self._sockets, self._metrics]
        return [breach for check in checks for breach in check()]

    def of_the_driver(self):
        """(name, what was asked, the log's line) of each request that has exactly one line."""
        for name, asked in self.asked.items():
            lines = self.by_name.get(asked.told, ())
            if len(lines) == 1:
                yield name, asked, lines[0]

    def _one_line_each(self):
        """Requests sent whole = lines in the log, one each; what was never sent whole has none."""
        for name, asked in self.asked.items():
            count = len(self.by_name.get(asked.told, ()))
            if count != (asked.outcome != "unfinished"):
                yield f"{name}: {count} lines in the log of {asked}"
        names = {asked.told for asked in self.asked.values()} | self.sockets.keys()
        for line in self.lines:
            if line["request_id"] not in names and "socket" not in line and line.get("route") not in OWN_ROUTES:
                yield f"nobody sent {line}"

    def _same_outcome(self):
        """The client and the log tell the same story."""
        for name, asked, line in self.of_the_driver():
            status, end = line["status"], line["end"]
            if asked.outcome == "served":
                agrees = status == 200 and end == "finished"
            elif asked.outcome == "refused":
                agrees = status == asked.status
            elif asked.outcome == "broken":
                agrees = status == 200 and end in FAILURES
            elif asked.outcome == "left":
                agrees = status == 499 and end in {"client_left", "send_timeout"}
                if not agrees:  # its leaving and the end of the answer crossed each other
                    self.crossings["left, log says " + end] += 1
                    agrees = end in {"finished", "refused"} | FAILURES
            else:
                agrees = False
            if not agrees:
                yield f"{name}: {asked}, but the log has {line}"

    def _had_time(self, asked):
        """Whether the answer to one that meant to leave can have been ready by then."""
        takes = TAKES.get(asked.kind)
        return takes is not None and all(line["duration_ms"] >= takes for line in self.by_name.get(asked.told, ()))

    def _right_outcome(self):
        """Nobody gets what is not for him."""
        for name, asked in self.asked.items():
            dying = BACKEND_TROUBLE | {"broken"} if self.killed else set()
            if asked.kind in REFUSALS:
                good = REFUSALS[asked.kind]
            elif asked.kind.startswith("half_"):
                good = {"unfinished"}
            elif asked.kind in MISCHIEF:
                good = {MISCHIEF[asked.kind]} | dying
            elif "leave" in asked.kind or asked.kind == "stalls":
                good = {"left"} | dying
                if asked.outcome == "served" and self._had_time(asked):  # the client was slow to leave
                    self.crossings["served before it left"] += 1
                    good = good | {"served"}
            else:
                good = {"served"} | dying | ({429} if asked.kind in LIMITED else set())
            if asked.again and not self.upgraded:
                yield f"{name}: a connection was closed just as it was used: {asked}"
            if asked.outcome not in good and not (asked.outcome == "refused" and asked.status in good):
                yield f"{name}: {asked}"

    @staticmethod
    def attempts(line):
        """How many servers the gateway says it has asked."""
        return 0 if "backend" not in line or line.get("cache") == "hit" else line.get("attempts", 1)

    @classmethod
    def failures(cls, line):
        """How many of them failed: all but the last, and the last if it did."""
        attempts = cls.attempts(line)
        failed = line["end"] in FAILURES or line["end"] == "finished" and (line["status"] == 429 or line["status"] >= 500)
        return attempts - (0 if failed else 1) if attempts else 0

    def _servers_agree(self):
        """Attempts by the log = requests that a server wrote down + those that came to nothing before."""
        lost = 0
        for name, entries in self.journal.items():
            if name not in self.by_name:
                yield f"{name}: a server got it, {entries}, but it is not in the log"
        for name, lines in self.by_name.items():
            for line in lines:
                entries, attempts = self.journal.get(name, []), self.attempts(line)
                ends = [end for _, end in entries]
                once = self._once_each(entries)
                if once is None or once > attempts:
                    yield f"{name}: {attempts} attempts, but servers have {entries}: {line}"
                    continue
                lost += attempts - once
                if once < attempts and not self.killed and line["end"] != "client_left":
                    yield f"{name}: {attempts} attempts, servers have {entries}, and none had been killed: {line}"
                if "open" in ends:
                    yield f"{name}: still open at a server, {entries}: {line}"
                if line["status"] == 200 and line["end"] == "finished" and attempts != 0:
                    # One killed between its last byte and its last word has served it, too.
                    ended = [end for server, end in entries if server == line["backend"]]
                    if ended[-1:] not in (["done"], ["died"]) or ends.count("done") > 1:
                        yield f"{name}: served, but servers have {entries}: {line}"
        self.crossings["attempts that no server saw"] += lost
        self.crossings["sent once more by the client"] += sum(asked.again for asked in self.asked.values())

    def _cancelled(self):
        """Where the gateway knew that the client had left well before the server can have been ready, the server was left, too. Half of
        its time is room for a busy machine."""
        for name, asked, line in self.of_the_driver():
            ends = [end for _, end in self.journal.get(asked.told, [])]
            if line["end"] == "client_left" and "done" in ends and line["duration_ms"] < TAKES.get(asked.kind, 0) / 2:
                yield f"{name}: left, but the server went on until it was done: {line}"

    def _once_each(self, entries):
        """How many servers have it. One that closes a kept connection without a byte of an answer is asked once more, on a fresh one,
        which counts as the same attempt. None: one was asked more often than that."""
        servers = collections.defaultdict(list)
        for server, end in entries:
            servers[server].append(end)
        for ends in servers.values():
            if len(ends) > 2 or len(ends) == 2 and ends[0] not in {"cut", "died"}:
                return None
            self.crossings["asked once more on a fresh connection"] += len(ends) - 1
        return len(servers)

    def _sockets(self):
        """One line for each WebSocket, and for each of its generations."""
        closed = collections.Counter(line["request_id"] for line in self.sockets_closed)
        lines = collections.defaultdict(list)
        for line in self.lines:
            if "socket" in line:
                lines[line["socket"]].append(line["status"])
        for name, outcomes in self.sockets.items():
            if closed.pop(name, 0) != 1 or [line["status"] for line in self.by_name.get(name, ())] != [101]:
                yield f"{name}: not one line for the WebSocket"
            told = collections.Counter(lines.pop(name, []))
            known = collections.Counter(outcome for outcome in outcomes if outcome != "left")
            rest = told - known  # of those that were left, which may have been over by then
            if known - told or rest.total() != outcomes.count("left") or rest.keys() - {499, 200} - BACKEND_TROUBLE:
                yield f"{name}: the client saw {outcomes}, the log has {dict(told)}"
        if closed or lines:
            yield f"nobody opened the WebSockets {dict(closed)} {dict(lines)}"

    def _metrics(self):
        """The metrics count what the log has lines for."""
        if self.metrics is None:
            return
        counted = collections.Counter()
        for line in self.lines:
            if line.get("route") not in OWN_ROUTES:
                counted[line.get("route", "none"), line.get("backend", ""), str(line["status"])] += 1
        told = {(labels["route"], labels["backend"], labels["status"]): n for labels, n in self.metrics.grown("weir_requests_total")
                if labels["route"] not in OWN_ROUTES}
        for labels in counted.keys() | told.keys():
            if counted.get(labels, 0) != told.get(labels, 0):
                yield f"weir_requests_total{labels} grew by {told.get(labels, 0)}, the log has {counted.get(labels, 0)} lines"
        lines = [line for line in self.lines if line.get("route") not in OWN_ROUTES]
        tokens = [line.get(kind + "_tokens", 0) for line in lines for kind in ("prompt", "completion", "cached")]
        for name, said in (("weir_log_lines_dropped_total", 0), ("weir_response_bytes_total", sum(line.get("bytes", 0) for line in lines)),
                           ("weir_tokens_total", sum(tokens)), ("weir_refusals_total", sum("refusal" in line for line in lines))):
            told = sum(n for labels, n in self.metrics.grown(name) if labels.get("route") not in OWN_ROUTES)
            if told != said:
                yield f"{name} grew by {told}, the log says {said}"
        # Of one that left while it waited to be tried again the log does not tell whether the last attempt had failed, too.
        unsure = sum(line["end"] == "client_left" and "problem" in line for line in self.lines)
        said, told = sum(map(self.failures, self.lines)), sum(n for _, n in self.metrics.grown("weir_upstream_errors_total"))
        if not said <= told <= said + unsure:
            yield f"weir_upstream_errors_total grew by {told}, the log says {said} and perhaps {unsure} more"
        for result in ("hit", "miss", "bypass"):
            told = sum(n for labels, n in self.metrics.grown("weir_cache_requests_total") if labels["result"] == result)
            said = sum(line.get("cache") == result for line in self.lines)
            if told != said:
                yield f"weir_cache_requests_total of {result} grew by {told}, the log says {said}"

    def table(self):
        """Kinds and outcomes, as lines of text."""
        rows = collections.defaultdict(collections.Counter)
        for asked in self.asked.values():
            rows[asked.kind][f"{asked.status}" if asked.outcome == "refused" else asked.outcome] += 1
        for outcomes in self.sockets.values():
            for outcome in outcomes:
                rows["ws_chat"][str(outcome)] += 1
        return rows


class Metrics:
    """What /metrics says."""
    def __init__(self, text):
        self.series = {}
        for line in text.splitlines():
            found = re.fullmatch(r"([a-z_:]+)(?:\{(.*)\})? (\S+)", line)
            if found:
                self.series[found[1], found[2] or ""] = float(found[3])

    def of(self, name):
        return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), n) for (found, labels), n in self.series.items() if found == name]

    def sum(self, name):
        return sum(n for _, n in self.of(name))


class Growth:
    """From one reading to the next."""
    def __init__(self, before, after):
        self.before, self.after = before, after

    def grown(self, name):
        for (found, labels), n in self.after.series.items():
            if found == name and n != self.before.series.get((found, labels), 0):
                yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), int(n - self.before.series.get((found, labels), 0))
