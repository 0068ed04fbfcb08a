"""``scale_boxes_back``: from the model's input to the pixels of the image that was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from specs.ops._base import GEOMETRY, Emitted, Op, Stage
from specs.ops._boxes import need_boxes
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ScaleBoxesBack"]


class ScaleBoxesBack(Op):
    """Undo what pre-processing did to places: its resizing, cropping and padding.

    The boxes, corners in pixels or fractions of the model's input, come out in pixels of the image
    that was sent. It has no ONNX form: where an image's pixels went is known beside the graph.
    """

    name: ClassVar[str] = "scale_boxes_back"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    clip: bool = True
    """Cut off what lies outside of the image."""

    def flow(self, value: Value) -> Value:
        need_boxes("scale_boxes_back", value, corners=True)
        if value.units == "image":
            message = "scale_boxes_back takes pixels or fractions of the model's input"
            raise FlowError(f"{message}, found pixels of the image", "give it once")
        return value.but(units="image")

    def emit(self, value: Value) -> Emitted:
        function = candidates_to_image if value.kind == "boxes" else detections_to_image
        fraction = value.units == "fraction"
        call = f'{function.__name__}({{x}}, outputs["{GEOMETRY}"], {fraction}, {self.clip})'
        comment = "Take the boxes back to the pixels of the image that was sent."
        return Emitted(call, comment, (function,))

    def carried(self) -> tuple[str, ...]:
        return (GEOMETRY,)


def boxes_to_image(
    boxes: NDArray[Any],
    at: NDArray[Any],
    fraction: bool,
    clip: bool,
) -> NDArray[Any]:
    """Return corners [n, 4] in pixels of the image, whose input's pixels are ``at``."""
    scale, offset, image, size = at.reshape(4, 2)[:, [1, 0, 1, 0]]
    placed = ((boxes * size if fraction else boxes) - offset) / scale
    placed = placed.clip(0, image) if clip else placed
    return placed.astype(np.float32)


def candidates_to_image(
    x: Mapping[str, NDArray[Any]],
    at: NDArray[Any],
    fraction: bool,
    clip: bool,
) -> dict[str, NDArray[Any]]:
    """Return the candidates of each item of a batch in pixels of its image."""
    pairs = zip(x["boxes"], at, strict=True)
    boxes = [boxes_to_image(each, place, fraction, clip) for each, place in pairs]
    return {**x, "boxes": np.stack(boxes)}


def detections_to_image(
    found: list[dict[str, Any]],
    at: NDArray[Any],
    fraction: bool,
    clip: bool,
) -> list[dict[str, Any]]:
    """Return the detections of each item of a batch in pixels of its image."""
    return [
        {**item, "boxes": boxes_to_image(item["boxes"], place, fraction, clip)}
        for item, place in zip(found, at, strict=True)
    ]
