"""Drift: every intermediate tensor of a graph against the fp32 graph's, by its name."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import shape_inference

from compiler.audit.opened import OpenGraph, label
from runtime.compare import Tolerance, worst_gap
from runtime.golden import Golden, batch_of
from runtime.tensors import Array, Tensors
from specs.audit import Drift, LayerDrift
from specs.precision import TolerancePair

__all__ = [
    "PLAIN",
    "Probe",
    "Rule",
    "excess_of",
    "graph_drift",
    "layer_drift",
    "probe_of",
    "worst_of",
]

BUDGET = 256_000_000
"""Bytes of intermediate tensors that are fetched at once from each of the two graphs."""
FIRST_PART = 16
"""How many tensors are fetched at first; their size says how many of the next fit."""
PLAIN = "node by node, by ONNX Runtime on the CPU"
EMULATED = "emulated node by node: computed in fp32, and rounded to its type after each node"
MEASURED = 0.3
"""Relative RMS error (about 10 dB) that a layer may have where the spec gives no tolerance: in
int8, with scales per channel, MobileNetV2's layers with ImageNet weights have 0.01 to 0.16."""


@dataclass(frozen=True)
class Probe:
    """One batch that is run through both sides.

    Args:
        case: ``samples, batch 1``.
        inputs: the graph's inputs, with the batch dimension.
    """

    case: str
    inputs: Tensors


def probe_of(golden: Golden) -> Probe:
    """The smallest batch of a golden case: every tensor of it must fit into memory twice."""
    size = golden.case.batches[0]
    return Probe(f"{golden.case.name}, batch {size}", batch_of(golden.case.inputs, size, 0))


@dataclass(frozen=True)
class Rule:
    """What one layer may differ by.

    Args:
        tolerance: the variant's tolerance. It was given for outputs, so its absolute part is
            taken in units of the tensor's RMS where that is above 1. None: the relative RMS error
            is at most ``MEASURED``.
    """

    tolerance: TolerancePair | None

    def __str__(self) -> str:
        if self.tolerance is None:
            return f"RMS of the difference <= {MEASURED:g} * RMS of the reference"
        pair = self.tolerance
        return f"|difference| <= {pair.atol:g} * max(1, RMS) + {pair.rtol:g} * |reference|"

    def excess(self, found: Array, reference: Array, scale: float, relative: float) -> float:
        """The difference as a multiple of what is allowed; infinite where it is not finite."""
        if self.tolerance is None:
            return relative / MEASURED
        allowed = Tolerance(self.tolerance.atol * max(1.0, scale), self.tolerance.rtol)
        return worst_gap({"": found}, {"": reference}, allowed).excess


def layer_drift(name: str, node: str, found: Array, reference: Array, rule: Rule) -> LayerDrift:
    """How far one tensor lies from the reference's."""
    dtype = str(found.dtype)
    if found.shape != reference.shape:
        return LayerDrift(
            name=name, node=node, dtype=dtype, max_abs=None, relative=None, excess=None
        )
    left, right = found.astype(np.float64), reference.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, left - right)
        largest = float(np.abs(difference).max(initial=0.0))
        scale = _rms(right[np.isfinite(right)])
        error = _rms(difference)
    relative = error / scale if scale else (np.inf if error else 0.0)
    excess = rule.excess(left, right, scale, relative)
    return LayerDrift(
        name=name,
        node=node,
        dtype=dtype,
        max_abs=_finite(largest),
        relative=_finite(relative),
        excess=_finite(excess),
    )


def _rms(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def graph_drift(graph: Path, reference: Path, probe: Probe, rule: Rule, shown: str = "") -> Drift:
    """Compare the tensors that both graphs have by name; a conversion keeps the names.

    Args:
        graph: the graph of the variant.
        reference: the fp32 graph.
        probe: the batch to run.
        rule: what a layer may differ by.
        shown: the file as a person knows it; its name by default.

    Raises:
        EngineError: one of the graphs cannot be run node by node on the CPU.
    """
    told = _Told.of(graph)
    with _opened(graph, told) as left, OpenGraph(reference) as right:
        known = set(right.tensors)
        shared = [name for name in left.tensors if name in known and name in told.nodes]
        layers = [
            layer_drift(name, told.nodes[name], found, expected, rule)
            for name, found, expected in _pairs(left, right, shared, probe.inputs)
        ]
    # In the graph's order, whatever the first layer beyond the rule takes came before it.
    first = (layer.name for layer in layers if layer.beyond)
    return Drift(
        reference="the fp32 graph",
        graph=shown or graph.name,
        case=probe.case,
        how=EMULATED if told.narrow else PLAIN,
        rule=str(rule),
        layers=tuple(told.typed(layer) for layer in layers),
        not_compared=len(known) - len(layers),
        first=next(first, None),
        worst=worst_of(layers),
    )


@dataclass(frozen=True)
class _Told:
    """What the graph itself says of its tensors: which node gives them, and their types."""

    nodes: dict[str, str]
    types: dict[str, str]

    @classmethod
    def of(cls, graph: Path) -> _Told:
        proto = onnx.load(str(graph), load_external_data=False)
        nodes = {name: label(node) for node in proto.graph.node for name in node.output}
        values = (*shape_inference.infer_shapes(proto).graph.value_info, *proto.graph.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        return cls(nodes, {name: _dtype(kind) for name, kind in types.items() if kind})

    @property
    def narrow(self) -> bool:
        """Whether there are types that a CPU does not compute in as a GPU does."""
        return bool({"float16", "bfloat16"} & set(self.types.values()))

    def typed(self, layer: LayerDrift) -> LayerDrift:
        """The layer with its type in the graph, which the emulation widens."""
        return layer.model_copy(update={"dtype": self.types.get(layer.name, layer.dtype)})


def _dtype(kind: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind))


@contextmanager
def _opened(graph: Path, told: _Told) -> Generator[OpenGraph, None, None]:
    """The graph; one with float16 or bfloat16 in it emulated, with the names of its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        if told.narrow:
            from compiler.precision.emulate import emulate_file

            emulate_file(graph, graph := Path(folder) / "emulated.onnx")
        with OpenGraph(graph) as opened:
            yield opened


def worst_of(layers: Sequence[LayerDrift]) -> str | None:
    """The layer with the largest excess; None where all are equal to the reference's."""
    worst = max(layers, key=excess_of, default=None)
    return worst.name if worst is not None and excess_of(worst) > 0 else None


def excess_of(layer: LayerDrift) -> float:
    """The excess as a number that can be compared."""
    return np.inf if layer.excess is None else layer.excess


def _pairs(
    left: OpenGraph, right: OpenGraph, names: Sequence[str], inputs: Tensors
) -> Iterator[tuple[str, Array, Array]]:
    """Both sides of every tensor, as many at a time as the budget holds."""
    seen_as = _dequantized(left)
    start, count = 0, FIRST_PART
    while start < len(names):
        part = names[start : start + count]
        places = {name: seen_as.get(name, name) for name in part}
        found = left.fetch(list(dict.fromkeys(places.values())), inputs)
        expected = right.fetch(part, inputs)
        for name, place in places.items():
            if _comparable(found[place]) and _comparable(expected[name]):
                yield name, found[place], expected[name]
        start += len(part)
        size = max(_bytes(found), _bytes(expected)) / len(part)
        count = max(1, int(BUDGET / max(size, 1.0)))


def _dequantized(graph: OpenGraph) -> dict[str, str]:
    """For each tensor that goes into a Q/DQ pair alone, what comes out of it.

    That is what later nodes see. A quantizer leaves a Relu to the pair's clipping, so what goes in
    may not be the layer's result yet.
    """
    takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.nodes:
        for name in node.input:
            takers[name].append(node)
    seen_as: dict[str, str] = {}
    for name, nodes in takers.items():
        if [node.op_type for node in nodes] != ["QuantizeLinear"] or name in graph.outputs:
            continue
        pairs = [node for node in takers[nodes[0].output[0]] if node.op_type == "DequantizeLinear"]
        if pairs and nodes[0].input[0] == name:
            seen_as[name] = pairs[0].output[0]
    return seen_as


def _comparable(value: Array) -> bool:
    """Whether it holds numbers: a node may give sequences and strings as well."""
    return getattr(value, "dtype", np.dtype(object)).kind in "biuf"


def _bytes(tensors: Mapping[str, Array]) -> int:
    return sum(getattr(array, "nbytes", 0) for array in tensors.values())
