"""``placement: graph``: the steps that ONNX can express become nodes around the model.

Decoding stays in Python. As many of the last steps of ``preprocess`` as possible go in front of the
model, so that the graph takes uint8 images of any size, and as many of the first steps of
``postprocess`` as possible behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from compiler.processing.generate import InGraph
from compiler.processing.nodes import TensorType, graph_of, model_of, type_of, typed_outputs
from specs.axes import AxisRange
from specs.errors import ProcessingError
from specs.flow import postprocess_start, preprocess_start, walk
from specs.ops import Emitted, Graph, Op, Symbols
from specs.schema import Spec, TensorSpec, image_side
from specs.values import Value

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["IMAGE", "Fusion", "fuse", "fused_steps"]

IMAGE = "image"
"""The fused graph's input: pixels [batch, image_height, image_width, channels]."""
SIDES = {"height": "image_height", "width": "image_width"}
"""The sides of an image that a step leaves open, as axes of the fused graph."""
PRE, POST, MODEL = "pre/", "post/", "model/"
"""What names of nodes and tensors begin with; MODEL only where a name would be there twice."""
OPSET = 18
"""The oldest opset in which the steps are written."""


@dataclass(frozen=True)
class Chain:
    """Some steps as nodes.

    Args:
        graph: the nodes.
        result: what they give.
        value: its type before what is left for Python.
        rest: what Python still does of the last step.
        steps: how many steps they are.
    """

    graph: Graph
    result: Symbols
    value: Value
    rest: Emitted | None = None
    steps: int = 0


@dataclass(frozen=True)
class Fusion:
    """What goes into the graph of one spec.

    Args:
        spec: the spec.
        pre: the steps before the model; none of them where no image is prepared.
        post: the steps behind it.
    """

    spec: Spec
    opset: int
    resize: Literal["product", "native"] = "product"

    @cached_property
    def pre(self) -> Chain | None:
        """As many of the last steps of ``preprocess`` as there are nodes for; None for none."""
        start = preprocess_start(self.spec)
        if start.kind != "encoded":
            return None
        taken = list(walk(self.spec.preprocess, start))
        for first in range(1, len(taken)):
            value = taken[first][1]
            chain = self._before([op for op, _, _ in taken[first:]], value)
            if chain.steps == len(taken) - first:
                return chain
        return None

    def _before(self, steps: list[Op], value: Value) -> Chain:
        """Steps on the image; whole numbers as floats, since not every engine computes in uint8."""
        floats = self.resize == "product"
        graph = Graph(self.opset, PRE, resize=self.resize, whole_floats=floats)
        pixels = graph.cast(IMAGE, "float32") if floats and value.dtype == "uint8" else IMAGE
        chain = _chain(graph, steps, value, pixels)
        if floats and chain.value.dtype == "uint8" and isinstance(chain.result, str):
            return replace(chain, result=graph.cast(chain.result, "uint8"))
        return chain

    @cached_property
    def post(self) -> Chain:
        """As many of the first steps of ``postprocess`` as there are nodes for."""
        value = postprocess_start(self.spec)
        names: Symbols = {name: name for name in value.fields} or next(iter(self.spec.outputs))
        beside = {name: name for name in self.spec.inputs}
        graph = Graph(self.opset, POST, resize=self.resize, beside=beside)
        return _chain(graph, list(self.spec.postprocess), value, names)

    @property
    def first(self) -> int:
        """The first step of ``preprocess`` that is in the graph."""
        return len(self.spec.preprocess) - (self.pre.steps if self.pre else 0)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to put into the graph."""
        return self.pre is None and not self.post.steps

    @property
    def image(self) -> Value:
        """The type of the pixels that the graph takes, one item."""
        taken = list(walk(self.spec.preprocess, preprocess_start(self.spec)))
        value = taken[self.first][1]
        shape = tuple(SIDES.get(str(dim), dim) for dim in value.shape)
        return value.but(shape=shape)

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """What the fused graph takes."""
        if self.pre is None:
            return dict(self.spec.inputs)
        batch = next(iter(self.spec.inputs.values())).shape[0]
        image = self.image
        return {IMAGE: TensorSpec(shape=(batch, *image.shape), dtype=_dtype(image.dtype))}

    @property
    def axes(self) -> dict[str, AxisRange]:
        """The axes of ``inputs`` that the spec does not declare."""
        side = image_side(self.spec.limits)
        dims = self.inputs[IMAGE].shape if self.pre else ()
        return {str(dim): side for dim in dims if dim in SIDES.values()}

    @property
    def results(self) -> dict[str, str]:
        """The graph's outputs: name, and the tensor that it is before it is named so."""
        result = self.post.result
        if not self.post.steps:
            return {name: name for name in self.spec.outputs}
        return {"processed": result} if isinstance(result, str) else dict(result)

    @property
    def in_graph(self) -> InGraph:
        """How Python meets the graph."""
        return InGraph(
            first=self.first,
            inputs={IMAGE: self.image} if self.pre else self._plain_inputs(),
            last=self.post.steps,
            outputs=tuple(self.results),
            rest=self.post.rest,
            start=self.post.value,
        )

    def _plain_inputs(self) -> dict[str, Value]:
        specs = self.spec.inputs.items()
        return {n: Value("tensor", each.dtype, each.shape[1:]) for n, each in specs}

    def for_engine(self, outputs: Mapping[str, TensorSpec]) -> Spec:
        """The spec as an engine's builder reads it: the fused graph's inputs, outputs and axes."""
        axes = {**self.spec.dynamic_axes, **self.axes}
        changes = {"inputs": self.inputs, "outputs": dict(outputs), "dynamic_axes": axes}
        return self.spec.model_copy(update=changes)


def fused_steps(fusion: Fusion) -> str:
    """The steps that are in the graph, in words."""
    before = [type(op).name for op in fusion.spec.preprocess[fusion.first :]]
    behind = [type(op).name for op in fusion.spec.postprocess[: fusion.post.steps]]
    return ", ".join(before + behind) or "none"


def _chain(graph: Graph, steps: list[Op], value: Value, x: Symbols) -> Chain:
    """Steps as nodes, as many from the first one on as can be."""
    for number, step in enumerate(steps):
        before = len(graph.nodes)
        fused = step.fuse(graph, x, value)
        if fused is None:
            del graph.nodes[before:]
            return Chain(graph, x, value, None, number)
        value, x = step.flow(value), fused.result
        if fused.rest:
            return Chain(graph, x, value, fused.rest, number + 1)
    return Chain(graph, x, value, None, len(steps))


def _dtype(name: str) -> Any:  # noqa: ANN401 - one of TensorSpec's literals
    return name


def pre_model(fusion: Fusion) -> ModelProto:
    """The steps before the model alone: what the gate looks at."""
    if fusion.pre is None or not isinstance(fusion.pre.result, str):
        raise ProcessingError("no step of preprocess is in the graph", code="nothing_fused")
    inputs = _types(fusion.inputs)
    name = next(iter(fusion.spec.inputs))
    graph = _renamed(fusion.pre.graph, {fusion.pre.result: name})
    return model_of(graph, inputs, typed_outputs(graph, inputs, [name]))


def fuse(model: ModelProto, fusion: Fusion) -> tuple[ModelProto, dict[str, TensorSpec]]:
    """The model with the steps around it, and what it gives.

    Args:
        model: the graph in the target's precision; it is not changed.
        fusion: the steps.
    """
    import onnx

    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    given = [info.name for info in merged.graph.input]
    _make_room(merged, fusion)
    moved = dict(zip(given, (info.name for info in merged.graph.input), strict=True))
    _put_before(merged, fusion)
    _put_behind(merged, fusion, moved)
    onnx.checker.check_model(merged)  # pyright: ignore[reportUnknownMemberType]
    outputs = {
        info.name: TensorSpec(shape=shape, dtype=_dtype(dtype))
        for info in merged.graph.output
        for dtype, shape in [_spec_type(info, fusion)]
    }
    return merged, outputs


def _make_room(model: ModelProto, fusion: Fusion) -> None:
    """Rename the model's own tensors that are called as something new will be."""
    new = {IMAGE} if fusion.pre else set[str]()
    new |= {name for name, tensor in fusion.results.items() if name != tensor}
    graph = model.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {info.name for info in graph.input}
    _rename_all(model, {name: f"{MODEL}{name}" for name in new & taken})


def _rename_all(model: ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors everywhere, in nested graphs as well."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            info.name = names.get(info.name, info.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs


def _put_before(model: ModelProto, fusion: Fusion) -> None:
    pre = fusion.pre
    if pre is None or not isinstance(pre.result, str):
        return
    old = model.graph.input[0].name
    part = graph_of(_renamed(pre.graph, {pre.result: old}), _types(fusion.inputs), [])
    nodes = [*part.node, *model.graph.node]
    del model.graph.node[:], model.graph.input[0]  # further ones are weights listed as inputs
    model.graph.node.extend(nodes)
    model.graph.input.insert(0, part.input[0])
    model.graph.initializer.extend(part.initializer)


def _put_behind(model: ModelProto, fusion: Fusion, moved: Mapping[str, str]) -> None:
    """Add the steps after the model; ``moved`` tells what its inputs are called now."""
    post = fusion.post
    if not post.steps:
        return
    given = dict(zip(fusion.spec.outputs, (info.name for info in model.graph.output), strict=True))
    names = {tensor: name for name, tensor in fusion.results.items()}
    graph = _renamed(post.graph, {**moved, **given, **names})
    inputs = {given[name]: each for name, each in _types(fusion.spec.outputs).items()}
    inputs |= {moved[name]: each for name, each in _types(fusion.spec.inputs).items()}
    outputs = typed_outputs(graph, inputs, list(fusion.results))
    part = graph_of(graph, inputs, outputs)
    model.graph.node.extend(part.node)
    model.graph.initializer.extend(part.initializer)
    del model.graph.output[:]
    model.graph.output.extend(part.output)


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """A copy with some tensors renamed."""

    def new(tensors: Iterable[str]) -> tuple[str, ...]:
        return tuple(names.get(name, name) for name in tensors)

    nodes = [replace(n, inputs=new(n.inputs), outputs=new(n.outputs)) for n in graph.nodes]
    return replace(graph, nodes=nodes)


def _types(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorType]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _spec_type(info: Any, fusion: Fusion) -> tuple[str, tuple[int | str, ...]]:  # noqa: ANN401 - ONNX's
    """Type of an output; a size that is not known gets a name of its own."""
    dtype, dims = type_of(info)
    batch = next(iter(fusion.spec.inputs.values())).shape[0]
    rest = [dim or f"{info.name}_{axis}" for axis, dim in enumerate(dims[1:], 1)]
    return dtype, (batch, *rest)
