"""What flows between the steps of pre- and post-processing, and how a step refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["BoxFormat", "Dim", "FlowError", "Kind", "Value", "dims_fit", "show_shape"]

Dim = int | str
"""A size, or the name of one that differs between items."""

Kind = Literal[
    "encoded",
    "audio",
    "text",
    "image",
    "tensor",
    "tensors",
    "boxes",
    "detections",
    "classes",
    "answer_image",
]

BoxFormat = Literal["", "xyxy", "xywh", "cxcywh"]
"""Corners; a corner, width and height; the centre, width and height."""


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
        kind: ``encoded`` (bytes of an image file), ``audio`` (bytes of a sound file), ``text`` (a
            string), ``image`` (array [height, width, channels]), ``tensor`` (any array; a sound,
            [samples] or [channels, samples], where it has a ``rate``), ``tensors`` (several, by
            name: ``fields``),
            ``boxes`` (candidates: the arrays ``boxes`` [batch, n, 4] and ``scores`` [batch, n,
            classes], by name: ``fields``), ``detections`` (for each item of a batch a mapping of
            ``boxes`` [m, 4], ``scores`` [m] and ``classes`` [m], best first), ``classes`` (ranked,
            for each item), ``answer_image`` (a picture to give back, for each item).
        dtype: numpy's name of the element type, of ``classes`` the type of their probabilities or
            scores; "" where there is not one.
        shape: sizes of one item, without the batch dimension in pre-processing, with it in
            post-processing.
        layout: ``HWC``, ``CHW`` or "" where the axes have no such meaning.
        color: ``RGB``, ``BGR``, ``L``, ``YCbCr`` or "".
        low, high: bounds of the values where they are known.
        probability: whether a softmax or sigmoid made the values.
        step: what one grey level of 255 is worth in these units, where that is known; the largest
            over the channels.
        fields: the parts of ``tensors`` and ``boxes``.
        boxes: how the boxes of ``boxes`` and ``detections`` are written.
        units: what their coordinates count: ``pixels`` of the model's input, ``fraction`` of it, or
            pixels of the ``image`` that was sent.
        labels: the classes' names come with the answer; ``languages`` where there are several.
        languages: the languages of the labels.
        fewer: an item may have fewer entries than ``shape`` says.
        origin: the model's output that a tensor comes from, where it is not the first one.
        rate: samples in a second, in Hz, of a tensor that is a sound; None for all else.
    """

    kind: Kind
    dtype: str = ""
    shape: tuple[Dim, ...] = ()
    layout: str = ""
    color: str = ""
    low: float | None = None
    high: float | None = None
    probability: bool = False
    step: float | None = None
    fields: Mapping[str, Value] = field(default_factory=dict[str, "Value"])
    boxes: BoxFormat = ""
    units: Literal["", "pixels", "fraction", "image"] = ""
    labels: bool = False
    languages: tuple[str, ...] = ()
    fewer: bool = False
    origin: str = ""
    rate: int | None = None

    def but(self, **changes: Any) -> Value:  # noqa: ANN401 - dataclasses.replace's own signature
        """This value with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        if self.kind == "encoded":
            return "the bytes of an image file"
        if self.kind == "audio":
            return "the bytes of a sound file"
        if self.fields:
            return f"{self.kind} ({', '.join(f'{k}: {v}' for k, v in self.fields.items())})"
        rate = f"at {self.rate} Hz" if self.rate else ""
        words = [self.color, self.layout, self.kind, self.dtype, show_shape(self.shape), rate]
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
