"""The pydantic bases that every model of the language shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Union, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["Frozen", "OneKey", "Plain", "one_key_union", "with_list"]


def with_list(value: object, key: str) -> object:
    """A mapping in which one text under ``key`` stands for a list of it; anything else as it is."""
    if not isinstance(value, dict):
        return value
    mapping = cast("dict[str, object]", value)
    one = mapping.get(key)
    return {**mapping, key: (one,)} if isinstance(one, str) else mapping


def _lists(value: object) -> object:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in cast("list[object]", value)]
    return value


Plain = Annotated[Any, AfterValidator(_lists)]
"""Any plain data. Sequences are lists, as YAML has them, though the loader gives tuples."""


class Frozen(BaseModel):
    """A model that cannot change and knows no extra keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=False,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class OneKey(Frozen):
    """A model written as a mapping of one key, its name: ``{resize: {shorter_side: 256}}``.

    ``shorthand`` names the field that a bare value sets: ``{center_crop: 224}``. A model whose
    fields all have defaults may be written as its bare name: ``softmax``.
    """

    name: ClassVar[str]
    shorthand: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: object) -> object:
        if isinstance(value, str) and value == cls.name:
            return {}
        if not isinstance(value, dict):
            return value
        mapping = cast("dict[object, object]", value)
        if list(mapping) != [cls.name]:
            return mapping
        inner = mapping[cls.name]
        if inner is None:
            return {}
        if isinstance(inner, dict) or not cls.shorthand:
            return cast("object", inner)
        return {cls.shorthand: inner}

    @model_serializer(mode="wrap")
    def _wrap(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {type(self).name: handler(self)}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        inner = handler.resolve_ref_schema(handler(core_schema))
        return _wrapped_schema(cls, inner)


def _wrapped_schema(cls: type[OneKey], inner: JsonSchemaValue) -> JsonSchemaValue:
    """JSON Schema of ``{name: inner}``, and of the shorter forms that are allowed."""
    values: list[JsonSchemaValue] = [inner]
    if cls.shorthand:
        values.append(inner["properties"][cls.shorthand])
    bare = not inner.get("required")
    if bare:
        values.append({"type": "null"})
    keyed: JsonSchemaValue = {
        "type": "object",
        "properties": {cls.name: {"anyOf": values} if len(values) > 1 else inner},
        "required": [cls.name],
        "additionalProperties": False,
        "description": inner.get("description", ""),
    }
    return {"anyOf": [keyed, {"const": cls.name}]} if bare else keyed


def _tag(value: object) -> str | None:
    if isinstance(value, OneKey):
        return type(value).name
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(cast("dict[object, object]", value)) == 1:
        return str(next(iter(cast("dict[object, object]", value))))
    return None


def one_key_union(members: Iterable[type[OneKey]]) -> Any:  # noqa: ANN401 - a type, made at run time
    """The tagged union of ``members``, told apart by the one key of the mapping."""
    tagged: list[Any] = [Annotated[member, Tag(member.name)] for member in members]
    return Annotated[Union[tuple(tagged)], Discriminator(_tag)]  # pyright: ignore[reportInvalidTypeArguments] # noqa: UP007 - made at run time
