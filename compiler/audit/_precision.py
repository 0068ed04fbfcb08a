"""Precision: which share of the computation is in the type that was asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from compiler.engines import BuildTarget, get_builder
from compiler.precision.share import compute_shares, node_costs
from runtime.engines import Layer
from specs.audit import PrecisionShare
from specs.schema import Spec

__all__ = ["find_precision"]

UNKNOWN = "unknown"
"""Takes the place of a type where the engine tells none; it never counts as the one asked for."""
HEAVY = re.compile(r"conv|gemm|matmul|matrix.?mul|fully.?connected|lstm|gru|rnn|attention|einsum")
"""Kinds of layers that multiply and accumulate, by engines' own words in lower case."""
JOINED = re.compile(r"\s*(?:\+|\|\|)\s*")
"""What stands between the names of fused nodes in TensorRT's layer names."""
COVERED = 0.9
"""Share of the graph's cost that must be found among the layers for their names to be used."""


def find_precision(
    target: BuildTarget, layers: Sequence[Layer], graph: Path, spec: Spec, kept: Sequence[str]
) -> tuple[PrecisionShare, tuple[str, ...]]:
    """The share of each type, and what could not be found out.

    The engine's word counts, weighted by the layers' costs. Where it tells no types, the graph's
    own types are taken: an engine that computes in others goes unseen, and ``source`` says so.

    Args:
        target: what was asked.
        layers: what the engine tells.
        graph: the ONNX graph that the engine took.
        spec: for ``verify.min_precision_share`` and the sizes of the axes.
        kept: nodes that the conversion left in fp32.
    """
    sizes = {name: axis.opt for name, axis in spec.dynamic_axes.items()}
    shares, source, not_run = _shares(target, layers, graph, sizes)
    share = PrecisionShare(
        asked=target.precision,
        source=source,
        shares=shares,
        floor=spec.verify.min_precision_share,
        in_model=_in_model(target, graph, sizes),
        kept=tuple(kept),
    )
    return share, (*not_run, *_tf32(target))


_Found = tuple[dict[str, float], str, tuple[str, ...]]


def _shares(
    target: BuildTarget, layers: Sequence[Layer], graph: Path, sizes: Mapping[str, int]
) -> _Found:
    engine = target.engine
    if any(layer.precision for layer in layers):
        return _told(layers, graph, sizes, engine)
    if get_builder(engine).from_source:
        source = f"{engine} does not tell, and has no ONNX graph to read it from"
        return {}, source, (f"precision: {source}",)
    found: dict[str, float] = {str(name): s for name, s in compute_shares(graph, sizes).items()}
    if not found:
        return {}, "the graph computes nothing", ()
    return found, f"from the graph; {engine} does not tell", ()


def _in_model(target: BuildTarget, graph: Path, sizes: Mapping[str, int]) -> float:
    """What a model that nothing was asked of has in fp32 itself; 1 for what is converted."""
    if target.precision != "fp32" or get_builder(target.engine).from_source:
        return 1.0
    own = compute_shares(graph, sizes)
    return own.get("fp32", 0.0) if own else 1.0


def _told(layers: Sequence[Layer], graph: Path, sizes: Mapping[str, int], engine: str) -> _Found:
    """Shares of the layers, weighted by the best that is known of their costs."""
    if any(layer.cost for layer in layers):
        weighted = [(layer.precision, layer.cost) for layer in layers]
        return _normal(weighted), f"told by {engine}, weighted by its layers' cost", ()
    costs = {name: cost for name, (_, cost) in node_costs(graph, sizes).items()}
    weighted = [(layer.precision, _cost(layer, costs)) for layer in layers]
    if costs and sum(weight for _, weight in weighted) >= COVERED * sum(costs.values()):
        source = f"told by {engine}, weighted by the graph's multiply-accumulates"
        return _normal(weighted), source, ()
    heavy = [layer for layer in layers if HEAVY.search(layer.op.lower())]
    once = [(layer.precision, 1.0) for layer in heavy or layers if heavy or layer.precision]
    return _normal(once), f"told by {engine}; each computing layer counts once", ()


def _cost(layer: Layer, costs: Mapping[str, float]) -> float:
    """The cost of the graph's nodes that a layer is named after."""
    if layer.name in costs:
        return costs[layer.name]
    return sum(costs.get(name, 0.0) for name in JOINED.split(layer.name))


def _normal(weighted: Iterable[tuple[str, float]]) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for precision, weight in weighted:
        totals[precision or UNKNOWN] += weight
    whole = sum(totals.values())
    return {name: weight / whole for name, weight in sorted(totals.items()) if weight > 0}


def _tf32(target: BuildTarget) -> tuple[str, ...]:
    """Rounding inside a multiplication is in no graph and in no inspector; engines leave it off."""
    if target.device != "cuda" or not _allows_tf32(target.options):
        return ()
    return ("precision: the options allow TF32: how much of fp32 is rounded to it is not told",)


def _allows_tf32(options: Mapping[str, Any]) -> bool:
    return any(
        _allows_tf32(cast("Mapping[str, Any]", value))
        if isinstance(value, Mapping)
        else "tf32" in name and bool(value)
        for name, value in options.items()
    )
