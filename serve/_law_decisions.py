"""What the batching law is asked and answers, with the figures behind every answer."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from serve._law_arrivals import Wait

__all__ = ["Admitted", "Cut", "Decision", "Hold", "Idle", "Rule", "Shed", "Ticket", "Why"]

Rule = Literal[
    "all",
    "full",
    "bucket",
    "deadline",
    "overload",
    "probe",
    "hold",
    "empty",
    "room",
    "busy",
    "backlog",
    "outrun",
    "bound",
    "expired",
    "given_up",
]


@dataclass(eq=False, slots=True)
class Ticket:
    """An item that waits for an engine, or several of one call that are alike in all of this."""

    arrived: float
    deadline: float
    key: Hashable = None
    """Items share a batch only where this is equal."""
    priority: int = 0
    """Lower goes first: no item of a class is given up for one of a higher number."""


@dataclass(frozen=True, slots=True)
class Why:
    """What a decision was made from; None where a figure played no part. Seconds, items."""

    rule: Rule
    waiting: int
    """Items that waited, in all queues."""
    size: int | None = None
    """Items in the batch."""
    predicted_s: float | None = None
    """Time that the batch, or the wait for the engine, is expected to take."""
    slack_s: float | None = None
    """Time to the deadline of the head, or of the item turned away."""
    correction: float | None = None
    """Observed over measured time, as applied."""
    demand: float | None = None
    """Arrivals per second."""
    rate: float | None = None
    """Items per second of engine time in this batch."""
    wait: Wait | None = None
    """What one more member would bring and cost."""

    def __str__(self) -> str:
        return _SAYS[self.rule].format(
            waiting=self.waiting,
            size=self.size,
            predicted=_ms(self.predicted_s),
            slack=_ms(self.slack_s),
            demand=f"{self.demand or 0:.0f}",
            rate=f"{self.rate or 0:.0f}",
            wait=_ms(self.wait.seconds) if self.wait else "",
            chance=f"{self.wait.chance:.0%}" if self.wait else "",
            saving=_ms(self.wait.saving) if self.wait else "",
            cost=_ms(self.wait.cost) if self.wait else "",
        )


@dataclass(frozen=True, slots=True)
class Admitted:
    """The item waits."""

    why: Why


@dataclass(frozen=True, slots=True)
class Shed:
    """The item is turned away: HTTP 429."""

    ticket: Ticket
    retry_after_s: float
    """When all that is here now should be done."""
    why: Why


@dataclass(frozen=True, slots=True)
class Cut:
    """Run this batch now; answer ``dropped`` with 429."""

    batch: tuple[Ticket, ...]
    dropped: tuple[Shed, ...]
    why: Why


@dataclass(frozen=True, slots=True)
class Hold:
    """Ask again at ``until``, or when an item comes."""

    until: float
    dropped: tuple[Shed, ...]
    why: Why


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing waits; ask again when an item comes."""

    dropped: tuple[Shed, ...]
    why: Why


Decision = Cut | Hold | Idle


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{1000 * seconds:.1f} ms"


_SAYS: dict[Rule, str] = {
    "all": "all {size} that waited; they take {predicted} of the head's {slack}",
    "full": "the largest batch allowed, {size} of {waiting}",
    "bucket": "{size} of {waiting}: more would be padded and give fewer than {rate} per second",
    "deadline": "{size} of {waiting}: more would take longer than the head's {slack}",
    "overload": "{size} of {waiting}: at {demand} arrivals per second, heads that allow only"
    " smaller batches were given up",
    "probe": "one item, to see whether the engine is still slow",
    "hold": "{size} held for {wait}: one more comes by then with a chance of {chance}, which saves"
    " {saving} of engine time and costs {cost} of delay",
    "empty": "nothing waits",
    "room": "{waiting} wait; it can be answered within {slack}",
    "busy": "the engine and what goes first take {predicted}, and the deadline is in {slack}",
    "backlog": "the engine and {waiting} before it take {predicted}, the deadline is in {slack}",
    "outrun": "the next batch, of {size}, is done in {predicted}, and the deadline is in {slack}",
    "bound": "the bound on items is reached",
    "expired": "the deadline is in {slack}, less than the engine needs",
    "given_up": "given up for a larger batch; its deadline was in {slack}",
}
