"""Files -> items: a picture's or sound's bytes, a text, or tensors from .npy, .npz and .json."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.arrays import Array
from runtime.body import JSON, NPY, TEXT, Takes, from_value, read_items
from specs.errors import InputError

__all__ = ["read_file"]

TYPES = {".json": JSON, ".npy": NPY}
NPZ = ".npz"


@dataclass(frozen=True, slots=True)
class _File:
    """What a file holds, and what its name says of that."""

    body: bytes
    content_type: str


def read_file(file: Path, form: Takes) -> list[Any]:
    """The items in a file, which its name tells the type of; read as a request's body is.

    Several items stand along a first dimension of its arrays, or in a list of texts or of pictures
    in base64. A file of text is one item, however many lines it has.

    Raises:
        InputError: the file cannot be read, or holds no items; what is in them is not looked at.
    """
    try:
        body = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        hint = "name a file that is there, and may be read"
        raise InputError(f"cannot be read: {reason}", hint=hint, code="file") from error
    if file.suffix.lower() == NPZ:
        return from_value(_read_npz(file), form).values
    return read_items(_File(body, _type_of(file, form)), form).values


def _type_of(file: Path, form: Takes) -> str:
    """The media type that a client would send with it."""
    known = TYPES.get(file.suffix.lower())
    if known:
        return known
    guessed = mimetypes.guess_type(file.name)[0] or ""
    if form.takes == "text":
        return guessed if guessed.startswith(("image/", "audio/")) else TEXT
    # A picture or a sound of any name, or of none, is told by its bytes.
    return guessed if form.takes == "tensors" else f"{form.takes}/*"


def _read_npz(file: Path) -> dict[str, Array]:
    """Arrays by name; numpy's reader raises what zip files, pickles and tokenizers do."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:
        hint = "write the file with numpy.savez"
        message = f"this is not a .npz file: {type(error).__name__}: {error}"
        raise InputError(message, hint=hint, code="bad_npz") from error
