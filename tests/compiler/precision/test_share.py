"""Which share of a graph's computation is in which type."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compiler.precision._graphs import prepared
from compiler.precision._narrow import narrow
from compiler.precision.share import compute_shares, node_costs
from specs.errors import ExportError

node = helper.make_node
CONV1, CONV2, LINEAR = 8 * 8 * 8 * 27, 16 * 8 * 8 * 72, 160


def test_the_cost_of_a_node_is_its_multiply_accumulates(small_net: Any) -> None:
    costs = node_costs(small_net.graph, {"batch": 1})
    assert costs == {
        "conv1": ("fp32", CONV1),
        "conv2": ("fp32", CONV2),
        "linear": ("fp32", LINEAR),
    }


def test_a_dynamic_axis_counts_with_its_size_and_1_without(small_net: Any) -> None:
    one = node_costs(small_net.graph, {})["conv1"][1]
    assert node_costs(small_net.graph, {"batch": 4})["conv1"][1] == 4 * one == 4 * CONV1


def test_kept_nodes_and_converted_ones_share_by_their_cost(small_net: Any) -> None:
    small_net.run("fp16")
    assert compute_shares(small_net.file, {}) == {"fp16": 1.0}
    whole = CONV1 + CONV2 + LINEAR
    kept = narrow(prepared(small_net.graph), onnx.TensorProto.FLOAT16, {"conv1"}).proto
    small_net.file.write_bytes(kept.SerializeToString())
    shares = compute_shares(small_net.file, {})
    assert shares == pytest.approx({"fp16": (CONV2 + LINEAR) / whole, "fp32": CONV1 / whole})


def test_a_product_between_dequantized_operands_is_int8(small_net: Any) -> None:
    small_net.run("int8", exclude=["conv2"])
    costs = node_costs(small_net.file, {})
    assert {name: precision for name, (precision, _) in costs.items()} == {
        "conv1": "int8", "conv2": "fp32", "linear": "int8",
    }  # fmt: skip


def test_quantized_weights_alone_make_no_int8_product(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [
            node("DequantizeLinear", ["q", "s"], ["w"], name="weight"),
            node("MatMul", ["x", "w"], ["y"], name="product"),
        ],
        {"q": np.ones((2, 2), np.int8), "s": np.float32(0.5)},
        {"x": ["batch", 2]},
        {"y": ["batch", 2]},
        [],
    )
    assert node_costs(net.graph, {}) == {"product": ("fp32", 4)}


def test_integer_products_of_dynamic_quantisation_are_int8(overflow: Any) -> None:
    overflow.run("int8", mode="dynamic")
    assert compute_shares(overflow.file, {}) == {"int8": 1.0}


def test_a_graph_that_multiplies_nothing_shares_by_the_elements_of_its_outputs(
    conversion: Callable[..., Any],
) -> None:
    net = conversion(
        [node("Relu", ["x"], ["r"], name="relu"), node("Reshape", ["r", "s"], ["y"], name="move")],
        {"s": np.array([-1], np.int64)},
        {"x": ["batch", 6]},
        {"y": ["n"]},
        [],
    )
    assert node_costs(net.graph, {"batch": 2}) == {"relu": ("fp32", 12)}


def test_a_node_in_a_branch_counts_as_well(conversion: Callable[..., Any]) -> None:
    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)
        product = node("MatMul", ["x", "w"], [f"{name}_y"], name=name)
        return helper.make_graph([product], name, [], [out])

    net = conversion(
        [node("If", ["c"], ["y"], name="if", then_branch=branch("a"), else_branch=branch("b"))],
        {"c": np.bool_(1), "w": np.ones((2, 3), np.float32)},
        {"x": ["batch", 2]},
        {"y": ["batch", 3]},
        [],
    )
    assert node_costs(net.graph, {}) == {"a": ("fp32", 6), "b": ("fp32", 6)}


@pytest.mark.parametrize(
    ("made", "weights", "cost"),
    [
        (node("Einsum", ["x", "w"], ["y"], equation="bi,ij->bj"), (6, 4), 24),
        (node("Gemm", ["w", "x"], ["y"], transA=1, transB=1), (6, 4), 24),
        (node("MatMul", ["x", "w"], ["y"]), (6, 4), 24),
    ],
)
def test_every_form_of_a_matrix_product_costs_the_same(
    conversion: Callable[..., Any], made: onnx.NodeProto, weights: tuple[int, int], cost: int
) -> None:
    array = np.ones(weights, np.float32)
    shape = ["rows", "columns"]
    net = conversion([made], {"w": array}, {"x": ["batch", 6]}, {"y": shape}, [])
    assert node_costs(net.graph, {}) == {"y": ("fp32", cost)}


def test_a_transposed_convolution_costs_a_filter_per_input(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [node("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])],
        {"w": np.ones((3, 5, 2, 2), np.float32)},
        {"x": ["batch", 3, 4, 4]},
        {"y": ["batch", 5, 8, 8]},
        [],
    )
    assert node_costs(net.graph, {}) == {"up": ("fp32", 3 * 4 * 4 * 5 * 2 * 2)}


def test_a_size_that_depends_on_data_counts_1_and_no_node_drops_out(
    conversion: Callable[..., Any],
) -> None:
    net = conversion(
        [
            node("NonZero", ["x"], ["i"], name="where"),
            node("Cast", ["i"], ["f"], name="to_float", to=onnx.TensorProto.FLOAT),
            node("MatMul", ["w", "f"], ["y"], name="product"),
        ],
        {"w": np.ones((3, 2), np.float32)},
        {"x": ["batch", 6]},
        {"y": [3, "n"]},
        [],
    )
    assert node_costs(net.graph, {}) == {"product": ("fp32", 6)}


def test_a_recurrent_layer_costs_its_weights_per_step(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [node("LSTM", ["x", "w", "r"], ["", "y"], name="lstm", hidden_size=4)],
        {"w": np.ones((1, 16, 3), np.float32), "r": np.ones((1, 16, 4), np.float32)},
        {"x": ["steps", "batch", 3]},
        {"y": [1, "batch", 4]},
        [],
    )
    cost = 5 * 2 * (16 * 3 + 16 * 4)
    assert node_costs(net.graph, {"steps": 5, "batch": 2}) == {"lstm": ("fp32", cost)}


def test_contradicting_shapes_end_as_our_error(overflow: Any) -> None:
    proto = onnx.load(str(overflow.graph))
    proto.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.INT64, [4, 4]))
    onnx.save(proto, str(overflow.graph))
    with pytest.raises(ExportError, match="cannot be inferred"):
        node_costs(overflow.graph, {})
