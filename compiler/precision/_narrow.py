"""The rewriting itself: weights rounded, casts where types meet, everything else as it was."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compiler.precision._graphs import all_graphs, initial, local_types, opsets_of, typed
from compiler.precision._types import NAMES, Plan, plan, subgraphs

__all__ = ["Narrowed", "narrow"]

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Narrowed:
    """A graph whose float32 values became narrower.

    Args:
        proto: the graph; its inputs and outputs are as they were.
        changed: names of the nodes that work in the narrower type, in the graph's order.
        lost: names of those of them with a weight that the type cannot hold.
        fixed: op types of the nodes that have no form in the type.
    """

    proto: onnx.ModelProto
    changed: tuple[str, ...]
    lost: tuple[str, ...]
    fixed: tuple[str, ...]


def narrow(proto: onnx.ModelProto, dtype: int, keep: Collection[str]) -> Narrowed:
    """Convert a graph that ``prepared`` gave, without changing it.

    Args:
        proto: the float32 graph.
        dtype: of ``onnx.TensorProto``, FLOAT16 or BFLOAT16.
        keep: names of the nodes that stay in float32.
    """
    new = typed(proto)
    work = _Work(dtype, frozenset(keep), opsets_of(new), _names(new.graph))
    _Rewriter(work, new.graph, ChainMap(), ChainMap()).run()
    return Narrowed(new, tuple(work.changed), tuple(work.lost), tuple(work.fixed))


def _names(graph: onnx.GraphProto) -> set[str]:
    names: set[str] = set()
    for inner in all_graphs(graph):
        names.update(v.name for v in (*inner.input, *inner.initializer))
        for node in inner.node:
            names.update((node.name, *node.output))
    return names


@dataclass
class _Work:
    """What the rewriters of a graph and its subgraphs share."""

    dtype: int
    keep: frozenset[str]
    opsets: dict[str, int]
    names: set[str]
    changed: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    fixed: list[str] = field(default_factory=list[str])

    def unused(self, name: str) -> str:
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name


@dataclass
class _Weight:
    """A float32 weight, made in each type when first asked for, in the graph that owns it."""

    tensor: onnx.TensorProto
    owner: list[onnx.TensorProto]
    made: dict[int, str] = field(default_factory=dict[int, str])
    lossy: bool = False


_Forms = dict[int, str]
"""The names of one value by type."""


class _Rewriter:
    """Rewrites one graph in place; a child of its own for each subgraph."""

    def __init__(
        self,
        work: _Work,
        graph: onnx.GraphProto,
        types: ChainMap[str, onnx.TypeProto],
        forms: ChainMap[str, _Forms | _Weight],
    ) -> None:
        self.work = work
        self.graph = graph
        self.types = types.new_child(local_types(graph))
        self.forms = forms.new_child()
        self.outputs = {value.name for value in graph.output}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def run(self) -> None:
        self._take_weights()
        old = list(self.graph.node)
        for node in old:
            if any(subgraphs(node)):
                self._control(node)
            else:
                self._node(node)
        for value in self.graph.output:
            if self._is_float(value.name):
                value.name = self._form(value.name, FLOAT)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(self.weights)
        self._describe()

    def _take_weights(self) -> None:
        fixed = self.outputs | {value.name for value in self.graph.input}
        kept: list[onnx.TensorProto] = []
        for tensor in self.graph.initializer:
            if tensor.data_type == FLOAT and tensor.name not in fixed:
                self.forms[tensor.name] = _Weight(tensor, self.weights)
            else:
                kept.append(tensor)
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _control(self, node: onnx.NodeProto) -> None:
        """What crosses the edge of a subgraph stays float32; the inside is converted."""
        for place, name in enumerate(node.input):
            if self._is_float(name):
                node.input[place] = self._form(name, FLOAT)
        for inner in subgraphs(node):
            _Rewriter(self.work, inner, self.types, self.forms).run()
        self.nodes.append(node)

    def _node(self, node: onnx.NodeProto) -> None:
        work = self.work
        wanted = plan(node, self.types, work.dtype, work.opsets, keep=node.name in work.keep)
        self._note(node, wanted)
        for place, dtype in enumerate(wanted.inputs):
            if dtype is not None:
                node.input[place] = self._form(node.input[place], dtype, node.name)
        for place, dtype in enumerate(wanted.outputs):
            if dtype == work.dtype:
                node.output[place] = self._store(node.output[place])
                _set_attribute(node, work.dtype)
        self.nodes.append(node)

    def _note(self, node: onnx.NodeProto, wanted: Plan) -> None:
        if wanted.narrow:
            self.work.changed.append(node.name)
        elif node.name not in self.work.keep and any(wanted.inputs):
            self.work.fixed.append(node.op_type)

    def _store(self, name: str) -> str:
        """Where the narrow form of an output goes: the graph's own outputs stay float32."""
        stored = self._fresh(name, self.work.dtype) if name in self.outputs else name
        self.forms[name] = {self.work.dtype: stored}
        return stored

    def _form(self, name: str, dtype: int, node: str = "") -> str:
        """The name of a value in a type; a cast or a rounded weight is made where there is none."""
        known = self.forms.get(name) or {FLOAT: name}
        if isinstance(known, _Weight):
            return self._weight(known, dtype, node)
        if dtype not in known:
            source = next(iter(known.values()))
            new = name if self._leaves(name, dtype) else self._fresh(name, dtype)
            self.nodes.append(self._cast(source, new, dtype))
            self.forms[name] = known = {**known, dtype: new}
        return known[dtype]

    def _leaves(self, name: str, dtype: int) -> bool:
        return dtype == FLOAT and name in self.outputs

    def _cast(self, source: str, target: str, dtype: int) -> onnx.NodeProto:
        name = self.work.unused(f"cast.{target}")
        return helper.make_node("Cast", [source], [target], name=name, to=dtype)

    def _weight(self, weight: _Weight, dtype: int, node: str) -> str:
        if dtype not in weight.made:
            narrow = dtype == self.work.dtype
            # Whoever asks first gets the name that the graph gave.
            name = self._fresh(weight.tensor.name, dtype) if weight.made else weight.tensor.name
            made = initial(weight.tensor, dtype, name)
            weight.made[dtype] = name
            weight.lossy = weight.lossy or (narrow and _is_lossy(weight.tensor, made))
            weight.owner.append(made)
        if weight.lossy and dtype == self.work.dtype:
            self.work.lost.append(node)
        return weight.made[dtype]

    def _fresh(self, name: str, dtype: int) -> str:
        return self.work.unused(f"{name}.{NAMES[dtype]}")

    def _is_float(self, name: str) -> bool:
        kind = self.types.get(name)
        return kind is not None and kind.tensor_type.elem_type == FLOAT

    def _describe(self) -> None:
        """Say the new types of the values that the graph describes; weights say their own."""
        described = list(self.graph.value_info)
        del self.graph.value_info[:]
        for value in described:
            forms = self.forms.get(value.name)
            if isinstance(forms, _Weight):
                continue
            if forms and forms.get(self.work.dtype) == value.name:
                value.type.tensor_type.elem_type = self.work.dtype
            self.graph.value_info.append(value)


def _set_attribute(node: onnx.NodeProto, dtype: int) -> None:
    """An attribute that says the output's type follows it."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            attribute.i = dtype
        if node.op_type == "ConstantOfShape" and attribute.name == "value":
            attribute.t.CopyFrom(initial(attribute.t, dtype, attribute.t.name))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        zero = helper.make_tensor("value", FLOAT, [1], [0.0])
        node.attribute.append(helper.make_attribute("value", initial(zero, dtype, "value")))


def _is_lossy(before: onnx.TensorProto, after: onnx.TensorProto) -> bool:
    """Whether a value became infinite, or all that was not zero vanished."""
    old = numpy_helper.to_array(before)
    new = numpy_helper.to_array(after).astype(np.float32)
    overflow = bool((np.isfinite(old) & ~np.isfinite(new)).any())
    return overflow or bool(old.any() and not new.any())
