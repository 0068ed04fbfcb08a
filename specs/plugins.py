"""Plug-ins are found, not listed: a module put into a package is in the registry."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

__all__ = ["members", "packages"]

T = TypeVar("T")


def packages(group: str) -> list[ModuleType]:
    """The packages that the entry points of ``group`` name, imported.

    The language must know which engines there are, but ``specs`` imports nothing above it: the
    installation's entry points name the package to look into (``pyproject.toml``).
    """
    return [importlib.import_module(point.value) for point in entry_points(group=group)]


def members(package: ModuleType, base: type[T]) -> list[type[T]]:
    """Every concrete subclass of ``base`` that a public module of ``package`` defines.

    Args:
        package: an imported package; its modules whose name starts with ``_`` are left out.
        base: the plug-in's base class.
    """
    found: list[type[T]] = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and hasattr(value, "name")
        ]
    return found
