"""The base of every processing op: what it takes, what it gives, and its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from specs.base import OneKey
from specs.values import Value

__all__ = ["Emitted", "Op", "Stage"]

Stage = Literal["preprocess", "postprocess"]


@dataclass(frozen=True)
class Emitted:
    """What one step adds to the generated ``processing.py``.

    Args:
        expression: a Python expression of the step's result; ``{x}`` stands for the value that
            the step takes, constants by their names below.
        comment: one line above the step that says what it does and why.
        functions: module-level functions that the expression calls; their source is copied, so
            they may use numpy as ``np``, ``Image`` and ``io`` and each other, nothing else.
        constants: module-level names and the Python expressions of their values.
    """

    expression: str
    comment: str
    functions: tuple[Callable[..., Any], ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict[str, str])


class Op(OneKey):
    """One step of ``preprocess`` or ``postprocess``: a subclass in a module of ``specs.ops``.

    An op is one file: its fields are the options in the spec, ``flow`` says what it makes of a
    value or why it cannot take it, ``emit`` gives the code that production runs.
    """

    stages: ClassVar[frozenset[Stage]]

    def flow(self, value: Value) -> Value:
        """The type of the result, or ``FlowError`` where ``value`` cannot be taken."""
        raise NotImplementedError

    def emit(self, value: Value) -> Emitted:
        """The step's source for a ``value`` that ``flow`` accepted."""
        raise NotImplementedError
