"""When the next item comes: recent gaps between arrivals, by how many items are in the system.

How many are in the system (waiting or running) tells a closed loop from an open one: where eight
clients each wait for their answer, a ninth item never comes while eight are here, and the eighth
comes at once while seven are. For independent arrivals the gaps are alike at every count.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

__all__ = ["Arrivals", "Wait"]

GAPS = 16
"""Gaps kept per count."""
FEW = 3
"""With fewer gaps at a count, those of all counts are taken; with fewer that are longer than what
has passed, their mean."""
GONE = 8
"""Of three exponential gaps the longest is seldom shorter than half their mean, and a gap of eight
times that comes once in fifty: a client that left costs one such wait, and is then known to be
gone."""
COUNTS = 4096
"""Counts kept; beyond, batches are full and nobody waits for one more."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What waiting for one more item is expected to bring."""

    seconds: float
    """How long from now, at most."""
    chance: float
    """That one comes within it."""
    saving: float
    """Engine time saved if it comes, times the chance; seconds."""
    cost: float
    """Expected delay, summed over those held; seconds."""


class Arrivals:
    """Learns gaps and the rate; is told of every item that comes or leaves.

    Args:
        window_s: the rate is that of the last so many seconds.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._count = 0
        self._since = -math.inf
        self._last = -math.inf
        self._gaps: dict[int, deque[tuple[float, bool]]] = {}
        self._every: deque[tuple[float, bool]] = deque(maxlen=GAPS)
        self._times: deque[float] = deque()

    def arrived(self, now: float, count: int, items: int = 1) -> None:
        """So many items came at once; ``count`` are in the system, without those that were shed."""
        if self._last > -math.inf:
            self._every.append((now - self._last, True))
        self._last = now
        self._times.extend([now] * items)
        self._forget(now)
        self._note(now, came=True)
        self._enter(now, count)

    def left(self, now: float, count: int) -> None:
        """Items left; ``count`` remain."""
        if count != self._count:
            self._note(now, came=False)
            self._enter(now, count)

    def rate(self, now: float) -> float:
        """Arrivals per second within the window."""
        self._forget(now)
        return len(self._times) / self.window_s

    def wait(self, now: float, held: int, saving: float, most: float) -> Wait | None:
        """How long to wait for one more, where that pays; None where it does not.

        The expected engine time saved, ``saving`` times the share of recent gaps that ended within
        the wait, must exceed ``held`` times the mean wait. Gaps shorter than what has passed
        already no longer count: given that nothing came so far, this was not one of them.

        Args:
            now: seconds.
            held: items that would wait.
            saving: engine seconds saved if one more comes.
            most: the longest wait that is allowed, seconds.
        """
        own = tuple(self._gaps.get(self._count, ()))
        known = len(own) >= FEW
        gaps, since = (own, self._since) if known else (tuple(self._every), self._last)
        if not gaps:
            return None
        passed = now - since
        left = [(gap - passed, came) for gap, came in gaps if gap > passed]
        if known and len(left) < FEW and all(came for _, came in left):
            return _tail([gap for gap, _ in gaps], passed, held, saving, most)
        waits = {wait for wait, came in left if came and wait <= most}
        found = [_judge(left, wait, held, saving) for wait in sorted(waits)]
        best = max(found, key=lambda each: each.saving - each.cost, default=None)
        return best if best and best.saving > best.cost else None

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - self.window_s:
            self._times.popleft()

    def _note(self, now: float, *, came: bool) -> None:
        if self._since > -math.inf and self._count < COUNTS:
            gaps = self._gaps.setdefault(self._count, deque(maxlen=GAPS))
            gaps.append((now - self._since, came))

    def _enter(self, now: float, count: int) -> None:
        self._count, self._since = count, now


def _judge(left: list[tuple[float, bool]], wait: float, held: int, saving: float) -> Wait:
    """What a wait brings, by what was left of each gap; one cut short before tells nothing."""
    known = [min(gap, wait) for gap, came in left if came or gap >= wait]
    share = sum(came and gap <= wait for gap, came in left) / len(known)
    return Wait(wait, share, share * saving, held * sum(known) / len(known))


def _tail(gaps: list[float], passed: float, held: int, saving: float, most: float) -> Wait | None:
    """The wait where this gap is longer than nearly all recent ones.

    What is left is too little to tell how long it may be, so arrivals count as memoryless, at one
    per mean gap, the present one included. That rate falls as time passes, and the wait ends where
    what it saves in an instant, rate times ``saving``, is no more than ``held``; or at
    ``GONE`` times the longest recent gap, since then whoever used to come has gone.
    """
    worth = len(gaps) * saving / held - sum(gaps)
    seconds = min(most, min(worth, GONE * max(gaps)) - passed)
    if seconds <= 0:
        return None
    rate = len(gaps) / (sum(gaps) + passed)
    chance = 1 - math.exp(-rate * seconds)
    return Wait(seconds, chance, chance * saving, held * chance / rate)
