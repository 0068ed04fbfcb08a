"""Batches in front of one engine: late binding, no waiting. Plain asyncio, no Ray.

A batch is cut when the engine is free, from all that has arrived by then. While the engine is
busy, what arrives gathers, so that batches grow with the load and nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from specs.errors import ServeError

__all__ = ["Batcher", "ClosedError", "Done", "OverloadError"]

In = TypeVar("In")
Out = TypeVar("Out")


class OverloadError(ServeError):
    """More is waiting than the bound allows; ``retry_after_s`` is when it should be gone."""

    default_code = "overloaded"

    def __init__(self, waiting: int, bound: int, retry_after_s: int) -> None:
        super().__init__(
            f"{waiting} items are waiting or running, and {bound} are allowed",
            hint=f"try again in {retry_after_s} s, or serve more replicas",
        )
        self.retry_after_s = retry_after_s
        self._arguments = (waiting, bound, retry_after_s)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._arguments


class ClosedError(ServeError):
    """The replica drains and takes nothing new."""

    default_code = "shutting_down"


@dataclass(frozen=True, slots=True)
class Done(Generic[Out]):
    """What became of one item; times in seconds."""

    output: Out
    queued_s: float
    engine_s: float
    batch: int
    """How many items rode in the same batch."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[In, Out]):
    item: In
    key: Hashable
    since: float
    future: asyncio.Future[Done[Out]]


class Batcher(Generic[In, Out]):
    """Groups single items into batches for one engine.

    Args:
        run: computes a batch; gives one output per item, in order. Called once at a time.
        max_batch: most items in a batch.
        max_items: most items that wait or run at once; more are refused.
        key: items share a batch only where this is equal (their shapes, for instance).
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        run: Callable[[list[In]], Awaitable[Sequence[Out]]],
        *,
        max_batch: int,
        max_items: int,
        key: Callable[[In], Hashable] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_items = max_items
        self._key = key
        self._clock = clock
        self._queue: deque[_Waiting[In, Out]] = deque()
        self._running = 0
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._batch_s = 0.0

    @property
    def load(self) -> int:
        """Items that wait or run now."""
        return len(self._queue) + self._running

    def check(self, items: int = 1) -> None:
        """Raise where ``items`` more would not be taken: OverloadError, ClosedError."""
        if self._closed:
            raise ClosedError("this replica is shutting down", hint="try again in a second")
        if self.load + items > self._max_items:
            raise OverloadError(self.load, self._max_items, self._drain_s())

    async def submit(self, items: Sequence[In]) -> list[Done[Out]]:
        """Compute ``items``; they may ride in different batches, with those of other callers.

        Raises:
            OverloadError: there is no room; none of the items was taken.
            ClosedError: the batcher is closed.
            Exception: what ``run`` raised for one of the items.
        """
        self.check(len(items))
        entries = [self._enter(item) for item in items]
        self._wake()
        try:
            return [await entry.future for entry in entries]
        finally:
            self._leave(entries)

    async def close(self) -> None:
        """Take nothing new and return once all that was taken is answered."""
        self._closed = True
        if self._worker is not None:
            await self._worker

    def _enter(self, item: In) -> _Waiting[In, Out]:
        future: asyncio.Future[Done[Out]] = asyncio.get_running_loop().create_future()
        entry = _Waiting(item, self._key(item), self._clock(), future)
        self._queue.append(entry)
        return entry

    def _leave(self, entries: list[_Waiting[In, Out]]) -> None:
        """Forget what the caller no longer waits for: it went away, or one item failed."""
        for entry in entries:
            if entry.future.cancel() or entry.future.cancelled():
                if entry in self._queue:
                    self._queue.remove(entry)
            else:
                entry.future.exception()  # read, so that asyncio does not report it as lost

    def _wake(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._queue:
            batch = self._cut()
            self._running = len(batch)
            try:
                started = self._clock()
                await self._compute(batch, started)
                self._learn(self._clock() - started)
            finally:
                self._running = 0

    def _cut(self) -> list[_Waiting[In, Out]]:
        """The oldest item and those that may ride with it, in order of arrival."""
        key = self._queue[0].key
        batch = [entry for entry in self._queue if entry.key == key][: self._max_batch]
        for entry in batch:
            self._queue.remove(entry)
        return batch

    async def _compute(self, batch: list[_Waiting[In, Out]], started: float) -> None:
        """Run a batch; halve it where it fails, so that a bad item fails alone."""
        began = self._clock()
        try:
            outputs = await self._outputs(batch)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the item
            await self._halve(batch, started, error)
            return
        engine_s = self._clock() - began
        for entry, output in zip(batch, outputs, strict=True):
            if not entry.future.done():
                done = Done(output, started - entry.since, engine_s, len(batch))
                entry.future.set_result(done)

    async def _outputs(self, batch: list[_Waiting[In, Out]]) -> Sequence[Out]:
        outputs = await self._run([entry.item for entry in batch])
        if len(outputs) != len(batch):
            raise ServeError(f"the engine gave {len(outputs)} outputs for {len(batch)} items")
        return outputs

    async def _halve(
        self, batch: list[_Waiting[In, Out]], started: float, error: Exception
    ) -> None:
        wanted = [entry for entry in batch if not entry.future.done()]
        if len(batch) == 1:
            for entry in wanted:
                entry.future.set_exception(error)
            return
        middle = (len(wanted) + 1) // 2
        for half in (wanted[:middle], wanted[middle:]):
            if half:
                await self._compute(half, started)

    def _learn(self, seconds: float) -> None:
        """Moving mean of a batch's time; a tenth of the weight is on the newest."""
        self._batch_s = seconds if not self._batch_s else 0.9 * self._batch_s + 0.1 * seconds

    def _drain_s(self) -> int:
        """Whole seconds until what is here now should be done; at least 1."""
        batches = math.ceil(self.load / self._max_batch)
        return max(1, math.ceil(batches * self._batch_s))
