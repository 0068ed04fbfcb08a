"""Tiny graphs, and a conversion of one with its golden cases."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.compare import Tolerance, worst_gap
from compiler.precision import Converted, Request, convert
from runtime.tensors import Tensors
from specs.engines import Device, Precision
from specs.precision import Quantize

Nodes = Sequence[onnx.NodeProto]
Weights = dict[str, Any]
Shapes = dict[str, list[Any]]


def write_graph(
    file: Path, nodes: Nodes, weights: Weights, edges: tuple[Shapes, Shapes], opset: int = 18
) -> Path:
    """An ONNX file with float32 inputs and outputs."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in edges[0].items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in edges[1].items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = 8
    onnx.checker.check_model(proto, full_check=True)
    file.write_bytes(proto.SerializeToString())
    return file


def run_graph(file: Path, inputs: Tensors) -> Tensors:
    """What ONNX Runtime makes of a graph on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@dataclass
class Conversion:
    """One conversion, ready to be run and looked at."""

    graph: Path
    folder: Path
    items: list[Tensors]
    atol: float = 1e-2
    judged: list[float] = field(default_factory=list[float])
    result: Converted = field(default_factory=lambda: Converted(""))

    def run(self, precision: Precision, *, golden: bool = True, **parts: Any) -> Converted:
        self.folder.mkdir(exist_ok=True)
        engine: str = parts.pop("engine", "onnxruntime")
        device: Device = parts.pop("device", "cpu")
        request = Request(
            self.graph,
            self.folder,
            precision,
            engine,
            Quantize(**parts),
            lambda: iter(self.items),
            self.excess,
            self._golden if golden else None,
            device,
        )
        self.result = convert(request)
        return self.result

    def _golden(self) -> Iterator[Tensors]:
        return iter(self.items)

    def excess(self, file: Path) -> float:
        tolerance = Tolerance(self.atol, self.atol)
        gaps = [
            worst_gap(run_graph(file, item), run_graph(self.graph, item), tolerance).excess
            for item in self.items
        ]
        self.judged.append(max(gaps))
        return max(gaps)

    @property
    def file(self) -> Path:
        return self.folder / self.result.file

    @property
    def proto(self) -> onnx.ModelProto:
        return onnx.load(str(self.file))

    def mark(self, text: str) -> None:
        """Put a text where exporters leave their paths."""
        proto = onnx.load(str(self.graph))
        proto.producer_version = proto.graph.node[0].doc_string = text
        proto.metadata_props.add(key="source", value=text)
        onnx.save(proto, str(self.graph))

    def answer(self) -> Tensors:
        """What ONNX Runtime makes of the converted graph."""
        return run_graph(self.file, self.items[0])

    def ops(self) -> list[str]:
        return [node.op_type for node in self.proto.graph.node]

    def node(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.proto.graph.node if node.name == name)

    def dtype(self, value: str) -> int:
        """Element type of a value, as shape inference finds it."""
        graph = onnx.shape_inference.infer_shapes(self.proto).graph
        kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
        kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        return kinds[value]


Convert = Callable[..., Conversion]


@pytest.fixture
def conversion(tmp_path: Path) -> Convert:
    """``conversion(nodes, weights, inputs, outputs, items, opset)`` of a graph made of nodes."""

    def make(
        nodes: Nodes,
        weights: Weights,
        inputs: Shapes,
        outputs: Shapes,
        items: list[Tensors],
        **parts: Any,
    ) -> Conversion:
        opset = parts.pop("opset", 18)
        file = write_graph(tmp_path / "net.onnx", nodes, weights, (inputs, outputs), opset)
        return Conversion(file, tmp_path / "out", items, **parts)

    return make


@pytest.fixture
def overflow(conversion: Convert) -> Conversion:
    """Relu, times 1e4, divided by 1e4, MatMul: 100 becomes 1e6 in between."""
    node = helper.make_node
    return conversion(
        [
            node("Relu", ["x"], ["r"], name="relu"),
            node("Mul", ["r", "c"], ["a"], name="up"),
            node("Div", ["a", "c"], ["b"], name="down"),
            node("MatMul", ["b", "w"], ["y"], name="product"),
        ],
        {"c": np.float32(1e4), "w": np.eye(4, dtype=np.float32)},
        {"x": ["batch", 4]},
        {"y": ["batch", 4]},
        [{"x": np.array([[1, -2, 3, 100]], np.float32)}],
    )


@pytest.fixture
def small_net(conversion: Convert) -> Conversion:
    """Conv, Relu, Conv, GlobalAveragePool, Flatten, Gemm with weights of a fixed seed."""
    rng = np.random.default_rng(0)
    node = helper.make_node

    def weight(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    return conversion(
        [
            node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"], name="relu1"),
            node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["c2"], ["p"], name="pool"),
            node("Flatten", ["p"], ["f"], name="flatten"),
            node("Gemm", ["f", "w3", "b3"], ["y"], name="linear", transB=1),
        ],
        {
            "w1": weight(8, 3, 3, 3),
            "b1": weight(8, 1)[:, 0],
            "w2": weight(16, 8, 3, 3),
            "b2": weight(16, 1)[:, 0],
            "w3": weight(10, 16),
            "b3": weight(10, 1)[:, 0],
        },
        {"x": ["batch", 3, 8, 8]},
        {"y": ["batch", 10]},
        [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(4)],
    )
