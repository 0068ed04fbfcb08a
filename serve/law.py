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

A driver calls ``offer`` for each item, ``cut`` whenever the engine is free and something changed
(an item came, a hold ended, a batch was done), and ``done`` after each batch.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Hashable

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
from serve._law_plan import fill, plan

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
    """

    def __init__(
        self,
        curve: Curve,
        *,
        slo_s: float,
        max_batch: int | None = None,
        max_items: int | None = None,
    ) -> None:
        self.forecast = Forecast(curve, max_batch)
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
        why = self._admission(now, ticket)
        if why.rule != "room":
            self._arrivals.arrived(now, self.load)
            return self._shed(now, ticket, why)
        insort(self._queues.setdefault(ticket.key, []), ticket, key=_order)
        self._classes[ticket.priority] += 1
        self._waiting += 1
        self._arrivals.arrived(now, self.load)
        return Admitted(why)

    def cancel(self, now: float, ticket: Ticket) -> bool:
        """Forget an item that nobody waits for; False where it no longer waited."""
        queue = self._queues.get(ticket.key, [])
        if ticket not in queue:
            return False
        self._remove([ticket])
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
        every = [each for queue in self._queues.values() for each in queue]
        late = [each for each in every if each.deadline - now < soonest]
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

    def _busy(self, now: float) -> float:
        return max(0.0, self._ends - now) if self._running else 0.0

    def _admission(self, now: float, ticket: Ticket) -> Why:
        """``room``, or why this item must be turned away."""
        busy, slack = self._busy(now), ticket.deadline - now
        if self.max_items is not None and self.load >= self.max_items:
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
        sure = sum(each.deadline - now >= planned for each in queue)
        late = max(0.0, busy - (planned - (ticket.deadline - now)))
        return sure + self._arrivals.rate(now) * late >= self._target

    def _probe(self, now: float, late: list[Ticket]) -> list[Ticket]:
        """Spare the last one where only the correction says that it is late.

        Without this an engine that was slow for a while would never be tried again.
        """
        last = max(late, key=lambda each: each.deadline)
        if last.deadline - now < self.forecast.measured(1):
            return late
        return [each for each in late if each is not last]

    def _choose(self, now: float, queue: list[Ticket]) -> tuple[list[Ticket], list[Ticket], Why]:
        """The batch, what is given up for it, and why."""
        top = [each for each in queue if each.priority == queue[0].priority]
        slacks = [each.deadline - now for each in top]
        demand = self._arrivals.rate(now)
        made = plan(slacks, self.forecast, demand)
        if not made.size:
            return [top[-1]], [], self._why("probe", top[-1:], now, demand)
        batch = top[made.dropped : made.dropped + made.size]
        low = queue[len(top) :]
        if low and made.dropped + made.size == len(top):
            room = batch[0].deadline - now
            chosen = fill(made.size, room, [each.deadline - now for each in low], self.forecast)
            batch += [low[index] for index in chosen]
        return batch, top[: made.dropped], self._why(made.choice, batch, now, demand)

    def _why(self, rule: Rule, batch: list[Ticket], now: float, demand: float) -> Why:
        size = len(batch)
        return Why(
            rule,
            self._waiting,
            size,
            predicted_s=self.forecast.seconds(size),
            slack_s=min(each.deadline for each in batch) - now,
            correction=self.forecast.ratio(size),
            demand=demand,
            rate=self.forecast.rate(size),
        )

    def _worth_waiting(self, now: float, batch: list[Ticket], rule: Rule) -> Wait | None:
        size = len(batch)
        if rule != "all" or size != self._waiting or size >= self.forecast.max_batch:
            return None
        head = min(each.deadline for each in batch)
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
        gone = {id(each) for each in tickets}
        for key in {each.key for each in tickets}:
            self._queues[key] = [each for each in self._queues[key] if id(each) not in gone]
            if not self._queues[key]:
                del self._queues[key]
        self._classes.subtract(each.priority for each in tickets)
        self._waiting -= len(tickets)


def _order(ticket: Ticket) -> tuple[int, float]:
    return ticket.priority, ticket.deadline
