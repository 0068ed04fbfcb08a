"""Parity: the built variant against PyTorch, at every corner of every dynamic axis."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from compiler.cases import batch_of
from compiler.compare import Gap, Tolerance, worst_gap
from compiler.golden import Golden
from runtime.engines import get_engine
from runtime.golden import SHIFTS
from runtime.predictor import Predictor
from runtime.tensors import Tensors, rows
from specs.errors import EngineError, ParityError
from specs.manifest import ParityCase

__all__ = ["check_parity", "worst_excess"]


def check_parity(
    predictor: Predictor,
    goldens: Iterable[Golden],
    tolerance: Tolerance,
    locate: Callable[[Tensors], str],
) -> list[ParityCase]:
    """Run every golden case at each of its batch sizes, each item among two sets of neighbours.

    Args:
        predictor: the variant, through the code that runs in production.
        goldens: the cases with PyTorch's outputs.
        tolerance: what may differ.
        locate: names the first node at which the two diverge on the batch that failed, or ""
            where it cannot be found; called on failure alone.

    Raises:
        ParityError: beyond tolerance; with the worst output, its index and both values.
    """
    results: list[ParityCase] = []
    for golden in goldens:
        for size in golden.case.batches:
            shift, gap = _worst(predictor, golden, size, tolerance)
            where = f"{golden.case.name}, batch {size}"
            if gap.excess > 1:
                first = locate(batch_of(golden.case.inputs, size, shift))
                raise _beyond(gap, where, tolerance, first)
            results.append(ParityCase(case=where, max_abs=gap.max_abs, max_excess=gap.excess))
    return results


def _worst(
    predictor: Predictor, golden: Golden, size: int, tolerance: Tolerance
) -> tuple[int, Gap]:
    """The widest gap, and where the batch that has it starts among the items."""
    worst = (0, Gap())
    for shift in SHIFTS:
        inputs = batch_of(golden.case.inputs, size, shift)
        try:
            found = predictor.predict_batch(inputs)
        except EngineError as error:
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            message = f"the built graph fails on inputs of shape {shapes}: {error.message}"
            hint = (
                "the graph declares sizes that it does not take: the forward pass reads a size as "
                "a number (int(x.shape[0]), a view with fixed sizes); write it with -1 or x.shape"
            )
            raise ParityError(message, hint=hint, code="parity_run") from error
        gap = worst_gap(found, batch_of(golden.outputs, size, shift), tolerance)
        worst = max(worst, (shift, gap), key=lambda each: (each[1].excess, each[1].max_abs))
    return worst


def _beyond(gap: Gap, where: str, tolerance: Tolerance, first: str) -> ParityError:
    message = f"the built variant and the reference differ ({where}): {gap}"
    if not gap.shapes:
        unit = " times the output's RMS" if tolerance.in_rms else ""
        allowed = f"atol {tolerance.atol:g}{unit}, rtol {tolerance.rtol:g}"
        message += f"; {gap.excess:.3g} times the tolerance ({allowed})"
    if first:
        message += f"\n  first divergence: {first}"
    hint = "look at the first node that differs; raise verify.atol or rtol only if that is right"
    return ParityError(message, hint=hint)


def worst_excess(graph: Path, goldens: Iterable[Golden], tolerance: Tolerance) -> float:
    """The largest excess of a graph over the golden cases, by ONNX Runtime on the CPU.

    Infinite where the graph cannot be loaded or run there, or gives NaN for a number.
    """
    worst = 0.0
    try:
        with contextlib.closing(get_engine("onnxruntime").open(graph, "cpu", {})) as session:
            for golden in goldens:
                size = golden.case.batches[0]
                for start in range(0, rows(golden.case.inputs), size):
                    found = session.run(batch_of(golden.case.inputs, size, start))
                    gap = worst_gap(found, batch_of(golden.outputs, size, start), tolerance)
                    worst = max(worst, gap.excess)
    except EngineError:
        return math.inf
    return worst
