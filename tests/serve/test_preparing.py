"""Items are prepared in the pool, or in the event loop where that is brief and nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest

from serve.batching import Batcher
from serve.brief import LOOKS
from serve.law import Curve, Law
from serve.preparing import ALONE_S, Preparing


class Work:
    """Notes whether it ran in a thread; takes ``seconds`` on its clock."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.threads: list[bool] = []

    def clock(self) -> float:
        return self.now

    def __call__(self) -> int:
        self.now += self.seconds
        self.threads.append(threading.current_thread() is not threading.main_thread())
        return len(self.threads)


async def nothing(items: Sequence[int]) -> Sequence[int]:
    return items


def batcher(
    run: Callable[[Sequence[int]], Awaitable[Sequence[int]]] = nothing,
) -> Batcher[int, int]:
    return Batcher(run, Law(Curve((1, 8), (1.0, 8.0)), slo_s=10.0))


def prepared(
    work: Work, times: int, *, in_loop: bool = True, light: bool = True, fails: bool = False
) -> list[bool]:
    """One after the other; whether each was in a thread."""

    def failing() -> int:
        work()
        raise ValueError("corrupt")

    async def main() -> None:
        preparing, queue = Preparing(1, "items", work.clock, in_loop=in_loop), batcher()
        for _ in range(times):
            with suppress(ValueError):
                await preparing.prepare(failing if fails else work, 1e9, queue, 0, light=light)
        preparing.close()

    asyncio.run(main())
    return work.threads


def test_what_is_known_to_be_brief_is_prepared_in_the_loop() -> None:
    assert prepared(Work(0.9 * ALONE_S), LOOKS + 2) == [True] * LOOKS + [False] * 2


@pytest.mark.parametrize(
    ("seconds", "in_loop", "light"),
    [(1.1 * ALONE_S, True, True), (0.0, False, True), (0.0, True, False)],
)
def test_other_items_are_prepared_in_the_pool(seconds: float, in_loop: bool, light: bool) -> None:
    work = Work(seconds)
    assert prepared(work, LOOKS + 2, in_loop=in_loop, light=light) == [True] * (LOOKS + 2)


def test_what_takes_long_until_it_fails_is_not_brief() -> None:
    assert prepared(Work(1.1 * ALONE_S), LOOKS + 2, fails=True) == [True] * (LOOKS + 2)


def test_beside_others_what_is_brief_is_prepared_in_the_pool() -> None:
    work = Work()

    async def main() -> None:
        release = asyncio.Event()

        async def engine(items: Sequence[int]) -> Sequence[int]:
            await release.wait()
            return items

        preparing, queue = Preparing(2, "items", work.clock, in_loop=True), batcher(engine)
        for _ in range(LOOKS):
            await preparing.prepare(work, 1e9, queue, 0, light=True)
        running = asyncio.create_task(queue.submit([1]))
        await asyncio.sleep(0)
        await preparing.prepare(work, 1e9, queue, 0, light=True)  # one is in the engine
        release.set()
        await running
        both = [preparing.prepare(work, 1e9, queue, 0, light=True) for _ in range(2)]
        await asyncio.gather(*both)
        preparing.close()

    asyncio.run(main())
    # Of the two at once the first finds nobody here, and is done before the second comes.
    assert work.threads == [True] * LOOKS + [True] + [False] * 2
