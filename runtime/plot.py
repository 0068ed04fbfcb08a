"""Draws an answer as a PNG.

Bars beside the picture for classes, frames on the picture for detections, the picture that came
out, and for a lone vector its numbers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from runtime._drawing import (
    BEST,
    FAINT,
    INK,
    MARGIN,
    OTHER,
    TEXT,
    TRACK,
    Color,
    canvas_of,
    fit,
    font_of,
    name_of,
    resized,
    shorten,
)
from runtime._plot_boxes import draw_detections
from runtime._plot_vector import draw_vector
from specs.answers import answer_schema
from specs.errors import DeploycError, InputError
from specs.values import Value

__all__ = ["plot", "plot_hint"]

Pixels = NDArray[Any]

HEIGHT = 336
"""Height of the drawing area."""
BARS = 420
"""Width of the area of the bars."""
SHOWN = 5
"""How many classes are drawn at most."""


def plot(
    item: bytes | Pixels | None,
    answer: Mapping[str, Any],
    out: Path,
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Draw ``answer``, with the picture that was sent where there is one, into the file ``out``.

    Args:
        item: what was sent: an image file's bytes, pixels, or None to leave it out.
        answer: one answer of ``Predictor.predict``.
        out: the file to write; its suffix names the format.
        schema: the manifest's ``answer_schema``, which tells where boxes are; without it they are
            taken as corners in pixels of the picture.

    Raises:
        DeploycError: the answer is tensors, but no lone vector, or its boxes are not in pixels of
            the picture (``nothing_to_draw``); or the file cannot be written (``plot_failed``).
        InputError: ``item`` is no picture.
    """
    picture = None if item is None else _open(item)
    if "classes" in answer:
        drawing = _draw_classes(picture, cast("list[dict[str, Any]]", answer["classes"]))
    elif "detections" in answer:
        _check_boxes(schema or {})
        drawing = draw_detections(picture, cast("list[dict[str, Any]]", answer["detections"]))
    elif "image" in answer:
        drawing = _draw_images(picture, Image.fromarray(answer["image"]))
    else:
        drawing = draw_vector(*_lone_vector(answer["outputs"]))
    try:
        drawing.save(out)
    except (OSError, ValueError) as error:
        message = f"the drawing cannot be written to {out}: {error}"
        hint = plot_hint(error, "name a .png file")
        raise DeploycError(message, hint=hint, code="plot_failed") from error


def plot_hint(error: Exception, formats: str) -> str:
    """What to do where a drawing was not written: the place is at fault, or the name's suffix."""
    place = "name a file in a folder that is there, and may be written to"
    return place if isinstance(error, OSError) else formats


def _check_boxes(schema: Mapping[str, Any]) -> None:
    """Boxes can be drawn as corners in pixels of the picture alone."""
    corners = answer_schema(Value("detections", boxes="xyxy", units="image"), ())
    found = _box(schema)
    if found and found != _box(corners):
        raise DeploycError(
            f"the boxes cannot be drawn on the picture: they are {found['description']}",
            hint="corners in pixels are drawn: end postprocess with - scale_boxes_back",
            code="nothing_to_draw",
        )


def _box(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a detection's box; empty where there is none."""
    found: Any = schema
    for key in ("properties", "detections", "items", "properties", "box"):
        found = found.get(key, {})
    return found


def _lone_vector(outputs: Mapping[str, Pixels]) -> tuple[str, Pixels]:
    """Name and numbers of the only output, where it is a vector."""
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        vector = np.atleast_1d(np.squeeze(array))
        if vector.ndim == 1 and vector.size and vector.dtype.kind in "biuf":
            return name, vector
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
    raise DeploycError(
        f"there is nothing to draw: the answer is the tensors {shapes}",
        hint="leave --plot out; classes, detections, pictures and one vector are drawn",
        code="nothing_to_draw",
    )


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
    thumbnail = None if picture is None else fit(picture, 2 * HEIGHT, HEIGHT)
    left = MARGIN if thumbnail is None else thumbnail.width + 2 * MARGIN
    canvas = canvas_of(left + BARS + MARGIN, HEIGHT + 2 * MARGIN)
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
    draw, font = ImageDraw.Draw(canvas), font_of(TEXT)
    value = _value_text(entry)
    room = BARS - round(draw.textlength(value, font)) - MARGIN
    base = top + height // 2
    draw.text((left, base), shorten(draw, name_of(entry), room), INK, font, "ls")
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
    enlarged = resized(picture, result.height / picture.height)
    width = enlarged.width + result.width + 3 * MARGIN
    caption = 2 * MARGIN
    canvas = canvas_of(width, result.height + caption + MARGIN)
    draw, font = ImageDraw.Draw(canvas), font_of(TEXT)
    left = MARGIN
    for name, part, size in (("input", enlarged, picture.size), ("output", result, result.size)):
        label = f"{name} {size[0]}x{size[1]}"
        text = shorten(draw, label, part.width)
        draw.text((left, caption - 12), text, FAINT, font, "ls")
        canvas.paste(part, (left, caption))
        left += part.width + MARGIN
    return canvas


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
