"""Batches in front of one engine: ``serve.law`` decides, this runs. Plain asyncio, no Ray.

The law is asked whenever the engine is free and something changed. A batch that fails is halved
until the item that breaks it stands alone; an engine that does not come back is told of.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

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


class OverloadError(ServeError):
    """The item cannot be answered in time; ``retry_after_s`` is when what is here should be done.

    Args:
        why: what the decision was made from.
        retry_after_s: whole seconds, at least 1.
    """

    default_code = "overloaded"

    def __init__(self, why: str, retry_after_s: int) -> None:
        hint = f"try again in {retry_after_s} s, allow more time, or serve more replicas"
        super().__init__(f"turned away: {why}", hint=hint)
        self.retry_after_s = retry_after_s
        self._arguments = (why, retry_after_s)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._arguments


class ClosedError(ServeError):
    """The replica drains, or is not warm yet, and takes nothing new."""

    default_code = "shutting_down"


class StuckError(ServeError):
    """The engine has not come back from a batch; Ray Serve replaces the replica."""

    default_code = "engine_stuck"


class Watcher(Protocol):
    """Is told what happens; must not raise. Times in seconds of the batcher's clock."""

    def decided(self, now: float, decision: Decision | Shed) -> None:
        """The law cut, held, idles, or turned an item away at admission."""
        ...

    def computed(self, size: int, seconds: float) -> None:
        """The engine ran a batch."""
        ...


@dataclass(frozen=True, slots=True)
class Done(Generic[Out]):
    """What became of one item; times in seconds."""

    output: Out
    queued_s: float
    engine_s: float
    batch: int
    """How many items rode in the same batch."""
    ride: Ride | None = None
    """That run of the engine."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[In, Out]):
    item: In
    ticket: Ticket
    future: asyncio.Future[Done[Out]]
    label: object


def hang_s(expected_s: float) -> float:
    """Seconds after which an engine counts as hung, where a batch was expected to take less."""
    return max(HANG_S, HANG_TIMES * expected_s)


class Batcher(Generic[In, Out]):
    """Groups single items into batches for one engine.

    Args:
        run: computes a batch; gives one output per item, in order. Called once at a time.
        law: decides; no other driver may use it.
        key: items share a batch only where this is equal (their shapes, for instance).
        clock: seconds, monotonic. Timers are the event loop's own.
        watcher: is told of every decision and every batch.
        hang: seconds after which a batch counts as hung, by its expected time.
        grain_s: what the event loop's timers can tell apart. A shorter hold is spent on turns of
            the loop: rounded up, it would often cost more than it saves.
    """

    def __init__(  # noqa: PLR0913 - most have a value that only tests change
        self,
        run: Callable[[list[In]], Awaitable[Sequence[Out]]],
        law: Law,
        *,
        key: Callable[[In], Hashable] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
        watcher: Watcher | None = None,
        hang: Callable[[float], float] = hang_s,
        grain_s: float = 0.0,
    ) -> None:
        self.law = law
        self._run = run
        self._key = key
        self._clock = clock
        self._watcher = watcher
        self._hang = hang
        self._grain_s = grain_s
        self._waiting: dict[Ticket, _Waiting[In, Out]] = {}
        self._running: list[_Waiting[In, Out]] = []
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
        if (bound := self.law.max_items) is not None and self.load + items > bound:
            why = f"{self.load} items are waiting or running, and {bound} are allowed"
            raise self.overload(why)

    def check_engine(self) -> None:
        """Raise StuckError where the engine hangs."""
        if self._stuck:
            raise StuckError(self._stuck, hint="the replica is being replaced: try again soon")

    def overload(self, why: str) -> OverloadError:
        """The error that turns an item away now."""
        return _overload(why, self.law.retry_after_s(self._clock()))

    async def submit(
        self,
        items: Sequence[In],
        *,
        timeout_s: float | None = None,
        priority: int = 0,
        label: object = None,
    ) -> list[Done[Out]]:
        """Compute ``items``; they may ride in different batches, with those of other callers.

        Args:
            items: what ``run`` takes.
            timeout_s: seconds that this may take; by default the law's SLO.
            priority: the class; lower goes first.
            label: for ``Ride.labels``.

        Raises:
            OverloadError: one of them cannot be computed in time; the others are given up, too.
            ClosedError: the batcher is closed.
            StuckError: the engine hangs.
            Exception: what ``run`` raised for one of the items.
        """
        self.check(len(items))
        entries: list[_Waiting[In, Out]] = []
        try:
            for item in items:
                entries.append(self._enter(item, timeout_s, priority, label))  # noqa: PERF401 - kept where one is shed
            self._wake()
            return await _all([entry.future for entry in entries])
        finally:
            self._leave(entries)

    async def close(self) -> None:
        """Take nothing new and return once all that was taken is answered, or the engine hangs."""
        self._closed = True
        while self._worker is not None and not self._worker.done() and not self._stuck:
            await asyncio.wait({self._worker}, timeout=TICK_MIN_S)

    def _enter(
        self, item: In, timeout_s: float | None, priority: int, label: object
    ) -> _Waiting[In, Out]:
        now, key = self._clock(), self._key(item)
        ticket = self.law.ticket(now, key=key, timeout_s=timeout_s, priority=priority)
        answer = self.law.offer(now, ticket)
        if isinstance(answer, Shed):
            self._tell(now, answer)
            raise _overload(str(answer.why), answer.retry_after_s)
        future: asyncio.Future[Done[Out]] = asyncio.get_running_loop().create_future()
        entry = self._waiting[ticket] = _Waiting(item, ticket, future, label)
        return entry

    def _leave(self, entries: list[_Waiting[In, Out]]) -> None:
        """Forget what the caller no longer waits for: it went away, or one item failed."""
        for entry in entries:
            if entry.future.cancel() or entry.future.cancelled():
                if self._waiting.pop(entry.ticket, None):
                    self.law.cancel(self._clock(), entry.ticket)
                    self._changed.set()  # a batch that is held may be complete without it
            else:
                entry.future.exception()  # read, so that asyncio does not report it as lost

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
        self._running = [self._waiting.pop(ticket) for ticket in cut.batch]
        computed = False
        try:
            computed = await self._compute(self._running, cut, now)
        finally:
            self._running = []
            ended = self._clock()
            learnt = computed and ended > now  # a coarse clock may see no time pass
            self.law.done(ended, cut.batch, ended - now if learnt else None)

    async def _compute(self, batch: list[_Waiting[In, Out]], cut: Cut, started: float) -> bool:
        """Run a batch; halve it where it fails, so that a bad item fails alone.

        Returns whether it did not fail.
        """
        began = self._clock()
        try:
            outputs = await self._outputs(batch)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the item
            await self._halve(batch, cut, started, error)
            return False
        labels = tuple(entry.label for entry in batch)
        ride = Ride(started, began, self._clock(), cut.why, labels)
        engine_s = ride.ended - began
        if self._watcher:
            self._watcher.computed(len(batch), engine_s)
        for entry, output in zip(batch, outputs, strict=True):
            if not entry.future.done():
                queued_s = started - entry.ticket.arrived
                entry.future.set_result(Done(output, queued_s, engine_s, len(batch), ride))
        return True

    async def _outputs(self, batch: list[_Waiting[In, Out]]) -> Sequence[Out]:
        self._watch(self._clock(), self.law.forecast.seconds(len(batch)))
        try:
            outputs = await self._run([entry.item for entry in batch])
        finally:
            self._unwatch()
        if len(outputs) != len(batch):
            raise ServeError(f"the engine gave {len(outputs)} outputs for {len(batch)} items")
        return outputs

    async def _halve(
        self, batch: list[_Waiting[In, Out]], cut: Cut, started: float, error: Exception
    ) -> None:
        wanted = [entry for entry in batch if not entry.future.done()]
        if len(batch) == 1:
            for entry in wanted:
                entry.future.set_exception(error)
            return
        middle = (len(wanted) + 1) // 2
        for half in (wanted[:middle], wanted[middle:]):
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
        for entry in (*self._running, *self._waiting.values()):
            if not entry.future.done():
                entry.future.set_exception(error)
        for ticket in self._waiting:
            self.law.cancel(self._clock(), ticket)
        self._waiting.clear()

    def _refuse(self, dropped: tuple[Shed, ...]) -> None:
        for shed in dropped:
            entry = self._waiting.pop(shed.ticket)
            if not entry.future.done():
                entry.future.set_exception(_overload(str(shed.why), shed.retry_after_s))

    def _tell(self, now: float, decision: Decision | Shed) -> None:
        if self._watcher:
            self._watcher.decided(now, decision)


def _overload(why: str, retry_after_s: float) -> OverloadError:
    return OverloadError(why, max(1, math.ceil(retry_after_s)))


async def _all(futures: list[asyncio.Future[Done[Out]]]) -> list[Done[Out]]:
    """All results, or the first error as soon as there is one."""
    if len(futures) == 1:
        return [await futures[0]]
    return await asyncio.gather(*futures)
