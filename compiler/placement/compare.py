"""How far two results of one step lie apart, whatever they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from specs.values import Value

__all__ = ["ATOL", "RTOL", "Apart", "answers_apart", "pixels_apart"]

ATOL, RTOL = 1e-5, 1e-4
"""What two float32 computations of one number may differ by."""
LEVELS = 255
LABELS = frozenset({"label", "labels"})


@dataclass(frozen=True)
class Apart:
    """Largest and mean distance; infinite where two results have different forms."""

    worst: float
    mean: float

    def or_worse(self, other: Apart) -> Apart:
        """The one with the larger distance."""
        return self if self.worst >= other.worst else other


def pixels_apart(found: Any, wanted: Any, value: Value) -> Apart:  # noqa: ANN401 - arrays, by part
    """Distance of pre-processed items in grey levels of 255.

    Args:
        found: an array, or arrays by name.
        wanted: the same of the reference.
        value: their type; ``step`` says what a grey level is worth.
    """
    if isinstance(wanted, Mapping):
        return _worst_part(found, cast("Mapping[str, Any]", wanted), value)
    have, want = np.asarray(found), np.asarray(wanted)
    if have.shape != want.shape:
        return Apart(np.inf, np.inf)
    if not want.size:
        return Apart(0.0, 0.0)
    gap = np.abs(have.astype(np.float64) - want.astype(np.float64)) / _step(want, value)
    gap[np.isnan(gap)] = np.inf
    return Apart(float(gap.max()), float(gap.mean()))


def _worst_part(found: Any, wanted: Mapping[str, Any], value: Value) -> Apart:  # noqa: ANN401
    if not isinstance(found, Mapping) or set(cast("Mapping[str, Any]", found)) != set(wanted):
        return Apart(np.inf, np.inf)
    parts = cast("Mapping[str, Any]", found)
    worst = Apart(0.0, 0.0)
    for name, want in wanted.items():
        worst = pixels_apart(parts[name], want, value.fields.get(name, value)).or_worse(worst)
    return worst


def _step(want: NDArray[Any], value: Value) -> float:
    if value.step:
        return value.step
    if want.dtype.kind in "biu":
        return 1.0
    return float(np.abs(want).max()) / LEVELS or 1.0


def answers_apart(found: Any, wanted: Any) -> Apart:  # noqa: ANN401 - nested lists, mappings, arrays
    """Distance of two answers in units of ``ATOL + RTOL * |wanted|``; text must be equal."""
    if isinstance(wanted, Mapping):
        return _mappings(found, cast("Mapping[str, Any]", wanted))
    if isinstance(wanted, str) or wanted is None:
        return _same(found == wanted)
    if isinstance(wanted, list | tuple) and not _numbers(cast("object", wanted)):
        return _sequences(found, cast("Sequence[Any]", wanted))
    have: NDArray[Any] = np.asarray(found)
    want: NDArray[Any] = np.asarray(cast("Any", wanted))
    if have.shape != want.shape or have.dtype.kind not in "biuf":
        return Apart(np.inf, np.inf)
    if not want.size:
        return Apart(0.0, 0.0)
    if want.dtype == np.uint8:  # pictures: a level apart is rounding
        gap = np.abs(have.astype(int) - want.astype(int)).astype(np.float64)
    else:
        bound = ATOL + RTOL * np.abs(want.astype(np.float64))
        gap = np.abs(have.astype(np.float64) - want.astype(np.float64)) / bound
    same = (have == want) | ((have != have) & (want != want))  # noqa: PLR0124 - NaN is not itself
    gap = np.where(same, 0.0, gap)
    gap[np.isnan(gap)] = np.inf
    return Apart(float(gap.max()), float(gap.mean()))


def _numbers(wanted: object) -> bool:
    try:
        return np.asarray(wanted).dtype.kind in "biuf"
    except ValueError:  # ragged
        return False


def _mappings(found: Any, wanted: Mapping[str, Any]) -> Apart:  # noqa: ANN401
    if not isinstance(found, Mapping):
        return Apart(np.inf, np.inf)
    parts = cast("Mapping[str, Any]", found)
    if set(parts) - LABELS != set(wanted) - LABELS:
        return Apart(np.inf, np.inf)
    # Names of classes come from the artifact's files, which a reference does not read.
    shared = [key for key in wanted if key in parts]
    return _worst(answers_apart(parts[key], wanted[key]) for key in shared)


def _sequences(found: Any, wanted: Sequence[Any]) -> Apart:  # noqa: ANN401
    if isinstance(found, str) or not isinstance(found, Sequence | np.ndarray):
        return Apart(np.inf, np.inf)
    have = cast("Sequence[Any]", found)
    if len(have) != len(wanted):
        return Apart(np.inf, np.inf)
    return _worst(answers_apart(a, b) for a, b in zip(have, wanted, strict=True))


def _worst(parts: Any) -> Apart:  # noqa: ANN401 - an iterable of Apart
    worst = Apart(0.0, 0.0)
    for part in parts:
        worst = part.or_worse(worst)
    return worst


def _same(equal: bool) -> Apart:
    return Apart(0.0, 0.0) if equal else Apart(np.inf, np.inf)
