"""``resize``: to a height and width, or until the shorter side has a length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from specs.ops._base import Emitted, Op, Stage
from specs.ops._checks import need_image
from specs.ops._source import check_pixels
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Resize"]

Length = Annotated[int, Field(ge=1, le=100_000, strict=True)]
PLAIN = ("nearest", "bilinear", "bicubic")
"""What there is without antialias."""


class Resize(Op):
    """Resize an image, pixel for pixel as torchvision does with a PIL image.

    With ``antialias`` (Pillow's filters, which widen when they shrink) or without (PyTorch's
    ``interpolate``, which skips pixels when it shrinks; ``bilinear`` and ``bicubic`` only). A
    model must get what it was trained with: the two differ by up to 80 of 255 on photos.
    ``nearest`` is Pillow's either way.
    """

    name: ClassVar[str] = "resize"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    shorter_side: Length | None = None
    """Length of the shorter side; the longer one becomes int(length * longer / shorter)."""
    size: tuple[Length, Length] | None = None
    """Height and width, whatever the aspect ratio."""
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = (
        "bilinear"
    )
    """The filter."""
    antialias: bool = True
    """Widen the filter when shrinking."""

    @model_validator(mode="after")
    def _check(self) -> Resize:
        if (self.shorter_side is None) == (self.size is None):
            found = "both" if self.size else "none"
            raise ValueError(f"expected exactly one of shorter_side and size, found {found}")
        if not self.antialias and self.interpolation not in PLAIN:
            known = " and ".join(PLAIN)
            raise ValueError(f"antialias: false goes with {known}, not {self.interpolation}")
        return self

    def flow(self, value: Value) -> Value:
        height, width, channels = need_image("resize", value)
        if value.dtype not in ("uint8", "float32"):
            message = f"resize takes a uint8 or float32 image, found {value.dtype}"
            raise FlowError(message, "put resize before the cast")
        if self.size:
            return value.but(shape=(*self.size, channels))
        if isinstance(height, int) and isinstance(width, int) and self.shorter_side:
            resized = fit_shorter_side(height, width, self.shorter_side)
            return value.but(shape=(*resized, channels))
        return value.but(shape=("height", "width", channels))

    def emit(self, value: Value) -> Emitted:
        del value
        size = str(self.size) if self.size else f"shorter_side_size({{x}}, {self.shorter_side})"
        goal = f"to {self.size[0]}x{self.size[1]} (height x width)" if self.size else ""
        goal = goal or f"until the shorter side has {self.shorter_side} pixels"
        plain = not self.antialias and self.interpolation != "nearest"
        function = resize_plain if plain else resize
        return Emitted(
            f'{function.__name__}({{x}}, {size}, "{self.interpolation}")',
            f"Resize {goal}{', without antialias' if plain else ''}.",
            (function,) if self.size else (function, shorter_side_size),
        )


def fit_shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the size at which the shorter side has ``side`` pixels (torchvision's)."""
    longer = int(side * max(height, width) / min(height, width))
    return (side, longer) if height <= width else (longer, side)


def shorter_side_size(x: NDArray[Any], side: int) -> tuple[int, int]:
    """Size of the resized image; a thin strip must not grow to a huge one."""
    height, width = fit_shorter_side(x.shape[0], x.shape[1], side)
    check_pixels(height, width, "resized, the image would have")
    return height, width


def resize(x: NDArray[Any], size: tuple[int, int], method: str) -> NDArray[Any]:
    """Resize [height, width, channels] with Pillow: uint8, or float32 by channel."""
    height, width = size
    resample = Image.Resampling[method.upper()]
    if x.dtype != np.uint8:
        planes = [Image.fromarray(plane) for plane in x.transpose(2, 0, 1)]
        planes = [plane.resize((width, height), resample) for plane in planes]
        return np.stack([np.asarray(plane) for plane in planes], axis=2)
    image = Image.fromarray(x[:, :, 0] if x.shape[2] == 1 else x)
    resized = np.asarray(image.resize((width, height), resample))
    return resized.reshape(height, width, x.shape[2])


def resize_plain(x: NDArray[Any], size: tuple[int, int], method: str) -> NDArray[Any]:
    """Resize as PyTorch's interpolate(align_corners=False) without antialias."""
    result: NDArray[Any] = x.astype(np.float32)
    for axis, target in enumerate(size):
        index, weight = resample_taps(x.shape[axis], target, method)
        spread = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        parts: list[NDArray[Any]] = []
        for source, share in zip(index, weight, strict=True):
            parts.append(result.take(source, axis) * share.reshape(spread))
        result = np.sum(parts, axis=0)
    if x.dtype == np.uint8:
        return np.rint(result).clip(0, 255).astype(np.uint8)
    return result


def resample_taps(
    length: int,
    target: int,
    method: str,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the source pixels and their weights, both [taps, target]."""
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
