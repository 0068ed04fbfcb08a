"""Small graphs in every precision, and targets to audit them as."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.precision import Request, convert
from runtime.tensors import Tensors
from specs.engines import Precision
from specs.precision import Quantize
from specs.schema import Spec

Weights = dict[str, "np.ndarray[Any, Any]"]

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "net",
    "model": {"onnx": "net.onnx"},
    "inputs": {"x": {"shape": ["batch", 4, 8, 8]}},
    "outputs": {"y": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
}


def weights_of_net() -> Weights:
    """Weights of the net below, the same each time."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (8, 4, 3, 3), "w1": (8, 8, 3, 3), "wg": (8, 3)}
    return {name: (0.2 * rng.standard_normal(s)).astype(np.float32) for name, s in shapes.items()}


def make_net(weights: Weights) -> onnx.ModelProto:
    """Two convolutions with a skip, a mean, a Reshape whose target comes from Shape, a Gemm."""
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "conv0", **pads),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w1"], ["c"], "conv1", **pads),
        helper.make_node("Add", ["c", "b"], ["d"], "add"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "mean"),
        helper.make_node("Shape", ["e"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "zero"], ["n"], "first"),
        helper.make_node("Concat", ["n", "rest"], ["t"], "target", axis=0),
        helper.make_node("Reshape", ["e", "t"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "wg"], ["y"], "head"),
    ]
    constants = {**weights, "zero": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto, str], Path]:
    """Save a graph under a name."""

    def run(proto: onnx.ModelProto, name: str) -> Path:
        onnx.checker.check_model(proto)
        file = tmp_path / f"{name}.onnx"
        onnx.save(proto, str(file))
        return file

    return run


@pytest.fixture
def weights() -> Weights:
    """The net's weights, to be changed at will."""
    return weights_of_net()


@pytest.fixture
def graph(save: Callable[[onnx.ModelProto, str], Path], weights: Weights) -> Path:
    """The net in fp32."""
    return save(make_net(weights), "fp32")


def _converted(graph: Path, folder: Path, precision: Precision) -> Path:
    rng = np.random.default_rng(1)
    items: list[Tensors] = [
        {"x": rng.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(4)
    ]
    request = Request(
        graph=graph,
        folder=folder,
        precision=precision,
        engine="onnxruntime",
        quantize=Quantize(),
        calibration=lambda: iter(items),
        excess=lambda _: 0.0,  # every node may be converted
    )
    return folder / convert(request).file


@pytest.fixture
def half_graph(graph: Path, tmp_path: Path) -> Path:
    """The net in fp16, with inputs and outputs in fp32."""
    return _converted(graph, tmp_path, "fp16")


@pytest.fixture
def brain_graph(graph: Path, tmp_path: Path) -> Path:
    """The net in bf16, with inputs and outputs in fp32."""
    return _converted(graph, tmp_path, "bf16")


@pytest.fixture
def quantized(graph: Path, tmp_path: Path) -> Path:
    """The net in int8, calibrated with random items."""
    return _converted(graph, tmp_path, "int8")


@pytest.fixture
def spec() -> Callable[..., Spec]:
    """The net's spec, with what ``verify`` is given."""

    def make(**verify: Any) -> Spec:
        return Spec.model_validate({**SPEC, "verify": verify})

    return make


@pytest.fixture
def wrong(
    save: Callable[[onnx.ModelProto, str], Path],
) -> Callable[..., Path]:
    """The net with one weight of a node planted wrong: ``wrong("w1", 1.5)``."""

    def make(name: str, value: float) -> Path:
        weights = weights_of_net()
        weights[name].flat[0] = value
        return save(make_net(weights), "wrong")

    return make
