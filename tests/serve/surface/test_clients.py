"""A real client of the protocol, NVIDIA's tritonclient, over REST and gRPC."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import Any, Self, cast

import grpc
import numpy as np
import pytest

from runtime import load
from serve import oip_messages
from serve.messages import Call, Reply
from serve.model import Model, Options

MakePredictor = Callable[..., Any]
Serving = Callable[..., Any]
KEY = "a-key-of-good-length"

triton_http: Any = import_module("tritonclient.http")
triton_grpc: Any = import_module("tritonclient.grpc")
service_pb2: Any = import_module("tritonclient.grpc.service_pb2")
config_pb2: Any = import_module("tritonclient.grpc.model_config_pb2")


@pytest.fixture(scope="module")
def digits(serving: Serving, digits_artifact: Path) -> Generator[Any]:
    """The embedded model, served."""
    with serving(lambda: Model(load(digits_artifact), Options("digits"), digits_artifact)) as ports:
        yield ports


@pytest.fixture(params=["http", "http-json", "grpc"], scope="module")
def client(request: pytest.FixtureRequest, digits: Any) -> Generator[Client]:
    """The same questions in each notation."""
    with Client(str(request.param), digits) as client:
        yield client


class Client:
    """One of the two clients, under the same names."""

    def __init__(self, kind: str, ports: Any) -> None:
        self.grpc = kind == "grpc"
        self.module: Any = triton_grpc if self.grpc else triton_http
        self.binary = kind != "http-json"
        port = ports.grpc if self.grpc else ports.http
        self.own = self.module.InferenceServerClient(f"127.0.0.1:{port}")
        self.json = {"as_json": True} if self.grpc else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.own.close()
        del self.own
        gc.collect()  # gevent's part must end in this thread, not where the server's finds it

    def infer(self, model: str, name: str, array: Any, datatype: str, **more: Any) -> Any:
        given = self.module.InferInput(name, list(array.shape), datatype)
        options = {} if self.grpc else {"binary_data": self.binary}
        given.set_data_from_numpy(array, **options)
        outputs = more.pop("outputs", None)
        if outputs is None and not self.grpc:
            outputs = [
                self.module.InferRequestedOutput(each["name"], binary_data=self.binary)
                for each in self.own.get_model_metadata(model)["outputs"]
            ]
        return self.own.infer(model, [given], outputs=outputs, **more)


def pictures(root: Path) -> list[bytes]:
    samples = root / "specs" / "samples" / "digits"
    return [(samples / f"digit_{n}.png").read_bytes() for n in (3, 7)]


def test_the_client_finds_server_and_models_alive(client: Client) -> None:
    assert client.own.is_server_live()
    assert client.own.is_server_ready()
    for name in ("digits", "digits.tensors"):
        assert client.own.is_model_ready(name)
        assert client.own.is_model_ready(name, "1")
    assert client.own.get_server_metadata(**client.json)["name"] == "deployc"


def test_the_client_reads_metadata_config_and_index(client: Client) -> None:
    about = client.own.get_model_metadata("digits.tensors", **client.json)
    (given,) = about["inputs"]
    assert given["datatype"] == "FP32"
    assert int(given["shape"][0]) == -1
    config = client.own.get_model_config("digits.tensors", **client.json)
    config = config.get("config", config)
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["max_batch_size"] >= 1
    index = client.own.get_model_repository_index(**client.json)
    models = index["models"] if client.grpc else index
    assert [each["name"] for each in models] == ["digits", "digits.tensors"]
    assert all(each["state"] == "READY" for each in models)


@pytest.mark.parametrize("client", ["http", "grpc"], indirect=True)  # JSON holds texts alone
def test_the_client_sends_pictures_and_gets_answers(client: Client, root: Path) -> None:
    array = np.array(pictures(root), object)
    result = client.infer("digits", "image", array, "BYTES", request_id="abc")
    answers = [json.loads(each) for each in result.as_numpy("answer").reshape(-1)]
    assert [answer["classes"][0]["label"] for answer in answers] == ["three", "seven"]
    response = result.get_response()
    assert (response.id if client.grpc else response["id"]) == "abc"


def test_the_client_gets_from_raw_tensors_what_the_engine_computes(
    client: Client, root: Path, digits_artifact: Path
) -> None:
    with load(digits_artifact) as predictor:
        items = [predictor.preprocess(picture) for picture in pictures(root)]
        batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
        wanted: Any = next(iter(predictor.predict_batch(batch).values()))
    ((name, array),) = batch.items()
    about = client.own.get_model_metadata("digits.tensors", **client.json)
    output = about["outputs"][0]["name"]
    result = client.infer("digits.tensors", name, array, "FP32", timeout=30_000_000, priority=1)
    np.testing.assert_allclose(result.as_numpy(output), wanted, rtol=1e-5, atol=1e-5)


def test_the_client_sees_statistics_grow(client: Client) -> None:
    def count() -> int:
        stats = client.own.get_inference_statistics("digits", **client.json)
        return int(stats["model_stats"][0].get("inference_count", 0))

    (given,) = client.own.get_model_metadata("digits.tensors", **client.json)["inputs"]
    array = np.zeros([2, *(int(size) for size in given["shape"][1:])], np.float32)
    before = count()
    client.infer("digits.tensors", given["name"], array, "FP32")
    assert count() == before + len(array)


ITEM = np.array([b"no picture"], object)
PIXELS = np.zeros((1, 2), np.float32)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (("digit", "image", ITEM, "BYTES"), "404", "NOT_FOUND"),
        (("digits", "picture", ITEM, "BYTES"), "400", "INVALID_ARGUMENT"),
        (("digits", "image", ITEM, "BYTES"), "415", "INVALID_ARGUMENT"),
        (("digits.tensors", "x", PIXELS, "FP32"), "400", "INVALID_ARGUMENT"),
    ],
)
def test_the_client_is_told_what_is_wrong(
    client: Client, asked: tuple[Any, ...], status: str, code: str
) -> None:
    with pytest.raises(Exception, match=r"\w") as caught:
        client.infer(*asked, outputs=[])
    error: Any = caught.value
    assert type(error).__name__ == "InferenceServerException"
    assert code in str(error.status()) if client.grpc else error.status() == status


def test_a_key_lets_the_client_in_and_health_needs_none(
    serving: Serving, make_predictor: MakePredictor
) -> None:
    def make() -> Model:
        return Model(make_predictor(), Options("twice"))

    with serving(make, (KEY,)) as ports:
        for kind in ("http", "grpc"):
            with Client(kind, ports) as client:
                assert client.own.is_server_live()
                with pytest.raises(Exception, match="API key"):
                    client.own.get_server_metadata()
                with pytest.raises(Exception, match="API key"):
                    client.infer(
                        "twice.tensors", "x", np.ones((1, 2), np.float32), "FP32", outputs=[]
                    )
                headers = {"authorization": f"Bearer {KEY}"}
                assert client.own.get_server_metadata(headers=headers)


@pytest.mark.parametrize("contents", ["fp32_contents", "raw"])
def test_grpc_takes_typed_contents_as_well(
    serving: Serving, make_predictor: MakePredictor, contents: str
) -> None:
    request = service_pb2.ModelInferRequest(model_name="twice.tensors", id="7")
    given = request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    if contents == "raw":
        request.raw_input_contents.append(np.array([1, 2, 3, 4], "<f4").tobytes())
    else:
        given.contents.fp32_contents.extend([1, 2, 3, 4])
    with serving(lambda: Model(make_predictor(), Options("twice"))) as ports:
        answer = infer_raw(ports, request.SerializeToString())
    response = service_pb2.ModelInferResponse.FromString(answer)
    assert (response.model_name, response.model_version, response.id) == ("twice.tensors", "1", "7")
    assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == [2, 4, 6, 8]


def infer_raw(ports: Any, raw: bytes, metadata: dict[str, str] | None = None) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        method = f"/{oip_messages.SERVICE}/ModelInfer"
        call = cast("Any", channel).unary_unary(method)
        return call(raw, timeout=30, metadata=list((metadata or {}).items()))


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\x0a\xff", b"", b"\x0a\x0etwice.tensors\x2a\x02\x0a\xff"]
)
def test_grpc_refuses_what_is_no_message(
    serving: Serving, make_predictor: MakePredictor, raw: bytes
) -> None:
    with (
        serving(lambda: Model(make_predictor(), Options("twice"))) as ports,
        pytest.raises(grpc.RpcError) as caught,
    ):
        infer_raw(ports, raw)
    error: Any = caught.value
    assert error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_the_messages_have_the_numbers_and_types_of_the_clients() -> None:
    file: Any = oip_messages.descriptor()
    theirs = {**messages(service_pb2.DESCRIPTOR), **messages(config_pb2.DESCRIPTOR)}
    for name, fields in messages(file).items():
        assert fields.items() <= theirs[name].items(), name
    for method in file.services_by_name["GRPCInferenceService"].methods:
        other = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        same = other.methods_by_name[method.name]
        assert method.input_type.full_name == same.input_type.full_name
        assert method.output_type.full_name == same.output_type.full_name


def messages(file: Any) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Every message of a file: its fields' numbers and types by name."""
    found: dict[str, dict[str, tuple[Any, ...]]] = {}

    def add(kind: Any) -> None:
        found[kind.full_name] = {field.name: described(field) for field in kind.fields}
        for inner in kind.nested_types:
            add(inner)

    for kind in file.message_types_by_name.values():
        add(kind)
    return found


def described(field: Any) -> tuple[Any, ...]:
    of = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.number,
        field.type,
        field.is_repeated,
        of.full_name if of else "",
        oneof.name if oneof else "",
    )


def test_the_example_of_the_documentation_runs(
    digits: Any, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (root / "docs" / "protocol.md").read_text("utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(root)
    exec(example.replace(":8000", f":{digits.http}"), names := {})  # noqa: S102 - our own
    assert '"label":"three"' in capsys.readouterr().out
    names["client"].close()


def test_the_descriptors_are_the_proto_compiled(root: Path, tmp_path: Path) -> None:
    protoc: Any = pytest.importorskip("grpc_tools.protoc")
    compiled = tmp_path / "oip.desc"
    folder = root / "serve"
    arguments = ["protoc", f"-I{folder}", f"--descriptor_set_out={compiled}", "oip.proto"]
    assert protoc.main(arguments) == 0
    assert compiled.read_bytes() == (folder / "oip.desc").read_bytes()


def raw_request(*raws: bytes, shape: tuple[int, ...] = (1, 2)) -> bytes:
    """A request for doubled tensors, with so many raw contents for its one input."""
    request = service_pb2.ModelInferRequest(model_name="twice.tensors")
    request.inputs.add(name="x", datatype="FP32", shape=shape)
    request.raw_input_contents.extend(raws)
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (raw_request(bytes(8), bytes(8)), "INVALID_ARGUMENT", "1 inputs and 2 raw"),
        (raw_request(bytes(7)), "INVALID_ARGUMENT", "takes 8 bytes, and 7"),
        (raw_request(), "INVALID_ARGUMENT", "0 elements in fp32_contents"),
        (raw_request(bytes(12_000)), "RESOURCE_EXHAUSTED", "larger than 10000"),
    ],
)
def test_grpc_tells_what_is_wrong_with_a_message(
    serving: Serving, make_predictor: MakePredictor, raw: bytes, code: str, words: str
) -> None:
    with (
        serving(lambda: Model(make_predictor(), Options("twice"))) as ports,
        pytest.raises(grpc.RpcError) as caught,
    ):
        infer_raw(ports, raw)
    error: Any = caught.value
    assert error.code().name == code
    assert words in error.details()


def test_the_headers_of_a_request_are_metadata_of_grpc(
    serving: Serving, make_predictor: MakePredictor
) -> None:
    seen: list[Call] = []

    class Watched(Model):
        async def answer(self, call: Call) -> Reply:
            seen.append(call)
            return await super().answer(call)

    metadata = {"x-request-timeout-ms": "2500", "x-request-priority": "4", "x-request-id": "abc"}
    with serving(lambda: Watched(make_predictor(), Options("twice"))) as ports:
        infer_raw(ports, raw_request(bytes(8)), metadata)
    (call,) = seen
    assert (call.timeout_s, call.priority, call.request_id) == (2.5, 4, "abc")
