"""Small graphs for the tests of ONNX Runtime, and sessions of them."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from typing import Any

import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper

from runtime.engines._ort_options import OrtOptions
from runtime.engines._ort_session import Opening, open_session

__all__ = ["FLOAT", "INT64", "Value", "opened", "proto"]

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Value = tuple[str, int, list[Any]]
"""Name, type and shape of an input or output."""


def proto(nodes: list[NodeProto], inputs: list[Value], outputs: list[Value]) -> ModelProto:
    """A graph of opset 13."""
    graph = helper.make_graph(
        nodes,
        "it",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def opened(model: ModelProto | bytes, **options: Any) -> ort.InferenceSession:
    """A session on the CPU."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return open_session(Opening(content, "cpu", OrtOptions.model_validate(options)))
