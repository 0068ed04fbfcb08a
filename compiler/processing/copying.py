"""Copies functions out of the op library, with everything that they use.

What a function uses is read from its module's syntax tree, so that an op need not list it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

__all__ = ["Copied"]

LIBRARY = "specs.ops."
"""Where copied code may come from."""
PACKAGES = frozenset({"numpy", "PIL"})
"""What copied code may import beside the standard library."""

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign
Import = tuple[str, str, str]
"""Module, name in it ("" for the module itself), and the name that it is bound to."""


@dataclass
class Copied:
    """Imports, constants and functions of a generated file, each once, after what it uses.

    Args:
        values: expressions that take the place of the library's own constants.
        packages: what copied code may import beside the standard library.
    """

    values: Mapping[str, str] = field(default_factory=dict[str, str])
    packages: set[str] = field(default_factory=lambda: set(PACKAGES))
    constants: dict[str, str] = field(default_factory=dict[str, str])
    functions: dict[str, str] = field(default_factory=dict[str, str])
    imports: set[Import] = field(default_factory=set[Import])
    _origins: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, function: Callable[..., Any]) -> None:
        """Copy ``function``, a module-level function or class of the op library."""
        self._copy(function.__name__, function.__module__)

    def add_import(self, module: str, name: str, bound: str) -> None:
        """Import what the file itself uses."""
        self._claim(bound, module)
        self.imports.add((module, name, bound))

    def import_lines(self) -> str:
        """The imports in blocks, in the order of ruff's rule I001."""
        standard = {entry for entry in self.imports if _root(entry[0]) in sys.stdlib_module_names}
        blocks = (standard, self.imports - standard)
        return "\n\n".join("\n".join(_import_lines(block)) for block in blocks if block)

    def _copy(self, name: str, module: str) -> None:
        imported = _imports(module).get(name)
        node = _definitions(module).get(name)
        if imported and imported[0].startswith(LIBRARY):
            self._copy(imported[1], imported[0])
        elif imported:
            self._check_import(imported, module)
            self.add_import(*imported)
        elif node and self._claim(name, module):
            # A name that is neither imported nor defined here is a builtin or a local.
            for used in _used_names(node):
                self._copy(used, module)
            self._write(name, node, module)

    def _check_import(self, imported: Import, module: str) -> None:
        root = _root(imported[0])
        if root not in self.packages and root not in sys.stdlib_module_names:
            allowed = "numpy, Pillow and the standard library"
            message = f"{module} uses {imported[0]} in copied code: only {allowed} may be used"
            raise TypeError(f"{message}, or what the op names in `packages`")

    def _claim(self, name: str, origin: str) -> bool:
        """Whether ``name`` is new; two meanings of one name cannot live in one file."""
        known = self._origins.setdefault(name, origin)
        if known != origin:
            raise TypeError(f"'{name}' is defined by both {known} and {origin}: rename one")
        return name not in self.functions and name not in self.constants

    def _write(self, name: str, node: Definition, module: str) -> None:
        text = ast.get_source_segment(_source(module), node) or ""
        # This project's remarks to its linter mean nothing elsewhere.
        text = re.sub(r"  # noqa: .*", "", text)
        if isinstance(node, ast.Assign):
            self.constants[name] = f"{name} = {self.values[name]}" if name in self.values else text
        else:
            self.functions[name] = text


def _root(module: str) -> str:
    return module.partition(".")[0]


def _import_lines(entries: Iterable[Import]) -> Iterator[str]:
    members: dict[str, list[tuple[str, str]]] = {}
    for module, name, bound in sorted(entries, key=lambda entry: entry[0].lower()):
        if name:
            members.setdefault(module, []).append((name, bound))
        else:
            yield f"import {module}" + (f" as {bound}" if bound != module else "")
    for module, names in members.items():
        listed = (_renamed(*pair) for pair in sorted(names, key=_import_order))
        yield f"from {module} import {', '.join(listed)}"


def _import_order(pair: tuple[str, str]) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    name = pair[0]
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name.lower()


def _renamed(name: str, bound: str) -> str:
    return name if name == bound else f"{name} as {bound}"


@cache
def _source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


@cache
def _definitions(module: str) -> dict[str, Definition]:
    """The functions, classes and plain assignments at the top of a module."""
    found: dict[str, Definition] = {}
    for node in ast.parse(_source(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node
    return found


@cache
def _imports(module: str) -> dict[str, Import]:
    """Everything that a module imports, for type checkers as well, by the name it is bound to."""
    found: dict[str, Import] = {}
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            entries = [(alias.name, "", alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(alias.name, alias.asname or alias.name) for alias in node.names]
            entries = [(node.module or "", name, bound) for name, bound in names]
        else:
            continue
        found |= {entry[2]: entry for entry in entries}
    return found


def _used_names(node: ast.AST) -> list[str]:
    """The names that a definition reads, in the order of the text; not what it imports itself."""
    own = {
        alias.asname or alias.name
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        for alias in inner.names
    }
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    ordered = sorted(names, key=lambda n: (n.lineno, n.col_offset))
    return list(dict.fromkeys(n.id for n in ordered if n.id not in own))
