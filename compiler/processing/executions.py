"""The executions of one step, each on its own: what the gate and the ops' tests compare."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compiler.processing.nodes import TensorType, model_of, typed_outputs
from specs.ops import Emitted, Graph, Libraries, Op, Symbols
from specs.values import Value

__all__ = ["TorchLibraries", "run_fused", "run_python", "run_reference"]

OPSET = 18
"""The opset of a step's graph where nothing else is asked for."""


class TorchLibraries:
    """``specs.ops.Libraries``: what references are written in, imported when first used."""

    def __init__(self) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.vision: Any = importlib.import_module("torchvision.transforms.v2.functional")
        self.ops: Any = importlib.import_module("torchvision.ops")


def run_python(
    op: Op,
    value: Value,
    x: Any,  # noqa: ANN401 - bytes, text, arrays
    beside: Mapping[str, NDArray[Any]] | None = None,
) -> Any:  # noqa: ANN401 - what the step gives
    """What the step's emitted Python makes of ``x``.

    Args:
        op: the step.
        value: the type of ``x``.
        x: what the step takes; in post-processing with the batch dimension.
        beside: what a post-processing step reads beside it (``Op.carried``), by name.
    """
    return _evaluate(op.emit(value), x, beside or {})


def run_reference(op: Op, value: Value, x: Any, lib: Libraries) -> Any:  # noqa: ANN401 - as above
    """What the step's reference makes of ``x``."""
    return op.reference(x, value, lib)


def run_fused(
    op: Op,
    value: Value,
    x: Any,  # noqa: ANN401 - arrays, by part where there are several
    beside: Mapping[str, NDArray[Any]] | None = None,
    opset: int = OPSET,
) -> Any:  # noqa: ANN401 - what the step gives
    """What the step's ONNX nodes make of ``x`` on ONNX Runtime's CPU; None where it has none.

    An image ([height, width, channels]) or another item of pre-processing becomes a batch of one,
    and comes back without it.
    """
    single = "preprocess" in op.stages and "postprocess" not in op.stages
    parts = _parts(x)
    batch = {name: array[None] if single else array for name, array in parts.items()}
    found = _run(op, value, batch, opset, named=not isinstance(x, np.ndarray))
    if found is None:
        return None
    outputs, rest = found
    outputs = {name: array[0] if single else array for name, array in outputs.items()}
    result = outputs.get("", outputs)
    return _evaluate(rest, result, beside or {}) if rest else result


def _evaluate(emitted: Emitted, x: Any, beside: Mapping[str, NDArray[Any]]) -> Any:  # noqa: ANN401
    space: dict[str, Any] = {}
    for function in emitted.functions:
        module = importlib.import_module(function.__module__)
        space |= vars(module) | {function.__name__: function}
    space |= {"np": np, "x": x, "outputs": beside}
    for name, constant in emitted.constants.items():
        space[name] = eval(constant, space)  # noqa: S307 - an op's own expression
    return eval(emitted.expression.replace("{x}", "x"), space)  # noqa: S307 - as above


def _parts(x: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - an array, or arrays by part
    if isinstance(x, Mapping):
        return dict(cast("Mapping[str, NDArray[Any]]", x))
    return {"": np.asarray(x)}


def _run(
    op: Op, value: Value, batch: dict[str, NDArray[Any]], opset: int, *, named: bool
) -> tuple[dict[str, NDArray[Any]], Emitted | None] | None:
    graph = Graph(opset, "step/")
    symbols = {name: f"in_{re.sub(r'[^a-z0-9_]', '_', name)}" for name in batch}
    fused = op.fuse(graph, symbols if named else symbols[""], value)
    if fused is None:
        return None
    inputs: dict[str, TensorType] = {
        symbols[name]: (str(array.dtype), tuple([None] * array.ndim))
        for name, array in batch.items()
    }
    results = _by_part(fused.result)
    arrays = _on_cpu(graph, inputs, results, {symbols[n]: a for n, a in batch.items()})
    return arrays, fused.rest


def _by_part(symbols: Symbols) -> dict[str, str]:
    return {"": symbols} if isinstance(symbols, str) else dict(symbols)


def _on_cpu(
    graph: Graph,
    inputs: Mapping[str, TensorType],
    results: Mapping[str, str],
    feed: Mapping[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Run the graph; the outputs' types are inferred."""
    import onnxruntime as ort

    names = list(dict.fromkeys(results.values()))
    proto = model_of(graph, inputs, typed_outputs(graph, inputs, names))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = cast("list[NDArray[Any]]", session.run(names, dict(feed)))
    by_name = dict(zip(names, found, strict=True))
    return {part: by_name[name] for part, name in results.items()}
