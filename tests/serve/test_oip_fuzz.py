"""Whatever comes in is read or refused: no other end, whichever bytes a client makes up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.arrays import read_npy
from runtime.body import Form, read_items
from runtime.multipart import read_multipart
from serve import oip_json, oip_messages
from serve.messages import Call
from serve.oip_parameters import priority_class, timeout_of
from serve.oip_tensors import DATATYPES, InferResponse, Tensor, from_raw, of_bytes, to_raw
from specs.errors import InputError
from specs.schema import TensorSpec

FUZZ = settings(max_examples=150, deadline=None)
FORMS = [
    Form("image", {"x": TensorSpec(shape=("batch", 3))}),
    Form("text", {"x": TensorSpec(shape=("batch", 3))}),
    Form("tensors", {"x": TensorSpec(shape=("batch", 3), dtype="int8")}),
    Form("tensors", {n: TensorSpec(shape=("batch", 2, "side")) for n in ("a", "inputs")}),
]
FIELDS = ["name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "id", "x"]
OTHERS = ["image", "images", "text", "base64", "timeout", "priority", "binary_data_size"]
KEYS = [*FIELDS, *OTHERS]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([*DATATYPES, "x", "data", "base64", "aGk="]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "y"]) | values,
        "datatype": st.sampled_from([*DATATYPES, "BF16"]) | values,
        "shape": st.lists(st.integers(-2, 5), max_size=3) | values,
    },
    optional={
        "data": st.lists(st.integers(0, 3) | st.floats(0, 1) | st.text(max_size=2)) | values,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40)}) | values,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | values},
    optional={"outputs": values, "parameters": values, "id": values},
)


def read(reader: Callable[[], Any]) -> Any:
    """What a reader gives; InputError is its only other end."""
    try:
        return reader()
    except InputError:
        return None


@FUZZ
@given(st.binary(max_size=200), st.none() | st.integers(-1, 300))
def test_any_bytes_are_read_or_refused(body: bytes, length: int | None) -> None:
    read(lambda: oip_json.decode(body, length))


@FUZZ
@given(requests | values, st.binary(max_size=60), st.integers(-3, 3))
def test_any_json_with_any_bytes_behind_is_read_or_refused(
    request: Any, behind: bytes, lie: int
) -> None:
    text = json.dumps(request).encode()
    read(lambda: oip_json.decode(text + behind, len(text) + lie))
    decoded = read(lambda: oip_json.decode(text, None))
    for tensor in decoded.inputs if decoded else ():
        assert tensor.array.dtype == np.dtype(DATATYPES[tensor.datatype])


@FUZZ
@given(st.binary(max_size=200))
def test_any_message_is_read_or_refused(raw: bytes) -> None:
    read(lambda: oip_messages.decode(raw))


@FUZZ
@given(
    st.sampled_from([*DATATYPES, "BF16", ""]),
    st.lists(st.integers(-2, 2**63 - 1) | st.integers(0, 4), max_size=3),
    st.lists(st.binary(max_size=20), max_size=2),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6),
)
def test_any_tensor_of_a_message_is_read_or_refused(
    datatype: str, shape: list[int], raws: list[bytes], contents: list[int]
) -> None:
    request: Any = oip_messages.parse("ModelInferRequest", b"")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    tensor.contents.int_contents.extend(contents)
    request.raw_input_contents.extend(raws)
    read(lambda: oip_messages.decode(request.SerializeToString()))


@FUZZ
@given(st.sampled_from(list(DATATYPES)), st.lists(st.integers(0, 5), max_size=3), st.binary())
def test_any_bytes_of_a_tensor_are_read_or_refused(
    datatype: str, shape: list[int], raw: bytes
) -> None:
    tensor = read(lambda: from_raw("x", datatype, tuple(shape), raw))
    if tensor is not None and datatype != "BOOL":  # of a truth, any byte but 0 is one
        assert to_raw(tensor) == raw


@FUZZ
@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.text(max_size=5))
def test_texts_of_bytes_survive_both_notations(elements: list[bytes], identity: str) -> None:
    tensor = Tensor("t", "BYTES", of_bytes(elements))
    response = InferResponse("m", "1", (tensor,), identity, frozenset({"t"}))
    body, length = oip_json.encode(response)
    assert length is not None
    head = json.loads(body[:length])
    text = json.dumps({"inputs": head["outputs"]}).encode()
    again = oip_json.decode(text + body[length:], len(text))
    assert again.inputs[0].array.tolist() == elements
    answer: Any = oip_messages.parse("ModelInferResponse", oip_messages.encode(response))
    assert from_raw(
        "t", "BYTES", (len(elements),), answer.raw_output_contents[0]
    ).array.tolist() == (elements)


@FUZZ
@given(values)
def test_any_parameter_is_read_or_refused(value: Any) -> None:
    seconds = read(lambda: timeout_of(value))
    assert seconds is None or 0 < seconds <= 3600
    place = read(lambda: priority_class(value))
    assert place is None or 0 <= place <= 9


@FUZZ
@given(values, st.sampled_from(FORMS))
def test_any_json_is_items_or_refused(value: Any, form: Form) -> None:
    body = json.dumps(value).encode()
    read(lambda: read_items(Call(body, "application/json"), form))


@FUZZ
@given(st.binary(max_size=200), st.text(max_size=30), st.sampled_from(FORMS))
def test_any_body_of_any_kind_is_items_or_refused(body: bytes, kind: str, form: Form) -> None:
    for said in (
        kind,
        "",
        "text/plain",
        "application/x-npy",
        f"multipart/form-data; boundary={kind}",
    ):
        read(lambda said=said: read_items(Call(body, said), form))


@FUZZ
@given(st.lists(st.binary(max_size=30), max_size=5), st.text("abcXYZ'()+_,-./:=? 019", min_size=1))
def test_the_parts_of_a_form_come_out_as_they_went_in(parts: list[bytes], boundary: str) -> None:
    boundary = boundary.strip()[:70].strip() or "x"
    mark = b"--" + boundary.encode()
    if any(mark in part for part in parts):
        return
    form = b"".join(
        mark + b'\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + part + b"\r\n"
        for part in parts
    )
    found = read(
        lambda: read_multipart(
            form + mark + b"--\r\n", f'multipart/form-data; boundary="{boundary}"'
        )
    )
    assert found is not None
    assert [part.content for part in found] == parts


@FUZZ
@given(st.binary(max_size=80))
def test_any_npy_is_read_or_refused(tail: bytes) -> None:
    for head in (
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x02\x00",
        b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f4', ",
    ):
        read(lambda head=head: read_npy(head + tail))
