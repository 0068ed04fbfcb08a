"""TensorRT on the side that runs: its interface, what a plan is for, sessions, layers."""

from __future__ import annotations

import ast
import ctypes
import gc
import json
import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from runtime.engines import _cuda
from runtime.engines._cuda import CALLS, Cuda, Memory, pinned
from runtime.engines._signature import Signature
from runtime.engines._trt_plan import (
    Place,
    PlanHeader,
    choose_profile,
    differences,
    header_of,
    parse_layers,
    refuse,
)
from runtime.engines.trt import GRAPHS, TrtEngine, TrtOptions
from specs.errors import EngineError
from tests.trt_bindings import BINDINGS, STANDIN, compile_library, in_bindings, make_stubs
from tests.trt_jobs import WEIGHT, build, columns, install, real, spec_of

ROOT = Path(__file__).parents[2]
SOURCES = [
    *ROOT.glob("runtime/engines/*trt*.py"),
    *ROOT.glob("compiler/engines/*trt*.py"),
]
TYPES = ROOT / "typings" / "tensorrt" / "__init__.pyi"

majors = pytest.mark.parametrize("major", list(BINDINGS))


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


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stub libraries by version."""
    root = tmp_path_factory.mktemp("stubs")
    return {major: make_stubs(root / major, major) for major in BINDINGS}


def inputs(size: int) -> dict[str, Any]:
    """A batch for ``affine``, other values for each size."""
    return {"x": (np.arange(size * 3).reshape(size, 3) - size).astype(np.float32)}


def same(found: Any, batch: dict[str, Any]) -> None:
    """Check an answer of ``affine``."""
    np.testing.assert_allclose(found, np.maximum(batch["x"] @ WEIGHT, 0), rtol=1e-5)


# --- the interface, against the real bindings


def _declared(body: list[ast.stmt]) -> dict[str, Any]:
    """Classes, members, properties and functions of typings/tensorrt."""
    found: dict[str, Any] = {}
    for part in body:
        if isinstance(part, ast.ClassDef):
            found[part.name] = _declared(part.body)
        elif isinstance(part, ast.FunctionDef):
            kinds = [ast.unparse(item) for item in part.decorator_list]
            names = [arg.arg for arg in part.args.args if arg.arg != "self"]
            gives = ast.unparse(part.returns) if part.returns else ""
            found[part.name] = "property" if kinds else [names, gives.removesuffix(" | None")]
        elif isinstance(part, ast.Assign):
            found[ast.unparse(part.targets[0])] = "member"
        elif isinstance(part, ast.AnnAssign):
            found[ast.unparse(part.target)] = "attribute"
    return found


COMPARE = r"""
import re
import tensorrt_bindings as trt

def signatures(doc, name):
    for line in doc.splitlines():
        found = re.match(r"(?:\d+\. )?" + name + r"\((.*)\) -> (.+)$", line.strip())
        if found:
            words = re.sub(r"<[^<>]*>", "", re.sub(r"\[[^\[\]]*\]", "", found[1])).split(", ")
            parts = [word for word in words if word and not word.startswith("self")]
            gives = re.sub(r"\w+(?:\.\w+)*\.(?=\w)", "", found[2])
            yield [p.split(":")[0] for p in parts], ["=" in p for p in parts], gives

def matches(asked, doc, name):
    for names, optional, gives in signatures(doc, name):
        head = all(a == b or b.startswith("arg") for a, b in zip(asked[0], names))
        rest = len(names) >= len(asked[0]) and all(optional[len(asked[0]):])
        if head and rest and gives.replace("nvonnxparser::I", "") in (asked[1], "None"):
            return True
    return False

def faults(place, declared, where):
    for name, kind in declared.items():
        path = f"{where}.{name}"
        real = getattr(place, name, None)
        if isinstance(kind, dict):
            if real is None:
                yield path
            else:
                yield from faults(real, kind, path)
        elif kind == "member":
            if name not in place.__members__:
                yield path
        elif kind in ("property", "attribute") and isinstance(place, type):
            if not isinstance(real, property) or (kind == "attribute" and not real.fset):
                yield f"{path} as {kind}"
        elif isinstance(kind, list) and name != "__int__":
            if real is None or not matches(kind, real.__doc__ or "", name):
                yield f"{path}({', '.join(kind[0])}) -> {kind[1]}: {(real.__doc__ or '')[:300]}"

print(json.dumps(list(faults(trt, given["declared"], "trt"))))
"""


@majors
def test_every_class_member_and_signature_that_is_used_is_in_the_real_bindings(
    major: str, stubs: dict[str, Path]
) -> None:
    declared = _declared(ast.parse(TYPES.read_text("utf-8")).body)
    assert len(declared) > 25
    assert in_bindings(COMPARE, major, stubs[major], declared=declared) == []


@majors
def test_the_comparison_with_the_real_bindings_finds_what_is_wrong(
    major: str, stubs: dict[str, Path]
) -> None:
    wrong = {
        "Builder": {"create_network": [["bits"], "INetworkDefinition"], "platform": "property"},
        "BuilderFlag": {"FP17": "member"},
        "ICudaEngine": {"num_io_tensors": "attribute", "get_tensor_name": [["index"], "int"]},
        "Lost": {},
    }
    found = in_bindings(COMPARE, major, stubs[major], declared=wrong)
    assert [text.split("(")[0].split(" ")[0] for text in found] == [
        "trt.Builder.create_network",
        "trt.Builder.platform",
        "trt.BuilderFlag.FP17",
        "trt.ICudaEngine.num_io_tensors",
        "trt.ICudaEngine.get_tensor_name",
        "trt.Lost",
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: "_".join(path.parts[-3::2]))
def test_the_sources_use_only_what_is_declared(source: Path) -> None:
    declared = _declared(ast.parse(TYPES.read_text("utf-8")).body)
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"trt(\.\w+)+", ast.unparse(node)):
            place: Any = declared
            for name in ast.unparse(node).split(".")[1:]:
                assert name in place, ast.unparse(node)
                place = place[name]


def test_the_stand_in_has_no_name_that_tensorrt_has_not() -> None:
    declared = _declared(ast.parse(TYPES.read_text("utf-8")).body)
    standin = ast.parse((ROOT / "tests" / "standin_tensorrt.py").read_text("utf-8"))
    for part in standin.body:
        if isinstance(part, ast.ClassDef):
            own = [item.name for item in part.body if isinstance(item, ast.FunctionDef)]
            public = {name for name in own if not name.startswith("_")}
            assert public <= set(declared[part.name]), part.name


@majors
def test_what_tensorrt_calls_back_is_made_with_the_real_classes(
    major: str, stubs: dict[str, Path]
) -> None:
    code = """
from runtime.engines import _trt_library as library
library.require()
import tensorrt as trt
log, errors = library.make_log()
log.log(trt.ILogger.Severity.ERROR, "bad")
class Memory:
    device = 5
    def fit(self, size): self.device = size
allocator, shapes = library.make_allocator(Memory())
allocator.notify_shape("y", trt.Dims((2, 3)))
given_back = allocator.reallocate_output_async("y", 0, 7, 256, 0)
trt.init_libnvinfer_plugins(log, "")
print(json.dumps([errors, shapes, given_back, library.strongly_typed(), trt.__version__]))
"""
    found = in_bindings(code, major, stubs[major])
    flag = {"10": 2, "11": 1}[major]
    assert found == [["bad"], [[2, 3]], 7, flag, BINDINGS[major]]


def _c_types() -> dict[str, str]:
    """Parameters of the driver's functions in the ``cuda.h`` of the installed wheel."""
    header = Path(np.__file__).parents[1] / "nvidia" / "cu13" / "include" / "cuda.h"
    if not header.is_file():
        pytest.skip(f"{header} is not there: it comes with torch's CUDA wheels")
    text = header.read_text("utf-8")
    found = re.findall(r"CUresult CUDAAPI (cu\w+)\(([^)]*)\);", text)
    renamed = re.findall(r"#define (cu\w+)\s+(?:__CUDA_API_PTSZ\()?(cu\w+)", text)
    names, first = dict(reversed(renamed)), dict(reversed(found))
    return {names.get(name, name): parameters for name, parameters in first.items()}


def test_the_drivers_functions_are_declared_as_in_cudas_header() -> None:
    known = _c_types()
    pointers = r"\*|CUcontext|CUstream\b|CUgraph|CUdeviceptr|size_t|long long"
    outs = (ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int), ctypes.c_char_p)
    for name, types in CALLS.items():
        parameters = [part.strip() for part in known[name].split(",")]
        assert len(parameters) == len(types), (name, parameters)
        for parameter, kind in zip(parameters, types, strict=True):
            assert (ctypes.sizeof(kind) == 8) == bool(re.search(pointers, parameter)), (
                name,
                parameter,
            )
            writes = "*" in parameter and not re.search(r"void \*\w", parameter)
            assert writes == (kind in outs), (name, parameter)


# --- what is missing


def _code(error: pytest.ExceptionInfo[EngineError]) -> tuple[str, str]:
    return error.value.code, error.value.message


def test_without_the_package_its_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str) -> None:
        pass

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    with pytest.raises(EngineError) as caught:
        TrtEngine.probe("cuda")
    assert _code(caught) == (
        "engine_missing",
        "the package tensorrt, which brings libnvinfer.so, is not installed",
    )
    assert "pip install tensorrt-cu13" in caught.value.hint


@majors
def test_bindings_without_their_libraries_name_the_library(major: str, tmp_path: Path) -> None:
    code = """
from runtime.engines.trt import TrtEngine
from specs.errors import EngineError
try:
    TrtEngine.probe("cuda")
except EngineError as error:
    print(json.dumps([error.code, error.message, error.hint]))
"""
    code, message, hint = in_bindings(code, major, tmp_path)
    assert code == "provider_missing"
    assert re.fullmatch(
        rf"TensorRT's bindings do not load: lib\w+\.so\.{major} is missing", message
    )
    assert "pip install tensorrt-cu13" in hint


@pytest.mark.usefixtures("here")
def test_without_the_driver_its_library_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_cuda, "DRIVER", str(tmp_path / "libcuda.so.1"))
    with pytest.raises(EngineError) as caught:
        TrtEngine.probe("cuda")
    assert _code(caught) == (
        "device_missing",
        "NVIDIA's driver is not there: libcuda.so.1 is missing",
    )


@pytest.mark.usefixtures("here")
def test_a_driver_that_lacks_a_function_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "old.c").write_text("int cuInit(unsigned flags) { return 0; }")
    old = compile_library(tmp_path / "old.c", tmp_path / "libold.so")
    monkeypatch.setattr(_cuda, "DRIVER", str(old))
    with pytest.raises(EngineError, match=r"too old: .*cuGetErrorString"):
        Cuda()


@pytest.mark.usefixtures("here")
def test_a_driver_without_a_gpu_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_DEVICES", "0")
    with pytest.raises(EngineError) as caught:
        TrtEngine.probe("cuda")
    assert _code(caught)[0] == "device_missing"
    assert "no CUDA-capable device is detected (100)" in caught.value.message
    assert "nvidia-smi" in caught.value.hint


@pytest.mark.usefixtures("here")
def test_any_other_device_is_an_error_never_a_fallback(tmp_path: Path) -> None:
    plan = build(tmp_path)
    for call in (TrtEngine.open, TrtEngine.layers):
        with pytest.raises(EngineError, match="runs on cuda, not on cpu"):
            call(plan, "cpu", {})
    with pytest.raises(EngineError, match="runs on cuda, not on cpu"):
        TrtEngine.probe("cpu")


# --- what a plan was built for

HERE = Place("11.4.0.106", "NVIDIA H200", "9.0", "580.65 (CUDA 13.0)", "Linux", "x86_64")
SPEC = spec_of()


def header(**changes: Any) -> PlanHeader:
    """The header of a plan that was built here."""
    fields: dict[str, Any] = {
        **vars(HERE),
        "target": "fast",
        "hardware_compatibility": "none",
        "version_compatible": False,
        "signature": Signature(
            inputs=SPEC.inputs, outputs=SPEC.outputs, axes=SPEC.dynamic_axes, precision="fp32"
        ),
        "profiles": ({"x": ((1, 3), (8, 3), (8, 3))},),
    }
    return PlanHeader.model_validate({**fields, **changes})


def test_a_plan_runs_where_it_was_built_and_under_another_driver() -> None:
    assert differences(header(), HERE) == ()
    assert differences(header(driver="575.10 (CUDA 12.9)"), HERE) == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tensorrt": "11.4.0.105"}, "TensorRT: built for 11.4.0.105, found 11.4.0.106"),
        ({"gpu": "NVIDIA H100"}, "GPU: built for NVIDIA H100 (compute capability 9.0), found"),
        ({"compute_capability": "8.9"}, "(compute capability 8.9), found NVIDIA H200"),
        ({"system": "Windows"}, "system: built for Windows x86_64, found Linux x86_64"),
        ({"machine": "aarch64"}, "system: built for Linux aarch64, found Linux x86_64"),
    ],
)
def test_another_version_gpu_or_system_is_refused(changes: dict[str, str], told: str) -> None:
    (found,) = differences(header(**changes), HERE)
    assert told in found


@pytest.mark.parametrize(
    ("built", "found", "runs"),
    [
        ("10.16.1.11", "11.4.0.106", True),
        ("11.4.0.106", "11.10.0.1", True),
        ("11.4.0.106", "10.16.1.11", False),
        ("11.10.0.1", "11.9.0.1", False),
    ],
)
def test_a_version_compatible_plan_runs_on_newer_versions_never_on_older(
    built: str, found: str, *, runs: bool
) -> None:
    plan = header(tensorrt=built, version_compatible=True)
    assert (differences(plan, replace(HERE, tensorrt=found)) == ()) is runs
    assert differences(header(tensorrt=built), replace(HERE, tensorrt=found)) != ()


@pytest.mark.parametrize(
    ("level", "gpu", "capability", "runs"),
    [
        ("none", "NVIDIA H100", "9.0", False),
        ("same_compute_capability", "NVIDIA H100", "9.0", True),
        ("same_compute_capability", "NVIDIA L4", "8.9", False),
        ("ampere_plus", "NVIDIA A100", "8.0", True),
        ("ampere_plus", "NVIDIA B200", "10.0", True),
        ("ampere_plus", "NVIDIA T4", "7.5", False),
    ],
)
def test_hardware_compatibility_says_which_other_gpus_may_run_a_plan(
    level: str, gpu: str, capability: str, *, runs: bool
) -> None:
    place = replace(HERE, gpu=gpu, compute_capability=capability)
    assert (differences(header(hardware_compatibility=level), place) == ()) is runs


def test_a_refusal_names_all_differences_and_the_command_that_builds_here(tmp_path: Path) -> None:
    plan = tmp_path / "variants" / "trt-fp16" / "engine.plan"
    with pytest.raises(EngineError) as caught:
        refuse(header(tensorrt="10.0.0.0", gpu="NVIDIA L4"), HERE, plan)
    assert caught.value.code == "plan_foreign"
    assert caught.value.message.count("built for") == 2
    assert "`deployc build SPEC --target trt-fp16` here" in caught.value.hint
    with pytest.raises(EngineError) as caught:
        refuse(header(tensorrt="10.0.0.0"), HERE, tmp_path / "engine.plan")
    assert "--target fast`" in caught.value.hint


@pytest.mark.parametrize("text", [None, b"", b"{}", b'{"format": 2}', b"\xff"])
def test_a_plan_without_its_header_is_refused(tmp_path: Path, text: bytes | None) -> None:
    plan = tmp_path / "engine.plan"
    if text is not None:
        (tmp_path / "engine.plan.json").write_bytes(text)
    with pytest.raises(EngineError) as caught:
        header_of(plan)
    assert caught.value.code == "plan_header"


def test_the_first_profile_that_holds_every_input_is_taken() -> None:
    profiles = (
        {"a": ((1, 4), (2, 4), (2, 4)), "b": ((1,), (2,), (2,))},
        {"a": ((3, 4), (8, 4), (8, 4)), "b": ((3,), (8,), (8,))},
    )
    assert choose_profile(profiles, {"a": (2, 4), "b": (2,)}) == 0
    assert choose_profile(profiles, {"a": (3, 4), "b": (3,)}) == 1
    assert choose_profile(profiles, {"a": (3, 4), "b": (2,)}) is None
    assert choose_profile(profiles, {"a": (9, 4), "b": (9,)}) is None


@pytest.mark.parametrize(
    "options",
    [
        {"buckets": [4, 4]},
        {"buckets": [0, 4]},
        {"timing_cache_strict": True, "timing_cache": False},
        {"optimization_level": 6},
        {"workspace": 5},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"buckets|timing_cache|optimization_level|workspace"):
        TrtOptions.model_validate(options)


# --- sessions, on the stand-ins


@pytest.mark.usefixtures("here")
def test_every_batch_size_gives_the_numbers_of_the_graph(tmp_path: Path) -> None:
    session = TrtEngine.open(build(tmp_path), "cuda", {})
    for size in (1, 2, 8, 3, 1, 2):
        found = session.run(inputs(size))
        assert list(found) == ["y"]
        same(found["y"], inputs(size))
    assert session.details()["tensorrt"] == BINDINGS["10"]
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run(inputs(1))


@pytest.mark.usefixtures("here")
def test_an_answer_stays_when_the_buffer_is_used_again(tmp_path: Path) -> None:
    session = TrtEngine.open(build(tmp_path), "cuda", {})
    first = session.run(inputs(2))["y"]
    kept = first.copy()
    session.run({"x": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(first, kept)
    session.close()


def test_one_context_for_each_profile_and_none_for_a_shape(
    here: ModuleType, tmp_path: Path
) -> None:
    session = TrtEngine.open(build(tmp_path), "cuda", {})
    for size in (1, 2, 3, 4, 5, 8, 1):
        session.run(inputs(size))
    assert here.IExecutionContext.count == 3
    session.close()


def test_cuda_graphs_replay_each_shape_with_new_values(here: ModuleType, tmp_path: Path) -> None:
    session = TrtEngine.open(build(tmp_path), "cuda", {"cuda_graphs": True})
    for size in (8, 3):  # grown buffers end graphs: the largest first
        session.run(inputs(size))
    before = here.IExecutionContext.runs
    for factor in (1, 2, 3):
        for size in (8, 3):
            batch = {"x": inputs(size)["x"] * np.float32(factor)}
            same(session.run(batch)["y"], batch)
    assert here.IExecutionContext.runs == before
    assert session.details()["cuda_graphs"] == "on"
    session.close()


@pytest.mark.usefixtures("here")
def test_graphs_are_recorded_again_when_a_larger_batch_moves_the_buffers(tmp_path: Path) -> None:
    session = TrtEngine.open(build(tmp_path), "cuda", {"cuda_graphs": True})
    for size in (1, 1, 8, 1, 8, 1):
        batch = {"x": inputs(size)["x"] + np.float32(size)}
        same(session.run(batch)["y"], batch)
    session.close()


def test_beyond_the_limit_of_graphs_shapes_run_without_one(
    here: ModuleType, tmp_path: Path
) -> None:
    axes = {"batch": {"min": 1, "max": GRAPHS + 5}}
    plan = build(tmp_path, None, spec_of(dynamic_axes=axes))
    session = TrtEngine.open(plan, "cuda", {"cuda_graphs": True})
    for _ in range(2):
        for size in range(GRAPHS + 5, 1, -1):
            same(session.run(inputs(size))["y"], inputs(size))
    assert here.IExecutionContext.count == GRAPHS + 1
    session.close()


@pytest.mark.parametrize(
    "batch",
    [
        {"z": np.ones((1, 3), np.float32)},
        {"x": np.ones((1, 4), np.float32)},
        {"x": np.ones((9, 3), np.float32)},
        {"x": np.ones((1, 3), np.float64)},
    ],
    ids=["name", "size", "batch", "dtype"],
)
@pytest.mark.usefixtures("here")
def test_a_batch_that_the_plan_does_not_take_is_refused(
    tmp_path: Path, batch: dict[str, Any]
) -> None:
    session = TrtEngine.open(build(tmp_path), "cuda", {})
    with pytest.raises(EngineError, match=r"expected"):
        session.run(batch)
    session.close()


@pytest.mark.usefixtures("here")
def test_axes_that_are_held_take_no_other_size(tmp_path: Path) -> None:
    plan = build(tmp_path)
    session = TrtEngine.open(plan, "cuda", {}, {"batch": 4})
    assert session.run(inputs(4))["y"].shape == (4, 4)
    with pytest.raises(EngineError, match="batch 4"):
        session.run(inputs(3))
    session.close()
    with pytest.raises(EngineError, match="1 to 8"):
        TrtEngine.open(plan, "cuda", {}, {"batch": 9})


@pytest.mark.usefixtures("here")
def test_an_output_whose_shape_depends_on_the_data_has_the_datas_shape(tmp_path: Path) -> None:
    spec = spec_of(outputs={"y": {"shape": ["batch", "found"]}})
    plan = build(tmp_path, columns(), spec)
    session = TrtEngine.open(plan, "cuda", {})
    for values in ([[1, 0, 2]], [[0, 0, 0]], [[1, 1, 1], [1, 0, 1]], [[0, 5, 0]]):
        x = np.array(values, np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], x[:, x.sum(0) != 0])
    session.close()
    session = TrtEngine.open(plan, "cuda", {"cuda_graphs": True})
    with pytest.raises(EngineError) as caught:
        session.run(inputs(1))
    assert caught.value.code == "engine_graph"
    session.close()


@pytest.mark.usefixtures("here")
def test_a_full_gpu_is_an_error_that_gives_everything_back(driver: Path, tmp_path: Path) -> None:
    plan = build(tmp_path)
    library = ctypes.CDLL(str(driver))
    session = TrtEngine.open(plan, "cuda", {})
    library.standin_fail_after(2)
    try:
        with pytest.raises(EngineError, match=r"CUDA: cuMemHostAlloc: out of memory \(2\)"):
            session.run(inputs(1))
    finally:
        library.standin_fail_after(-1)
    same(session.run(inputs(1))["y"], inputs(1))
    session.close()


@pytest.mark.usefixtures("here")
def test_a_file_that_tensorrt_does_not_take_is_told_in_its_words(tmp_path: Path) -> None:
    plan = build(tmp_path)
    plan.write_bytes(b"nothing")
    with pytest.raises(EngineError, match="TensorRT: the plan's magic tag does not match"):
        TrtEngine.open(plan, "cuda", {})
    plan.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        TrtEngine.open(plan, "cuda", {})


def test_a_foreign_plan_is_refused_before_tensorrt_sees_it(
    here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = build(tmp_path)
    monkeypatch.setenv("STANDIN_GPU", "Another GPU")
    monkeypatch.setattr(here, "Runtime", None)
    with pytest.raises(EngineError, match="found Another GPU") as caught:
        TrtEngine.open(plan, "cuda", {})
    assert "--target the_target" in caught.value.hint


def test_a_plan_with_a_runtime_inside_may_run_its_code(here: ModuleType, tmp_path: Path) -> None:
    plan = build(tmp_path, options={"version_compatible": True})
    vars(here)["__version__"] = "11.4.0.106"
    session = TrtEngine.open(plan, "cuda", {})
    same(session.run(inputs(2))["y"], inputs(2))
    session.close()


@pytest.mark.usefixtures("here")
def test_dtypes_that_are_not_the_specs_are_refused(tmp_path: Path) -> None:
    spec = spec_of(outputs={"y": {"shape": ["batch", 4], "dtype": "float64"}})
    with pytest.raises(EngineError, match=r"TensorRT has .*y: float32.*y: float64"):
        TrtEngine.open(build(tmp_path, None, spec), "cuda", {})


@pytest.mark.usefixtures("here")
def test_a_probe_builds_and_runs_and_gives_versions() -> None:
    found = TrtEngine.probe("cuda")
    assert (found["tensorrt"], found["gpu"]) == (BINDINGS["10"], "Stand-in GPU")


@pytest.mark.usefixtures("here")
def test_memory_is_kept_until_it_is_too_small() -> None:
    cuda = Cuda()
    memory = Memory(cuda)
    assert memory.fit(100)
    first = (memory.host, memory.device)
    assert not memory.fit(100)
    assert not memory.fit(0)
    assert (memory.host, memory.device) == first
    assert memory.fit(101)
    memory.free()
    memory.free()
    cuda.close()


# --- layers


def entry(key: str, *types: str, **more: Any) -> dict[str, Any]:
    """A layer as the inspector tells it at ProfilingVerbosity.DETAILED."""
    tensors = [
        {"Name": f"t{number}", "Location": "Device", "Dimensions": [-1, 64, 56, 56], key: kind}
        for number, kind in enumerate(types)
    ]
    return {
        "Name": "node_of_conv + relu",
        "LayerType": "CaskConvolution",
        "Inputs": tensors[:1],
        "Outputs": tensors[1:],
        "ParameterType": "Convolution",
        "Kernel": [3, 3],
        "Weights": {"Type": "Half", "Count": 36864},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc",
        "StreamId": 0,
        "Metadata": "[ONNX Layer: /conv/Conv]\u001e[ONNX Layer: /relu/Relu]",
        **more,
    }


TEN, ELEVEN = "Format/Datatype", "DataType"


@pytest.mark.parametrize(
    ("key", "kind", "precision"),
    [
        (TEN, "Half", "fp16"),
        (TEN, "Row major linear FP32", "fp32"),
        (TEN, "Channel major FP16 format where channel % 8 == 0", "fp16"),
        (TEN, "Thirty-two wide channel vectorized row major Int8 format", "int8"),
        (TEN, "Row major linear UInt8 format", "uint8"),
        (TEN, "Row major linear BFloat16", "bf16"),
        ("Format/DataType", "Float", "fp32"),
        (ELEVEN, "Half", "fp16"),
        (ELEVEN, "Float", "fp32"),
        (ELEVEN, "BFloat16", "bf16"),
        (ELEVEN, "FP8", "fp8"),
        (ELEVEN, "Float8", "fp8"),
        (ELEVEN, "Int64", "int64"),
        (ELEVEN, "N/A due to dynamic shapes", ""),
    ],
)
def test_a_layer_computes_in_the_type_of_its_first_input(
    key: str, kind: str, precision: str
) -> None:
    text = json.dumps({"Layers": [entry(key, kind, "Float")], "Bindings": []})
    (layer,) = parse_layers(text)
    assert (layer.name, layer.op) == ("/conv/Conv + /relu/Relu", "CaskConvolution")
    assert (layer.precision, layer.device, layer.place) == (precision, "cuda", "TensorRT")


def test_layers_without_metadata_keep_their_names_and_other_profiles_are_left_out() -> None:
    layers = [
        entry(TEN, "Half", "Half", Metadata="", Name="copy [profile 0]"),
        entry(TEN, "Half", "Half", Metadata="", Name="copy [profile 1]"),
        entry(TEN, Metadata="", Name="constant", LayerType="Constant"),
        "only a name",
    ]
    found = parse_layers(json.dumps({"Layers": layers, "I/O Tensors": []}))
    assert [layer.name for layer in found] == ["copy [profile 0]", "constant", "only a name"]
    assert [layer.precision for layer in found] == ["fp16", "", ""]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [1]}', '{"Layers": [{}]}'])
def test_an_answer_of_the_inspector_that_is_none_is_one_clear_error(text: str) -> None:
    with pytest.raises(EngineError) as caught:
        parse_layers(text)
    assert caught.value.code == "engine_layers"


@majors
def test_the_layers_of_a_plan_are_told_in_both_layouts(
    major: str, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, driver, major)
    found = TrtEngine.layers(build(tmp_path), "cuda", {})
    told = [(layer.name, layer.op, layer.precision) for layer in found]
    assert told == [("the_product", "MatMul", "fp32"), ("the_relu", "Relu", "fp32")]


# --- on a real TensorRT


@pytest.mark.tensorrt
def test_real_the_probe_runs() -> None:
    real()
    assert TrtEngine.probe("cuda")["tensorrt"]


@pytest.mark.tensorrt
@pytest.mark.parametrize("graphs", [False, True])
def test_real_every_batch_size_gives_numpys_numbers(tmp_path: Path, *, graphs: bool) -> None:
    real()
    session = TrtEngine.open(build(tmp_path), "cuda", {"cuda_graphs": graphs})
    for size in (1, 2, 8, 3, 1, 8, 8):
        batch = {"x": inputs(size)["x"] + np.float32(size)}
        same(session.run(batch)["y"], batch)
    session.close()
    session.close()


@pytest.mark.tensorrt
def test_real_an_output_whose_shape_depends_on_the_data(tmp_path: Path) -> None:
    real()
    spec = spec_of(outputs={"y": {"shape": ["batch", "found"]}})
    session = TrtEngine.open(build(tmp_path, columns(), spec), "cuda", {})
    for values in ([[1, 0, 2]], [[1, 1, 1], [1, 0, 1]], [[0, 5, 0]]):
        x = np.array(values, np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], x[:, x.sum(0) != 0])
    session.close()


@pytest.mark.tensorrt
def test_real_a_plan_of_another_machine_is_refused(tmp_path: Path) -> None:
    real()
    plan = build(tmp_path)
    file = plan.with_name("engine.plan.json")
    file.write_text(re.sub(r'"gpu": ".*"', '"gpu": "Another"', file.read_text()))
    with pytest.raises(EngineError) as caught:
        TrtEngine.open(plan, "cuda", {})
    assert caught.value.code == "plan_foreign"


@pytest.mark.tensorrt
def test_real_a_torn_plan_is_told_in_tensorrts_words(tmp_path: Path) -> None:
    real()
    plan = build(tmp_path)
    plan.write_bytes(b"nothing")
    with pytest.raises(EngineError, match="TensorRT: "):
        TrtEngine.open(plan, "cuda", {})


@pytest.mark.tensorrt
def test_real_layers_are_told_with_names_and_types(tmp_path: Path) -> None:
    real()
    layers = TrtEngine.layers(build(tmp_path), "cuda", {})
    assert any("the_product" in layer.name for layer in layers)
    assert "fp32" in {layer.precision for layer in layers}


@pytest.mark.usefixtures("here")
def test_pinned_memory_is_given_back_with_its_last_view() -> None:
    array = pinned(0, (4, 3), np.dtype(np.float32))
    array[...] = 7
    row = array[2]
    del array
    assert row.tolist() == [7, 7, 7]
    del row
    gc.collect()
