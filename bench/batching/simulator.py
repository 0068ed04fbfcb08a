"""One engine slot, a batcher in front of it, and requests, in virtual time.

Nothing sleeps and no clock is read: the time jumps from event to event. The batcher is asked
through three calls, so that the production class and its rivals see the same world.
"""

# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serve.law import Ticket

__all__ = ["Batcher", "Closed", "Engine", "Job", "Length", "Open", "Outcome", "Traffic", "simulate"]


@dataclass(eq=False, slots=True)
class Job(Ticket):
    """One request."""

    client: int = -1
    """Which of a closed loop's clients sent it; -1: none."""


class Batcher(Protocol):
    """What stands in front of the engine."""

    def offer(self, now: float, job: Job) -> bool:
        """Take a request; False: turned away."""
        ...

    def cut(self, now: float) -> tuple[Sequence[Job], Sequence[Job], float | None]:
        """The engine is free: what to run now, what is turned away, when to ask again."""
        ...

    def done(self, now: float, batch: Sequence[Job], seconds: float) -> None:
        """A batch is done and took so long."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """Takes ``seconds(size)``, times ``slower`` from ``at`` on, times lognormal jitter."""

    seconds: Callable[[int], float]
    jitter: float = 0.02
    """Standard deviation of the logarithm."""
    slower: float = 1.0
    at: float = 0.0

    def run(self, size: int, now: float, dice: random.Random) -> float:
        """Time that a batch started now takes."""
        factor = self.slower if now >= self.at else 1.0
        return self.seconds(size) * factor * dice.lognormvariate(0, self.jitter)


@dataclass(frozen=True, slots=True)
class Open:
    """Poisson arrivals of a rate that may change with time.

    Args:
        rate: arrivals per second at a time.
        top: the largest that ``rate`` gives.
        timeouts: seconds that an answer may take; each request draws one.
    """

    rate: Callable[[float], float]
    top: float
    timeouts: tuple[float, ...]

    def jobs(self, seconds: float, dice: random.Random) -> Iterator[Job]:
        """Arrivals by thinning: exponential gaps at the top rate, kept by rate over top."""
        now = 0.0
        while (now := now + dice.expovariate(self.top)) < seconds:
            if dice.random() * self.top < self.rate(now):
                yield Job(now, now + dice.choice(self.timeouts))


@dataclass(frozen=True, slots=True)
class Closed:
    """Clients that each wait for an answer, and send the next one a moment later."""

    clients: int
    timeout: float
    think: float
    """Mean of the exponential time between an answer and the next request, seconds."""


Traffic = Open | Closed


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is, virtual seconds; what arrives during the warm-up does not count."""

    warm_up: float
    seconds: float

    @property
    def whole(self) -> float:
        """Both."""
        return self.warm_up + self.seconds


@dataclass(slots=True)
class Outcome:
    """What became of the requests that count: those that arrived from ``begin`` to ``end``."""

    begin: float
    end: float
    good: int = 0
    late: int = 0
    shed: int = 0
    batches: int = 0
    items: int = 0
    latencies: list[float] = field(default_factory=list[float])

    @property
    def goodput(self) -> float:
        """Answers in time per second."""
        return self.good / (self.end - self.begin)

    def answered(self, now: float, job: Job) -> None:
        """Count an answer."""
        if self.begin <= job.arrived < self.end:
            self.latencies.append(now - job.arrived)
            if now <= job.deadline:
                self.good += 1
            else:
                self.late += 1

    def refused(self, job: Job) -> None:
        """Count a request that was turned away."""
        if self.begin <= job.arrived < self.end:
            self.shed += 1


BACK_OFF_S = 0.005
"""A closed loop's client that was turned away tries again after this."""


class Simulation:
    """One run; ``simulate`` is its whole use."""

    def __init__(self, batcher: Batcher, engine: Engine, seed: int, outcome: Outcome) -> None:
        self._batcher = batcher
        self._engine = engine
        self._engine_dice = random.Random(f"engine {seed}")
        self._dice = random.Random(f"traffic {seed}")
        self._outcome = outcome
        self._arrivals: Iterator[Job] = iter(())
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._busy = False
        self._closed: Closed | None = None
        self._asked = -1

    def run(self, traffic: Traffic) -> None:
        """Play all arrivals, and then until the last answer."""
        if isinstance(traffic, Closed):
            self._closed = traffic
            for client in range(traffic.clients):
                self._next(0.0, client)
        else:
            self._arrivals = traffic.jobs(self._outcome.end, self._dice)
            self._schedule_arrival()
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def _schedule_arrival(self) -> None:
        job = next(self._arrivals, None)
        if job is not None:
            self._at(job.arrived, lambda now: self._next_arrives(now, job))

    def _next_arrives(self, now: float, job: Job) -> None:
        self._schedule_arrival()
        self._arrive(now, job)

    def _arrive(self, now: float, job: Job) -> None:
        if not self._batcher.offer(now, job):
            self._refuse(now, job)
        elif not self._busy:
            self._ask(now)

    def _ask(self, now: float) -> None:
        if self._busy:
            return
        batch, dropped, again = self._batcher.cut(now)
        for job in dropped:
            self._refuse(now, job)
        if batch:
            self._start(now, batch)
        elif again is not None:
            self._asked += 1
            turn = self._asked
            self._at(max(again, now + 1e-9), lambda then: self._timer(then, turn))

    def _timer(self, now: float, turn: int) -> None:
        """Ask again, unless a later answer has replaced this one."""
        if turn == self._asked:
            self._ask(now)

    def _start(self, now: float, batch: Sequence[Job]) -> None:
        self._busy = True
        self._asked += 1
        self._outcome.batches += 1
        self._outcome.items += len(batch)
        seconds = self._engine.run(len(batch), now, self._engine_dice)
        self._at(now + seconds, lambda then: self._finish(then, batch, seconds))

    def _finish(self, now: float, batch: Sequence[Job], seconds: float) -> None:
        self._busy = False
        for job in batch:
            self._outcome.answered(now, job)
            self._next(now, job.client)
        self._batcher.done(now, batch, seconds)
        self._ask(now)

    def _refuse(self, now: float, job: Job) -> None:
        self._outcome.refused(job)
        self._next(now + BACK_OFF_S, job.client)

    def _next(self, now: float, client: int) -> None:
        """A closed loop's client sends its next request, until the run's end."""
        loop = self._closed
        if loop is None:
            return
        time = now + self._dice.expovariate(1 / loop.think)
        if time < self._outcome.end:
            job = Job(time, time + loop.timeout, client)
            self._at(time, lambda then: self._arrive(then, job))


def simulate(
    batcher: Batcher, engine: Engine, traffic: Traffic, length: Length, seed: int
) -> Outcome:
    """Run one scenario.

    Arrivals and the engine's jitter are drawn from ``seed`` alone, so that every batcher meets the
    same open traffic.
    """
    outcome = Outcome(length.warm_up, length.whole)
    Simulation(batcher, engine, seed, outcome).run(traffic)
    return outcome
