"""What a batch is expected to take: the measured curve, and its correction while serving."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from specs.errors import ServeError
from specs.profile import Profile

__all__ = ["Correction", "Curve", "Forecast", "capacity"]

QUANTILE = 0.9
"""Of observed over predicted time: one batch in ten may take longer than it was given."""
WINDOW = 32
"""Ratios kept per bucket; the 0.9 quantile of them ignores three stalls."""
ENOUGH = 10
"""Below this many ratios of its own a bucket takes those of all buckets: with ten, the 0.9 quantile
is not the largest, so that one stall changes nothing."""
FORGET = 256
"""A size that did not run within so many batches is believed to be no slower than the others: else
one that was once found too slow for every deadline would never be tried again."""
DRIFT = 1.1
DRIFTED = 3
"""So many batches in a row beyond the usual range (the 0.1 to the 0.9 quantile) by this factor, on
the same side: another engine speed, and what was learned before it is forgotten. Jitter of 3 % (one
sigma) does that once in 10**9 batches; and where times scatter more, the range is wider."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Time of one batch by its size, as measured.

    Args:
        sizes: measured batch sizes, growing; the last one is the largest batch allowed.
        ms: milliseconds of one batch at each of them.
        fixed: the engine runs these sizes alone, and a batch between two is padded up to the
            larger. Otherwise every size runs, and times between two sizes are interpolated.

    Raises:
        ServeError: the sizes do not grow, or a time is not a positive number.
    """

    sizes: tuple[int, ...]
    ms: tuple[float, ...]
    fixed: bool = False

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

    def bucket(self, batch: int) -> int:
        """Index of the measured size that a batch is counted with: the next larger one."""
        return bisect_left(self.sizes, batch)

    def seconds(self, batch: int) -> float:
        """Time of a batch of this many items, 1 to ``max_batch``."""
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


class Correction:
    """Observed over predicted time, per bucket: an upper quantile of the last ones.

    A bucket that has seen little takes what all buckets have seen. When the engine's speed changes,
    the buckets that did not see it yet are guessed to have changed as much, until they run.

    Args:
        buckets: how many there are.
    """

    def __init__(self, buckets: int) -> None:
        self._own: list[deque[float]] = [deque(maxlen=WINDOW) for _ in range(buckets)]
        self._all = deque([1.0] * ENOUGH, maxlen=WINDOW)
        self._guess: dict[int, float] = {}
        self._anchor: dict[int, float] = {}
        self._count = 0
        self._ran: dict[int, int] = {}
        self._odd: list[_Odd] = []
        self._slower = False

    def ratio(self, bucket: int) -> float:
        """The factor to multiply the curve by."""
        own = _quantile(self._seen(bucket), QUANTILE) * self._guess.get(bucket, 1.0)
        if self._count - self._ran.get(bucket, 0) < FORGET:
            return own
        return min(own, _quantile(self._all, QUANTILE))

    def learn(self, bucket: int, ratio: float) -> None:
        """Take in one batch's observed time over the curve's."""
        self._settle(bucket, ratio)
        self._count += 1
        self._ran[bucket] = self._count
        drifted = self._drifted(bucket, ratio)
        self._own[bucket].append(ratio)
        self._all.append(ratio)
        if drifted:
            self._follow()

    def _seen(self, bucket: int) -> deque[float]:
        own = self._own[bucket]
        return own if len(own) >= ENOUGH else self._all

    def _settle(self, bucket: int, ratio: float) -> None:
        """Keep or drop the guess about a bucket, now that it has run."""
        guess = self._guess.pop(bucket, None)
        if guess is None:
            return
        off = ratio / _quantile(self._seen(bucket), QUANTILE)
        if abs(math.log(off)) > abs(math.log(guess)) / 2:
            own = self._own[bucket]
            self._own[bucket] = deque((each * guess for each in own), maxlen=WINDOW)
            self._anchor[bucket] = _quantile(self._own[bucket], 0.5)

    def _drifted(self, bucket: int, ratio: float) -> bool:
        """Whether the last few batches were all off, on the same side."""
        low, level, high = self._usual(bucket)
        if low <= ratio <= high:
            self._odd.clear()
            return False
        if self._odd and (ratio > high) != self._slower:
            self._odd.clear()
        self._slower = ratio > high
        self._odd.append(_Odd(bucket, ratio, level))
        return len(self._odd) >= DRIFTED

    def _usual(self, bucket: int) -> tuple[float, float, float]:
        """The range of ratios that tell nothing new, and their median; without those that may."""
        seen = list(self._seen(bucket))
        own = len(self._own[bucket]) >= ENOUGH
        odd = sum(each.bucket == bucket for each in self._odd) if own else len(self._odd)
        kept = seen[: len(seen) - odd] or seen
        low, level, high = (_quantile(kept, share) for share in (1 - QUANTILE, 0.5, QUANTILE))
        return low / DRIFT, level, high * DRIFT

    def _follow(self) -> None:
        """Believe the last few batches alone, and guess the same change for all other buckets.

        The change of a bucket is told from the level that it was last found to change to, so that
        changes to and fro cancel: where one size runs for hours and its times scatter, nothing adds
        up to the guess about another.
        """
        odd, self._odd = self._odd, []
        self._all = deque(_filled([each.ratio for each in odd]), maxlen=WINDOW)
        changes = [each.ratio / each.level for each in odd]
        moved = [each.ratio / self._anchor.get(each.bucket, each.level) for each in odd]
        for each in odd:
            own = _filled([each.level * change for change in changes])
            self._own[each.bucket] = deque(own, maxlen=WINDOW)
            self._anchor[each.bucket] = _quantile(own, 0.5)
        ran = {each.bucket for each in odd}
        for bucket, own in enumerate(self._own):
            if bucket not in ran and len(own) >= ENOUGH:
                factor = _quantile(moved, 0.5)
                self._guess[bucket] = factor * self._guess.get(bucket, 1.0)


@dataclass(frozen=True, slots=True)
class _Odd:
    """A batch that took longer, or less, than usual."""

    bucket: int
    ratio: float
    level: float
    """The usual ratio of its bucket before."""


def _quantile(ratios: Iterable[float], share: float) -> float:
    """By nearest rank."""
    seen = sorted(ratios)
    return seen[max(0, math.ceil(share * len(seen)) - 1)]


def _filled(ratios: list[float]) -> list[float]:
    """Repeated until there are enough to take a quantile of."""
    return (ratios * ENOUGH)[:ENOUGH]


class Forecast:
    """The corrected curve as a table, and the questions that decisions ask of it. Seconds.

    Args:
        curve: as measured.
        max_batch: a smaller limit than the curve's, where one is set.
    """

    def __init__(self, curve: Curve, max_batch: int | None = None) -> None:
        self.curve = curve
        self._correction = Correction(len(curve.sizes))
        self.limit(max_batch or curve.max_batch)

    def limit(self, max_batch: int) -> None:
        """Set the largest batch, at most the curve's own; the correction stays."""
        self.max_batch = min(max_batch, self.curve.max_batch)
        sizes = range(1, self.max_batch + 1)
        self._measured = [self.curve.seconds(size) for size in sizes]
        self._bucket = [self.curve.bucket(size) for size in sizes]
        self._ratios: list[float] = []
        self._refresh()

    def seconds(self, batch: int) -> float:
        """Corrected time of 1 to ``max_batch`` items; never less than a smaller batch's."""
        return self._times[batch - 1]

    def measured(self, batch: int) -> float:
        """The curve's own time."""
        return self._measured[batch - 1]

    def ratio(self, batch: int) -> float:
        """The correction at this size."""
        return self._ratios[self._bucket[batch - 1]]

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
        return self.rate(self.best(max(1, self.fits(slo_s / 2))))

    def saving(self, batch: int) -> float:
        """Engine time that one more member saves against a batch of its own."""
        if batch >= self.max_batch:
            return 0.0
        return self._times[batch - 1] + self._times[0] - self._times[batch]

    def learn(self, batch: int, seconds: float) -> None:
        """Take in what a batch really took."""
        index = batch - 1
        self._correction.learn(self._bucket[index], seconds / self._measured[index])
        self._refresh()

    def _refresh(self) -> None:
        ratios = [self._correction.ratio(each) for each in range(len(self.curve.sizes))]
        if ratios == self._ratios:
            return
        self._ratios = ratios
        pairs = zip(self._measured, self._bucket, strict=True)
        self._times = list(accumulate((time * ratios[each] for time, each in pairs), max))
        best: list[int] = []
        for size in range(1, self.max_batch + 1):
            before = best[-1] if best else size
            best.append(size if self.rate(size) >= self.rate(before) else before)
        self._best = best
