"""``decode_image`` by Pillow's own functions, one after the other."""

from __future__ import annotations

# Pillow leaves the result of createProfile without a type.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

if TYPE_CHECKING:
    from specs.ops._base import Libraries
    from specs.ops.decode_image import DecodeImage

__all__ = ["decode_reference"]


def decode_reference(op: DecodeImage, x: Any, lib: Libraries) -> Any:
    """The pixels of a file's bytes, or of an array. ``scaled`` decodes the whole size."""
    if not isinstance(x, bytes | bytearray):
        return _array(op, np.asarray(x), lib)
    image: Image.Image = Image.open(io.BytesIO(x))
    if op.exif:
        image = ImageOps.exif_transpose(image)
    if op.icc == "srgb" and "icc_profile" in image.info:
        image = _srgb(image)
    if op.alpha != "drop" and image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, op.alpha)
        image.paste(layer, mask=layer.getchannel("A"))
    pixels = np.asarray(image.convert(op.mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _srgb(image: Image.Image) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    return ImageCms.applyTransform(image, transform) or image


def _array(op: DecodeImage, x: Any, lib: Libraries) -> Any:
    gray = x.reshape(*x.shape[:2], -1)
    tensor = lib.torch.from_numpy(np.ascontiguousarray(gray)).expand(*x.shape[:2], 3)
    if x.dtype == np.uint8:
        image = Image.fromarray(tensor.numpy())
        return np.asarray(image.convert(op.mode)).reshape(*x.shape[:2], -1)
    red, green, blue = tensor.float().unbind(2)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    if op.mode == "L":
        return luma[..., None].numpy()
    if op.mode == "RGB":
        return tensor.float().numpy()
    parts = (luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128)
    return lib.torch.stack(parts, 2).numpy()
