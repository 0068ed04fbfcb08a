"""OpenVINO: the types that were asked for, and no input that it would quietly change."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# OpenVINO's and onnx's functions are typed in part.
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import runtime.engines.vino as module
from compiler.engines import BuildTarget, Job
from compiler.engines.vino import VinoBuilder
from runtime.engines.vino import VinoEngine
from runtime.tensors import Array
from specs.engines import Precision
from specs.errors import EngineError
from specs.schema import Spec

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

FLOAT, BF16, INT64 = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64
Ports = Mapping[str, tuple[list[Any], str]]
SHAPES: Ports = {"x": (["batch", 3, 8, 8], "float32")}
native_bf16 = pytest.mark.skipif(
    "BF16" not in VinoEngine.probe("cpu")["types"], reason="this CPU has no native bf16"
)


@dataclass(frozen=True)
class Graph:
    """Nodes and weights of a graph, with inputs as the spec gives them and outputs by type."""

    nodes: list[onnx.NodeProto]
    weights: Mapping[str, Array]
    outputs: Ports
    inputs: Ports

    def save(self, file: Path) -> None:
        """Write it as ONNX of opset 18."""

        def values(ports: Ports) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
                )
                for name, (shape, dtype) in ports.items()
            ]

        weights = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(
            self.nodes, "it", values(self.inputs), values(self.outputs), weights
        )
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), file)

    def spec(self) -> Spec:
        """The spec that fits, with a batch of 1 to 8."""
        ports = {
            kind: {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in of.items()}
            for kind, of in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        axes = {"batch": {"min": 1, "opt": 4, "max": 8}}
        data = {"version": 1, "name": "it", "model": {"onnx": "it.onnx"}, "dynamic_axes": axes}
        return Spec.model_validate({**data, **ports})


def _normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def convolutions() -> Graph:
    """Two convolutions, of which the second is grouped, and a product."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", group=4),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="pool"),
        helper.make_node("Flatten", ["d"], ["e"], name="flat"),
        helper.make_node("MatMul", ["e", "w3"], ["y"], name="product"),
    ]
    weights = {"w1": _normal(16, 3, 3, 3), "w2": _normal(16, 4, 3, 3), "w3": _normal(16, 5)}
    return Graph(nodes, weights, {"y": (["batch", 5], "float32")}, SHAPES)


def mixed() -> Graph:
    """A convolution in bf16 and one in fp32, which OpenVINO calls after its output."""
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], name="down", to=BF16),
        helper.make_node("Cast", ["w1"], ["w16"], name="weights", to=BF16),
        helper.make_node("Conv", ["x16", "w16"], ["a"], name="low"),
        helper.make_node("Cast", ["a"], ["b"], name="up", to=FLOAT),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="high"),
    ]
    weights = {"w1": _normal(16, 3, 3, 3), "w2": _normal(16, 16, 3, 3)}
    return Graph(nodes, weights, {"y": (["batch", 16, 4, 4], "float32")}, SHAPES)


def quantized() -> Graph:
    """A convolution between Q/DQ pairs."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z8"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z8"], ["xd"], name="dq"),
        helper.make_node("DequantizeLinear", ["w", "s", "zi"], ["wd"], name="weights"),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="conv"),
        helper.make_node("QuantizeLinear", ["c", "s4", "z8"], ["cq"], name="q2"),
        helper.make_node("DequantizeLinear", ["cq", "s4", "z8"], ["y"], name="dq2"),
    ]
    weights: dict[str, Array] = {
        "w": np.random.default_rng(0).integers(-127, 127, (16, 3, 3, 3)).astype(np.int8),
        "s": np.array(0.02, np.float32),
        "s4": np.array(0.2, np.float32),
        "z8": np.array(128, np.uint8),
        "zi": np.array(0, np.int8),
    }
    return Graph(nodes, weights, {"y": (["batch", 16, 6, 6], "float32")}, SHAPES)


def counting() -> Graph:
    """A sum of integers, a ReLU right on an input, and an input that goes straight out."""
    nodes = [
        helper.make_node("Add", ["n", "n"], ["twice"], name="add"),
        helper.make_node("Relu", ["f"], ["positive"], name="relu"),
        helper.make_node("Identity", ["f"], ["same"], name="same"),
    ]
    floats: tuple[list[Any], str] = (["batch", 3], "float32")
    outputs: Ports = {"twice": (["batch"], "int64"), "positive": floats, "same": floats}
    return Graph(nodes, {}, outputs, {"n": (["batch"], "int64"), "f": floats})


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Build the IR of a graph."""

    def run(graph: Graph, precision: Precision = "fp32") -> Path:
        graph.save(tmp_path / "it.onnx")
        (tmp_path / "out").mkdir()
        target = BuildTarget("it", "openvino", "cpu", precision)
        job = Job(tmp_path / "it.onnx", tmp_path / "out", target, graph.spec(), _none, tmp_path)
        return tmp_path / "out" / VinoBuilder.build(job).file

    return run


def _none() -> Any:
    raise AssertionError("OpenVINO builds from the graph")


def precisions(file: Path, **options: Any) -> dict[str, str]:
    """The type of every step that multiplies, by the name of its node."""
    layers = VinoEngine.layers(file, "cpu", options)
    return {layer.name: layer.precision for layer in layers if layer.cost}


# --- types


@native_bf16
def test_an_fp32_graph_stays_fp32_on_a_cpu_where_openvino_would_take_bf16(make: Make) -> None:
    file = make(convolutions())
    assert set(precisions(file).values()) == {"fp32"}
    assert set(precisions(file, execution_mode="performance").values()) == {"bf16"}


@native_bf16
def test_nodes_that_stay_in_fp32_do_so_in_a_bf16_graph(make: Make) -> None:
    found = precisions(make(mixed(), "bf16"))
    assert (found["low"], found["y"]) == ("bf16", "fp32")


def test_a_convolution_between_quantize_pairs_runs_in_int8(make: Make) -> None:
    assert precisions(make(quantized(), "int8")) == {"conv": "int8"}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_type_that_the_cpu_has_not_is_refused_not_computed_in_fp32(
    make: Make, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(module, "_types", lambda: ["FP32"])
    with pytest.raises(EngineError, match=f"no native {precision}.*it has FP32") as caught:
        make(convolutions(), precision)
    assert caught.value.code == "precision_missing"
    assert "precision: fp32" in caught.value.hint


def test_a_step_costs_its_multiply_accumulates_at_the_smallest_batch(make: Make) -> None:
    layers = VinoEngine.layers(make(convolutions()), "cpu", {})
    costs = {layer.cost for layer in layers if layer.cost}
    assert costs == {16 * 6 * 6 * 3 * 9, 16 * 4 * 4 * 4 * 9, 16 * 5}
    assert {(layer.device, layer.place) for layer in layers} == {("cpu", "CPU")}


def test_transposed_convolutions_and_recurrent_steps_are_counted(make: Make) -> None:
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["a"], name="up"),
        helper.make_node("Reshape", ["a", "to"], ["b"], name="reshape"),
        helper.make_node("LSTM", ["b", "wx", "wh"], ["", "y"], name="lstm", hidden_size=5),
    ]
    weights: dict[str, Array] = {
        "w": _normal(3, 2, 3, 3),
        "to": np.array([10, -1, 20]),
        "wx": _normal(1, 20, 20),
        "wh": _normal(1, 20, 5),
    }
    outputs = {"y": (["batch", "batch", 5], "float32")}
    graph = Graph(nodes, weights, outputs, SHAPES)
    layers = VinoEngine.layers(make(graph), "cpu", {})
    assert sum(layer.cost for layer in layers) == 3 * 64 * 2 * 9 + 10 * (20 * 20 + 20 * 5)


# --- what goes in and comes out


def test_a_session_held_at_one_size_takes_no_other(make: Make) -> None:
    file = make(convolutions())
    x = _normal(4, 3, 8, 8)
    free = VinoEngine.open(file, "cpu", {}).run({"x": x})["y"]
    held = VinoEngine.open(file, "cpu", {}, {"batch": 4})
    difference = held.run({"x": x})["y"].astype(np.float32) - free.astype(np.float32)
    assert np.abs(difference).max() < 1e-4
    with pytest.raises(EngineError, match=r"\[3, 3, 8, 8\], expected \[batch 4, 3, 8, 8\]"):
        held.run({"x": x[:3]})
    assert held.details()["inputs"] == "x [4,3,8,8]"


@pytest.mark.parametrize("sizes", [{"batch": 9}, {"width": 4}])
def test_an_axis_is_held_within_its_range_alone(make: Make, sizes: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="cannot hold"):
        VinoEngine.open(make(counting()), "cpu", {}, sizes)


def test_an_input_left_out_or_of_another_dtype_is_refused(make: Make) -> None:
    session = VinoEngine.open(make(counting()), "cpu", {})
    n, f = np.arange(2), _normal(2, 3)
    session.run({"n": n, "f": f})
    with pytest.raises(EngineError, match=r"found the inputs \['n'\], expected \['f', 'n'\]"):
        session.run({"n": n})
    with pytest.raises(EngineError, match="'f' is float64, expected float32"):
        session.run({"n": n, "f": f.astype(np.float64)})
    with pytest.raises(EngineError, match=r"'f' has shape \[3, 3\], expected \[batch 1..8, 3\]"):
        session.run({"n": n, "f": _normal(3, 3)})


def test_integers_beyond_int32_are_refused_since_openvino_cuts_them_off(make: Make) -> None:
    session = VinoEngine.open(make(counting()), "cpu", {})
    f = _normal(1, 3)
    found = session.run({"n": np.array([2**30 - 1]), "f": f})["twice"]
    assert (found.dtype, found.tolist()) == (np.int64, [2**31 - 2])
    for number in (2**31, -(2**40), -(2**63)):
        with pytest.raises(EngineError, match="beyond int32"):
            session.run({"n": np.array([number]), "f": f})


def test_inputs_are_left_as_they_are_and_outputs_are_the_callers_own(make: Make) -> None:
    session = VinoEngine.open(make(counting()), "cpu", {})
    n, f = np.arange(2), np.asfortranarray(-_normal(2, 3))
    f.flags.writeable = False
    first = session.run({"n": n, "f": f})
    kept = {name: array.copy() for name, array in first.items()}
    np.testing.assert_array_equal(kept["positive"], np.maximum(f, 0))
    np.testing.assert_array_equal(kept["same"], f)
    session.run({"n": n + 5, "f": f + 5})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert array.flags.writeable
        array[...] = np.zeros((), array.dtype)
    np.testing.assert_array_equal(session.run({"n": n, "f": f})["same"], f)


def test_a_closed_session_says_so(make: Make) -> None:
    session = VinoEngine.open(make(counting()), "cpu", {})
    session.close()
    for use in (session.details, lambda: session.run({})):
        with pytest.raises(EngineError) as caught:
            use()
        assert caught.value.code == "engine_closed"


# --- options, files, machines


def test_options_reach_openvino(make: Make) -> None:
    file = make(counting())
    options = {"num_streams": 2, "inference_num_threads": 2}
    details = VinoEngine.open(file, "cpu", options).details()
    assert (details["streams"], details["threads"]) == ("2", "2")
    assert (details["performance_hint"], details["execution_mode"]) == ("latency", "accuracy")
    assert details["inputs"] == "f [1..8,3], n [1..8]"
    other = {"performance_hint": "throughput", "inference_num_threads": 1}
    details = VinoEngine.open(file, "cpu", other).details()
    assert (details["performance_hint"], details["threads"]) == ("throughput", "1")


def test_a_file_that_is_no_ir_of_deployc_is_one_clear_error(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = make(convolutions())
    (tmp_path / "junk.xml").write_text("nothing")
    (tmp_path / "torn.xml").write_bytes(file.read_bytes()[:500])
    (tmp_path / "foreign.xml").write_text(file.read_text().replace("<deployc>", "<x>"))
    (tmp_path / "weightless.xml").write_bytes(file.read_bytes())
    for name in ("junk", "torn", "foreign", "weightless", "lost"):
        with pytest.raises(EngineError, match=rf"OpenVINO cannot load {name}\.xml: .") as caught:
            VinoEngine.open(tmp_path / f"{name}.xml", "cpu", {})
        assert caught.value.code == "engine_load"
        assert "src/" not in caught.value.message
    assert capfd.readouterr().err == ""


def test_a_probe_runs_and_tells_version_and_native_types() -> None:
    found = VinoEngine.probe("cpu")
    assert found["openvino"].split(".")[0].isdigit()
    assert "FP32" in found["types"]
    assert found["cpu"]


def test_another_device_than_the_cpu_is_refused(make: Make) -> None:
    file = make(counting())
    for use in (
        lambda: VinoEngine.probe("cuda"),
        lambda: VinoEngine.open(file, "cuda", {}),
        lambda: VinoEngine.layers(file, "cuda", {}),
    ):
        with pytest.raises(EngineError, match="runs on cpu, not on cuda"):
            use()


def test_where_openvino_is_not_installed_the_line_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(EngineError, match="openvino is not installed") as caught:
        VinoEngine.probe("cpu")
    assert (caught.value.hint, caught.value.code) == ("pip install openvino", "engine_missing")
