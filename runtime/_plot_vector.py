"""Draws a vector, such as an embedding: bars where they are few, else a strip of colours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from runtime._drawing import (
    BACKGROUND,
    BEST,
    FAINT,
    MARGIN,
    TEXT,
    TRACK,
    Color,
    canvas_of,
    font_of,
    shorten,
)

__all__ = ["NEGATIVE", "draw_vector"]

NEGATIVE: Color = (207, 34, 46)
WIDTH, HEIGHT = 768, 240
"""Size of the drawing area in pixels."""
BARS = 64
"""More numbers than this are drawn as colours."""
ROW = 64
"""Numbers in a row of colours."""
CAPTION = 2 * MARGIN
LARGEST = 4096
"""More numbers than this are left out of the drawing."""


def draw_vector(name: str, vector: NDArray[Any]) -> Image.Image:
    """The numbers of ``vector`` [n] in order: up and blue above zero, down and red below."""
    values = np.asarray(vector, np.float64)
    shown = np.nan_to_num(values[:LARGEST], posinf=0, neginf=0)
    area = _bars(shown) if len(shown) <= BARS else _colors(shown)
    canvas = canvas_of(area.width + 2 * MARGIN, area.height + CAPTION + MARGIN)
    canvas.paste(area, (MARGIN, CAPTION))
    draw = ImageDraw.Draw(canvas)
    text = shorten(draw, _caption(name, values), area.width)
    draw.text((MARGIN, CAPTION - 12), text, FAINT, font_of(TEXT), "ls")
    return canvas


def _caption(name: str, values: NDArray[Any]) -> str:
    finite = values[np.isfinite(values)]
    told = [f"{name}: {len(values)} numbers"]
    if len(finite):
        told.append(f"from {finite.min():.3g} to {finite.max():.3g}")
    if len(finite) < len(values):
        told.append(f"{len(values) - len(finite)} not finite")
    elif len(finite):
        told.append(f"length {np.linalg.norm(finite):.3g}")
    if len(values) > LARGEST:
        told.append(f"the first {LARGEST} are drawn")
    return ", ".join(told)


def _bars(values: NDArray[Any]) -> Image.Image:
    """A bar for each number, from the line of zero."""
    area = canvas_of(WIDTH, HEIGHT)
    draw = ImageDraw.Draw(area)
    high, low = max(0.0, *values), min(0.0, *values)
    unit = (HEIGHT - 1) / ((high - low) or 1)
    zero = round(high * unit)
    step = WIDTH / len(values)
    gap = min(4.0, step / 4)
    for index, value in enumerate(values):
        ends = sorted((zero, round((high - value) * unit)))
        left, right = round(index * step), round((index + 1) * step - gap)
        draw.rectangle((left, ends[0], right, ends[1]), BEST if value >= 0 else NEGATIVE)
    draw.line((0, zero, WIDTH, zero), FAINT)
    return area


def _colors(values: NDArray[Any]) -> Image.Image:
    """A cell for each number, in rows: white at zero, full colour at the largest."""
    share = values / (np.abs(values).max() or 1)
    full = np.where(share[:, None] >= 0, BEST, NEGATIVE)
    white = np.array(BACKGROUND)
    cells = np.rint(white + (full - white) * np.abs(share)[:, None]).astype(np.uint8)
    rows = math.ceil(len(values) / ROW)
    grid = np.full((rows * ROW, 3), TRACK, np.uint8)
    grid[: len(values)] = cells
    side = WIDTH // ROW
    picture = Image.fromarray(grid.reshape(rows, ROW, 3))
    return picture.resize((ROW * side, rows * side), Image.Resampling.NEAREST)
