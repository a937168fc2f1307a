#!/usr/bin/env python3
"""Writes vectors.txt: what every implementation of the limit strategies has to answer.

    python3 vectors.py > vectors.txt

The rules of ratelimit/strategy.h in the plainest form there is: whole numbers of any size, lists, and a search over time
where the C code has closed formulas. Slow on purpose."""

import random

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND
SKEW, EXACT_MAX, COUNT_MAX = SECOND, 16000, 4 * 10**15


class Limiter:
    """A strategy's state. `used(t)` is what is used at the state time t >= self.last if nothing else comes."""

    def __init__(self, amount, window):
        self.amount, self.window = amount, window
        self.last = self.offset = 0

    def clock(self, now):
        t = now + self.offset
        if t < self.last:
            if self.last - t > SKEW:
                self.offset += self.last - t
            t = self.last
        self.last = t
        return t

    def first(self, t, most):
        """The first time, t or later, at which at most `most` is used."""
        low, high = t, t + 4 * self.window
        assert self.used(high) == 0
        while low < high:
            middle = (low + high) // 2
            if self.used(middle) <= most:
                high = middle
            else:
                low = middle + 1
        return low

    def numbers(self, t):
        used = self.used(t)
        reset = full = t
        if used:
            reset = self.first(t, max(min(used, self.amount) - 1, 0))
            full = self.first(t, 0)
        return max(self.amount - used, 0), reset - self.offset, full - self.offset

    def hit(self, now, cost):
        t = self.clock(now)
        ticket = None
        if self.amount == 0 or cost > self.amount:
            retry = "never"
        else:
            retry = self.first(t, self.amount - cost)
            if retry == t:
                ticket = self.consume(t, cost) if cost else t
            retry -= self.offset
        return (ticket, retry) + self.numbers(t)

    def adjust(self, now, ticket, delta):
        t = self.clock(now)
        self.settle(t, ticket, delta)
        return self.numbers(t)


def settled(value, delta):
    return min(max(value + delta, 0), COUNT_MAX)


class FixedWindow(Limiter):
    start = count = 0

    def used(self, t):
        return self.count if t < self.start + self.window else 0

    def consume(self, t, cost):
        if self.used(t) == 0:
            self.start, self.count = t, 0
        self.count += cost
        return t

    def settle(self, t, ticket, delta):
        if self.used(t) and self.start <= ticket:
            self.count = settled(self.count, delta)


class MovingWindow(Limiter):
    def __init__(self, amount, window):
        super().__init__(amount, window)
        self.log = {}  # time -> cost

    def used(self, t):
        return sum(cost for at, cost in self.log.items() if at > t - self.window)

    def consume(self, t, cost):
        if self.amount > EXACT_MAX:
            step = -(-self.window // EXACT_MAX)
            t = -(-t // step) * step
        self.log[t] = self.log.get(t, 0) + cost
        return t

    def settle(self, t, ticket, delta):
        if ticket > t - self.window:
            self.log[ticket] = settled(self.log[ticket], delta)


class SlidingWindowCounter(Limiter):
    start = 0
    counts = (0, 0)  # the window before, the current one

    def at(self, t):
        """Start and counts as they are at t."""
        start, (previous, current) = self.start, self.counts
        while t >= start + self.window and (previous or current):
            start, previous, current = start + self.window, current, 0
        return start, previous, current

    def used(self, t):
        start, previous, current = self.at(t)
        return previous * (start + self.window - t) // self.window + current

    def consume(self, t, cost):
        start, previous, current = self.at(t)
        if not previous and not current:
            start = t
        self.start, self.counts = start, (previous, current + cost)
        return t

    def settle(self, t, ticket, delta):
        start, previous, current = self.at(t)
        if ticket >= start and current:
            current = settled(current, delta)
        elif start - self.window <= ticket < start and previous:
            previous = settled(previous, delta)
        self.start, self.counts = start, (previous, current)


STRATEGIES = {"fixed_window": FixedWindow, "moving_window": MovingWindow, "sliding_window_counter": SlidingWindowCounter}
WINDOWS = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY, "year": 360 * DAY}


def run(name, strategy, amount, multiple, granularity, steps):
    limiter = STRATEGIES[strategy](amount, multiple * WINDOWS[granularity])
    tickets = []
    print(f"\nvector {strategy}: {name}\nlimit {strategy} {amount} per {multiple} {granularity}")
    for step in steps:
        if step[0] == "adjust":
            _, now, which, delta = step
            if tickets[which] is None:
                continue
            print("adjust", now, which, delta, "=", *limiter.adjust(now, tickets[which], delta))
        else:
            now, cost = step
            ticket, retry, *numbers = limiter.hit(now, cost)
            print("hit", now, cost, "=", "refused" if ticket is None else "allowed", *numbers, retry)
            tickets.append(ticket)


def random_steps(rng, amount, window, count, jumps):
    now, hits, steps = rng.randrange(10**12), [], []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.04:
            now += rng.choice([window - 1, window, window + 1, 2 * window, 2 * window - 1])
        elif jumps and kind < 0.10:
            now = max(0, now - rng.choice([1, SKEW, SKEW + 1, window // 2, window, 5 * window]))
        elif kind < 0.8:
            now += rng.randrange(max(1, window // 12))
        open_hits = [hit for hit in hits if hit[1]]
        if open_hits and rng.random() < 0.25:
            # Once for each hit; without jumps also of windows that have passed.
            which, cost = rng.choice(open_hits[-4:] if rng.random() < 0.8 else open_hits)
            hits[which] = (which, 0)
            steps.append(("adjust", now, which, rng.choice([-cost, -(cost // 2), 1, cost, -10 * cost])))
        else:
            top = max(1, amount // rng.choice([1, 3, 10]))
            cost = rng.choice([0, 1, 1, top, rng.randrange(1, top + 1), amount, amount + 1])
            hits.append((len(hits), cost))
            steps.append((now, cost))
    return steps


def main():
    print("# What a limit strategy answers to a sequence of hits and settlements. Made by vectors.py; times in microseconds.")
    print("#")
    print("# vector NAME")
    print("# limit STRATEGY AMOUNT per MULTIPLE GRANULARITY")
    print("# hit NOW COST = allowed|refused REMAINING RESET FULL RETRY          numbers after it; RETRY may be `never`")
    print("# adjust NOW WHICH DELTA = REMAINING RESET FULL                      settles the WHICH-th hit, from 0")
    epoch = 1_795_250_030 * SECOND
    for strategy in STRATEGIES:
        run("five a minute, then the window passes", strategy, 5, 1, "minute",
            [(epoch + at * SECOND, 1) for at in (0, 10, 20, 30, 40, 50, 59, 60, 61, 70, 80, 90, 100, 110, 120, 125, 300)])
        run("refused hits consume nothing: costs 3, 3, 1, 1, 1", strategy, 5, 1, "minute",
            [(epoch, 3), (epoch, 3), (epoch, 1), (epoch, 1), (epoch, 1)])
        run("amount 0 refuses everything", strategy, 0, 1, "minute", [(epoch, 0), (epoch, 1), (epoch + DAY, 1)])
        run("a cost above the amount never fits", strategy, 5, 1, "minute",
            [(epoch, 6), (epoch, 2**64 - 1), (epoch, 5), (epoch, 1)])
        run("cost 0 is free and opens nothing", strategy, 2, 1, "minute",
            [(epoch, 0), (epoch + 30 * SECOND, 2), (epoch + 30 * SECOND, 0), (epoch + MINUTE, 1), (epoch + 90 * SECOND, 1)])
        run("the last microsecond of a window", strategy, 1, 1, "second",
            [(epoch, 1), (epoch + SECOND - 1, 1), (epoch + SECOND, 1), (epoch + 2 * SECOND - 1, 1), (epoch + 3 * SECOND, 1)])
        run("time that begins at 0", strategy, 2, 1, "second", [(0, 1), (0, 1), (1, 1), (SECOND, 2), (3 * SECOND, 2)])
        run("a reservation settled down, and up beyond the amount", strategy, 1000, 1, "minute",
            [(epoch, 600), (epoch + SECOND, 600), ("adjust", epoch + 2 * SECOND, 0, -500), (epoch + 3 * SECOND, 600),
             ("adjust", epoch + 4 * SECOND, 2, 700), (epoch + 5 * SECOND, 1), (epoch + 5 * SECOND, 0),
             (epoch + 59 * SECOND, 1), (epoch + 62 * SECOND, 1), (epoch + 63 * SECOND, 1), (epoch + 119 * SECOND, 1)])
        run("a settlement after its window has passed is harmless", strategy, 10, 1, "minute",
            [(epoch, 9), (epoch + 3 * MINUTE, 4), ("adjust", epoch + 3 * MINUTE, 0, -9), ("adjust", epoch + 3 * MINUTE, 0, 5),
             (epoch + 3 * MINUTE, 6), (epoch + 3 * MINUTE, 1)])
        run("settled in the window after", strategy, 100, 1, "minute",
            [(epoch, 80), (epoch + 50 * SECOND, 10), ("adjust", epoch + 70 * SECOND, 0, -40),
             ("adjust", epoch + 70 * SECOND, 1, 20), (epoch + 75 * SECOND, 60), (epoch + 76 * SECOND, 60)])
        run("a clock that is a little behind", strategy, 2, 1, "minute",
            [(epoch, 1), (epoch - SECOND, 1), (epoch - 1, 1), (epoch + MINUTE - 1, 1), (epoch + MINUTE, 1)])
        run("a clock set back by an hour neither frees nor freezes", strategy, 2, 1, "minute",
            [(epoch, 1), (epoch + 20 * SECOND, 1), (epoch + 20 * SECOND - HOUR, 1), (epoch + 59 * SECOND - HOUR, 1),
             (epoch + 60 * SECOND - HOUR, 1), (epoch + 80 * SECOND - HOUR, 1), (epoch + 150 * SECOND - HOUR, 1)])
        run("a clock set forward by mistake, and back", strategy, 1, 1, "minute",
            [(epoch, 1), (epoch + DAY, 1), (epoch + SECOND, 1), (epoch + 60 * SECOND, 1), (epoch + 61 * SECOND, 1)])
        run("large numbers", strategy, 10**15, 100, "year",
            [(epoch, 10**15 - 1), (epoch + 1, 1), (epoch + 1, 1), (epoch + 50 * 360 * DAY, 10**15),
             (epoch + 130 * 360 * DAY, 7 * 10**14), (epoch + 130 * 360 * DAY, 4 * 10**14), (epoch + 199 * 360 * DAY, 10**15)])
        run("a million a day", strategy, 10**6, 1, "day",
            [(epoch + at * HOUR + 1234567, 150000) for at in range(0, 40, 3)])
        rng = random.Random(strategy)
        for number in range(16):
            amount = rng.choice([1, 2, 5, 60, 1000, 16000, 16001, 100000, 10**9])
            multiple, granularity = rng.choice([(1, "second"), (1, "minute"), (2, "minute"), (7, "hour"), (1, "day")])
            steps = random_steps(rng, amount, multiple * WINDOWS[granularity], 40, number % 2)
            if number % 2:  # a ticket from before a jump may mean another time to an implementation
                steps = [step for step in steps if step[0] != "adjust"]
            run(f"random {number}", strategy, amount, multiple, granularity, steps)


main()
