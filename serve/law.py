"""The batching law: what rides in the next batch of one engine, when, and what is turned away.

Pure: no clock, no threads, no event loop. Every call is given the time, so that the same code runs
in a replica and in a simulation. Times are seconds of one clock; curves are in milliseconds.

1. Late binding: a batch is cut when the engine is free, from all that has arrived by then.
2. Every item has a deadline, and the earliest goes first, the higher class before the lower. The
   measured curve is corrected online by an upper quantile of observed over predicted.
3. The largest batch whose head still meets its deadline; where that would be too small for what
   arrives, the start and the size with the most on-time answers per second of engine time.
4. What cannot be answered in time is turned away, at once where that is known at once.
5. A batch is held open only while the engine time that one more member would save, times the
   chance that it comes, exceeds the delay to those held.

A driver calls ``offer`` for each item (``offer_all`` for several that come at once), ``cut``
whenever the engine is free and something changed (an item came, a hold ended, a batch was done),
and ``done`` after each batch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from operator import attrgetter, is_

from serve._law_arrivals import Arrivals, Wait
from serve._law_curve import Curve, Forecast, capacity
from serve._law_decisions import (
    Admitted,
    Cut,
    Decision,
    Hold,
    Idle,
    Rule,
    Shed,
    Ticket,
    Why,
)
from serve._law_plan import Slacks, fill, plan

__all__ = [
    "Admitted",
    "Curve",
    "Cut",
    "Decision",
    "Hold",
    "Idle",
    "Law",
    "Shed",
    "Ticket",
    "Why",
    "capacity",
]

_DEADLINE, _KEY, _PRIORITY = map(attrgetter, ("deadline", "key", "priority"))
WINDOW_SLOS = 2
"""Demand is counted over so many SLOs: long enough to tell 97 % of capacity from 120 %, short
enough to see a burst."""


class Law:
    """The policy in front of one engine slot.

    Args:
        curve: what the engine was measured to take.
        slo_s: usual time that an answer may take, seconds.
        max_batch: a smaller limit than the curve's, where the user set one.
        max_items: most items that wait or run at once; None: deadlines alone bound the queue.
        worth: for ``Forecast``.
    """

    def __init__(
        self,
        curve: Curve,
        *,
        slo_s: float,
        max_batch: int | None = None,
        max_items: int | None = None,
        worth: Callable[[int], float] = lambda _: 1.0,
    ) -> None:
        self.forecast = Forecast(curve, max_batch, worth)
        self.slo_s = slo_s
        self.max_items = max_items
        self._arrivals = Arrivals(WINDOW_SLOS * slo_s)
        self._queues: dict[Hashable, list[Ticket]] = {}
        self._classes: Counter[int] = Counter()
        self._waiting = 0
        self._running = 0
        self._ends = 0.0
        self._target = 0

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return self._waiting

    @property
    def load(self) -> int:
        """Items that wait or run."""
        return self._waiting + self._running

    def adjust(self, *, slo_s: float, max_batch: int, max_items: int | None) -> None:
        """Go on with other limits; what waits keeps its deadlines, what was learned stays."""
        self.slo_s, self.max_items = slo_s, max_items
        self.forecast.limit(max_batch)
        self._arrivals.window_s = WINDOW_SLOS * slo_s

    def ticket(
        self, now: float, *, key: Hashable = None, timeout_s: float | None = None, priority: int = 0
    ) -> Ticket:
        """A ticket whose deadline is the caller's own, or else the SLO."""
        allowed = self.slo_s if timeout_s is None else timeout_s
        return Ticket(now, now + allowed, key, priority)

    def offer(self, now: float, ticket: Ticket) -> Admitted | Shed:
        """Take an item in, or turn it away at once."""
        return self.offer_all(now, [ticket])

    def offer_all(self, now: float, tickets: Sequence[Ticket]) -> Admitted | Shed:
        """Take in items of one request, alike in key, deadline and class, or turn away all.

        One ticket may stand for several of them, so many times in the list. They are one arrival
        of so many: when the next request comes, they do not tell.
        """
        first, count = tickets[0], len(tickets)
        why = self._admission(now, first, count)
        if why.rule != "room":
            self._arrivals.arrived(now, self.load, count)
            return self._shed(now, first, why)
        queue = self._queues.setdefault(first.key, [])
        if count == 1:
            insort(queue, first, key=_order)
        else:
            place = bisect_right(queue, _order(first), key=_order)
            queue[place:place] = tickets
        self._classes[first.priority] += count
        self._waiting += count
        self._arrivals.arrived(now, self.load, count)
        return Admitted(why)

    def over_bound(self, now: float, ticket: Ticket, count: int) -> Shed | None:
        """Turn away items alike where the bound alone says so, without taking the others in."""
        why = self._admission(now, ticket, count)
        return self._shed(now, ticket, why) if why.rule == "bound" else None

    def cancel(self, now: float, ticket: Ticket) -> bool:
        """Forget all that waits under a ticket; False where nothing does any more."""
        count = self._queues.get(ticket.key, []).count(ticket)
        if not count:
            return False
        self._remove([ticket] * count)
        self._arrivals.left(now, self.load)
        return True

    def cut(self, now: float) -> Decision:
        """What to do now that the engine is free.

        Raises:
            RuntimeError: a batch is running; ``done`` was not called for it.
        """
        if self._running:
            raise RuntimeError(f"a batch of {self._running} is running: call done() first")
        dropped = self.expire(now)
        if not self._waiting:
            return Idle(dropped, Why("empty", 0))
        queue = min(self._queues.values(), key=lambda queue: _order(queue[0]))
        batch, given_up, why = self._choose(now, queue)
        if wait := self._worth_waiting(now, batch, why.rule):
            held = Why("hold", self._waiting, len(batch), slack_s=why.slack_s, wait=wait)
            return Hold(now + wait.seconds, dropped, held)
        self._target = len(batch) if why.rule == "overload" else 0
        dropped += self._drop(now, given_up, "given_up")
        self._start(now, batch)
        return Cut(tuple(batch), dropped, why)

    def expire(self, now: float) -> tuple[Shed, ...]:
        """Turn away what can no longer be answered in time.

        ``cut`` does this too; a driver calls it while a batch takes longer than expected, so that
        nobody waits past the deadline to be told.
        """
        soonest = self._busy(now) + self.forecast.seconds(1)
        late = [each for queue in self._queues.values() for each in _late(queue, now, soonest)]
        if late and len(late) == self._waiting and not self._running:
            late = self._probe(now, late)
        return self._drop(now, late, "expired")

    def done(self, now: float, batch: tuple[Ticket, ...], seconds: float | None) -> None:
        """A batch has left the engine.

        Args:
            now: seconds.
            batch: as it was cut.
            seconds: time it took; None where it failed, which teaches nothing.
        """
        if seconds is not None:
            self.forecast.learn(len(batch), seconds)
        self._running = 0
        self._arrivals.left(now, self.load)

    def retry_after_s(self, now: float) -> float:
        """Seconds until all that waits or runs should be done, at the best rate."""
        return self._busy(now) + self._waiting / self.forecast.capacity(self.slo_s)

    def foresee(
        self, now: float, ticket: Ticket, coming: int = 0, ready_s: float = 0.0
    ) -> Shed | None:
        """Turn away an item that is still to be made, where all before it leaves no time for it.

        ``offer`` lets in more than can be computed in time, since the best batches are found among
        many; where making an item costs something, what will be given up should not be made.

        Args:
            now: seconds.
            ticket: as it would be offered.
            coming: items that are being made now, and come before it.
            ready_s: seconds until it is made.
        """
        busy, slack = self._busy(now), ticket.deadline - now
        ahead = coming + sum(_before(queue, ticket) for queue in self._queues.values())
        size = self.forecast.best(max(1, self.forecast.fits(self.slo_s / 2)))
        whole, rest = divmod(ahead, size)
        soonest = busy + whole * self.forecast.seconds(size) + self.forecast.seconds(rest + 1)
        soonest = max(soonest, ready_s + self.forecast.seconds(1))
        if soonest <= slack or not self.load + coming:
            return None
        self._arrivals.arrived(now, self.load)
        return self._shed(now, ticket, Why("backlog", ahead, predicted_s=soonest, slack_s=slack))

    def _busy(self, now: float) -> float:
        return max(0.0, self._ends - now) if self._running else 0.0

    def _admission(self, now: float, ticket: Ticket, count: int = 1) -> Why:
        """``room``, or why so many items like this one must be turned away."""
        busy, slack = self._busy(now), ticket.deadline - now
        if self.max_items is not None and self.load + count > self.max_items:
            return Why("bound", self._waiting, predicted_s=busy, slack_s=slack)
        if not self.load:
            return Why("room", 0, slack_s=slack)
        ahead = self._ahead(ticket) / self.forecast.capacity(self.slo_s)
        soonest = busy + ahead + self.forecast.seconds(1)
        if soonest > slack:
            return Why("busy", self._waiting, predicted_s=soonest, slack_s=slack)
        if self._outrun(now, ticket, busy):
            planned = busy + self.forecast.seconds(self._target)
            return Why("outrun", self._waiting, self._target, planned, slack)
        return Why("room", self._waiting, predicted_s=soonest, slack_s=slack)

    def _ahead(self, ticket: Ticket) -> int:
        """Items of higher classes: none of them is given up for this one."""
        return sum(n for priority, n in self._classes.items() if priority < ticket.priority)

    def _outrun(self, now: float, ticket: Ticket, busy: float) -> bool:
        """Whether enough later items will come to fill a batch that this one would hold back.

        Under overload the best batches are larger than the first arrivals since the last cut can
        wait for. They would be given up when the batch is bound, so they are told now.
        """
        if not self._target or not busy:
            return False
        planned = busy + self.forecast.seconds(self._target)
        if ticket.deadline - now >= planned:
            return False
        queue = self._queues.get(ticket.key, ())
        alike = self._classes[ticket.priority]
        if min(alike, len(queue)) < self._waiting:
            return False  # the next batch may be another key's or class's: left to binding
        sure = len(queue) - bisect_left(queue, planned, key=lambda each: each.deadline - now)
        late = max(0.0, busy - (planned - (ticket.deadline - now)))
        return sure + self._arrivals.rate(now) * late >= self._target

    def _probe(self, now: float, late: list[Ticket]) -> list[Ticket]:
        """Spare the last one where only the correction says that it is late.

        Without this an engine that was slow for a while would never be tried again.
        """
        last = max(late, key=lambda each: each.deadline)
        if last.deadline - now < self.forecast.measured(1):
            return late
        spared = late.index(last)
        return late[:spared] + late[spared + 1 :]

    def _choose(self, now: float, queue: list[Ticket]) -> tuple[list[Ticket], list[Ticket], Why]:
        """The batch, what is given up for it, and why."""
        top = _end_of_class(queue, 0)
        demand = self._arrivals.rate(now)
        made = plan(Slacks(queue, top, now), self.forecast, demand)
        if not made.size:
            last = queue[top - 1]
            return [last], [], self._why("probe", [last], now, demand)
        end = made.dropped + made.size
        batch = queue[made.dropped : end]
        if end == top < len(queue):
            low, room = queue[top:], batch[0].deadline - now
            chosen = fill(made.size, room, [each.deadline - now for each in low], self.forecast)
            batch += [low[index] for index in chosen]
        return batch, queue[: made.dropped], self._why(made.choice, batch, now, demand)

    def _why(self, rule: Rule, batch: list[Ticket], now: float, demand: float) -> Why:
        size = len(batch)
        return Why(
            rule,
            self._waiting,
            size,
            predicted_s=self.forecast.seconds(size),
            slack_s=min(map(_DEADLINE, batch)) - now,
            correction=self.forecast.ratio(size),
            demand=demand,
            rate=self.forecast.rate(size),
        )

    def _worth_waiting(self, now: float, batch: list[Ticket], rule: Rule) -> Wait | None:
        size = len(batch)
        if rule != "all" or size != self._waiting or size >= self.forecast.max_batch:
            return None
        head = min(map(_DEADLINE, batch))
        most = head - now - self.forecast.seconds(size + 1)
        return self._arrivals.wait(now, size, self.forecast.saving(size), most)

    def _start(self, now: float, batch: list[Ticket]) -> None:
        self._remove(batch)
        self._running = len(batch)
        self._ends = now + self.forecast.seconds(len(batch))

    def _drop(self, now: float, tickets: list[Ticket], rule: Rule) -> tuple[Shed, ...]:
        if not tickets:
            return ()
        self._remove(tickets)
        self._arrivals.left(now, self.load)
        return tuple(
            self._shed(now, each, Why(rule, self._waiting, slack_s=each.deadline - now))
            for each in tickets
        )

    def _shed(self, now: float, ticket: Ticket, why: Why) -> Shed:
        return Shed(ticket, self.retry_after_s(now), why)

    def _remove(self, tickets: list[Ticket]) -> None:
        for key in set(map(_KEY, tickets)):
            queue = self._queues[key]
            if not _cut_out(queue, tickets):
                gone = Counter(map(id, tickets))
                queue[:] = [each for each in queue if not _counted_off(gone, id(each))]
            if not queue:
                del self._queues[key]
        self._classes.subtract(Counter(map(_PRIORITY, tickets)))
        self._waiting -= len(tickets)


def _order(ticket: Ticket) -> tuple[int, float]:
    return ticket.priority, ticket.deadline


def _end_of_class(queue: list[Ticket], start: int) -> int:
    """Where the class of the ticket at ``start`` ends."""
    last = queue[-1].priority
    if last == queue[start].priority:
        return len(queue)
    return bisect_right(queue, queue[start].priority, lo=start, key=lambda each: each.priority)


def _before(queue: list[Ticket], ticket: Ticket) -> int:
    """How many go before a ticket that is not in the queue."""
    if _order(queue[-1]) <= _order(ticket):
        return len(queue)
    return bisect_right(queue, _order(ticket), key=_order)


def _late(queue: list[Ticket], now: float, soonest: float) -> Iterator[Ticket]:
    """Those whose deadline is nearer than ``soonest``: each class begins with its own."""
    start = 0
    while start < len(queue):
        end = _end_of_class(queue, start)
        for index in range(start, end):
            if queue[index].deadline - now >= soonest:
                break
            yield queue[index]
        start = end


def _counted_off(counts: Counter[int], what: int) -> bool:
    """Whether there is one left to count off."""
    left = counts.get(what, 0)
    if left:
        counts[what] = left - 1
    return left > 0


def _cut_out(queue: list[Ticket], tickets: Sequence[Ticket]) -> bool:
    """Remove tickets that lie side by side, in this order, as most batches do; else False."""
    start = bisect_left(queue, _order(tickets[0]), key=_order)
    while start < len(queue) and queue[start] is not tickets[0]:
        start += 1
    end = start + len(tickets)
    if end > len(queue) or not all(map(is_, queue[start:end], tickets)):
        return False
    del queue[start:end]
    return True
