"""What batches took, and what to believe of it: factors of the measured curve, and delays."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Correction", "Delays"]

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


class Delays:
    """What batches took beyond ``SLOWER`` times their measured time: upper quantiles, seconds.

    An engine is seldom that much slower; cores that others use make it wait. Such a wait has
    nothing to do with a batch's size. As a factor of a curve of microseconds it would be guessed
    to last for seconds at other sizes.

    Args:
        buckets: how many there are. One that did not run lately takes what all have seen.
    """

    def __init__(self, buckets: int) -> None:
        self._own = [_Delay() for _ in range(buckets)]
        self._all = _Delay()
        self._count = 0
        self._ran: dict[int, int] = {}

    def learn(self, bucket: int, delay: float) -> None:
        """Take in one batch's."""
        self._count += 1
        self._ran[bucket] = self._count
        self._own[bucket].add(delay)
        self._all.add(delay)

    def usual(self, bucket: int) -> float:
        """What to expect of a batch in this bucket."""
        own = self._own[bucket]
        if own.count < DRIFTED:
            return self._all.usual
        rested = self._count - self._ran[bucket] >= FORGET
        return min(own.usual, self._all.usual) if rested else own.usual


class _Delay:
    """An upper quantile of the last ones, which follows when it changes."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=WINDOW)
        self.usual = 0.0

    @property
    def count(self) -> int:
        """How many are known."""
        return len(self._last)

    def add(self, delay: float) -> None:
        """One more; where the last few all were far below the usual one, or above, it is over."""
        self._last.append(delay)
        recent = list(self._last)[-DRIFTED:]
        below, above = max(recent) < self.usual / 2, min(recent) > 2 * self.usual
        if len(recent) == DRIFTED and (below or above):
            self._last = deque(recent, maxlen=WINDOW)
            self.usual = _quantile(recent, QUANTILE)
        elif self.count >= ENOUGH:
            self.usual = _quantile(self._last, QUANTILE)


def _quantile(ratios: Iterable[float], share: float) -> float:
    """By nearest rank."""
    seen = sorted(ratios)
    return seen[max(0, math.ceil(share * len(seen)) - 1)]


def _filled(ratios: list[float]) -> list[float]:
    """Repeated until there are enough to take a quantile of."""
    return (ratios * ENOUGH)[:ENOUGH]
