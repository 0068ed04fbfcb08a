"""Where the pixels of the model's input lie in the image that was sent.

A vector of eight: scale and offset by axis (input = image * scale + offset, in pixels, whose edges
are whole numbers), the image's height and width, the input's height and width::

    [scale_y, scale_x, offset_y, offset_x, image_height, image_width, height, width]

Every step that moves pixels turns one into the next, from sizes alone; a detector's boxes go back
through it. Its functions are copied into ``processing.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from specs.ops._fast import size_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["cropped", "padded", "resized", "size_now", "whole_image"]


def whole_image(x: NDArray[Any] | Image.Image) -> NDArray[Any]:
    """Return where a decoded image [height, width, channels] has its pixels: there."""
    height, width = size_of(x)
    return np.array([1, 1, 0, 0, height, width, height, width], np.float64)


def size_now(at: NDArray[Any]) -> tuple[int, int]:
    """Return the height and width of the image as it is now."""
    return int(at[6]), int(at[7])


def resized(at: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return where the pixels are after a resize to (height, width)."""
    factor = np.array(size) / at[6:8]
    return np.concatenate([at[:2] * factor, at[2:4] * factor, at[4:6], size])


def cropped(
    at: NDArray[Any],
    corner: tuple[int, int],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Return where they are after a crop to ``size`` at (top, left)."""
    return np.concatenate([at[:2], at[2:4] - corner, at[4:6], size])


def padded(
    at: NDArray[Any],
    corner: tuple[int, int],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Return where they are after (top, left) rows and columns were put before."""
    return np.concatenate([at[:2], at[2:4] + corner, at[4:6], size])
