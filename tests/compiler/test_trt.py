"""TensorRT on the side that builds: profiles, network typing, operators, timing cache, plans."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock, Timeout
from onnx import TensorProto, helper

import runtime
from compiler.engines._trt_graph import OPERATORS, check_types, graph_types, unsupported
from compiler.engines.trt import TrtBuilder, derive_profiles, split_batch, timing_file
from runtime.engines._trt_plan import Place, header_of
from runtime.engines.trt import TrtEngine
from specs.axes import AxisRange
from specs.errors import EngineError
from tests.trt_bindings import STANDIN, compile_library
from tests.trt_jobs import WEIGHT, affine, build, install, job_of, quantized, real, spec_of

HALF, BFLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16
HERE = Place("11.4.0.106", "NVIDIA H200", "9.0", "580.65 (CUDA 13.0)", "Linux", "x86_64")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in of NVIDIA's driver."""
    return compile_library(STANDIN, tmp_path_factory.mktemp("driver") / "libstandin.so")


@pytest.fixture
def here(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType, None, None]:
    """Both stand-ins; at the end nothing of the GPU may be left."""
    library = ctypes.CDLL(str(driver))
    before = library.standin_live()
    yield install(monkeypatch, driver)
    assert library.standin_live() == before


# --- optimisation profiles


def _ranges(batch: AxisRange, *buckets: int) -> list[tuple[int, int, int]]:
    return [(part.min, part.opt, part.max) for part in split_batch(batch, buckets)]


def test_by_default_a_profile_ends_at_min_at_opt_and_at_max() -> None:
    assert _ranges(AxisRange(min=1, opt=8, max=32)) == [(1, 1, 1), (2, 8, 8), (9, 32, 32)]
    assert _ranges(AxisRange(min=2, opt=2, max=4)) == [(2, 2, 2), (3, 4, 4)]
    assert _ranges(AxisRange(min=4, opt=4, max=4)) == [(4, 4, 4)]


def test_buckets_cut_the_batch_axis_without_gap_or_overlap() -> None:
    batch = AxisRange(min=2, opt=8, max=32)
    found = _ranges(batch, 4, 16, 32)
    assert found == [(2, 4, 4), (5, 16, 16), (17, 32, 32)]
    sizes = [size for low, _, high in found for size in range(low, high + 1)]
    assert sizes == list(range(2, 33))


@pytest.mark.parametrize("buckets", [(4, 16), (1, 32), (64,)])
def test_buckets_that_do_not_cover_the_batch_axis_are_refused(buckets: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match="expected the last to be 32 and none below 2") as caught:
        split_batch(AxisRange(min=2, opt=8, max=32), buckets)
    assert "buckets: [8, 32]" in caught.value.hint


def test_other_axes_are_whole_in_every_profile_and_fixed_sizes_stay() -> None:
    spec = spec_of(
        inputs={"x": {"shape": ["batch", 3, "width"]}, "ids": {"shape": ["batch"]}},
        dynamic_axes={
            "batch": {"min": 1, "opt": 4, "max": 4},
            "width": {"min": 16, "opt": 32, "max": 64},
        },
    )
    assert derive_profiles(spec) == (
        {"x": ((1, 3, 16), (1, 3, 32), (1, 3, 64)), "ids": ((1,), (1,), (1,))},
        {"x": ((2, 3, 16), (4, 3, 32), (4, 3, 64)), "ids": ((2,), (4,), (4,))},
    )


def test_a_fixed_batch_has_one_profile_of_one_shape() -> None:
    spec = spec_of(
        inputs={"x": {"shape": [4, 3]}}, outputs={"y": {"shape": [4, 4]}}, dynamic_axes={}
    )
    assert derive_profiles(spec) == ({"x": ((4, 3), (4, 3), (4, 3))},)


# --- network typing


@pytest.mark.parametrize(
    ("model", "types"),
    [
        (affine(), {"fp32"}),
        (affine(HALF), {"fp32", "fp16"}),
        (affine(BFLOAT), {"fp32", "bf16"}),
        (quantized(), {"fp32", "int8"}),
    ],
    ids=["fp32", "fp16", "bf16", "int8"],
)
def test_a_graph_says_which_precisions_it_computes_in(
    model: onnx.ModelProto, types: set[str]
) -> None:
    assert graph_types(model) == types


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_graph_without_the_precision_that_was_asked_for_is_refused(precision: Any) -> None:
    with pytest.raises(EngineError, match=f"{precision} was asked for, m.onnx has fp32") as caught:
        check_types({"fp32"}, precision, "m.onnx")
    assert caught.value.code == "network_typing"
    check_types({"fp32", precision}, precision, "m.onnx")
    check_types({precision}, "fp32", "m.onnx")


@pytest.mark.usefixtures("here")
def test_the_wrong_graph_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"fp16 was asked for, small\.onnx has fp32"):
        build(tmp_path, affine(), precision="fp16")


def test_the_parsed_network_is_checked_as_well(here: ModuleType, tmp_path: Path) -> None:
    def lost(_network: Any, _index: int) -> Any:
        return here.ILayer([here.ITensor(here.DataType.FLOAT)])

    here.INetworkDefinition.get_layer = lost
    with pytest.raises(EngineError, match="the parsed network has fp32"):
        build(tmp_path, affine(HALF), precision="fp16")


# --- operators


def _of(*nodes: onnx.NodeProto, opset: int = 18, **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, **more)


def test_what_the_parser_lists_is_supported() -> None:
    for model in (affine(), affine(HALF), affine(BFLOAT), quantized()):
        assert unsupported(model, 10) == ()


def test_op_types_that_are_not_listed_are_told_also_inside_subgraphs_and_functions() -> None:
    inner = helper.make_graph([helper.make_node("Unique", ["a"], ["b"])], "inner", [], [])
    branch = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    own = helper.make_function(
        "own",
        "Block",
        ["a"],
        ["b"],
        [helper.make_node("Det", ["a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )
    nodes = [
        branch,
        helper.make_node("Block", ["a"], ["b"], domain="own"),
        helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("EfficientNMS_TRT", ["a"], ["b"], domain="TRT"),
    ]
    found = unsupported(_of(*nodes, functions=[own]), 10)
    assert found == ("Det", "Unique", "com.microsoft.Gelu")


def test_the_table_follows_the_major_version_and_takes_the_newest_for_one_unknown() -> None:
    swish = _of(helper.make_node("Swish", ["a"], ["b"]), opset=24)
    assert unsupported(swish, 10) == ("Swish",)
    assert unsupported(swish, 11) == unsupported(swish, 12) == ()
    assert OPERATORS[10] < OPERATORS[11]
    assert len(OPERATORS[10]) == 158


@pytest.mark.parametrize("opset", [8, 25])
def test_an_opset_that_the_parser_does_not_take_is_told(opset: int) -> None:
    (found,) = unsupported(_of(opset=opset), 11)
    assert found == f"opset {opset} (it takes 9 to 24)"


def test_types_that_would_be_cut_down_are_told() -> None:
    model = affine()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.node.append(helper.make_node("Cast", ["x"], ["w16"], to=TensorProto.INT16))
    assert unsupported(model, 10) == ("tensor(double)", "tensor(int16)")


def test_quantisation_around_another_value_than_0_is_told() -> None:
    found = unsupported(quantized(zero=3), 10)
    assert found == ("DequantizeLinear with a zero point other than 0",)


def test_unsupported_is_told_without_tensorrt(tmp_path: Path) -> None:
    job = job_of(tmp_path, _of(helper.make_node("Det", ["a"], ["b"])))
    assert TrtBuilder.unsupported(job.graph, job.target) == ("Det",)


def test_a_file_that_is_no_graph_is_one_clear_error(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    job.graph.write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"small\.onnx is no ONNX graph"):
        TrtBuilder.build(job)
    with pytest.raises(EngineError, match=r"small\.onnx is no ONNX graph"):
        TrtBuilder.unsupported(job.graph, job.target)


# --- the timing cache


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu": "NVIDIA H100"},
        {"compute_capability": "8.9"},
        {"tensorrt": "11.4.0.107"},
        {"driver": "581"},
        {"system": "Windows"},
        {"machine": "aarch64"},
    ],
)
def test_kernel_times_of_another_place_lie_in_another_file(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    file = timing_file(tmp_path, HERE)
    assert file == timing_file(tmp_path, HERE)
    assert file.name.startswith("NVIDIA-H200-trt11.4.0.106-")
    assert timing_file(tmp_path, replace(HERE, **changes)) != file


def _kept(folder: Path) -> list[Path]:
    return list((folder / "keep").glob("*.timing"))


@pytest.mark.usefixtures("here")
def test_kernel_times_are_kept_and_used_by_the_next_build(tmp_path: Path) -> None:
    first = TrtBuilder.build(job_of(tmp_path))
    (file,) = _kept(tmp_path)
    kept = file.read_bytes()
    assert json.loads(kept) == ["Stand-in GPU", ["MatMul", "Relu"]]
    second = TrtBuilder.build(job_of(tmp_path, quantized(), precision="int8"))
    assert first.notes == ("3 optimisation profiles", "kernels timed anew")
    assert second.notes[1].startswith("kernel times of an earlier build, sha256 ")
    assert {"DequantizeLinear", "MatMul"} <= set(json.loads(file.read_bytes())[1])
    assert not list((tmp_path / "keep").glob(".*-*"))


@pytest.mark.usefixtures("here")
def test_times_that_another_build_kept_meanwhile_are_not_lost(
    tmp_path: Path, here: ModuleType
) -> None:
    build(tmp_path)
    (file,) = _kept(tmp_path)
    whole = here.Builder.build_serialized_network

    def meanwhile(builder: Any, network: Any, config: Any) -> Any:
        file.write_text(json.dumps(["Stand-in GPU", ["Conv"]]))
        return whole(builder, network, config)

    here.Builder.build_serialized_network = meanwhile
    build(tmp_path)
    assert json.loads(file.read_bytes()) == ["Stand-in GPU", ["Conv", "MatMul", "Relu"]]


@pytest.mark.parametrize("while_built", [False, True])
def test_times_are_read_and_written_under_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: ModuleType, *, while_built: bool
) -> None:
    build(tmp_path)
    (file,) = _kept(tmp_path)
    other, whole = FileLock(f"{file}.lock"), here.Builder.build_serialized_network

    def impatient(path: str) -> FileLock:
        return FileLock(path, timeout=0.1)

    def hold(builder: Any, network: Any, config: Any) -> Any:
        other.acquire()
        return whole(builder, network, config)

    monkeypatch.setattr("compiler.engines.trt.FileLock", impatient)
    if while_built:
        here.Builder.build_serialized_network = hold
    else:
        other.acquire()
    with pytest.raises(Timeout):
        build(tmp_path)
    other.release()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("spoilt", [b"not json", b'["Another GPU", ["MatMul"]]'])
def test_times_that_cannot_be_used_are_measured_anew(tmp_path: Path, spoilt: bytes) -> None:
    build(tmp_path)
    (file,) = _kept(tmp_path)
    file.write_bytes(spoilt)
    assert TrtBuilder.build(job_of(tmp_path)).notes[1] == "kernels timed anew"
    assert "Relu" in json.loads(file.read_bytes())[1]


def test_without_a_timing_cache_nothing_is_kept(here: ModuleType, tmp_path: Path) -> None:
    build(tmp_path, options={"timing_cache": False})
    assert _kept(tmp_path) == []
    assert "DISABLE_TIMING_CACHE" in here.Builder.built[-1]["flags"]


@pytest.mark.usefixtures("here")
def test_a_strict_timing_cache_makes_a_miss_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    strict = {"timing_cache_strict": True}
    with pytest.raises(EngineError, match="no kernel times for this place") as caught:
        build(tmp_path, options=strict)
    assert caught.value.code == "timing_cache_missing"
    build(tmp_path)
    (file,) = _kept(tmp_path)
    kept = json.dumps(json.loads(file.read_bytes()), indent=1).encode()
    file.write_bytes(kept)
    build(tmp_path, options=strict)
    assert file.read_bytes() == kept
    with pytest.raises(EngineError, match=r"timing cache miss: .*QuantizeLinear") as caught:
        build(tmp_path, quantized(), precision="int8", options=strict)
    assert "timing_cache_strict" in caught.value.hint
    assert file.read_bytes() == kept


# --- builds, on the stand-ins


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("model", "precision"),
    [(affine(), "fp32"), (affine(HALF), "fp16"), (quantized(), "int8")],
    ids=["fp32", "fp16", "int8"],
)
def test_a_plan_and_its_header_are_written_and_run(
    tmp_path: Path, model: onnx.ModelProto, precision: str
) -> None:
    plan = build(tmp_path, model, precision=precision)
    assert sorted(path.name for path in plan.parent.iterdir()) == [
        "engine.plan",
        "engine.plan.json",
    ]
    header = header_of(plan)
    assert (header.gpu, header.compute_capability, header.tensorrt) == (
        "Stand-in GPU",
        "9.0",
        "10.16.1.11",
    )
    assert (header.target, header.signature.precision) == ("the_target", precision)
    assert header.profiles == derive_profiles(spec_of())
    session = TrtEngine.open(plan, "cuda", {})
    x = np.ones((3, 3), np.float32)
    np.testing.assert_allclose(session.run({"x": x})["y"], np.maximum(x @ WEIGHT, 0), rtol=1e-2)  # pyright: ignore[reportCallIssue, reportArgumentType]
    session.close()


def test_every_option_of_the_build_reaches_tensorrt(here: ModuleType, tmp_path: Path) -> None:
    build(tmp_path)
    plain = here.Builder.built[-1]
    assert plain["detailed"]
    assert "TF32" not in plain["flags"]
    assert (plain["pools"], plain["level"], plain["hardware"]) == ({}, 3, "NONE")
    options = {
        "workspace_mib": 64,
        "optimization_level": 5,
        "tf32": True,
        "version_compatible": True,
        "hardware_compatibility": "ampere_plus",
        "buckets": [4, 8],
    }
    plan = build(tmp_path, options=options)
    found = here.Builder.built[-1]
    assert {"TF32", "VERSION_COMPATIBLE"} <= set(found["flags"])
    assert found["pools"] == {"WORKSPACE": 64 * 2**20}
    assert (found["level"], found["hardware"]) == (5, "AMPERE_PLUS")
    assert found["profiles"] == [
        {"x": [[1, 3], [4, 3], [4, 3]]},
        {"x": [[5, 3], [8, 3], [8, 3]]},
    ]
    header = header_of(plan)
    assert (header.version_compatible, header.hardware_compatibility) == (True, "ampere_plus")
    build(tmp_path, options={"hardware_compatibility": "same_compute_capability"})
    assert here.Builder.built[-1]["hardware"] == "SAME_COMPUTE_CAPABILITY"


@pytest.mark.usefixtures("here")
def test_what_the_parser_refuses_is_told_with_its_node(tmp_path: Path) -> None:
    model = affine()
    model.graph.node[1].op_type = "Det"
    with pytest.raises(EngineError) as caught:
        build(tmp_path, model)
    assert caught.value.code == "engine_unsupported"
    assert "TheOp 'the_node': no importer registered for op: Det" in caught.value.message


def test_what_tensorrt_raises_becomes_an_error_of_the_engine(
    here: ModuleType, tmp_path: Path
) -> None:
    def refuse(_builder: Any, _logger: Any) -> None:
        raise TypeError("factory function returned nullptr")

    here.Builder.__init__ = refuse
    with pytest.raises(EngineError, match="TensorRT: factory function returned nullptr"):
        build(tmp_path)


def _spec(folder: Path, *precisions: str) -> dict[str, Any]:
    onnx.save(affine(), folder / "small.onnx")
    spec = spec_of().model_dump(mode="json", include={"version", "inputs", "outputs"})
    return {
        **spec,
        "name": "small",
        "model": {"onnx": "small.onnx"},
        "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 8}},
        "targets": [{"engine": "tensorrt", "precision": word} for word in precisions],
    }


@pytest.mark.usefixtures("here")
def test_a_whole_build_converts_proves_and_audits_and_the_artifact_predicts(
    tmp_path: Path, build_spec: Callable[..., Any]
) -> None:
    build_spec(_spec(tmp_path, "fp32", "fp16"))
    artifact = tmp_path / "artifact"
    for word in ("fp32", "fp16"):
        folder = artifact / "variants" / f"tensorrt-cuda-{word}"
        assert {"engine.plan", "engine.plan.json"} <= {path.name for path in folder.iterdir()}
        audit = json.loads((folder / "audit.json").read_text("utf-8"))
        assert audit["precision"]["shares"] == {word: 1.0}
        assert "told by tensorrt" in audit["precision"]["source"]
        with runtime.load(artifact, f"tensorrt-cuda-{word}") as predictor:
            assert predictor.predict([np.ones(3, np.float32)])
    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    assert manifest["variants"][0]["details"]["gpu"] == "Stand-in GPU"


@pytest.mark.usefixtures("here")
def test_an_artifact_from_another_machine_says_what_to_run(
    tmp_path: Path, build_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_spec(_spec(tmp_path, "fp32"))
    monkeypatch.setenv("STANDIN_CAPABILITY", "8.9")
    with pytest.raises(EngineError) as caught:
        runtime.load(tmp_path / "artifact")
    assert "(compute capability 8.9)" in caught.value.message
    assert "`deployc build SPEC --target tensorrt-cuda-fp32` here" in caught.value.hint


# --- without TensorRT


def test_a_fingerprint_names_what_a_plan_depends_on_and_never_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Path
) -> None:
    target = job_of(tmp_path).target
    without = TrtBuilder.fingerprint(target)
    assert without.keys() == vars(HERE).keys()
    assert without["system"]
    install(monkeypatch, driver)
    found = TrtBuilder.fingerprint(target)
    assert (found["tensorrt"], found["gpu"]) == ("10.16.1.11", "Stand-in GPU")
    monkeypatch.setenv("STANDIN_GPU", "Another")
    assert TrtBuilder.fingerprint(target) != found


def test_a_build_without_tensorrt_names_what_is_missing_and_the_line_that_installs_it(
    tmp_path: Path,
) -> None:
    if TrtBuilder.fingerprint(job_of(tmp_path).target)["tensorrt"]:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(EngineError) as caught:
        TrtBuilder.build(job_of(tmp_path))
    assert (
        caught.value.message == "the package tensorrt, which brings libnvinfer.so, is not installed"
    )
    assert caught.value.hint.startswith("pip install tensorrt-cu13")


def test_the_command_ends_with_exit_1_and_the_missing_library(tmp_path: Path) -> None:
    if TrtBuilder.fingerprint(job_of(tmp_path).target)["tensorrt"]:
        pytest.skip("TensorRT is installed here")
    (tmp_path / "small.yaml").write_text(json.dumps(_spec(tmp_path, "fp32")))
    command = [sys.executable, "-m", "specs.cli", "build", str(tmp_path / "small.yaml")]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "libnvinfer.so, is not installed" in done.stderr
    assert "pip install tensorrt-cu13" in done.stderr
    assert not (tmp_path / "out").exists()


# --- on a real TensorRT


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("model", "precision", "tolerance"),
    [
        (affine(), "fp32", 1e-5),
        (affine(HALF), "fp16", 1e-2),
        (affine(BFLOAT), "bf16", 5e-2),
        (quantized(), "int8", 0.2),
    ],
    ids=["fp32", "fp16", "bf16", "int8"],
)
def test_real_every_precision_builds_and_gives_numpys_numbers(
    tmp_path: Path, model: onnx.ModelProto, precision: str, tolerance: float
) -> None:
    real()
    session = TrtEngine.open(build(tmp_path, model, precision=precision), "cuda", {})
    for size in (1, 2, 5, 8):
        x = np.linspace(-1, 1, size * 3, dtype=np.float32).reshape(size, 3)
        found: Any = session.run({"x": x})["y"]
        np.testing.assert_allclose(found, np.maximum(x @ WEIGHT, 0), atol=tolerance)
    session.close()


@pytest.mark.tensorrt
def test_real_kernel_times_are_kept_and_make_a_strict_build_possible(tmp_path: Path) -> None:
    real()
    first = TrtBuilder.build(job_of(tmp_path))
    assert first.notes[1] == "kernels timed anew"
    second = TrtBuilder.build(job_of(tmp_path, options={"timing_cache_strict": True}))
    assert second.notes[1].startswith("kernel times of an earlier build")


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    "options",
    [
        {"version_compatible": True},
        {"hardware_compatibility": "ampere_plus"},
        {"hardware_compatibility": "same_compute_capability"},
        {"workspace_mib": 64, "optimization_level": 0, "tf32": True, "timing_cache": False},
        {"buckets": [8]},
    ],
)
def test_real_every_option_builds_a_plan_that_runs(tmp_path: Path, options: dict[str, Any]) -> None:
    real()
    session = TrtEngine.open(build(tmp_path, options=options), "cuda", {})
    found: Any = session.run({"x": np.ones((2, 3), np.float32)})["y"]
    np.testing.assert_allclose(found, np.ones((2, 3)) @ WEIGHT, rtol=1e-2)
    session.close()


@pytest.mark.tensorrt
def test_real_what_the_parser_refuses_is_told(tmp_path: Path) -> None:
    real()
    model = affine()
    model.graph.node[1].op_type = "Det"
    with pytest.raises(EngineError, match="TensorRT's parser does not take small"):
        build(tmp_path, model)
