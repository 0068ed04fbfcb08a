"""``resize``: to a height and width, until a side has a length, or into a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, PrivateAttr, model_validator

from specs.ops import _sizes
from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import check_fill, need_image
from specs.ops._fast import as_image, pixels_of, shrink_bilinear, size_of
from specs.ops._frames import framed
from specs.ops._geometry import resized, size_now
from specs.ops._resample import EXACT, Filter, resample
from specs.ops._resize_reference import resize_reference
from specs.ops._sizes import (
    GraphSize,
    Size,
    fit_letterbox,
    fit_longer_side,
    fit_shorter_side,
    letterbox_corner,
    letterboxed,
)
from specs.ops.center_crop import CenterCrop, center_corner, center_crop
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Resize"]

Length = Annotated[int, Field(ge=1, le=100_000, strict=True)]
PLAIN = ("nearest", "bilinear", "bicubic")
"""What there is without antialias."""
GRAY = 114.0
"""The letterbox's colour that the YOLO families are trained with."""


class Resize(Op):
    """Resize an image, pixel for pixel as torchvision does with a PIL image.

    With ``antialias`` (Pillow's filters, which widen when they shrink) or without (PyTorch's
    ``interpolate``, which skips pixels when it shrinks; ``bilinear`` and ``bicubic`` only). A
    model must get what it was trained with: the two differ by up to 80 of 255 on photos.
    ``nearest`` is Pillow's either way. ``area`` is the mean of what a pixel covers, parts of
    pixels counted as parts: OpenCV's INTER_AREA where both sides shrink or both grow.
    """

    name: ClassVar[str] = "resize"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    shorter_side: Length | None = None
    """Length of the shorter side; the longer one becomes int(length * longer / shorter)."""
    max_size: Length | None = None
    """With ``shorter_side``: the most that the longer side may have."""
    longer_side: Length | None = None
    """Length of the longer side; the shorter one becomes int(length * shorter / longer)."""
    size: tuple[Length, Length] | None = None
    """Height and width, whatever the aspect ratio."""
    letterbox: tuple[Length, Length] | None = None
    """Height and width of a frame that the whole image is put into, without distortion."""
    fill: float | tuple[float, ...] = GRAY
    """With ``letterbox``: the frame's value, or one for each channel."""
    placement: Literal["center", "top_left"] = "center"
    """With ``letterbox``: where in the frame the image is."""
    interpolation: Literal[
        "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos", "area"
    ] = "bilinear"
    """The filter."""
    antialias: bool = True
    """Widen the filter when shrinking."""
    _crop: CenterCrop | None = PrivateAttr(default=None)
    """In generated Python, what is cut out of the result."""
    _opened: bool = PrivateAttr(default=False)
    """In generated Python, whether the step before gives an image as Pillow has it."""

    @model_validator(mode="after")
    def _check(self) -> Resize:
        goals = ("shorter_side", "longer_side", "size", "letterbox")
        given = [name for name in goals if getattr(self, name) is not None]
        if len(given) != 1:
            wanted = f"{', '.join(goals[:-1])} and {goals[-1]}"
            raise ValueError(f"expected exactly one of {wanted}, found {_listed(given)}")
        if self.max_size is not None and self.shorter_side is None:
            raise ValueError(f"max_size goes with shorter_side, found {given[0]}")
        if self.max_size and self.shorter_side and self.max_size <= self.shorter_side:
            found = f"{self.max_size}, shorter_side is {self.shorter_side}"
            raise ValueError(f"max_size must be above shorter_side, found {found}")
        if not self.letterbox and (self.fill, self.placement) != (GRAY, "center"):
            raise ValueError(f"fill and placement go with letterbox, found {given[0]}")
        if not self.antialias and self.interpolation not in PLAIN:
            known = " and ".join(PLAIN)
            raise ValueError(f"antialias: false goes with {known}, not {self.interpolation}")
        return self

    def join(self, after: Op) -> tuple[Op, ...] | None:
        if not isinstance(after, CenterCrop) or self.plain or self.letterbox:
            return None
        step = self.model_copy()
        step._crop = after  # noqa: SLF001 - its own
        return (step,)

    def after_opening(self) -> Resize:
        """The step that takes an image as Pillow has it, without a copy to numpy."""
        step = self.model_copy()
        step._opened = True  # noqa: SLF001 - its own
        return step

    @property
    def plain(self) -> bool:
        """Whether Pillow has no such filter."""
        return self.interpolation == "area" or not (self.antialias or self._nearest())

    def flow(self, value: Value) -> Value:
        value = self._flow(value)
        return self._crop.flow(value) if self._crop else value

    def _flow(self, value: Value) -> Value:
        height, width, channels = need_image("resize", value)
        if value.dtype not in ("uint8", "float32"):
            message = f"resize takes a uint8 or float32 image, found {value.dtype}"
            raise FlowError(message, "put resize before the cast")
        fixed = self.letterbox or self.size
        if isinstance(height, int) and isinstance(width, int):
            fixed = fixed or self.fit((height, width))
        value = value.but(shape=(*(fixed or ("height", "width")), channels))
        return check_fill("resize", value, self.fill) if self.letterbox else value

    def emit(self, value: Value) -> Emitted:
        if self._crop:
            return self._emit_with_crop(self._crop, value)
        function: Callable[..., Any] = resize_plain if self.plain else resize
        goal, fit = self.goal(self._now())
        expression = f'{function.__name__}({{x}}, {goal}, "{self.interpolation}")'
        geometry = f"resized({{at}}, {self.goal('size_now({at})')[0]})"
        functions = (function, *fit, resized, size_now, *self._needed())
        if self.letterbox:
            center = f"center={self.placement == 'center'}"
            expression = f"put_in_frame({expression}, {self.letterbox}, {self.fill}, {center})"
            geometry = f"letterboxed({{at}}, {self.letterbox}, {center})"
            functions = (function, *fit, put_in_frame, letterboxed, *self._needed())
        return Emitted(expression, self._comment(), functions, geometry=geometry)

    def _emit_with_crop(self, crop: CenterCrop, value: Value) -> Emitted:
        cut = crop.emit(value)
        goal, fit = self.goal(self._now())
        then = f"resized({{at}}, {self.goal('size_now({at})')[0]})"
        return Emitted(
            f'resize_middle({{x}}, {goal}, "{self.interpolation}", {crop.sides()})',
            f"{self._comment()} {cut.comment}",
            (resize_middle, *fit, resized, size_now, *cut.functions, *self._needed()),
            geometry=cut.geometry.replace("{at}", then),
        )

    def _now(self) -> str:
        return "size_of({x})" if self._opened else "{x}.shape[:2]"

    def _needed(self) -> tuple[Callable[..., Any], ...]:
        return (size_of,) if self._opened else ()

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one image
        if self.interpolation not in EXACT:
            return None
        goal = self._graph_goal(graph, _sizes.graph_size(graph, x))
        if self._is_native(graph, value):
            return Fused(_native(graph, x, goal))
        how = Filter(self.interpolation, self.antialias)
        images = resample(graph, x, goal, how, fixed=self.size, dtype=value.dtype)
        return Fused(self._framed(graph, images, goal, value.dtype) if self.letterbox else images)

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        return resize_reference(self, x, lib)

    def fit(self, now: tuple[int, ...]) -> Size:
        """The size that an image of size ``now`` is resized to, without a frame."""
        if self.letterbox:
            return fit_letterbox(now, self.letterbox)
        if self.longer_side:
            return fit_longer_side(now, self.longer_side)
        if self.shorter_side:
            return fit_shorter_side(now, self.shorter_side, self.max_size or 0)
        assert self.size  # noqa: S101 - `_check` left nothing else
        return self.size

    def goal(self, now: str) -> tuple[str, tuple[Callable[..., Any], ...]]:
        """The expression of ``fit``, and the functions that it calls."""
        if self.letterbox:
            return f"fit_letterbox({now}, {self.letterbox})", (fit_letterbox,)
        if self.longer_side:
            return f"fit_longer_side({now}, {self.longer_side})", (fit_longer_side,)
        if self.shorter_side:
            limit = f", {self.max_size}" if self.max_size else ""
            return f"fit_shorter_side({now}, {self.shorter_side}{limit})", (fit_shorter_side,)
        return str(self.size), ()

    def _nearest(self) -> bool:
        return self.interpolation == "nearest"

    def _comment(self) -> str:
        if self.size:
            goal = f"to {self.size[0]}x{self.size[1]} (height x width)"
        elif self.letterbox:
            goal = f"into a frame of {self.letterbox[0]}x{self.letterbox[1]} (height x width)"
        else:
            side = "shorter" if self.shorter_side else "longer"
            goal = f"until the {side} side has {self.shorter_side or self.longer_side} pixels"
            goal += f", the longer at most {self.max_size}" if self.max_size else ""
        plain = not (self.antialias or self._nearest())
        return f"Resize {goal}{', without antialias' if plain else ''}."

    def _graph_goal(self, graph: Graph, now: GraphSize) -> GraphSize:
        if self.letterbox:
            return _sizes.graph_letterbox(graph, now, self.letterbox)
        if self.longer_side:
            return _sizes.graph_longer_side(graph, now, self.longer_side)
        if self.shorter_side:
            return _sizes.graph_shorter_side(graph, now, self.shorter_side, self.max_size or 0)
        assert self.size  # noqa: S101 - `_check` left nothing else
        return graph.ints(self.size[0]), graph.ints(self.size[1])

    def _is_native(self, graph: Graph, value: Value) -> bool:
        """Whether ONNX Runtime's Resize is asked for, and right.

        Bilinear only: where a filter overshoots, it hangs on the order of the passes, which is not
        Pillow's there.
        """
        asked = graph.resize == "native" and not graph.whole_floats and value.dtype == "uint8"
        return asked and self.interpolation == "bilinear" and self.antialias and not self.letterbox

    def _framed(self, graph: Graph, images: str, inner: GraphSize, dtype: str) -> str:
        """The images in their frame."""
        assert self.letterbox  # noqa: S101 - only then
        center = self.placement == "center"
        corner = _sizes.graph_corner(graph, inner, self.letterbox, center=center)
        fill = self.fill if isinstance(self.fill, tuple) else (self.fill,)
        return framed(graph, images, corner, self.letterbox, fill=fill, dtype=dtype)


def _native(graph: Graph, x: str, goal: GraphSize) -> str:
    """ONNX's own Resize, within 1/255 on ONNX Runtime.

    On uint8, with channels last and all four sizes; pixels beyond the borders weigh nothing.
    """
    sizes = graph.add("Concat", graph.size(x, 0), *goal, graph.size(x, 3), axis=0)
    exact: dict[str, Any] = {"antialias": 1, "exclude_outside": 1}
    return graph.add("Resize", x, "", "", sizes, mode="linear", **exact)


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def resize(
    x: NDArray[Any] | Image.Image,
    size: tuple[int, int],
    method: str,
) -> NDArray[Any]:
    """Resize [height, width, channels] with Pillow: uint8, or float32 by channel."""
    if size_of(x) == size:  # as Pillow and torchvision do
        return pixels_of(x)
    height, width = size
    kernel = Image.Resampling[method.upper()]
    if isinstance(x, np.ndarray) and x.dtype != np.uint8:
        planes = [Image.fromarray(plane) for plane in x.transpose(2, 0, 1)]
        planes = [plane.resize((width, height), kernel) for plane in planes]
        return np.stack([np.asarray(plane) for plane in planes], axis=2)
    image = as_image(x)
    whole = (0, 0, height, width)
    small = shrink_bilinear(image, size, whole) if method == "bilinear" else None
    return pixels_of(small or image.resize((width, height), kernel))


def resize_middle(
    x: NDArray[Any] | Image.Image,
    size: tuple[int, int],
    method: str,
    crop: tuple[int, int],
) -> NDArray[Any]:
    """Resize and cut the middle out; what is cut off is not computed where possible."""
    corner = center_corner(size, crop)
    whole_numbers = isinstance(x, Image.Image) or x.dtype == np.uint8
    asked = method == "bilinear" and size_of(x) != size
    if asked and whole_numbers and min(corner) >= 0:
        part = shrink_bilinear(as_image(x), size, (*corner, *crop))
        if part is not None:
            return pixels_of(part)
    return center_crop(resize(x, size, method), *crop)


def resize_plain(x: NDArray[Any], size: tuple[int, int], method: str) -> NDArray[Any]:
    """Resize without antialias as PyTorch's interpolate, or by area; rounded once."""
    result: NDArray[Any] = x.astype(np.float32)
    for axis, target in enumerate(size):
        index, weight = resample_taps(x.shape[axis], target, method)
        spread = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        total = np.zeros((), np.float32)
        for source, share in zip(index, weight, strict=True):
            total = total + result.take(source, axis) * share.reshape(spread)
        result = total
    if x.dtype == np.uint8:
        return np.rint(result).clip(0, 255).astype(np.uint8)
    return result


def resample_taps(
    length: int,
    target: int,
    method: str,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the source pixels and their weights, both [taps, target]."""
    if method == "area":
        return area_taps(length, target)
    center = (np.arange(target) + 0.5) * (length / target) - 0.5
    if method == "bilinear":
        center = center.clip(0)
        offsets = np.arange(2)[:, None]
    else:
        offsets = np.arange(-1, 3)[:, None]
    base = np.floor(center)
    away = np.abs(center - base - offsets)
    weight = 1 - away
    if method == "bicubic":
        # Keys' kernel with a = -0.75, PyTorch's choice (Pillow's is -0.5).
        near = (1.25 * away - 2.25) * away**2 + 1
        far = ((-0.75 * away + 3.75) * away - 6) * away + 3
        weight = np.where(away <= 1, near, far)
    index = (base + offsets).clip(0, length - 1)
    return index.astype(np.intp), weight.astype(np.float32)


def area_taps(length: int, target: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the pixels that each of the target's covers, and which share of it."""
    start = np.arange(target) * length
    index = start // target + np.arange(length // target + 2)[:, None]
    low = np.maximum(start, index * target)
    high = np.minimum(start + length, (index + 1) * target)
    weight = (high - low).clip(0) / length
    return index.clip(0, length - 1), weight.astype(np.float32)


def put_in_frame(
    x: NDArray[Any],
    frame: tuple[int, int],
    fill: float | tuple[float, ...],
    center: bool,
) -> NDArray[Any]:
    """Put ``x`` into a frame of one colour, in the middle or at its top left."""
    whole = np.empty((*frame, x.shape[2]), x.dtype)
    whole[:] = fill
    top, left = letterbox_corner((x.shape[0], x.shape[1]), frame, center=center)
    whole[top : top + x.shape[0], left : left + x.shape[1]] = x
    return whole
