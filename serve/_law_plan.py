"""Which of those that wait ride in the next batch, and which are given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serve._law_curve import Forecast

__all__ = ["Plan", "fill", "plan"]

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
    starts = range(first, len(slacks))
    best = max(starts, key=lambda start: forecast.rate(_largest(slacks, start, forecast)[0]))
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
    alone = forecast.seconds(1)
    return next((i for i, slack in enumerate(slacks) if slack >= alone), len(slacks))


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
