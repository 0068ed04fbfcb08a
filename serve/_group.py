"""The items of one call on their way through a queue, and what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

from serve.course import Ride

__all__ = ["Done", "Group"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Done(Generic[Out]):
    """What became of one call; times in seconds."""

    outputs: Sequence[Out]
    """Of its items, in order."""
    arrived: float
    rides: tuple[tuple[Ride, int], ...]
    """The runs of the engine that its items were in, and how many of them were in each."""

    @property
    def queued_s(self) -> float:
        """How long the last of the items waited."""
        return max(ride.cut for ride, _ in self.rides) - self.arrived

    @property
    def engine_s(self) -> float:
        """The longest of the runs."""
        return max(ride.ended - ride.began for ride, _ in self.rides)

    @property
    def batch(self) -> int:
        """Items in the largest of the batches, those of others included."""
        return max(ride.batch for ride, _ in self.rides)


class Group(Generic[Out]):
    """Items of one call: done when all are, or when the first of them failed.

    Args:
        count: how many.
        arrived: when, in the batcher's seconds.
        label: for ``Ride.labels``.
        join: puts parts together.
    """

    def __init__(
        self,
        count: int,
        arrived: float,
        label: object,
        join: Callable[[Sequence[Sequence[Out]]], Sequence[Out]],
    ) -> None:
        self.label = label
        self.future: asyncio.Future[Done[Out]] = asyncio.get_running_loop().create_future()
        self._arrived = arrived
        self._join = join
        self._parts: list[tuple[Sequence[int], Sequence[Out]]] = []
        self._rides: list[tuple[Ride, int]] = []
        self._left = count

    @property
    def complete(self) -> bool:
        """Whether all were computed."""
        return not self._left

    @property
    def over(self) -> bool:
        """Whether nobody waits for any of them any more."""
        return self.future.done()

    def take(self, indices: Sequence[int], outputs: Sequence[Out], ride: Ride) -> None:
        """Some items were computed: those at these places of the call."""
        self._parts.append((indices, outputs))
        self._rides.append((ride, len(indices)))
        self._left -= len(indices)
        if not self._left and not self.over:
            self.future.set_result(Done(self._outputs(), self._arrived, tuple(self._rides)))

    def fail(self, error: Exception) -> None:
        """One item cannot be answered, and so the call cannot."""
        if not self.over:
            self.future.set_exception(error)

    def leave(self) -> None:
        """Nobody waits any more."""
        if not (self.future.cancel() or self.future.cancelled()):
            self.future.exception()  # read, so that asyncio does not report it as lost

    def _outputs(self) -> Sequence[Out]:
        """In the order of the items, which those of one kind came back in."""
        follow = all(a[-1] < b[0] for (a, _), (b, _) in pairwise(self._parts))
        if follow and all(isinstance(indices, range) for indices, _ in self._parts):
            return self._join([outputs for _, outputs in self._parts])
        found = {
            index: output
            for indices, outputs in self._parts
            for index, output in zip(indices, outputs, strict=True)
        }
        return [found[index] for index in sorted(found)]
