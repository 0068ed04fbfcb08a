"""What the builder leaves beside a file for ONNX Runtime, and what is refused because of it."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from runtime.engines._ort_built import (
    BuiltFile,
    TensorrtBuild,
    cpu_kind,
    engines_of,
    profile_of,
    read_built,
    refuse_new_engines,
)
from runtime.engines._ort_options import OrtOptions, TensorrtOptions
from runtime.engines._ort_session import (
    Opening,
    open_session,
    tensorrt_options,
)
from runtime.engines._probe import TINY_ONNX
from runtime.engines.ort import OrtEngine
from specs.axes import AxisRange
from specs.errors import EngineError


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """``y = x + x`` as a file."""
    (tmp_path / "tiny.onnx").write_bytes(TINY_ONNX)
    return tmp_path / "tiny.onnx"


# --- what lies beside a built file

INTEL = """processor : 0
flags\t\t: fpu sse2 avx f16c avx2 avx512f avx512_vnni
"""


def test_the_kind_of_a_cpu_is_what_decides_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "intel").write_text(INTEL)
    (tmp_path / "older").write_text(INTEL.replace("avx512f", ""))
    (tmp_path / "arm").write_text("Features : fp asimd asimddp crc32\n")
    found = [cpu_kind(tmp_path / name) for name in ("intel", "older", "arm")]
    assert found == ["x86_64 avx avx2 avx512f", "x86_64 avx avx2", "x86_64 asimd asimddp"]
    monkeypatch.setattr("platform.processor", lambda: "i386")
    assert cpu_kind(tmp_path / "none") == "x86_64 i386"


def test_a_file_for_another_kind_of_cpu_is_refused_with_the_ways_out(tiny: Path) -> None:
    BuiltFile(onnxruntime="1", optimized=True, cpu="x86_64 avx").write(tiny)
    with pytest.raises(
        EngineError, match=r"another kind of CPU: found .*, expected x86_64 avx"
    ) as e:
        OrtEngine.open(tiny, "cpu", {})
    assert e.value.code == "engine_machine"
    assert "optimization: extended" in e.value.hint
    BuiltFile(onnxruntime="1", optimized=True, cpu=cpu_kind()).write(tiny)
    OrtEngine.open(tiny, "cpu", {}).close()


def test_a_file_that_describes_nothing_is_refused(tiny: Path) -> None:
    tiny.with_name("tiny.onnx.json").write_text("{")
    with pytest.raises(EngineError, match=r"tiny\.onnx\.json does not describe tiny\.onnx"):
        OrtEngine.open(tiny, "cpu", {})


def test_what_was_optimised_when_it_was_built_is_not_optimised_again(tiny: Path) -> None:
    BuiltFile(onnxruntime="1", optimized=True).write(tiny)
    session = open_session(Opening(tiny, "cpu", OrtOptions(), built=read_built(tiny)))
    level = session.get_session_options().graph_optimization_level
    assert level == ort.GraphOptimizationLevel(0)


# --- TensorRT

BUILD = TensorrtBuild(
    gpu="NVIDIA A10G",
    precision="fp16",
    inputs={"x": ("batch", 3, "height"), "scale": (1,)},
    axes={
        "batch": AxisRange(min=1, opt=8, max=32),
        "height": AxisRange(min=64, opt=128, max=256),
    },
)


def test_the_profile_of_tensorrt_follows_from_the_ranges_of_the_axes() -> None:
    assert profile_of(BUILD) == {
        "trt_profile_min_shapes": "x:1x3x64,scale:1",
        "trt_profile_opt_shapes": "x:8x3x128,scale:1",
        "trt_profile_max_shapes": "x:32x3x256,scale:1",
    }
    assert profile_of(BUILD.model_copy(update={"inputs": {"x": (1, 3)}})) == {}


def test_tensorrt_gets_the_precision_of_the_target_and_keeps_its_engines_beside_the_file(
    tiny: Path,
) -> None:
    options = OrtOptions(
        tensorrt=TensorrtOptions(max_workspace_size=5, op_types_to_exclude=("NonZero", "TopK"))
    )
    built = BuiltFile(onnxruntime="1", tensorrt=BUILD)
    opening = Opening(tiny, "cuda", options, built=built, timing_cache=tiny.parent / "keep")
    found = tensorrt_options(opening)
    assert (found["trt_fp16_enable"], found["trt_int8_enable"]) == ("True", "False")
    assert found["trt_engine_cache_path"] == str(tiny.parent)
    assert found["trt_timing_cache_path"] == str(tiny.parent / "keep")
    assert found["trt_max_workspace_size"] == "5"
    assert found["trt_op_types_to_exclude"] == "NonZero,TopK"
    with pytest.raises(EngineError, match="hold none at one size"):
        tensorrt_options(Opening(tiny, "cuda", options, {"batch": 1}, built))
    with pytest.raises(EngineError, match="was not built for TensorRT"):
        tensorrt_options(Opening(tiny, "cuda", options))


def test_engines_of_another_gpu_are_refused_before_tensorrt_builds_new_ones(tiny: Path) -> None:
    built = BuiltFile(onnxruntime="1", tensorrt=BUILD)
    with pytest.raises(EngineError, match="are for NVIDIA A10G, here is NVIDIA L4") as caught:
        engines_of(tiny, "NVIDIA L4", built)
    assert caught.value.hint == "build on this GPU"
    assert engines_of(tiny, "NVIDIA A10G", built) == set()


def test_engines_that_were_built_while_loading_are_refused_and_removed(tiny: Path) -> None:
    built = BuiltFile(onnxruntime="1", tensorrt=BUILD)
    (tiny.parent / "old.engine").write_bytes(b"")
    before = engines_of(tiny, BUILD.gpu, built)
    refuse_new_engines(tiny, before, built)
    for name in ("new.engine", "new.profile"):
        (tiny.parent / name).write_bytes(b"")
    with pytest.raises(EngineError, match="do not fit here"):
        refuse_new_engines(tiny, before, built)
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["old.engine", "tiny.onnx"]
