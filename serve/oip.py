"""Inference in the notation of the Open Inference Protocol v2, where the model is.

A call's body is JSON, with or without tensors behind it, or a ``ModelInferRequest`` of gRPC; the
reply has the notation of the call. Everything that is slow runs in threads.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np

from runtime.answers import to_json
from runtime.body import JSON, Form, read_items
from runtime.tensors import Rows, Tensors, group_by_shape, stack
from serve import oip_json, oip_messages
from serve.batching import Done
from serve.messages import Call, Reply
from serve.oip_cards import ANSWER, ITEM, TENSORS, graph, version_of
from serve.oip_tensors import (
    BYTES,
    InferRequest,
    InferResponse,
    Tensor,
    Wanted,
    datatype_of,
    of_bytes,
)
from specs.errors import InputError
from specs.faults import nearest
from specs.schema import TensorSpec
from specs.values import show_shape

__all__ = ["BINARY", "GRPC", "Inferring", "infer"]

T = TypeVar("T")

GRPC = "application/grpc"
"""The content type of a call whose body is a ``ModelInferRequest``."""
BINARY = "application/octet-stream"

SMALL, SMALL_JSON = 128 * 1024, 4096
"""Bytes of tensors, and of JSON, that are read and written at once: the way to a thread and back
would be more work than what is done there."""

Card = Mapping[str, Any]


class Inferring(Protocol):
    """What is used of a model; ``serve.model.Model`` is one."""

    async def card(self) -> dict[str, Any]:
        """Its entry in ``GET /models``."""
        ...

    def prepare(self, values: Sequence[Any], *, priority: int = 0) -> Awaitable[list[Tensors]]:
        """The graph's inputs for each item, as ``Predictor.preprocess`` makes them."""
        ...

    def compute(
        self, items: Sequence[Tensors], *, timeout_s: float | None = None, priority: int = 0
    ) -> Awaitable[Done[Tensors]]:
        """The graph's outputs for each item, through queue and engine."""
        ...

    def finish(self, outputs: Sequence[Tensors]) -> Awaitable[list[dict[str, Any]]]:
        """The answer for each item's outputs, as ``Predictor.postprocess`` makes it."""
        ...


async def infer(model: Inferring, call: Call) -> Reply:
    """The reply to a call of the protocol.

    Raises:
        DeploycError: what ``Model.answer`` has a reply to.
    """
    request = await _aside(lambda: _decode(call), small=_small(call))
    card = await model.card()
    timeout_s = call.timeout_s if request.timeout_s is None else request.timeout_s
    priority = call.priority if request.priority is None else request.priority
    if call.tensors:
        items = _graph_items(request.inputs, card)
        done = await model.compute(items, timeout_s=timeout_s, priority=priority)
        small = _small_outputs(call, request, done.outputs)
        return await _aside(
            lambda: _encode(call, request, card, _graph_outputs(done.outputs, card)), small=small
        )
    values = await asyncio.to_thread(_values, request.inputs, card)
    items = await model.prepare(values, priority=priority)
    done = await model.compute(items, timeout_s=timeout_s, priority=priority)
    outputs = [_answers(await model.finish(done.outputs))]
    return await asyncio.to_thread(_encode, call, request, card, outputs)


async def _aside(work: Callable[[], T], *, small: bool) -> T:
    """In a thread, unless the way there is more work than the work itself."""
    return work() if small else await asyncio.to_thread(work)


def _small(call: Call) -> bool:
    """Whether a request takes a moment to decode."""
    if call.content_type == GRPC:
        return len(call.body) <= SMALL
    head = call.header_length
    return len(call.body) <= (SMALL_JSON if head is None else SMALL) and (head or 0) <= SMALL_JSON


def _small_outputs(call: Call, request: InferRequest, outputs: Sequence[Tensors]) -> bool:
    """Whether a response takes a moment to encode."""
    if not isinstance(outputs, Rows):
        return False
    plain = not request.binary or any(not each.binary for each in request.wanted)
    most = SMALL_JSON if plain and call.content_type != GRPC else SMALL
    return sum(array.nbytes for array in outputs.batch.values()) <= most


def _decode(call: Call) -> InferRequest:
    if call.content_type == GRPC:
        return oip_messages.decode(call.body)
    return oip_json.decode(call.body, call.header_length)


def _encode(call: Call, request: InferRequest, card: Card, outputs: list[Tensor]) -> Reply:
    wanted = _wanted(request, [tensor.name for tensor in outputs])
    by_name = {tensor.name: tensor for tensor in outputs}
    response = InferResponse(
        model=card["name"] + (TENSORS if call.tensors else ""),
        version=version_of(card),
        outputs=tuple(by_name[each.name] for each in wanted),
        id=request.id,
        binary=frozenset(each.name for each in wanted if each.binary),
    )
    if call.content_type == GRPC:
        return Reply(200, oip_messages.encode(response), GRPC)
    body, length = oip_json.encode(response)
    if length is None:
        return Reply(200, body)
    return Reply(200, body, BINARY, {oip_json.HEADER_LENGTH: str(length)})


def _wanted(request: InferRequest, names: list[str]) -> Sequence[Wanted]:
    """The outputs that were asked for, each once; all of them where none was."""
    for each in request.wanted:
        if each.name not in names:
            _unknown("output", each.name, names)
    asked = {each.name: each for each in request.wanted}
    return tuple(asked.values()) or [Wanted(name, request.binary) for name in names]


def _unknown(what: str, name: str, names: Iterable[str]) -> NoReturn:
    message, hint = f"there is no {what} '{name}'", nearest(name, names)
    raise InputError(message, hint=hint, code=f"wrong_{what}")


# --- whole pipelines: an item in each element


def _values(inputs: Sequence[Tensor], card: Card) -> list[Any]:
    """Items for ``prepare``: a picture's or sound's bytes, a text, or the graph's inputs."""
    elements = _elements(inputs, ITEM[card["takes"]])
    if card["takes"] in {"image", "audio"}:
        return elements
    if card["takes"] == "text":
        return [_text(number, element) for number, element in enumerate(elements)]
    specs = {name: TensorSpec.model_validate(spec) for name, spec in card["inputs"].items()}
    form = Form("tensors", specs)
    return [_document(number, element, form) for number, element in enumerate(elements)]


def _elements(inputs: Sequence[Tensor], name: str) -> list[bytes]:
    """The elements of the only input, which has rank 1, or 2 with columns of one."""
    for given in inputs:
        if given.name != name:
            _unknown("input", given.name, [name])
    if len(inputs) != 1:
        message, hint = f"{len(inputs)} inputs were sent", f"one, '{name}'"
        raise InputError(message, hint=hint, code="wrong_input")
    given = inputs[0]
    if given.datatype != BYTES:
        message, hint = f"'{name}' is {given.datatype}", f"{BYTES}: an item in each element"
        raise InputError(message, hint=hint, code="wrong_dtype")
    shape = given.array.shape
    if not given.array.size or len(shape) not in {1, 2} or shape[1:] not in {(), (1,)}:
        message, hint = f"'{name}' has shape {show_shape(shape)}", "[n], for n items, at least one"
        raise InputError(message, hint=hint, code="wrong_shape")
    return given.array.reshape(-1).tolist()


def _text(number: int, element: bytes) -> str:
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"item {number}: not UTF-8: {error}", code="bad_text") from error


def _document(number: int, element: bytes, form: Form) -> Any:  # noqa: ANN401 - an array or several
    """One item as JSON: nested lists, or an object of them by input name."""
    items = read_items(Call(element, JSON), form)
    if items.batch:
        hint = "one item in each element, without the batch dimension"
        raise InputError(f"item {number}: a batch", hint=hint, code="wrong_shape")
    return items.values[0]


def _answers(answers: list[dict[str, Any]]) -> Tensor:
    texts = [json.dumps(to_json(a), ensure_ascii=False, separators=(",", ":")) for a in answers]
    return Tensor(ANSWER, BYTES, of_bytes([text.encode() for text in texts]))


# --- raw tensors: the graph's inputs and outputs


def _graph_items(inputs: Sequence[Tensor], card: Card) -> Rows:
    """The items of a batch, each without the batch dimension."""
    specs, _ = graph(card)
    given = {tensor.name: tensor for tensor in inputs}
    for name in given:
        if name not in specs:
            _unknown("input", name, specs)
    if len(given) != len(inputs) or len(given) != len(specs):
        message = f"{len(inputs)} inputs were sent"
        raise InputError(message, hint=f"each once: {', '.join(specs)}", code="wrong_input")
    sizes: dict[str, int] = {}
    for name, spec in specs.items():
        _check(given[name], spec, sizes, card.get("axes", {}))
    count = len(next(iter(given.values())).array)
    most = card.get("serving", {}).get("max_items", {}).get("value", count)
    if count > most:
        message = f"{count} items in one request; at most {most}"
        raise InputError(message, hint="send them in several requests", code="too_large")
    return Rows({name: given[name].array for name in specs})


def _check(tensor: Tensor, spec: Card, sizes: dict[str, int], axes: Card) -> None:
    """Compare a tensor with what the graph takes; ``sizes`` has the axes that were met before."""
    dtype = np.dtype(spec["dtype"])
    if tensor.array.dtype != dtype:
        message = f"'{tensor.name}' is {tensor.datatype}"
        hint = f"the model takes {datatype_of(np.empty(0, dtype))}"
        raise InputError(message, hint=hint, code="wrong_dtype")
    shape, dims = tensor.array.shape, list(spec["shape"])
    if len(shape) != len(dims) or not shape[0]:
        _wrong_shape(tensor, dims)
    batch = str(dims[0])  # any number of items, also where the graph's batch is fixed
    for size, dim in zip(shape, [batch, *dims[1:]], strict=True):
        fits = size == dim if isinstance(dim, int) else sizes.setdefault(dim, size) == size
        reach = axes.get(str(dim)) if dim != batch else None
        if not fits or (reach and not reach["min"] <= size <= reach["max"]):
            _wrong_shape(tensor, dims)


def _wrong_shape(tensor: Tensor, dims: Sequence[int | str]) -> NoReturn:
    message = f"'{tensor.name}' has shape {show_shape(tensor.array.shape)}"
    hint = f"the model takes {show_shape(tuple(dims))}, with at least one item"
    raise InputError(message, hint=hint, code="wrong_shape")


def _graph_outputs(outputs: Sequence[Tensors], card: Card) -> list[Tensor]:
    _, specs = graph(card)
    for name in specs:  # a graph may give each item a size of its own
        if len(group_by_shape(outputs, [name])) > 1:
            message = f"the items' outputs '{name}' differ in shape and form no tensor"
            raise InputError(message, hint="send one item in each request", code="ragged_output")
    stacked = stack(outputs, list(specs))
    return [Tensor(name, datatype_of(array), array) for name, array in stacked.items()]
