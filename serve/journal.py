"""What a model tells of single requests and of its state: log lines, and spans where it traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from serve.course import Course
from serve.events import tell
from serve.messages import Call
from specs.errors import DeploycError

if TYPE_CHECKING:  # OpenTelemetry is imported where it is asked for
    from serve.tracing import Tracing

__all__ = ["GONE", "Journal"]

SERVER_ERROR = 500
GONE = 499, "client_gone"
"""Status and outcome of a request whose client went away; nobody gets to see them."""


class Journal:
    """Of one model.

    Args:
        about: its name, variant and engine (``Model.variant_in_use``).
        clock: the model's, seconds.
    """

    def __init__(self, about: Mapping[str, str], clock: Callable[[], float]) -> None:
        self.tracing: Tracing | None = None
        self._about = about
        self._clock = clock
        self._state = "loading"

    def begin(self, call: Call, allowed_s: float) -> Course:
        """The course of a call that is read now, and began when it came to the ingress."""
        course = Course(self._clock() - call.waited_s, allowed_s)
        if self.tracing:
            self.tracing.begin(call, course)
        return course

    def end(self, course: Course, status: int, outcome: str) -> float:
        """The call was answered, or its client went away; seconds that it took."""
        now = self._clock()
        if self.tracing:
            self.tracing.end(course, status, outcome, now)
        return now - course.began

    def failed(self, call: Call, course: Course, error: Exception, status: int) -> None:
        """One line for each; what clients are told of anyway, only where the log is at DEBUG."""
        known = isinstance(error, DeploycError)
        course.error = str(error)
        about = {
            "request_id": call.request_id,
            "trace_id": course.trace_id,
            "model": self._about["model"],
            "status": status,
            "code": error.code if known else "internal",
            "error": course.error,
            "timings_ms": course.timings(self._clock()),
        }
        level = logging.ERROR if status >= SERVER_ERROR else logging.DEBUG
        # Where it was raised matters for what should not have been: a bug, the spec's own code.
        told = status != SERVER_ERROR and known
        tell("request_failed", about, level=level, raised=None if told else error)

    def state(self, state: str, load: int) -> None:
        """One line, where the state is another than it was told last."""
        was, self._state = self._state, state
        if was != state:
            level = logging.ERROR if state == "stuck" else logging.INFO
            about = {**self._about, "state": state, "was": was, "load": load}
            tell("state_changed", about, level=level)
