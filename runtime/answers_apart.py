"""How far two answers to one request lie apart, whatever they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["ATOL", "RTOL", "Apart", "answers_apart"]

ATOL, RTOL = 1e-5, 1e-4
"""What two float32 computations of one number may differ by."""
LABELS = frozenset({"label", "labels"})


@dataclass(frozen=True)
class Apart:
    """Largest and mean distance; infinite where two results have different forms."""

    worst: float
    mean: float

    def or_worse(self, other: Apart) -> Apart:
        """The one with the larger distance."""
        return self if self.worst >= other.worst else other


def answers_apart(
    found: Any,  # noqa: ANN401 - nested lists, mappings, arrays
    wanted: Any,  # noqa: ANN401
    atol: float = ATOL,
    rtol: float = RTOL,
) -> Apart:
    """Distance of two answers in units of ``atol + rtol * |wanted|``.

    Text must be equal, and so must the names of classes where both answers have some; a level of
    a uint8 picture is one unit.
    """
    return _Units(atol, rtol).between(found, wanted)


@dataclass(frozen=True)
class _Units:
    atol: float
    rtol: float

    def between(self, found: Any, wanted: Any) -> Apart:  # noqa: ANN401
        if isinstance(wanted, Mapping):
            return self._mappings(found, cast("Mapping[str, Any]", wanted))
        if isinstance(wanted, str) or wanted is None:
            return _same(equal=found == wanted)
        if isinstance(wanted, list | tuple) and not _numbers(cast("object", wanted)):
            return self._sequences(found, cast("Sequence[Any]", wanted))
        if isinstance(found, list | tuple) and not _numbers(cast("object", found)):
            return _same(equal=False)
        return self._arrays(np.asarray(cast("Any", found)), np.asarray(cast("Any", wanted)))

    def _arrays(self, have: NDArray[Any], want: NDArray[Any]) -> Apart:
        if have.shape != want.shape or have.dtype.kind not in "biuf":
            return _same(equal=False)
        if not want.size:
            return _same(equal=True)
        left, right = have.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Pictures: a level apart is rounding.
            unit = 1.0 if want.dtype == np.uint8 else self.atol + self.rtol * np.abs(right)
            gap = np.abs(left - right) / unit
        same = (have == want) | ((have != have) & (want != want))  # noqa: PLR0124 - NaN is not itself
        gap = np.where(same, 0.0, gap)
        gap[np.isnan(gap)] = np.inf
        return Apart(float(gap.max()), float(gap.mean()))

    def _mappings(self, found: Any, wanted: Mapping[str, Any]) -> Apart:  # noqa: ANN401
        if not isinstance(found, Mapping):
            return _same(equal=False)
        parts = cast("Mapping[str, Any]", found)
        if set(parts) - LABELS != set(wanted) - LABELS:
            return _same(equal=False)
        # Names of classes come from the artifact's files, which a reference does not read.
        shared = [key for key in wanted if key in parts]
        return _worst(self.between(parts[key], wanted[key]) for key in shared)

    def _sequences(self, found: Any, wanted: Sequence[Any]) -> Apart:  # noqa: ANN401
        if isinstance(found, str) or not isinstance(found, Sequence | np.ndarray):
            return _same(equal=False)
        have = cast("Sequence[Any]", found)
        if len(have) != len(wanted):
            return _same(equal=False)
        return _worst(self.between(a, b) for a, b in zip(have, wanted, strict=True))


def _numbers(value: object) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:  # ragged
        return False


def _worst(parts: Iterable[Apart]) -> Apart:
    worst = Apart(0.0, 0.0)
    for part in parts:
        worst = part.or_worse(worst)
    return worst


def _same(*, equal: bool) -> Apart:
    return Apart(0.0, 0.0) if equal else Apart(np.inf, np.inf)
