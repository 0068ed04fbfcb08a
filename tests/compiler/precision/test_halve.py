"""fp16 and bf16 by converting the graph."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from specs.engines import Precision
from specs.errors import ExportError, ParityError

FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
node = helper.make_node


def _reference(conversion: Any) -> Any:
    """ONNX's own evaluator computes in the narrow types themselves, on any machine."""
    return next(iter(ReferenceEvaluator(conversion.proto).run(None, conversion.items[0])))


def _edges(graph: onnx.GraphProto) -> list[tuple[str, onnx.TypeProto]]:
    return [(value.name, value.type) for value in (*graph.input, *graph.output)]


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", HALF), ("bf16", BRAIN)])
def test_everything_between_the_graphs_edges_becomes_narrow(
    small_net: Any, precision: Precision, dtype: int
) -> None:
    small_net.atol = 1e-1
    small_net.run(precision)
    assert {small_net.dtype(name) for name in ("w1", "c1", "c2", "p", "f", "b3")} == {dtype}
    assert small_net.ops().count("Cast") == 2


def test_inputs_and_outputs_keep_names_dtypes_and_dynamic_axes(small_net: Any) -> None:
    before = onnx.load(str(small_net.graph)).graph
    small_net.run("fp16")
    after = small_net.proto.graph
    assert _edges(after) == _edges(before)


def test_node_names_opset_and_ir_version_are_kept(small_net: Any) -> None:
    small_net.run("fp16")
    names = [item.name for item in small_net.proto.graph.node]
    assert [name for name in names if not name.startswith("cast.")] == [
        "conv1", "relu1", "conv2", "pool", "flatten", "linear",
    ]  # fmt: skip
    assert (small_net.proto.opset_import[0].version, small_net.proto.ir_version) == (18, 8)


def test_the_same_graph_gives_the_same_bytes_wherever_it_lies(
    small_net: Any, tmp_path: Any
) -> None:
    small_net.mark(str(tmp_path))
    small_net.run("fp16")
    first = small_net.file.read_bytes()
    small_net.folder = tmp_path / "elsewhere"
    small_net.run("fp16")
    assert small_net.file.read_bytes() == first
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize("golden", [True, False])
def test_exactly_the_nodes_that_overflow_stay_in_fp32(overflow: Any, golden: bool) -> None:
    assert overflow.run("fp16", golden=golden).kept == ("up", "down")
    assert overflow.dtype("a") == FLOAT
    assert overflow.dtype("r") == overflow.dtype("w") == HALF
    np.testing.assert_allclose(_reference(overflow), [[1, 0, 3, 100]], rtol=1e-2)


def test_a_look_at_the_values_saves_the_runs_of_a_bisection(overflow: Any) -> None:
    overflow.run("fp16", golden=True)
    seen = len(overflow.judged)
    overflow.run("fp16", golden=False)
    assert seen == 3 < len(overflow.judged) - seen


def test_bf16_reaches_as_far_as_fp32_and_keeps_nothing(overflow: Any) -> None:
    assert overflow.run("bf16").kept == ()
    np.testing.assert_allclose(_reference(overflow), [[1, 0, 3, 100]], rtol=2e-2)


def test_the_squares_of_a_layer_norm_by_hand_stay_in_fp32(
    conversion: Callable[..., Any],
) -> None:
    net = conversion(
        [
            node("ReduceMean", ["x", "axes"], ["m"], name="mean"),
            node("Sub", ["x", "m"], ["d"], name="centre"),
            node("Mul", ["d", "d"], ["q"], name="square"),
            node("ReduceMean", ["q", "axes"], ["v"], name="variance"),
            node("Sqrt", ["v"], ["s"], name="root"),
            node("Div", ["d", "s"], ["y"], name="divide"),
        ],
        {"axes": np.array([1], np.int64)},
        {"x": ["batch", 4]},
        {"y": ["batch", 4]},
        [{"x": np.array([[500, -500, 1000, -1000]], np.float32)}],
    )
    assert net.run("fp16").kept == ("square", "variance", "root")


def test_a_weight_beyond_fp16_keeps_its_node_and_no_other(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [
            node("Relu", ["x"], ["r"], name="relu"),
            node("Min", ["r", "limit"], ["y"], name="limit_to"),
        ],
        {"limit": np.float32(1e6)},
        {"x": ["batch", 2]},
        {"y": ["batch", 2]},
        [{"x": np.array([[1, 2]], np.float32)}],
    )
    result = net.run("fp16")
    assert result.kept == ("limit_to",)
    assert "in fp32, because fp16 cannot hold a weight: 1" in result.notes


def test_a_constant_that_vanishes_keeps_its_node(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [
            node("Add", ["x", "eps"], ["a"], name="guard"),
            node("Relu", ["a"], ["y"], name="relu"),
        ],
        {"eps": np.float32(1e-12)},
        {"x": ["batch", 2]},
        {"y": ["batch", 2]},
        [{"x": np.array([[1, 2]], np.float32)}],
    )
    assert net.run("fp16").kept == ("guard",)


def test_sizes_that_come_from_integers_stay_in_fp32(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [
            node("Shape", ["x"], ["s"], name="shape"),
            node("Cast", ["s"], ["sf"], name="to_float", to=FLOAT),
            node("Mul", ["sf", "scale"], ["t"], name="scaled"),
            node("Cast", ["t"], ["ti"], name="to_int", to=TensorProto.INT64),
            node("Expand", ["x", "ti"], ["y"], name="expand"),
        ],
        {"scale": np.float32(1)},
        {"x": ["batch", 2]},
        {"y": ["rows", "columns"]},
        [{"x": np.ones((1, 2), np.float32)}],
    )
    result = net.run("fp16")
    assert (net.dtype("sf"), net.dtype("t")) == (FLOAT, FLOAT)
    assert result.kept == ()
    assert "in fp32, because they compute sizes, positions or masks: 2" in result.notes


def test_what_a_schema_fixes_to_float32_stays_so(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [node("Resize", ["x", "", "scales"], ["y"], name="resize", mode="linear")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        {"x": ["batch", 1, 2, 2]},
        {"y": ["batch", 1, 4, 4]},
        [{"x": np.ones((1, 1, 2, 2), np.float32)}],
    )
    net.run("fp16")
    assert net.dtype("scales") == FLOAT
    assert net.node("resize").input[0] == "x.float16"


def test_a_node_whose_outputs_type_nothing_tells_stays_in_fp32(
    conversion: Callable[..., Any],
) -> None:
    net = conversion(
        [
            node("OptionalGetElement", ["x"], ["e"], name="element"),
            node("Relu", ["e"], ["y"], name="relu"),
        ],
        {},
        {"x": ["batch", 2]},
        {"y": ["batch", 2]},
        [{"x": np.ones((1, 2), np.float32)}],
    )
    result = net.run("fp16")
    assert net.dtype("e") == FLOAT
    told = "in fp32, because they have no form in fp16 at this opset: OptionalGetElement (1)"
    assert told in result.notes


def test_the_inside_of_a_loop_is_converted_and_its_edges_are_not(
    conversion: Callable[..., Any],
) -> None:
    body = helper.make_graph(
        [
            node("MatMul", ["c_in", "w"], ["p"], name="product"),
            node("Identity", ["go"], ["go_out"], name="on"),
            node("Relu", ["p"], ["c_out"], name="relu"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("c_in", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("c_out", FLOAT, None),
        ],
    )
    net = conversion(
        [
            node("Relu", ["x"], ["r"], name="before"),
            node("Loop", ["n", "", "r"], ["y"], name="loop", body=body),
        ],
        {"n": np.int64(3), "w": np.array([[0, 2], [2, 0]], np.float32)},
        {"x": ["batch", 2]},
        {"y": ["batch", 2]},
        [{"x": np.array([[1, 2]], np.float32)}],
    )
    net.run("fp16")
    assert net.dtype("w") == HALF
    np.testing.assert_array_equal(net.answer()["y"], [[16, 8]])


def test_a_weight_that_both_types_need_is_there_in_both(overflow: Any) -> None:
    proto = onnx.load(str(overflow.graph))
    proto.graph.node.append(node("Add", ["y", "c"], ["z"], name="shift"))
    proto.graph.output[0].name = "z"
    onnx.save(proto, str(overflow.graph))
    overflow.run("fp16")
    values = {t.name: numpy_helper.to_array(t).dtype for t in overflow.proto.graph.initializer}
    assert (values["c"], values["c.float16"]) == (np.float32, np.float16)


def test_bf16_raises_the_opset_where_convolutions_need_it_and_says_so(small_net: Any) -> None:
    small_net.atol = 1e-1
    result = small_net.run("bf16")
    assert small_net.proto.opset_import[0].version == 22
    assert result.notes[0] == "opset raised from 18 to 22: it gives Conv a form in bfloat16"


def test_bf16_leaves_the_opset_alone_where_products_have_it_already(overflow: Any) -> None:
    assert overflow.run("bf16").notes == ()
    assert overflow.proto.opset_import[0].version == 18


def test_a_graph_without_node_names_gets_some_from_its_values(overflow: Any) -> None:
    proto = onnx.load(str(overflow.graph))
    for item in proto.graph.node:
        item.name = ""
    onnx.save(proto, str(overflow.graph))
    assert overflow.run("fp16").kept == ("Mul_a", "Div_b")


def test_a_fp32_graph_beyond_tolerance_is_no_fault_of_the_conversion(overflow: Any) -> None:
    overflow.excess = lambda _file: 3.0  # type: ignore[method-assign]
    with pytest.raises(ParityError, match="even with every node in fp32") as caught:
        overflow.run("fp16")
    assert caught.value.code == "precision_parity"


def test_a_search_without_end_stops_and_names_another_precision(
    conversion: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compiler.precision.halve.MAX_RUNS", 8)
    names = [f"n{i}" for i in range(20)]
    ends = ["x", *names[:-1]], [*names[:-1], "y"]
    net = conversion(
        [node("Mul", [a, "c"], [b], name=name) for name, a, b in zip(names, *ends, strict=True)],
        {"c": np.float32(1.0003)},
        {"x": ["batch", 1]},
        {"y": ["batch", 1]},
        [{"x": np.ones((1, 1), np.float32)}],
        atol=1e-7,
    )
    with pytest.raises(ParityError, match="found no small set") as caught:
        net.run("fp16")
    assert "bf16 or fp32" in caught.value.hint


def test_a_graph_that_onnx_refuses_ends_as_our_error(
    overflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        message = "broken\nfor good"
        raise onnx.checker.ValidationError(message)

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match=r"no valid ONNX: broken\n") as caught:
        overflow.run("fp16")
    assert caught.value.code == "precision"


def test_large_weights_lie_beside_the_converted_graph(
    small_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compiler.graph.EXTERNAL_ABOVE", 100)
    small_net.run("fp16")
    assert small_net.file.with_name(f"{small_net.file.name}.data").is_file()
    assert small_net.dtype("w1") == HALF
