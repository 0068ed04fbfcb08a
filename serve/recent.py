"""How long something takes lately, at most: what to set aside for it."""

from __future__ import annotations

__all__ = ["Recent"]

WEIGHT = 0.1
"""Of the newest value."""
DEVIATIONS = 2.0
"""Mean deviations above the mean; TCP sets its timer in this way, with 4 (RFC 6298)."""
HALVES_S = 0.5
"""Without a new value the figure is halved in this time, after as long a rest.

What is turned away because of it adds nothing to it: one that stayed would turn away for ever.
"""


class Recent:
    """Of seconds that something took; begins at 0."""

    def __init__(self) -> None:
        self._mean = self._deviation = self._at = 0.0

    def add(self, now: float, value: float) -> None:
        """Something took so long."""
        left = self._left(now)
        mean, deviation = self._mean * left, self._deviation * left
        self._deviation = deviation + WEIGHT * (abs(value - mean) - deviation)
        self._mean, self._at = mean + WEIGHT * (value - mean), now

    def most(self, now: float) -> float:
        """What it seldom exceeds lately."""
        return (self._mean + DEVIATIONS * self._deviation) * self._left(now)

    def _left(self, now: float) -> float:
        rest = max(0.0, now - self._at - HALVES_S)
        return 0.5 ** (rest / HALVES_S)
