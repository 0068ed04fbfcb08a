"""What an image file says of itself before its pixels are decoded, and what is done after.

Copied into ``processing.py``: numpy, Pillow and the standard library only.
"""

from __future__ import annotations

# Pillow leaves the result of createProfile without a type.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
import io
from collections.abc import Callable
from contextlib import suppress

from PIL import Image, ImageCms

from specs.ops._source import MAX_FRAMES, MAX_SIDE, BadInput, check_pixels

__all__ = [
    "check_frames",
    "check_sides",
    "orientation",
    "over_black",
    "over_white",
    "sent_size",
    "shrink",
    "to_srgb",
    "upright",
]

Goal = Callable[[tuple[int, int]], tuple[int, int]]
"""From an image's height and width to those that are needed."""
ORIENTATION = 0x0112
"""The tag of EXIF 2.3 that says how the camera was held: 1 to 8."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = 5
"""From this orientation on, height and width change places."""
GIF_HEAD = 13
GIF_EXTENSION = b"!"
GIF_IMAGE = b","
GIF_PLACE = 10
TIFF_LITTLE = b"II"
TIFF_BIG = (b"II+\0", b"MM\0+")


def check_sides(height: int, width: int) -> None:
    """Refuse an image by the size that it declares."""
    if max(height, width) > MAX_SIDE:
        found = f"the image has {width}x{height} pixels"
        message = f"{found}, at most {MAX_SIDE} a side are taken"
        raise BadInput("too_large", message, "send an image with shorter sides")
    check_pixels(height, width, "the image has")


def check_frames(image: Image.Image, data: bytes) -> None:
    """Refuse an animation of more than MAX_FRAMES; no frame is decoded for it."""
    if image.format == "GIF":
        frames = gif_frames(data)
    elif image.format == "TIFF":
        frames = tiff_frames(data)
    else:
        frames = getattr(image, "n_frames", 1)
    if frames > MAX_FRAMES:
        message = f"the image has more than {MAX_FRAMES} frames"
        raise BadInput("too_many_frames", message, "send its first frame alone")


def gif_frames(data: bytes) -> int:
    """Count the frames of a GIF; MAX_FRAMES + 1 are as good as more."""
    frames, at = 0, GIF_HEAD + color_table(data[10:11])
    while frames <= MAX_FRAMES and data[at : at + 1] in (GIF_EXTENSION, GIF_IMAGE):
        if data[at : at + 1] == GIF_EXTENSION:  # its label, then blocks
            at += 2
        else:  # its place, its colours, the size of a code, then blocks
            frames += 1
            at += GIF_PLACE + color_table(data[at + 9 : at + 10]) + 1
        while data[at : at + 1] not in (b"", b"\0"):
            at += data[at] + 1
        at += 1
    return frames


def color_table(flags: bytes) -> int:
    """Return how many bytes of colours follow in a GIF."""
    has = bool(flags) and flags[0] & 0x80
    return 3 << (flags[0] & 7) + 1 if has else 0


def tiff_frames(data: bytes) -> int:
    """Count the frames of a TIFF; MAX_FRAMES + 1 are as good as more."""
    order = "little" if data[:2] == TIFF_LITTLE else "big"
    # BigTIFF has numbers of eight bytes.
    width, entry, count = (8, 20, 8) if data[:4] in TIFF_BIG else (4, 12, 2)
    frames, at = 0, int.from_bytes(data[width : 2 * width], order)
    while 0 < at < len(data) and frames <= MAX_FRAMES:
        frames += 1
        tags = int.from_bytes(data[at : at + count], order)
        end = at + count + entry * tags
        at = int.from_bytes(data[end : end + width], order)
    return frames


def orientation(image: Image.Image) -> int:
    """Return how the camera was held, 1 (upright) to 8; broken EXIF says nothing."""
    with suppress(Exception):  # Pillow's readers raise whatever they like
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def sent_size(image: Image.Image, turned: bool) -> tuple[int, int]:
    """Return height and width, as they are once the image is turned upright."""
    lies = turned and orientation(image) >= LYING
    return image.size if lies else (image.height, image.width)


def shrink(image: Image.Image, goal: Goal, turned: bool) -> None:
    """Let the JPEG decoder make 1/2, 1/4 or 1/8, not below twice what is needed.

    Below that, its squares instead of the filter's triangles show.
    """
    if image.format not in {"JPEG", "MPO"}:
        return
    now = sent_size(image, turned)
    height, width = goal(now)
    lies = now != (image.height, image.width)
    height, width = (2 * width, 2 * height) if lies else (2 * height, 2 * width)
    image.draft(None, (width, height))


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert by the colour profile in the file to sRGB, perceptually.

    A profile that is broken, or of another kind than the picture, is left aside.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    alpha = None
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    plain = image if image.mode in ("L", "CMYK") else image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        result = ImageCms.profileToProfile(plain, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    if result is None:
        return image
    if alpha is not None:
        result.putalpha(alpha)
    return result


def over_white(image: Image.Image) -> Image.Image:
    """Put what is transparent on white."""
    return over(image, "white")


def over_black(image: Image.Image) -> Image.Image:
    """Put what is transparent on black."""
    return over(image, "black")


def over(image: Image.Image, color: str) -> Image.Image:
    """Put an image that is transparent somewhere on one colour."""
    if not image.has_transparency_data:
        return image
    below = Image.new("RGBA", image.size, color)
    return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
