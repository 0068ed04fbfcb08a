"""What every drawing of an answer shares: colours, canvas, and names that the font can write."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "BACKGROUND",
    "BEST",
    "FAINT",
    "INK",
    "MARGIN",
    "OTHER",
    "TEXT",
    "TRACK",
    "Color",
    "canvas_of",
    "fit",
    "font_of",
    "name_of",
    "resized",
    "shorten",
]

Color = tuple[int, int, int]

BACKGROUND: Color = (255, 255, 255)
INK: Color = (31, 35, 40)
FAINT: Color = (101, 109, 118)
TRACK: Color = (238, 241, 244)
BEST: Color = (9, 105, 218)
OTHER: Color = (145, 195, 245)

MARGIN = 24
TEXT = 18
"""Font size in pixels."""


def canvas_of(width: int, height: int) -> Image.Image:
    """An empty canvas."""
    return Image.new("RGB", (width, height), BACKGROUND)


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """As large as the area allows."""
    return resized(picture, min(width / picture.width, height / picture.height))


def resized(picture: Image.Image, factor: float) -> Image.Image:
    """Enlarged by repeating pixels, so that small inputs are seen as they are."""
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    method = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return picture.resize(size, method)


def name_of(entry: dict[str, Any]) -> str:
    """The label; of several languages English, else the first that the font can draw."""
    label = entry.get("label")
    if isinstance(label, dict):
        names = cast("dict[str, str]", label)
        candidates = [names.get("en", ""), *names.values()]
    else:
        candidates = [] if label is None else [str(label)]
    drawable = (name for name in candidates if name and _can_draw(name))
    return next(drawable, f"class {entry['index']}")


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def shorten(draw: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """``text``, or its beginning and an ellipsis where it is longer than ``room`` pixels."""
    if draw.textlength(text, font_of(TEXT)) <= room:
        return text
    while text and draw.textlength(text + "...", font_of(TEXT)) > room:
        text = text[:-1]
    return text.rstrip() + "..."


def _can_draw(text: str) -> bool:
    """Whether the font has every character: one that it lacks looks like U+FFFF, which all lack."""
    return all(char.isspace() or _glyph(char) != _glyph("\uffff") for char in text)


@cache
def _glyph(char: str) -> bytes:
    """The pixels of a character."""
    tile = Image.new("L", (2 * TEXT, 2 * TEXT))
    ImageDraw.Draw(tile).text((2, 2), char, 255, font_of(TEXT))
    return tile.tobytes()
