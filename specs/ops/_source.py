"""What every generated ``processing.py`` begins with: how an item is taken, or refused.

The compiler copies what a step calls, so code here uses numpy, Pillow and the standard library
only. Lines that are copied stay within 88 columns, ruff's default, so that the file is formatted
by anybody's ruff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MAX_BYTES",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "MAX_SECONDS",
    "MAX_SIDE",
    "MAX_TEXT",
    "BadInput",
    "Shape",
    "as_array",
    "as_input",
    "as_tensor",
    "as_tensors",
    "check_finite",
    "check_pixels",
    "check_shape",
]

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
MAX_SIDE = 20_000
MAX_FRAMES = 1_000
MAX_TEXT = 100_000
MAX_SECONDS = 600

Shape = tuple[int | tuple[str, int, int], ...]


class BadInput(ValueError):  # noqa: N818 - the name that the contract gives
    """An item that cannot be taken: ``code`` is stable, ``hint`` says what to do."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def check_pixels(height: int, width: int, what: str) -> None:
    """Refuse a picture of more than MAX_PIXELS before memory is spent on it."""
    if height * width > MAX_PIXELS:
        message = f"{what} {width}x{height} pixels, at most {MAX_PIXELS} are taken"
        raise BadInput("too_large", message, "send a smaller image")


def as_array(data: object, name: str) -> NDArray[Any]:
    """Return an array or nested lists as an array of numbers."""
    try:
        array = np.asarray(data)
    except Exception as error:
        # What numpy says of it differs between versions.
        message = f"'{name}' is no array: its lists are not equally long, or too deep"
        hint = "send an array, or nested lists of equal lengths"
        raise BadInput("wrong_shape", message, hint) from error
    if array.dtype.kind not in "biuf":
        found = f"{type(data).__name__} of dtype {array.dtype}"
        message = f"'{name}' is {found[:99]}, expected an array of numbers"
        raise BadInput("wrong_dtype", message, "send integers or floating point")
    return array


def check_finite(array: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        message = f"'{name}' holds NaN or infinity"
        raise BadInput("not_finite", message, "send finite numbers")


def check_shape(
    array: NDArray[Any],
    name: str,
    shape: Shape,
    sizes: dict[str, int] | None = None,
) -> None:
    """Refuse another shape than ``shape``, whose open sizes are (name, min, max).

    ``sizes`` collects the open sizes: the same name means the same size everywhere.
    """
    known = {} if sizes is None else sizes
    good = array.ndim == len(shape)
    for size, dim in zip(array.shape, shape, strict=False):
        if isinstance(dim, int):
            good = good and size == dim
        else:
            same = known.setdefault(dim[0], size) == size
            good = good and same and dim[1] <= size <= dim[2]
    if not good:
        dims = [d if isinstance(d, int) else f"{d[0]} ({d[1]}..{d[2]})" for d in shape]
        want = ", ".join(str(dim) for dim in dims)
        message = f"'{name}' has shape {list(array.shape)}, expected [{want}]"
        batched = array.ndim == len(shape) + 1
        hint = "send one item, without the batch dimension" if batched else ""
        raise BadInput("wrong_shape", message, hint or "send that shape")


def as_tensor(array: NDArray[Any], name: str, dtype: str) -> NDArray[Any]:
    """Convert to ``dtype`` where no value is lost; in floating point last digits may be."""
    check_finite(array, name)
    if (array.dtype.kind == "b") != (np.dtype(dtype).kind == "b"):
        message = f"'{name}' is {array.dtype}, expected {dtype}"
        raise BadInput("wrong_dtype", message, f"send {dtype}")
    with np.errstate(all="ignore"):
        tensor = np.asarray(array, dtype, order="C")
        kept = np.isfinite(tensor) if tensor.dtype.kind == "f" else tensor == array
    if not kept.all():
        message = f"'{name}' is {array.dtype} with values that {dtype} cannot hold"
        raise BadInput("wrong_dtype", message, f"send {dtype}")
    return tensor


def as_tensors(
    data: object,
    inputs: dict[str, tuple[str, Shape]],
) -> dict[str, NDArray[Any]]:
    """Return one item's tensors by input name; a lone one may come without its name."""
    kind = type(data).__name__
    found: dict[Any, object] = {}
    if isinstance(data, dict):
        found = cast("dict[Any, object]", data)
    elif len(inputs) == 1:
        found = dict.fromkeys(inputs, data)
    if found.keys() != inputs.keys():
        names = ", ".join(map(str, found)) or kind
        message = f"expected the inputs {', '.join(inputs)}, found {names[:99]}"
        raise BadInput("wrong_input", message, "send a mapping of names to arrays")
    sizes: dict[str, int] = {}
    tensors: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in inputs.items():
        array = as_array(found[name], name)
        check_shape(array, name, shape, sizes)
        tensors[name] = as_tensor(array, name, dtype)
    return tensors


def as_input(
    x: NDArray[Any],
    name: str,
    dtype: str,
    shape: Shape,
    into: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Check the finished item, and give it the memory layout that engines take."""
    check_shape(x, name, shape)
    if x.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        # Only an item that came as floating point gets here: its steps kept it so.
        limits = np.iinfo(dtype)
        x = np.rint(x).clip(limits.min, limits.max)
    if into is None or x is into:
        return np.asarray(x, dtype, order="C")
    np.copyto(into, x, casting="unsafe")
    return into
