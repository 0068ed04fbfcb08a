"""Draws an answer as a PNG: bars beside the picture for classes, or the picture that came out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from specs.errors import DeploycError, InputError

__all__ = ["plot"]

Pixels = NDArray[Any]
Color = tuple[int, int, int]

BACKGROUND: Color = (255, 255, 255)
INK: Color = (31, 35, 40)
FAINT: Color = (101, 109, 118)
TRACK: Color = (238, 241, 244)
BEST: Color = (9, 105, 218)
OTHER: Color = (145, 195, 245)

MARGIN = 24
HEIGHT = 336
"""Height of the drawing area."""
BARS = 420
"""Width of the area of the bars."""
SHOWN = 5
"""How many classes are drawn at most."""
TEXT = 18
"""Font size in pixels."""


def plot(item: bytes | Pixels | None, answer: Mapping[str, Any], out: Path) -> None:
    """Draw ``answer``, with the picture that was sent where there is one, into the file ``out``.

    Args:
        item: what was sent: an image file's bytes, pixels, or None to leave it out.
        answer: one answer of ``Predictor.predict``.
        out: the file to write; its suffix names the format.

    Raises:
        DeploycError: the answer is no picture and no ranked classes (``nothing_to_draw``), or
            the file cannot be written (``plot_failed``).
        InputError: ``item`` is no picture.
    """
    picture = None if item is None else _open(item)
    if "classes" in answer:
        drawing = _draw_classes(picture, cast("list[dict[str, Any]]", answer["classes"]))
    elif "image" in answer:
        drawing = _draw_images(picture, Image.fromarray(answer["image"]))
    else:
        raise DeploycError(
            "there is nothing to draw: the answer is plain tensors",
            hint="leave --plot out; only ranked classes and pictures are drawn",
            code="nothing_to_draw",
        )
    try:
        drawing.save(out)
    except (OSError, ValueError) as error:
        message = f"the drawing cannot be written to {out}: {error}"
        raise DeploycError(message, hint="name a .png file", code="plot_failed") from error


def _open(item: bytes | Pixels) -> Image.Image:
    try:
        if isinstance(item, bytes):
            return Image.open(io.BytesIO(item)).convert("RGB")
        pixels = np.rint(np.asarray(item)).clip(0, 255).astype(np.uint8)
        pixels = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
        return Image.fromarray(pixels).convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever they like
        message = f"the item is no picture: {error}"
        hint = "draw without the item"
        raise InputError(message, hint=hint, code="not_an_image") from error


def _draw_classes(picture: Image.Image | None, classes: list[dict[str, Any]]) -> Image.Image:
    shown = classes[:SHOWN]
    thumbnail = None if picture is None else _fit(picture, 2 * HEIGHT, HEIGHT)
    left = MARGIN if thumbnail is None else thumbnail.width + 2 * MARGIN
    canvas = _canvas(left + BARS + MARGIN, HEIGHT + 2 * MARGIN)
    if thumbnail is not None:
        canvas.paste(thumbnail, (MARGIN, MARGIN + (HEIGHT - thumbnail.height) // 2))
    row = HEIGHT / SHOWN
    top = MARGIN + (HEIGHT - row * len(shown)) / 2
    for rank, entry in enumerate(shown):
        place = (left, round(top + rank * row), round(row))
        _draw_bar(canvas, place, entry, _share(entry, shown), BEST if rank == 0 else OTHER)
    return canvas


def _draw_bar(
    canvas: Image.Image,
    place: tuple[int, int, int],
    entry: dict[str, Any],
    share: float,
    color: Color,
) -> None:
    """A row at (left, top, height): the name and the value, and below them the bar."""
    left, top, height = place
    draw, font = ImageDraw.Draw(canvas), _font(TEXT)
    value = _value_text(entry)
    room = BARS - round(draw.textlength(value, font)) - MARGIN
    base = top + height // 2
    draw.text((left, base), _shorten(draw, _name(entry), room), INK, font, "ls")
    draw.text((left + BARS, base), value, FAINT, font, "rs")
    bar = (left, base + 8, left + BARS, base + 20)
    draw.rounded_rectangle(bar, 6, TRACK)
    if share > 0:
        filled = max(12, round(BARS * share))
        draw.rounded_rectangle((left, base + 8, left + filled, base + 20), 6, color)


def _draw_images(picture: Image.Image | None, result: Image.Image) -> Image.Image:
    """The picture that came out as it is; where one went in, both side by side, equally high."""
    if picture is None:
        return result
    enlarged = _resized(picture, result.height / picture.height)
    width = enlarged.width + result.width + 3 * MARGIN
    caption = 2 * MARGIN
    canvas = _canvas(width, result.height + caption + MARGIN)
    draw, font = ImageDraw.Draw(canvas), _font(TEXT)
    left = MARGIN
    for name, part, size in (("input", enlarged, picture.size), ("output", result, result.size)):
        label = f"{name} {size[0]}x{size[1]}"
        text = _shorten(draw, label, part.width)
        draw.text((left, caption - 12), text, FAINT, font, "ls")
        canvas.paste(part, (left, caption))
        left += part.width + MARGIN
    return canvas


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), BACKGROUND)


def _fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """As large as the area allows."""
    return _resized(picture, min(width / picture.width, height / picture.height))


def _resized(picture: Image.Image, factor: float) -> Image.Image:
    """Enlarged by repeating pixels, so that small inputs are seen as they are."""
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    method = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return picture.resize(size, method)


def _share(entry: dict[str, Any], shown: list[dict[str, Any]]) -> float:
    """Length of the bar from 0 to 1: the probability, or the score as a part of the best one."""
    if "probability" in entry:
        share = float(entry["probability"])
    elif "score" in entry:
        scores = [float(other["score"]) for other in shown]
        floor = min(0.0, *scores)
        share = (float(entry["score"]) - floor) / ((max(scores) - floor) or 1)
    else:
        share = 0.0
    return min(max(share, 0.0), 1.0) if np.isfinite(share) else 0.0


def _value_text(entry: dict[str, Any]) -> str:
    if "probability" in entry:
        return f"{100 * entry['probability']:.1f} %"
    return f"{entry['score']:.3g}" if "score" in entry else ""


def _name(entry: dict[str, Any]) -> str:
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
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _can_draw(text: str) -> bool:
    """Whether the font has every character: one that it lacks looks like U+FFFF, which all lack."""
    return all(char.isspace() or _glyph(char) != _glyph("\uffff") for char in text)


@cache
def _glyph(char: str) -> bytes:
    """The pixels of a character."""
    tile = Image.new("L", (2 * TEXT, 2 * TEXT))
    ImageDraw.Draw(tile).text((2, 2), char, 255, _font(TEXT))
    return tile.tobytes()


def _shorten(draw: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """``text``, or its beginning and an ellipsis where it is longer than ``room`` pixels."""
    if draw.textlength(text, _font(TEXT)) <= room:
        return text
    while text and draw.textlength(text + "...", _font(TEXT)) > room:
        text = text[:-1]
    return text.rstrip() + "..."
