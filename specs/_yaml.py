"""One YAML document as plain data, with the place of every key and value.

Lists come as tuples, so that pydantic's strict mode takes them; keys are text, but for integers
in torch's notation of dynamic axes. Codes of the faults: ``yaml_empty``, ``yaml_encoding``,
``yaml_character``, ``yaml_tab``, ``yaml_syntax``, ``yaml_documents``, ``yaml_alias``,
``yaml_depth``, ``yaml_size``, ``yaml_tag``, ``yaml_key``, ``yaml_duplicate``, ``yaml_merge``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from specs._nodes import (
    MAX_DEPTH,
    MAX_NODES,
    Node,
    Place,
    YamlError,
    YamlFault,
    compose,
    refuse,
    too_deep,
    too_many,
)
from specs.faults import Fault, Path

__all__ = ["Document", "parse"]

_TAB = re.compile(r"^ *\t", re.MULTILINE)
_STRANGE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2.2, chapter 5.1, does not allow."""


@dataclass(frozen=True)
class Document:
    """A YAML mapping: ``data``, and where the value and the key of each path stand."""

    data: dict[str | int, object]
    values: dict[Path, Place]
    keys: dict[Path, Place]
    collections: frozenset[Path]

    def place(self, path: Path, *, of_key: bool = False) -> Place:
        """Where ``path``, or the nearest of its parents that is there, stands.

        A mapping or list is placed at its key: in block style its value starts a line later.
        """
        while path not in self.values:
            path, of_key = path[:-1], False
        if path in self.keys and (of_key or path in self.collections):
            return self.keys[path]
        return self.values[path]


def parse(raw: bytes) -> Document:
    """The document in ``raw``. Raises YamlError."""
    text = _text(raw)
    root = compose(text)
    if root is None or (root.items is None and root.pairs is None and root.content is None):
        raise refuse("yaml_empty", Place(1, 1), "the file is empty", "start with version: 1")
    if root.pairs is None:
        found = "a list" if root.items is not None else "a single value"
        message = f"found {found}, expected a mapping"
        raise refuse("yaml_mapping", root.place, message, "start with version: 1")
    builder = _Builder()
    data = builder.mapping(root, ())
    if builder.faults:
        raise YamlError(*builder.faults)
    return Document(data, builder.values, builder.keys, frozenset(builder.collections))


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig")
        place = _at(before, len(before))
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8, expected a text file"
        raise refuse("yaml_encoding", place, message, "save the file as UTF-8") from error
    if strange := _STRANGE.search(text):
        message = f"the character U+{ord(strange[0]):04X} is not allowed, expected a text file"
        raise refuse("yaml_character", _at(text, strange.start()), message, "remove it")
    if tab := _TAB.search(text):
        message = "a tab indents this line, expected spaces"
        raise refuse("yaml_tab", _at(text, tab.end() - 1), message, "indent with spaces")
    return text


def _at(text: str, index: int) -> Place:
    before = text[:index]
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


@dataclass
class _Builder:
    values: dict[Path, Place] = field(default_factory=dict[Path, Place])
    keys: dict[Path, Place] = field(default_factory=dict[Path, Place])
    collections: set[Path] = field(default_factory=set[Path])
    faults: list[YamlFault] = field(default_factory=list[YamlFault])

    def value(self, node: Node, path: Path) -> object:
        if node.pairs is not None:
            return self.mapping(node, path)
        self._enter(node, path)
        if node.items is None:
            return node.content
        self.collections.add(path)
        return tuple(self.value(item, (*path, index)) for index, item in enumerate(node.items))

    def mapping(self, node: Node, path: Path) -> dict[str | int, object]:
        self._enter(node, path)
        self.collections.add(path)
        result: dict[str | int, object] = {}
        for key, value in node.pairs or []:
            name = self._key(key, path)
            if name is not None:
                self.keys[(*path, name)] = key.place
                result[name] = self.value(value, (*path, name))
        return result

    def _enter(self, node: Node, path: Path) -> None:
        self.values[path] = node.place
        if len(self.values) > MAX_NODES:
            raise too_many(node.place)
        if len(path) > MAX_DEPTH:  # here, too: an alias may stand deeper than its anchor
            raise too_deep(node.place)

    def _key(self, key: Node, path: Path) -> str | int | None:
        """The key, or None where it is refused."""
        name = key.content
        if name == "<<":
            return self._refuse("yaml_merge", key, path, "merge keys (<<) are no YAML 1.2")
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            return self._refuse("yaml_key", key, path, f"found {_show(key)} as a key")
        if isinstance(name, int) and not (len(path) == 2 and path[0] == "dynamic_axes"):  # noqa: PLR2004 - dynamic_axes.NAME
            return self._refuse("yaml_key", key, path, f"found the number {name} as a key")
        if (*path, name) in self.keys:
            line = self.keys[(*path, name)].line
            message = f"the key {name!r} stands twice, first in line {line}"
            return self._refuse("yaml_duplicate", key, path, message)
        return name

    def _refuse(self, code: str, key: Node, path: Path, message: str) -> None:
        fault = Fault(path, code, message, _HINTS[code])
        self.faults.append(YamlFault(key.place, fault))


_HINTS = {
    "yaml_merge": "write the fields out, or repeat a whole value with an alias",
    "yaml_key": "keys are text: put the key in quotes",
    "yaml_duplicate": "remove one",
}


def _show(key: Node) -> str:
    if key.items is not None or key.pairs is not None:
        return "a list" if key.items is not None else "a mapping"
    if isinstance(key.content, bool):
        return str(key.content).lower()
    return "nothing" if key.content is None else f"the number {key.content}"
