"""Inference requests and responses as JSON, with or without the binary tensor extension.

A body of that extension is JSON first, then the bytes of the tensors that carry
``parameters.binary_data_size``, in the order of the JSON. ``Inference-Header-Content-Length`` says
how long the JSON is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from runtime.arrays import Array, fit, numbers, product, read_json
from serve.oip_parameters import check_supported, priority_class, switch, timeout_of
from serve.oip_tensors import (
    BYTES,
    DATATYPES,
    InferRequest,
    InferResponse,
    Tensor,
    Wanted,
    check_datatype,
    check_shape,
    from_raw,
    of_bytes,
    to_raw,
)
from specs.errors import InputError
from specs.values import show_shape

__all__ = ["HEADER_LENGTH", "decode", "encode"]

HEADER_LENGTH = "Inference-Header-Content-Length"
SIZE = "binary_data_size"

Fields = dict[str, Any]


def decode(body: bytes, header_length: int | None) -> InferRequest:
    """The request in a body.

    Args:
        body: JSON, and bytes behind it where ``header_length`` says so.
        header_length: the value of the header; None without one.

    Raises:
        InputError: the request is at fault; its code says how.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        message = f"{HEADER_LENGTH} is {header_length}, and the body has {len(body)} bytes"
        raise InputError(message, code="wrong_size")
    length = len(body) if header_length is None else header_length
    request = _object(read_json(body[:length]), "the request")
    parameters = _parameters(request, "the request")
    check_supported(parameters)
    binary = switch(parameters, "binary_data_output") or False
    return InferRequest(
        inputs=tuple(_inputs(_objects(request, "inputs"), memoryview(body)[length:])),
        wanted=tuple(_wanted(each, binary) for each in _objects(request, "outputs")),
        id=_text(request.get("id", ""), "id"),
        binary=binary,
        timeout_s=timeout_of(parameters.get("timeout")),
        priority=priority_class(parameters.get("priority")),
    )


def _inputs(given: list[Fields], rest: memoryview) -> Iterator[Tensor]:
    at = 0
    for fields in given:
        name = _text(fields.get("name"), "an input's name")
        datatype = check_datatype(fields.get("datatype"), name)
        shape = check_shape(fields.get("shape"), name)
        parameters = _parameters(fields, name)
        check_supported(parameters, tensor=True)
        size = parameters.get(SIZE)
        if size is None:
            yield _from_data(name, datatype, shape, fields)
            continue
        if type(size) is not int or not 0 <= size <= len(rest) - at or "data" in fields:
            message = f"'{name}': {SIZE} does not fit the body"
            hint = f"{len(rest) - at} bytes are left behind the JSON; 'data' must be left out"
            raise InputError(message, hint=hint, code="wrong_size")
        yield from_raw(name, datatype, shape, rest[at : at + size])
        at += size
    if at != len(rest):
        message = f"{len(rest) - at} bytes behind the JSON belong to no input"
        raise InputError(message, code="wrong_size")


def _from_data(name: str, datatype: str, shape: tuple[int, ...], fields: Fields) -> Tensor:
    if "data" not in fields:
        raise InputError(f"'{name}' has no data", code="wrong_input")
    if datatype == BYTES:
        array = _strings(name, fields["data"])
    else:
        array = fit(name, numbers(fields["data"], name), DATATYPES[datatype])
    if array.size != product(shape, "wrong_shape") or (array.ndim != 1 and array.shape != shape):
        message = f"'{name}': the data has shape {show_shape(array.shape)}, not {show_shape(shape)}"
        hint = "flat in row-major order, or nested as the shape says"
        raise InputError(message, hint=hint, code="wrong_shape")
    return Tensor(name, datatype, array.reshape(shape))


def _strings(name: str, data: object) -> Array:
    """Strings, flat: a BYTES tensor is one of rank 1 for all that is served here."""
    found = cast("list[object]", data) if isinstance(data, list) else None
    if found is None or not all(isinstance(each, str) for each in found):
        hint = "a flat list of strings; other bytes go behind the JSON"
        raise InputError(f"'{name}' holds no strings", hint=hint, code="wrong_dtype")
    try:
        return of_bytes([cast("str", each).encode() for each in found])
    except UnicodeEncodeError as error:  # half of a pair of surrogates
        raise InputError(f"'{name}' holds a broken string", code="bad_text") from error


def _wanted(fields: Fields, binary: bool) -> Wanted:
    name = _text(fields.get("name"), "an output's name")
    parameters = _parameters(fields, name)
    check_supported(parameters, tensor=True)
    said = switch(parameters, "binary_data")
    return Wanted(name, binary if said is None else said)


def _objects(request: Fields, key: str) -> list[Fields]:
    value = request.get(key, [])
    if not isinstance(value, list):
        raise InputError(f"'{key}' is a list of objects", code="bad_request")
    return [_object(each, f"an element of '{key}'") for each in cast("list[object]", value)]


def _object(value: object, what: str) -> Fields:
    if not isinstance(value, dict):
        raise InputError(f"{what} is no object", code="bad_request")
    return cast("Fields", value)


def _parameters(fields: Fields, what: str) -> Fields:
    return _object(fields.get("parameters", {}), f"'parameters' of {what}")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} is no text", code="bad_request")
    if any("\ud800" <= each <= "\udfff" for each in value):  # half of a pair of surrogates
        raise InputError(f"{what} is a broken text", code="bad_text")
    return value


def encode(response: InferResponse) -> tuple[bytes, int | None]:
    """The body of a response, and how long its JSON is where bytes stand behind it."""
    behind = [to_raw(tensor) for tensor in response.outputs if tensor.name in response.binary]
    sizes = iter(behind)
    outputs = [
        _binary(tensor, len(next(sizes))) if tensor.name in response.binary else _plain(tensor)
        for tensor in response.outputs
    ]
    head: Fields = {"model_name": response.model, "model_version": response.version}
    if response.id:
        head["id"] = response.id
    text = json.dumps({**head, "outputs": outputs}, ensure_ascii=False, separators=(",", ":"))
    start = text.encode()
    return b"".join([start, *behind]), len(start) if behind else None


def _binary(tensor: Tensor, size: int) -> Fields:
    return {**_head(tensor), "parameters": {SIZE: size}}


def _plain(tensor: Tensor) -> Fields:
    """In row-major order; JSON has no NaN and no infinity: each becomes ``null``."""
    flat = tensor.array.reshape(-1)
    if tensor.datatype == BYTES:
        elements = cast("list[bytes]", flat.tolist())
        return {**_head(tensor), "data": [each.decode("utf-8", "replace") for each in elements]}
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        floats = cast("list[float]", flat.tolist())
        return {**_head(tensor), "data": [v if math.isfinite(v) else None for v in floats]}
    return {**_head(tensor), "data": flat.tolist()}


def _head(tensor: Tensor) -> Fields:
    shape = list(tensor.array.shape)
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
