"""``mask_to_image``: the class of every pixel to a picture in colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from specs.ops._base import GEOMETRY, Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops.argmax import best_index
from specs.values import Dim, FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MaskToImage"]

Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]

NUMBERS, SCORES = 3, 4
"""Ranks: [batch, height, width], and with an axis of classes."""
VOC = 256
"""Colours of the usual palette."""
INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")


class MaskToImage(Op):
    """Draw the class of every pixel in its colour: an RGB picture.

    Takes scores [batch, classes, height, width] (of equal ones the first wins), or class numbers
    as integers, [batch, height, width] or [batch, 1, height, width]. A number without a colour is
    black. NaN among scores counts as the best one; in the graph its place is the engine's.
    """

    name: ClassVar[str] = "mask_to_image"
    shorthand: ClassVar[str] = "size"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    size: Literal["output", "image"] = "output"
    """As many pixels as the output has, or those of the image that was sent, by nearest; what the
    model did not see of it is class 0."""
    palette: Annotated[tuple[Colour, ...], Field(min_length=1)] | None = None
    """[red, green, blue] for each class; by default the 256 colours of Pascal VOC."""
    layout: Literal["CHW", "HWC"] = "CHW"
    """Where scores have their classes: [batch, classes, height, width], or last."""

    @field_validator("palette")
    @classmethod
    def _distinct(cls, palette: tuple[Colour, ...] | None) -> tuple[Colour, ...] | None:
        if palette and len(set(palette)) < len(palette):
            raise ValueError("a colour is there twice: two classes would look alike")
        return palette

    def flow(self, value: Value) -> Value:
        if value.kind != "tensor" or len(value.shape) not in (NUMBERS, SCORES):
            wanted = "scores [batch, classes, height, width] or numbers [batch, height, width]"
            raise FlowError(f"mask_to_image takes {wanted}, found {value}")
        self._check_classes(value)
        batch, height, width = self._sides(value)
        if self.size == "image":
            height, width = "image_height", "image_width"
        return Value("answer_image", "uint8", (batch, height, width, 3), "HWC", "RGB", 0, 255)

    def _check_classes(self, value: Value) -> None:
        classes = self._classes(value)
        if classes == 1 and value.dtype not in INTEGERS:
            message = f"mask_to_image takes integers as class numbers, found {value.dtype}"
            hint = "put - threshold: {at: 0.5, mask: true} or - cast: int64 before mask_to_image"
            raise FlowError(message, hint)
        count = len(self.palette) if self.palette else VOC
        if isinstance(classes, int) and classes > count:
            found = f"{classes} classes in {self.layout} {show_shape(value.shape)}"
            other = "HWC" if self.layout == "CHW" else "CHW"
            hint = f"give palette {classes} colours, or layout: {other}"
            raise FlowError(f"mask_to_image has {count} colours, found {found}", hint)

    @property
    def _axis(self) -> int:
        return 1 if self.layout == "CHW" else 3

    def _classes(self, value: Value) -> Dim:
        """How many scores a pixel has; 1 where its number is its class."""
        return value.shape[self._axis] if len(value.shape) == SCORES else 1

    def _sides(self, value: Value) -> tuple[Dim, ...]:
        """Batch, height and width."""
        if len(value.shape) == NUMBERS:
            return value.shape
        return value.shape[: self._axis] + value.shape[self._axis + 1 :]

    def carried(self) -> tuple[str, ...]:
        return (GEOMETRY,) if self.size == "image" else ()

    def emit(self, value: Value) -> Emitted:
        if self._classes(value) != 1:
            return self._drawn(f"{{x}}.argmax(axis={self._axis})")
        flat = len(value.shape) == NUMBERS
        return self._drawn("{x}" if flat else f"{{x}}.squeeze({self._axis})")

    def _drawn(self, numbers: str) -> Emitted:
        """From class numbers [batch, height, width] on."""
        palette, colours = "voc_palette()", voc_palette
        if self.palette:
            palette = f'hex_palette("{" ".join(bytes(c).hex() for c in self.palette)}")'
            colours = hex_palette
        comment = "Draw every class in its colour"
        if self.size == "output":
            call = f"paint({numbers}, PALETTE)"
            return Emitted(call, f"{comment}.", (paint, colours), {"PALETTE": palette})
        call = f'[paint(i, PALETTE) for i in seen_by({numbers}, outputs["{GEOMETRY}"])]'
        functions = (paint, colours, seen_by)
        return Emitted(call, f"{comment}, at the image's size.", functions, {"PALETTE": palette})

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        classes = self._classes(value)
        if classes == 1:
            return None
        numbers = best_index(graph, x, value, self._axis)
        if isinstance(classes, int):
            # One byte for each pixel leaves the device; TensorRT makes it of floating point only.
            numbers = graph.cast(graph.cast(numbers, "float32"), "uint8")
        return Fused(numbers, self._drawn("{x}"))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        """At the output's size; ``at_image`` takes the geometry as well."""
        if self.size == "image":
            raise NotImplementedError
        return np.stack([self._painted(each) for each in self._numbers(x, value, lib)])

    def at_image(self, x: Any, value: Value, lib: Libraries, geometry: Any) -> list[Any]:
        """The reference at the image's size, by Pillow's affine transform.

        Args:
            x: what the step takes.
            value: its type.
            lib: the libraries.
            geometry: [batch, 8], where the pixels are (``specs.ops._geometry``).
        """
        pairs = zip(self._numbers(x, value, lib), geometry, strict=True)
        return [self._painted(_pillow_back(numbers, at)) for numbers, at in pairs]

    def _numbers(self, x: Any, value: Value, lib: Libraries) -> NDArray[Any]:
        """Class numbers [batch, height, width]; a stable sort tells the first of equal scores."""
        tensor = lib.torch.from_numpy(x)
        if self._classes(value) != 1:
            order = tensor.double().sort(dim=self._axis, descending=True, stable=True)[1]
            return order.select(self._axis, 0).numpy()
        return (tensor if x.ndim == NUMBERS else tensor.squeeze(self._axis)).numpy()

    def _painted(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """One picture, by a palette image of Pillow's, which has 256 colours."""
        colours = self.palette or [(int(r), int(g), int(b)) for r, g, b in voc_palette()]
        inside = (numbers >= 0) & (numbers < VOC)
        picture = Image.fromarray(np.where(inside, numbers, 0).astype(np.uint8))
        levels = [level for colour in colours for level in colour]
        picture.putpalette((levels + [0] * 3 * VOC)[: 3 * VOC])
        return np.asarray(picture.convert("RGB")) * inside[:, :, None].astype(np.uint8)


def _pillow_back(numbers: NDArray[Any], at: NDArray[Any]) -> NDArray[Any]:
    """Numbers [height, width] at the image's size, by Pillow."""
    by_row, by_column = numbers.shape[0] / at[6], numbers.shape[1] / at[7]
    row = (0, at[0] * by_row, at[2] * by_row)
    column = (at[1] * by_column, 0, at[3] * by_column)
    picture = Image.fromarray(numbers.astype(np.int32))
    size = (int(at[5]), int(at[4]))
    moved = picture.transform(size, Image.Transform.AFFINE, (*column, *row), fill=1, fillcolor=0)
    return np.asarray(moved)


def voc_palette() -> NDArray[Any]:
    """Return Pascal VOC's colours [256, 3]: bits dealt out to red, green and blue."""
    numbers, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for place in range(8):
        bits = numbers[:, None] >> (3 * place + np.arange(3)) & 1
        colours |= (bits << (7 - place)).astype(np.uint8)
    return colours


def hex_palette(colours: str) -> NDArray[Any]:
    """Return colours [count, 3] from red, green and blue in two hex digits each."""
    return np.frombuffer(bytes.fromhex(colours), np.uint8).reshape(-1, 3)


def paint(numbers: NDArray[Any], palette: NDArray[Any]) -> NDArray[Any]:
    """Return the colour of every number; one without a colour is black."""
    count = len(palette)
    known = (numbers >= 0) & (numbers < count)
    black = np.zeros((1, 3), np.uint8)
    return np.concatenate([palette, black])[np.where(known, numbers, count)]


def seen_by(numbers: NDArray[Any], geometry: NDArray[Any]) -> list[NDArray[Any]]:
    """Return class numbers at the size of each image that was sent, by nearest.

    The centre of an image's pixel lies in one pixel of the model's input, and that in
    one of ``numbers`` [batch, height, width]; beside the input, the class is 0.
    """
    found: list[NDArray[Any]] = []
    for mask, at in zip(numbers, geometry, strict=True):
        framed = np.pad(mask, 1)  # class 0 around
        rows, columns = (places_of(at, axis, mask.shape[axis]) for axis in (0, 1))
        found.append(framed[rows[:, None], columns])
    return found


def places_of(at: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Return where an image's rows or columns lie in a framed mask of ``size``."""
    centres = np.arange(int(at[4 + axis])) + 0.5
    places = (centres * at[axis] + at[2 + axis]) * (size / at[6 + axis])
    return np.floor(places).clip(-1, size).astype(np.int64) + 1
