"""Whether the steps of a spec fit each other and the model, told at the step that does not."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from specs.faults import Fault, Path, nearest
from specs.ops import GEOMETRY, Op, Stage
from specs.values import FlowError, Value, dims_fit, show_shape

if TYPE_CHECKING:
    from specs.schema import Spec

__all__ = [
    "answer_type",
    "carried",
    "check_postprocess",
    "check_preprocess",
    "postprocess_start",
    "preprocess_start",
    "walk",
]


def preprocess_start(spec: Spec) -> Value:
    """What the first step gets: a file's bytes, a text, or one item of the model's only input."""
    starts = type(spec.preprocess[0]).starts if spec.preprocess else None
    if starts:
        return Value(starts)
    tensor = next(iter(spec.inputs.values()))
    return Value("tensor", tensor.dtype, tensor.shape[1:])


def postprocess_start(spec: Spec) -> Value:
    """What the first step gets: the model's outputs, with their batch dimension."""
    outputs = {n: Value("tensor", each.dtype, each.shape) for n, each in spec.outputs.items()}
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    return Value("tensors", fields=outputs)


def answer_type(spec: Spec) -> Value:
    """What the last step of ``postprocess`` gives, or the model where there is none."""
    value = postprocess_start(spec)
    for _, _, result in walk(spec.postprocess, value):
        value = result
    return value


def carried(spec: Spec) -> tuple[str, ...]:
    """Names of what travels beside an item from its pre-processing to its post-processing."""
    return tuple(dict.fromkeys(name for step in spec.postprocess for name in step.carried()))


def walk(steps: tuple[Op, ...], value: Value) -> Iterator[tuple[Op, Value, Value]]:
    """Each step with the value that it takes and the one that it gives; may raise FlowError."""
    for number, each in enumerate(steps, start=1):
        step = each.before(steps[number:])
        result = step.flow(value)
        yield step, value, result
        value = result


def check_preprocess(spec: Spec) -> Iterator[Fault]:
    """Each step takes what the one before gives, and the last gives the model's inputs."""
    if not spec.preprocess:
        return
    start = preprocess_start(spec)
    if start.kind == "tensor" and len(spec.inputs) != 1:
        message = f"preprocess fills one input, the model has {len(spec.inputs)}"
        yield Fault(("preprocess",), "preprocess_inputs", message, "remove it to send tensors")
        return
    value = yield from _walk_faults("preprocess", spec.preprocess, start)
    if value is None:
        return
    last = ("preprocess", len(spec.preprocess) - 1)
    parts = value.fields or {next(iter(spec.inputs)): value}
    if parts.keys() != spec.inputs.keys():
        found, wanted = ", ".join(parts), ", ".join(spec.inputs)
        message = f"the last step gives {found}, the model takes {wanted}"
        yield Fault(last, "preprocess_inputs", message, "name them alike")
        return
    for name, part in parts.items():
        yield from _check_input(last, name, part, spec)


def _check_input(last: Path, name: str, value: Value, spec: Spec) -> Iterator[Fault]:
    tensor = spec.inputs[name]
    if value.dtype != tensor.dtype:
        message = f"the last step gives {value.dtype}, input '{name}' is {tensor.dtype}"
        yield Fault(last, "preprocess_dtype", message, f"add - cast: {tensor.dtype}")
    if not dims_fit(value.shape, tensor.shape[1:]):
        want = show_shape(tensor.shape[1:])
        message = f"the last step gives {show_shape(value.shape)}, an item of '{name}' is {want}"
        yield Fault(last, "preprocess_shape", message, "resize, crop or change the layout to match")


def check_postprocess(spec: Spec) -> Iterator[Fault]:
    """Each step takes what the one before gives, and finds what it reads beside that."""
    if not spec.postprocess:
        return
    value = yield from _walk_faults("postprocess", spec.postprocess, postprocess_start(spec))
    if value is not None and value.kind == "boxes":
        message = "the last step gives candidate boxes, which are no answer"
        last = ("postprocess", len(spec.postprocess) - 1)
        yield Fault(last, "postprocess_answer", message, "add - nms")
    for index, step in enumerate(spec.postprocess):
        for name in step.carried():
            yield from _check_carried(("postprocess", index, type(step).name), name, spec)


def _check_carried(path: Path, name: str, spec: Spec) -> Iterator[Fault]:
    if name == GEOMETRY and any(type(step).name == "five_crop" for step in spec.preprocess):
        message = "coordinates cannot go back through five_crop: there are five places"
        yield Fault(path, "no_geometry", message, "use center_crop")
    elif name == GEOMETRY:
        if preprocess_start(spec).kind != "encoded":
            message = "there is no image that coordinates could go back to"
            yield Fault(path, "no_geometry", message, "start preprocess with - decode_image: RGB")
    elif name not in spec.inputs:
        message = f"the model has no input '{name}'"
        yield Fault(path, "unknown_input", message, nearest(name, spec.inputs))


def _walk_faults(
    stage: Stage, steps: tuple[Op, ...], value: Value
) -> Generator[Fault, None, Value | None]:
    """Faults of the steps; returns the last value, or None after a fault."""
    for index, step in enumerate(steps):
        path = (stage, index)
        if stage not in step.stages:
            message = f"{type(step).name} is no {stage} step"
            yield Fault(path, "step_stage", message, f"move it to {', '.join(step.stages)}")
            return None
        if step.starts and index:
            message = f"{type(step).name} takes a request's item as it comes"
            yield Fault((*path, type(step).name), "step_order", message, "make it the first step")
            return None
        try:
            value = step.before(steps[index + 1 :]).flow(value)
        except FlowError as error:
            yield Fault((*path, type(step).name), "step_order", error.message, error.hint)
            return None
    return value
