"""Which of those that wait ride in the next batch, and which are given up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

from serve._law_curve import Forecast
from serve._law_decisions import Ticket

__all__ = ["Plan", "Slacks", "fill", "plan"]

Choice = Literal["all", "full", "bucket", "deadline", "overload"]
"""Why a batch has its size.

``all``: everything that waits. ``full``: the largest batch allowed. ``bucket``: more would be
padded, and give fewer items per second. ``deadline``: the head's deadline allows no more.
``overload``: heads were given up, since the batches they allow are too small for what arrives.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Of a queue in order of deadlines: skip the first ``dropped``, run the next ``size``."""

    dropped: int
    size: int
    choice: Choice


class Slacks(Sequence[float]):
    """Seconds to the deadlines of a queue's first ``count`` tickets, computed where looked at.

    A cut looks at a few of them, however many wait.
    """

    def __init__(self, queue: Sequence[Ticket], count: int, now: float) -> None:
        self._queue = queue
        self._count = count
        self._now = now

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._queue[index % self._count].deadline - self._now


def plan(slacks: Sequence[float], forecast: Forecast, demand: float) -> Plan:
    """Choose from one queue.

    Heads whose deadline cannot be met any more are dropped. The rest gives the largest batch that
    meets the head's deadline. Where that is smaller than what waits and would run fewer items per
    second than arrive, the queue would only grow and every head would come out late: then the
    start and size with the most on-time items per engine second are taken, and what lies before
    the start is dropped.

    Args:
        slacks: seconds to each deadline, growing; not empty.
        forecast: what batches take.
        demand: arrivals per second.
    """
    first = _first_in_time(slacks, forecast)
    if first == len(slacks):
        return Plan(first, 0, "deadline")
    size, choice = _largest(slacks, first, forecast)
    if choice != "deadline" or forecast.rate(size) >= demand:
        return Plan(first, size, choice)
    best = _best_start(slacks, first, forecast)
    if best == first:
        return Plan(first, size, choice)
    return Plan(best, _largest(slacks, best, forecast)[0], "overload")


def fill(size: int, room: float, slacks: Sequence[float], forecast: Forecast) -> list[int]:
    """Indices of a lower class's items that ride along in a batch of ``size``.

    Args:
        size: members so far.
        room: seconds that the batch may take.
        slacks: the lower class's, growing.
        forecast: what batches take.
    """
    most = min(forecast.fits(room), size + len(slacks))
    able: list[int] = []
    while most > size:
        able = [i for i, slack in enumerate(slacks) if slack >= forecast.seconds(most)]
        if size + len(able) >= most:
            break
        most = size + len(able)
    if most <= size or forecast.best(most) <= size:
        return []
    return able[: forecast.best(most) - size]


def _first_in_time(slacks: Sequence[float], forecast: Forecast) -> int:
    return bisect_left(slacks, forecast.seconds(1))


def _best_start(slacks: Sequence[float], first: int, forecast: Forecast) -> int:
    """The first start from which a batch has the highest rate.

    From start to start the rate does not fall as long as the start's own deadline bounds the
    batch, and does not rise once that is the queue's end or the largest batch: so halving finds
    where the one becomes the other, and the first start that is as good as the last before it.
    """
    count = len(slacks)

    def rate(start: int) -> float:
        return forecast.rate(_largest(slacks, start, forecast)[0])

    def unbound(start: int) -> bool:
        return forecast.fits(slacks[start]) >= min(count - start, forecast.max_batch)

    turn = first + bisect_left(range(first, count), True, key=unbound)  # noqa: FBT003 - what is looked for
    if turn == first:
        return first
    highest = rate(turn - 1)
    if turn < count and rate(turn) > highest:
        return turn
    return first + bisect_left(range(first, turn), highest, key=rate)


def _largest(slacks: Sequence[float], start: int, forecast: Forecast) -> tuple[int, Choice]:
    """The best size from ``start`` on, of those that meet its deadline, and what bounds it."""
    waiting = len(slacks) - start
    most = min(waiting, forecast.max_batch)
    fits = forecast.fits(slacks[start])
    size = forecast.best(min(most, fits))
    if fits < most and size >= forecast.best(most):
        return size, "bucket"
    if fits < most:
        return size, "deadline"
    if size < most:
        return size, "bucket"
    return size, "all" if size == waiting else "full"
