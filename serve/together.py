"""Work of several requests that comes up at the same moment, done in one piece."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Generic, TypeVar

from serve.brief import Brief

__all__ = ["BRIEF_S", "MOST", "Together"]

In = TypeVar("In", bound=Sized)
Out = TypeVar("Out")

MOST = 32
"""Requests in one piece: the first of them should not wait long for the last."""
BRIEF_S = 0.001
"""A piece that is expected to take less is done in the event loop."""


class Together(Generic[In, Out]):
    """Gathers what is asked for within one turn of the event loop.

    The members of a batch are answered in one turn: post-processing them at once costs one way to a
    thread and back at most, and array operations over all of them.

    Args:
        work: does several; one that fails is tried again one by one, so that it fails alone.
        in_thread: runs a function in a thread.
        in_loop: whether what is known to be brief may run in the event loop itself.
        clock: seconds.
    """

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        in_thread: Callable[
            [Callable[[], Sequence[Out | Exception]]], Awaitable[Sequence[Out | Exception]]
        ],
        *,
        in_loop: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work = work
        self._in_thread = in_thread
        self._clock = clock
        self._item = Brief(BRIEF_S, ever=in_loop)
        self._asked: list[tuple[In, asyncio.Future[Out]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, asked: In) -> Out:
        """What ``work`` makes of it.

        Raises:
            Exception: what ``work`` raised for it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._begin)
        self._asked.append((asked, future))
        return await future

    def _begin(self) -> None:
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), MOST):
            piece = [pair for pair in asked[start : start + MOST] if not pair[1].done()]
            if not piece:
                continue
            if self._item.known(sum(len(each) for each, _ in piece)):
                self._give(piece, self._timed([each for each, _ in piece]))
                continue
            task = asyncio.create_task(self._do(piece))
            self._tasks.add(task)  # asyncio itself keeps no task alive
            task.add_done_callback(self._tasks.discard)

    async def _do(self, piece: list[tuple[In, asyncio.Future[Out]]]) -> None:
        given = [each for each, _ in piece]
        try:
            found = await self._in_thread(lambda: self._timed(given))
        except Exception as error:  # noqa: BLE001 - no thread was to be had: told to all that wait
            found = [error] * len(piece)
        self._give(piece, found)

    @staticmethod
    def _give(
        piece: list[tuple[In, asyncio.Future[Out]]], found: Sequence[Out | Exception]
    ) -> None:
        for (_, future), each in zip(piece, found, strict=True):
            if future.done():
                continue
            if isinstance(each, Exception):
                future.set_exception(each)
            else:
                future.set_result(each)

    def _timed(self, given: Sequence[In]) -> Sequence[Out | Exception]:
        """What ``work`` makes of them; notes what an item takes."""
        began = self._clock()
        found = self._all(given)
        self._item.add((self._clock() - began) / max(1, sum(map(len, given))))
        return found

    def _all(self, given: Sequence[In]) -> Sequence[Out | Exception]:
        try:
            return self._work(given)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            if len(given) == 1:
                return [error]
        return [found for each in given for found in self._all([each])]
