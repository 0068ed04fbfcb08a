"""YAML text to a tree of nodes, bounded on every side.

libyaml gives events; the tree is built here. PyYAML's own composer recurses in C, so that a file
of 200,000 opening brackets ends the process, and its constructor follows YAML 1.1: ``NO`` is
false, ``1e-3`` is text, ``1:30`` is 90. Scalars are read by the core schema of YAML 1.2.2,
chapter 10.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from specs.faults import Fault, Path

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "Node",
    "Place",
    "YamlError",
    "YamlFault",
    "compose",
    "refuse",
    "too_deep",
    "too_many",
]

MAX_DEPTH = 50
"""Mappings and lists inside each other."""
MAX_NODES = 10_000
"""Keys and values of one file, those that aliases repeat included."""

# The C parser where PyYAML was built with it: ten times as fast, with the same events and marks.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    # Longer ones become floats: int() takes quadratic time, and refuses 4,300 digits.
    (re.compile(r"[-+]?[0-9]{1,64}"), int),
    (re.compile(r"0o[0-7]{1,64}"), lambda text: int(text, 0)),
    (re.compile(r"0x[0-9a-fA-F]{1,64}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda _: float("nan")),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class YamlFault:
    """A fault with its place."""

    place: Place
    fault: Fault


class YamlError(Exception):
    """The text is no YAML that a spec may be written in."""

    def __init__(self, *faults: YamlFault) -> None:
        super().__init__(*faults)
        self.faults = faults


@dataclass(slots=True)
class Node:
    """One value: ``content`` is a scalar, a list of nodes, or a list of pairs of nodes."""

    place: Place
    content: object = None
    items: list[Node] | None = None
    pairs: list[tuple[Node, Node]] | None = None


def compose(text: str) -> Node | None:
    """The tree of the only document in ``text``; None where there is none. Raises YamlError."""
    try:
        return _Composer(text).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text) from error
    except yaml.YAMLError as error:
        message = f"not valid YAML: {str(error).splitlines()[0]}"
        raise refuse("yaml_syntax", Place(1, 1), message) from error


def refuse(code: str, place: Place, message: str, hint: str = "", path: Path = ()) -> YamlError:
    """One fault, ready to raise."""
    return YamlError(YamlFault(place, Fault(path, code, message, hint)))


@dataclass
class _Composer:
    text: str
    anchors: dict[str, Node | None] = field(default_factory=dict[str, "Node | None"])
    nodes: int = 0

    def document(self) -> Node | None:
        parse = cast("Callable[[str, Any], Iterator[Any]]", yaml.parse)
        self.events = parse(self.text, _LOADER)
        root: Node | None = None
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if root is not None:
                message = "a second document starts here, expected one"
                raise refuse(
                    "yaml_documents", _place(event), message, "put it in a file of its own"
                )
            root = self._node(next(self.events), 1)
        return root

    def _node(self, event: Any, depth: int) -> Node:  # noqa: ANN401 - PyYAML's events are untyped
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), place)
        self._guard(event, place, depth)
        if event.anchor:
            self.anchors[event.anchor] = None
        node = self._content(event, place, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _content(self, event: Any, place: Place, depth: int) -> Node:  # noqa: ANN401 - see above
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            return Node(place, _scalar(event.value) if plain else event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(place, items=[self._node(child, depth + 1) for child in self._children()])
        pairs: list[tuple[Node, Node]] = []
        for child in self._children():
            key = self._node(child, depth + 1)
            pairs.append((key, self._node(next(self.events), depth + 1)))
        return Node(place, pairs=pairs)

    def _children(self) -> Iterator[Any]:
        """First events of what the open mapping or list holds; each is taken up by ``_node``."""
        for event in self.events:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield event

    def _alias(self, name: str, place: Place) -> Node:
        if name not in self.anchors:
            raise refuse("yaml_alias", place, f"no anchor '&{name}' stands before '*{name}'")
        node = self.anchors[name]
        if node is None:
            raise refuse("yaml_alias", place, f"'*{name}' stands inside of what it repeats")
        return Node(place, node.content, node.items, node.pairs)

    def _guard(self, event: Any, place: Place, depth: int) -> None:  # noqa: ANN401 - see above
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise too_many(place)
        if depth > MAX_DEPTH:
            raise too_deep(place)
        if event.tag is not None:
            message = f"the tag '{event.tag}' is not allowed, a spec holds plain data"
            raise refuse("yaml_tag", place, message, "remove it; quotes make a text")


def too_many(place: Place) -> YamlError:
    """The file holds, or its aliases make, more than ``MAX_NODES`` values."""
    message = f"more than {MAX_NODES} values, counting what aliases repeat"
    return refuse("yaml_size", place, message, "is this file a spec?")


def too_deep(place: Place) -> YamlError:
    """Mappings and lists stand inside each other in more than ``MAX_DEPTH`` levels."""
    message = f"nested more than {MAX_DEPTH} levels deep"
    return refuse("yaml_depth", place, message, "is this file a spec?")


def _scalar(text: str) -> object:
    """A plain scalar by the core schema."""
    for pattern, make in _CORE:
        if pattern.fullmatch(text):
            return make(text)
    return text


def _place(event: Any) -> Place:  # noqa: ANN401 - PyYAML's events are untyped
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    """PyYAML's error in our form, with a hint where the mistake is a usual one."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return refuse("yaml_syntax", Place(1, 1), f"not valid YAML: {error.problem}")
    lines = text.splitlines()
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    problem = str(error.problem)
    hint = next((hint for words, hint in _HINTS if words in problem), "")
    if rest[:1] in ("@", "`", "%"):
        hint = f"quote text that starts with {rest[0]}"
    message = f"not valid YAML: {problem}"
    return refuse("yaml_syntax", Place(mark.line + 1, mark.column + 1), message, hint)


_HINTS = (
    ("tab character", "indent with spaces"),
    ("mapping values are not allowed", "check the indentation; quote text that holds ': '"),
    ("could not find expected ':'", "a mapping is written as key: value"),
    ("expected key", "check the indentation of this line and of those above"),
    ("block end", "check the indentation of this line and of those above"),
    ("expected ',' or", "a bracket or comma is missing"),
    ("expected the document start", "check the indentation of this line and of those above"),
)
