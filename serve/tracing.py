"""OpenTelemetry spans of a request: one for all of it, below it pre, queue, engine and post.

They are made from the times that the model takes anyway (``serve.course``), once the request is
answered; only the span of the whole begins with it, so that those who share a batch can name each
other. Nothing here is imported by a replica that does not trace (``serve.telemetry``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve.course import Course, Ride
from serve.decisions import figures

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from serve.messages import Call

__all__ = ["MOST_LINKS", "MOST_RIDES", "Tracing"]

MOST_LINKS = 32
"""Of one engine span: with more, the work would grow with the square of the batch."""
MOST_RIDES = 32
"""Batches of one request that get spans; its items may ride in as many as there are of them."""
SERVER_ERROR = 500
_W3C = TraceContextTextMapPropagator()

Attributes = Mapping[str, str | int | float | bool]
Wall = Callable[[float], int]
"""The model's clock, in seconds -> nanoseconds since 1970."""


class Tracing:
    """Makes spans.

    Args:
        tracer: of the provider that exports them.
        about: attributes of every request's span: model, variant, engine and so on.
    """

    def __init__(self, tracer: Tracer, about: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._about = {f"deployc.{name}": value for name, value in about.items() if value}

    def begin(self, call: Call, course: Course) -> None:
        """Begin the span of a request, below the client's where ``traceparent`` names it.

        ``course.span`` stays None where the sampler leaves the request out.
        """
        about: dict[str, str | int | float] = {
            **self._about,
            "deployc.request_id": call.request_id,
            "deployc.priority": call.priority,
            "deployc.allowed_ms": round(1000 * course.allowed_s, 3),
            "deployc.body_bytes": len(call.body),
        }
        span = self._tracer.start_span(
            f"deployc.{call.kind}", _parent(call), SpanKind.SERVER, about, start_time=time.time_ns()
        )
        course.span = span if span.is_recording() else None

    def end(self, course: Course, status: int, outcome: str, now: float) -> None:
        """End the span of a request, and make those below it.

        Args:
            course: where it was.
            status: what HTTP answers; 499 where the client went away.
            outcome: ``ok``, or an error's code.
            now: when it was answered, seconds of the model's clock.
        """
        span = course.span
        if span is None:
            return
        ended = time.time_ns()
        wall: Wall = lambda seconds: ended - round(1e9 * (now - seconds))  # noqa: E731 - closes over both
        self._steps(course, set_span_in_context(span), wall, now, outcome)
        slack = course.deadline - now
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("deployc.outcome", outcome)
        span.set_attribute("deployc.slack_ms", round(1000 * slack, 3))
        if outcome != "ok":
            _fail(span, status, outcome, course.error)
        span.end(ended)

    def _steps(self, course: Course, inside: Context, wall: Wall, now: float, outcome: str) -> None:
        for step, began, ended in course.passed:
            if step == "compute":
                self._rides(course, inside, wall, began)
            else:
                self._tracer.start_span(step, inside, start_time=wall(began)).end(wall(ended))
        if course.step:  # where it failed
            about = {"error.type": outcome}
            name = {"pre": "pre", "post": "post"}.get(course.step, _unfinished(outcome))
            started = wall(course.since)
            self._tracer.start_span(name, inside, attributes=about, start_time=started).end(
                wall(now)
            )

    def _rides(self, course: Course, inside: Context, wall: Wall, entered: float) -> None:
        """Queue and engine, for each batch that items of this request rode in."""
        for ride, own in course.rides[:MOST_RIDES]:
            waited = self._tracer.start_span("queue", inside, start_time=wall(entered))
            waited.end(wall(ride.cut))
            links = _links(ride.labels, course.span)
            computed = self._tracer.start_span(
                "engine", inside, SpanKind.INTERNAL, _of(ride, own), links, wall(ride.began)
            )
            computed.end(wall(ride.ended))


def _parent(call: Call) -> Context:
    """The client's span; without a header that names one, whatever Ray's own tracing began."""
    carrier = {"traceparent": call.traceparent, "tracestate": call.tracestate}
    return _W3C.extract({name: value for name, value in carrier.items() if value})


def _of(ride: Ride, own: int) -> Attributes:
    """What is told of a batch; ``why`` and its figures are those of ``GET .../decisions``."""
    told = {f"deployc.decision.{name}": value for name, value in figures(ride.why).items()}
    return {"deployc.batch": ride.batch, "deployc.batch.own_items": own, **told}


def _links(labels: Sequence[object], own: Span | None) -> list[Link]:
    """To the spans of the other requests in a batch."""
    others = dict.fromkeys(each for each in labels if isinstance(each, Span) and each is not own)
    return [Link(each.get_span_context()) for each in list(others)[:MOST_LINKS]]


def _unfinished(outcome: str) -> str:
    """Where a request was that did not come back from ``compute``."""
    return "queue" if outcome == "overloaded" else "queue or engine"


def _fail(span: Span, status: int, outcome: str, error: str) -> None:
    """What the client got wrong, or what was turned away, is no error of the server's span."""
    span.set_attribute("error.type", outcome)
    if error:
        span.set_attribute("deployc.error", error)
    if status >= SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR, error))
