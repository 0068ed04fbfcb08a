"""Finds where the built graph first leaves PyTorch: module by module against every node.

The outputs of the model's leaf modules, in the order in which they ran, are looked for among the
graph's intermediate tensors. The first module whose output no tensor of its shape equals, after
one that was found, is where the two part. This needs no map from nodes to modules, so it works
with either exporter; what it cannot find (a functional graph without modules) it does not name.
"""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from compiler.cases import batch_of
from compiler.compare import Tolerance, worst_gap
from compiler.golden import Golden
from compiler.sources import Model, TorchModel
from runtime.engines import get_engine
from runtime.tensors import Array, Tensors
from specs.errors import DeploycError
from specs.schema import Spec

__all__ = ["first_divergence"]


def first_divergence(model: Model, graph: Path, spec: Spec, golden: Golden) -> str:
    """``layer1.0.conv1 (Conv2d), node_conv2d_3 (Conv)``, or "" where it cannot be found."""
    if not isinstance(model, TorchModel) or not isinstance(model.call, torch.nn.Module):
        return ""
    inputs = batch_of(golden.case.inputs, golden.case.batches[0], 0)
    modules = _module_outputs(model, spec, inputs)
    try:
        tensors = _node_outputs(graph, inputs)
    except DeploycError:
        return ""
    return _first(modules, tensors, Tolerance(spec.verify.atol, spec.verify.rtol))


def _first(
    modules: list[tuple[str, Array]], tensors: list[tuple[str, Array]], tolerance: Tolerance
) -> str:
    found_before = False
    for name, array in modules:
        same_shape = [(node, tensor) for node, tensor in tensors if tensor.shape == array.shape]
        gaps = [(_excess(tensor, array, tolerance), node) for node, tensor in same_shape]
        if not gaps:
            continue
        excess, node = min(gaps)
        if excess > 1:
            return f"{name}, nearest node {node}" if found_before or modules[0][0] == name else ""
        found_before = True
    return ""


def _excess(tensor: Array, array: Array, tolerance: Tolerance) -> float:
    return worst_gap({"": tensor.astype(array.dtype)}, {"": array}, tolerance).excess


def _module_outputs(model: TorchModel, spec: Spec, inputs: Tensors) -> list[tuple[str, Array]]:
    outputs: list[tuple[str, Array]] = []
    hooks: list[Any] = []
    for name, module in model.call.named_modules():
        if next(module.children(), None) is None and name:
            label = f"{name} ({type(module).__name__})"
            hooks.append(module.register_forward_hook(_keep(label, outputs)))
    try:
        model.outputs([inputs[key] for key in spec.inputs], spec.export.forward_kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _keep(label: str, outputs: list[tuple[str, Array]]) -> Any:  # noqa: ANN401 - a torch hook
    def hook(_module: object, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append((label, output.detach().numpy().copy()))

    return hook


def _node_outputs(graph: Path, inputs: Tensors) -> list[tuple[str, Array]]:
    """Every intermediate tensor of the graph, run without optimisation."""
    proto = onnx.load(str(graph))
    producers = {name: node for node in proto.graph.node for name in node.output if name}
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in producers if name not in known
    )
    full = graph.with_name(f".{graph.name}.all-outputs")
    full.write_bytes(proto.SerializeToString())
    try:
        session = get_engine("onnxruntime").open(full, "cpu", {"optimization": "disabled"})
        found = session.run(inputs)
    finally:
        full.unlink()
    return [
        (f"{producers[name].name} ({producers[name].op_type})", array)
        for name, array in found.items()
        if name in producers and array.dtype.kind == "f" and np.size(array)
    ]
