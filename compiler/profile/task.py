"""What the command and the process that measures one point tell each other, as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from specs.base import Frozen
from specs.profile import Form, Point

__all__ = ["Answer", "Cause", "Task"]


class Task(Frozen):
    """One point to measure."""

    folder: Path
    """The artifact; its hashes were checked by who asks."""
    variant: str
    batch: int
    form: Form
    seconds: float
    """Bound on the time of the timed runs."""


class Cause(Frozen):
    """Why there is no point."""

    code: str
    message: str
    hint: str = ""


class Answer(Frozen):
    """What became of it: ``point``, or ``cause``."""

    point: Point | None = None
    cause: Cause | None = None
    details: dict[str, str] = Field(default_factory=dict)
    """What the engine said of itself."""
    inputs: str = ""
    """What was fed."""
