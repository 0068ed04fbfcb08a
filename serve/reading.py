"""The body and the headers of a request, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request

from serve.messages import Reply, failure
from serve.oip_parameters import priority_class, timeout_of

__all__ = [
    "BODY_S",
    "PRIORITY",
    "TIMEOUT_MS",
    "RefusedError",
    "priority",
    "read_body",
    "timeout_s",
    "too_large",
]

BODY_S = 60.0
"""How long a body may take to arrive."""
DISCARD_S = 5.0
"""How long the rest of a body that is too large is read, at most."""
MAX_DIGITS = 18
"""A length of more is larger than any limit, and Python takes its time to read very long ones."""
TIMEOUT_MS = "x-request-timeout-ms"
PRIORITY = "x-request-priority"
MILLISECONDS = 1e3


class RefusedError(Exception):
    """The body is not read to its end; ``reply`` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def timeout_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``x-request-timeout-ms`` allows; InputError ``bad_parameter``."""
    return timeout_of(headers.get(TIMEOUT_MS), MILLISECONDS)


def priority(headers: Mapping[str, str]) -> int:
    """The class that ``x-request-priority`` names; InputError ``bad_parameter``."""
    return priority_class(headers.get(PRIORITY), first=0) or 0


async def read_body(request: Request, limit: int, seconds: float = BODY_S) -> bytes:
    """The body, of at most ``limit`` bytes that come within ``seconds``.

    Raises:
        RefusedError: 413 as soon as it is known to exceed the limit, 408 where it comes too
            slowly, 415 where it is compressed, and 499 where the client went away.
    """
    if request.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        raise RefusedError(_compressed())
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > MAX_DIGITS or int(declared) > limit):
        raise RefusedError(too_large(limit))
    stream = request.stream()
    try:
        async with asyncio.timeout(seconds):
            body = await _gather(stream, limit)
    except TimeoutError:
        raise RefusedError(_slow(seconds)) from None
    except ClientDisconnect:
        raise RefusedError(failure(499, "client_gone", "the client went away")) from None
    if body is None:
        await _discard(stream, limit)
        raise RefusedError(too_large(limit))
    return body


async def _gather(stream: AsyncIterator[bytes], limit: int) -> bytes | None:
    """The body; None as soon as it exceeds the limit."""
    parts: list[bytes] = []
    size = 0
    async for part in stream:
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _discard(stream: AsyncIterator[bytes], most: int) -> None:
    """Read on for a little and keep nothing: most clients look at the answer only once all is sent.

    A reply before that may meet a client that still writes, which then sees a broken connection in
    its place. One that has far more to send has to live with that.
    """
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_S):
            size = 0
            async for part in stream:
                size += len(part)
                if size > most:
                    return


# Close: the rest of the body is still on its way, and nobody will read it.
_CLOSE = {"Connection": "close"}


def too_large(limit: int) -> Reply:
    """The reply to a body of more than ``limit`` bytes."""
    message = f"the body is larger than {limit} bytes"
    hint = "send less, or raise limits.bytes in the spec and build again"
    return failure(413, "too_large", message, hint, _CLOSE)


def _slow(seconds: float) -> Reply:
    message, hint = f"the body took longer than {seconds:g} s", "send it faster, or less of it"
    return failure(408, "slow_body", message, hint, _CLOSE)


def _compressed() -> Reply:
    message, hint = "the body is compressed", "send it without Content-Encoding"
    return failure(415, "unsupported_encoding", message, hint, _CLOSE)
