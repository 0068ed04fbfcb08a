"""``decode_image``: the bytes of an image file, or a decoded array, to pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from pydantic import PrivateAttr

from specs.ops._base import Emitted, Libraries, Op, Stage
from specs.ops._fast import decode_jpeg, decode_jpeg_image, pixels_of
from specs.ops._geometry import whole_image
from specs.ops._image_file import (
    check_frames,
    check_sides,
    over_black,
    over_white,
    sent_size,
    shrink,
    to_srgb,
    upright,
)
from specs.ops._image_reference import decode_reference
from specs.ops._source import MAX_BYTES, BadInput, as_array, check_finite
from specs.ops.color_order import ColorOrder
from specs.ops.resize import Resize
from specs.values import FlowError, Kind, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DecodeImage"]

WHITE = 255

Steps = tuple[Callable[[Image.Image], Image.Image], ...]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class DecodeImage(Op):
    """Decode an image file (BMP, GIF, JPEG, PNG, PPM, TIFF, WebP) to uint8 pixels.

    By default what ``PIL.Image.open(file).convert(mode)`` gives, as torchvision's datasets do:
    the first frame of an animation; transparency dropped; EXIF orientation and colour profiles
    ignored; 16-bit values above 255 clipped. A truncated or corrupt file is refused. Decoded
    arrays [height, width] or [height, width, 3] (RGB) are taken as well, integers or floating
    point from 0 to 255; the latter stay floating point.
    """

    name: ClassVar[str] = "decode_image"
    shorthand: ClassVar[str] = "mode"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})
    starts: ClassVar[Kind | None] = "encoded"

    mode: Literal["RGB", "L", "YCbCr"] = "RGB"
    """Three channels, one of grey (ITU-R 601 luma), or JPEG's YCbCr."""
    exif: bool = False
    """Turn the picture upright by its EXIF orientation; answers count in the turned one."""
    icc: Literal["ignore", "srgb"] = "ignore"
    """Whether a colour profile in the file is ignored, or its colours are converted to sRGB."""
    alpha: Literal["drop", "white", "black"] = "drop"
    """What becomes of transparency: it is dropped, or lies on white or black."""
    scaled: bool = False
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size, not below twice what the next resize makes.

    Faster for large pictures, and not pixel-exact.
    """
    _goal: Resize | None = PrivateAttr(default=None)
    _open: bool = PrivateAttr(default=False)
    """In generated Python, whether the next step takes the image as Pillow has it."""

    def before(self, following: tuple[Op, ...]) -> DecodeImage:
        """The step as it is before others: with ``scaled`` it knows the resize that follows."""
        moving = (step for step in following if not isinstance(step, ColorOrder))
        first = next(moving, None)
        step = self.model_copy()
        step._goal = first if isinstance(first, Resize) else None  # noqa: SLF001 - its own
        return step

    @property
    def exact(self) -> bool:
        return not self.scaled

    def join(self, after: Op) -> tuple[Op, ...] | None:
        if self._open or not isinstance(after, Resize) or after.plain:
            return None
        step = self.model_copy()
        step._open = True  # noqa: SLF001 - its own
        return step, after.after_opening()

    def flow(self, value: Value) -> Value:
        if value.kind != "encoded":
            raise FlowError(
                f"decode_image takes the bytes of an image file, found {value}",
                "make it the first step, once",
            )
        if self.scaled and self._goal is None:
            message = "scaled decoding needs a resize after it, to know how many pixels it needs"
            raise FlowError(message, "put resize after decode_image, or remove scaled")
        channels = 1 if self.mode == "L" else 3
        shape = ("height", "width", channels)
        return Value("image", "uint8", shape, "HWC", self.mode, low=0, high=255, step=1.0)

    def emit(self, value: Value) -> Emitted:
        del value
        steps = self._steps()
        names = "".join(f"{step.__name__}, " for step in steps)
        given = f", ({names.rstrip() if len(steps) == 1 else names[:-2]})" if steps else ""
        function = open_image if self._open else decode_image
        functions = (function, *steps)
        if self.scaled and self._goal:
            expression, needed = self._goal.goal("now")
            goal = f"lambda now: {expression}"
            given = f"{given or ', ()'}, lambda image: shrink(image, {goal}, {self.exif})"
            functions = (*functions, shrink, image_sent, *needed)
        return Emitted(
            f'{function.__name__}({{x}}, "{self.mode}"{given})',
            self._comment(),
            functions,
            geometry=f"image_sent({{x}}, data, {self.exif})" if self.scaled else "",
        )

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        return decode_reference(self, x, lib)

    def _comment(self) -> str:
        extra = [
            "upright by EXIF" if self.exif else "",
            "colours to sRGB" if self.icc == "srgb" else "",
            f"transparency on {self.alpha}" if self.alpha != "drop" else "",
            "no larger than needed" if self.scaled else "",
        ]
        said = "".join(f", {text}" for text in extra if text)
        return f"Decode the image file (or take the pixels as they come) as {self.mode}{said}."

    def _steps(self) -> Steps:
        alpha = {"white": over_white, "black": over_black}.get(self.alpha)
        chosen = [
            upright if self.exif else None,
            to_srgb if self.icc == "srgb" else None,
            alpha,
        ]
        return tuple(step for step in chosen if step)


def decode_image(
    data: object,
    mode: str,
    steps: Steps = (),
    first: Callable[[Image.Image], None] | None = None,
) -> NDArray[Any]:
    """Return pixels [height, width, channels] of a file's bytes, or of an array.

    ``steps`` are what is done to a decoded picture, ``first`` to a file before it is
    decoded.
    """
    if isinstance(data, bytes | bytearray):
        return pixels_of(decode_file(bytes(data), mode, steps, first, borrow=False))
    return decode_array(data, mode)


def open_image(
    data: object,
    mode: str,
    steps: Steps = (),
    first: Callable[[Image.Image], None] | None = None,
) -> NDArray[Any] | Image.Image:
    """Return a file's picture as Pillow has it, or an array's pixels.

    As ``decode_image``, with a copy less; what looks like CMYK is RGB with a fourth
    channel.
    """
    if isinstance(data, bytes | bytearray):
        return decode_file(bytes(data), mode, steps, first, borrow=True)
    return decode_array(data, mode)


def check_bytes(data: bytes) -> None:
    """Refuse a file by its size."""
    if not data:
        message = "the item is empty, 0 bytes"
        raise BadInput("empty_item", message, "send the bytes of an image file")
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data)} bytes, at most {MAX_BYTES} are taken"
        raise BadInput("too_large", message, "send a smaller file")


def decode_file(
    data: bytes,
    mode: str,
    steps: Steps,
    first: Callable[[Image.Image], None] | None,
    *,
    borrow: bool,
) -> NDArray[Any] | Image.Image:
    """Decode with Pillow, or as it does; what the file declares is checked before."""
    check_bytes(data)
    # Another library may have told Pillow to fill truncated files up with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_sides(image.height, image.width)
            check_frames(image, data)
            if first:
                first(image)
            plain = data if is_plain(image, mode, steps) else b""
            return read_image(image, plain, mode, steps, borrow=borrow)
    except BadInput:
        raise
    except Image.DecompressionBombError as error:
        message = f"the image has too many pixels: {error}"
        raise BadInput("too_large", message, "send a smaller image") from error
    except UnidentifiedImageError as error:
        message = f"the {len(data)} bytes are no image of a known format"
        raise BadInput("not_an_image", message, f"send {', '.join(FORMATS)}") from error
    except Exception as error:
        # Decoders raise whatever they like on broken files.
        message = f"the image is corrupt or truncated: {error}"
        raise BadInput("corrupt_image", message, "send the whole file") from error


def is_plain(image: Image.Image, mode: str, steps: Steps) -> bool:
    """Whether a file is a JPEG with nothing for ``steps``: a faster decoder will do."""
    told = {"exif", "icc_profile", "xmp"} & image.info.keys()
    known = image.format in {"JPEG", "MPO"} and mode in {"RGB", "L"}
    return known and not (steps and told)


def read_image(
    image: Image.Image,
    plain: bytes,
    mode: str,
    steps: Steps,
    *,
    borrow: bool,
) -> NDArray[Any] | Image.Image:
    """Decode an opened file: ``plain`` are its bytes, where ``is_plain``."""
    if plain:
        colors = "GRAY" if mode == "L" else "RGB"
        decoded = None if borrow else decode_jpeg(plain, image, colors)
        found = decode_jpeg_image(plain, image, mode) if borrow else decoded
        if found is not None:
            return found
    image.load()
    for step in steps:
        image = step(image)
    return image if image.mode == mode else image.convert(mode)


def image_sent(x: NDArray[Any], data: object, turned: bool) -> NDArray[Any]:
    """Return where the pixels of an image that was decoded smaller are."""
    at = whole_image(x)
    if isinstance(data, bytes | bytearray):
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            at[4:6] = sent_size(image, turned)
        at[:2] = at[6:8] / at[4:6]
    return at


def decode_array(data: object, mode: str) -> NDArray[Any]:
    """Check an array of pixels, and convert its channels to ``mode``."""
    array = as_array(data, "image")
    known = array.shape[2:] in ((), (1,), (3,)) and array.ndim > 1
    if not known or array.size == 0:
        message = f"the image has shape {list(array.shape)}"
        hint = "send an image file, or an array [height, width] or [height, width, 3]"
        raise BadInput("wrong_shape", message, hint)
    height, width = array.shape[:2]
    check_sides(height, width)
    array = as_pixels(array).reshape(height, width, -1)
    if array.shape[2] == 1 and mode == "L":
        return array
    array = np.broadcast_to(array, (height, width, 3))
    return array if mode == "RGB" else convert_array(array, mode)


def as_pixels(array: NDArray[Any]) -> NDArray[Any]:
    """Return values from 0 to 255 as uint8, or as float32 where they came as floats."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        message = "the image is bool, expected values from 0 to 255"
        raise BadInput("wrong_dtype", message, "send uint8: False is 0, True is 255")
    check_finite(array, "image")
    low, high = array.min(), array.max()
    if low < 0 or high > WHITE:
        message = f"the image's values run from {low} to {high}"
        raise BadInput("wrong_input", message, "send values from 0 to 255")
    return array.astype(np.float32 if array.dtype.kind == "f" else np.uint8)


def convert_array(array: NDArray[Any], mode: str) -> NDArray[Any]:
    """RGB to L (ITU-R 601 luma) or JPEG's YCbCr; uint8 exactly as Pillow does."""
    if array.dtype == np.uint8:
        pixels = np.asarray(Image.fromarray(array).convert(mode))
        return pixels.reshape(*array.shape[:2], -1)
    luma = array @ np.array([[0.299], [0.587], [0.114]], np.float32)
    if mode == "L":
        return luma
    blue, red = (array[:, :, 2:] - luma) / 1.772, (array[:, :, :1] - luma) / 1.402
    return np.concatenate([luma, blue + 128, red + 128], axis=2)
