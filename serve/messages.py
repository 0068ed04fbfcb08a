"""What passes between the HTTP layer and a model: a call, and the reply to it.

Both are plain data: they cross from an ingress replica to a model's replica as they are, so that
no exception has to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from serve.batching import ClosedError, OverloadError
from specs.errors import DeploycError, InputError

__all__ = ["Call", "Reply", "error_reply", "failure", "json_reply"]

_INPUT_STATUS = {"not_an_image": 415, "unsupported_media_type": 415, "too_large": 413}


@dataclass(frozen=True, slots=True)
class Call:
    """The body of one request, with the two headers that say what it is and what is wanted."""

    body: bytes
    content_type: str = ""
    accept: str = ""


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
    return Reply(status, text.encode(), headers=headers or {})


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
        case ClosedError():
            return _failure_of(error, 503, {"Retry-After": "1"})
        case InputError():
            return _failure_of(error, _INPUT_STATUS.get(error.code, 400))
        case _:
            hint = "the server's log says more"
            return failure(500, "internal", "the request could not be answered", hint)


def _failure_of(error: DeploycError, status: int, headers: dict[str, str] | None = None) -> Reply:
    return failure(status, error.code, error.message, error.hint, headers)
