"""Batches of named tensors: stacking, splitting, padding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Row",
    "Rows",
    "Tensors",
    "chunks",
    "group_by_shape",
    "joined",
    "pad",
    "rows",
    "side_by_side",
    "stack",
    "unstack",
]

Array = NDArray[np.generic]
Tensors = dict[str, Array]
"""Arrays by input or output name."""


class Row(dict[str, Array]):
    """An item that lies in a block of several: views of one place of each of its arrays.

    Rows that lie side by side are stacked without a copy.

    Args:
        block: arrays with the batch dimension.
        index: the place.
    """

    __slots__ = ("block", "index")

    def __init__(self, block: Tensors, index: int) -> None:
        super().__init__([(name, array[index]) for name, array in block.items()])
        self.block = block
        self.index = index


class Rows(Sequence[Tensors]):
    """The items of a batch, each made where it is looked at; parts of it are views, too.

    Args:
        batch: arrays with the batch dimension, of at least one item.
    """

    __slots__ = ("batch",)
    alike = True
    """All items have the same shapes."""

    def __init__(self, batch: Tensors) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return rows(self.batch)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return Rows({name: array[index] for name, array in self.batch.items()})
        place = range(len(self))[index]  # IndexError, and the negative ones
        return Row(self.batch, place)


def joined(parts: Sequence[Sequence[Tensors]]) -> Sequence[Tensors]:
    """The items of all parts, in order; of ``Rows`` that can be stacked, ``Rows`` again."""
    if len(parts) == 1:
        return parts[0]
    batches = [part.batch for part in parts if isinstance(part, Rows)]
    if len(batches) == len(parts) and len({_form(batch) for batch in batches}) == 1:
        names = batches[0]
        return Rows({name: np.concatenate([batch[name] for batch in batches]) for name in names})
    return [item for part in parts for item in part]


def _form(batch: Tensors) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """What batches that can be put together have in common."""
    return tuple((name, array.shape[1:], array.dtype.str) for name, array in batch.items())


def rows(tensors: Tensors) -> int:
    """The batch size: the length of the first dimension."""
    return int(next(iter(tensors.values())).shape[0])


def stack(items: Sequence[Tensors], names: Collection[str] | None = None) -> Tensors:
    """One batch from items of equal shapes; views where they lie side by side in one block.

    Args:
        items: at least one.
        names: of the arrays that are wanted; by default all of the first item's.
    """
    if isinstance(items, Rows):
        return {name: items.batch[name] for name in (items.batch if names is None else names)}
    wanted = items[0] if names is None else names
    runs = _runs(items)
    if runs and all(name in block for name in wanted for block, _, _ in runs):
        return {name: _joined([block[name][a:b] for block, a, b in runs]) for name in wanted}
    return {name: np.stack([item[name] for item in items]) for name in wanted}


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _runs(items: Sequence[Tensors]) -> list[tuple[Tensors, int, int]]:
    """Block, first place and end of those that lie side by side; [] where that gains nothing."""
    runs: list[tuple[Tensors, int, int]] = []
    for item in items:
        if not isinstance(item, Row):
            return []
        block, first, end = runs[-1] if runs else ({}, 0, -1)
        if item.block is block and item.index == end:
            runs[-1] = (block, first, end + 1)
        else:
            runs.append((item.block, item.index, item.index + 1))
    return runs if 2 * len(runs) <= len(items) + 1 else []


def side_by_side(items: Sequence[Tensors], indices: Sequence[int]) -> list[int]:
    """The indices in the order in which the most of their items lie side by side."""
    if not all(isinstance(items[index], Row) for index in indices):
        return list(indices)
    blocks: dict[int, int] = {}

    def place(index: int) -> tuple[int, int]:
        item = items[index]
        assert isinstance(item, Row)  # noqa: S101 - looked at above
        return blocks.setdefault(id(item.block), len(blocks)), item.index

    return sorted(indices, key=place)


def unstack(batch: Tensors) -> list[Tensors]:
    """The items of a batch; views, not copies."""
    return [Row(batch, index) for index in range(rows(batch))]


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


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def group_by_shape(
    items: Sequence[Tensors], names: Collection[str] | None = None
) -> list[list[int]]:
    """Indices of items that can be stacked with each other, in order of first appearance.

    Args:
        items: any number.
        names: of the arrays whose shapes count; by default all of each item's.
    """
    if isinstance(items, Rows):
        return [list(range(len(items)))] if items else []
    groups: dict[Shapes, list[int]] = {}
    known: dict[int, Shapes] = {}
    for index, item in enumerate(items):
        # Rows of one block are alike, whatever else each of them has got since.
        block = id(item.block) if isinstance(item, Row) and names is not None else None
        key = known.get(block) if block is not None else None
        if key is None:
            key = tuple((name, item[name].shape) for name in (item if names is None else names))
            if block is not None:
                known[block] = key
        groups.setdefault(key, []).append(index)
    return list(groups.values())
