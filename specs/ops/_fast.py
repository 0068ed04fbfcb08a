"""What generated Python uses beside numpy and Pillow where it is installed: the same, sooner.

- ``simplejpeg`` decodes JPEG with libjpeg-turbo, the library inside Pillow's wheels: the same
  pixels. Whatever it remarks on, a truncated file above all, is left to Pillow to judge, so that
  neither pixels nor refusals depend on what is installed.
- ``cykooz_resizer`` shrinks uint8 with the filter of Pillow's ``bilinear``, in weights of 16 bits
  where Pillow's have 22: at most 1/255 apart, as torchvision's own uint8 resize is. Its other
  filters are not Pillow's, and are not used.

Functions here are copied into ``processing.py``, which runs without either library as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LIBRARIES",
    "as_image",
    "decode_jpeg",
    "decode_jpeg_image",
    "library",
    "pixels_of",
    "shrink_bilinear",
    "size_of",
]

LIBRARIES = dict[str, Any]()


def library(name: str) -> Any:
    """Return a library, or None where it is not installed; looked for once."""
    if name not in LIBRARIES:
        try:
            LIBRARIES[name] = importlib.import_module(name)
        except ImportError:
            LIBRARIES[name] = None
    return LIBRARIES[name]


def decode_jpeg(data: bytes, image: Image.Image, colors: str) -> NDArray[Any] | None:
    """Decode the JPEG that ``image`` was opened from; None leaves it to Pillow.

    At the size that the image has: a decoder asked for less gives a part of it.
    ``colors`` is what it shall give: GRAY, RGB, or RGBX with a fourth byte.
    """
    simplejpeg = library("simplejpeg")
    known = ("L",) if colors == "GRAY" else ("L", "RGB")
    if simplejpeg is None or image.mode not in known:
        return None
    size = (image.height, image.width)
    try:
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(
            data, colors, min_height=size[0], min_width=size[1]
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == size else None


def decode_jpeg_image(
    data: bytes,
    image: Image.Image,
    mode: str,
) -> Image.Image | None:
    """Decode as ``decode_jpeg`` does, for Pillow without a copy: RGB looks like CMYK.

    Pillow borrows memory of four bytes a pixel only, and of its modes that have four
    channels CMYK is the one that is resized without a channel being a weight.
    """
    pixels = decode_jpeg(data, image, "GRAY" if mode == "L" else "RGBX")
    if pixels is None:
        return None
    borrowed = "L" if mode == "L" else "CMYK"
    return Image.frombuffer(borrowed, image.size, pixels, "raw", borrowed, 0, 1)


def size_of(x: Image.Image | NDArray[Any]) -> tuple[int, int]:
    """Height and width of an image, whatever holds it."""
    if isinstance(x, Image.Image):
        return x.height, x.width
    return x.shape[0], x.shape[1]


def as_image(x: Image.Image | NDArray[Any]) -> Image.Image:
    """Return an image for Pillow, of uint8 [height, width, channels] or as it is."""
    if isinstance(x, Image.Image):
        return x
    return Image.fromarray(x[:, :, 0] if x.shape[2] == 1 else x)


def pixels_of(image: Image.Image | NDArray[Any]) -> NDArray[Any]:
    """Return Pillow's image as [height, width, channels]; of CMYK, what means RGB."""
    if isinstance(image, np.ndarray):
        return image
    pixels = np.asarray(image)
    return pixels.reshape(image.height, image.width, -1)[:, :, :3]


def shrink_bilinear(
    image: Image.Image,
    size: tuple[int, int],
    crop: tuple[int, int, int, int],
) -> Image.Image | None:
    """Resize to (height, width), of which (top, left, height, width) is computed.

    None leaves it to Pillow: where cykooz_resizer is not installed, or a side grows,
    since its weights may then lead to 2/255. Columns first, then rows, as Pillow does:
    the other order rounds otherwise, and is slower.
    """
    top, left, height, width = crop
    tall, wide = image.height / size[0], image.width / size[1]
    known = image.mode in ("L", "RGB", "CMYK") and min(tall, wide) >= 1
    if not known or library("cykooz_resizer") is None:
        return None
    # The rows that the crop is made of: the filter reaches one of its pixels further.
    first = max(int((top - 1) * tall) - 1, 0)
    last = min(int((top + height + 1) * tall) + 2, image.height)
    box = (left * wide, first, width * wide, last - first)
    middle = resize_pass(image, (width, last - first), box)
    box = (0, top * tall - first, width, height * tall)
    return resize_pass(middle, (width, height), box)


def resize_pass(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
) -> Image.Image:
    """Resize the box (left, top, width, height) with cykooz_resizer."""
    resizer = library("cykooz_resizer")
    left, top, width, height = box
    # A sum of roundings must not reach past the image's end.
    width, height = min(width, image.width - left), min(height, image.height - top)
    options = resizer.ResizeOptions(
        resizer.ResizeAlg.convolution(resizer.FilterType.bilinear),
        crop_box=resizer.CropBox(left, top, width, height),
    )
    result = Image.new(image.mode, size)
    resizer.Resizer().resize_pil(image, result, options)
    return result
