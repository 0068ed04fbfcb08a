"""From a model to what PyTorch stores: an ExportedProgram, or the TorchScript that it was."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils import _pytree as pytree

from compiler.cases import example_inputs
from compiler.exporters import dynamic_shapes, torch_reason
from compiler.quiet import quiet
from compiler.sources import TorchModel
from runtime.engines._pytorch import DTYPES, PROGRAM, SCRIPT, SIGNATURE, TorchSignature
from specs.errors import EngineError
from specs.schema import Spec

__all__ = ["write"]

LOST = ("stack_trace", "source_fn_stack", "from_node", "nn_module_stack", "torch_fn", "custom")
"""What a node remembers of the Python that it came from: paths, and numbers that vary."""


def write(model: TorchModel, spec: Spec, signature: TorchSignature, folder: Path) -> str:
    """Store the model in the signature's precision; gives the file's name.

    Raises:
        EngineError: torch cannot convert or export it; with torch's own reason.
    """
    scripted = isinstance(model.exportable, torch.jit.ScriptModule | torch.jit.ScriptFunction)
    try:
        with quiet():
            if scripted:
                return _write_script(model.exportable, signature, folder)
            return _write_program(model, spec, signature, folder)
    except Exception as error:  # torch's exporter raises dozens of kinds
        what = "stored" if scripted else "exported"
        message = f"the model cannot be {what} in {signature.precision}: {torch_reason(error)}"
        hint = "narrow dynamic_axes, set precision: fp32, or take the engine onnxruntime"
        raise EngineError(message, hint=hint, code="engine_build") from error


class _Flat(torch.nn.Module):
    """The model with its constant arguments, in one precision, giving a tuple of tensors.

    Inputs and outputs keep the spec's dtypes: floating ones are cast on the way in and out.
    """

    def __init__(self, module: torch.nn.Module, spec: Spec, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.module = module if dtype is None else copy.deepcopy(module).to(dtype)
        self.kwargs = spec.export.forward_kwargs
        self.dtype = dtype
        self.given = [getattr(torch, tensor.dtype) for tensor in spec.outputs.values()]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The model's outputs, flattened in the order in which the spec names them."""
        if self.dtype is None:
            return tuple(_leaves(self.module(*inputs, **self.kwargs)))
        cast_in = (x.to(self.dtype) if x.is_floating_point() else x for x in inputs)
        found = _leaves(self.module(*cast_in, **self.kwargs))
        pairs = zip(found, self.given, strict=True)
        return tuple(x.to(given) if x.is_floating_point() else x for x, given in pairs)


def _leaves(value: object) -> list[torch.Tensor]:
    """The tensors of a nested output, in order."""
    if isinstance(value, Mapping):  # a dict of its own class, as transformers have, is a leaf else
        items = list(cast("Mapping[object, object]", value).values())
        return [tensor for item in items for tensor in _leaves(item)]
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _write_program(model: TorchModel, spec: Spec, signature: TorchSignature, folder: Path) -> str:
    dtype = DTYPES.get(signature.precision)
    flat = _Flat(model.call, spec, getattr(torch, dtype) if dtype else None)
    arguments = tuple(torch.from_numpy(array) for array in example_inputs(spec).values())
    shapes = dynamic_shapes(spec)
    with torch.no_grad():
        program = torch.export.export(
            flat, arguments, dynamic_shapes=shapes and (shapes[: len(arguments)],), strict=False
        )
    _forget(program)
    extra = {SIGNATURE: signature.model_dump_json()}
    torch.export.save(program, str(folder / PROGRAM), extra_files=extra)
    return PROGRAM


def _forget(program: torch.export.ExportedProgram) -> None:
    """Drop what is no part of the computation: places in sources, and the example inputs."""
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in LOST:
                    node.meta.pop(key, None)


def _write_script(scripted: Any, signature: TorchSignature, folder: Path) -> str:  # noqa: ANN401 - a ScriptModule or ScriptFunction
    dtype = DTYPES.get(signature.precision)
    extra = {SIGNATURE: signature.model_dump_json()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        loaded = cast("Any", torch.jit.load(buffer, map_location="cpu"))  # the model stays as it is
        if dtype and isinstance(loaded, torch.nn.Module):
            loaded.to(getattr(torch, dtype))
        torch.jit.save(loaded, str(folder / SCRIPT), _extra_files=extra)
    return SCRIPT
