"""Loads ``model: {exported_program: FILE}``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from compiler.sources._base import Model, SourceLoader, TorchModel, require_file, told
from compiler.weights import FoundWeights
from specs.errors import SourceError
from specs.sources.exported_program import ExportedProgramSource

__all__ = ["ExportedProgramLoader"]


class ExportedProgramLoader(SourceLoader):
    """Loads what ``torch.export.save`` wrote."""

    name: ClassVar[str] = ExportedProgramSource.name

    @classmethod
    def load(cls, source: ExportedProgramSource, folder: Path, weights: FoundWeights) -> Model:
        """Load the program; its module is the reference."""
        file = require_file(folder, source.file)
        try:
            program = torch.export.load(str(file))
            module = program.module()
        except Exception as error:  # torch raises many kinds for a file that is not one
            message = f"{source.file} is no ExportedProgram: {told(error)}"
            hint = "save it with torch.export.save, by the torch version that builds here"
            raise SourceError(message, hint=hint) from error
        return TorchModel(module, program)
