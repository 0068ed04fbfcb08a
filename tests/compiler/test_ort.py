"""What is built for ONNX Runtime, and what it really computes in."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compiler.engines import BuildTarget, Built, Job, get_builder
from compiler.engines.ort import OrtBuilder
from runtime.engines import Layer
from runtime.engines._ort_built import BuiltFile, cpu_kind
from runtime.engines.ort import OrtEngine
from runtime.tensors import Array
from specs.errors import EngineError
from specs.schema import Spec

FLOAT = TensorProto.FLOAT
Values = list[Any]

SPEC = Spec.model_validate(
    {
        "version": 1,
        "name": "net",
        "model": {"onnx": "net.onnx"},
        "inputs": {"x": {"shape": ["batch", 3, 8, 8]}},
        "outputs": {"y": {"shape": ["batch", 5]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}},
    }
)


def target(device: Any = "cpu", precision: Any = "fp32", **options: Any) -> BuildTarget:
    return BuildTarget("it", "onnxruntime", device, precision, options)


def write(
    file: Path,
    nodes: list[NodeProto],
    values: tuple[Values, Values],
    weights: dict[str, Array] | None = None,
    *,
    external: bool = False,
) -> Path:
    """Write a graph of opset 18.

    Args:
        file: where to.
        nodes: in order.
        values: inputs and outputs, each as name, type and shape.
        weights: by name.
        external: into a file beside it.
    """
    inputs, outputs = ([helper.make_tensor_value_info(*item) for item in part] for part in values)
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(
        model,
        str(file),
        save_as_external_data=external,
        location=f"{file.name}.data",
        size_threshold=0,
    )
    return file


def net(file: Path, dtype: type[Any] = np.float32, batch: int | str = "batch", **how: Any) -> Path:
    """Conv (3 -> 8 channels, 3 x 3 of 8 x 8), Relu, MatMul (288 -> 5)."""
    rng = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return write(
        file,
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Flatten", ["r"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "v"], ["y"], name="product"),
        ],
        ([("x", kind, [batch, 3, 8, 8])], [("y", kind, [batch, 5])]),
        {
            "w": rng.standard_normal((8, 3, 3, 3)).astype(dtype),
            "b": rng.standard_normal(8).astype(dtype),
            "v": rng.standard_normal((288, 5)).astype(dtype),
        },
        **how,
    )


CONV_COST, PRODUCT_COST = 6 * 6 * 8 * 27, 288 * 5


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., tuple[Path, Built]]:
    """Build a graph for a target: the folder, and what the builder says of it."""

    def run(graph: Path, asked: BuildTarget, name: str = "out") -> tuple[Path, Built]:
        def model() -> Any:
            raise AssertionError("the graph is enough")

        for folder in (name, "keep"):
            (tmp_path / folder).mkdir(exist_ok=True)
        job = Job(graph, tmp_path / name, asked, SPEC, model, tmp_path / "keep")
        return tmp_path / name, OrtBuilder.build(job)

    return run


Build = Callable[..., tuple[Path, Built]]


def answer(file: Path, **options: Any) -> Array:
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    return OrtEngine.open(file, "cpu", options).run({"x": x})["y"]


def op_types(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(file), load_external_data=False).graph.node]


# --- building


def test_without_an_option_for_it_there_is_no_file_to_build(tmp_path: Path, build: Build) -> None:
    folder, built = build(net(tmp_path / "net.onnx"), target())
    assert (built, list(folder.iterdir())) == (Built(), [])


@pytest.mark.parametrize("level", ["basic", "extended", "layout", "all"])
def test_a_graph_optimised_offline_answers_as_one_optimised_when_loaded(
    tmp_path: Path, build: Build, level: str
) -> None:
    graph = net(tmp_path / "net.onnx")
    folder, built = build(graph, target(offline=True, optimization=level))
    assert built.file == "optimized.onnx"
    assert sorted(path.name for path in folder.iterdir()) == [built.file, f"{built.file}.json"]
    expected = answer(graph, optimization=level)
    found = answer(folder / built.file, offline=True, optimization=level)
    np.testing.assert_array_equal(found, expected)


def test_what_is_saved_is_what_the_level_makes_of_the_graph(tmp_path: Path, build: Build) -> None:
    graph = net(tmp_path / "net.onnx")
    for level, first in (("basic", "Conv"), ("extended", "FusedConv")):
        asked = target(offline=True, optimization=level)
        folder, built = build(graph, asked, level)
        assert op_types(folder / built.file)[0] == first


@pytest.mark.parametrize("level", ["basic", "extended", "layout", "all"])
def test_only_a_file_that_holds_this_cpus_layout_is_bound_to_its_kind(
    tmp_path: Path, build: Build, level: str
) -> None:
    asked = target(offline=True, optimization=level)
    folder, built = build(net(tmp_path / "net.onnx"), asked)
    told = json.loads((folder / f"{built.file}.json").read_text())
    bound = level in {"layout", "all"}
    assert told.get("cpu") == (cpu_kind() if bound else None)
    assert OrtBuilder.fingerprint(asked).get("cpu") == (cpu_kind() if bound else None)
    assert bool(built.notes) is bound
    assert "cpu" not in OrtBuilder.fingerprint(target(optimization=level))


def test_two_offline_builds_are_the_same_byte_for_byte(tmp_path: Path, build: Build) -> None:
    graph, asked = net(tmp_path / "net.onnx"), target(offline=True)
    (one, built), (other, _) = build(graph, asked, "one"), build(graph, asked, "other")
    assert (one / built.file).read_bytes() == (other / built.file).read_bytes()


def test_weights_beside_the_graph_lie_beside_the_optimised_one_and_move_with_it(
    tmp_path: Path, build: Build
) -> None:
    (tmp_path / "in").mkdir()
    graph = net(tmp_path / "in" / "net.onnx", external=True)
    expected = answer(graph)
    folder, built = build(graph, target(offline=True))
    shutil.rmtree(tmp_path / "in")
    moved = folder.rename(tmp_path / "moved")
    assert (moved / f"{built.file}.data").stat().st_size > 0
    np.testing.assert_array_equal(answer(moved / built.file, offline=True), expected)


def test_options_that_are_none_fail_the_build_but_not_the_fingerprint(
    tmp_path: Path, build: Build
) -> None:
    asked = target(optimisation="all")
    assert OrtBuilder.fingerprint(asked) == OrtBuilder.fingerprint(target())
    with pytest.raises(EngineError, match="optimisation"):
        build(net(tmp_path / "net.onnx"), asked)


def test_a_gpus_results_are_keyed_by_gpu_driver_and_tensorrt() -> None:
    assert {"gpu", "driver"} <= OrtBuilder.fingerprint(target("cuda")).keys()
    assert "tensorrt" not in OrtBuilder.fingerprint(target("cuda"))
    assert "tensorrt" in OrtBuilder.fingerprint(target("cuda", tensorrt={}))


@cache
def _runs_on_a_gpu() -> bool:
    try:
        OrtEngine.probe("cuda")
    except EngineError:
        return False
    return True


@pytest.mark.skipif(_runs_on_a_gpu(), reason="this machine has a GPU")
@pytest.mark.parametrize("options", [{}, {"offline": True}, {"tensorrt": {}}])
def test_a_build_for_a_gpu_that_is_not_there_names_what_is_missing_and_writes_nothing(
    tmp_path: Path, build: Build, options: dict[str, Any]
) -> None:
    with pytest.raises(EngineError, match="is missing") as caught:
        build(net(tmp_path / "net.onnx"), target("cuda", **options))
    assert "install" in caught.value.hint
    assert not list((tmp_path / "out").iterdir())


# --- what it computes in


def by_op(file: Path, asked: BuildTarget) -> dict[str, Layer]:
    return {layer.op: layer for layer in OrtBuilder.layers(file, asked)}


def test_layers_tell_op_place_type_and_cost_of_what_the_optimiser_made(tmp_path: Path) -> None:
    found = by_op(net(tmp_path / "net.onnx"), target(optimization="extended"))
    assert set(found) == {"FusedConv", "Flatten", "MatMul"}
    assert found["FusedConv"].cost == CONV_COST
    product = Layer("product", "MatMul", "cpu", "CPUExecutionProvider", "fp32", PRODUCT_COST)
    assert found["MatMul"] == product


def test_fp16_on_the_cpu_is_seen_to_be_computed_in_fp32(tmp_path: Path) -> None:
    asked = target(precision="fp16", optimization="extended")
    found = OrtBuilder.layers(net(tmp_path / "net.onnx", np.float16), asked)
    costly = {layer.op: layer.precision for layer in found if layer.cost}
    assert costly == {"Conv": "fp32", "MatMul": "fp32"}
    assert "Cast" in {layer.op for layer in found}


def test_costs_are_of_one_item_whatever_the_batch(tmp_path: Path) -> None:
    asked = target(optimization="disabled")
    for batch in (4, "batch"):
        found = by_op(net(tmp_path / "net.onnx", batch=batch), asked)
        assert (found["Conv"].cost, found["MatMul"].cost) == (CONV_COST, PRODUCT_COST)


def test_layers_of_a_graph_whose_weights_lie_beside_it_are_the_same(tmp_path: Path) -> None:
    inside = OrtBuilder.layers(net(tmp_path / "net.onnx"), target())
    assert OrtBuilder.layers(net(tmp_path / "ext.onnx", external=True), target()) == inside


def test_layers_of_what_was_optimised_offline_are_those_of_the_optimised_graph(
    tmp_path: Path, build: Build
) -> None:
    graph, asked = net(tmp_path / "net.onnx"), target(offline=True, optimization="extended")
    folder, built = build(graph, asked)
    found = [(layer.op, layer.cost) for layer in OrtBuilder.layers(folder / built.file, asked)]
    assert found == [(layer.op, layer.cost) for layer in OrtBuilder.layers(graph, asked)]


def test_layers_of_a_file_that_is_loaded_without_optimising_are_its_own(tmp_path: Path) -> None:
    graph = net(tmp_path / "net.onnx")
    BuiltFile(onnxruntime="1", optimized=True).write(graph)
    assert "FusedConv" not in by_op(graph, target(offline=True, optimization="extended"))


def quantized(file: Path) -> Path:
    """A convolution between quantize and dequantize, and one that stays in fp32."""
    rng = np.random.default_rng(0)
    quantize = ("QuantizeLinear", "DequantizeLinear")
    x, xq = [
        helper.make_node(op, [source, "s", "z"], [result])
        for op, source, result in zip(quantize, ("x", "xq"), ("xq", "xd"), strict=True)
    ]
    y, yq = [
        helper.make_node(op, [source, "s", "z"], [result])
        for op, source, result in zip(quantize, ("c", "cq"), ("cq", "cd"), strict=True)
    ]
    weight = helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"])
    nodes = [
        x,
        xq,
        weight,
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="narrow"),
        y,
        yq,
        helper.make_node("Conv", ["cd", "v"], ["y"], name="wide"),
    ]
    weights: dict[str, Array] = {
        "w": rng.integers(-9, 9, (8, 3, 3, 3)).astype(np.int8),
        "v": rng.standard_normal((4, 8, 1, 1)).astype(np.float32),
        "s": np.array(0.1, np.float32),
        "z": np.array(128, np.uint8),
        "wz": np.array(0, np.int8),
    }
    values: tuple[Values, Values] = (
        [("x", FLOAT, ["batch", 3, 8, 8])],
        [("y", FLOAT, ["batch", 4, 6, 6])],
    )
    return write(file, nodes, values, weights)


def test_int8_is_told_where_integers_are_multiplied_and_nowhere_else(tmp_path: Path) -> None:
    asked = target(precision="int8", optimization="extended")
    found = OrtBuilder.layers(quantized(tmp_path / "q.onnx"), asked)
    costly = [(layer.op, layer.precision, layer.cost) for layer in found if layer.cost]
    assert costly == [("QLinearConv", "int8", CONV_COST), ("Conv", "fp32", 6 * 6 * 4 * 8)]


def test_pairs_that_the_optimiser_did_not_fuse_are_seen_to_be_computed_in_fp32(
    tmp_path: Path,
) -> None:
    asked = target(precision="int8", optimization="disabled")
    found = OrtBuilder.layers(quantized(tmp_path / "q.onnx"), asked)
    assert {layer.precision for layer in found if layer.cost} == {"fp32"}


def test_nodes_in_the_bodies_of_if_are_layers_too(tmp_path: Path) -> None:
    def body(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("o", FLOAT, ["batch", 2])
        return helper.make_graph([helper.make_node(op, ["x"], ["o"], name=op)], op, [], [out])

    bodies: dict[str, Any] = {"then_branch": body("Exp"), "else_branch": body("Sin")}
    choose = helper.make_node("If", ["c"], ["y"], name="choose", **bodies)
    inputs: Values = [("c", TensorProto.BOOL, []), ("x", FLOAT, ["batch", 2])]
    values: tuple[Values, Values] = (inputs, [("y", FLOAT, ["batch", 2])])
    file = write(tmp_path / "if.onnx", [choose], values)
    assert {"If", "Exp", "Sin"} <= set(by_op(file, target(optimization="disabled")))


def test_a_builder_without_layers_of_its_own_asks_the_engine(tmp_path: Path) -> None:
    file = net(tmp_path / "net.onnx")
    found = super(OrtBuilder, OrtBuilder).layers(file, target())
    assert found == OrtEngine.layers(file, "cpu", {})
    assert get_builder("onnxruntime") is OrtBuilder


# --- on a GPU


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(not _runs_on_a_gpu(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("options", [{}, {"cuda": {"enable_cuda_graph": True}}, {"tensorrt": {}}])
def test_resnet50_builds_for_a_gpu_and_keeps_parity(
    build_spec: Callable[..., Any], precision: str, options: dict[str, Any]
) -> None:
    if "tensorrt" in options:
        try:
            OrtEngine.open(Path("none.onnx"), "cuda", options)
        except EngineError as error:
            if error.code == "provider_missing":
                pytest.skip(error.message)
    asked = {
        "engine": "onnxruntime",
        "device": "cuda",
        "precision": precision,
        "options": options,
    }
    build_spec(
        {
            "version": 1,
            "name": "resnet50",
            "model": {"torchvision": "resnet50"},
            "weights": {"random": {"seed": 0}},
            "inputs": {"input": {"shape": ["batch", 3, 224, 224]}},
            "outputs": {"output": {"shape": ["batch", 1000]}},
            "dynamic_axes": {"batch": {"min": 1, "opt": 8, "max": 32}},
            "targets": [asked],
        }
    )
