"""Why a queue takes an item no more."""

from __future__ import annotations

import math

from specs.errors import ServeError

__all__ = ["ClosedError", "OverloadError", "StuckError", "overload"]


class OverloadError(ServeError):
    """The item cannot be answered in time; ``retry_after_s`` is when what is here should be done.

    Args:
        why: what the decision was made from.
        retry_after_s: whole seconds, at least 1.
    """

    default_code = "overloaded"

    def __init__(self, why: str, retry_after_s: int) -> None:
        hint = f"try again in {retry_after_s} s, allow more time, or serve more replicas"
        super().__init__(f"turned away: {why}", hint=hint)
        self.retry_after_s = retry_after_s
        self._arguments = (why, retry_after_s)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._arguments


class ClosedError(ServeError):
    """The replica drains, or is not warm yet, and takes nothing new."""

    default_code = "shutting_down"


class StuckError(ServeError):
    """The engine has not come back from a batch; Ray Serve replaces the replica."""

    default_code = "engine_stuck"


def overload(why: str, retry_after_s: float) -> OverloadError:
    """The error that turns an item away, in whole seconds."""
    return OverloadError(why, max(1, math.ceil(retry_after_s)))
