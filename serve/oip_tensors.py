"""Tensors of the Open Inference Protocol v2: datatypes, shapes and bytes. Trusts no byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import numpy as np

from runtime.arrays import Array, product
from specs.errors import InputError
from specs.faults import nearest
from specs.values import show_shape

__all__ = [
    "BYTES",
    "DATATYPES",
    "InferRequest",
    "InferResponse",
    "Tensor",
    "Wanted",
    "check_datatype",
    "check_shape",
    "datatype_of",
    "from_raw",
    "of_bytes",
    "to_raw",
]

BYTES = "BYTES"
DATATYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    BYTES: "object",
}
"""The protocol's name of a datatype, and numpy's."""
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
MAX_RANK = 32
LENGTH = 4
"""Bytes of the little-endian length before each element of a BYTES tensor."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; the elements of a BYTES tensor are ``bytes`` in an array of objects."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that a request asks for."""

    name: str
    binary: bool = False
    """In bytes behind the JSON, not in it."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks, in whichever notation."""

    inputs: tuple[Tensor, ...]
    wanted: tuple[Wanted, ...] = ()
    """Empty for all of them."""
    id: str = ""
    binary: bool = False
    """For outputs that the request does not name."""
    timeout_s: float | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """What a client gets, in whichever notation."""

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    binary: frozenset[str] = field(default_factory=frozenset[str])
    """Outputs that go into bytes behind the JSON."""


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's dtype."""
    return _NAMES[array.dtype.name]


def check_datatype(datatype: object, name: str) -> str:
    """The datatype of tensor ``name``, if it is one; InputError ``wrong_dtype``."""
    if datatype == "BF16":
        message, hint = f"'{name}' is BF16, which numpy has not", "send FP32"
        raise InputError(message, hint=hint, code="wrong_dtype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        hint = nearest(str(datatype), DATATYPES)
        message = f"'{name}': {_quoted(datatype)} is no datatype"
        raise InputError(message, hint=hint, code="wrong_dtype")
    return datatype


def check_shape(shape: object, name: str) -> tuple[int, ...]:
    """The shape of tensor ``name``, if it is one; InputError ``wrong_shape``."""
    sizes = cast("Sequence[object]", shape) if isinstance(shape, list | tuple) else None
    if sizes is None or len(sizes) > MAX_RANK or not all(type(size) is int for size in sizes):
        hint = f"a list of at most {MAX_RANK} whole numbers"
        raise InputError(f"'{name}' has no shape", hint=hint, code="wrong_shape")
    found = cast("tuple[int, ...]", tuple(sizes))
    product(found, "wrong_shape")  # refuses what is negative
    return found


def from_raw(name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview) -> Tensor:
    """A tensor from its bytes: little-endian, in row-major order, without a copy.

    Raises:
        InputError: ``wrong_size``, where shape and bytes do not agree.
    """
    count = product(shape, "wrong_shape")
    if datatype == BYTES:
        return Tensor(name, datatype, of_bytes(list(_elements(name, count, raw)), shape))
    dtype = np.dtype(DATATYPES[datatype]).newbyteorder("<")
    if count * dtype.itemsize != len(raw):
        _wrong_size(name, f"{datatype} {show_shape(shape)}", count * dtype.itemsize, len(raw))
    if datatype == "BOOL":  # a byte that is neither 0 nor 1 would be neither true nor false
        return Tensor(name, datatype, (np.frombuffer(raw, np.uint8) != 0).reshape(shape))
    return Tensor(name, datatype, np.frombuffer(raw, dtype).reshape(shape))


def _elements(name: str, count: int, raw: bytes | memoryview) -> Iterator[bytes]:
    at = 0
    for _ in range(count):
        size = int.from_bytes(raw[at : at + LENGTH], "little")
        at += LENGTH + size
        if at > len(raw):  # at the first that is not there, however many were claimed
            _wrong_size(name, f"an element of {size} bytes", at, len(raw))
        yield bytes(raw[at - size : at])
    if at != len(raw):
        _wrong_size(name, f"{count} BYTES elements", at, len(raw))


def _wrong_size(name: str, what: str, need: int, found: int) -> NoReturn:
    message = f"'{name}': {what} takes {need} bytes, and {found} are there"
    raise InputError(message, hint="shape, datatype and bytes must agree", code="wrong_size")


def to_raw(tensor: Tensor) -> bytes:
    """A tensor's bytes: little-endian, in row-major order."""
    if tensor.datatype != BYTES:
        dtype = tensor.array.dtype.newbyteorder("<")
        return tensor.array.astype(dtype, copy=False).tobytes()
    elements = cast("list[bytes]", tensor.array.reshape(-1).tolist())
    return b"".join(len(one).to_bytes(LENGTH, "little") + one for one in elements)


def of_bytes(elements: Sequence[bytes], shape: tuple[int, ...] | None = None) -> Array:
    """An array of objects; numpy's own strings would drop zero bytes at the end."""
    array: Array = np.empty(len(elements), object)
    array[:] = elements
    return array if shape is None else array.reshape(shape)


def _quoted(value: Any) -> str:  # noqa: ANN401 - whatever the client sent
    return repr(value)[:40]
