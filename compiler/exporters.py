"""PyTorch to ONNX, through either of torch's two exporters."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import contextlib
import inspect
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import onnx
import torch

from compiler.cases import example_inputs
from compiler.golden import run_model
from compiler.quiet import quiet
from compiler.sources import Model, TorchModel
from compiler.sources.onnx import OnnxModel
from compiler.sources.python import import_file
from specs.errors import DeploycError, ExportError
from specs.schema import Export, Spec

__all__ = ["PLACES", "dynamic_shapes", "export", "torch_reason"]

PLACES = {
    "model": "model",
    "args": "inputs",
    "f": "",
    "kwargs": "export.forward_kwargs",
    "verbose": "export.verbose",
    "input_names": "inputs",
    "output_names": "outputs",
    "opset_version": "export.opset",
    "dynamo": "export.exporter",
    "external_data": "export.external_data",
    "dynamic_shapes": "dynamic_axes",
    "custom_translation_table": "export.custom_translations",
    "report": "export.report",
    "optimize": "export.optimize",
    "verify": "export.verify",
    "profile": "export.profile",
    "dump_exported_program": "export.dump_exported_program",
    "artifacts_dir": "",
    "export_params": "export.export_params",
    "keep_initializers_as_inputs": "export.keep_initializers_as_inputs",
    "dynamic_axes": "dynamic_axes",
    "training": "export.training",
    "operator_export_type": "export.operator_export_type",
    "do_constant_folding": "export.do_constant_folding",
    "custom_opsets": "export.custom_opsets",
    "export_modules_as_functions": "export.export_modules_as_functions",
    "autograd_inlining": "export.autograd_inlining",
}
"""Where each parameter of ``torch.onnx.export`` stands in a spec; "" for files, which are ours."""

TRAINING = {
    "eval": torch.onnx.TrainingMode.EVAL,
    "preserve": torch.onnx.TrainingMode.PRESERVE,
    "train": torch.onnx.TrainingMode.TRAINING,
}
TOLD = 12
"""Lines of an exporter's message that an error repeats."""
WIDTH = 300
"""Characters of each of these lines: torch writes expressions of thousands."""


def export(model: Model, spec: Spec, folder: Path, logs: Path) -> onnx.ModelProto:
    """The ONNX graph of a model, as torch writes it.

    Args:
        model: what ``load_model`` gave.
        spec: says which exporter, with which options, names and dynamic axes.
        folder: the spec's folder, for custom translations.
        logs: where reports go that the spec asks for.

    Raises:
        ExportError: torch cannot export it; with torch's own reason.
    """
    if isinstance(model, OnnxModel):
        copy = onnx.ModelProto()  # the model stays the reference; what is built is changed
        copy.CopyFrom(model.proto)
        return copy
    assert isinstance(model, TorchModel)  # noqa: S101 - there are these two
    run = _dynamo if spec.export.exporter == "dynamo" else _torchscript
    chatty = bool(spec.export.verbose or spec.export.verify)
    try:
        with _loud() if chatty else quiet():
            return run(model, spec, folder, logs)
    except DeploycError:
        raise
    except Exception as error:  # torch's exporters raise dozens of kinds
        _raise_missing(error)
        run_model(model, spec, example_inputs(spec))  # raises where the fault is the model's
        reason = torch_reason(error)
        hint = _hint(reason, spec.export)
        raise ExportError(f"{spec.export.exporter} export failed: {reason}", hint=hint) from error


def _tensors(spec: Spec) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in example_inputs(spec).values())


def _dynamo(model: TorchModel, spec: Spec, folder: Path, logs: Path) -> onnx.ModelProto:
    arguments = _tensors(spec)
    exportable = model.exportable
    kwargs = spec.export.forward_kwargs
    shapes = dynamic_shapes(spec)
    if spec.export.report or spec.export.profile or spec.export.dump_exported_program:
        logs.mkdir(parents=True, exist_ok=True)
    if _is_scripted(exportable):
        exportable = _scripted_program(exportable, arguments, spec)
    if isinstance(exportable, torch.export.ExportedProgram):
        shapes = None  # its shapes were fixed when it was made; the contract check compares them
    program = torch.onnx.export(
        exportable,
        arguments,
        kwargs=kwargs or None,
        input_names=list(spec.inputs),
        output_names=list(spec.outputs),
        opset_version=spec.export.opset,
        dynamo=True,
        dynamic_shapes=shapes,
        artifacts_dir=logs,
        **_dynamo_options(spec.export, folder),
    )
    if program is None:
        raise ExportError("torch.onnx.export gave nothing back")
    if spec.export.keep_initializers_as_inputs:
        # torch applies this option only where it writes the file itself.
        program.model.graph.inputs.extend(program.model.graph.initializers.values())
    return program.model_proto


def _dynamo_options(export: Export, folder: Path) -> dict[str, Any]:
    names = ("optimize", "report", "verify", "profile", "dump_exported_program")
    given = {name: getattr(export, name) for name in names if getattr(export, name) is not None}
    given["verbose"] = bool(export.verbose)
    if export.custom_translations:
        given["custom_translation_table"] = _translations(export.custom_translations, folder)
    return given


def dynamic_shapes(spec: Spec) -> tuple[dict[int, Any] | None, ...] | None:
    """``dynamic_shapes`` by position: torch's keys would be the forward's argument names."""
    dims = {
        name: torch.export.Dim(name, min=axis.min, max=axis.max)
        for name, axis in spec.dynamic_axes.items()
        if axis.min < axis.max
    }
    shapes = tuple(
        {axis: dims[dim] for axis, dim in enumerate(tensor.shape) if dim in dims}
        for tensor in spec.inputs.values()
    )
    if not any(shapes):
        return None
    return (*shapes, *(None for _ in spec.export.forward_kwargs))


def _scripted_program(
    scripted: Any,  # noqa: ANN401 - a ScriptModule or ScriptFunction
    arguments: tuple[torch.Tensor, ...],
    spec: Spec,
) -> torch.export.ExportedProgram:
    """A scripted thing as an ExportedProgram: converted, then exported again for dynamic axes."""
    from torch._export.converter import TS2EPConverter

    kwargs = spec.export.forward_kwargs
    program = TS2EPConverter(scripted, arguments, kwargs or None).convert()
    shapes = dynamic_shapes(spec)
    if shapes is None:
        return program
    return torch.export.export(program.module(), arguments, kwargs, dynamic_shapes=shapes)


def _translations(reference: str, folder: Path) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The dict that ``file.py:NAME`` names."""
    file, _, name = reference.rpartition(":")
    found = getattr(import_file(folder / file), name, None)
    if not isinstance(found, dict):
        message = f"export.custom_translations: {file} has no dict '{name}'"
        hint = "expected a dict from torch operators to onnxscript functions"
        raise ExportError(message, hint=hint, code="translations")
    return cast("dict[Callable[..., Any], Callable[..., Any]]", found)


def _torchscript(model: TorchModel, spec: Spec, _folder: Path, _logs: Path) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as name:
        file = f"{name}/model.onnx"  # by its name: torch writes more than 2 GiB beside it alone
        torch.onnx.export(
            _traceable(model.exportable, spec),
            _tensors(spec),
            file,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            opset_version=spec.export.opset,
            dynamo=False,
            dynamic_axes=_dynamic_axes(spec),
            keep_initializers_as_inputs=spec.export.keep_initializers_as_inputs,
            **_torchscript_options(spec.export),
        )
        return onnx.load(file)


def _is_scripted(exportable: object) -> bool:
    return isinstance(exportable, torch.jit.ScriptModule | torch.jit.ScriptFunction)


class _Bound(torch.nn.Module):
    """A module with its constant arguments, which torch would make inputs of the graph."""

    def __init__(self, module: torch.nn.Module, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.kwargs = kwargs

    def forward(self, *inputs: torch.Tensor) -> Any:  # noqa: ANN401 - whatever the module returns
        """The module's outputs."""
        return self.module(*inputs, **self.kwargs)


def _traceable(exportable: Any, spec: Spec) -> Any:  # noqa: ANN401 - a module, or scripted
    """The module itself, or with what it takes besides the graph's inputs bound to it."""
    kwargs = spec.export.forward_kwargs
    # torch makes inputs of arguments left at their defaults, too.
    extra = not _is_scripted(exportable) and (
        len(inspect.signature(exportable.forward).parameters) > len(spec.inputs)
    )
    return _Bound(exportable, kwargs).eval() if kwargs or extra else exportable


def _torchscript_options(export: Export) -> dict[str, Any]:
    names = (
        "autograd_inlining",
        "custom_opsets",
        "do_constant_folding",
        "export_modules_as_functions",
    )
    given = {name: getattr(export, name) for name in names if getattr(export, name) is not None}
    given["verbose"] = bool(export.verbose)
    if export.training:
        given["training"] = TRAINING[export.training]
    if export.operator_export_type:
        kind = export.operator_export_type.upper()
        given["operator_export_type"] = torch.onnx.OperatorExportTypes.__members__[kind]
    return given


def _dynamic_axes(spec: Spec) -> dict[str, dict[int, str]] | None:
    axes = {
        name: {axis: dim for axis, dim in enumerate(tensor.shape) if isinstance(dim, str)}
        for name, tensor in (*spec.inputs.items(), *spec.outputs.items())
    }
    axes = {name: dims for name, dims in axes.items() if dims}
    return axes or None


@contextlib.contextmanager
def _loud() -> Generator[None, None, None]:
    """Let torch talk, on stderr: stdout is the result's."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _raise_missing(error: BaseException | None) -> None:
    """Name a missing package; one of an extra goes through, the command line names the extra."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    if error is None:
        return
    if error.name in {"onnxscript", "onnx"}:
        raise error
    message = f"the export needs the package {error.name}, which is not installed"
    hint = f"pip install {error.name}"
    raise ExportError(message, hint=hint, code="export_package") from error


def torch_reason(error: Exception) -> str:
    """The first telling lines of torch's message, through its chain of causes."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = [line if len(line) <= WIDTH else f"{line[:WIDTH]} …" for line in lines[:TOLD]]
    return f"{type(error).__name__}: " + "\n  ".join(told)


def _hint(reason: str, export: Export) -> str:
    other = "torchscript" if export.exporter == "dynamo" else "dynamo"
    told = ""
    if "Constraints violated" in reason or "constraint" in reason.lower():
        told = (
            "torch found that an axis cannot take its whole range: narrow dynamic_axes, or fix it; "
        )
    return f"{told}try export: {{exporter: {other}}}"
