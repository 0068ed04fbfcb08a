"""Lays generated statements out as ruff's formatter does, so that no formatter is needed."""

from __future__ import annotations

import ast
import textwrap

__all__ = ["WIDTH", "comment", "statement"]

WIDTH = 88
"""Ruff's default line length."""
STEP = 4


def statement(head: str, expression: str, indent: int = 0) -> str:
    """``head`` and an expression of calls, tuples, lists, dicts and constants.

    Args:
        head: what stands before the expression: ``"x = "``.
        expression: written as ruff would on one line.
        indent: number of spaces before.
    """
    tree = ast.parse(expression, mode="eval").body
    return "\n".join(_lines(" " * indent + head, tree, expression, ""))


def comment(text: str, indent: int) -> str:
    """``text`` as comment lines."""
    prefix = " " * indent + "# "
    lines = textwrap.wrap(text, WIDTH, initial_indent=prefix, subsequent_indent=prefix)
    return "\n".join(lines)


def _lines(head: str, node: ast.expr, source: str, tail: str) -> list[str]:
    """``head node tail``, broken where it is too long; nodes' places refer to ``source``."""
    text = _text(node, source)
    line = f"{head}{text}{tail}"
    members = _members(node, source)
    if len(line) <= WIDTH or not members:
        return [line]
    opening = text[: _opening_length(node, source)]
    indent = " " * (len(head) - len(head.lstrip(" ")) + STEP)
    body = indent + ", ".join(_member_text(member, source) for member in members)
    closing = f"{indent[:-STEP]}{text[-1]}{tail}"
    if isinstance(node, ast.Call) and len(body) <= WIDTH:
        return [f"{head}{opening}", body, closing]
    lines = [f"{head}{opening}"]
    for label, member in members:
        lines += _lines(indent + label, member, source, ",")
    return [*lines, closing]


Member = tuple[str, ast.expr]


def _members(node: ast.expr, source: str) -> list[Member]:
    """What stands between the brackets; after its key in a dict, after its name in a call."""
    if isinstance(node, ast.Call):
        named = [(f"{each.arg}=", each.value) for each in node.keywords]
        return [("", argument) for argument in node.args] + named
    if isinstance(node, ast.Tuple | ast.List):
        return [("", element) for element in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [(f"{_text(key, source)}: ", value) for key, value in pairs if key]
    return []


def _opening_length(node: ast.expr, source: str) -> int:
    return len(_text(node.func, source)) + 1 if isinstance(node, ast.Call) else 1


def _member_text(member: Member, source: str) -> str:
    label, value = member
    return label + _text(value, source)


def _text(node: ast.expr, source: str) -> str:
    segment = ast.get_source_segment(source, node)
    assert segment is not None  # noqa: S101 - the node was parsed from this source
    return segment
