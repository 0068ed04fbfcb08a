"""What stands at a place of the language: the models there, and their fields."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from specs.base import OneKey
from specs.faults import Path

__all__ = ["describe", "field_names", "models_at"]


def models_at(root: type[BaseModel], loc: Path) -> list[type[BaseModel]]:
    """The models that may stand at pydantic's ``loc`` below ``root``."""
    found: list[Any] = [root]
    for part in loc:
        found = [inner for kind in found for inner in _step(kind, part)]
    return [kind for kind in found if _is_model(kind)]


def field_names(models: Iterable[type[BaseModel]]) -> list[str]:
    """Names of the models' fields, as the YAML writes them."""
    fields = [item for model in models for item in model.model_fields.items()]
    return [info.alias or name for name, info in fields]


def describe(models: Iterable[type[BaseModel]], name: str) -> str:
    """The field's docstring, or ""."""
    for model in models:
        for key, info in model.model_fields.items():
            if name in (key, info.alias):
                return info.description or ""
    return ""


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _members(annotation: object) -> Iterator[Any]:
    """The annotation without its Annotated and Union wrappings."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _step(kind: Any, part: str | int) -> Iterator[Any]:  # noqa: ANN401 - any annotation
    """What ``part`` leads to: a field, an item, a mapping's value, or a member of a union."""
    if _is_model(kind):
        if issubclass(kind, OneKey) and part == kind.__dict__.get("name"):
            yield kind
        for name, info in kind.model_fields.items():
            if part in (name, info.alias):
                yield from _members(info.annotation)
    elif get_origin(kind) in (tuple, list) and isinstance(part, int):
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) is dict:
        yield from _members(get_args(kind)[1])
