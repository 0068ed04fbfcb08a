"""What passes between the HTTP layer and a model: a call, and the reply to it.

Both are plain data: they cross from an ingress replica to a model's replica as they are, so that
no exception has to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from serve.batching import ClosedError, Done, OverloadError, StuckError
from specs.errors import DeploycError, InputError

__all__ = ["Call", "Reply", "error_reply", "failure", "json_reply", "server_timing", "wants_png"]

_INPUT_STATUS = {
    "not_an_image": 415,
    "not_audio": 415,
    "unsupported_audio": 415,
    "unsupported_media_type": 415,
    "too_large": 413,
    "too_many_frames": 413,
    "unknown_model": 404,
}
_OWN_CODE = "python_step"
"""The artifact's own code failed: the server's fault, and its text is not the client's business."""


@dataclass(frozen=True, slots=True)
class Call:
    """The body of one request, and what its headers say of it."""

    body: bytes
    content_type: str = ""
    accept: str = ""
    timeout_s: float | None = None
    """Seconds that the answer may take; None: the SLO."""
    priority: int = 0
    """The class; lower goes first."""
    request_id: str = ""
    """Stands in the log beside a failure, and in the answer."""
    kind: Literal["predict", "infer"] = "predict"
    """``infer``: in the notation of the Open Inference Protocol."""
    tensors: bool = False
    """The model's raw inputs and outputs, without pre- and post-processing."""
    header_length: int | None = None
    """Bytes of JSON before the binary tensors, where the body has some."""
    traceparent: str = ""
    """Names the client's span (W3C Trace Context)."""
    tracestate: str = ""
    waited_s: float = 0.0
    """How long it waited for this process to read it (``serve.lag``)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict[str, str])


def json_reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """A JSON response; numbers that JSON does not have are an error."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A message may quote what a client sent, and JSON can say half of a character.
    return Reply(status, text.encode("utf-8", "replace"), headers=headers or {})


def failure(
    status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> Reply:
    """The one form of every error: ``{"error": {"code", "message", "hint"}}``."""
    body = {"error": {"code": code, "message": message, "hint": hint}}
    return json_reply(body, status, headers)


def error_reply(error: Exception) -> Reply:
    """The response to an exception; what is not the client's business stays in the log."""
    match error:
        case OverloadError():
            return _failure_of(error, 429, {"Retry-After": str(error.retry_after_s)})
        case ClosedError() | StuckError():
            return _failure_of(error, 503, {"Retry-After": "1"})
        case InputError(code=code) if code == _OWN_CODE:
            hint = "the server's log says more"
            return failure(500, code, "the model's own code failed on this request", hint)
        case InputError():
            return _failure_of(error, _INPUT_STATUS.get(error.code, 400))
        case _:
            hint = "the server's log says more"
            return failure(500, "internal", "the request could not be answered", hint)


def _failure_of(error: DeploycError, status: int, headers: dict[str, str] | None = None) -> Reply:
    return failure(status, error.code, error.message, error.hint, headers)


def wants_png(accept: str) -> bool:
    """Whether an ``Accept`` header names PNG pictures."""
    wanted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not wanted.isdisjoint({"image/png", "image/*"})


def server_timing(pre_s: float, done: Done[Any], post_s: float) -> str:
    """Server-Timing, in milliseconds; of several items, the slowest."""
    parts = {"pre": pre_s, "queue": done.queued_s, "engine": done.engine_s, "post": post_s}
    times = ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())
    return f'{times}, batch;desc="{done.batch}"'
