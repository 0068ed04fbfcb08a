"""Loads ``model: {torchscript: FILE}``: a ScriptModule, or a ScriptFunction saved as one."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar, cast

import torch

from compiler.sources._base import Model, SourceLoader, TorchModel, require_file, told
from compiler.weights import FoundWeights
from specs.errors import SourceError
from specs.sources.torchscript import TorchscriptSource

__all__ = ["TorchscriptLoader"]


class TorchscriptLoader(SourceLoader):
    """Loads an archive that ``torch.jit.save`` wrote."""

    name: ClassVar[str] = TorchscriptSource.name

    @classmethod
    def load(cls, source: TorchscriptSource, folder: Path, weights: FoundWeights) -> Model:
        """Load on the CPU. A function has no mode; a module is put into eval mode."""
        file = require_file(folder, source.file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                loaded = cast("Any", torch.jit.load(str(file), map_location="cpu"))
        except Exception as error:  # torch raises many kinds for a file that is not one
            message = f"{source.file} is no TorchScript archive: {told(error)}"
            hint = "save it with torch.jit.save; a checkpoint goes under weights"
            raise SourceError(message, hint=hint) from error
        if isinstance(loaded, torch.nn.Module):
            loaded.eval()
        return TorchModel(loaded, loaded)
