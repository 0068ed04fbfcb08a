"""How one request goes through a replica: which stage it was in, and when. No clock, no Ray.

Kept for every request, since a failure's log line needs it; ``serve.tracing`` makes spans of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serve.law import Why

if TYPE_CHECKING:  # tracing is off in most replicas
    from opentelemetry.trace import Span

__all__ = ["Course", "Ride", "Step"]

Step = Literal["pre", "compute", "post"]
"""``compute``: queue and engine; which of the two, the rides tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Ride:
    """One run of the engine, shared by the items that were in it. In the batcher's seconds."""

    cut: float
    """When the law decided."""
    began: float
    """Later than ``cut`` where a larger batch failed first and was halved."""
    ended: float
    why: Why
    """Of the whole batch that the law cut."""
    labels: tuple[object, ...]
    """What the calls were submitted with whose items were in it."""
    batch: int
    """Items in it; where it was several batches one after the other, in the largest of them."""


@dataclass(slots=True)
class Course:
    """Where a request is, and where it was; seconds of the model's clock."""

    began: float
    allowed_s: float
    """Counted from ``began``, wherever the request is by now."""
    span: Span | None = None
    """The request's span, where it is traced and was sampled."""
    step: Step | None = None
    """Where it is."""
    since: float = 0.0
    """Since when it is there."""
    passed: list[tuple[Step, float, float]] = field(default_factory=list[tuple[Step, float, float]])
    """Steps that it came through, with their beginnings and ends."""
    rides: Sequence[tuple[Ride, int]] = ()
    """Runs of the engine that its items were in, and how many of them were in each."""
    error: str = ""

    @property
    def deadline(self) -> float:
        """When the answer is due."""
        return self.began + self.allowed_s

    @property
    def trace_id(self) -> str | None:
        """Of the trace that it belongs to, in hexadecimal; None where it is not traced."""
        return f"{self.span.get_span_context().trace_id:032x}" if self.span else None

    def enter(self, step: Step, now: float) -> None:
        """It comes into a step."""
        self.step, self.since = step, now

    def leave(self, now: float) -> float:
        """It leaves the step that it is in, without an error; seconds that it was there."""
        if self.step:
            self.passed.append((self.step, self.since, now))
        self.step = None
        return now - self.since

    def timings(self, now: float) -> dict[str, float]:
        """Milliseconds by step, and ``total``; the last step is the one that it did not leave."""
        spent = {step: ended - began for step, began, ended in self.passed}
        if self.step:
            spent[self.step] = now - self.since
        spent["total"] = now - self.began
        return {step: round(1000 * seconds, 3) for step, seconds in spent.items()}
