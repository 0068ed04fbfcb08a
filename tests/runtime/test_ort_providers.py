"""ONNX Runtime's providers: what must be there, what their own parsers take, and a real GPU."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper

import runtime
from runtime.engines._ort_built import BuiltFile, TensorrtBuild
from runtime.engines._ort_options import CudaOptions, OrtOptions, TensorrtOptions, as_strings
from runtime.engines._ort_session import (
    Opening,
    tensorrt_options,
)
from runtime.engines._probe import TINY_ONNX
from runtime.engines.ort import OrtEngine
from specs.axes import AxisRange
from specs.errors import EngineError
from tests.ort_graphs import FLOAT, proto


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """``y = x + x`` as a file."""
    (tmp_path / "tiny.onnx").write_bytes(TINY_ONNX)
    return tmp_path / "tiny.onnx"


@pytest.fixture
def gpu() -> None:
    """Skip where there is no GPU that ONNX Runtime can use."""
    try:
        OrtEngine.probe("cuda")
    except EngineError as error:
        pytest.skip(f"needs a CUDA GPU: {error.message}")


# --- providers that cannot be had


def _no_cuda() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


without_driver = pytest.mark.skipif(not _no_cuda(), reason="this machine has a GPU's driver")


@without_driver
@pytest.mark.parametrize("options", [{}, {"tensorrt": {}}, {"allow_cpu_nodes": True}])
def test_a_device_that_is_not_there_is_an_error_naming_the_library_never_a_fallback(
    tiny: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(EngineError, match=r"\.so.* is missing") as caught:
        OrtEngine.open(tiny, "cuda", options)
    assert caught.value.code == "provider_missing"
    assert "install" in caught.value.hint


@without_driver
def test_loading_an_artifact_for_a_device_that_is_not_there_is_the_same_error(
    copied: Callable[[str], Path],
) -> None:
    folder = copied("twice")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["variants"][0]["device"] = "cuda"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"does not load: .*\.so.* is missing"):
        runtime.load(folder)


def test_looking_for_cuda_prints_nothing_on_stdout(
    tiny: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative(**_options: object) -> None:
        print("Failed to load libcufft.so.12")  # noqa: T201 - as ONNX Runtime does

    monkeypatch.setattr(ort, "preload_dlls", talkative)
    monkeypatch.setattr(ctypes, "CDLL", _refusing("libcuda.so.1"))
    with pytest.raises(EngineError):
        OrtEngine.open(tiny, "cuda", {})
    assert capfd.readouterr().out == ""


def _refusing(missing: str) -> Callable[[str], None]:
    """``ctypes.CDLL`` on a machine where one library is missing."""
    under = {
        "libcudnn.so.9": ("libcudnn.so.9",),
        "libcuda.so.1": ("cuda.so",),
        "libnvinfer.so.10": ("tensorrt.so",),
    }

    def load(path: str) -> None:
        if any(path.endswith(end) for end in under[missing]):
            raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

    return load


@pytest.mark.parametrize(
    ("missing", "provider", "way_out"),
    [
        ("libcuda.so.1", "CUDAExecutionProvider", "driver"),
        ("libcudnn.so.9", "CUDAExecutionProvider", "onnxruntime-gpu[cuda,cudnn]"),
        ("libnvinfer.so.10", "TensorrtExecutionProvider", "tensorrt-cu13>=10,<11"),
    ],
)
def test_each_missing_library_is_named_with_its_own_way_out(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, missing: str, provider: str, way_out: str
) -> None:
    def nothing(**_options: object) -> None:
        pass

    monkeypatch.setattr(ctypes, "CDLL", _refusing(missing))
    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: every)
    monkeypatch.setattr(ort, "preload_dlls", nothing)
    with pytest.raises(EngineError, match=f"{provider} does not load: {missing} is missing") as e:
        OrtEngine.open(tiny, "cuda", {"tensorrt": {}})
    assert way_out in e.value.hint


def test_a_build_of_onnx_runtime_without_cuda_says_which_package_has_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError) as caught:
        OrtEngine.open(tiny, "cuda", {})
    assert "onnxruntime-gpu" in caught.value.hint


def test_another_provider_than_was_asked_for_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(_session: object) -> list[str]:
        return ["OtherExecutionProvider"]

    monkeypatch.setattr(ort.InferenceSession, "get_providers", other)
    with pytest.raises(EngineError, match="CPUExecutionProvider was asked for, Other"):
        OrtEngine.open(tiny, "cpu", {})


# --- the providers' own option parsers, on a driver that knows no GPU

STUBS = {
    "libcuda.so.1": "int cuTensorMapEncodeTiled(void) { return 100; }",
    "libnvinfer.so.10": "\n".join(
        f"void *{name}(void) {{ return 0; }}"
        for name in (
            "createInferBuilder_INTERNAL",
            "createInferRefitter_INTERNAL",
            "createInferRuntime_INTERNAL",
            "getPluginRegistry",
        )
    )
    + "\nint getInferLibVersion(void) { return 101600; }",
    "libnvonnxparser.so.10": "\n".join(
        f"void *{name}(void) {{ return 0; }}"
        for name in ("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL")
    ),
}
ASK = """
import json, sys
import onnxruntime as ort
from onnxruntime.capi import _pybind_state as pybind
ort.preload_dlls(directory="")
graph = bytes.fromhex(sys.argv[1])
for provider, options in json.loads(sys.stdin.read()):
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = pybind.InferenceSession(settings, graph, False, False)
        session.initialize_session([provider], [options], set())
        said = "opened"
    except Exception as error:
        said = " ".join(str(error).split())
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def no_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with all libraries and no GPU.

    What only a driver and TensorRT's package bring is stood in for, so that the real providers
    load.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or sys.platform != "linux" or find_spec("nvidia.cu13") is None:
        pytest.skip("needs Linux, a C compiler and CUDA's packages")
    folder = tmp_path_factory.mktemp("stubs")
    for name, source in STUBS.items():
        (folder / "stub.c").write_text(source)
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name]
        subprocess.run([compiler, *flags, folder / "stub.c"], check=True)

    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


@pytest.fixture(scope="module")
def ask(no_gpu: dict[str, str]) -> Callable[[list[Any]], list[str]]:
    """What the real providers say to options, each given as provider and options."""

    def run(asked: list[Any]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", ASK, TINY_ONNX.hex()],
            env=no_gpu,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]

    return run


@without_driver
def test_a_driver_that_shows_no_gpu_is_an_error_and_no_session_on_the_cpu(
    no_gpu: dict[str, str],
) -> None:
    code = """
from runtime.engines.ort import OrtEngine
from specs.errors import EngineError
try:
    OrtEngine.probe("cuda")
except EngineError as error:
    print(error.code, error.message, error.hint, sep=chr(10))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=no_gpu, capture_output=True, text=True, check=True
    )
    told, message, hint = done.stdout.splitlines()  # nothing else: ONNX Runtime retries in print
    assert told == "device_missing"
    assert "CUDA driver version is insufficient" in message
    assert "nvidia-smi" in hint


def _every(model: type[CudaOptions | TensorrtOptions]) -> list[dict[str, Any]]:
    """Options that name each field once, with each of its values where these are few."""
    found: list[dict[str, Any]] = []
    for name, field in model.model_fields.items():
        text = str(field.annotation)
        if "Literal" in text:
            found += [{name: value} for value in text.split("'")[1::2]]
        else:
            found.append({name: True if "bool" in text else ["Add"] if "tuple" in text else 3})
    return found


@without_driver
def test_the_cuda_provider_knows_every_option_and_refuses_a_misspelt_one(
    ask: Callable[[list[Any]], list[str]],
) -> None:
    given = [as_strings(CudaOptions.model_validate(one)) for one in _every(CudaOptions)]
    *known, misspelt = ask([("CUDAExecutionProvider", one) for one in [*given, {"use_tf23": "1"}]])
    assert len(known) == len(given) > 15
    assert all("CUDA failure" in said and "Parse" not in said for said in known), known
    assert "Unknown provider option" in misspelt


@without_driver
def test_the_tensorrt_provider_knows_every_option_and_refuses_a_misspelt_one(
    ask: Callable[[list[Any]], list[str]], tiny: Path
) -> None:
    given: list[dict[str, str]] = []
    for one in _every(TensorrtOptions):
        options = OrtOptions(tensorrt=TensorrtOptions.model_validate(one))
        inputs: dict[str, tuple[int | str, ...]] = {"x": ("batch", 2)}
        axes = {"batch": AxisRange(min=1, opt=2, max=4)}
        build = TensorrtBuild(gpu="", precision="fp16", inputs=inputs, axes=axes)
        built = BuiltFile(onnxruntime="1", tensorrt=build)
        opening = Opening(tiny, "cuda", options, built=built, timing_cache=tiny.parent)
        given.append(tensorrt_options(opening))
    bad = {"trt_fp61_enable": "True"}
    *known, misspelt = ask([("TensorrtExecutionProvider", one) for one in [*given, bad]])
    assert len(known) == len(given) > 10
    assert all("CUDA failure" in said for said in known), known
    assert "Invalid TensorRT EP option: trt_fp61_enable" in misspelt


# --- on a GPU


def _conv(dtype: type[np.generic]) -> ModelProto:
    rng = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = proto(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        [("x", kind, ["batch", 8, 16, 16])],
        [("y", kind, ["batch", 8, 16, 16])],
    )
    weights = (rng.standard_normal((8, 8, 3, 3)) / 8).astype(dtype)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return model


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"io_binding": False},
        {"cuda": {"enable_cuda_graph": True}},
        {"cuda": {"prefer_nhwc": True, "cudnn_conv_algo_search": "HEURISTIC"}},
    ],
    ids=["plain", "unbound", "graphs", "nhwc"],
)
@pytest.mark.usefixtures("gpu")
def test_a_gpu_answers_as_the_cpu_does_at_every_size_and_in_any_order(
    tmp_path: Path, dtype: type[np.generic], options: dict[str, Any]
) -> None:
    file = tmp_path / "conv.onnx"
    file.write_bytes(_conv(dtype).SerializeToString())
    rng = np.random.default_rng(1)
    there, here = OrtEngine.open(file, "cuda", options), OrtEngine.open(file, "cpu", {})
    for size in (1, 4, 1, 4, 1, 4, 7):
        x = {"x": rng.standard_normal((size, 8, 16, 16)).astype(dtype)}
        found: Any = there.run(x)["y"]
        expected: Any = here.run(x)["y"]
        np.testing.assert_allclose(found, expected, atol=1e-2 if dtype == np.float16 else 1e-4)
    there.close()


@pytest.mark.cuda
@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_every_node_runs_there_and_the_gpu_is_named(tiny: Path) -> None:
    layers = OrtEngine.layers(tiny, "cuda", {})
    assert [(layer.device, layer.place) for layer in layers] == [("cuda", "CUDAExecutionProvider")]
    assert OrtEngine.open(tiny, "cuda", {}).details()["gpu"]


@pytest.mark.cuda
@pytest.mark.usefixtures("gpu")
def test_a_node_without_a_kernel_on_the_gpu_is_refused_or_counted(tmp_path: Path) -> None:
    node = helper.make_node("Det", ["x"], ["y"], name="det")
    model = proto([node], [("x", FLOAT, ["batch", 2, 2])], [("y", FLOAT, ["batch"])])
    file = tmp_path / "det.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="would run on the CPU: Det det") as caught:
        OrtEngine.open(file, "cuda", {})
    assert "max_nodes_off_device: 1" in caught.value.hint
    session = OrtEngine.open(file, "cuda", {"allow_cpu_nodes": True})
    assert session.run({"x": np.eye(2, dtype=np.float32)[None]})["y"][0] == 1
    assert [layer.device for layer in OrtEngine.layers(file, "cuda", {})] == ["cpu"]
