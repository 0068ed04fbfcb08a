"""``decode_image``: the bytes of an image file, or a decoded array, to pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from specs.ops._base import Emitted, Op, Stage
from specs.ops._source import MAX_BYTES, BadInput, as_array, check_finite, check_pixels
from specs.values import FlowError, Kind, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DecodeImage"]

WHITE = 255

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class DecodeImage(Op):
    """Decode an image file (BMP, GIF, JPEG, PNG, PPM, TIFF, WebP) to uint8 pixels.

    What ``PIL.Image.open(file).convert(mode)`` gives, as torchvision's datasets do: the first
    frame of an animation; transparency dropped; EXIF orientation and colour profiles ignored;
    16-bit values above 255 clipped. A truncated or corrupt file is refused. Decoded arrays
    [height, width] or [height, width, 3] are taken as well, integers or floating point from 0 to
    255; the latter stay floating point.
    """

    name: ClassVar[str] = "decode_image"
    shorthand: ClassVar[str] = "mode"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})
    starts: ClassVar[Kind | None] = "encoded"

    mode: Literal["RGB", "L"] = "RGB"
    """Three channels, or one of grey (ITU-R 601 luma)."""

    def flow(self, value: Value) -> Value:
        if value.kind != "encoded":
            raise FlowError(
                f"decode_image takes the bytes of an image file, found {value}",
                "make it the first step, once",
            )
        channels = len(self.mode)
        shape = ("height", "width", channels)
        return Value("image", "uint8", shape, "HWC", self.mode, low=0, high=255)

    def emit(self, value: Value) -> Emitted:
        del value
        comment = f"Decode the image file (or take the pixels as they come) as {self.mode}."
        return Emitted(f'decode_image({{x}}, "{self.mode}")', comment, (decode_image,))


def decode_image(data: object, mode: str) -> NDArray[Any]:
    """Return pixels [height, width, channels] of a file's bytes, or of an array."""
    if isinstance(data, bytes | bytearray):
        return decode_file(bytes(data), mode)
    return decode_array(data, mode)


def decode_file(data: bytes, mode: str) -> NDArray[Any]:
    """Decode with Pillow; the size that the file declares is checked before."""
    if not data:
        message = "the item is empty, 0 bytes"
        raise BadInput("not_an_image", message, "send the bytes of an image file")
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data)} bytes, at most {MAX_BYTES} are taken"
        raise BadInput("too_large", message, "send a smaller file")
    # Another library may have told Pillow to fill truncated files up with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_pixels(image.height, image.width, "the image has")
            pixels = np.asarray(image.convert(mode))
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
    return pixels.reshape(*pixels.shape[:2], -1)


def decode_array(data: object, mode: str) -> NDArray[Any]:
    """Check an array of pixels, and convert its channels to ``mode``."""
    array = as_array(data, "image")
    known = array.shape[2:] in ((), (1,), (3,)) and array.ndim > 1
    if not known or array.size == 0:
        message = f"the image has shape {list(array.shape)}"
        hint = "send an image file, or an array [height, width] or [height, width, 3]"
        raise BadInput("wrong_shape", message, hint)
    height, width = array.shape[:2]
    check_pixels(height, width, "the image has")
    array = as_pixels(array).reshape(height, width, -1)
    if mode == "RGB":
        return np.broadcast_to(array, (height, width, 3))
    return array if array.shape[2] == 1 else to_gray(array)


def as_pixels(array: NDArray[Any]) -> NDArray[Any]:
    """Return values from 0 to 255 as uint8, or as float32 where they came as floats."""
    if array.dtype == np.uint8:
        return array
    check_finite(array, "image")
    low, high = array.min(), array.max()
    if low < 0 or high > WHITE:
        message = f"the image's values run from {low} to {high}"
        raise BadInput("wrong_input", message, "send values from 0 to 255")
    return array.astype(np.float32 if array.dtype.kind == "f" else np.uint8)


def to_gray(array: NDArray[Any]) -> NDArray[Any]:
    """ITU-R 601 luma, [height, width, 1]; for uint8 exactly Pillow's."""
    if array.dtype == np.uint8:
        return np.asarray(Image.fromarray(array).convert("L"))[:, :, None]
    return array @ np.array([[0.299], [0.587], [0.114]], np.float32)
