"""Loads ``model: {python: {file, object, kwargs}}``."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

from compiler.sources._base import (
    Model,
    SourceLoader,
    require_file,
    seed_of,
    told,
    with_weights,
)
from compiler.weights import FoundWeights
from specs.digests import text_sha256
from specs.errors import SourceError
from specs.faults import nearest
from specs.sources.python import PythonSource

__all__ = ["PythonLoader", "import_file"]


class PythonLoader(SourceLoader):
    """Runs a Python file and builds the class that it defines."""

    name: ClassVar[str] = PythonSource.name

    @classmethod
    def load(cls, source: PythonSource, folder: Path, weights: FoundWeights) -> Model:
        """Import the file, call the object, fit the weights."""
        file = require_file(folder, source.file)
        torch.manual_seed(seed_of(weights))
        with _importable(file.parent):
            module = _call(_object(import_file(file), source), source)
        if not isinstance(module, torch.nn.Module):
            message = f"{source.object} of {source.file} gave a {type(module).__name__}"
            raise SourceError(message, hint="expected a torch.nn.Module", code="source_object")
        return with_weights(module, weights)


def _call(found: Any, source: PythonSource) -> Any:  # noqa: ANN401 - the user's own
    try:
        return found(**source.kwargs)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        message = f"{source.object}(**kwargs) of {source.file} failed: {told(error)}"
        hint = "correct model.python.kwargs or the class"
        raise SourceError(message, hint=hint, code="source_failed") from error


def _object(module: ModuleType, source: PythonSource) -> Any:  # noqa: ANN401 - the user's own
    found = getattr(module, source.object, None)
    if isinstance(found, torch.nn.Module):
        message = f"'{source.object}' of {source.file} is a module, expected a class or function"
        hint = f"name its class, {type(found).__name__}"
        raise SourceError(message, hint=hint, code="source_object")
    if callable(found):
        return found
    own = [name for name, value in vars(module).items() if _is_own(value, module)]
    message = f"{source.file} has no class or function '{source.object}'"
    raise SourceError(message, hint=nearest(source.object, own), code="object_unknown")


def _is_own(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__


def import_file(file: Path) -> ModuleType:
    """The module that a Python file of the user's holds, run afresh; or ``SourceError``."""
    name = f"deployc_source_{text_sha256(str(file.resolve()))[:12]}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    try:
        # Compiled from its text: a .pyc is taken for current by its second and size alone.
        exec(compile(file.read_bytes(), file, "exec"), vars(module))  # noqa: S102 - asked for
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        message = f"{file.name} cannot be imported: {told(error)}"
        hint = "run it with python to see where"
        raise SourceError(message, hint=hint, code="source_import") from error
    return module


_neighbours: set[str] = set()
"""Modules that the last source imported from its own folder."""


@contextmanager
def _importable(folder: Path) -> Generator[None, None, None]:
    """Let the file import its neighbours: these, not namesakes that another source imported."""
    for name in _neighbours:
        sys.modules.pop(name, None)
    _neighbours.clear()
    importlib.invalidate_caches()
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        _neighbours.update(n for n in set(sys.modules) - before if _lies_in(n, folder))


def _lies_in(name: str, folder: Path) -> bool:
    """Whether the module was found in ``folder`` itself, not in an environment below it."""
    file = getattr(sys.modules[name], "__file__", None)
    if file is None or folder not in Path(file).parents:
        return False
    return Path(file).relative_to(folder).parts[0].removesuffix(".py") == name.partition(".")[0]
