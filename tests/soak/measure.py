"""Memory and descriptors of a process, from /proc."""
import collections
import os
import re
import statistics
import threading
import time

Sample = collections.namedtuple("Sample", "at rss pss private fds")  # seconds, KiB


def sample(pid):
    """None if the process is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            found = dict(re.findall(r"(\w+): +(\d+) kB", f.read()))
        fds = len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if "Rss" not in found:
        return None
    return Sample(time.monotonic(), int(found["Rss"]), int(found["Pss"]), int(found["Private_Clean"]) + int(found["Private_Dirty"]), fds)


class Sampler(threading.Thread):
    """Notes a process every so often."""
    def __init__(self, every=1.0):
        super().__init__(daemon=True)
        self.every, self.pid, self.samples = every, None, collections.defaultdict(list)
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(self.every):
            taken = sample(self.pid) if self.pid else None
            if taken:
                self.samples[self.pid].append(taken)


def thirds(samples, of):
    """The medians of the first third of the samples and of the last."""
    third = max(1, len(samples) // 3)
    values = [getattr(s, of) for s in samples]
    return statistics.median(values[:third]), statistics.median(values[-third:])


def sockets():
    """(local port, remote port, state) by inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}", encoding="ascii") as f:
            for line in f.readlines()[1:]:
                fields = line.split()
                found[fields[9]] = (int(fields[1][-4:], 16), int(fields[2][-4:], 16), fields[3])
    return found


def descriptors(pid, names):
    """How many descriptors a process has of each sort: "backend", "redis", …, as `names` says of remote ports; "client" are accepted
    connections, "listening" those that accept, the rest by what the kernel calls it."""
    found, known = collections.Counter(), sockets()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        socket = re.fullmatch(r"socket:\[(\d+)\]", target)
        if not socket:
            found["file" if target.startswith("/") else re.sub(r":\[\d+\]", "", target)] += 1
        elif socket[1] not in known:
            found["socket of another kind"] += 1
        else:
            _, remote, state = known[socket[1]]
            found["listening" if state == "0A" else names.get(remote, "client")] += 1
    return found
