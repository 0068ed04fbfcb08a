"""Images that every execution of a spec's pre-processing is run on.

Drawn here, so that an artifact may carry them: what photographs and files in the wild have of which
processing goes wrong. Values and formats come from a fixed seed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["GOLDEN_IMAGES", "golden_images", "photo"]

Pixels = NDArray[np.uint8]

SEED = 20
ORIENTATION = 0x0112
"""The EXIF tag; 6 means that the file's left side is the picture's top."""


def photo(height: int, width: int, seed: int = SEED) -> Pixels:
    """Something like a photograph, [height, width, 3]: smooth light, edges, fine texture, noise."""
    rng = np.random.default_rng([seed, height, width])
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows, columns = rows / max(height, 64), columns / max(width, 64)
    planes = [_plane(rng, rows, columns) for _ in range(3)]
    image = np.stack(planes, axis=2)
    image += rng.normal(0, 4, image.shape)
    return np.rint(image.clip(0, 255)).astype(np.uint8)


def _plane(rng: np.random.Generator, rows: Any, columns: Any) -> NDArray[np.float32]:  # noqa: ANN401 - grids
    """Light that changes slowly, discs and bars with sharp edges, and a grating."""
    light = 110 + 60 * np.sin(rng.uniform(1, 5) * rows + rng.uniform(1, 5) * columns)
    for _ in range(6):
        y, x, radius = rng.uniform(0, 1, 3)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < (0.05 + 0.15 * radius) ** 2
        light = np.where(inside, rng.uniform(0, 255), light)
    edge, angle = rng.uniform(0.2, 0.8), rng.uniform(-1, 1)
    grating = 40 * np.sin(900 * (rows + angle * columns))
    return np.where(columns > edge, light + grating * (rows > 1 - edge), light).astype(np.float32)


def golden_images() -> dict[str, bytes]:
    """Every image as a file's bytes, by file name."""
    return {name: draw() for name, draw in GOLDEN_IMAGES.items()}


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401 - as Pillow has them
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _photo(height: int, width: int, kind: str = "JPEG", **options: Any) -> Callable[[], bytes]:  # noqa: ANN401
    return lambda: _file(Image.fromarray(photo(height, width)), kind, **options)


def _converted(mode: str, kind: str) -> Callable[[], bytes]:
    return lambda: _file(Image.fromarray(photo(96, 128)).convert(mode), kind)


def _transparent(mode: str) -> bytes:
    """A picture whose left half is transparent, over colours that show when that is dropped."""
    image = Image.fromarray(photo(90, 120)).convert("RGBA")
    alpha = np.full((90, 120), 255, np.uint8)
    alpha[:, :60] = 0
    image.putalpha(Image.fromarray(alpha))
    if mode == "P":
        palette = image.convert("RGB").quantize(64)
        return _file(palette, "PNG", transparency=0)
    return _file(image.convert(mode), "PNG")


def _sixteen_bit() -> bytes:
    gray = photo(80, 100)[:, :, 0].astype(np.uint16) * 257
    return _file(Image.fromarray(gray), "PNG")


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _file(Image.fromarray(photo(120, 90)), "JPEG", exif=exif)


def _animated(kind: str) -> bytes:
    frames = [Image.fromarray(photo(64, 80, seed)) for seed in (1, 2, 3)]
    return _file(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


GOLDEN_IMAGES: dict[str, Callable[[], bytes]] = {
    "photo.jpg": _photo(375, 500, quality=90),
    "photo_large.jpg": _photo(1080, 1440, quality=75),
    "photo_small.png": _photo(20, 30, "PNG"),
    "square.png": _photo(224, 224, "PNG"),
    "odd.jpg": _photo(257, 341, quality=95, subsampling=0),
    "tall.jpg": _photo(900, 30),
    "wide.jpg": _photo(30, 900),
    "one_row.png": _photo(1, 60, "PNG"),
    "one_column.png": _photo(60, 1, "PNG"),
    "one_pixel.png": _photo(1, 1, "PNG"),
    "progressive.jpg": _photo(150, 200, progressive=True),
    "gray.jpg": _converted("L", "JPEG"),
    "cmyk.jpg": _converted("CMYK", "JPEG"),
    "one_bit.png": _converted("1", "PNG"),
    "gray_alpha.png": lambda: _transparent("LA"),
    "alpha.png": lambda: _transparent("RGBA"),
    "palette_alpha.png": lambda: _transparent("P"),
    "sixteen_bit.png": _sixteen_bit,
    "rotated.jpg": _rotated,
    "animated.gif": lambda: _animated("GIF"),
    "animated.png": lambda: _animated("PNG"),
    "still.webp": _photo(70, 90, "WEBP", quality=90),
    "still.bmp": _photo(33, 47, "BMP"),
    "still.tiff": _photo(47, 33, "TIFF"),
}
"""What draws each, by file name."""
