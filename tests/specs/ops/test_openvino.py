"""Steps behind the model are nodes that OpenVINO computes as ONNX Runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specs.ops import Graph, Op
from specs.ops.argmax import Argmax
from specs.ops.clip import Clip
from specs.ops.l2_normalize import L2Normalize
from specs.ops.mask_to_image import MaskToImage
from specs.ops.mean_pool import MeanPool
from specs.ops.quantize_output import QuantizeOutput
from specs.ops.select import Select
from specs.ops.softmax import Softmax
from specs.ops.threshold import Threshold
from specs.ops.to_image import ToImage
from specs.ops.top_k import TopK
from specs.values import Value

ov: Any = pytest.importorskip("openvino")

# Where elements are equal, the indices of its own TopK are not those that ONNX asks for.
TIES = np.random.default_rng(0).integers(0, 4, (3, 1000))
MAPS = np.random.default_rng(0).normal(100, 200, (3, 3, 5, 7))
MASK = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
CASES: list[tuple[Op, Any]] = [
    (TopK(k=7), TIES[:, :20]),
    (TopK(k=500), TIES),
    (TopK(k=1000), TIES),
    (Threshold(at=1.5), TIES),
    (Threshold(at=2, mask=True), TIES),
    (Argmax(), TIES),
    (Softmax(), TIES),
    (Softmax(axis=1), MAPS),
    (Clip(min=-3.3, max=100), MAPS),
    (Clip(min=-3.3), MAPS),
    (ToImage(), MAPS),
    (ToImage(rounding="down"), MAPS),
    (MaskToImage(), np.rint(MAPS / 200)),
    (MeanPool(), MAPS[:, 0]),
    (MeanPool(mask="mask"), MAPS[:, 0]),
    (L2Normalize(), MAPS),
    (Select(index=-1, axis=2), MAPS),
]


def _on_openvino(op: Op, value: Value, x: Any, beside: dict[str, Any]) -> Any:
    """The graph's tensors, before what Python does with them, by part."""
    from compiler.processing.nodes import TensorType, model_of, typed_outputs

    graph = Graph(18, "step/", beside={name: f"beside_{name}" for name in beside})
    fused = op.fuse(graph, "x", value)
    assert fused is not None
    feed = {"x": x} | {f"beside_{name}": array for name, array in beside.items()}
    types: dict[str, TensorType] = {
        name: (str(array.dtype), tuple([None] * array.ndim)) for name, array in feed.items()
    }
    parts = {"": fused.result} if isinstance(fused.result, str) else dict(fused.result)
    names = list(parts.values())
    model = model_of(graph, types, typed_outputs(graph, types, names))
    core: Any = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    read = core.read_model(model.SerializeToString(), b"")
    result = core.compile_model(read, "CPU", options)(feed)
    return {part: result[name] for part, name in parts.items()}, fused.rest


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("op", "numbers"), CASES, ids=lambda case: getattr(case, "name", ""))
def test_openvino_computes_every_step_as_python_does(op: Op, numbers: Any, dtype: str) -> None:
    from compiler.processing.executions import run_python

    x = numbers.astype(dtype)
    value = Value("tensor", dtype, ("batch", *x.shape[1:]))
    beside = {"mask": MASK} if op.carried() else {}
    found, rest = _on_openvino(op, value, x, beside)
    wanted = run_python(op, value, x, beside)
    if rest is None:
        assert found[""].dtype == wanted.dtype
        assert np.allclose(found[""], wanted, rtol=1e-5, atol=1e-6)
    elif isinstance(op, MaskToImage):
        assert (found[""] == x.argmax(axis=1)).all()
    elif isinstance(op, Argmax):
        assert found[""].tolist() == [item[0]["index"] for item in wanted]
    else:
        names = {function.__name__: function for function in rest.functions} | {"x": found}
        ranked = eval(rest.expression.replace("{x}", "x"), names)  # noqa: S307 - an op's own
        assert ranked == wanted


def test_openvino_quantizes_within_one_step_of_python() -> None:
    from compiler.processing.executions import run_python

    # It multiplies by 1 / scale, which may round a half the other way.
    op, x = QuantizeOutput(scale=0.37, zero_point=-3, dtype="int8"), MAPS.astype(np.float32) / 4
    value = Value("tensor", "float32", ("batch", *x.shape[1:]))
    found = _on_openvino(op, value, x, {})[0][""]
    wanted = run_python(op, value, x, {})
    assert found.dtype == np.int8
    gap = np.abs(found.astype(int) - wanted)
    assert gap.max() <= 1
    assert gap.mean() < 0.02
