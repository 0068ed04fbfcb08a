"""What flows between the steps of pre- and post-processing, and how a step refuses it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = ["Dim", "FlowError", "Kind", "Value", "dims_fit", "show_shape"]

Dim = int | str
"""A size, or the name of one that differs between items."""

Kind = Literal["encoded", "image", "tensor", "classes", "answer_image"]


class FlowError(Exception):
    """A step cannot take what the step before gives. ``message`` and ``hint`` name both."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Value:
    """The type of a value between two steps.

    Args:
        kind: ``encoded`` (bytes of a file), ``image`` (array [height, width, channels]),
            ``tensor`` (any array), ``classes`` (a ranked list), ``answer_image`` (a picture
            to give back).
        dtype: numpy's name of the element type; "" for ``encoded``.
        shape: sizes of one item, without the batch dimension in pre-processing, with it in
            post-processing.
        layout: ``HWC``, ``CHW`` or "" where the axes have no such meaning.
        color: ``RGB``, ``BGR``, ``L`` or "".
        low, high: bounds of the values where they are known.
        probability: whether a softmax or sigmoid made the values.
    """

    kind: Kind
    dtype: str = ""
    shape: tuple[Dim, ...] = ()
    layout: str = ""
    color: str = ""
    low: float | None = None
    high: float | None = None
    probability: bool = False

    def but(self, **changes: Any) -> Value:  # noqa: ANN401 - dataclasses.replace's own signature
        """This value with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        if self.kind == "encoded":
            return "the bytes of an image file"
        words = [self.color, self.layout, self.kind, self.dtype, show_shape(self.shape)]
        return " ".join(word for word in words if word)


def show_shape(shape: tuple[Dim, ...]) -> str:
    """``[batch, 3, 224, 224]``."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def dims_fit(have: tuple[Dim, ...], want: tuple[Dim, ...]) -> bool:
    """Whether a value of shape ``have`` can be of shape ``want``.

    A named dimension on the wanted side takes any size; a named one on the other side may differ
    between items, so that it fits named dimensions only.
    """
    return len(have) == len(want) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(have, want, strict=True)
    )
