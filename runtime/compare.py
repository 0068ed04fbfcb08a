"""How far two sets of outputs lie apart, and where they lie furthest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.tensors import Array, Tensors
from specs.engines import Precision
from specs.precision import TolerancePair

__all__ = ["Gap", "Tolerance", "worst_gap"]


@dataclass(frozen=True)
class Tolerance:
    """Parity holds where ``|found - reference| <= atol * scale + rtol * |reference|``.

    Args:
        atol: absolute part.
        rtol: relative part.
        in_rms: whether ``scale`` is the reference's root mean square, where that is above 1, and
            not 1: rounding errors grow with the values that are summed up, also where a sum
            happens to be near zero.
    """

    atol: float
    rtol: float
    in_rms: bool = False

    @classmethod
    def of(cls, pair: TolerancePair | None, precision: Precision) -> Tolerance:
        """What a variant is held to; without bounds where it is only measured."""
        if pair is None:
            return cls(np.inf, 0.0)
        return cls(pair.atol, pair.rtol, in_rms=precision != "fp32")

    def allowed(self, reference: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest difference allowed, for each element."""
        finite = reference[np.isfinite(reference)]
        rms = float(np.sqrt(np.mean(finite**2))) if self.in_rms and finite.size else 1.0
        return self.atol * max(1.0, rms) + self.rtol * np.abs(reference)


@dataclass(frozen=True)
class Gap:
    """The place where two sets of outputs differ most.

    Args:
        output: the output's name.
        index: position in it, the batch first.
        found, reference: the two values there.
        max_abs: largest absolute difference over all outputs.
        excess: the difference there over what is allowed; above 1 is beyond tolerance.
        shapes: the two shapes where they differ, which no tolerance allows; else "".
    """

    output: str = ""
    index: tuple[int, ...] = ()
    found: float = 0.0
    reference: float = 0.0
    max_abs: float = 0.0
    excess: float = 0.0
    shapes: str = ""

    def __str__(self) -> str:
        if self.shapes:
            return f"output '{self.output}' has {self.shapes}"
        place = f"output '{self.output}' at {list(self.index)}"
        return f"{place}: {self.found:.6g}, the reference has {self.reference:.6g}"


def worst_gap(found: Tensors, reference: Mapping[str, Array], tolerance: Tolerance) -> Gap:
    """The widest gap over all outputs of ``reference``, measured by the tolerance."""
    gaps = [_gap(name, found[name], array, tolerance) for name, array in reference.items()]
    widest = max(gaps, key=lambda gap: gap.excess)
    largest = max(gap.max_abs for gap in gaps)
    return Gap(
        widest.output,
        widest.index,
        widest.found,
        widest.reference,
        largest,
        widest.excess,
        widest.shapes,
    )


def _gap(name: str, found: Array, reference: Array, tolerance: Tolerance) -> Gap:
    if found.shape != reference.shape or found.dtype != reference.dtype:
        shapes = (
            f"shape {list(found.shape)} {found.dtype}, "
            f"the reference has {list(reference.shape)} {reference.dtype}"
        )
        return Gap(name, excess=np.inf, max_abs=np.inf, shapes=shapes)
    if not reference.size:
        return Gap(name)
    left, right = found.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        # Equal infinities and two NaN agree; a NaN against a number never does.
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        distance = np.where(same, 0.0, np.abs(left - right))
        distance = np.where(np.isnan(distance), np.inf, distance)
        allowed = np.maximum(tolerance.allowed(right), 1e-300)
        excess = np.where(distance == 0.0, 0.0, distance / allowed)
    excess = np.where(np.isnan(excess), np.inf, excess)
    flat = int(np.argmax(excess))
    index = tuple(int(i) for i in np.unravel_index(flat, excess.shape))
    values = float(left[index]), float(right[index])
    return Gap(name, index, *values, float(distance.max()), float(excess[index]))
