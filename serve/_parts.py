"""The items of calls in a queue and in batches: in runs, so that many cost little more than one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve._group import Group
from serve.course import Ride
from serve.law import Ticket

__all__ = ["Part", "Waiting", "chosen", "halves", "listed"]

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(eq=False, slots=True)
class Waiting(Generic[In, Out]):
    """The items of a call that are alike: they wait under one ticket, and go in order."""

    items: Sequence[In]
    indices: Sequence[int]
    """Their places among the items of the call."""
    ticket: Ticket
    group: Group[Out]
    next: int = 0
    """The first that still waits."""

    def take(self, count: int) -> Part[In, Out]:
        """The next so many of them."""
        self.next += count
        return Part(self, self.next - count, self.next)


@dataclass(eq=False, slots=True)
class Part(Generic[In, Out]):
    """Neighbours of one call in a batch."""

    entry: Waiting[In, Out]
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    @property
    def group(self) -> Group[Out]:
        return self.entry.group

    def items(self) -> Sequence[In]:
        """All of the call's, where they are."""
        every = self.entry.items
        return every if len(self) == len(every) else every[self.first : self.end]

    def done(self, outputs: Sequence[Out], ride: Ride) -> None:
        """They were computed."""
        self.group.take(self.entry.indices[self.first : self.end], outputs, ride)

    def split(self, count: int) -> tuple[Part[In, Out], Part[In, Out]]:
        """The first so many, and the rest."""
        middle = self.first + count
        return Part(self.entry, self.first, middle), Part(self.entry, middle, self.end)


def chosen(items: Sequence[In], indices: Sequence[int]) -> Sequence[In]:
    """The items at these places, in order."""
    return items if len(indices) == len(items) else [items[index] for index in indices]


def listed(parts: Sequence[Sequence[In]]) -> Sequence[In]:
    """The items of all parts, in order."""
    return [item for part in parts for item in part]


def halves(batch: list[Part[In, Out]]) -> tuple[list[Part[In, Out]], list[Part[In, Out]]]:
    """The first half of the items, the larger one, and the rest."""
    left = (sum(map(len, batch)) + 1) // 2
    first: list[Part[In, Out]] = []
    rest: list[Part[In, Out]] = []
    for part in batch:
        if len(part) <= left:
            first.append(part)
        elif left:
            one, other = part.split(left)
            first.append(one)
            rest.append(other)
        else:
            rest.append(part)
        left -= min(left, len(part))
    return first, rest
