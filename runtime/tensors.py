"""Batches of named tensors: stacking, splitting, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Tensors", "chunks", "group_by_shape", "pad", "rows", "stack", "unstack"]

Array = NDArray[np.generic]
Tensors = dict[str, Array]
"""Arrays by input or output name."""


def rows(tensors: Tensors) -> int:
    """The batch size: the length of the first dimension."""
    return int(next(iter(tensors.values())).shape[0])


def stack(items: Sequence[Tensors]) -> Tensors:
    """One batch from items of equal shapes."""
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def unstack(batch: Tensors) -> list[Tensors]:
    """The items of a batch; views, not copies."""
    return [{name: array[i] for name, array in batch.items()} for i in range(rows(batch))]


def pad(batch: Tensors, size: int) -> Tensors:
    """The batch filled up to ``size`` with copies of its last item."""
    missing = size - rows(batch)
    if missing <= 0:
        return batch
    return {name: np.concatenate([a, np.repeat(a[-1:], missing, 0)]) for name, a in batch.items()}


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``count``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def group_by_shape(items: Sequence[Tensors]) -> list[list[int]]:
    """Indices of items that can be stacked with each other, in order of first appearance."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for index, item in enumerate(items):
        key = tuple((name, array.shape) for name, array in item.items())
        groups.setdefault(key, []).append(index)
    return list(groups.values())
