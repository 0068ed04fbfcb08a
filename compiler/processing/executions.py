"""The executions of one step, each on its own: what the gate and the ops' tests compare."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compiler.processing.copying import Copied
from compiler.processing.nodes import TensorType, model_of, typed_outputs
from specs.ops import GEOMETRY, Emitted, Graph, Libraries, Op, Symbols
from specs.values import Value

__all__ = ["Home", "TorchLibraries", "run_fused", "run_python", "run_reference"]

OPSET = 18
"""The opset of a step's graph."""


@dataclass(frozen=True)
class Home:
    """Where the files that a step reads lie, and the spec's limits.

    Args:
        folder: the folder of the generated file.
        limits: expressions that take the place of the op library's own constants.
    """

    folder: Path = Path()
    limits: Mapping[str, str] = field(default_factory=dict[str, str])


class TorchLibraries:
    """``specs.ops.Libraries``: what references are written in, imported when first used.

    Args:
        folder: the spec's folder, which the paths of its files lead from.
    """

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder
        self.torch: Any = importlib.import_module("torch")
        self.vision: Any = importlib.import_module("torchvision.transforms.v2.functional")
        self.ops: Any = importlib.import_module("torchvision.ops")


def run_python(
    op: Op,
    value: Value,
    x: Any,  # noqa: ANN401 - bytes, text, arrays
    beside: Mapping[str, NDArray[Any]] | None = None,
    home: Home | None = None,
) -> Any:  # noqa: ANN401 - what the step gives
    """What the step's emitted Python makes of ``x``.

    Args:
        op: the step.
        value: the type of ``x``.
        x: what the step takes; in post-processing with the batch dimension.
        beside: what a post-processing step reads beside it (``Op.carried``), by name.
        home: what its files and limits are.
    """
    return _evaluate(op.emit(value), x, beside or {}, home or Home())


def run_reference(op: Op, value: Value, x: Any, lib: Libraries) -> Any:  # noqa: ANN401 - as above
    """What the step's reference makes of ``x``."""
    if isinstance(x, np.ndarray):
        x = np.require(cast("NDArray[Any]", x), requirements="W")  # else PyTorch warns
    return op.reference(x, value, lib)


def run_fused(
    op: Op,
    value: Value,
    x: Any,  # noqa: ANN401 - arrays, by part where there are several
    beside: Mapping[str, NDArray[Any]] | None = None,
    home: Home | None = None,
) -> Any:  # noqa: ANN401 - what the step gives
    """What the step's ONNX nodes make of ``x`` on ONNX Runtime's CPU; None where it has none.

    An image ([height, width, channels]) or another item of pre-processing becomes a batch of one,
    and comes back without it.
    """
    single = "preprocess" in op.stages and "postprocess" not in op.stages
    batch = {name: array[None] if single else array for name, array in _parts(x).items()}
    symbols = {name: f"in_{re.sub(r'[^a-z0-9_]', '_', name)}" for name in batch}
    reads = {n: f"beside_{n}" for n in op.carried() if n != GEOMETRY}
    graph = Graph(OPSET, "step/", beside=reads)
    fused = op.fuse(graph, symbols[""] if isinstance(x, np.ndarray) else symbols, value)
    if fused is None:
        return None
    feed = {symbols[name]: array for name, array in batch.items()}
    feed |= {symbol: (beside or {})[name] for name, symbol in reads.items()}
    outputs = _on_cpu(graph, _by_part(fused.result), feed)
    outputs = {name: array[0] if single else array for name, array in outputs.items()}
    result = outputs.get("", outputs)
    if fused.rest is None:
        return result
    return _evaluate(fused.rest, result, beside or {}, home or Home())


def _evaluate(emitted: Emitted, x: Any, beside: Mapping[str, NDArray[Any]], home: Home) -> Any:  # noqa: ANN401
    """The emitted expression, with the functions copied as the generated file has them."""
    space = _copied(emitted.functions, home)
    space |= {"np": np, "x": x, "outputs": beside}
    for name, constant in emitted.constants.items():
        space[name] = eval(constant, space)  # noqa: S307 - an op's own expression
    return eval(emitted.expression.replace("{x}", "x"), space)  # noqa: S307 - as above


def _copied(functions: tuple[Callable[..., Any], ...], home: Home) -> dict[str, Any]:
    copied = Copied(
        home.limits, packages=set(sys.modules)
    )  # what may be imported is not its concern
    for function in functions:
        copied.add(function)
    blocks = ["from __future__ import annotations", copied.import_lines()]
    blocks += [*copied.constants.values(), *copied.functions.values()]
    space: dict[str, Any] = {"__file__": str(home.folder / "step.py"), "__name__": "step"}
    exec(compile("\n".join(blocks), "step.py", "exec"), space)  # noqa: S102 - the op library's code
    return space


def _parts(x: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - an array, or arrays by part
    if isinstance(x, Mapping):
        return dict(cast("Mapping[str, NDArray[Any]]", x))
    return {"": np.asarray(x)}


def _by_part(symbols: Symbols) -> dict[str, str]:
    return {"": symbols} if isinstance(symbols, str) else dict(symbols)


def _on_cpu(
    graph: Graph, results: Mapping[str, str], feed: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run the graph; the outputs' types are inferred."""
    import onnxruntime as ort

    inputs: dict[str, TensorType] = {
        name: (str(array.dtype), tuple([None] * array.ndim)) for name, array in feed.items()
    }
    names = list(dict.fromkeys(results.values()))
    proto = model_of(graph, inputs, typed_outputs(graph, inputs, names))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = cast("list[NDArray[Any]]", session.run(names, dict(feed)))
    by_name = dict(zip(names, found, strict=True))
    return {part: by_name[name] for part, name in results.items()}
