"""Draws detections: a frame for each on the picture that was sent, with its name and score."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image, ImageDraw

from runtime._drawing import BACKGROUND, INK, TEXT, Color, canvas_of, font_of, name_of, resized

__all__ = ["COLORS", "draw_detections"]

COLORS: tuple[Color, ...] = (
    (9, 105, 218),
    (207, 34, 46),
    (26, 127, 55),
    (191, 135, 0),
    (130, 80, 223),
    (191, 57, 137),
    (27, 124, 131),
    (188, 76, 0),
)
"""A class has the colour at its index, beginning again after the last."""
LEAST, MOST = 640, 1600
"""Longer side of the drawing in pixels: a small picture is enlarged, a large one shrunk."""
PADDING = 4
EMPTY = 64
"""Longer side of the canvas where there is neither a picture nor a box."""

Box = tuple[float, float, float, float]


def draw_detections(picture: Image.Image | None, entries: list[dict[str, Any]]) -> Image.Image:
    """The picture with a frame for each of ``entries``, the best one on top.

    Args:
        picture: what was sent; None draws on an empty canvas as large as the boxes need.
        entries: an answer's ``detections``; each ``box`` is left, top, right and bottom in pixels
            of the picture.
    """
    drawable = [each for each in entries if all(map(math.isfinite, each["box"]))]
    ground = picture if picture is not None else _ground(drawable)
    factor = _factor(max(ground.size))
    drawing = resized(ground, factor)
    for entry in reversed(drawable):
        left, top, right, bottom = (float(edge) * factor for edge in entry["box"])
        _frame(drawing, (left, top, right, bottom), entry)
    return drawing


def _ground(entries: list[dict[str, Any]]) -> Image.Image:
    """An empty canvas with room for every box."""
    right = max((entry["box"][2] for entry in entries), default=EMPTY)
    bottom = max((entry["box"][3] for entry in entries), default=EMPTY)
    return canvas_of(*(min(MOST, max(1, math.ceil(side))) for side in (right, bottom)))


def _factor(longer: int) -> float:
    return LEAST / longer if longer < LEAST else min(1.0, MOST / longer)


def _frame(drawing: Image.Image, box: Box, entry: dict[str, Any]) -> None:
    """A frame, and above it (or inside, where there is no room) the name and the score."""
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    draw, font = ImageDraw.Draw(drawing), font_of(TEXT)
    color = COLORS[int(entry["index"]) % len(COLORS)]
    width = max(2, round(max(drawing.size) / 300))
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), None, BACKGROUND, width + 2)
    draw.rectangle((left, top, right, bottom), None, color, width)
    text = f"{name_of(entry)} {entry['score']:.2f}"
    long, high = round(draw.textlength(text, font)) + 2 * PADDING, TEXT + 2 * PADDING
    x = min(max(0, round(left)), max(0, drawing.width - long))
    y = round(top) - high if top >= high else min(max(0, round(top)), drawing.height - high)
    draw.rectangle((x, y, x + long, y + high), color)
    ink = BACKGROUND if sum(color) < sum(BACKGROUND) * 0.6 else INK
    draw.text((x + PADDING, y + high // 2), text, ink, font, "lm")
