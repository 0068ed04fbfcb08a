"""Placement: which node runs where, against the device that was asked for."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from compiler.engines import BuildTarget
from runtime.engines import Layer, get_engine
from specs.audit import NAMES, Placement
from specs.schema import Spec

__all__ = ["find_placement"]

SIZE_OPS = frozenset({"Shape", "Size"})
"""What turns data into sizes."""
SIZE_ARITHMETIC = frozenset(
    {
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "Div",
        "Equal",
        "Floor",
        "Gather",
        "Greater",
        "Identity",
        "Less",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "ReduceProd",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
    }
)
"""Ops on a handful of sizes. Those that make large tensors of them (Expand, Range, Tile,
ConstantOfShape) are work, and belong on the device."""


def find_placement(
    target: BuildTarget, layers: Sequence[Layer], graph: Path, spec: Spec
) -> tuple[Placement, tuple[str, ...]]:
    """Where the nodes of a variant run, and what could not be found out.

    Args:
        target: what was asked.
        layers: what the engine tells.
        graph: the ONNX graph that the engine took.
        spec: for ``verify.max_nodes_off_device``.
    """
    allowed = spec.verify.max_nodes_off_device
    if not layers:
        source, not_run = _not_told(target)
        return Placement(asked=target.device, source=source, allowed=allowed), not_run
    elsewhere = [layer for layer in layers if layer.device != target.device]
    sizes = _size_nodes(graph) if elsewhere else set[str]()
    off = [layer for layer in elsewhere if not _only_sizes(layer, sizes)]
    placement = Placement(
        asked=target.device,
        source=f"told by {target.engine}",
        devices=dict(sorted(Counter(str(layer.device) for layer in layers).items())),
        places=dict(sorted(Counter(layer.place for layer in layers if layer.place).items())),
        off_device=len(off),
        off_device_names=tuple(f"{layer.name} ({layer.op})" for layer in off[:NAMES]),
        shape_nodes=len(elsewhere) - len(off),
        allowed=allowed,
    )
    return placement, ()


def _not_told(target: BuildTarget) -> tuple[str, tuple[str, ...]]:
    engine = target.engine
    if get_engine(engine).devices == (target.device,):
        return f"{engine} runs on no other device", ()
    source = f"{engine} does not tell where its nodes run"
    return source, (f"placement: {source}",)


def _only_sizes(layer: Layer, sizes: set[str]) -> bool:
    """Whether a layer handles nothing but sizes; one without a name is judged by its op alone."""
    return layer.op in SIZE_OPS or (bool(layer.name) and layer.name in sizes)


def _size_nodes(graph: Path) -> set[str]:
    """Names of the nodes whose values depend on sizes and constants alone."""
    proto = onnx.load(str(graph), load_external_data=False)
    return set(_walk(proto.graph, set(), set()))


def _walk(graph: onnx.GraphProto, sizes: set[str], constants: set[str]) -> Iterator[str]:
    """Names of such nodes in their order; ``sizes`` and ``constants`` name values known so far."""
    constants = constants | {tensor.name for tensor in graph.initializer}
    sizes = set(sizes)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _walk(attribute.g, sizes, constants)
        if node.op_type == "Constant":
            constants.update(node.output)
        elif _handles_sizes(node, sizes, constants):
            sizes.update(node.output)
            yield node.name or node.output[0]


def _handles_sizes(node: onnx.NodeProto, sizes: set[str], constants: set[str]) -> bool:
    if node.op_type in SIZE_OPS:
        return True
    taken = {name for name in node.input if name}
    return node.op_type in SIZE_ARITHMETIC and taken <= sizes | constants and bool(taken & sizes)
