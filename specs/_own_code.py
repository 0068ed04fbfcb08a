"""Whether the file of a ``python`` step is Python, and has the function. It is read, never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from specs.faults import Fault, nearest
from specs.ops.python import Python

__all__ = ["own_code_faults"]

DYNAMIC = frozenset({"exec", "globals", "setattr", "vars"})
"""A file that names one of these may make functions that cannot be seen in it."""


def own_code_faults(step: Python, source: bytes) -> Iterator[Fault]:
    """What the step lacks in ``source``, the content of its file; paths begin at the step."""
    try:
        tree = ast.parse(source, step.file)
    except (SyntaxError, ValueError, RecursionError) as error:  # ValueError: zero bytes in it
        line = f" line {error.lineno}:" if isinstance(error, SyntaxError) else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        message = f"{step.file!r} is not Python:{line} {said}"
        yield Fault(("file",), "python_syntax", message, "correct it there")
        return
    names = _bound(tree)
    if names is not None and step.function not in names:
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        hint = nearest(step.function, functions) if functions else "define it there"
        message = f"{step.file!r} has no function {step.function!r}"
        yield Fault(("function",), "unknown_function", message, hint)


def _bound(tree: ast.Module) -> set[str] | None:
    """Every name that the file may bind; None where that cannot be seen."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name):
            if node.id in DYNAMIC:
                return None
            names.add(node.id)
    return None if "*" in names else names
