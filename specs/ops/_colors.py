"""Colours to colours: exactly as Pillow in Python, by its formulas in the graph.

ITU-R 601 luma with Pillow's whole factors of 2^16, and JFIF's YCbCr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specs.ops._graph import Graph

__all__ = ["FORMULAS", "convert_colors", "convert_floats", "graph_colors", "reorder"]

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Pillow's ``L24`` (``Convert.c``)."""
FORMULAS = {
    ("RGB", "L"): ((LUMA,), (0.0,)),
    ("RGB", "YCbCr"): (
        ((0.299, 0.587, 0.114), (-0.16874, -0.33126, 0.5), (0.5, -0.41869, -0.08131)),
        (0.0, 128.0, 128.0),
    ),
    ("YCbCr", "RGB"): (
        ((1.0, 0.0, 1.402), (1.0, -0.34414, -0.71414), (1.0, 1.772, 0.0)),
        (-179.456, 135.45984, -226.816),
    ),
    ("YCbCr", "L"): (((1.0, 0.0, 0.0),), (0.0,)),
    ("L", "RGB"): (((1.0,), (1.0,), (1.0,)), (0.0, 0.0, 0.0)),
    ("L", "YCbCr"): (((1.0,), (0.0,), (0.0,)), (0.0, 128.0, 128.0)),
}
"""Factors by channel, and what is added (``ConvertYCbCr.c``): from one, to the other."""


def reorder(x: NDArray[Any], axis: int) -> NDArray[Any]:
    """Reverse the channels along ``axis``, -1 or -3."""
    return np.flip(x, axis)


def convert_colors(x: NDArray[Any], old: str, new: str) -> NDArray[Any]:
    """Convert [..., height, width, channels] as Pillow; floats without rounding."""
    if x.dtype != np.uint8:
        factors, added = FORMULAS[old, new]
        return x @ np.array(factors, x.dtype).T + np.array(added, x.dtype)
    # Rows of any number of images are rows of one.
    rows = x.reshape(-1, *x.shape[-2:])
    image = Image.fromarray(rows[..., 0] if old == "L" else rows)
    if old == "YCbCr":
        image = Image.frombytes("YCbCr", image.size, image.tobytes())
    return np.asarray(image.convert(new)).reshape(*x.shape[:-1], -1)


def convert_floats(x: Any, old: str, new: str, torch: Any) -> Any:
    """The formula in PyTorch, for [..., height, width, channels]."""
    factors, added = FORMULAS[old, new]
    return x @ torch.tensor(factors, dtype=x.dtype).T + torch.tensor(added, dtype=x.dtype)


def graph_colors(graph: Graph, x: str, pair: tuple[str, str], axis: int, dtype: str) -> str:
    """The formula along the channels' ``axis``, -1 or -3; whole numbers where uint8.

    Sums in place of a product of matrices: GPUs would round its factors (TF32).
    """
    factors, added = FORMULAS[pair]
    shape = (-1, 1, 1) if axis != -1 else (-1,)
    wide = graph.cast(x, "float32")
    planes = [
        graph.add(
            "ReduceSum",
            graph.add("Mul", wide, graph.constant(np.reshape(row, shape))),
            graph.ints(axis),
            keepdims=1,
        )
        for row in factors
    ]
    result = planes[0] if len(planes) == 1 else graph.add("Concat", *planes, axis=axis)
    result = graph.add("Add", result, graph.constant(np.reshape(added, shape)))
    if dtype != "uint8":
        return result
    rounded = graph.add("Floor", graph.add("Add", result, graph.constant(0.5)))
    return graph.pixels(graph.add("Clip", rounded, graph.constant(0), graph.constant(255)), dtype)
