"""Loads ``model: {python: {file, object, kwargs}}``."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

from compiler.sources._base import Model, SourceLoader, require_file, seed_of, with_weights
from compiler.weights import FoundWeights
from specs.digests import text_sha256
from specs.errors import SourceError
from specs.faults import nearest
from specs.sources.python import PythonSource

__all__ = ["PythonLoader"]


class PythonLoader(SourceLoader):
    """Runs a Python file and builds the class that it defines."""

    name: ClassVar[str] = PythonSource.name

    @classmethod
    def load(cls, source: PythonSource, folder: Path, weights: FoundWeights) -> Model:
        """Import the file, call the object, fit the weights."""
        file = require_file(folder, source.file)
        found = _object(_import(file), source)
        torch.manual_seed(seed_of(weights))
        try:
            module = found(**source.kwargs)
        except Exception as error:  # the user's own code may raise anything
            message = f"{source.object}(**kwargs) of {source.file} failed: {_told(error)}"
            raise SourceError(message, hint="correct model.python.kwargs or the class") from error
        if not isinstance(module, torch.nn.Module):
            message = f"{source.object} of {source.file} gave a {type(module).__name__}"
            raise SourceError(message, hint="expected a torch.nn.Module")
        return with_weights(module, weights)


def _object(module: ModuleType, source: PythonSource) -> Any:  # noqa: ANN401 - the user's own
    found = getattr(module, source.object, None)
    if callable(found):
        return found
    names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
    message = f"{source.file} has no class or function '{source.object}'"
    raise SourceError(message, hint=nearest(source.object, names), code="object_unknown")


def _import(file: Path) -> ModuleType:
    name = f"deployc_source_{text_sha256(str(file.resolve()))[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SourceError(f"{file} is no Python file", hint="expected a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    try:
        with _importable(file.parent):
            spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        message = f"{file.name} cannot be imported: {_told(error)}"
        raise SourceError(message, hint="run it with python to see where") from error
    return module


@contextmanager
def _importable(folder: Path) -> Generator[None, None, None]:
    """Let the file import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
