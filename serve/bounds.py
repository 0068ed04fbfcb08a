"""Bounds on a share that hold for few outcomes, too.

Of ``count`` independent outcomes, ``hits`` were of a kind whose share is p. Then p is below
``upper`` and above ``lower``, each but with probability exp(-nats) at most: Chernoff's bound, with
the Kullback-Leibler divergence of two coins. There is no normal approximation, which would call
three failures of twenty impossible too soon.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

__all__ = ["lower", "quantile_upper", "upper"]

STEPS = 40
"""Halvings of [0, 1]: the bound to 1e-12."""


def upper(hits: int, count: int, nats: float) -> float:
    """The largest share that ``hits`` of ``count`` do not speak against; 1 without outcomes."""
    if not count:
        return 1.0
    found = hits / count
    return _halve(found, 1.0, lambda share: count * _divergence(found, share) <= nats)


def lower(hits: int, count: int, nats: float) -> float:
    """The smallest such share; 0 without outcomes."""
    return 1.0 - upper(count - hits, count, nats)


def quantile_upper(ordered: Sequence[float], quantile: float, nats: float) -> float:
    """A value that the quantile is not above, but with probability exp(-nats) at most.

    Args:
        ordered: independent values, ascending.
        quantile: as 0.9.
        nats: how sure; ln of one over the probability.

    Returns:
        one of the values; infinity where there are too few to tell.
    """
    count, most = len(ordered), 1.0 - quantile
    if upper(0, count, nats) > most:
        return math.inf
    # The share of values above a place shrinks with the place, and so does its bound.
    place = bisect_left(
        range(count), x=True, key=lambda at: upper(count - 1 - at, count, nats) <= most
    )
    return ordered[place]


def _divergence(found: float, share: float) -> float:
    """Of a coin with ``found`` from one with ``share``, in nats."""
    return _part(found, share) + _part(1.0 - found, 1.0 - share)


def _part(found: float, share: float) -> float:
    if not found:
        return 0.0
    return found * math.log(found / share) if share else math.inf


def _halve(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """The largest number in [low, high] that ``holds`` is true of; it is true at ``low``."""
    if holds(high):
        return high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high
