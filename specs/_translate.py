"""pydantic's errors in our words: found, expected, and the nearest known name.

=================  =============================================================
code               what it says
=================  =============================================================
missing            a field without a default is not there
unknown_field      the mapping has no such field
unknown_name       no op, source or other choice has this name
not_one_key        expected a mapping of one key, or a bare name
not_allowed        not among the allowed values
wrong_type         a number, text, list or mapping where another kind is expected
out_of_range       a number too small or too large
wrong_length       a text or list too short or too long
wrong_form         a text that does not have the form of its field
bad_name           a key that does not have the form of a name
invalid            anything else
=================  =============================================================

A ``Fault`` raised by a check of ours has its own code.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from specs._known import describe, field_names, models_at
from specs.base import OneKey
from specs.faults import Fault, Path, nearest

__all__ = ["faults_of"]

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
_LIMITS = {
    "greater_than_equal": ("out_of_range", "at least {ge}"),
    "greater_than": ("out_of_range", "more than {gt}"),
    "less_than_equal": ("out_of_range", "at most {le}"),
    "less_than": ("out_of_range", "less than {lt}"),
    "multiple_of": ("out_of_range", "a multiple of {multiple_of}"),
    "finite_number": ("out_of_range", "a finite number"),
    "too_short": ("wrong_length", "at least {min_length} item(s)"),
    "too_long": ("wrong_length", "at most {max_length} item(s)"),
    "string_too_short": ("wrong_length", "at least {min_length} character(s)"),
    "string_too_long": ("wrong_length", "at most {max_length} characters"),
}
_FORMS = {
    "^[0-9a-f]{64}$": "64 hex digits in lower case",
    "^https?://": "an address that starts with https:// or http://",
    "^[A-Za-z_][A-Za-z0-9_]*$": "a name of letters, digits and _ that starts with no digit",
    "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": "1 to 64 letters, digits, _, . and -",
    r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$": "file.py:NAME",
    "^[a-z]{2,3}([_-][A-Za-z0-9]+)*$": "a language code such as en or zh",
}
"""Patterns of the language in words."""
_MISPLACED = ("missing", "extra_forbidden", "faults")
"""Types whose last part of ``loc`` is no alternative of a union."""


def faults_of(error: ValidationError, root: type[BaseModel], data: object) -> list[Fault]:
    """Every fault in ``error``, placed by its path in ``data``, the plain data of a ``root``."""
    errors = [_Located.of(detail, data) for detail in error.errors(include_url=False)]
    faults: list[Fault] = []
    for group in _alternatives(_without_echoes(errors)):
        faults += _merge(group, root) if len(group) > 1 else _translate(group[0], root)
    return faults


@dataclass(frozen=True)
class _Located:
    """One error: where it is in the data, and which alternative of a union found it."""

    detail: ErrorDetails
    path: Path
    before: Path
    branch: Path

    @classmethod
    def of(cls, detail: ErrorDetails, data: object) -> _Located:
        """Follow ``loc`` through the data; what leads nowhere is pydantic's, not the spec's."""
        loc, value = detail["loc"], data
        path: list[str | int] = []
        lost: list[int] = []
        for index, part in enumerate(loc):
            inner = _inner(value, part)
            if inner is None:
                lost.append(index)
            else:
                path.append(part)
                value = inner[0]
        before = loc[: lost[0]] if lost else loc
        return cls(detail, tuple(path), before, tuple(loc[index] for index in lost))

    @property
    def kind(self) -> str:
        return self.detail["type"]


def _inner(value: object, part: str | int) -> tuple[object] | None:
    """What ``part`` leads to, boxed, or None."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return (mapping[part],) if part in mapping else None
    if isinstance(value, (list, tuple)) and isinstance(part, int):
        items = cast("tuple[object, ...]", value)
        return (items[part],) if part < len(items) else None
    return None


def _without_echoes(errors: list[_Located]) -> list[_Located]:
    """Leave out that a list is too short where pydantic counts only the items without fault."""
    locs = [error.detail["loc"] for error in errors]
    return [
        error
        for error in errors
        if error.kind != "too_short" or not any(_below(loc, error.detail["loc"]) for loc in locs)
    ]


def _below(loc: Path, parent: Path) -> bool:
    return len(loc) > len(parent) and loc[: len(parent)] == parent


def _alternatives(errors: list[_Located]) -> list[list[_Located]]:
    """The errors, those together that alternatives of one union found in one value."""
    groups: defaultdict[object, list[_Located]] = defaultdict(list)
    for error in errors:
        alone = not error.branch or error.kind in _MISPLACED or error.branch == ("[key]",)
        groups[error.detail["loc"] if alone else ("union", error.before)].append(error)
    return list(groups.values())


def _merge(group: list[_Located], root: type[BaseModel]) -> list[Fault]:
    """One fault of a value that no alternative takes: of those that its kind suits, if any."""
    suited = [error for error in group if error.kind not in _KINDS]
    if suited:
        return [fault for error in suited for fault in _translate(error, root)]
    expected = " or ".join(dict.fromkeys(_KINDS[error.kind] for error in group))
    message = f"found {_show(group[0].detail['input'])}, expected {expected}"
    return [Fault(group[0].path, "wrong_type", message)]


def _translate(error: _Located, root: type[BaseModel]) -> list[Fault]:
    kind = error.kind
    if kind == "faults":
        return list(_own(error))
    if kind in _BY_TYPE:
        return [_BY_TYPE[kind](error, root)]
    fault = _by_table(error)
    if error.detail["loc"][-1:] == ("[key]",):
        fault = replace(fault, code="bad_name", in_key=True)
    return [fault]


def _by_table(error: _Located) -> Fault:
    kind, found = error.kind, f"found {_show(error.detail['input'])}"
    context = error.detail.get("ctx", {})
    if kind in _KINDS:
        hint = _notation(error.detail["input"], kind)
        return Fault(error.path, "wrong_type", f"{found}, expected {_KINDS[kind]}", hint)
    if kind in _LIMITS:
        code, expected = _LIMITS[kind]
        return Fault(error.path, code, f"{found}, expected {expected.format(**context)}")
    if kind == "string_pattern_mismatch":
        form = _FORMS.get(context["pattern"], f"text of the form {context['pattern']}")
        return Fault(error.path, "wrong_form", f"{found}, expected {form}")
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        # 0.7: 'gpu' is nearer to 'cpu' than to 'cuda', but that is not what was meant.
        hint = nearest(str(error.detail["input"]), allowed, cutoff=0.7)
        hint = hint if hint.startswith("did you mean") else ""
        return Fault(error.path, "not_allowed", f"{found}, expected {context['expected']}", hint)
    message = str(context.get("error", error.detail["msg"]))
    return Fault(error.path, "invalid", message)


def _own(error: _Located) -> Iterable[Fault]:
    for fields in error.detail.get("ctx", {})["faults"]:
        fault = Fault(**fields)
        yield replace(fault, path=(*error.path, *fault.path))


def _missing(error: _Located, root: type[BaseModel]) -> Fault:
    *parent, name = error.detail["loc"]
    about = describe(models_at(root, tuple(parent)), str(name))
    return Fault(error.detail["loc"], "missing", f"'{name}' is missing", about.replace("``", "`"))


def _extra(error: _Located, root: type[BaseModel]) -> Fault:
    *parent, name = error.detail["loc"]
    known = field_names(models_at(root, tuple(parent)))
    hint = nearest(str(name), known) if known else "remove it"
    return Fault(error.path, "unknown_field", f"unknown field {name!r}", hint, in_key=True)


def _names(error: _Located, root: type[BaseModel]) -> list[str]:
    """The ops, sources or other choices that may stand here."""
    models = [model for model in models_at(root, error.detail["loc"]) if issubclass(model, OneKey)]
    stage = error.path[0] if error.path else ""
    return [model.name for model in models if stage in getattr(model, "stages", (stage,))]


def _unknown_name(error: _Located, root: type[BaseModel]) -> Fault:
    tag = error.detail.get("ctx", {})["tag"]
    in_key = isinstance(error.detail["input"], Mapping)
    path = (*error.path, tag) if in_key else error.path
    hint = nearest(tag, _names(error, root))
    return Fault(path, "unknown_name", f"unknown name {tag!r}", hint, in_key)


def _not_one_key(error: _Located, root: type[BaseModel]) -> Fault:
    known = ", ".join(sorted(_names(error, root)))
    message = f"found {_show(error.detail['input'])}, expected a mapping of one key"
    return Fault(error.path, "not_one_key", message, f"known: {known}")


_BY_TYPE = {
    "missing": _missing,
    "extra_forbidden": _extra,
    "union_tag_invalid": _unknown_name,
    "union_tag_not_found": _not_one_key,
}


def _notation(value: object, kind: str) -> str:
    """A hint where only the notation makes the difference."""
    if kind == "string_type" and isinstance(value, (int, float)):
        return "put it in quotes"
    if isinstance(value, str) and kind in ("int_type", "float_type"):
        number = value.replace("_", "")
        if re.fullmatch(r"[-+]?[0-9.]+", number):
            return "remove the quotes" if number == value else f"write {number}"
    return ""


def _show(value: object) -> str:
    """``value`` in a few words, with its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        keys = [str(key) for key in cast("Mapping[object, object]", value)][:5]
        return f"a mapping with {', '.join(keys)}" if keys else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(cast('tuple[object, ...]', value))}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...'"  # noqa: PLR2004 - one line
