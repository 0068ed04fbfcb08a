"""From an op's nodes, plain data, to an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from specs.ops._graph import ELEMENT_TYPES, Graph, Node
from specs.values import Dim

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

__all__ = ["TensorType", "graph_of", "model_of", "onnx_nodes", "type_of", "typed_outputs"]

TensorType = tuple[str, tuple[Dim | None, ...]]
"""A dtype (numpy's name) and a shape; None for a size that is not known."""

IR_VERSION = 8
"""The oldest IR that holds opset 18, so that every engine reads it."""


def onnx_nodes(nodes: Iterable[Node]) -> list[NodeProto]:
    """ONNX's own nodes; each is named after its first output."""
    from onnx import helper

    return [
        helper.make_node(n.op, n.inputs, n.outputs, name=n.outputs[0], **n.attributes)
        for n in nodes
    ]


def graph_of(
    graph: Graph, inputs: Mapping[str, TensorType], outputs: Sequence[tuple[str, TensorType]]
) -> GraphProto:
    """The whole of ``graph``, from ``inputs`` to ``outputs``."""
    from onnx import helper, numpy_helper

    return helper.make_graph(
        onnx_nodes(graph.nodes),
        "processing",
        [helper.make_tensor_value_info(n, ELEMENT_TYPES[t], s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, ELEMENT_TYPES[t], s) for n, (t, s) in outputs],
        [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )


def typed_outputs(
    graph: Graph, inputs: Mapping[str, TensorType], names: Sequence[str]
) -> list[tuple[str, TensorType]]:
    """The types of some tensors of ``graph``, as ONNX infers them.

    Raises:
        ValueError: a type cannot be inferred: a node is not as ONNX defines it.
    """
    import onnx
    from onnx import helper

    proto = helper.make_model(
        graph_of(graph, inputs, []), opset_imports=[helper.make_opsetid("", graph.opset)]
    )
    inferred = onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True
    )
    known = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.input)}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"no type is known of {', '.join(missing)}")
    return [(name, type_of(known[name])) for name in names]


def type_of(info: ValueInfoProto) -> TensorType:
    """The dtype and shape that ONNX tells of a tensor."""
    tensor = info.type.tensor_type
    dtypes = {number: dtype for dtype, number in ELEMENT_TYPES.items()}
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    )
    return dtypes[tensor.elem_type], dims


def model_of(
    graph: Graph, inputs: Mapping[str, TensorType], outputs: Sequence[tuple[str, TensorType]]
) -> ModelProto:
    """A model of ``graph`` alone, checked by ONNX.

    Args:
        graph: the nodes.
        inputs: types of its inputs.
        outputs: names and types of the tensors that it gives.
    """
    import onnx
    from onnx import helper

    proto = helper.make_model(
        graph_of(graph, inputs, outputs),
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=IR_VERSION,
        producer_name="deployc",
    )
    onnx.checker.check_model(proto, full_check=True)  # pyright: ignore[reportUnknownMemberType]
    return proto
