"""Answers as JSON values, and pictures as PNG files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["encode_png", "to_json"]


def to_json(answer: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value of one answer.

    A picture becomes ``{"format": "png", "width", "height", "base64"}``, an array nested lists.
    JSON has no NaN and no infinity: each becomes ``null``.
    """
    return {
        key: _picture(value) if key == "image" else _plain(value) for key, value in answer.items()
    }


def encode_png(array: NDArray[Any]) -> bytes:
    """A PNG file of uint8 pixels [height, width, 3] or [height, width]."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG")
    return file.getvalue()


def _picture(pixels: NDArray[Any]) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    encoded = base64.b64encode(encode_png(pixels)).decode("ascii")
    return {"format": "png", "width": width, "height": height, "base64": encoded}


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def _plain(value: object) -> object:
    kind = type(value)
    if kind in _AS_THEY_ARE:  # most of an answer, and quickly told
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _numbers(np.asarray(cast("NDArray[Any]", value)))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if kind is dict or isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[object]", value)]
    return value


def _numbers(array: NDArray[Any]) -> object:
    """Nested lists of Python numbers, with None for what is not finite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    numbers: NDArray[Any] = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()
