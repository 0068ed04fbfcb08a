"""What a batch is made of while it is measured: golden items repeated, else random tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.golden import batch_of, read_golden
from runtime.tensors import Array, Tensors
from specs.manifest import Manifest
from specs.schema import TensorSpec

__all__ = ["batch_axis", "find_inputs", "held_sizes"]

SEED = 0
HIGH = 8
"""Random integers are 0 to 7: valid for most vocabularies and class lists."""


def batch_axis(manifest: Manifest) -> str | None:
    """The name of the batch where it is dynamic; None where the graph fixes it."""
    first = next(iter(manifest.inputs.values())).shape[0]
    ranged = isinstance(first, str) and manifest.batch.min < manifest.batch.max
    return first if ranged and isinstance(first, str) else None


def held_sizes(manifest: Manifest) -> dict[str, int]:
    """The other dynamic axes, at ``opt``."""
    batch = next(iter(manifest.inputs.values())).shape[0]
    return {name: axis.opt for name, axis in manifest.axes.items() if name != batch}


def find_inputs(folder: Path, manifest: Manifest, batch: int) -> tuple[Tensors, str]:
    """One batch, and what it is made of in words.

    ``folder`` holds the variant's golden tensors; ``manifest`` is the variant's own (``of``).
    The first golden case whose other axes stand at ``opt`` is repeated, so that values are those
    of real items; without one, seeded random tensors of those shapes.
    """
    shapes = {name: _item_shape(tensor, manifest) for name, tensor in manifest.inputs.items()}
    for golden in read_golden(folder):
        items = golden.case.inputs
        if {name: array.shape[1:] for name, array in items.items()} == shapes:
            return batch_of(items, batch, 0), f"golden case {golden.case.name}"
    rng = np.random.default_rng(SEED)
    made = {
        name: _draw(rng, tensor.dtype, (batch, *shapes[name]))
        for name, tensor in manifest.inputs.items()
    }
    return made, f"random tensors, seed {SEED}"


def _item_shape(tensor: TensorSpec, manifest: Manifest) -> tuple[int, ...]:
    return tuple(
        dim if isinstance(dim, int) else manifest.axes[dim].opt for dim in tensor.shape[1:]
    )


def _draw(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(0, 2 if kind.kind == "b" else HIGH, shape).astype(kind)
