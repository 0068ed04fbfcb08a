"""Messages of the protocol over gRPC: protobuf <-> what the server works with.

The classes are made from ``oip.desc``, which is ``oip.proto`` compiled. Generated Python would only
run with the version of protobuf that it was generated for, and Ray leaves that version open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError, Message

from runtime.arrays import Array, fit, numbers, product
from serve.oip_parameters import check_supported, priority_class, timeout_of
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

__all__ = ["SERVICE", "build", "decode", "descriptor", "encode", "method_names", "parse"]

SERVICE = "inference.GRPCInferenceService"
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The field of typed contents by datatype; FP16 has none."""


@cache
def descriptor() -> FileDescriptor:
    """``oip.proto``, in a pool of its own: a client in this process has the same names."""
    found = descriptor_pb2.FileDescriptorSet()
    found.ParseFromString((Path(__file__).parent / "oip.desc").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    return pool.FindFileContainingSymbol(SERVICE)


@cache
def _kind(name: str) -> type[Message]:
    return message_factory.GetMessageClass(descriptor().message_types_by_name[name])


def method_names() -> list[str]:
    """The service's methods; each takes ``<name>Request`` and gives ``<name>Response``."""
    service = descriptor().services_by_name[SERVICE.rpartition(".")[2]]
    return [method.name for method in service.methods]


def build(name: str, fields: Mapping[str, Any]) -> bytes:
    """A message of the kind ``name`` with ``fields``, as bytes."""
    return json_format.ParseDict(dict(fields), _kind(name)()).SerializeToString()


def parse(name: str, raw: bytes) -> Any:  # noqa: ANN401 - its fields are protobuf's
    """The message of the kind ``name`` in ``raw``; InputError ``bad_message``."""
    found = _kind(name)()
    try:
        found.ParseFromString(raw)
    except DecodeError as error:
        raise InputError(f"this is no {name}: {error}", code="bad_message") from error
    return found


def decode(raw: bytes) -> InferRequest:
    """The request in a ``ModelInferRequest``; InputError where it is at fault."""
    request = parse("ModelInferRequest", raw)
    parameters = _parameters(request.parameters)
    check_supported(parameters)
    return InferRequest(
        inputs=tuple(_inputs(request)),
        wanted=tuple(_wanted(each) for each in request.outputs),
        id=request.id,
        binary=True,
        timeout_s=timeout_of(parameters.get("timeout")),
        priority=priority_class(parameters.get("priority")),
    )


def _wanted(output: Any) -> Wanted:  # noqa: ANN401 - protobuf's
    check_supported(_parameters(output.parameters), tensor=True)
    return Wanted(output.name, binary=True)


def _inputs(request: Any) -> Iterator[Tensor]:  # noqa: ANN401 - protobuf's
    raws = list(request.raw_input_contents)
    if raws and len(raws) != len(request.inputs):
        message = f"{len(request.inputs)} inputs and {len(raws)} raw_input_contents"
        raise InputError(message, hint="all inputs in it, or none", code="wrong_input")
    for number, given in enumerate(request.inputs):
        check_supported(_parameters(given.parameters), tensor=True)
        datatype = check_datatype(given.datatype, given.name)
        shape = check_shape(list(given.shape), given.name)
        if raws and given.HasField("contents"):
            message = f"'{given.name}' has contents beside raw_input_contents"
            raise InputError(message, hint="one of the two", code="wrong_input")
        if raws:
            yield from_raw(given.name, datatype, shape, raws[number])
        else:
            yield _typed(given.name, datatype, shape, given.contents)


def _typed(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> Tensor:  # noqa: ANN401 - protobuf's
    field = _CONTENTS.get(datatype)
    if field is None:
        message = f"'{name}': {datatype} has no typed contents"
        raise InputError(message, hint="send raw_input_contents", code="wrong_dtype")
    found: list[Any] = list(getattr(contents, field))
    array = of_bytes(found) if datatype == BYTES else _fitted(name, datatype, found)
    if array.size != product(shape, "wrong_shape"):
        message = f"'{name}': {len(found)} elements in {field} for {show_shape(shape)}"
        raise InputError(message, code="wrong_size")
    return Tensor(name, datatype, array.reshape(shape))


def _fitted(name: str, datatype: str, found: list[Any]) -> Array:
    """``int_contents`` hold all integers up to 32 bits: each must fit the datatype."""
    return fit(name, numbers(found, name), DATATYPES[datatype])


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Each is one of protobuf's types; a message without any counts as not given."""
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in given.items()}
    return {name: getattr(given[name], kind) for name, kind in kinds.items() if kind}


def encode(response: InferResponse) -> bytes:
    """A ``ModelInferResponse`` with ``raw_output_contents``, which every datatype has."""
    answer: Any = _kind("ModelInferResponse")()
    answer.model_name, answer.model_version = response.model, response.version
    answer.id = response.id
    for tensor in response.outputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        answer.raw_output_contents.append(to_raw(tensor))
    return answer.SerializeToString()
