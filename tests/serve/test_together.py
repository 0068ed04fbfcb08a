"""What comes up at the same moment is done in one piece."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from serve.brief import LOOKS
from serve.together import BRIEF_S, MOST, Together

T = TypeVar("T")


class Number(int):
    """Something to do that is worth so many items."""

    items = 1

    def __len__(self) -> int:
        return self.items


class Doubling:
    """Doubles; odd numbers above 100 break it. Its clock says that each piece takes ``seconds``."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.pieces: list[list[int]] = []
        self.threads: list[bool] = []
        """Whether it was in a thread, by piece."""
        self.seconds = seconds
        self.now = 0.0

    def __call__(self, given: Sequence[Number]) -> list[int]:
        self.pieces.append(list(given))
        self.threads.append(threading.current_thread() is not threading.main_thread())
        self.now += self.seconds
        if any(each > 100 and each % 2 for each in given):
            raise ValueError(given)
        return [2 * each for each in given]

    def clock(self) -> float:
        return self.now


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


def test_what_is_asked_in_one_turn_is_one_piece_and_later_ones_another() -> None:
    work = Doubling()

    async def main() -> list[int]:
        together = Together[Number, int](work, in_thread)
        first = await asyncio.gather(*[together(Number(number)) for number in range(3)])
        return [*first, await together(Number(9))]

    assert asyncio.run(main()) == [0, 2, 4, 18]
    assert work.pieces == [[0, 1, 2], [9]]


def test_one_that_fails_fails_alone() -> None:
    async def main() -> list[int | BaseException]:
        together = Together[Number, int](Doubling(), in_thread)
        return await asyncio.gather(
            *map(together, map(Number, (1, 101, 2))), return_exceptions=True
        )

    first, failed, last = asyncio.run(main())
    assert (first, last) == (2, 4)
    assert isinstance(failed, ValueError)


def test_a_piece_is_bounded() -> None:
    work = Doubling()

    async def main() -> None:
        together = Together[Number, int](work, in_thread)
        await asyncio.gather(*map(together, map(Number, range(0, 2 * MOST + 2, 1))))

    asyncio.run(main())
    assert sorted(map(len, work.pieces)) == [2, MOST, MOST]


def test_one_that_nobody_waits_for_is_not_done() -> None:
    work = Doubling()

    async def main() -> int:
        together = Together[Number, int](work, in_thread)
        gone, here = (
            asyncio.create_task(together(Number(1))),
            asyncio.create_task(together(Number(2))),
        )
        await asyncio.sleep(0)
        gone.cancel()
        return await here

    assert asyncio.run(main()) == 4
    assert work.pieces == [[2]]


def test_without_a_thread_everybody_is_told() -> None:
    async def closed(_: Callable[[], T]) -> T:
        raise RuntimeError("cannot schedule new futures after shutdown")

    async def main() -> None:
        await Together[Number, int](Doubling(), closed)(Number(1))

    with pytest.raises(RuntimeError, match="shutdown"):
        asyncio.run(main())


def in_threads(work: Doubling, times: int, *, in_loop: bool = True) -> list[bool]:
    """Ask one after the other; whether each was done in a thread."""

    async def main() -> None:
        together = Together[Number, int](work, in_thread, in_loop=in_loop, clock=work.clock)
        for number in range(times):
            assert await together(Number(number)) == 2 * number

    asyncio.run(main())
    return work.threads


def test_what_is_known_to_be_brief_is_done_in_the_loop() -> None:
    assert in_threads(Doubling(0.9 * BRIEF_S), LOOKS + 3) == [True] * LOOKS + [False] * 3
    assert in_threads(Doubling(1.1 * BRIEF_S), LOOKS + 3) == [True] * (LOOKS + 3)


def test_where_the_loop_may_not_be_held_up_nothing_is() -> None:
    assert in_threads(Doubling(), LOOKS + 3, in_loop=False) == [True] * (LOOKS + 3)


def test_many_items_are_not_brief_where_one_is_nor_is_what_once_took_long() -> None:
    work = Doubling(BRIEF_S / 2)

    async def main() -> None:
        together = Together[Number, int](work, in_thread, in_loop=True, clock=work.clock)
        many = Number(4)
        many.items = 4
        for each in [*map(Number, range(LOOKS)), many, Number(1)]:
            await together(each)
        work.seconds = 10 * BRIEF_S  # in the loop, the last time
        for number in range(LOOKS + 1):
            await together(Number(number))
            work.seconds = 0.0

    asyncio.run(main())
    assert work.threads == [True] * LOOKS + [True, False] + [False] + [True] * LOOKS


def test_one_that_fails_in_the_loop_fails_alone() -> None:
    work = Doubling()

    async def main() -> list[int | BaseException]:
        together = Together[Number, int](work, in_thread, in_loop=True, clock=work.clock)
        for number in range(LOOKS):
            await together(Number(number))
        asked = map(together, map(Number, (1, 101, 2)))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, failed, last = asyncio.run(main())
    assert (first, last) == (2, 4)
    assert isinstance(failed, ValueError)
    assert not any(work.threads[LOOKS:])
