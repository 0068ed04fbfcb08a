"""ONNX Runtime: options that act, sizes that hold, nodes that are where they should be."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from runtime.engines._ort_options import CudaOptions, OrtOptions, TensorrtOptions, as_strings
from runtime.engines._ort_providers import providers_for
from runtime.engines._ort_session import (
    Opening,
    check_options,
    off_device,
    told,
)
from runtime.engines._probe import TINY_ONNX, answer_tiny
from runtime.engines.ort import OrtEngine, OrtSession
from specs.errors import EngineError
from tests.ort_graphs import FLOAT, opened, proto


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """``y = x + x`` as a file."""
    (tmp_path / "tiny.onnx").write_bytes(TINY_ONNX)
    return tmp_path / "tiny.onnx"


# --- the smallest graph


def test_the_smallest_graph_is_what_onnx_makes_of_its_description() -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"], name="add")
    model = proto([node], [("x", FLOAT, ["batch", 2])], [("y", FLOAT, ["batch", 2])])
    model.graph.name = "probe"
    assert model.SerializeToString(deterministic=True) == TINY_ONNX


def test_the_probe_answers_with_versions() -> None:
    found = OrtEngine.probe("cpu")
    assert found == {"onnxruntime": ort.__version__, "providers": "CPUExecutionProvider"}


def test_a_probe_whose_answer_is_wrong_is_an_error() -> None:
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    model = proto([node], [("x", FLOAT, ["batch", 2])], [("y", FLOAT, ["batch", 2])])
    with pytest.raises(EngineError, match="gave") as caught:
        answer_tiny(OrtSession(opened(model)))
    assert caught.value.code == "probe_wrong"


# --- options


def test_every_option_reaches_onnx_runtime() -> None:
    session = opened(
        TINY_ONNX,
        optimization="basic",
        intra_op_threads=3,
        inter_op_threads=2,
        parallel=True,
        memory_arena=False,
        memory_pattern=False,
        flush_denormals=True,
        deterministic=True,
        session_config={"session.dynamic_block_base": "4"},
    )
    found = session.get_session_options()
    assert (found.intra_op_num_threads, found.inter_op_num_threads) == (3, 2)
    assert found.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert found.graph_optimization_level == ort.GraphOptimizationLevel(1)
    assert (found.enable_cpu_mem_arena, found.enable_mem_pattern) == (False, False)
    assert found.use_deterministic_compute
    entries = {
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
        "session.set_denormal_as_zero": "1",
        "session.dynamic_block_base": "4",
    }
    assert {key: found.get_session_config_entry(key) for key in entries} == entries


def test_no_option_changes_what_onnx_runtime_does_by_itself() -> None:
    found, plain = opened(TINY_ONNX).get_session_options(), ort.SessionOptions()
    names = ("enable_cpu_mem_arena", "enable_mem_pattern", "use_deterministic_compute")
    assert [getattr(found, name) for name in names] == [getattr(plain, name) for name in names]
    assert found.execution_mode == plain.execution_mode


def test_idle_threads_do_not_spin_unless_that_is_asked() -> None:
    key = "session.intra_op.allow_spinning"
    assert opened(TINY_ONNX).get_session_options().get_session_config_entry(key) == "0"
    spinning = opened(TINY_ONNX, spinning=True).get_session_options()
    with pytest.raises(RuntimeError, match=key):  # left to ONNX Runtime, whose threads spin
        spinning.get_session_config_entry(key)


def test_denormals_are_flushed_where_that_is_asked(tiny: Path) -> None:
    def answer(flush: str) -> bool:
        # The flag lives in a thread's registers, so each session gets a process of its own.
        code = (
            "import sys, pathlib, numpy as np; from runtime.engines.ort import OrtEngine as E;"
            f"s = E.open(pathlib.Path(sys.argv[1]), 'cpu', {{'flush_denormals': {flush}}});"
            "y = s.run({'x': np.full((1, 2), 1e-40, np.float32)})['y'];"
            "sys.exit(int(bool((y.view(np.uint32) == 0).all())))"
        )
        return bool(subprocess.run([sys.executable, "-c", code, tiny], check=False).returncode)

    assert (answer("True"), answer("False")) == (True, False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"optimisation": "all"}, "optimisation"),
        ({"cuda": {"use_tf23": True}}, r"cuda\.use_tf23"),
        ({"tensorrt": {"fp16_enable": True}}, r"tensorrt\.fp16_enable"),
        ({"cuda": {"cudnn_conv_algo_search": "EXHAUSTIV"}}, "cudnn_conv_algo_search"),
        ({"session_config": {"": "1"}}, "session_config"),
    ],
)
def test_a_misspelt_option_is_refused_since_onnx_runtime_would_not(
    tiny: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(EngineError, match=text) as caught:
        OrtEngine.open(tiny, "cpu", options)
    assert caught.value.code == "engine_options"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session_config": {"session.disable_cpu_ep_fallback": "0"}}, "deployc sets"),
        ({"session_config": {"session.record_ep_graph_assignment_info": "1"}}, "deployc sets"),
        ({"offline": True, "tensorrt": {}}, "TensorRT optimises"),
        ({"io_binding": False, "cuda": {"enable_cuda_graph": True}}, "buffers that stay"),
        ({"tensorrt": {}, "cuda": {"enable_cuda_graph": True}}, "CUDA graphs are TensorRT's"),
    ],
)
def test_options_that_contradict_each_other_are_refused_in_the_spec(
    options: dict[str, Any], message: str
) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        OrtOptions.model_validate(options)
    assert message in str(caught.value.errors()[0].get("ctx"))


@pytest.mark.parametrize(
    "options",
    [
        {"cuda": {"prefer_nhwc": True}},
        {"tensorrt": {}},
        {"device_id": 1},
        {"allow_cpu_nodes": True},
    ],
)
def test_an_option_of_a_gpu_is_refused_on_the_cpu(tiny: Path, options: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="no effect on cpu") as caught:
        OrtEngine.open(tiny, "cpu", options)
    assert "device: cuda" in caught.value.hint


def test_an_option_of_the_cpu_is_refused_on_a_gpu(tiny: Path) -> None:
    with pytest.raises(EngineError, match="parallel has no effect on cuda") as caught:
        OrtEngine.open(tiny, "cuda", {"parallel": True})
    assert "device: cpu" in caught.value.hint


def test_fp32_is_not_rounded_to_tf32_unless_asked() -> None:
    assert as_strings(CudaOptions()) == {"use_tf32": "0", "enable_cuda_graph": "0"}
    assert as_strings(CudaOptions(use_tf32=True))["use_tf32"] == "1"


def test_the_cpu_joins_the_providers_only_where_that_is_allowed() -> None:
    allowed = OrtOptions(allow_cpu_nodes=True, tensorrt=TensorrtOptions())
    assert providers_for("cpu", OrtOptions()) == ("CPUExecutionProvider",)
    assert providers_for("cuda", OrtOptions()) == ("CUDAExecutionProvider",)
    assert [name[:4] for name in providers_for("cuda", allowed)] == ["Tens", "CUDA", "CPUE"]


def test_an_option_that_the_provider_does_not_use_as_asked_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = opened(TINY_ONNX)
    options = OrtOptions(cuda=CudaOptions(gpu_mem_limit=1000, prefer_nhwc=True))
    in_use = {"gpu_mem_limit": "1000", "prefer_nhwc": "True", "use_tf32": "0", "device_id": "0"}

    def told_options(_session: object) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": in_use}

    monkeypatch.setattr(ort.InferenceSession, "get_provider_options", told_options)
    check_options(session, Opening(TINY_ONNX, "cuda", options))
    in_use["gpu_mem_limit"] = "18446744073709551615"
    with pytest.raises(EngineError, match="gpu_mem_limit=18446744073709551615, asked was 1000"):
        check_options(session, Opening(TINY_ONNX, "cuda", options))


# --- sizes


def test_a_session_held_at_one_size_takes_no_other(tiny: Path) -> None:
    session = OrtEngine.open(tiny, "cpu", {}, {"batch": 4})
    assert session.run({"x": np.ones((4, 2), np.float32)})["y"].shape == (4, 2)
    with pytest.raises(EngineError, match="Got: 3 Expected: 4") as caught:
        session.run({"x": np.ones((3, 2), np.float32)})
    assert caught.value.code == "engine_run"


def test_an_axis_that_the_graph_does_not_have_cannot_be_held(tiny: Path) -> None:
    with pytest.raises(EngineError, match="no input of the graph has the axis 'bach'"):
        OrtEngine.open(tiny, "cpu", {}, {"bach": 4})


# --- messages


def test_a_message_of_onnx_runtime_comes_without_its_source_lines() -> None:
    text = (
        "/src/a.cc:63 static Info f(const X&) [ONNXRuntimeError] : 1 : FAIL : utils.h:1 Parse\n"
        ' Unknown provider option: "x".'
    )
    assert told(RuntimeError(text)) == 'utils.h:1 Parse Unknown provider option: "x".'
    assert told(RuntimeError("")) == "RuntimeError"
    assert len(told(RuntimeError("x" * 9999))) < 500


def test_a_failing_open_prints_nothing_and_does_not_try_the_cpu(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"cannot load broken\.onnx on cpu"):
        OrtEngine.open(tmp_path / "broken.onnx", "cpu", {})
    assert capfd.readouterr().out == ""


# --- placement


def test_layers_tell_each_nodes_provider(tiny: Path) -> None:
    (layer,) = OrtEngine.layers(tiny, "cpu", {})
    assert (layer.name, layer.op, layer.device, layer.place) == (
        "add",
        "Add",
        "cpu",
        "CPUExecutionProvider",
    )


def test_nodes_that_would_leave_the_device_are_named_with_the_way_to_allow_them() -> None:
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"], name=f"neg{i}") for i in range(7)]
    model = proto(nodes, [("v0", FLOAT, ["n"])], [("v7", FLOAT, ["n"])])
    options = OrtOptions(optimization="disabled")
    error = off_device(Opening(model.SerializeToString(), "cpu", options))
    assert "7 nodes of the graph would run on the CPU: Neg neg0, Neg neg1" in error.message
    assert error.message.endswith("and 2 more")
    assert "max_nodes_off_device: 7" in error.hint


# --- a second session


def test_a_second_session_of_the_file_has_threads_of_its_own(tiny: Path) -> None:
    with_all = OrtEngine.open(tiny, "cpu", {})
    narrow = with_all.beside(1)
    assert isinstance(narrow, OrtSession)
    inner = narrow._session  # pyright: ignore[reportPrivateUsage]
    assert inner is not None
    assert inner.get_session_options().intra_op_num_threads == 1
    found = narrow.run({"x": np.ones((2, 2), np.float32)})
    assert found["y"].tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    "options",
    [
        {"intra_op_threads": 2},
        {"parallel": True},
        {"session_config": {"session.intra_op_thread_affinities": "1"}},
    ],
)
def test_threads_that_were_set_by_hand_are_kept(tiny: Path, options: dict[str, Any]) -> None:
    assert OrtEngine.open(tiny, "cpu", options).beside(1) is None


def test_a_large_file_is_not_loaded_twice(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = OrtEngine.open(tiny, "cpu", {})
    monkeypatch.setattr("runtime.engines.ort.REPEATED_BYTES", len(TINY_ONNX))
    assert session.beside(1) is not None
    tiny.with_name("tiny.onnx.data").write_bytes(b"weights")
    assert session.beside(1) is None
