"""What a batch is expected to take: the measured curve, and its correction while serving."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

from serve._law_correction import Correction, Delays
from specs.errors import ServeError
from specs.profile import Profile

__all__ = ["Curve", "Forecast", "capacity"]

SLOWER = 4.0
"""An engine counts as so many times slower at most; what a batch took beyond is a delay."""
EQUAL = 1 - 1e-9
"""Rates that differ in their last digits are equal: of several equals the largest batch counts."""
MOST_REPEATS = 16
"""Batches that a cut has at most: more would save little."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Time of one batch by its size, as measured.

    Args:
        sizes: measured batch sizes, growing; the last one is the largest batch allowed.
        ms: milliseconds of one batch at each of them.
        fixed: the engine runs these sizes alone, and a batch between two is padded up to the
            larger. Otherwise every size runs, and times between two sizes are interpolated.
        at_once: the largest batch of the engine, where larger sizes are several one after the
            other; 0: there are no such.
        step: a batch is computed in so many parts at the same time, and takes what the next larger
            multiple takes; one item has no parts.

    Raises:
        ServeError: the sizes do not grow, or a time is not a positive number.
    """

    sizes: tuple[int, ...]
    ms: tuple[float, ...]
    fixed: bool = False
    at_once: int = 0
    step: int = 1

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.ms):
            raise ServeError(f"a curve of {len(self.sizes)} sizes and {len(self.ms)} times")
        if self.sizes[0] < 1 or any(
            a >= b for a, b in zip(self.sizes, self.sizes[1:], strict=False)
        ):
            raise ServeError(f"the sizes of a curve must grow from 1 or more: {self.sizes}")
        if not all(math.isfinite(each) and each > 0 for each in self.ms):
            raise ServeError(f"the times of a curve must be positive milliseconds: {self.ms}")

    @classmethod
    def of(cls, profile: Profile, max_batch: int) -> Curve:
        """Median times of a profile, in the form that serving opens, up to ``max_batch``.

        The median, since the correction takes the quantile of what is then observed.
        """
        form = profile.advice.form
        measured = [point.batch for point in profile.of(form)]
        sizes = tuple(sorted({*(size for size in measured if size < max_batch), max_batch}))
        if form == "fixed":
            sizes = tuple(size for size in sizes if size in measured) or (max_batch,)
        ms = tuple(profile.latency_ms(size, "p50", form) for size in sizes)
        return cls(sizes, ms, fixed=form == "fixed")

    @property
    def max_batch(self) -> int:
        """The largest batch."""
        return self.sizes[-1]

    def repeated(self, most_s: float, once_s: float = 0.0) -> Curve:
        """With sizes of several largest batches, one after the other, that take up to ``most_s``.

        Args:
            most_s: of all together, seconds.
            once_s: part of every time that several have but once, seconds.
        """
        last, first, more = self.max_batch, self.ms[-1], self.ms[-1] - 1000 * once_s
        times = [(last * n, first + (n - 1) * more) for n in range(2, MOST_REPEATS + 1)]
        fit = [(size, ms) for size, ms in times if more > 0 and ms <= 1000 * most_s]
        sizes, ms = (*self.sizes, *(size for size, _ in fit)), (*self.ms, *(ms for _, ms in fit))
        return replace(self, sizes=sizes, ms=ms, at_once=last)

    def bucket(self, batch: int) -> int:
        """Index of the measured size that a batch is counted with: the next larger one."""
        return bisect_left(self.sizes, self._whole(batch))

    def _whole(self, batch: int) -> int:
        """With no part smaller than another."""
        return batch if batch == 1 else min(-(-batch // self.step) * self.step, self.max_batch)

    def seconds(self, batch: int) -> float:
        """Time of a batch of this many items, 1 to ``max_batch``."""
        batch = self._whole(batch)
        right = self.bucket(batch)
        if self.fixed or right == 0 or self.sizes[right] == batch:
            return self.ms[right] / 1000
        low, high = self.sizes[right - 1], self.sizes[right]
        share = (batch - low) / (high - low)
        return (self.ms[right - 1] * (1 - share) + self.ms[right] * share) / 1000


def capacity(curve: Curve, slo_s: float) -> float:
    """Items per second that can be answered in time for ever: the largest b / L(b), 2 L(b) <= SLO.

    Twice, since what arrives just after a batch was cut waits for that one and rides in the next.
    0 where not even a batch of one leaves room for another.
    """
    sizes = range(1, curve.max_batch + 1)
    times = [(size, curve.seconds(size)) for size in sizes]
    return max((size / time for size, time in times if 2 * time <= slo_s), default=0.0)


class Forecast:
    """The corrected curve as a table, and the questions that decisions ask of it. Seconds.

    Args:
        curve: as measured.
        max_batch: a smaller limit than the curve's, where one is set.
        worth: what a size's rate counts next to those of others.
    """

    def __init__(
        self,
        curve: Curve,
        max_batch: int | None = None,
        worth: Callable[[int], float] = lambda _: 1.0,
    ) -> None:
        self.curve = curve
        self._worth = worth
        self._correction = Correction(len(curve.sizes))
        self._delays = Delays(len(curve.sizes))
        self.limit(max_batch or curve.max_batch)

    def limit(self, max_batch: int) -> None:
        """Set the largest batch, at most the curve's own; the correction stays."""
        self.max_batch = min(max_batch, self.curve.max_batch)
        self.at_once = min(self.max_batch, self.curve.at_once or self.curve.max_batch)
        sizes = range(1, self.max_batch + 1)
        self._measured = [self.curve.seconds(size) for size in sizes]
        self._bucket = [self.curve.bucket(size) for size in sizes]
        self._worths = [self._worth(size) for size in sizes]
        self._ratios: list[float] = []
        self._late: list[float] = []
        self._refresh()

    def seconds(self, batch: int) -> float:
        """Corrected time of 1 to ``max_batch`` items; never less than a smaller batch's."""
        return self._times[batch - 1]

    def measured(self, batch: int) -> float:
        """The curve's own time."""
        return self._measured[batch - 1]

    def ratio(self, batch: int) -> float:
        """The correction at this size: corrected over measured time."""
        bucket = self._bucket[batch - 1]
        return self._ratios[bucket] + self._late[bucket] / self._measured[batch - 1]

    def rate(self, batch: int) -> float:
        """Items per second of engine time."""
        return batch / self._times[batch - 1]

    def fits(self, slack: float) -> int:
        """The largest batch that takes at most ``slack``; 0: none."""
        return bisect_right(self._times, slack)

    def best(self, most: int) -> int:
        """The size of the highest rate among 1 to ``most``; the larger of two equals."""
        return self._best[most - 1]

    def capacity(self, slo_s: float) -> float:
        """As ``capacity``, of the corrected curve; at least what batches of one would give."""
        if slo_s not in self._capacities:
            self._capacities[slo_s] = self.rate(self.best(max(1, self.fits(slo_s / 2))))
        return self._capacities[slo_s]

    def saving(self, batch: int) -> float:
        """Engine time that one more member saves against a batch of its own."""
        if batch >= self.max_batch:
            return 0.0
        return self._times[batch - 1] + self._times[0] - self._times[batch]

    def learn(self, batch: int, seconds: float) -> None:
        """Take in what a batch really took."""
        index = batch - 1
        slowest = SLOWER * self._measured[index]
        self._delays.learn(self._bucket[index], max(0.0, seconds - slowest))
        ratio = min(seconds, slowest) / self._measured[index]
        self._correction.learn(self._bucket[index], ratio)
        self._refresh()

    def _refresh(self) -> None:
        buckets = range(len(self.curve.sizes))
        ratios = [self._correction.ratio(each) for each in buckets]
        delays = [self._delays.usual(each) for each in buckets]
        if (ratios, delays) == (self._ratios, self._late):
            return
        self._ratios, self._late = ratios, delays
        self._capacities: dict[float, float] = {}
        pairs = zip(self._measured, self._bucket, strict=True)
        times = (time * ratios[each] + delays[each] for time, each in pairs)
        self._times = list(accumulate(times, max))
        pairs = zip(self._times, self._worths, strict=True)
        rates = [worth * size / time for size, (time, worth) in enumerate(pairs, 1)]
        highest = zip(rates, accumulate(rates, max), strict=True)
        sizes = (n if rate >= most * EQUAL else 0 for n, (rate, most) in enumerate(highest, 1))
        self._best = list(accumulate(sizes, max))
