"""What a request or a file holds -> the items in it. numpy alone; nothing here trusts a byte.

What comes over HTTP and what the command line reads goes through here, so that both refuse it
alike. Only its form is judged: whether an item can be taken is said by the artifact's own
pre-processing, in the same words to everybody.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

from runtime.arrays import Array, numbers, read_json, read_npy
from runtime.multipart import MULTIPART, Part, read_multipart
from specs.errors import InputError
from specs.schema import TensorSpec
from specs.values import show_shape

__all__ = ["JSON", "NPY", "TEXT", "Content", "Form", "Items", "Takes", "from_value", "read_items"]

NPY = "application/x-npy"
JSON = "application/json"
TEXT = "text/plain"
FILE = "file"
"""The bytes of an image or sound file, or of a text: one item."""
_UNSAID = {"", "application/octet-stream", "application/x-www-form-urlencoded"}
"""Types that say nothing; the last one is what curl sends where nobody chose."""
_MEDIA = ("image/", "audio/")
"""How the types of files begin."""
_NPY_MAGIC = b"\x93NUMPY"
_IMAGE_RANK = 3
_IMAGE = "image"
"""What pre-processing calls an array of pixels."""


class Content(Protocol):
    """Bytes, and what is said of them; a request says it, and a file's name."""

    @property
    def body(self) -> bytes:
        """The bytes."""
        ...

    @property
    def content_type(self) -> str:
        """Their media type; "" where nothing is said."""
        ...


class Takes(Protocol):
    """What a model takes; a ``Manifest`` says it, too."""

    @property
    def takes(self) -> str:
        """``image``, ``audio``, ``text`` or ``tensors``."""
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


def read_items(sent: Content, form: Takes) -> Items:
    """Read the items that a request or a file holds, at least one.

    Raises:
        InputError: ``unsupported_media_type``, ``empty_item``, ``bad_json``, ``bad_npy``,
            ``bad_base64``, ``bad_multipart``, ``bad_text``, ``wrong_shape`` or ``wrong_dtype``.
    """
    kind = _kind(sent, form)
    if not sent.body and (kind != FILE or form.takes == "tensors"):
        raise InputError("there are no items, 0 bytes", hint=_hint(form), code="empty_item")
    items = _read(kind, sent, form)
    if not items.values:
        hint = "send at least one item"
        raise InputError("the list of items is empty", hint=hint, code="empty_item")
    return items


def _read(kind: str, sent: Content, form: Takes) -> Items:
    if kind == MULTIPART:
        return _files(read_multipart(sent.body, sent.content_type), form)
    if kind == FILE:
        return Items([_file(sent.body, sent.content_type, form)], batch=False)
    value = read_npy(sent.body, _name(form)) if kind == NPY else read_json(sent.body, strict=False)
    return from_value(value, form)


def from_value(value: object, form: Takes) -> Items:
    """The items in an array, in nested lists, or in arrays by name."""
    if form.takes == "text":
        return _texts(value)
    if form.takes == "audio":
        return _sounds(value)
    return _images(value) if form.takes == "image" else _tensors(value, form)


def _name(form: Takes) -> str:
    """What pre-processing calls the only, or the first, array of an item."""
    return next(iter(form.inputs)) if form.takes == "tensors" else _IMAGE


def _kind(call: Content, form: Takes) -> str:
    said = call.content_type.partition(";")[0].strip().lower()
    if call.body.startswith(_NPY_MAGIC):  # no text begins so: it is not UTF-8
        return NPY
    if said.startswith(_MEDIA) or (said == TEXT and form.takes == "text"):
        return FILE
    if said in {JSON, NPY, MULTIPART}:
        return said
    if said not in _UNSAID:
        _unsupported(said, form)
    if form.takes != "text" and call.body[:64].lstrip()[:1] in {b"[", b"{"}:
        return JSON
    return FILE


def _file(content: bytes, said: str, form: Takes) -> bytes | str:
    """One item that is a file: a picture's or a sound's bytes, or a text."""
    wrong = tuple(kind for kind in _MEDIA if not kind.startswith(form.takes))
    if form.takes == "tensors" or said.startswith(wrong):
        _unsupported(said, form)
    if form.takes != "text":
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8"
        raise InputError(f"the text is not UTF-8: {error}", hint=hint, code="bad_text") from error


def _files(parts: list[Part], form: Takes) -> Items:
    """Every part of a form is an item, whatever its field is called."""
    return Items([_file(part.content, part.content_type, form) for part in parts], batch=True)


def _unsupported(said: str, form: Takes) -> NoReturn:
    message = f"'{said or 'no content type'}' is not what this model takes"
    raise InputError(message, hint=_hint(form), code="unsupported_media_type")


def _hint(form: Takes) -> str:
    if form.takes == "text":
        return f"send a text ({TEXT}), or one or several as JSON strings ({JSON})"
    if form.takes == "audio":
        return f"send a WAV file (Content-Type: audio/wav), or base64 of one or several ({JSON})"
    image = "the bytes of an image (Content-Type: image/png), or " if form.takes == "image" else ""
    inputs = ", ".join(f"{name} {show_shape(t.shape[1:])}" for name, t in form.inputs.items())
    what = "pixels [height, width, 3]" if form.takes == "image" else inputs
    return f"send {image}{what} as JSON lists ({JSON}) or as .npy ({NPY})"


# --- texts, and files in JSON


def _texts(value: object) -> Items:
    inner = _unwrap(value, "text")
    if isinstance(inner, list):
        return Items(cast("list[Any]", inner), batch=True)
    return Items([inner], batch=False)


def _encoded(value: object) -> Items | None:
    """Files in base64: a string or ``{"base64": ...}``, or a list of these; else None."""
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
        hint = "send all of them in base64, or all as pixels"
        message = "a list holds files in base64 and others"
        raise InputError(message, hint=hint, code="wrong_dtype")
    text = string.partition(",")[2] if string.startswith("data:") else string
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "a string that stands for a file is its bytes in base64"
        raise InputError(f"this is no base64: {error}", hint=hint, code="bad_base64") from error


def _sounds(value: object) -> Items:
    inner = value if _base64(value) is not None else _unwrap(value, "audio")
    encoded = _encoded(inner)
    if encoded is None:
        hint = 'send {"audio": "base64 of a WAV file"}, or a list of such strings'
        raise InputError("found something other than sounds", hint=hint, code="wrong_dtype")
    return encoded


# --- arrays -> items


def _images(value: object) -> Items:
    """Pictures as files in base64, or as numbers: those of rank 4 are several."""
    inner = value if _base64(value) is not None else _unwrap(value, "image", "images")
    encoded = _encoded(inner)
    if encoded is not None:
        return encoded
    array = numbers(inner, _IMAGE)
    if array.ndim == _IMAGE_RANK + 1:
        return Items(list(array), batch=True)
    return Items([array], batch=False)


def _tensors(value: object, form: Takes) -> Items:
    """The model's inputs by name; several items have one dimension more than one."""
    given = _by_name(value, form)
    if given is None:
        return Items([value], batch=False)
    arrays = {name: numbers(v, name) for name, v in given.items()}
    if any(array.ndim != len(form.inputs[name].shape) for name, array in arrays.items()):
        return Items([_item(arrays, form)], batch=False)
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) != 1:
        _uneven(arrays, form)
    several = [{name: a[i] for name, a in arrays.items()} for i in range(sizes.pop())]
    return Items([_item(each, form) for each in several], batch=True)


def _item(arrays: dict[str, Array], form: Takes) -> Any:  # noqa: ANN401 - an item is either
    """A model of one input takes the array itself."""
    return arrays if len(form.inputs) > 1 else next(iter(arrays.values()))


def _by_name(value: object, form: Takes) -> dict[str, object] | None:
    """What is given for each input; None where pre-processing will say which are missing."""
    names = list(form.inputs)
    inner = value if "inputs" in names else _unwrap(value, "inputs")
    if not isinstance(inner, dict):
        return {names[0]: inner} if len(names) == 1 else None
    given = cast("dict[str, object]", inner)
    return given if given.keys() == form.inputs.keys() else None


def _unwrap(value: object, *keys: str) -> object:
    """``{"inputs": x}`` means x, and so do the other ``keys``."""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        for name in (*keys, "inputs"):
            if list(mapping) == [name]:
                return mapping[name]
        return mapping
    return value


def _uneven(arrays: dict[str, Array], form: Takes) -> NoReturn:
    found = ", ".join(f"{name} {show_shape(a.shape)}" for name, a in arrays.items())
    one = ", ".join(f"{n} {show_shape(form.inputs[n].shape[1:])}" for n in arrays)
    several = ", ".join(f"{n} {show_shape(form.inputs[n].shape)}" for n in arrays)
    message, hint = f"found {found}", f"one item is {one}; several are {several}"
    raise InputError(message, hint=hint, code="wrong_shape")
