"""Replicas in virtual time: what traffic would meet, and how few replicas are enough.

Pure: nothing sleeps and no clock is read; the time jumps from event to event. Every replica is one
engine behind one ``serve.law.Law``, the class that decides in production, driven as
``serve.batching`` drives it. All that is drawn comes from one seed, so that a run can be repeated.

Requests go to a replica as Ray Serve and HAProxy send them:

``two-choices``  of two replicas at random the one with fewer requests, as Ray's own router does
                 (``ray.serve``'s ``PowerOfTwoChoicesRequestRouter``). The default here: it sees two
                 queues where the other sees all, and is the more cautious assumption.
``least``        the one with the fewest requests of all, in turn where several have as few:
                 ``balance leastconn`` of HAProxy, which takes HTTP where an application has one
                 model.

A request of several items goes to one replica whole, and is answered with its last item; where
one is turned away, the request is, and its other items leave the queue.
"""

# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, fmean
from typing import Literal

from serve.batching import TICK_MIN_S, TICKS
from serve.law import Curve, Cut, Hold, Law, Shed, Ticket
from serve.traces import Request
from specs.profile import Profile

__all__ = ["P99", "Result", "Router", "Service", "Setup", "measured", "play", "smallest"]

Router = Literal["two-choices", "least"]
Service = Callable[[int, random.Random], float]
"""Seconds that a batch of so many items takes, drawn by these dice."""

P99 = 0.99
SOON_S = 1e-9
"""A timer is later than now by so much at least, whatever rounding leaves of a hold."""
Z95, Z99 = NormalDist().inv_cdf(0.95), NormalDist().inv_cdf(P99)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all replicas have in common.

    Args:
        law: makes a replica's own.
        service: what the engine takes.
        router: which replica a request goes to.
        seed: of all dice.
    """

    law: Callable[[], Law]
    service: Service
    router: Router = "two-choices"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a trace with so many replicas. Every request is in one of three counts."""

    replicas: int
    in_time: int
    """Answered before its deadline: its own, or the SLO."""
    late: int
    """Answered after it."""
    shed: int
    """Turned away with 429."""
    mean_ms: float | None
    """From arrival to answer, of what was answered; None: nothing was."""
    p50_ms: float | None
    """By nearest rank."""
    p95_ms: float | None
    p99_ms: float | None
    batch: float
    """Items in a batch, in the mean."""
    busy: float
    """Share of the time that an engine ran, in the mean of all replicas."""
    seconds: float
    """From the first arrival to the end of the last batch, or the last arrival."""

    @property
    def requests(self) -> int:
        """All of them."""
        return self.in_time + self.late + self.shed

    @property
    def goodput(self) -> float:
        """Answers in time per second."""
        return self.in_time / self.seconds if self.seconds else 0.0

    def meets(self, goal: float) -> bool:
        """Whether this is enough.

        That is: a share ``goal`` of all requests was answered in time, and 99 % of the answers
        were. Where no request has a deadline of its own, the latter is: p99 within the SLO.
        """
        answered = self.in_time + self.late
        return self.in_time >= max(_rank(goal, self.requests), _rank(P99, answered))


def measured(profile: Profile, curve: Curve) -> Service:
    """Times drawn from a profile's quantiles, each batch on its own.

    With z standard normal, the logarithm of the time is linear in z between the measured p50
    (z = 0), p95 and p99: a log-normal whose spread differs in the tail. Below the median it is the
    median, and above the p99 the p99: what lies beyond was not measured well enough to be drawn.

    Args:
        profile: of the variant.
        curve: its medians, as serving uses them: which sizes run.
    """
    form = profile.advice.form
    sizes = range(1, curve.max_batch + 1)
    run = [curve.sizes[curve.bucket(size)] if curve.fixed else size for size in sizes]
    spreads = [
        (
            profile.latency_ms(size, "p50", form) / 1000,
            profile.latency_ms(size, "p95", form) / 1000,
            profile.latency_ms(size, "p99", form) / 1000,
        )
        for size in run
    ]

    def draw(size: int, dice: random.Random) -> float:
        return _quantile(spreads[size - 1], dice.gauss(0, 1))

    return draw


def _quantile(spread: tuple[float, float, float], z: float) -> float:
    p50, p95, p99 = spread
    if z <= 0:
        return p50
    if z <= Z95:
        return p50 * (p95 / p50) ** (z / Z95)
    return p95 * (p99 / p95) ** (min(1.0, (z - Z95) / (Z99 - Z95)))


def play(requests: Iterable[Request], replicas: int, setup: Setup) -> Result:
    """Run a trace.

    Args:
        requests: by arrival.
        replicas: how many.
        setup: what they are.
    """
    world = _World(replicas, setup)
    world.run(requests)
    return world.result()


def smallest(passes: Callable[[int], bool], guess: int, most: int) -> int | None:
    """The smallest number from 1 to ``most`` that passes, where all larger ones do, too.

    From the guess in doubled steps until one passes and one does not, then by halving: the number
    below the answer was tried, and did not pass.

    Returns:
        None: not even ``most`` passes.
    """
    low, high, step, at = 0, most + 1, 1, min(max(guess, 1), most)
    while high - low > 1:
        if passes(at):
            high, after = at, at - step
        else:
            low, after = at, at + step
        at = after if low < after < high else (low + high) // 2
        step *= 2
    return high if high <= most else None


@dataclass(eq=False, slots=True)
class _Call:
    """A request that a replica holds."""

    request: Request
    tickets: Sequence[Ticket] = ()
    left: int = 0
    """Items without an answer."""
    refused: bool = False


class _Replica:
    """One engine, its law, and whose items are here."""

    def __init__(self, law: Law, dice: random.Random) -> None:
        self.law = law
        self.dice = dice
        self.calls: dict[Ticket, _Call] = {}
        self.running = False
        self.turn = 0
        """A timer is of the past once this has changed."""
        self.requests = 0
        """Waiting or running."""
        self.batches = 0
        self.items = 0
        self.busy_s = 0.0

    def admit(self, now: float, call: _Call) -> bool:
        """Enter all items of a request; False: they were turned away."""
        bound, request = self.law.max_items, call.request
        if bound is not None and self.law.load + request.items > bound:
            return False  # as ``Batcher.check``, before the law is asked
        entered = [
            self.law.ticket(now, timeout_s=request.timeout_s, priority=request.priority)
            for _ in range(request.items)
        ]
        if isinstance(self.law.offer_all(now, entered), Shed):
            return False
        call.tickets, call.left = entered, len(entered)
        self.calls.update(dict.fromkeys(entered, call))
        self.requests += 1
        return True


class _World:
    """One run; ``play`` is its whole use."""

    def __init__(self, replicas: int, setup: Setup) -> None:
        self._service = setup.service
        self._replicas = [
            _Replica(setup.law(), random.Random(f"engine {setup.seed} {number}"))
            for number in range(replicas)
        ]
        self._route = _ROUTERS[setup.router]
        self._dice = random.Random(f"router {setup.seed}")
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._latencies: list[float] = []
        self._in_time = self._shed = 0
        self._first = self._last = 0.0

    def run(self, requests: Iterable[Request]) -> None:
        """Play all arrivals, and then until the last answer."""
        for number, request in enumerate(requests):
            if not number:
                self._first = request.arrived
            self._until(request.arrived)
            self._arrive(request)
        self._until(math.inf)

    def result(self) -> Result:
        """What came of it."""
        seconds = self._last - self._first
        batches = sum(each.batches for each in self._replicas)
        items = sum(each.items for each in self._replicas)
        busy_s = sum(each.busy_s for each in self._replicas)
        self._latencies.sort()
        return Result(
            replicas=len(self._replicas),
            in_time=self._in_time,
            late=len(self._latencies) - self._in_time,
            shed=self._shed,
            mean_ms=1000 * fmean(self._latencies) if self._latencies else None,
            p50_ms=self._ms(0.5),
            p95_ms=self._ms(0.95),
            p99_ms=self._ms(P99),
            batch=items / batches if batches else 0.0,
            busy=busy_s / len(self._replicas) / seconds if seconds else 0.0,
            seconds=seconds,
        )

    def _ms(self, share: float) -> float | None:
        count = len(self._latencies)
        return 1000 * self._latencies[_rank(share, count) - 1] if count else None

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def _until(self, time: float) -> None:
        """Play what was due before; of what falls together, an engine is free first."""
        while self._events and self._events[0][0] <= time:
            now, _, event = heapq.heappop(self._events)
            event(now)

    def _arrive(self, request: Request) -> None:
        now, call = request.arrived, _Call(request)
        self._last = max(self._last, now)
        replica = self._route(self._replicas, self._dice)
        if not replica.admit(now, call):
            self._shed += 1
        elif not replica.running:
            self._ask(replica, now)

    def _ask(self, replica: _Replica, now: float) -> None:
        replica.turn += 1
        decision = replica.law.cut(now)
        for shed in decision.dropped:
            self._refuse(replica, now, shed.ticket)
        if isinstance(decision, Cut):
            self._start(replica, now, decision.batch)
        elif isinstance(decision, Hold):
            later = max(decision.until, now + SOON_S)
            self._at(later, partial(self._timer, replica, replica.turn))

    def _timer(self, replica: _Replica, turn: int, now: float) -> None:
        if turn == replica.turn:
            self._ask(replica, now)

    def _start(self, replica: _Replica, now: float, batch: tuple[Ticket, ...]) -> None:
        seconds = self._service(len(batch), replica.dice)
        replica.running = True
        replica.batches += 1
        replica.items += len(batch)
        replica.busy_s += seconds
        self._at(now + seconds, partial(self._finish, replica, batch, seconds))
        expected = replica.law.forecast.seconds(len(batch))
        if expected < seconds:
            self._at(now + expected, partial(self._overdue, replica, replica.turn))

    def _overdue(self, replica: _Replica, turn: int, now: float) -> None:
        """The batch takes longer than expected: nobody waits past the deadline to be told."""
        if turn != replica.turn:
            return
        for shed in replica.law.expire(now):
            self._refuse(replica, now, shed.ticket)
        every = max(TICK_MIN_S, replica.law.slo_s / TICKS)
        self._at(now + every, partial(self._overdue, replica, turn))

    def _finish(
        self, replica: _Replica, batch: tuple[Ticket, ...], seconds: float, now: float
    ) -> None:
        replica.running = False
        self._last = max(self._last, now)
        for ticket in batch:
            call = replica.calls.pop(ticket)
            call.left -= 1
            if not call.left and not call.refused:
                self._answer(replica, now, call, ticket)
        replica.law.done(now, batch, seconds)
        self._ask(replica, now)

    def _answer(self, replica: _Replica, now: float, call: _Call, ticket: Ticket) -> None:
        replica.requests -= 1
        self._latencies.append(now - call.request.arrived)
        self._in_time += now <= ticket.deadline

    def _refuse(self, replica: _Replica, now: float, ticket: Ticket) -> None:
        """One item was turned away: the request is, and what waits of it leaves."""
        call = replica.calls.pop(ticket)
        if call.refused:
            return
        call.refused = True
        replica.requests -= 1
        self._shed += 1
        for each in call.tickets:
            if replica.law.cancel(now, each):
                replica.calls.pop(each)


def _rank(share: float, count: int) -> int:
    """Nearest rank of a quantile, from 1 to ``count``."""
    return math.ceil(round(share * count, 6))  # 0.07 * 100 is 7.000000000000001


def _two_choices(replicas: Sequence[_Replica], dice: random.Random) -> _Replica:
    """As Ray's: equally likely pairs, and of equals the first.

    Ray passes over a replica that holds ``max_ongoing_requests``; the law turns away before that.
    """
    if len(replicas) == 1:
        return replicas[0]
    one, other = dice.sample(replicas, 2)
    return one if one.requests <= other.requests else other


def _least(replicas: Sequence[_Replica], dice: random.Random) -> _Replica:
    """As HAProxy's leastconn: in turn, for which any of them at random stands."""
    fewest = min(each.requests for each in replicas)
    return dice.choice([each for each in replicas if each.requests == fewest])


_ROUTERS: dict[Router, Callable[[Sequence[_Replica], random.Random], _Replica]] = {
    "two-choices": _two_choices,
    "least": _least,
}
