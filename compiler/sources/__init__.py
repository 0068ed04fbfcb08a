"""Model sources on the side that loads them: one module each, found by its place here."""

from __future__ import annotations

from pathlib import Path

import compiler.sources as _package
from compiler.sources._base import Model, SourceLoader, TorchModel
from compiler.weights import FoundWeights
from specs.errors import SourceError
from specs.plugins import members
from specs.sources import Source

__all__ = ["LOADERS", "Model", "SourceLoader", "TorchModel", "load_model"]

LOADERS: dict[str, type[SourceLoader]] = {
    loader.name: loader for loader in members(_package, SourceLoader)
}
"""Every loader by the key of its source."""


def load_model(source: Source, folder: Path, weights: FoundWeights) -> Model:
    """The model that a spec names; see ``SourceLoader.load``."""
    name = type(source).name
    if name not in LOADERS:
        message = f"no module of compiler.sources loads '{name}'"
        raise SourceError(message, hint="CONTRIBUTING.md: two files per source")
    return LOADERS[name].load(source, folder, weights)
