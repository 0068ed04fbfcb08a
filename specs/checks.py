"""Checks that look at several fields of a spec at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from specs._translate import faults_of
from specs.engines import AUTO, engine_languages
from specs.faults import Fault, Path, nearest
from specs.flow import check_postprocess, check_preprocess

if TYPE_CHECKING:
    from specs.schema import Export, Rename, Replicas, Spec, Target, TensorSpec, Weights

__all__ = ["rename", "replicas", "spec", "weights"]

ONLY_DYNAMO = (
    "custom_translations",
    "dump_exported_program",
    "external_data",
    "optimize",
    "profile",
    "report",
    "verify",
)
ONLY_TORCHSCRIPT = (
    "autograd_inlining",
    "custom_opsets",
    "do_constant_folding",
    "export_modules_as_functions",
    "operator_export_type",
    "training",
)
MAX_BATCH = 65_536
"""Items; the largest batch of ImageNet's pictures that a GPU holds is a few thousand."""
MAX_GIB = 16
"""Of all inputs of the largest batch."""
BATCH_HINT = (
    "max is the largest batch that the engine computes at once, and every build runs it; requests "
    "of more items are split"
)
OPSETS = {"dynamo": (18, 26), "torchscript": (9, 20)}
"""What torch 2.14's exporters honour; outside, dynamo silently writes another opset."""


def weights(value: Weights) -> Iterator[Fault]:
    """Exactly one origin, and a hash for what comes from the network."""
    given = [name for name in ("url", "path", "random") if getattr(value, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        yield Fault(
            (), "weights_origin", f"expected exactly one of url, path, random; found {found}"
        )
    if value.url and not value.sha256:
        hint = "add the file's SHA-256, as `sha256sum FILE` prints it"
        yield Fault((), "sha256_missing", "weights from a url need sha256", hint)
    if value.random and value.sha256:
        yield Fault(("sha256",), "sha256_unused", "random weights have no sha256", "remove it")


def rename(value: Rename) -> Iterator[Fault]:
    """``from`` is a regular expression, and ``to`` fits its groups."""
    try:
        # Fails for a group that `from` does not have, though nothing is replaced.
        re.sub(value.from_, value.to, "")
    except (re.error, IndexError, RecursionError, OverflowError) as error:
        yield Fault(("from",), "regex", f"no rewriting for re.sub: {error}")


def replicas(value: Replicas) -> Iterator[Fault]:
    """Bounds in order."""
    if value.min > value.max:
        yield Fault((), "replicas", f"min {value.min} is more than max {value.max}")


def spec(value: Spec) -> Iterator[Fault]:
    """Every check across the parts of a spec."""
    yield from _source(value)
    yield from _dims(value)
    yield from _batch(value)
    yield from _export(value.export, value)
    yield from _targets(value.targets)
    yield from _int8(value)
    yield from check_preprocess(value)
    yield from check_postprocess(value)
    yield from _accuracy(value)


def _source(value: Spec) -> Iterator[Fault]:
    source = value.model
    if source.weights == "required" and value.weights is None:
        hint = "add weights: {url, sha256}, {path} or {random: {seed: 0}}"
        yield Fault(("weights",), "weights_missing", f"a {source.name} model needs weights", hint)
    if source.weights == "forbidden" and value.weights is not None:
        message = f"a model from '{source.name}' holds its own weights"
        yield Fault(("weights",), "weights_unused", message, "remove weights")


def _dims(value: Spec) -> Iterator[Fault]:
    used: set[str] = set()
    batch = next(iter(value.inputs.values())).shape[0]
    for kind in ("inputs", "outputs"):
        tensors = value.inputs if kind == "inputs" else value.outputs
        for name, tensor in tensors.items():
            names = {dim for dim in tensor.shape if isinstance(dim, str)}
            used |= names
            if tensor.shape[0] != batch:
                message = f"the first dimension is {tensor.shape[0]}, the batch is {batch}"
                yield Fault((kind, name, "shape"), "batch_differs", message)
                names.discard(str(tensor.shape[0]))
            for dim in sorted(names - value.dynamic_axes.keys()):
                if kind == "inputs" or _is_slip(dim, value):
                    yield _undeclared((kind, name, "shape"), dim, value)
    for dim in sorted(value.dynamic_axes.keys() - used):
        hint = nearest(dim, used) if used else "name it in a shape, or remove it"
        yield Fault(("dynamic_axes", dim), "axis_unused", f"no shape uses '{dim}'", hint)


def _batch(value: Spec) -> Iterator[Fault]:
    """The largest batch is run by every build: it must be one that a machine can hold."""
    name, tensor = next(iter(value.inputs.items()))
    batch = tensor.shape[0]
    named = isinstance(batch, str) and batch in value.dynamic_axes
    if isinstance(batch, str) and not named:
        return  # told as an axis that is not there
    path: Path = ("dynamic_axes", str(batch), "max") if named else ("inputs", name, "shape")
    most = value.batch.max
    if most > MAX_BATCH:
        message = f"a batch of {most:,} items, at most {MAX_BATCH:,} are taken"
        yield Fault(path, "batch_size", message, BATCH_HINT)
        return
    gibibytes = most * sum(_item_bytes(each, value) for each in value.inputs.values()) / 2**30
    if gibibytes > MAX_GIB:
        message = f"a batch of {most:,} items has {gibibytes:,.0f} GiB of inputs, at most {MAX_GIB}"
        yield Fault(path, "batch_size", message, BATCH_HINT)


def _item_bytes(tensor: TensorSpec, value: Spec) -> int:
    """Bytes of one item of an input, other axes at their ``opt``."""
    axes = value.dynamic_axes
    named = [axes[dim].opt for dim in tensor.shape[1:] if isinstance(dim, str) and dim in axes]
    fixed = [dim for dim in tensor.shape[1:] if isinstance(dim, int)]
    return math.prod([*named, *fixed]) * np.dtype(tensor.dtype).itemsize


def _is_slip(dim: str, value: Spec) -> bool:
    """Whether an output's dim is a declared one, misspelt.

    Others follow from the graph and need no range; ``out_height`` is no slip for ``height``.
    """
    derived = any(axis in dim for axis in value.dynamic_axes)
    return not derived and nearest(dim, value.dynamic_axes).startswith("did you mean")


def _undeclared(path: Path, dim: str, value: Spec) -> Fault:
    known = value.dynamic_axes.keys()
    hint = (
        nearest(dim, known)
        if known
        else f"add dynamic_axes: {{{dim}: {{min: 1, opt: 8, max: 32}}}}"
    )
    return Fault(path, "axis_undeclared", f"'{dim}' is not in dynamic_axes", hint)


def _export(export: Export, value: Spec) -> Iterator[Fault]:
    # A resolved spec, which names every field, must be valid as well.
    fields = type(export).model_fields
    defaults = {name: fields[name].get_default(call_default_factory=True) for name in fields}
    given = {name for name in fields if getattr(export, name) != defaults[name]}
    if not value.model.exporters:
        for option in sorted(given - {"opset", "ir_version"}):
            message = f"'{value.model.name}' is not exported, so {option} has no effect"
            yield Fault(("export", option), "option_unused", message, "remove it")
        return
    if export.exporter not in value.model.exporters:
        message = f"the {export.exporter} exporter does not take '{value.model.name}'"
        hint = f"use exporter: {value.model.exporters[0]}"
        yield Fault(("export", "exporter"), "exporter_source", message, hint)
    foreign = ONLY_TORCHSCRIPT if export.exporter == "dynamo" else ONLY_DYNAMO
    for option in (name for name in foreign if name in given):
        other = "torchscript" if export.exporter == "dynamo" else "dynamo"
        message = f"the {export.exporter} exporter ignores {option}"
        yield Fault(
            ("export", option), "option_exporter", message, f"remove it, or use exporter: {other}"
        )
    low, high = OPSETS[export.exporter]
    if not low <= export.opset <= high:
        message = f"the {export.exporter} exporter writes opset {low} to {high}, not {export.opset}"
        hint = "use exporter: torchscript" if export.opset < low else f"use opset: {high}"
        yield Fault(("export", "opset"), "opset_exporter", message, hint)
    if not export.export_params:
        message = "a graph without its weights can be neither run nor proven"
        yield Fault(("export", "export_params"), "export_params", message, "remove export_params")


def _targets(targets: tuple[Target, ...]) -> Iterator[Fault]:
    if not targets:
        yield Fault(("targets",), "targets_empty", "expected at least one target")
    seen: set[str] = set()
    for index, target in enumerate(targets):
        yield from _target(target, ("targets", index))
        if target.variant in seen:
            message = f"'{target.variant}' stands twice"
            yield Fault(("targets", index), "target_twice", message, "remove one")
        seen.add(target.variant)


def _target(target: Target, path: Path) -> Iterator[Fault]:
    engines = engine_languages()
    if target.engine == AUTO:
        if target.options:
            message = "engine: auto has no options"
            yield Fault((*path, "options"), "option_engine", message, "name the engine")
        return
    engine = engines.get(target.engine)
    if engine is None:
        message = f"unknown engine '{target.engine}'"
        hint = nearest(target.engine, [*engines, AUTO])
        yield Fault((*path, "engine"), "engine_unknown", message, hint)
        return
    if target.device and target.device not in engine.devices:
        message = f"{engine.name} runs on {', '.join(engine.devices)}, not {target.device}"
        yield Fault((*path, "device"), "engine_device", message)
    possible = engine.precisions_on(target.devices[0])
    if target.precision not in (*possible, AUTO):
        place = f"{engine.name} on {target.devices[0]}"
        message = f"{place} computes in {', '.join(possible)}, not {target.precision}"
        yield Fault((*path, "precision"), "engine_precision", message)
    try:
        options = engine.Options.model_validate(target.options)
    except ValidationError as error:
        for fault in faults_of(error, engine.Options, target.options):
            yield replace(fault, path=(*path, "options", *fault.path))
        return
    for name in options.without_effect(target.devices[0]):
        message = f"{name} does nothing on {target.devices[0]}"
        yield Fault((*path, "options", name), "option_device", message, "remove it")


def _int8(value: Spec) -> Iterator[Fault]:
    """What quantisation is calibrated with and judged by must be there."""
    for index, target in enumerate(value.targets):
        if target.precision != "int8":
            continue
        path: Path = ("targets", index, "precision")
        if value.verify.accuracy is None and value.verify.tolerance.int8 is None:
            message = "int8 needs something to judge it by"
            hint = "add verify.accuracy (labels, max_drop), or verify.tolerance.int8"
            yield Fault(path, "int8_unjudged", message, hint)
        static = target.quantize.mode == "static"
        if static and value.calibration is None and not value.verify.samples:
            message = "int8 needs samples to calibrate with"
            hint = "add calibration: {samples: ...}, or quantize: {mode: dynamic}"
            yield Fault(path, "int8_uncalibrated", message, hint)


def _accuracy(value: Spec) -> Iterator[Fault]:
    if value.verify.accuracy is None:
        return
    shapes = [output.shape for output in value.outputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != len(("batch", "classes")):
        message = "accuracy needs one output of shape [batch, classes]"
        yield Fault(("verify", "accuracy"), "accuracy_output", message, "remove accuracy")
