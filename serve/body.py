"""The body of a request -> the items in it. numpy alone; nothing here trusts a byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from serve.messages import Call
from specs.errors import InputError
from specs.faults import nearest
from specs.manifest import Manifest
from specs.values import show_shape

__all__ = ["Items", "read_items"]

Array = npt.NDArray[Any]

NPY = "application/x-npy"
JSON = "application/json"
IMAGE = "image/*"
_UNSAID = {"", "application/octet-stream", "application/x-www-form-urlencoded"}
"""Types that say nothing; the last one is what curl sends where nobody chose."""
_NPY_MAGIC = b"\x93NUMPY"
_IMAGE_RANKS = (2, 3)
_UINT8_MAX = 255


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a request, ready for ``Predictor.preprocess``."""

    values: list[Any]
    batch: bool
    """Whether the request was a list of items, so that its answer is one, too."""


def read_items(call: Call, manifest: Manifest) -> Items:
    """Read the items that a request holds.

    Raises:
        InputError: ``unsupported_media_type``, ``empty_body``, ``bad_json``, ``bad_npy``,
            ``wrong_shape``, ``wrong_dtype``, ``wrong_input`` or ``not_finite``.
    """
    if not call.body:
        raise InputError("the body is empty", hint=_hint(manifest), code="empty_body")
    kind = _kind(call, manifest)
    if kind == IMAGE:
        if manifest.takes != "image":
            _unsupported(call.content_type, manifest)
        return Items([call.body], batch=False)
    value = _read_npy(call.body) if kind == NPY else _read_json(call.body)
    return _image_arrays(value) if manifest.takes == "image" else _tensors(value, manifest)


def _kind(call: Call, manifest: Manifest) -> str:
    said = call.content_type.partition(";")[0].strip().lower()
    if call.body.startswith(_NPY_MAGIC):
        return NPY
    if said.startswith("image/"):
        return IMAGE
    if said in {JSON, NPY}:
        return said
    if said not in _UNSAID:
        _unsupported(said, manifest)
    if call.body[:64].lstrip()[:1] in {b"[", b"{"}:
        return JSON
    return IMAGE


def _unsupported(said: str, manifest: Manifest) -> NoReturn:
    message = f"'{said or 'no content type'}' is not what this model takes"
    raise InputError(message, hint=_hint(manifest), code="unsupported_media_type")


def _hint(manifest: Manifest) -> str:
    image = "the bytes of an image (Content-Type: image/png), or " if _takes_image(manifest) else ""
    inputs = ", ".join(f"{name} {show_shape(t.shape[1:])}" for name, t in manifest.inputs.items())
    what = "pixels [height, width, 3]" if _takes_image(manifest) else inputs
    return f"send {image}{what} as JSON lists ({JSON}) or as .npy ({NPY})"


def _takes_image(manifest: Manifest) -> bool:
    return manifest.takes == "image"


# --- JSON and .npy


def _read_json(body: bytes) -> object:
    try:
        value: object = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise InputError("the JSON is nested too deeply", code="bad_json") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InputError(f"the body is not JSON: {error}", code="bad_json") from error
    return value


def _no_constant(name: str) -> NoReturn:
    hint = "every number must be finite"
    raise InputError(f"{name} is not a number of JSON", hint=hint, code="not_finite")


def _read_npy(body: bytes) -> Array:
    """The array in a .npy file, without a copy.

    ``np.load`` would reserve what the header claims before it reads; here the claim is compared
    with the bytes that are there.
    """
    stream = BytesIO(body)
    try:
        shape, fortran, dtype = _npy_header(stream)
    except Exception as error:  # numpy evaluates the header with the tokenizer, which raises much
        raise InputError(f"the body is not a .npy file: {error}", code="bad_npy") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        hint = "save numbers: bool, int, uint or float"
        raise InputError(f"a .npy file of dtype {dtype} is not read", hint=hint, code="wrong_dtype")
    count, start = _product(shape), stream.tell()
    if count * dtype.itemsize != len(body) - start:
        need = f"{count * dtype.itemsize} bytes for {show_shape(shape)} {dtype}"
        message = f"the .npy header asks for {need}, and {len(body) - start} are there"
        raise InputError(message, code="bad_npy")
    flat = np.frombuffer(body, dtype, count, start)
    return flat.reshape(shape, order="F" if fortran else "C")


def _npy_header(stream: BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} is not known")


def _product(shape: tuple[int, ...]) -> int:
    if any(size < 0 for size in shape):
        raise InputError(f"{show_shape(shape)} is no shape", code="bad_npy")
    count = 1
    for size in shape:  # Python's integers, which do not overflow
        count *= size
    return count


# --- arrays -> items


def _image_arrays(value: object) -> Items:
    """Pictures as numbers: [height, width] or [height, width, 3], and rank 4 for a list."""
    array = _as_pixels(_numbers(_unwrap(value, "image")))
    if array.ndim in _IMAGE_RANKS:
        return Items([array], batch=False)
    if array.ndim == max(_IMAGE_RANKS) + 1:
        return Items(list(array), batch=True)
    message = f"found an array of shape {show_shape(array.shape)}"
    hint = "one picture is [height, width] or [height, width, 3]; several are [n, height, width, 3]"
    raise InputError(message, hint=hint, code="wrong_shape")


def _as_pixels(array: Array) -> Array:
    if array.dtype == np.uint8 or array.dtype.kind == "f":
        return array
    if array.dtype.kind not in "iu" or (
        array.size and (array.min() < 0 or array.max() > _UINT8_MAX)
    ):
        hint = "pixels are whole numbers from 0 to 255, or floating point in the same range"
        raise InputError("these are no pixels", hint=hint, code="wrong_dtype")
    return array.astype(np.uint8)


def _tensors(value: object, manifest: Manifest) -> Items:
    """The model's inputs by name; the rank of each tells one item from several."""
    given = _by_name(value, manifest)
    arrays = {name: _as_dtype(name, _numbers(v), manifest) for name, v in given.items()}
    extra = {name: a.ndim - len(manifest.inputs[name].shape) + 1 for name, a in arrays.items()}
    if set(extra.values()) == {0}:
        return Items([_item(arrays, manifest)], batch=False)
    sizes = {len(array) for array in arrays.values() if array.ndim}
    if set(extra.values()) != {1} or len(sizes) != 1:
        _wrong_ranks(arrays, manifest)
    count = sizes.pop()
    return Items(
        [_item({n: a[i] for n, a in arrays.items()}, manifest) for i in range(count)], batch=True
    )


def _item(arrays: dict[str, Array], manifest: Manifest) -> Any:  # noqa: ANN401 - an item is either
    """A model of one input takes the array itself."""
    return arrays if len(manifest.inputs) > 1 else next(iter(arrays.values()))


def _by_name(value: object, manifest: Manifest) -> dict[str, object]:
    names = list(manifest.inputs)
    inner = value if "inputs" in names else _unwrap(value, "inputs")
    if not isinstance(inner, dict):
        if len(names) == 1:
            return {names[0]: inner}
        hint = f"send an object with {', '.join(names)}"
        raise InputError(f"this model has {len(names)} inputs", hint=hint, code="wrong_input")
    given = cast("dict[str, object]", inner)
    for name in given:
        if name not in names:
            hint = nearest(name, names)
            raise InputError(f"there is no input '{name}'", hint=hint, code="wrong_input")
    if missing := [name for name in names if name not in given]:
        hint = f"send an object with {', '.join(names)}"
        raise InputError(f"no input '{missing[0]}' was sent", hint=hint, code="wrong_input")
    return given


def _unwrap(value: object, key: str) -> object:
    """``{"inputs": x}`` means x."""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        for name in (key, "inputs"):
            if list(mapping) == [name]:
                return mapping[name]
        return mapping
    return value


def _numbers(value: object) -> Array:
    if isinstance(value, np.ndarray):
        return cast("Array", value)
    try:
        array: Array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        hint = "the lists on one level must be equally long"
        raise InputError("the lists form no array", hint=hint, code="wrong_shape") from error
    if array.dtype.kind not in "biuf":
        hint = "send nested lists of numbers"
        raise InputError("found something other than numbers", hint=hint, code="wrong_dtype")
    return array


_FITS: dict[str, Callable[[Array], bool]] = {
    "b": lambda a: a.dtype.kind == "b",
    "i": lambda a: a.dtype.kind in "iu",
    "u": lambda a: a.dtype.kind in "iu",
    "f": lambda a: a.dtype.kind in "iuf",
}


def _as_dtype(name: str, array: Array, manifest: Manifest) -> Array:
    """The input's own dtype, since JSON's numbers have none; only rounding may be lost."""
    wanted = np.dtype(manifest.inputs[name].dtype)
    fits = _FITS[wanted.kind](array) or (array.size == 0)
    if fits and wanted.kind in "iu" and array.size:
        bounds = np.iinfo(wanted)
        fits = bool(bounds.min <= int(array.min()) and int(array.max()) <= bounds.max)
    if not fits:
        message = f"input '{name}' is {wanted}, and these numbers do not fit it"
        raise InputError(message, hint=f"found {array.dtype}", code="wrong_dtype")
    with np.errstate(over="ignore"):  # what overflows is not finite, and refused as that
        return array.astype(wanted, copy=False)


def _wrong_ranks(arrays: dict[str, Array], manifest: Manifest) -> NoReturn:
    found = ", ".join(f"{name} {show_shape(a.shape)}" for name, a in arrays.items())
    one = ", ".join(f"{n} {show_shape(manifest.inputs[n].shape[1:])}" for n in arrays)
    several = ", ".join(f"{n} {show_shape(manifest.inputs[n].shape)}" for n in arrays)
    message, hint = f"found {found}", f"one item is {one}; several are {several}"
    raise InputError(message, hint=hint, code="wrong_shape")
