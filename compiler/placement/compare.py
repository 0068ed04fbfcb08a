"""How far two results of one step lie apart, whatever they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from runtime.answers_apart import ATOL, RTOL, Apart, answers_apart
from specs.values import Value

__all__ = ["ATOL", "RTOL", "Apart", "answers_apart", "pixels_apart"]

LEVELS = 255


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
