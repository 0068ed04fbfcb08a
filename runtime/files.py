"""Files -> items: a picture's bytes, a text, or tensors from .npy, .npz and .json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from runtime.tensors import Array
from specs.errors import InputError
from specs.manifest import Manifest

__all__ = ["read_items"]

PICTURE_RANK = 3
HINT = "expected a picture, or numbers: .npy, .npz, or .json with nested lists"
TEXT_HINT = "expected a text in UTF-8, or .json with one text or a list of them"


def read_items(file: Path, manifest: Manifest) -> list[Any]:
    """The items in a file: one, or several where its arrays have a further, first dimension.

    A file of text is one item, however many lines it has; .json may hold a list of texts.

    Raises:
        InputError: the file cannot be read, or holds no items; what is in them is not looked at.
    """
    is_text = manifest.takes == "text"
    hint = TEXT_HINT if is_text else HINT
    try:
        items = _texts(file) if is_text else _items(file, manifest)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}", hint=hint) from error
    except Exception as error:  # numpy's readers raise what zip files, pickles and tokenizers do
        message = f"{file} cannot be read: {type(error).__name__}: {error}"
        raise InputError(message, hint=hint) from error
    if not items:
        raise InputError(f"{file} holds no items", hint="its list is empty")
    return items


def _texts(file: Path) -> list[Any]:
    text = file.read_bytes().decode("utf-8-sig")
    if file.suffix != ".json":
        return [text]
    value = json.loads(text)
    if isinstance(value, dict) and list(cast("dict[str, object]", value)) == ["text"]:
        value = cast("dict[str, object]", value)["text"]
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _items(file: Path, manifest: Manifest) -> list[Any]:
    value = _read(file, manifest)
    return [value] if isinstance(value, bytes) else _split(value, manifest)


def _read(file: Path, manifest: Manifest) -> object:
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False)
    data = file.read_bytes()
    if manifest.takes == "image" and file.suffix != ".json":
        return data
    return json.loads(data)


def _split(value: object, manifest: Manifest) -> list[Any]:
    """One item, or as many as the first dimension has where all arrays have one more than asked."""
    if manifest.takes == "image":
        pixels: Array = np.asarray(value)
        return list(pixels) if pixels.ndim > PICTURE_RANK else [pixels]
    names = list(manifest.inputs)
    given = cast("dict[str, object]", value) if isinstance(value, dict) else {names[0]: value}
    arrays: dict[str, Array] = {name: np.asarray(item) for name, item in given.items()}
    if len(names) > 1 and not isinstance(value, dict):
        return [value]  # refused by the pre-processing, which knows the names
    batched = all(a.ndim == len(manifest.inputs[n].shape) for n, a in arrays.items() if n in names)
    sizes = {len(array) for array in arrays.values() if array.ndim}
    if not batched or len(sizes) != 1:
        return [arrays]
    return [{name: array[i] for name, array in arrays.items()} for i in range(sizes.pop())]
