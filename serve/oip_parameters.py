"""Parameters of an inference request that this server acts on, and those it must refuse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from specs.errors import InputError

__all__ = [
    "MAX_PRIORITY",
    "MAX_TIMEOUT_S",
    "check_supported",
    "priority_class",
    "switch",
    "timeout_of",
]

MAX_TIMEOUT_S = 3_600.0
"""A longer timeout means this one."""
MAX_PRIORITY = 9
"""Classes 0 to 9; the lower goes first."""
MICROSECONDS = 1e6
_REFUSED = ("sequence_id", "sequence_start", "sequence_end")
_REFUSED_TENSOR = ("shared_memory_region", "classification")

Parameters = Mapping[str, Any]


def check_supported(parameters: Parameters, *, tensor: bool = False) -> None:
    """Refuse what would change the answer and is not there; the rest is the client's own note.

    Raises:
        InputError: ``unsupported_parameter``.
    """
    for name in _REFUSED_TENSOR if tensor else _REFUSED:
        if parameters.get(name):
            hint = "leave it out"
            message = f"the parameter '{name}' is not supported"
            raise InputError(message, hint=hint, code="unsupported_parameter")


def timeout_of(value: object, unit: float = MICROSECONDS) -> float | None:
    """Seconds of a timeout; 0 or None stand for none.

    Args:
        value: what the client sent.
        unit: how many of the client's units make a second; Triton's are microseconds.

    Raises:
        InputError: ``bad_parameter``.
    """
    if value is None:
        return None
    number = _number(value)
    if number is None or number < 0:
        raise InputError("the timeout is no positive number", code="bad_parameter")
    return min(number / unit, MAX_TIMEOUT_S) if number else None


def priority_class(value: object, *, first: int = 1) -> int | None:
    """The class of a priority: 0 goes first.

    The protocol's extension counts from 1, the highest, and 0 there means the default.

    Args:
        value: what the client sent; None where it sent nothing.
        first: the client's number for the highest class.

    Raises:
        InputError: ``bad_parameter``.
    """
    number = _number(value)
    if value is None or (first and number == 0):
        return None
    if number is None or number != int(number) or not 0 <= number - first <= MAX_PRIORITY:
        hint = f"a whole number from {first}, the highest, to {first + MAX_PRIORITY}"
        raise InputError("this is no priority", hint=hint, code="bad_parameter")
    return int(number) - first


def switch(parameters: Parameters, name: str) -> bool | None:
    """A parameter that is true or false; None where it is not there.

    Raises:
        InputError: ``bad_parameter``.
    """
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"the parameter '{name}' is true or false", code="bad_parameter")
    return value


def _number(value: object) -> float | None:
    """A finite number; clients of headers, and of some protocols, send digits as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
