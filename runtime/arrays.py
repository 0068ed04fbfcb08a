"""JSON and ``.npy`` -> numpy arrays of numbers. numpy alone; nothing here trusts a byte."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from specs.errors import InputError
from specs.ops._source import BadInput, as_array
from specs.values import show_shape

__all__ = ["Array", "fit", "numbers", "product", "read_json", "read_npy"]

Array = npt.NDArray[Any]

MAX_COUNT = 2**58
"""Elements; numpy counts bytes in 63 bits, and takes a size of 0 for 1 when it does."""
_NPY_HINT = "write the file with numpy.save, and send all of it"
_FITS: dict[str, Callable[[Array], bool]] = {
    "b": lambda a: a.dtype.kind == "b",
    "i": lambda a: a.dtype.kind in "iu",
    "u": lambda a: a.dtype.kind in "iu",
    "f": lambda a: a.dtype.kind in "iuf",
}


def read_json(body: bytes, *, strict: bool = True) -> object:
    """The value of a JSON document.

    Args:
        body: the document.
        strict: whether NaN and infinity, which JSON has not, are refused here; else they are left
            to who knows the array's name.

    Raises:
        InputError: ``bad_json`` or ``not_finite``.
    """
    hint = "send nested lists of numbers, as JSON writes them"
    try:
        value: object = json.loads(body, parse_constant=_no_constant if strict else None)
    except RecursionError:
        raise InputError("the JSON is nested too deeply", hint=hint, code="bad_json") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InputError(f"this is not JSON: {error}", hint=hint, code="bad_json") from error
    return value


def _no_constant(name: str) -> NoReturn:
    hint = "every number must be finite"
    raise InputError(f"{name} is not a number of JSON", hint=hint, code="not_finite")


def read_npy(body: bytes, name: str = "array") -> Array:
    """The array in a .npy file, without a copy; ``name`` is what a refusal calls it.

    ``np.load`` would reserve what the header claims before it reads; here the claim is compared
    with the bytes that are there.

    Raises:
        InputError: ``bad_npy`` or ``wrong_dtype``.
    """
    stream = BytesIO(body)
    try:
        shape, fortran, dtype = _npy_header(stream)
    except Exception as error:  # numpy evaluates the header with the tokenizer, which raises much
        message = f"this is not a .npy file: {error}"
        raise InputError(message, hint=_NPY_HINT, code="bad_npy") from error
    numbers(np.empty(0, dtype), name)  # objects are refused before any is made
    count, start = product(shape, "bad_npy"), stream.tell()
    if count * dtype.itemsize != len(body) - start:
        need = f"{count * dtype.itemsize} bytes for {show_shape(shape)} {dtype}"
        message = f"the .npy header asks for {need}, and {len(body) - start} are there"
        raise InputError(message, hint=_NPY_HINT, code="bad_npy")
    flat = np.frombuffer(body, dtype, count, start)
    return flat.reshape(shape, order="F" if fortran else "C")


def _npy_header(stream: BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} is not known")


def product(shape: tuple[int, ...], code: str) -> int:
    """The number of elements; InputError with ``code`` where a size is negative or absurd."""
    extent = math.prod(max(size, 1) for size in shape)  # Python's integers do not overflow
    if extent > MAX_COUNT or any(size < 0 for size in shape):
        hint = "sizes are whole numbers, not negative, and not so large"
        raise InputError("this is no shape", hint=hint, code=code)
    return math.prod(shape)


def numbers(value: object, name: str) -> Array:
    """Nested lists as an array of numbers, refused in the words of every pre-processing.

    Raises:
        InputError: ``wrong_shape`` or ``wrong_dtype``; ``name`` is what they call it.
    """
    try:
        return as_array(value, name)
    except BadInput as error:
        raise InputError(error.message, hint=error.hint, code=error.code) from error


def fit(name: str, array: Array, dtype: str) -> Array:
    """The array as ``dtype``, since JSON's numbers have none; only rounding may be lost.

    Raises:
        InputError: ``wrong_dtype``; ``name`` is the input's.
    """
    wanted = np.dtype(dtype)
    fits = _FITS[wanted.kind](array) or (array.size == 0)
    if fits and wanted.kind in "iu" and array.size:
        bounds = np.iinfo(wanted)
        fits = bool(bounds.min <= int(array.min()) and int(array.max()) <= bounds.max)
    if not fits:
        message = f"input '{name}' is {wanted}, and these numbers do not fit it"
        raise InputError(message, hint=f"found {array.dtype}", code="wrong_dtype")
    with np.errstate(over="ignore"):  # what overflows is not finite, and refused as that
        return array.astype(wanted, copy=False)
