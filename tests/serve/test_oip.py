"""The Open Inference Protocol over REST, in this process: every status, every form of a tensor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.tensors import Tensors
from serve import oip_json
from serve.guard import Keys
from serve.http import http_app
from serve.model import Model, Options
from serve.oip_json import HEADER_LENGTH
from serve.oip_tensors import DATATYPES, InferResponse, Tensor, from_raw, of_bytes, to_raw

MakePredictor = Callable[..., Any]
OPTIONS = Options("twice", max_batch=8, max_items=16, threads=2)
V2 = "/v2/models/twice.tensors"
INFER = f"{V2}/infer"
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


def ask(predictor: Any, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """One request to a warm model."""

    async def main() -> httpx.Response:
        model = Model(predictor, OPTIONS)
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model], Keys()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.request(method, path, **kwargs)
        await model.close()
        return response

    return asyncio.run(main())


def infer(predictor: Any, *inputs: dict[str, Any], **more: Any) -> httpx.Response:
    """Inference in JSON alone."""
    return ask(predictor, "POST", INFER, json={"inputs": list(inputs), **more})


def binary(head: dict[str, Any], *behind: bytes, length: object = None) -> dict[str, Any]:
    """A request with bytes behind its JSON; ``length`` lies about the JSON's."""
    text = json.dumps(head).encode()
    headers = {HEADER_LENGTH: str(len(text) if length is None else length)}
    return {"content": b"".join([text, *behind]), "headers": headers}


def refused(response: httpx.Response, status: int, *words: str) -> None:
    """Check the protocol's own form of errors."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    for word in words:
        assert word in body["error"]


def test_raw_tensors_go_through_the_graph_with_their_batch(make_predictor: MakePredictor) -> None:
    response = infer(make_predictor(), {**X, "shape": [2, 2], "data": [[1, 2], [3, 4]]}, id="seven")
    assert response.json() == {
        "model_name": "twice.tensors",
        "model_version": "1",
        "id": "seven",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2, 4, 6, 8]}],
    }


def test_flat_and_nested_data_mean_the_same(make_predictor: MakePredictor) -> None:
    flat = infer(make_predictor(), {**X, "shape": [2, 2], "data": [1, 2, 3, 4]})
    nested = infer(make_predictor(), {**X, "shape": [2, 2], "data": [[1, 2], [3, 4]]})
    assert flat.json() == nested.json()


def test_binary_tensors_go_both_ways(make_predictor: MakePredictor) -> None:
    raw = np.array([[1, 2], [3, 4]], "<f4").tobytes()
    head = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
    given = {**head, "parameters": {"binary_data_size": len(raw)}}
    asked = binary({"inputs": [given], "parameters": {"binary_data_output": True}}, raw)
    response = ask(make_predictor(), "POST", INFER, **asked)
    assert response.status_code == 200, response.text
    length = int(response.headers[HEADER_LENGTH])
    head = json.loads(response.content[:length])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(response.content[length:], "<f4").tolist() == [2, 4, 6, 8]
    assert response.headers["content-type"] == "application/octet-stream"


def test_an_output_alone_may_be_asked_for_in_bytes(make_predictor: MakePredictor) -> None:
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    response = infer(make_predictor(), X, outputs=outputs)
    assert response.content.endswith(np.array([2, 4], "<f4").tobytes())


def test_the_pipeline_takes_a_file_in_each_element(make_predictor: MakePredictor) -> None:
    predictor = make_predictor(takes="image")
    files = [b"IMG", b"IMG.."]
    raw = to_raw(Tensor("image", "BYTES", of_bytes(files)))
    parameters = {"binary_data_size": len(raw)}
    given = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": parameters}
    response = ask(predictor, "POST", "/v2/models/twice/infer", **binary({"inputs": [given]}, raw))
    assert response.status_code == 200, response.text
    (answer,) = response.json()["outputs"]
    assert (answer["name"], answer["datatype"], answer["shape"]) == ("answer", "BYTES", [2])
    lengths = [json.loads(text)["outputs"]["y"][0] / 2 for text in answer["data"]]
    assert lengths == [3, 5]


@pytest.mark.parametrize("item", ["[1, 2]", '{"x": [1, 2]}', '{"inputs": {"x": [1, 2]}}'])
def test_the_pipeline_of_a_model_of_tensors_takes_json_documents(
    make_predictor: MakePredictor, item: str
) -> None:
    given = {"name": "item", "datatype": "BYTES", "shape": [1], "data": [item]}
    body = {"inputs": [given]}
    response = ask(make_predictor(), "POST", "/v2/models/twice/infer", json=body)
    assert response.status_code == 200, response.text
    (answer,) = response.json()["outputs"]
    assert json.loads(answer["data"][0]) == {"outputs": {"y": [2.0, 4.0]}}


def test_the_pipeline_of_a_model_of_texts_takes_utf_8(make_predictor: MakePredictor) -> None:
    predictor = make_predictor(takes="text")
    seen: list[Any] = []

    def preprocess(item: Any, _out: Tensors | None = None) -> Tensors:
        seen.append(item)
        return {"x": np.zeros(2, np.float32)}

    predictor.preprocess = preprocess
    given = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["grün", "b"]}
    response = ask(predictor, "POST", "/v2/models/twice/infer", json={"inputs": [given]})
    assert response.status_code == 200, response.text
    assert seen == ["grün", "b"]


def test_a_model_tells_its_inputs_and_outputs(make_predictor: MakePredictor) -> None:
    assert ask(make_predictor(), "GET", V2).json() == {
        "name": "twice.tensors",
        "versions": ["1"],
        "platform": "fake",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    pipeline = ask(make_predictor(takes="image"), "GET", "/v2/models/twice").json()
    assert pipeline["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert pipeline["outputs"] == [{"name": "answer", "datatype": "BYTES", "shape": [-1]}]


def test_config_leaves_the_batch_out_of_dims(make_predictor: MakePredictor) -> None:
    config = ask(make_predictor(), "GET", f"{V2}/config").json()
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    whole = ask(make_predictor(), "GET", "/v2/models/twice/config").json()
    assert (whole["max_batch_size"], whole["input"][0]["dims"]) == (0, [-1])


def test_statistics_count_what_was_inferred(make_predictor: MakePredictor) -> None:
    async def main() -> dict[str, Any]:
        model = Model(make_predictor(), OPTIONS)
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model], Keys()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(3):
                await client.post(INFER, json={"inputs": [X]})
            await client.post(INFER, json={"inputs": []})
            found = (await client.get(f"{V2}/stats")).json()
            every = (await client.get("/v2/models/stats")).json()
        await model.close()
        assert [each["name"] for each in every["model_stats"]] == ["twice", "twice.tensors"]
        return found["model_stats"][0]

    stats = asyncio.run(main())
    assert (stats["inference_count"], stats["execution_count"]) == (3, 3)
    assert stats["inference_stats"]["success"]["count"] == 3
    assert stats["inference_stats"]["fail"]["count"] == 1
    assert stats["batch_stats"][0]["batch_size"] == 1
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert stats["last_inference"] > 1_600_000_000_000


def test_the_server_tells_of_itself_and_of_its_models(make_predictor: MakePredictor) -> None:
    server = ask(make_predictor(), "GET", "/v2").json()
    assert server["name"] == "deployc"
    assert "binary_tensor_data" in server["extensions"]
    assert ask(make_predictor(), "GET", "/v2/health/live").status_code == 200
    assert ask(make_predictor(), "GET", "/v2/health/ready").json() == {"ready": True}
    index = ask(make_predictor(), "POST", "/v2/repository/index").json()
    assert [(each["name"], each["state"]) for each in index] == [
        ("twice", "READY"),
        ("twice.tensors", "READY"),
    ]


def test_a_cold_model_is_not_ready(make_predictor: MakePredictor) -> None:
    async def main() -> tuple[list[int], list[Any]]:
        transport = httpx.ASGITransport(http_app([Model(make_predictor(), OPTIONS)], Keys()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            paths = ("/v2/health/live", "/v2/health/ready", f"{V2}/ready")
            states = [(await client.get(path)).status_code for path in paths]
            index = await client.post("/v2/repository/index", json={"ready": True})
            infer = await client.post(INFER, json={"inputs": [X]})
            return [*states, infer.status_code], index.json()

    assert asyncio.run(main()) == ([200, 503, 503, 503], [])


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats"])
def test_a_version_may_be_named(make_predictor: MakePredictor, path: str) -> None:
    assert ask(make_predictor(), "GET", f"{V2}/versions/1{path}").status_code == 200
    refused(ask(make_predictor(), "GET", f"{V2}/versions/2{path}"), 404, "there is '1'")


def test_inference_may_name_the_version(make_predictor: MakePredictor) -> None:
    predictor = make_predictor()
    response = ask(predictor, "POST", f"{V2}/versions/1/infer", json={"inputs": [X]})
    assert response.status_code == 200
    response = ask(predictor, "POST", f"{V2}/versions/9/infer", json={"inputs": [X]})
    refused(response, 404, "version '9'")


def given(**changes: Any) -> dict[str, Any]:
    """A request in JSON, with changes in its only input."""
    return {"json": {"inputs": [{**X, **changes}]}}


def beside(**more: Any) -> dict[str, Any]:
    """A request in JSON, with more beside its inputs."""
    return {"json": {"inputs": [X], **more}}


CLASSES = [{"name": "y", "parameters": {"classification": 3}}]


def ascii_of(request: dict[str, Any]) -> dict[str, Any]:
    """The same with escapes for what is not ASCII: httpx itself refuses half of a character."""
    return {"content": json.dumps(request["json"]).encode("ascii")}


NO_DATA = {name: value for name, value in X.items() if name != "data"}
NOTHING = {"parameters": {"binary_data_size": 0}}
LACKING = {"inputs": [{**NO_DATA, "parameters": {"binary_data_size": 8}}]}
NEGATIVE = {"inputs": [{**NO_DATA, "parameters": {"binary_data_size": -1}}]}
TWICE = {"inputs": [{**X, **NOTHING}]}
ELEMENTS = {"inputs": [{**NO_DATA, **NOTHING, "datatype": "BYTES", "shape": [2**57]}]}
BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("no JSON", {"content": b"{"}, 400, "not JSON"),
    ("an empty body", {"content": b""}, 400, "not JSON"),
    ("a list", {"json": [X]}, 400, "no object"),
    ("deep JSON", {"content": b"[" * 9_000}, 400, "nested"),
    ("deep data", given(data=[[[[[1]]]]]), 400, "shape"),
    ("NaN", {"content": b'{"inputs": [NaN]}'}, 400, "NaN"),
    ("no inputs", {"json": {}}, 400, "each once: x"),
    ("inputs no list", {"json": {"inputs": {"x": 1}}}, 400, "list"),
    ("an input of text", {"json": {"inputs": ["x"]}}, 400, "no object"),
    ("twice the same", {"json": {"inputs": [X, X]}}, 400, "each once: x"),
    ("another name", given(name="xx"), 400, "no input 'xx'"),
    ("no name", {"json": {"inputs": [{"datatype": "FP32"}]}}, 400, "name"),
    ("no data", {"json": {"inputs": [NO_DATA]}}, 400, "no data"),
    ("null", given(data=None), 400, "numbers"),
    ("another datatype", given(datatype="FP64"), 400, "FP32"),
    ("BF16", given(datatype="BF16"), 400, "send FP32"),
    ("no datatype", given(datatype="FP31"), 400, "FP32"),
    ("a datatype as list", given(datatype=[]), 400, "no datatype"),
    ("a negative size", given(shape=[-1, 2]), 400, "not negative"),
    ("a huge size", given(shape=[2**62, 2**62]), 400, "shape"),
    ("an absurd size", given(shape=[10**400]), 400, "not so large"),
    ("nothing, absurdly long", given(shape=[0, 2**62], data=[]), 400, "not so large"),
    ("a fraction", given(shape=[1.0, 2]), 400, "whole"),
    ("a truth", given(shape=[True, 2]), 400, "whole"),
    ("rank 40", given(shape=[1] * 40), 400, "32"),
    ("no item", given(shape=[0, 2], data=[]), 400, "one item"),
    ("rank 1", given(shape=[2]), 400, "[batch, 2]"),
    ("another size", given(shape=[1, 3], data=[1, 2, 3]), 400, "[batch, 2]"),
    ("too few", given(shape=[2, 2]), 400, "not [2, 2]"),
    ("nested otherwise", given(shape=[2, 2], data=[[1, 2, 3, 4]]), 400, "not [2, 2]"),
    ("too many items", given(shape=[17, 2], data=[0] * 34), 413, "16"),
    ("an unknown output", beside(outputs=[{"name": "z"}]), 400, "'z'"),
    ("a class", beside(outputs=CLASSES), 400, "classification"),
    ("a sequence", beside(parameters={"sequence_id": 3}), 400, "sequence"),
    ("a bad timeout", beside(parameters={"timeout": -1}), 400, "timeout"),
    ("a timeout of text", beside(parameters={"timeout": {}}), 400, "timeout"),
    ("a bad priority", beside(parameters={"priority": []}), 400, "priority"),
    ("a priority of 11", beside(parameters={"priority": 11}), 400, "10"),
    ("an id of number", beside(id=7), 400, "id"),
    ("too large", {"content": b" " * 10_001}, 413, "10000 bytes"),
    ("a header too long", binary({"inputs": []}, length=10**6), 400, "has 14 bytes"),
    ("a header of text", binary({"inputs": []}, length="many"), 400, "no length"),
    ("a header of very many digits", binary({}, length="9" * 5_000), 400, "no length"),
    ("a negative header", binary({"inputs": []}, length=-1), 400, "no length"),
    ("a superscript", {"json": {}, "headers": {HEADER_LENGTH: b"\xb2"}}, 400, "no length"),
    ("bytes of nobody", binary({"inputs": [X]}, b"...."), 400, "belong to no input"),
    ("bytes that lack", binary(LACKING), 400, "binary_data_size"),
    ("fewer than no bytes", binary(NEGATIVE), 400, "binary_data_size"),
    ("data and bytes", binary(TWICE), 400, "binary_data_size"),
    ("half a character", ascii_of(given(datatype="BYTES", data=["\ud800"])), 400, "broken"),
    ("a name of half a character", ascii_of(given(name="\ud800")), 400, "broken"),
    ("an id of half a character", ascii_of(beside(id="\ud800")), 400, "broken"),
    ("elements that lack", binary(ELEMENTS), 400, "0 are there"),
    ("compressed", {"headers": {"content-encoding": "gzip"}}, 415, "compressed"),
]


@pytest.mark.parametrize(
    ("request_", "status", "word"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_a_bad_request_is_refused_in_the_protocols_own_form(
    make_predictor: MakePredictor, request_: dict[str, Any], status: int, word: str
) -> None:
    refused(ask(make_predictor(), "POST", INFER, **request_), status, word)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/twise", 404),
        ("GET", "/v2/models/twice.tensor", 404),
        ("POST", "/v2/models/nothing/infer", 404),
        ("GET", "/v2/nothing", 404),
        ("DELETE", "/v2", 405),
        ("GET", INFER, 405),
        ("POST", "/v2/repository/models/twice/load", 404),
    ],
)
def test_what_is_not_there_is_told_in_the_protocols_own_form(
    make_predictor: MakePredictor, method: str, path: str, status: int
) -> None:
    refused(ask(make_predictor(), method, path), status)


def test_an_engine_that_fails_is_500_and_tells_nothing(make_predictor: MakePredictor) -> None:
    response = infer(make_predictor(), {**X, "data": [13, 0]})
    refused(response, 500)
    assert "choked" not in response.text


def test_an_item_that_is_no_image_is_415(make_predictor: MakePredictor) -> None:
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["GIF"]}
    predictor = make_predictor(takes="image")
    response = ask(predictor, "POST", "/v2/models/twice/infer", json={"inputs": [given]})
    refused(response, 415, "no image starts")


@pytest.mark.parametrize(
    ("shape", "data"), [([0], []), ([2, 2], ["a"] * 4), ([], ["a"]), ([1], [["a"]]), ([1], [1])]
)
def test_a_pipeline_refuses_what_is_no_list_of_items(
    make_predictor: MakePredictor, shape: list[int], data: list[Any]
) -> None:
    given = {"name": "image", "datatype": "BYTES", "shape": shape, "data": data}
    predictor = make_predictor(takes="image")
    response = ask(predictor, "POST", "/v2/models/twice/infer", json={"inputs": [given]})
    refused(response, 400, "at least one" if data == [] else "")


def test_a_pipeline_refuses_a_batch_in_one_element(make_predictor: MakePredictor) -> None:
    given = {"name": "item", "datatype": "BYTES", "shape": [1], "data": ["[[1, 2], [3, 4]]"]}
    body = {"inputs": [given]}
    response = ask(make_predictor(), "POST", "/v2/models/twice/infer", json=body)
    refused(response, 400, "item 0", "without the batch")


@pytest.mark.parametrize(
    ("shapes", "status"),
    [([2, 2], 200), ([3, 3], 200), ([2, 3], 400), ([1, 1], 400), ([4, 4], 400)],
)
def test_an_axis_has_one_size_in_its_range(
    make_predictor: MakePredictor, shapes: list[int], status: int
) -> None:
    spec = {"shape": ("batch", "side")}
    axes = {"batch": {"min": 1, "opt": 4, "max": 8}, "side": {"min": 2, "opt": 2, "max": 3}}
    predictor = make_predictor(inputs={"x": spec, "z": spec}, axes=axes)
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, size], "data": [0] * size}
        for name, size in zip("xz", shapes, strict=True)
    ]
    response = infer(predictor, *inputs)
    assert response.status_code == status, response.text
    if status == 400:
        assert "[batch, side]" in response.json()["error"]


def test_outputs_that_form_no_tensor_are_refused(make_predictor: MakePredictor) -> None:
    predictor = make_predictor()
    predictor.run = lambda items: [{"y": np.zeros(int(item["x"][0]) + 1)} for item in items]  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType, reportUnknownArgumentType]
    response = infer(predictor, {**X, "shape": [2, 2], "data": [1, 1, 2, 2]})
    refused(response, 400, "differ in shape", "one item in each request")


def test_timeout_and_priority_reach_the_queue(make_predictor: MakePredictor) -> None:
    async def main() -> list[dict[str, Any]]:
        model = Model(make_predictor(), OPTIONS)
        await model.warm_up()
        seen: list[dict[str, Any]] = []
        compute = model.compute

        async def watched(items: Any, **options: Any) -> Any:
            seen.append(options)
            return await compute(items, **options)

        model.compute = watched
        transport = httpx.ASGITransport(http_app([model], Keys()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            # Microseconds, and 1 for the highest class, as Triton has them; both win over headers.
            body = {"inputs": [X], "parameters": {"timeout": 2_500_000, "priority": 3}}
            headers = {"x-request-timeout-ms": "4000", "x-request-priority": "5"}
            await client.post(INFER, json=body, headers=headers)
            await client.post(INFER, json={"inputs": [X]}, headers=headers)
            await client.post(INFER, json={"inputs": [X]})
        await model.close()
        return seen

    assert asyncio.run(main()) == [
        {"timeout_s": 2.5, "priority": 2},
        {"timeout_s": 4.0, "priority": 5},
        {"timeout_s": None, "priority": 0},
    ]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_survives_its_bytes_and_its_json(datatype: str) -> None:
    values: list[Any] = [b"\x00a\x00", b"", "grün".encode()] if datatype == "BYTES" else [0, 1, 1]
    array = of_bytes(values) if datatype == "BYTES" else np.array(values, DATATYPES[datatype])
    tensor = Tensor("t", datatype, array.reshape(3, 1))
    back = from_raw("t", datatype, (3, 1), to_raw(tensor))
    assert back.array.dtype == tensor.array.dtype
    assert back.array.tolist() == tensor.array.tolist()
    body, length = oip_json.encode(InferResponse("m", "1", (tensor,)))
    (output,) = json.loads(body)["outputs"]
    again = oip_json.decode(json.dumps({"inputs": [output]}).encode(), length)
    assert again.inputs[0].array.tolist() == tensor.array.tolist()


def test_what_json_cannot_say_becomes_null() -> None:
    tensor = Tensor("t", "FP32", np.array([1, np.nan, -np.inf], np.float32))
    body, _ = oip_json.encode(InferResponse("m", "1", (tensor,)))
    assert json.loads(body)["outputs"][0]["data"] == [1, None, None]


def test_a_byte_of_a_truth_is_true_unless_it_is_0() -> None:
    array = from_raw("t", "BOOL", (3,), b"\x00\x01\x07").array
    assert array.view(np.uint8).tolist() == [0, 1, 1]
