"""OpenVINO's IR: what the graph says, nothing less, and the same bytes each time."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# OpenVINO's and onnx's functions are typed in part.
from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.engines import BuildTarget, Built, Job
from compiler.engines.vino import VinoBuilder
from runtime.engines.vino import VinoEngine
from specs.engines import Precision
from specs.errors import EngineError
from specs.schema import Spec

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

TARGET = BuildTarget("it", "openvino")
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "it",
    "model": {"onnx": "it.onnx"},
    "inputs": {"x": {"shape": ["batch", 3, 8, "width"]}},
    "outputs": {"y": {"shape": ["batch", 4]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}, "width": {"min": 8, "max": 16}},
}
Build = Callable[..., Path]


def save(file: Path, nodes: list[onnx.NodeProto], opsets: dict[str, int] | None = None) -> Path:
    """A graph from x [batch, 3, 8, width] to y, with weights w [4, 3, 3, 3]."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "it",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    ids = [helper.make_opsetid(name, number) for name, number in (opsets or {"": 18}).items()]
    onnx.save(helper.make_model(graph, opset_imports=ids, ir_version=10), file)
    return file


def branch(name: str, op: str) -> onnx.GraphProto:
    """One side of an If, of nodes without names."""
    nodes = [helper.make_node(op, ["p"], ["q"]), helper.make_node("Softmax", ["q"], [name])]
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
    )


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A convolution and a mean, in nodes that partly have no names, and a branch."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="convolution"),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("ReduceMax", ["b"], ["top"], keepdims=0),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Less", ["half", "top"], ["high"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["p"], name="flat"),
        helper.make_node(
            "If", ["high"], ["y"], then_branch=branch("t", "Exp"), else_branch=branch("e", "Tanh")
        ),
    ]
    return save(tmp_path / "it.onnx", nodes)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a graph into a folder; gives the IR."""

    def run(graph: Path, name: str = "out", precision: Precision = "fp32") -> Path:
        (tmp_path / name).mkdir()
        target = BuildTarget("it", "openvino", "cpu", precision)
        spec = Spec.model_validate(SPEC)
        built = VinoBuilder.build(Job(graph, tmp_path / name, target, spec, _none, tmp_path))
        assert built == Built("model.xml")
        return tmp_path / name / built.file

    return run


def _none() -> Any:
    raise AssertionError("OpenVINO builds from the graph")


def test_the_ir_has_the_same_bytes_each_time_and_nothing_of_the_place(
    graph: Path, build: Build, tmp_path: Path
) -> None:
    first, second = build(graph, "one"), build(graph, "two")
    assert {path.name for path in first.parent.iterdir()} == {"model.xml", "model.bin"}
    for name in ("model.xml", "model.bin"):
        content = (first.parent / name).read_bytes()
        assert content == (second.parent / name).read_bytes()
        assert str(tmp_path).encode() not in content


def test_the_ir_keeps_names_and_the_range_of_every_axis(graph: Path, build: Build) -> None:
    import openvino as ov

    model = ov.Core().read_model(build(graph))
    assert [port.get_names() for port in model.inputs] == [{"x"}]
    assert [port.get_names() for port in model.outputs] == [{"y"}]
    assert str(model.input("x").get_partial_shape()) == "[1..8,3,8,8..16]"
    nodes = {op.get_friendly_name() for op in model.get_ordered_ops()}
    assert {"convolution", "pool", "flat", "w"} <= nodes


def test_weights_stay_fp32_where_openvino_would_store_fp16(graph: Path, build: Build) -> None:
    import openvino as ov

    model = ov.Core().read_model(build(graph))
    types = {
        str(op.get_output_element_type(0))
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant" and op.get_friendly_name() == "w"
    }
    assert types == {"<Type: 'float32'>"}


def test_a_session_of_the_ir_answers_as_the_graph(graph: Path, build: Build) -> None:
    import onnxruntime as ort

    session = VinoEngine.open(build(graph), "cpu", {})
    reference = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    for batch, width in ((1, 8), (3, 11), (8, 16)):
        shape = (batch, 3, 8, width)
        x = np.random.default_rng(batch).standard_normal(shape).astype(np.float32)
        found = session.run({"x": x})["y"].astype(np.float32)
        expected = reference.run(["y"], {"x": x})[0].astype(np.float32)
        assert np.abs(found - expected).max() < 1e-5


def test_a_graph_whose_names_are_not_the_specs_is_refused(build: Build, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    file = save(tmp_path / "it.onnx", nodes)
    proto = onnx.load(file)
    proto.graph.output[0].name = proto.graph.node[0].output[0] = "z"
    onnx.save(proto, file)
    with pytest.raises(EngineError, match=r"OpenVINO lost y of it\.onnx; it has x, z"):
        build(file)


def test_a_shape_that_the_graph_does_not_take_is_refused(build: Build, tmp_path: Path) -> None:
    nodes = [  # adds [4, 3, 3, 3] to [batch, 3, 1, 8..16]
        helper.make_node("Constant", [], ["height"], value_ints=[2]),
        helper.make_node("ReduceMax", ["x", "height"], ["row"]),
        helper.make_node("Add", ["row", "w"], ["y"]),
    ]
    with pytest.raises(EngineError) as caught:
        build(save(tmp_path / "it.onnx", nodes))
    assert caught.value.code == "engine_load"
    assert "src/" not in caught.value.message


@pytest.mark.parametrize(
    ("op", "domain", "expected"), [("Det", "", "Det"), ("Wave", "my.own", "my.own.Wave")]
)
def test_an_operator_that_openvino_has_not_is_named(
    build: Build, tmp_path: Path, op: str, domain: str, expected: str
) -> None:
    nodes = [
        helper.make_node(op, ["x"], ["a"], domain=domain),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    opsets = {"": 18, domain: 1} if domain else {"": 18}
    file = save(tmp_path / "it.onnx", nodes, opsets)
    assert VinoBuilder.unsupported(file, TARGET) == (expected,)
    with pytest.raises(EngineError, match=f"cannot take it.onnx: it has no {expected}") as caught:
        build(file)
    assert "onnxruntime" in caught.value.hint


def test_what_openvino_knows_is_told_before_any_build(graph: Path) -> None:
    assert VinoBuilder.unsupported(graph, TARGET) == ()


def test_without_openvino_only_a_build_can_tell(
    graph: Path, monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    assert VinoBuilder.unsupported(graph, TARGET) is None
    with pytest.raises(EngineError, match="openvino is not installed"):
        build(graph)


def test_a_file_that_is_no_graph_is_one_clear_error(tmp_path: Path, build: Build) -> None:
    (tmp_path / "it.onnx").write_bytes(b"nothing")
    for use in (build, _unsupported):
        with pytest.raises(EngineError, match=r"OpenVINO cannot take it\.onnx: ."):
            use(tmp_path / "it.onnx")


def _unsupported(graph: Path) -> tuple[str, ...] | None:
    return VinoBuilder.unsupported(graph, TARGET)


def test_building_sends_no_telemetry(
    graph: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openvino.tools.ovc import telemetry_utils

    class Telemetry:
        def __init__(self, **_about: object) -> None:
            raise AssertionError("a build must not talk to anyone")

    monkeypatch.setattr(telemetry_utils.tm, "Telemetry", Telemetry)
    assert build(graph).is_file()
