"""How long to warm up, how long to measure, and how sure the result is.

No clock is read here: a run is a function that gives its own time in milliseconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from specs.profile import Interval

__all__ = ["Bounds", "Sample", "interval", "rank", "sample", "settled", "warm_up"]

Run = Callable[[], float]
"""Runs one batch and gives the time that it took, in milliseconds."""

Z = 1.96
"""Quantile of the normal distribution for 95 %."""
P50_WITHIN = 0.02
"""Half of the median's interval, as a share of it, at which it counts as known."""
P99_WITHIN = 0.05
"""The same of the p99, which needs many more samples."""
DRIFT = 0.05
"""How far the medians of the first and the second half may lie apart."""
WINDOW_RUNS = 5
WINDOW_MS = 20.0
"""A window of the warm-up has at least so many runs and so much time: one run may take 10 us."""
FALLING = 0.02
"""A window that is not faster by this share than the best before it shows no fall."""
GROWTH = 1.25
"""How much is measured before the result is looked at again: few looks bias it little."""


@dataclass(frozen=True)
class Bounds:
    """How long a point may take.

    Args:
        seconds: of timed runs; the warm-up gets as much.
        least: runs that are made all the same.
        most: runs after which there is nothing left to learn.
    """

    seconds: float
    least: int = 10
    most: int = 100_000


@dataclass(frozen=True)
class Sample:
    """Times of runs in milliseconds, in the order of the runs."""

    times: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The quantile by nearest rank: the smallest time with ``share`` of all at or below it."""
        return sorted(self.times)[rank(share, len(self.times)) - 1]

    def interval(self, share: float) -> Interval:
        """Its 95 % confidence interval."""
        return interval(sorted(self.times), share)

    @property
    def mean(self) -> float:
        """Mean of all times."""
        return statistics.fmean(self.times)

    @property
    def settled(self) -> bool:
        """Whether the median is known within 2 %, and did not drift."""
        return settled(self.times)


def rank(share: float, count: int) -> int:
    """Nearest rank of a quantile, from 1 to ``count``."""
    # 0.95 * 20 is 19.000000000000004 for a floating-point unit.
    return min(count, math.ceil(round(share * count, 9)))


def interval(ordered: Sequence[float], share: float) -> Interval:
    """The 95 % confidence interval of a quantile, by order statistics.

    The number of samples below the quantile is binomial, whatever the times' distribution is; the
    normal approximation of it gives the ranks (Conover, Practical Nonparametric Statistics, 3rd
    edition, section 3.2), rounded outwards: a p99 takes about 600 samples to be bounded from above.
    Samples are taken as independent; ``settled`` looks for drift as well.

    Args:
        ordered: times in ascending order, at least one.
        share: the quantile, 0.5 for the median.
    """
    count = len(ordered)
    middle, spread = share * count, Z * math.sqrt(count * share * (1 - share))
    low, high = math.floor(middle - spread), math.ceil(middle + spread) + 1
    top = None if high > count else ordered[high - 1]
    return Interval(low=ordered[max(low, 1) - 1], high=top)


def settled(times: Sequence[float]) -> bool:
    """Whether the median's interval is within 2 % of it and both halves agree within 5 %."""
    middle = statistics.median(times)
    within = interval(sorted(times), 0.5).within(middle)
    if within is None or within > P50_WITHIN:
        return False
    half = len(times) // 2
    first, second = statistics.median(times[:half]), statistics.median(times[half:])
    return abs(first - second) <= DRIFT * middle


def _tail_known(times: Sequence[float]) -> bool:
    ordered = sorted(times)
    within = interval(ordered, 0.99).within(ordered[rank(0.99, len(ordered)) - 1])
    return within is not None and within <= P99_WITHIN


def warm_up(run: Run, seconds: float) -> int:
    """Run until times stop falling, and give the number of runs.

    The first run allocates, and stands apart. After it windows of runs are compared by their
    medians; two in a row that are not 2 % faster than the best before them end the warm-up, as the
    time does.
    """
    spent, count, best, steady = run(), 1, math.inf, 0
    while steady < 2 and spent < seconds * 1e3:  # noqa: PLR2004 - said above
        window = list(_window(run, seconds * 1e3 - spent))
        spent, count = spent + sum(window), count + len(window)
        middle = statistics.median(window)
        steady = 0 if middle < best * (1 - FALLING) else steady + 1
        best = min(best, middle)
    return count


def _window(run: Run, left: float) -> Iterator[float]:
    spent, count = 0.0, 0
    while (count < WINDOW_RUNS or spent < WINDOW_MS) and (spent < left or count == 0):
        time = run()
        spent, count = spent + time, count + 1
        yield time


def sample(run: Run, bounds: Bounds) -> Sample:
    """Run until both the median and the p99 are known well enough, or the bounds are reached."""
    times: list[float] = []
    look, spent = float(bounds.least), 0.0
    while len(times) < bounds.least or (spent < bounds.seconds * 1e3 and len(times) < bounds.most):
        times.append(run())
        spent += times[-1]
        if len(times) >= look:
            if settled(times) and _tail_known(times):
                break
            look = len(times) * GROWTH
    return Sample(tuple(times))
