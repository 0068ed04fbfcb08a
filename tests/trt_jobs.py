"""Jobs for TensorRT's builder, the stand-ins put in place, and the smallest real session."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.engines import BuildTarget, Job
from compiler.engines.trt import TrtBuilder
from runtime.engines import _cuda
from runtime.engines.trt import TrtEngine
from specs.errors import EngineError
from specs.schema import Spec
from tests.trt_bindings import BINDINGS

__all__ = ["WEIGHT", "affine", "build", "columns", "install", "job_of", "quantized", "real"]
__all__ += ["spec_of"]

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 10
"""The matrix of ``affine``."""


def affine(kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """``y = relu(x @ WEIGHT)``: float32 [batch, 3] to [batch, 4], computed in ``kind``."""
    low = kind != TensorProto.FLOAT
    name = {False: ("x", "z"), True: ("x_low", "y_low")}[low]
    nodes = [
        helper.make_node("MatMul", [name[0], "w"], ["product"], name="the_product"),
        helper.make_node("Relu", ["product"], [name[1] if low else "y"], name="the_relu"),
    ]
    if low:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["x_low"], name="down", to=kind))
        nodes += [helper.make_node("Cast", ["y_low"], ["y"], name="up", to=TensorProto.FLOAT)]
    weight = helper.make_tensor("w", kind, WEIGHT.shape, WEIGHT.ravel().tolist())
    return _model(nodes, [3], [4], [weight])


def columns() -> onnx.ModelProto:
    """The columns of x whose sum is not 0: [batch, 3] to [batch, as many as the data say]."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "zero"], ["sums"], name="the_sums", keepdims=0),
        helper.make_node("NonZero", ["sums"], ["places"], name="the_places"),
        helper.make_node("Squeeze", ["places", "zero"], ["flat"], name="the_flat"),
        helper.make_node("Gather", ["x", "flat"], ["y"], name="the_columns", axis=1),
    ]
    model = _model(nodes, [3], [4], [numpy_helper.from_array(np.array([0]), "zero")])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "found"])
    model.graph.output[0].CopyFrom(output)
    return model


def quantized(zero: int = 0) -> onnx.ModelProto:
    """``affine`` on an input that goes through Q/DQ."""
    model = affine()
    extra = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="dq"),
    ]
    model.graph.node[0].input[0] = "dq"
    nodes = [*extra, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    model.graph.initializer.extend(
        [scale, numpy_helper.from_array(np.array(zero, np.int8), "zero")]
    )
    return model


def _model(
    nodes: list[onnx.NodeProto],
    inner: list[int],
    outer: list[int],
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *outer])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def spec_of(**changes: Any) -> Spec:
    """The spec of ``affine``, batch 1 to 8, best at 2."""
    fields: dict[str, Any] = {
        "version": 1,
        "name": "small",
        "model": {"onnx": "small.onnx"},
        "inputs": {"x": {"shape": ["batch", 3]}},
        "outputs": {"y": {"shape": ["batch", 4]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 8}},
    }
    return Spec.model_validate({**fields, **changes})


def job_of(
    folder: Path, model: onnx.ModelProto | None = None, spec: Spec | None = None, **target: Any
) -> Job:
    """A job in a folder of its own; its kept files lie in ``folder/keep``."""
    place = folder / "variants" / target.pop("name", "the_target")
    keep = folder / "keep"
    place.mkdir(parents=True, exist_ok=True)
    keep.mkdir(exist_ok=True)
    graph = folder / "small.onnx"
    onnx.save(model or affine(), graph)
    asked = BuildTarget(name="the_target", engine="tensorrt", device="cuda", **target)

    def no_source() -> Any:
        raise AssertionError("TensorRT builds from the graph")

    return Job(graph, place, asked, spec or spec_of(), no_source, keep)


def build(folder: Path, *args: Any, **target: Any) -> Path:
    """Build a plan; where it lies."""
    job = job_of(folder, *args, **target)
    return job.folder / TrtBuilder.build(job).file


def install(monkeypatch: pytest.MonkeyPatch, driver: Path, major: str = "10") -> ModuleType:
    """Put the stand-ins of TensorRT and of the driver in the places of the real ones."""
    file = Path(__file__).with_name("standin_tensorrt.py")
    found = importlib.util.spec_from_file_location("tensorrt", file)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    found.loader.exec_module(module)
    vars(module).update(__version__=BINDINGS[major], DRIVER=str(driver))
    monkeypatch.setattr(_cuda, "DRIVER", str(driver))
    return module


def real() -> None:
    """Skip where there is no TensorRT with a GPU, with the reason."""
    try:
        TrtEngine.probe("cuda")
    except EngineError as error:
        if error.code not in {"engine_missing", "provider_missing", "device_missing"}:
            raise
        pytest.skip(f"{error.message}: {error.hint}")
