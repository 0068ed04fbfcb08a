"""``box_convert``: boxes in another form, or in other units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._boxes import convert_boxes, convert_in_graph, need_boxes, symbol
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BoxConvert"]

Length = Annotated[int, Field(ge=1, strict=True)]


class BoxConvert(Op):
    """Write boxes as corners (xyxy), corner and size (xywh) or centre and size (cxcywh).

    With ``units``, also as fractions of the model's input or in its pixels.
    """

    name: ClassVar[str] = "box_convert"
    shorthand: ClassVar[str] = "to"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    to: Literal["xyxy", "xywh", "cxcywh"] | None = None
    """The form; by default it stays."""
    units: Literal["pixels", "fraction"] | None = None
    """What the numbers count; by default that stays."""
    image: tuple[Length, Length] | None = None
    """Height and width of the model's input in pixels; needed where the units change."""

    @model_validator(mode="after")
    def _check(self) -> BoxConvert:
        if self.to is None and self.units is None:
            raise ValueError("expected to, units or both, found none")
        if (self.units is None) != (self.image is None):
            raise ValueError("units and image go together: image: [height, width]")
        return self

    def flow(self, value: Value) -> Value:
        need_boxes("box_convert", value)
        if self.units and value.units == "image":
            message = "box_convert changes units of the model's input, found the image's pixels"
            raise FlowError(message, "put it before - scale_boxes_back")
        return value.but(boxes=self.to or value.boxes, units=self.units or value.units)

    def _factors(self, value: Value) -> tuple[float, ...]:
        """What each number of a box is multiplied by; nothing where the units stay."""
        if self.image is None or self.units == value.units:
            return ()
        height, width = self.image
        if self.units == "fraction":
            return (1 / width, 1 / height) * 2
        return (float(width), float(height)) * 2

    def emit(self, value: Value) -> Emitted:
        function = convert_candidates if value.kind == "boxes" else convert_detections
        factors = self._factors(value)
        constants = {"FACTORS": f"np.array({list(factors)}, np.float32)"} if factors else {}
        form = f'"{value.boxes}", "{self.to or value.boxes}"'
        units = ", in pixels" if self.units == "pixels" else ", as fractions"
        units = f"{units} of the model's input" if factors else ""
        return Emitted(
            f"{function.__name__}({{x}}, {form}, {'FACTORS' if factors else 'None'})",
            f"Write the boxes as {self.to or value.boxes}{units}.",
            (function,),
            constants,
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        if value.kind != "boxes":
            return None
        assert not isinstance(x, str)  # noqa: S101 - boxes have parts
        boxes = convert_in_graph(graph, x["boxes"], value.boxes, self.to or value.boxes)
        factors = self._factors(value)
        if factors:
            boxes = graph.add("Mul", boxes, graph.constant(factors))
        return Fused({"boxes": boxes, "scores": symbol(x, "scores")})

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        if value.kind == "boxes":
            return {**x, "boxes": self._reference(x["boxes"], value, lib)}
        return [{**item, "boxes": self._reference(item["boxes"], value, lib)} for item in x]

    def _reference(self, boxes: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(boxes)
        found = lib.ops.box_convert(tensor, value.boxes, self.to or value.boxes)
        factors = self._factors(value)
        return (found * lib.torch.tensor(factors) if factors else found).numpy()


def convert_candidates(
    x: Mapping[str, NDArray[Any]],
    have: str,
    want: str,
    factors: NDArray[Any] | None,
) -> dict[str, NDArray[Any]]:
    """Return candidates with boxes in another form, multiplied by ``factors``."""
    boxes = convert_boxes(x["boxes"], have, want)
    return {**x, "boxes": boxes if factors is None else boxes * factors}


def convert_detections(
    found: list[dict[str, Any]],
    have: str,
    want: str,
    factors: NDArray[Any] | None,
) -> list[dict[str, Any]]:
    """Return each item's detections with their boxes in another form."""
    return [convert_candidates(item, have, want, factors) for item in found]
