"""Pre-processing in front of the queue: threads, memory, and who is let in.

An item that will be turned away should be so before work is spent on it. The law decides by what
waits for the engine; here those are counted, too, that are still on their way to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from runtime.machine import threads_here
from serve.batching import Batcher
from serve.brief import Brief
from serve.recent import Recent

__all__ = ["Preparing", "threads_beside"]

T = TypeVar("T")

MAX_THREADS = 4
ALONE_S = 0.002
"""What is known to take less is done in the event loop, where nobody else is here to wait."""


class Preparing:
    """The stage before the queue. Lives in one event loop.

    Args:
        threads: how many items are pre-processed at once.
        name: of the threads.
        clock: seconds, monotonic.
        in_loop: whether what is known to be brief may run in the event loop itself.
    """

    def __init__(
        self, threads: int, name: str, clock: Callable[[], float], *, in_loop: bool = False
    ) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, name)
        self._clock = clock
        self._here = 0
        self._seconds = Recent()
        self._brief = Brief(ALONE_S, ever=in_loop)

    def in_pool(self, work: Callable[[], T]) -> Awaitable[T]:
        """``work`` in one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def prepare(
        self,
        work: Callable[[], T],
        due: float,
        batcher: Batcher[Any, Any],
        priority: int,
        *,
        light: bool = False,
    ) -> T:
        """``work``, for a request that may still be answered in time.

        In one of the threads, unless it is brief and nothing else is here.

        Args:
            work: pre-processes its items.
            due: when the engine must be done with them, in the clock's seconds.
            batcher: where its items go then.
            priority: the request's class; lower goes first.
            light: whether this takes no longer than others that are.

        Raises:
            OverloadError: it will be late, or is when a thread is free for it.
            ClosedError, StuckError: the queue takes nothing.
            Exception: what ``work`` raised.
        """
        batcher.check(self._here + 1)
        batcher.foresee(due, priority, self._here, self._left_s())
        timed = self._in_time(self._watched(work) if light else work, due, batcher)
        if light and not self._here and not batcher.load and self._brief.known():
            return timed()
        self._here += 1
        try:
            return await self.in_pool(timed)
        finally:
            self._here -= 1

    def close(self) -> None:
        """Take nothing more; what runs comes to its end."""
        self._pool.shutdown(wait=False)

    def _left_s(self) -> float:
        """Until one more were prepared: those that are here are shared out to the threads."""
        return self._seconds.most(self._clock()) * (self._here // self._threads + 1)

    def _watched(self, work: Callable[[], T]) -> Callable[[], T]:
        """``work``, whose time is noted, also where it fails."""

        def run() -> T:
            began = self._clock()
            try:
                return work()
            finally:
                self._brief.add(self._clock() - began)

        return run

    def _in_time(
        self, work: Callable[[], T], due: float, batcher: Batcher[Any, Any]
    ) -> Callable[[], T]:
        """``work``, but not where the deadline passed while it waited for a thread."""

        def run() -> T:
            began = self._clock()
            if began > due:
                raise batcher.overload("the deadline passed before pre-processing began")
            done = work()
            self._seconds.add(now := self._clock(), now - began)
            return done

        return run


def threads_beside(device: str) -> int:
    """For pre- and post-processing: half of the cores where the engine computes on them, too."""
    cores = threads_here()
    return max(1, min(MAX_THREADS, cores // 2 if device == "cpu" else cores))
