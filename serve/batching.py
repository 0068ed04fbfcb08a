"""Batches in front of one engine: ``serve.law`` decides, this runs. Plain asyncio, no Ray.

The law is asked whenever the engine is free and something changed. A batch that fails is halved
until the item that breaks it stands alone; an engine that does not come back is told of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

from serve._group import Done, Group
from serve._parts import Part, Waiting, chosen, halves, listed
from serve._refusals import ClosedError, OverloadError, StuckError, overload
from serve.course import Ride
from serve.law import Cut, Decision, Hold, Idle, Law, Shed, Ticket
from specs.errors import ServeError

__all__ = [
    "Batcher",
    "ClosedError",
    "Done",
    "OverloadError",
    "StuckError",
    "Watcher",
    "hang_s",
]

In = TypeVar("In")
Out = TypeVar("Out")

HANG_S = 10.0
"""A batch may take so long, however short it was expected to be."""
HANG_TIMES = 20
"""And so many times what was expected, where that is longer."""
TICKS = 20
"""While a batch overruns, those that wait are looked at so many times per SLO."""
TICK_MIN_S = 0.005


class Watcher(Protocol):
    """Is told what happens; must not raise. Times in seconds of the batcher's clock."""

    def decided(self, now: float, decision: Decision | Shed) -> None:
        """The law cut, held, idles, or turned an item away at admission."""
        ...

    def computed(self, size: int, seconds: float) -> None:
        """The engine ran a batch."""
        ...


def hang_s(expected_s: float) -> float:
    """Seconds after which an engine counts as hung, where a batch was expected to take less."""
    return max(HANG_S, HANG_TIMES * expected_s)


class Batcher(Generic[In, Out]):
    """Groups single items into batches for one engine.

    Args:
        run: computes a batch; gives one output per item, in order. Called once at a time.
        law: decides; no other driver may use it.
        key: items share a batch only where this is equal (their shapes, for instance). It is asked
            once for a sequence of items that has an attribute ``alike`` which is true.
        join: puts sequences of items, or of outputs, one behind the other.
        clock: seconds, monotonic. Timers are the event loop's own.
        watcher: is told of every decision and every batch.
        hang: seconds after which a batch counts as hung, by its expected time.
        grain_s: what the event loop's timers can tell apart. A shorter hold is spent on turns of
            the loop: rounded up, it would often cost more than it saves.
    """

    def __init__(  # noqa: PLR0913 - most have a value that only tests change
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        law: Law,
        *,
        key: Callable[[In], Hashable] = lambda _: None,
        join: Callable[[Sequence[Sequence[Any]]], Sequence[Any]] = listed,
        clock: Callable[[], float] = time.perf_counter,
        watcher: Watcher | None = None,
        hang: Callable[[float], float] = hang_s,
        grain_s: float = 0.0,
    ) -> None:
        self.law = law
        self._run = run
        self._key = key
        self._join = join
        self._clock = clock
        self._watcher = watcher
        self._hang = hang
        self._grain_s = grain_s
        self._waiting: dict[Ticket, Waiting[In, Out]] = {}
        self._running: list[Part[In, Out]] = []
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed, self._stuck = False, ""

    @property
    def load(self) -> int:
        """Items that wait or run now."""
        return self.law.load

    @property
    def stuck(self) -> bool:
        """Whether the engine hangs."""
        return bool(self._stuck)

    def check(self, items: int = 1) -> None:
        """Raise where ``items`` more would surely not be taken.

        Raises:
            ClosedError: the batcher is closed.
            StuckError: the engine hangs.
            OverloadError: the bound on items would be exceeded.
        """
        if self._closed:
            raise ClosedError("this replica is shutting down", hint="try again in a second")
        self.check_engine()
        now = self._clock()
        if shed := self.law.over_bound(now, self.law.ticket(now), items):
            self._tell(now, shed)
            bound = self.law.max_items
            raise self.overload(
                f"{self.load} items are waiting or running, and {bound} are allowed"
            )

    def check_engine(self) -> None:
        """Raise StuckError where the engine hangs."""
        if self._stuck:
            raise StuckError(self._stuck, hint="the replica is being replaced: try again soon")

    def foresee(self, deadline: float, priority: int, coming: int, ready_s: float) -> None:
        """Raise OverloadError where an item that is still to be made will be late.

        Args:
            deadline: in the clock's seconds.
            priority: its class.
            coming: items that are being made, and come before it.
            ready_s: seconds until it is made.
        """
        now = self._clock()
        ticket = self.law.ticket(now, timeout_s=deadline - now, priority=priority)
        if shed := self.law.foresee(now, ticket, coming, ready_s):
            self._tell(now, shed)
            raise overload(str(shed.why), shed.retry_after_s)

    def overload(self, why: str) -> OverloadError:
        """The error that turns an item away now."""
        return overload(why, self.law.retry_after_s(self._clock()))

    async def submit(
        self,
        items: Sequence[In],
        *,
        timeout_s: float | None = None,
        priority: int = 0,
        label: object = None,
    ) -> Done[Out]:
        """Compute ``items``; they may ride in different batches, with those of other callers.

        Args:
            items: what ``run`` takes; at least one.
            timeout_s: seconds that this may take; by default the law's SLO.
            priority: the class; lower goes first.
            label: for ``Ride.labels``.

        Raises:
            ValueError: there are no items.
            OverloadError: one of them cannot be computed in time; the others are given up, too.
            ClosedError: the batcher is closed.
            StuckError: the engine hangs.
            Exception: what ``run`` raised for one of the items.
        """
        if not items:
            raise ValueError("no items to compute")
        self.check(len(items))
        group: Group[Out] = Group(len(items), self._clock(), label, self._join)
        entries: list[Waiting[In, Out]] = []
        try:
            for key, indices in self._alike(items).items():
                now, own = self._clock(), chosen(items, indices)
                ticket = self.law.ticket(now, key=key, timeout_s=timeout_s, priority=priority)
                self._enter(entry := Waiting(own, indices, ticket, group))
                entries.append(entry)
            self._wake()
            return await group.future
        finally:
            self._leave(group, entries)

    async def close(self) -> None:
        """Take nothing new and return once all that was taken is answered, or the engine hangs."""
        self._closed = True
        while self._worker is not None and not self._worker.done() and not self._stuck:
            await asyncio.wait({self._worker}, timeout=TICK_MIN_S)

    def _alike(self, items: Sequence[In]) -> dict[Hashable, Sequence[int]]:
        """Indices of the items by key, in order of first appearance."""
        if getattr(items, "alike", False):
            return {self._key(items[0]): range(len(items))}
        found: dict[Hashable, list[int]] = {}
        for index, item in enumerate(items):
            found.setdefault(self._key(item), []).append(index)
        if len(found) == 1:
            return dict.fromkeys(found, range(len(items)))
        return {**found}

    def _enter(self, entry: Waiting[In, Out]) -> None:
        """Queue those items of a call that have the same key."""
        now = self._clock()
        answer = self.law.offer_all(now, [entry.ticket] * len(entry.items))
        if isinstance(answer, Shed):
            self._tell(now, answer)
            raise overload(str(answer.why), answer.retry_after_s)
        self._waiting[entry.ticket] = entry

    def _leave(self, group: Group[Out], entries: list[Waiting[In, Out]]) -> None:
        """Forget what the caller no longer waits for: it went away, or one item failed."""
        complete = group.complete
        group.leave()
        for entry in () if complete else entries:
            if self._waiting.pop(entry.ticket, None):
                self.law.cancel(self._clock(), entry.ticket)
                self._changed.set()  # a batch that is held may be complete without it

    def _taken(self, ticket: Ticket, count: int) -> Part[In, Out]:
        """So many items of a ticket, which wait no longer."""
        entry = self._waiting[ticket]
        part = entry.take(count)
        if entry.next == len(entry.items):
            del self._waiting[ticket]
        return part

    def _wake(self) -> None:
        self._changed.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            await self._drive()
        except Exception as error:  # a fault of ours: nobody may wait for ever because of it
            self._fail(error)
            raise

    async def _drive(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock()
            decision = self.law.cut(now)
            self._tell(now, decision)
            self._refuse(decision.dropped)
            match decision:
                case Idle():
                    return  # the next item starts another worker
                case Hold(until=until):
                    await self._hold(until - now)
                case Cut():
                    await self._batch(decision, now)

    async def _hold(self, seconds: float) -> None:
        """Until the time is over or an item comes or leaves."""
        end = self._clock() + seconds
        if seconds < self._grain_s:
            while self._clock() < end and not self._changed.is_set():  # noqa: ASYNC110 - no timer is that fine
                await asyncio.sleep(0)
            return
        timer = asyncio.get_running_loop().call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _batch(self, cut: Cut, now: float) -> None:
        runs = [(ticket, len(list(same))) for ticket, same in groupby(cut.batch)]
        self._running = [self._taken(ticket, count) for ticket, count in runs]
        computed = False
        try:
            computed = await self._compute(self._running, cut, now)
        finally:
            self._running = []
            ended = self._clock()
            learnt = computed and ended > now  # a coarse clock may see no time pass
            self.law.done(ended, cut.batch, ended - now if learnt else None)

    async def _compute(self, batch: list[Part[In, Out]], cut: Cut, started: float) -> bool:
        """Run a batch; halve it where it fails, so that a bad item fails alone.

        Returns whether it did not fail.
        """
        began, size = self._clock(), sum(map(len, batch))
        try:
            outputs = await self._outputs(batch, size)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the item
            await self._halve(batch, cut, started, error)
            return False
        labels = tuple(part.group.label for part in batch)
        most = min(size, self.law.forecast.at_once)
        ride = Ride(started, began, self._clock(), cut.why, labels, most)
        self._computed(size, ride.ended - began)
        first = 0
        for part in batch:
            part.done(outputs[first : first + len(part)] if len(batch) > 1 else outputs, ride)
            first += len(part)
        return True

    async def _outputs(self, batch: list[Part[In, Out]], size: int) -> Sequence[Out]:
        self._watch(self._clock(), self.law.forecast.seconds(size))
        try:
            outputs = await self._run(self._join([part.items() for part in batch]))
        finally:
            self._unwatch()
        if len(outputs) != size:
            raise ServeError(f"the engine gave {len(outputs)} outputs for {size} items")
        return outputs

    def _computed(self, size: int, seconds: float) -> None:
        """Tell of each batch that the engine ran."""
        if self._watcher is None:
            return
        most = self.law.forecast.at_once
        for start in range(0, size, most):
            own = min(most, size - start)
            self._watcher.computed(own, seconds * own / size)

    async def _halve(
        self, batch: list[Part[In, Out]], cut: Cut, started: float, error: Exception
    ) -> None:
        wanted = [part for part in batch if not part.group.over]
        size = sum(map(len, batch))
        if size == 1:
            for part in wanted:
                part.group.fail(error)
            return
        for half in halves(wanted):
            if half:
                await self._compute(half, cut, started)

    def _watch(self, since: float, expected_s: float) -> None:
        """Look after a run of the engine: from its expected end on, again and again."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(expected_s, self._tick, since, self._hang(expected_s))

    def _tick(self, since: float, bound_s: float) -> None:
        """The run is late: nobody waits past the deadline to be told, nor for a hung engine."""
        now = self._clock()
        late = self.law.expire(now)
        self._refuse(late)
        for shed in late:
            self._tell(now, shed)
        if now - since > bound_s:
            self._give_up(now - since, bound_s)
        every = max(TICK_MIN_S, min(self.law.slo_s / TICKS, bound_s / TICKS))
        self._timer = asyncio.get_running_loop().call_later(every, self._tick, since, bound_s)

    def _unwatch(self) -> None:
        """The engine came back."""
        if self._timer:
            self._timer.cancel()
        self._timer, self._stuck = None, ""

    def _give_up(self, seconds: float, bound_s: float) -> None:
        """The engine hangs: whoever waits is told now."""
        took = f"a batch has been running for {seconds:.1f} s, and {bound_s:.1f} s are allowed"
        self._stuck = f"the engine hangs: {took}"
        self._fail(StuckError(self._stuck, hint="the replica is being replaced: try again soon"))

    def _fail(self, error: Exception) -> None:
        """Hand an error to all that wait or run."""
        for each in (*self._running, *self._waiting.values()):
            each.group.fail(error)
        for ticket in self._waiting:
            self.law.cancel(self._clock(), ticket)
        self._waiting.clear()

    def _refuse(self, dropped: tuple[Shed, ...]) -> None:
        for shed in dropped:
            part = self._taken(shed.ticket, 1)
            part.group.fail(overload(str(shed.why), shed.retry_after_s))

    def _tell(self, now: float, decision: Decision | Shed) -> None:
        if self._watcher:
            self._watcher.decided(now, decision)
