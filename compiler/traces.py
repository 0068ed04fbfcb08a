"""Intermediate values: of the model as PyTorch runs it, and of the built graph, node by node."""

# pyright: reportUnknownMemberType=false
# onnx's and torch's functions are typed in part.
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

from compiler.audit.opened import OpenGraph, label
from compiler.sources import Model, TorchModel
from compiler.sources.onnx import OnnxModel
from runtime.tensors import Array, Tensors
from specs.schema import Spec

__all__ = ["Step", "Value", "graph_values", "model_steps"]


@dataclass(frozen=True)
class Step:
    """One computation of the model: a leaf module, or a node of its own graph.

    Args:
        name: ``layer1.0.conv1 (Conv2d)``.
        inputs: the tensors that went in.
        output: what came out.
    """

    name: str
    inputs: tuple[Array, ...]
    output: Array


@dataclass(frozen=True)
class Value:
    """What a node of the built graph gave, or an input of the graph.

    Args:
        name: the tensor's name.
        array: its content.
        node: ``node_conv2d_3 (Conv)``; "" for an input.
        sources: names of the tensors that the node takes.
    """

    name: str
    array: Array
    node: str = ""
    sources: tuple[str, ...] = ()


def model_steps(model: Model, spec: Spec, inputs: Tensors) -> list[Step]:
    """The steps of one run in their order.

    A scripted model takes no hooks: it is converted, and its operators are the steps.
    """
    ordered = [inputs[name] for name in spec.inputs]
    if isinstance(model, OnnxModel):
        return _reference_steps(model.proto, inputs)
    if not isinstance(model, TorchModel):
        return []
    if isinstance(model.call, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        return _scripted_steps(model.call, ordered, spec)
    if isinstance(model.call, torch.fx.GraphModule):
        return _fx_steps(model.call, ordered)
    if isinstance(model.call, torch.nn.Module):
        return _module_steps(model, ordered, spec)
    return []


def _module_steps(model: TorchModel, ordered: list[Array], spec: Spec) -> list[Step]:
    steps: list[Step] = []
    hooks: list[Any] = []
    for name, module in model.call.named_modules():
        if next(module.children(), None) is None and name:
            label = f"{name} ({type(module).__name__})"
            hooks.append(module.register_forward_hook(_keep(label, steps)))
    try:
        model.outputs(ordered, spec.export.forward_kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return steps


def _keep(label: str, steps: list[Step]) -> Callable[[Any, Any, Any], None]:
    def hook(_module: object, inputs: object, output: object) -> None:
        found = list(_tensors(output))
        if found:
            steps.append(Step(label, tuple(_copies(inputs)), _copy(found[0])))

    return hook


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _tensors(item)


def _copies(value: object) -> Iterator[Array]:
    return (_copy(tensor) for tensor in _tensors(value))


def _copy(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().copy()  # a later step may write into it


class _Recorder(torch.fx.Interpreter):
    """Runs a graph of torch and keeps what every operator gave."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.steps: list[Step] = []

    def run_node(self, n: torch.fx.Node) -> Any:  # noqa: ANN401 - the base's own signature
        """Run one node."""
        # Weights are no values of the graph: an exporter may fold or transpose them.
        inputs = tuple(_copies([self.env[m] for m in n.all_input_nodes if m.op != "get_attr"]))
        result = super().run_node(n)
        if n.op.startswith("call") and isinstance(result, torch.Tensor):
            self.steps.append(Step(f"{n.name} ({n.target})", inputs, _copy(result)))
        return result


def _fx_steps(module: torch.fx.GraphModule, ordered: list[Array]) -> list[Step]:
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*(torch.from_numpy(array) for array in ordered))
    return recorder.steps


def _scripted_steps(scripted: Any, ordered: list[Array], spec: Spec) -> list[Step]:  # noqa: ANN401
    from torch._export.converter import TS2EPConverter

    arguments = tuple(torch.from_numpy(array) for array in ordered)
    kwargs = spec.export.forward_kwargs
    with warnings.catch_warnings(action="ignore"):  # of buffers that nothing reads
        program = TS2EPConverter(scripted, arguments, kwargs or None).convert()
    return _fx_steps(program.module(), ordered)


def _reference_steps(proto: onnx.ModelProto, inputs: Tensors) -> list[Step]:
    full = _all_outputs(proto)
    names = [value.name for value in full.graph.output]
    feed = cast("dict[str, Any]", dict(inputs))
    found = cast("Mapping[str, Array]", dict(zip(names, ReferenceEvaluator(full).run(None, feed))))  # noqa: B905 - one array per name, or onnx has failed
    known = {**inputs, **found}
    return [
        Step(
            label(node),
            tuple(known[name] for name in node.input if name in known),
            found[node.output[0]],
        )
        for node in full.graph.node
        if node.output[0] in found
    ]


def graph_values(graph: Path, inputs: Tensors) -> list[Value]:
    """The inputs and every node's outputs in their order, run without optimisation."""
    with OpenGraph(graph) as opened:
        found = opened.fetch(opened.tensors, inputs)
        return [Value(name, array) for name, array in inputs.items()] + [
            Value(name, found[name], label(node), tuple(node.input))
            for node in opened.nodes
            for name in node.output
            if name in found and np.size(found[name])
        ]


def _all_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose intermediate tensors are outputs as well."""
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    known = {value.name for value in full.graph.output}
    names = [name for node in full.graph.node for name in node.output if name]
    full.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    return full
