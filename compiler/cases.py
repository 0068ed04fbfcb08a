"""Golden cases: the inputs that parity is measured on, and the batches made of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from compiler.samples import preprocess_file
from runtime.golden import Case, batch_of
from runtime.processing import Processing
from runtime.tensors import Tensors, group_by_shape, rows, stack
from specs.axes import AxisRange
from specs.errors import SourceError
from specs.schema import Spec, TensorSpec

__all__ = ["Case", "batch_of", "corner_batches", "example_inputs", "golden_cases"]

ITEMS = 8
"""Distinct items of the main case; larger batches repeat them."""
SHAPES = 4
"""Sample shapes that get a case of their own, where items differ in shape."""
HIGH = 8
"""Random integers are drawn from 0 to 7: valid for most vocabularies and class lists."""


def corner_batches(batch: AxisRange) -> tuple[int, ...]:
    """Batch 1, 2, opt, max, and an odd size between, where the range has them."""
    low = batch.opt if batch.opt < batch.max - 1 else batch.min
    odd = (low + batch.max) // 2 | 1
    wanted = {batch.min, 1, 2, batch.opt, batch.max, odd}
    return tuple(sorted(size for size in wanted if batch.min <= size <= batch.max))


def golden_cases(spec: Spec, files: list[Path], processing: Processing) -> Iterator[Case]:
    """The cases of a spec: its samples, else random items, then each other axis at its corners."""
    batches = corner_batches(spec.batch)
    if files:
        items = [preprocess_file(processing, file, "verify.samples") for file in files[:ITEMS]]
        for indices in group_by_shape(items)[:SHAPES]:
            inputs = _with_neighbour(stack([items[index] for index in indices]))
            _check_ranges(spec, inputs)
            yield Case(_shape_name("samples", inputs, spec), inputs, batches)
    else:
        yield Case("random", _random(spec, {}, ITEMS), batches)
    yield from _axis_cases(spec)


def _with_neighbour(inputs: Tensors) -> Tensors:
    """At least two items: a lone one gets its mirror image, else all neighbours would be equal."""
    if rows(inputs) > 1:
        return inputs
    mirrored = {name: np.flip(a, tuple(range(1, a.ndim))) for name, a in inputs.items()}
    return {name: np.concatenate([array, mirrored[name]]) for name, array in inputs.items()}


def _axis_cases(spec: Spec) -> Iterator[Case]:
    """Every dynamic axis but the batch at its smallest, an odd and its largest size."""
    batch = spec.batch
    few = tuple(sorted({batch.min, min(batch.min + 1, batch.max)}))
    first = next(iter(spec.inputs.values())).shape[0]
    for name, axis in spec.dynamic_axes.items():
        if name == first or not any(name in tensor.shape for tensor in spec.inputs.values()):
            continue
        odd = min((axis.min + axis.max) // 2 | 1, axis.max)
        for size in sorted({axis.min, odd, axis.max}):
            yield Case(f"{name}={size}", _random(spec, {name: size}, 1), few)


def example_inputs(spec: Spec) -> Tensors:
    """Inputs to trace with: every axis at opt, the batch at 2 or more where it may be.

    A model traced at batch 1 can be frozen there without a word.
    """
    batch = spec.batch
    return _random(spec, {}, max(batch.min, min(2, batch.max)))


def _random(spec: Spec, sizes: dict[str, int], count: int) -> Tensors:
    """Seeded random items; axes that ``sizes`` does not give stand at opt."""
    rng = np.random.default_rng(spec.verify.seed)

    def draw(tensor: TensorSpec) -> np.ndarray:
        item = [
            dim if isinstance(dim, int) else sizes.get(dim, spec.axis(dim).opt)
            for dim in tensor.shape[1:]
        ]
        shape = (count, *item)
        kind = np.dtype(tensor.dtype)
        if kind.kind == "f":
            return rng.standard_normal(shape).astype(kind)
        return rng.integers(0, 2 if kind.kind == "b" else HIGH, shape).astype(kind)

    return {name: draw(tensor) for name, tensor in spec.inputs.items()}


def _check_ranges(spec: Spec, inputs: Tensors) -> None:
    for name, tensor in spec.inputs.items():
        for dim, size in zip(tensor.shape[1:], inputs[name].shape[1:], strict=True):
            axis = spec.axis(dim)
            if not axis.min <= size <= axis.max:
                message = f"a sample gives {dim} = {size}, its range is {axis.min} to {axis.max}"
                hint = "widen the range in dynamic_axes, or resize in preprocess"
                raise SourceError(message, hint=hint, code="sample_range")


def _shape_name(name: str, inputs: Tensors, spec: Spec) -> str:
    """The case's name, with the sizes of its dynamic axes where it has any."""
    sizes = {
        dim: size
        for key, tensor in spec.inputs.items()
        for dim, size in zip(tensor.shape[1:], inputs[key].shape[1:], strict=True)
        if isinstance(dim, str)
    }
    told = ", ".join(f"{dim}={size}" for dim, size in sizes.items())
    return f"{name} {told}" if told else name
