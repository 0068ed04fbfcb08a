"""The base of every model source, on the side that loads it."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch

from compiler.checkpoint import fit, read_state_dict
from compiler.weights import FoundWeights
from runtime.tensors import Array
from specs.errors import SourceError

__all__ = [
    "Model",
    "SourceLoader",
    "TorchModel",
    "require_file",
    "seed_of",
    "told",
    "with_weights",
]


class Model(ABC):
    """A model as its source gives it: the reference that everything built is compared with."""

    @abstractmethod
    def outputs(self, inputs: Sequence[Array], kwargs: Mapping[str, Any]) -> list[Array]:
        """The outputs, in order, for inputs in the order of the forward's arguments."""


class SourceLoader(ABC):
    """Loads one kind of source: a subclass in a module of ``compiler.sources``.

    The module of the same file name in ``specs.sources`` declares its options.
    """

    name: ClassVar[str]
    """The key in the spec's ``model``."""

    @classmethod
    @abstractmethod
    def load(cls, source: Any, folder: Path, weights: FoundWeights) -> Model:  # noqa: ANN401
        """The model, on the CPU, in eval mode, with its weights.

        Args:
            source: the options, an instance of the class that ``specs.sources`` declares.
            folder: the spec's folder, which local files are relative to.
            weights: what to load into it.

        Raises:
            SourceError: the source cannot be loaded.
            WeightsError: the weights do not fit.
        """


@dataclass(frozen=True)
class TorchModel(Model):
    """A callable of torch: a Module, ScriptModule, ScriptFunction or ExportedProgram's module.

    Args:
        call: what is called with tensors.
        exportable: what ``torch.onnx.export`` gets.
        notes: what a person should know of how it was loaded.
    """

    call: Any
    exportable: Any
    notes: tuple[str, ...] = ()

    def outputs(self, inputs: Sequence[Array], kwargs: Mapping[str, Any]) -> list[Array]:
        """Run the model without gradients; nested outputs are flattened in order."""
        # Not inference_mode: a scripted module that an exporter has run before refuses its tensors.
        with torch.no_grad():
            result = self.call(*(torch.from_numpy(array) for array in inputs), **kwargs)
        return [tensor.detach().numpy() for tensor in _flatten(result)]


def _flatten(value: Any) -> list[torch.Tensor]:  # noqa: ANN401 - whatever forward returns
    """The tensors of a nested output, in the order in which the exporters name them."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        items = list(cast("Mapping[object, object]", value).values())
        return [tensor for item in items for tensor in _flatten(item)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = list(cast("Sequence[object]", value))
        return [tensor for item in items for tensor in _flatten(item)]
    if value is None:
        return []
    message = f"the model returned a {type(value).__name__}, expected tensors"
    raise SourceError(message, hint="return tensors, or tuples, lists or dicts of them")


def with_weights(module: torch.nn.Module, weights: FoundWeights) -> TorchModel:
    """An eval-mode model from a module, with checkpoint or random weights."""
    notes: list[str] = []
    if weights.file is not None:
        tensors = read_state_dict(weights.file, weights.state_dict)
        notes = fit(module, tensors, weights.state_dict)
    module.eval()
    return TorchModel(module, module, tuple(notes))


def told(error: BaseException) -> str:
    """A foreign error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def seed_of(weights: FoundWeights) -> int:
    """The seed under which a module is made: given for random weights, else always 0."""
    return weights.origin.seed or 0


def require_file(folder: Path, name: str) -> Path:
    """The path of a local file that a source names, or ``SourceError``."""
    file = folder / name
    if not file.is_file():
        raise SourceError(f"there is no file {file}", code="source_missing")
    return file
