"""Whether the steps of a spec fit each other and the model, told at the step that does not."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from specs.faults import Fault
from specs.ops import Op, Stage
from specs.values import FlowError, Value, dims_fit, show_shape

if TYPE_CHECKING:
    from specs.schema import Spec

__all__ = ["check_postprocess", "check_preprocess", "postprocess_start", "preprocess_start", "walk"]


def preprocess_start(spec: Spec) -> Value:
    """What the first step gets: a file's bytes, or one item of the model's only input."""
    if spec.preprocess and type(spec.preprocess[0]).name == "decode_image":
        return Value("encoded")
    tensor = next(iter(spec.inputs.values()))
    return Value("tensor", tensor.dtype, tensor.shape[1:])


def postprocess_start(spec: Spec) -> Value:
    """What the first step gets: the model's only output, with its batch dimension."""
    tensor = next(iter(spec.outputs.values()))
    return Value("tensor", tensor.dtype, tensor.shape)


def walk(steps: tuple[Op, ...], value: Value) -> Iterator[tuple[Op, Value, Value]]:
    """Each step with the value that it takes and the one that it gives; may raise FlowError."""
    for step in steps:
        result = step.flow(value)
        yield step, value, result
        value = result


def check_preprocess(spec: Spec) -> Iterator[Fault]:
    """Each step takes what the one before gives, and the last gives the model's input."""
    if not spec.preprocess:
        return
    if len(spec.inputs) != 1:
        message = f"preprocess fills one input, the model has {len(spec.inputs)}"
        yield Fault(("preprocess",), "preprocess_inputs", message, "remove it to send tensors")
        return
    value = yield from _walk_faults("preprocess", spec.preprocess, preprocess_start(spec))
    if value is None:
        return
    (name, tensor), *_ = spec.inputs.items()
    last = ("preprocess", len(spec.preprocess) - 1)
    if value.dtype != tensor.dtype:
        message = f"the last step gives {value.dtype}, input '{name}' is {tensor.dtype}"
        yield Fault(last, "preprocess_dtype", message, f"add - cast: {tensor.dtype}")
    if not dims_fit(value.shape, tensor.shape[1:]):
        want = show_shape(tensor.shape[1:])
        message = f"the last step gives {show_shape(value.shape)}, an item of '{name}' is {want}"
        yield Fault(last, "preprocess_shape", message, "resize, crop or change the layout to match")


def check_postprocess(spec: Spec) -> Iterator[Fault]:
    """Each step takes what the one before gives."""
    if not spec.postprocess:
        return
    if len(spec.outputs) != 1:
        message = f"postprocess takes one output, the model has {len(spec.outputs)}"
        yield Fault(("postprocess",), "postprocess_outputs", message, "remove it to get tensors")
        return
    yield from _walk_faults("postprocess", spec.postprocess, postprocess_start(spec))


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
        try:
            value = step.flow(value)
        except FlowError as error:
            yield Fault((*path, type(step).name), "step_order", error.message, error.hint)
            return None
    return value
