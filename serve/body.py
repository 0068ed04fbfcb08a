"""The body of a request -> the items in it. numpy alone; nothing here trusts a byte."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

import numpy as np

from serve.arrays import Array, fit, numbers, read_json, read_npy
from serve.messages import Call
from serve.multipart import MULTIPART, Part, read_multipart
from specs.errors import InputError
from specs.faults import nearest
from specs.schema import TensorSpec
from specs.values import show_shape

__all__ = ["Form", "Items", "Takes", "read_items"]

NPY = "application/x-npy"
JSON = "application/json"
TEXT = "text/plain"
FILE = "file"
"""The bytes of an image file, or of a text: one item."""
_UNSAID = {"", "application/octet-stream", "application/x-www-form-urlencoded"}
"""Types that say nothing; the last one is what curl sends where nobody chose."""
_NPY_MAGIC = b"\x93NUMPY"
_IMAGE_RANKS = (2, 3)
_UINT8_MAX = 255


class Takes(Protocol):
    """What a model takes; a ``Manifest`` says it, too."""

    @property
    def takes(self) -> str:
        """``image``, ``text`` or ``tensors``."""
        ...

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The graph's inputs, with the batch dimension."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """What a model takes, where there is no manifest at hand."""

    takes: str
    inputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a request, ready for ``Predictor.preprocess``."""

    values: list[Any]
    batch: bool
    """Whether the request was a list of items, so that its answer is one, too."""


def read_items(call: Call, form: Takes) -> Items:
    """Read the items that a request holds.

    Raises:
        InputError: ``unsupported_media_type``, ``empty_body``, ``bad_json``, ``bad_npy``,
            ``bad_base64``, ``bad_multipart``, ``bad_text``, ``wrong_shape``, ``wrong_dtype``,
            ``wrong_input`` or ``not_finite``.
    """
    if not call.body:
        raise InputError("the body is empty", hint=_hint(form), code="empty_body")
    kind = _kind(call, form)
    if kind == MULTIPART:
        return _files(read_multipart(call.body, call.content_type), form)
    if kind == FILE:
        return Items([_file(call.body, call.content_type, form)], batch=False)
    return _from_value(read_npy(call.body) if kind == NPY else read_json(call.body), form)


def _from_value(value: object, form: Takes) -> Items:
    if form.takes == "text":
        return _texts(value)
    return _images(value) if form.takes == "image" else _tensors(value, form)


def _kind(call: Call, form: Takes) -> str:
    said = call.content_type.partition(";")[0].strip().lower()
    if call.body.startswith(_NPY_MAGIC):  # no text begins so: it is not UTF-8
        return NPY
    if said.startswith("image/") or (said == TEXT and form.takes == "text"):
        return FILE
    if said in {JSON, NPY, MULTIPART}:
        return said
    if said not in _UNSAID:
        _unsupported(said, form)
    if form.takes != "text" and call.body[:64].lstrip()[:1] in {b"[", b"{"}:
        return JSON
    return FILE


def _file(content: bytes, said: str, form: Takes) -> bytes | str:
    """One item that is a file: a picture's bytes, or a text."""
    if form.takes == "image":
        return content
    if form.takes != "text" or said.startswith("image/"):
        _unsupported(said, form)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the text is not UTF-8: {error}", code="bad_text") from error


def _files(parts: list[Part], form: Takes) -> Items:
    """Every part of a form is an item, whatever its field is called."""
    return Items([_file(part.content, part.content_type, form) for part in parts], batch=True)


def _unsupported(said: str, form: Takes) -> NoReturn:
    message = f"'{said or 'no content type'}' is not what this model takes"
    raise InputError(message, hint=_hint(form), code="unsupported_media_type")


def _hint(form: Takes) -> str:
    if form.takes == "text":
        return f"send a text ({TEXT}), or one or several as JSON strings ({JSON})"
    image = "the bytes of an image (Content-Type: image/png), or " if form.takes == "image" else ""
    inputs = ", ".join(f"{name} {show_shape(t.shape[1:])}" for name, t in form.inputs.items())
    what = "pixels [height, width, 3]" if form.takes == "image" else inputs
    return f"send {image}{what} as JSON lists ({JSON}) or as .npy ({NPY})"


# --- texts, and files in JSON


def _texts(value: object) -> Items:
    inner = _unwrap(value, "text")
    if isinstance(inner, str):
        return Items([inner], batch=False)
    if isinstance(inner, list) and all(isinstance(v, str) for v in cast("list[object]", inner)):
        return Items(cast("list[Any]", inner), batch=True)
    hint = 'send "a text", or ["one", "another"]'
    raise InputError("found something other than texts", hint=hint, code="wrong_dtype")


def _encoded(value: object) -> Items | None:
    """Image files in base64: a string or ``{"base64": ...}``, or a list of these; else None."""
    one = _base64(value)
    if one is not None:
        return Items([_decoded(one)], batch=False)
    if not isinstance(value, list) or not value:
        return None
    strings = [_base64(item) for item in cast("list[object]", value)]
    if strings[0] is None:
        return None
    return Items([_decoded(string) for string in strings], batch=True)


def _base64(value: object) -> str | None:
    """The string in it; pictures in answers have the form ``{"format", ..., "base64"}``, too."""
    inner = cast("dict[str, object]", value).get("base64") if isinstance(value, dict) else value
    return inner if isinstance(inner, str) else None


def _decoded(string: str | None) -> bytes:
    """The bytes; a browser's ``data:image/png;base64,`` before them is dropped."""
    if string is None:
        raise InputError("a list holds images in base64 and others", code="wrong_dtype")
    text = string.partition(",")[2] if string.startswith("data:") else string
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "a string in place of pixels is an image file in base64"
        raise InputError(f"this is no base64: {error}", hint=hint, code="bad_base64") from error


# --- arrays -> items


def _images(value: object) -> Items:
    """Pictures as files in base64, or as numbers: rank 2 or 3 is one, rank 4 a list."""
    inner = value if _base64(value) is not None else _unwrap(value, "image", "images")
    encoded = _encoded(inner)
    if encoded is not None:
        return encoded
    array = _as_pixels(numbers(inner))
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


def _tensors(value: object, form: Takes) -> Items:
    """The model's inputs by name; the rank of each tells one item from several."""
    given = _by_name(value, form)
    arrays = {name: fit(name, numbers(v), form.inputs[name].dtype) for name, v in given.items()}
    extra = {name: a.ndim - len(form.inputs[name].shape) + 1 for name, a in arrays.items()}
    if set(extra.values()) == {0}:
        return Items([_item(arrays, form)], batch=False)
    sizes = {len(array) for array in arrays.values() if array.ndim}
    if set(extra.values()) != {1} or len(sizes) != 1:
        _wrong_ranks(arrays, form)
    count = sizes.pop()
    return Items(
        [_item({n: a[i] for n, a in arrays.items()}, form) for i in range(count)], batch=True
    )


def _item(arrays: dict[str, Array], form: Takes) -> Any:  # noqa: ANN401 - an item is either
    """A model of one input takes the array itself."""
    return arrays if len(form.inputs) > 1 else next(iter(arrays.values()))


def _by_name(value: object, form: Takes) -> dict[str, object]:
    names = list(form.inputs)
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


def _unwrap(value: object, *keys: str) -> object:
    """``{"inputs": x}`` means x, and so do the other ``keys``."""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        for name in (*keys, "inputs"):
            if list(mapping) == [name]:
                return mapping[name]
        return mapping
    return value


def _wrong_ranks(arrays: dict[str, Array], form: Takes) -> NoReturn:
    found = ", ".join(f"{name} {show_shape(a.shape)}" for name, a in arrays.items())
    one = ", ".join(f"{n} {show_shape(form.inputs[n].shape[1:])}" for n in arrays)
    several = ", ".join(f"{n} {show_shape(form.inputs[n].shape)}" for n in arrays)
    message, hint = f"found {found}", f"one item is {one}; several are {several}"
    raise InputError(message, hint=hint, code="wrong_shape")
