from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from specs.ops.quantize_output import QuantizeOutput
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
Dtype = Literal["uint8", "int8"]


@pytest.mark.filterwarnings("error")
def test_halves_go_to_even_and_what_is_out_of_range_saturates(
    run_step: RunStep, logits: Value
) -> None:
    x = np.array([[0.25, 0.75, 1.25, -9, 1e38, -np.inf, np.nan]], np.float32)
    op = QuantizeOutput(scale=0.5, zero_point=10)
    result = run_step(op, logits.but(shape=("batch", 7)), x)
    assert result.dtype == np.uint8
    assert result.tolist() == [[10, 12, 12, 0, 255, 0, 10]]


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 131), ("int8", -7)])
@pytest.mark.parametrize("of", ["float16", "float32", "float64"])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_execution_gives_the_same(
    executions: RunStep, dtype: Dtype, zero: int, of: str, batch: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (batch, 50)).astype(of)
    x[0, :3] = [np.nan, np.inf, -np.inf]
    op = QuantizeOutput(scale=0.037, zero_point=zero, dtype=dtype)
    found = executions(op, Value("tensor", of, ("batch", 50)), x)
    for name in ("python", "graph"):
        assert found[name].dtype == dtype, name
        assert (found[name] == found["reference"]).all(), name


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 100), ("int8", 3)])
def test_it_is_onnxs_quantize_linear(
    run_step: RunStep, rng: np.random.Generator, dtype: Dtype, zero: int
) -> None:
    onnx_ref: Any = pytest.importorskip("onnx.reference")
    from onnx import TensorProto, helper

    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    kind = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}[dtype]
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("z", kind, []),
        ],
        [helper.make_tensor_value_info("y", kind, [None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x = np.concatenate([rng.normal(0, 9, (1, 500)), np.arange(-400, 400)[None] / 8], 1)
    x = x.astype(np.float32)
    feed = {"x": x, "s": np.array(0.25, np.float32), "z": np.array(zero, dtype)}
    (wanted,) = onnx_ref.ReferenceEvaluator(model).run(None, feed)
    op = QuantizeOutput(scale=0.25, zero_point=zero, dtype=dtype)
    assert (run_step(op, Value("tensor", "float32", ("batch", x.shape[1])), x) == wanted).all()


def test_the_result_has_the_integers_bounds(logits: Value) -> None:
    value = QuantizeOutput(scale=0.1, dtype="int8").flow(logits)
    assert (value.dtype, value.low, value.high) == ("int8", -128, 127)
    with pytest.raises(FlowError, match="floating point"):
        QuantizeOutput(scale=0.1).flow(logits.but(dtype="uint8"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "greater than 0"),
        ({"scale": 1, "zero_point": -1}, "zero_point is -1, uint8 has 0 to 255"),
        ({"scale": 1, "zero_point": 128, "dtype": "int8"}, "int8 has -128 to 127"),
        ({"scale": 1e-50}, "float32 cannot hold"),
    ],
)
def test_options_must_make_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizeOutput(**options)
