"""The family ``ssd`` of ``box_decode``: offsets from prior boxes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from specs.ops._base import Emitted, Graph, Libraries, Symbols
from specs.ops._box_family import (
    Activation,
    Heads,
    Size,
    ceil_maps,
    counted,
    float_symbol,
    pair,
)
from specs.ops._boxes import columns, convert_boxes, convert_in_graph
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ssd"]

Positive = Annotated[float, Field(gt=0)]
PriorSize = Positive | tuple[Positive, Positive]
Strides = Annotated[tuple[Annotated[int, Field(ge=1, strict=True)], ...], Field(min_length=1)]


class Ssd(Heads):
    """Offsets from priors, as SSD (Liu et al., arXiv 1512.02325) encodes them.

    A box's centre is ``center + offset * variances[0] * size`` of its prior, its size ``size *
    exp(offset * variances[1])``. Priors come in the order of maps, rows, columns, sizes. At each
    cell of a map are boxes of its ``sizes``, or those of torchvision's DefaultBoxGenerator for
    ``scales`` and ``ratios``: a square of the map's scale, one of its geometric mean with the next,
    and for each ratio a wide and a high one.
    """

    image: Size
    """Height and width of the model's input in pixels."""
    maps: Annotated[tuple[Size, ...], Field(min_length=1)] | None = None
    """Heights and widths of the feature maps; by default the image over ``strides``, rounded up."""
    strides: Strides | None = None
    """Pixels from one cell of a map to the next; by default the image over ``maps``."""
    sizes: tuple[tuple[PriorSize, ...], ...] | None = None
    """For each map the priors in pixels: a square's side, or [width, height]."""
    scales: tuple[Positive, ...] | None = None
    """For each map the priors' size as a fraction of the image, and one more."""
    ratios: tuple[tuple[Positive, ...], ...] | None = None
    """For each map the ratios of width to height other than 1; each stands for its inverse, too."""
    offset: float = 0.5
    """Where in its cell a prior's centre is: 0.5 in the middle, 0 at the corner."""
    variances: tuple[Positive, Positive] = (0.1, 0.2)
    """What the offsets of centres and of sizes are multiplied by; 1 over BoxCoder's weights."""
    clip: Literal["none", "sizes", "all"] = "none"
    """What of every prior is kept within 0 and 1, as fractions of the image: its width and height
    (torchvision), or its centre as well."""
    max_growth: Annotated[float, Field(gt=1)] | None = None
    """How many times the prior's a box's sides may be at most; torchvision's is 62.5."""
    activation: Activation = "softmax"
    """What turns the scores into probabilities; none where the model did."""
    background: Annotated[int, Field(ge=0)] | None = 0
    """Index of the class that means nothing is there: left out, and later ones move down."""

    @model_validator(mode="after")
    def _check(self) -> Ssd:
        if self.maps is None and self.strides is None:
            raise ValueError("expected maps, strides or both, found none")
        if (self.sizes is None) == (self.scales is None):
            found = "both" if self.sizes else "none"
            raise ValueError(f"expected exactly one of sizes and scales, found {found}")
        if self.ratios and not self.scales:
            raise ValueError("ratios go with scales: give each size as [width, height]")
        for name, extra in (("strides", 0), ("sizes", 0), ("scales", 1), ("ratios", 0)):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.grids) + extra:
                message = f"{name} has {len(values)} entries, expected {len(self.grids) + extra}"
                raise ValueError(f"{message} for {len(self.grids)} maps")
        return self

    @property
    def grids(self) -> list[Size]:
        """Heights and widths of the maps."""
        return list(self.maps) if self.maps else ceil_maps(self.image, self.strides or ())

    @property
    def steps(self) -> list[tuple[float, float]]:
        """From one cell to the next, down and to the right, as fractions of the image."""
        height, width = self.image
        if self.strides is None:
            return [(1 / high, 1 / wide) for high, wide in self.grids]
        return [(stride / height, stride / width) for stride in self.strides]

    @property
    def shapes(self) -> list[list[tuple[float, float]]]:
        """For each map the widths and heights of the priors at a cell, as fractions."""
        if self.sizes is None:
            return [self._scaled(index) for index in range(len(self.grids))]
        height, width = self.image
        pairs = [[s if isinstance(s, tuple) else (s, s) for s in each] for each in self.sizes]
        return [[(w / width, h / height) for w, h in each] for each in pairs]

    def _scaled(self, index: int) -> list[tuple[float, float]]:
        """Torchvision's priors of one map."""
        assert self.scales  # noqa: S101 - there are no sizes
        scale, after = self.scales[index], self.scales[index + 1]
        mean = math.sqrt(scale * after)
        found = [(scale, scale), (mean, mean)]
        for ratio in self.ratios[index] if self.ratios else ():
            wide, high = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            found += [(wide, high), (high, wide)]
        return found

    @property
    def count(self) -> int:
        """How many priors there are."""
        pairs = zip(self.grids, self.shapes, strict=True)
        return sum(high * wide * len(shapes) for (high, wide), shapes in pairs)

    @property
    def max_log(self) -> float | None:
        """What the logarithm of a growth is at most."""
        return math.log(self.max_growth) if self.max_growth else None

    def flow(self, value: Value) -> Value:
        for name in (self.boxes, self.scores):
            counted(value, name, self.count, "priors")
        return self.result(self.flow_scores(value, self.count), "fraction")

    def emit(self, value: Value) -> Emitted:
        del value
        scores, functions = self.emit_scores(f'{{x}}["{self.scores}"]')
        center, size = self.variances
        numbers = f"PRIORS, {center}, {size}, {self.max_log}"
        decode = f'decode_priors({{x}}["{self.boxes}"], {numbers})'
        priors = f"prior_boxes({self.grids}, {self.steps}, {self.shapes}, {self.offset}"
        return Emitted(
            pair({"boxes": decode, "scores": scores}),
            f"Decode {self.count} boxes from their priors, as fractions of the model's input.",
            (decode_priors, prior_boxes, *functions),
            {"PRIORS": f'{priors}, "{self.clip}")'},
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> dict[str, str]:
        priors = prior_boxes(self.grids, self.steps, self.shapes, self.offset, self.clip)
        center, size = np.float32(self.variances[0]), np.float32(self.variances[1])
        offsets = float_symbol(graph, x, value, self.boxes)
        moves, growths = columns(graph, offsets, 0, 2), columns(graph, offsets, 2, 4)
        moved = graph.add("Mul", moves, graph.constant(priors[:, 2:] * center))
        growth = graph.add("Mul", growths, graph.constant(size))
        if self.max_log is not None:
            growth = graph.add("Min", growth, graph.constant(self.max_log))
        sizes = graph.add("Mul", graph.add("Exp", growth), graph.constant(priors[:, 2:]))
        centers = graph.add("Add", moved, graph.constant(priors[:, :2]))
        boxes = graph.add("Concat", centers, sizes, axis=2)
        corners = convert_in_graph(graph, boxes, "cxcywh", "xyxy")
        return {"boxes": corners, "scores": self.fuse_scores(graph, x, value)}

    def reference(self, x: Any, value: Value, lib: Libraries) -> dict[str, Any]:
        torch = lib.torch
        offsets = torch.from_numpy(x[self.boxes]).float()
        priors = self._torch_priors(torch)
        centers = priors[:, :2] + offsets[..., :2] * self.variances[0] * priors[:, 2:]
        growth = offsets[..., 2:] * self.variances[1]
        if self.max_growth:
            growth = growth.clamp(max=math.log(self.max_growth))
        boxes = torch.cat([centers, priors[:, 2:] * growth.exp()], dim=-1)
        corners = lib.ops.box_convert(boxes, "cxcywh", "xyxy")
        return {"boxes": corners.numpy(), "scores": self.reference_scores(x, lib)}

    def _torch_priors(self, torch: Any) -> Any:
        """Priors [n, 4] as cxcywh, one after the other."""
        found: list[list[float]] = []
        height, width = self.image
        for index, (high, wide) in enumerate(self.grids):
            down, right = height / high, width / wide
            if self.strides:
                down = right = self.strides[index]
            for row in range(high):
                for column in range(wide):
                    x = (column + self.offset) * right / width
                    y = (row + self.offset) * down / height
                    found += [[x, y, *shape] for shape in self.shapes[index]]
        priors = torch.tensor(found, dtype=torch.float32)
        if self.clip == "sizes":
            return torch.cat([priors[:, :2], priors[:, 2:].clamp(0, 1)], dim=1)
        return priors.clamp(0, 1) if self.clip == "all" else priors


def prior_boxes(
    grids: list[tuple[int, int]],
    steps: list[tuple[float, float]],
    shapes: list[list[tuple[float, float]]],
    offset: float,
    clip: str,
) -> NDArray[Any]:
    """Return priors [n, 4] as centre and size: by map, row, column and shape."""
    found: list[NDArray[Any]] = []
    for (high, wide), (down, right), sizes in zip(grids, steps, shapes, strict=True):
        y, x = np.mgrid[:high, :wide].reshape(2, -1, 1) + offset
        centers = np.concatenate([x * right, y * down], axis=1)
        cells = np.repeat(centers, len(sizes), axis=0)
        extents = np.tile(sizes, (high * wide, 1))
        if clip != "none":
            extents = extents.clip(0, 1)
        cells = cells.clip(0, 1) if clip == "all" else cells
        found.append(np.concatenate([cells, extents], axis=1))
    return np.concatenate(found).astype(np.float32)


def decode_priors(
    offsets: NDArray[Any],
    priors: NDArray[Any],
    center: float,
    size: float,
    max_log: float | None,
) -> NDArray[Any]:
    """Return the corners [batch, n, 4] of boxes from their offsets from priors."""
    offsets = offsets.astype(np.float32)
    moved = offsets[..., :2] * (priors[:, 2:] * np.float32(center))
    growth = offsets[..., 2:] * np.float32(size)
    if max_log is not None:
        growth = np.minimum(growth, np.float32(max_log))
    sizes = np.exp(growth) * priors[:, 2:]
    boxes = np.concatenate([moved + priors[:, :2], sizes], axis=-1)
    return convert_boxes(boxes, "cxcywh", "xyxy")
