"""fp16 and bf16 graphs on a machine that has no kernels for them."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compiler.precision._graphs import prepared
from compiler.precision._narrow import narrow
from compiler.precision.emulate import emulate, emulate_file

HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16


def _run(proto: onnx.ModelProto, item: Any) -> Any:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, item)[0]


def _narrow(net: Any, dtype: int) -> onnx.ModelProto:
    return narrow(prepared(net.graph), dtype, ()).proto


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_the_emulation_agrees_with_an_evaluator_that_has_the_type(
    overflow: Any, dtype: int
) -> None:
    item = {"x": np.array([[0.1234, 1.2345, 2.3456, 3.4567]], np.float32)}
    converted = _narrow(overflow, dtype)
    expected = next(iter(ReferenceEvaluator(converted).run(None, item)))
    found = _run(emulate(converted), item)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, item["x"])  # it was rounded


def test_the_emulation_shows_an_overflow_that_onnx_runtime_hides_on_the_cpu(overflow: Any) -> None:
    converted = _narrow(overflow, HALF)
    assert np.isfinite(_run(converted, overflow.items[0])).all()
    assert not np.isfinite(_run(emulate(converted), overflow.items[0])).all()


def test_inputs_and_outputs_that_are_narrow_themselves_stay_so() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", HALF, ["n"])],
        [helper.make_tensor_value_info("y", HALF, ["n"])],
        [numpy_helper.from_array(np.array([2048], np.float16), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    made = emulate(proto)
    onnx.checker.check_model(made, full_check=True)
    found = _run(made, {"x": np.array([1, 3], np.float16)})
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([2048, 2052], np.float16))


def test_a_file_is_emulated_into_a_file(overflow: Any, tmp_path: Path) -> None:
    before = tmp_path / "before.onnx"
    before.write_bytes(_narrow(overflow, BRAIN).SerializeToString())
    emulate_file(before, tmp_path / "after.onnx")
    onnx.checker.check_model(str(tmp_path / "after.onnx"), full_check=True)


def test_a_sequence_among_the_outputs_keeps_its_type() -> None:
    graph = helper.make_graph(
        [helper.make_node("SplitToSequence", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n", 2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert emulate(proto).graph.output[0].type.HasField("sequence_type")
