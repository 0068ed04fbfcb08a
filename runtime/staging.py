"""Memory that items are prepared in, so that a batch need not be copied together when it runs.

Items get places in one block, in the order in which they come. Those that ride together mostly lie
side by side then, and the engine takes them as a view; where it reads from a GPU the block is
pinned, which the copy to it wants.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from runtime.tensors import Array, Row, Tensors
from specs.schema import TensorSpec

__all__ = ["Staging", "places_for"]

BATCHES = 4
"""One runs, one waits, one is prepared, and one for those that leave out of order."""
MAX_BYTES = 256 * 2**20

Allocate = Callable[[tuple[int, ...], str], Array]


def places_for(inputs: Mapping[str, TensorSpec], max_batch: int) -> int:
    """How many items to have room for; 0 where sizes differ from item to item."""
    sizes = [size for tensor in inputs.values() for size in tensor.shape[1:]]
    if any(isinstance(size, str) for size in sizes):
        return 0
    item = sum(_bytes(tensor) for tensor in inputs.values())
    most = MAX_BYTES // max(item, 1)
    return min(BATCHES * max_batch, most) if most > max_batch else 0


def _bytes(tensor: TensorSpec) -> int:
    sizes = [int(size) for size in tensor.shape[1:]]
    return int(np.prod(sizes, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize


class Staging:
    """A block of so many places. May be used from any thread.

    A place is taken until nothing refers to its item any more, the engine included.

    Args:
        inputs: what the engine takes, of one size.
        places: how many; with none, every item has memory of its own.
        allocate: makes an array of a shape and dtype.
    """

    def __init__(
        self, inputs: Mapping[str, TensorSpec], places: int, allocate: Allocate = np.empty
    ) -> None:
        self._block: Tensors = {
            name: allocate((places, *(int(size) for size in tensor.shape[1:])), tensor.dtype)
            for name, tensor in (inputs.items() if places else ())
        }
        self._taken = bytearray(places)
        self._next = 0
        self._lock = threading.Lock()

    def prepare(self, work: Callable[[Tensors | None], Tensors]) -> Tensors:
        """An item in a place of the block, or as it is where all are taken.

        Args:
            work: makes the item, if it likes in the arrays that it is given.
        """
        place = self._place()
        if place is None:
            return work(None)
        made = work(place)
        if not all(_alike(made[name], array) for name, array in place.items()):
            return made  # whoever runs it will say what is wrong with it
        for name, array in place.items():
            if made[name] is not array:
                array[...] = made[name]
        place.update((name, each) for name, each in made.items() if name not in place)
        return place

    def _place(self) -> _Place | None:
        """The next one that is free: neighbours in time are neighbours in memory."""
        with self._lock:
            free = self._taken.find(0, self._next)
            if free < 0:
                free = self._taken.find(0)
            if free < 0:
                return None
            self._taken[free] = 1
            self._next = free + 1
        return _Place(self._block, free, self._taken)


def _alike(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


class _Place(Row):
    """One item's place, free again once nothing refers to it."""

    __slots__ = ("_taken",)

    def __init__(self, block: Tensors, index: int, taken: bytearray) -> None:
        super().__init__(block, index)
        self._taken = taken

    def __del__(self) -> None:
        self._taken[self.index] = 0
