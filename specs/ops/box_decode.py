"""``box_decode``: a detector's raw outputs to candidate boxes and the scores of their classes."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._box_family import Family
from specs.ops._box_grid import AnchorFree
from specs.ops._box_rows import Decoded, Yolo
from specs.ops._box_ssd import Ssd
from specs.values import Value

__all__ = ["BoxDecode"]


class BoxDecode(Op):
    """Decode a detector's outputs; exactly one family says how it writes boxes.

    Gives every candidate as corners (left, top, right, bottom), in pixels of the model's input or
    as fractions of it, with a score for each class. ``nms`` makes detections of them.
    """

    name: ClassVar[str] = "box_decode"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    ssd: Ssd | None = None
    """Offsets from prior boxes: SSD and its kin."""
    anchor_free: AnchorFree | None = None
    """Distances from the cells of a grid: FCOS, YOLOX and YOLOv8 before their last layer."""
    yolo: Yolo | None = None
    """Rows of box, objectness and class scores in one output, as YOLOs are usually exported."""
    decoded: Decoded | None = None
    """Whole boxes, and their scores beside them: torchvision's detectors, and many others."""

    @model_validator(mode="after")
    def _check(self) -> BoxDecode:
        families = list(BoxDecode.model_fields)
        given = [name for name in families if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of {', '.join(families)}; found {found}")
        return self

    @property
    def family(self) -> Family:
        """The family that is given."""
        families = (self.ssd, self.anchor_free, self.yolo, self.decoded)
        return next(family for family in families if family is not None)

    def flow(self, value: Value) -> Value:
        return self.family.flow(value)

    def emit(self, value: Value) -> Emitted:
        return self.family.emit(value)

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        return Fused(self.family.fuse(graph, x, value))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        return self.family.reference(x, value, lib)
