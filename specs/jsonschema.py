"""JSON Schema of the language, so that editors complete and check specs.

Draft 7, which every editor knows; it holds what can be said of single fields. What lies between
fields (a step that cannot take what the one before gives, a dim that is not declared) is for
``deployc validate``.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from specs.engines import EngineLanguage, engine_languages
from specs.schema import Spec

__all__ = ["json_schema"]

_AXIS_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
_TORCH_AXES: tuple[dict[str, Any], ...] = (
    {
        "type": "object",
        "description": "torch's notation: names by axis, {0: batch}",
        "patternProperties": {"^-?[0-9]+$": {"type": "string", "pattern": _AXIS_NAME}},
        "additionalProperties": False,
        "minProperties": 1,
    },
    {
        "type": "array",
        "description": "torch's notation: the dynamic axes, [0]",
        "items": {"type": "integer"},
        "minItems": 1,
    },
)


def json_schema() -> dict[str, Any]:
    """The schema, with the engines of this installation."""
    engines = engine_languages()
    mode: JsonSchemaMode = "validation"
    models: list[type[BaseModel]] = [Spec, *(engine.Options for engine in engines.values())]
    # Engines without options share one model, which may be asked for once.
    asked: list[tuple[type[BaseModel], JsonSchemaMode]]
    asked = [(model, mode) for model in dict.fromkeys(models)]
    references, whole = models_json_schema(asked, ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = whole["$defs"]
    spec = definitions.pop("Spec")
    _accept_shorter_forms(spec, definitions)
    _to_draft_7(whole)
    _to_draft_7(spec)
    _add_engines(
        definitions["Target"],
        {name: (engine, references[engine.Options, mode]) for name, engine in engines.items()},
    )
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "deployc spec",
        **{key: value for key, value in spec.items() if key != "title"},
        "$defs": definitions,
    }


def _accept_shorter_forms(spec: dict[str, Any], definitions: dict[str, Any]) -> None:
    """What validators take before pydantic sees it: torch's axes, one sample, no ``opt``."""
    definitions["AxisRange"]["required"].remove("opt")
    names = spec["properties"]["dynamic_axes"]["patternProperties"]
    names.update({name: {"anyOf": [ranges, *_TORCH_AXES]} for name, ranges in names.items()})
    samples = definitions["Verify"]["properties"]["samples"]
    listed = {key: samples.pop(key) for key in ("items", "type")}
    samples["anyOf"] = [listed, listed["items"]]


def _to_draft_7(schema: object) -> None:
    """Write fixed-length lists in draft 7's way; close mappings whose keys have a form."""
    if isinstance(schema, dict):
        fields = cast("dict[str, object]", schema)
        if "prefixItems" in fields:
            fields["items"] = fields.pop("prefixItems")
        if "patternProperties" in fields:
            fields["additionalProperties"] = False
        for value in fields.values():
            _to_draft_7(value)
    elif isinstance(schema, list):
        for item in cast("list[object]", schema):
            _to_draft_7(item)


def _add_engines(
    target: dict[str, Any], engines: dict[str, tuple[type[EngineLanguage], dict[str, Any]]]
) -> None:
    """The engines' names, and for each its devices, precisions and options."""
    target["properties"]["engine"]["enum"] = sorted(engines)
    target["allOf"] = [
        {
            "if": {"properties": {"engine": {"const": name}}},
            "then": {
                "properties": {
                    "device": {"enum": list(engine.devices)},
                    "precision": {"enum": list(engine.precisions)},
                    "options": options,
                }
            },
        }
        for name, (engine, options) in sorted(engines.items())
    ]
