"""JSON Schema (draft 2020-12) of a model's answers, from the types of its pipeline.

It describes what ``runtime.answers.to_json`` makes of one answer. JSON has no NaN and no infinity:
a floating point number may be ``null`` wherever there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from specs.values import Dim, Value

__all__ = ["DIALECT", "answer_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BOX = 4
"""Numbers of a box."""

Json = dict[str, Any]


def answer_schema(last: Value, outputs: Iterable[str]) -> Json:
    """The schema of one answer.

    Args:
        last: what the last step of ``postprocess`` gives, or the model where there is none
            (``specs.flow.postprocess_start``).
        outputs: the names of the model's outputs.

    Raises:
        ValueError: ``last`` is no answer (candidate boxes).
    """
    if last.kind == "classes":
        body = {"classes": _classes(last)}
    elif last.kind == "detections":
        body = {"detections": _detections(last)}
    elif last.kind == "answer_image":
        body = {"image": _image(last)}
    elif last.kind in ("tensor", "tensors"):
        name = last.origin or next(iter(outputs))
        body = {"outputs": _outputs(last.fields or {name: last})}
    else:
        raise ValueError(f"no answer is made of {last}")
    return {"$schema": DIALECT, **_object(body)}


def _object(properties: Mapping[str, Json], description: str = "") -> Json:
    """An object with all of these properties and no other."""
    told = {"description": description} if description else {}
    return {
        "type": "object",
        **told,
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _classes(last: Value) -> Json:
    entry: Json = {"index": {"type": "integer", "minimum": 0, "description": "the class"}}
    if last.labels:
        entry["label"] = _label(last)
    if last.dtype:
        entry["probability" if last.probability else "score"] = _number(last)
    return _entries(last, _object(entry), "best first")


def _detections(last: Value) -> Json:
    entry: Json = {"index": {"type": "integer", "minimum": 0, "description": "the class"}}
    if last.labels:
        entry["label"] = _label(last)
    entry["score"] = {"type": ["number", "null"]}
    units = {"image": "pixels of the image that was sent", "fraction": "fractions of the input"}
    corners = {
        "xywh": "left, top, width, height",
        "cxcywh": "centre x, centre y, width, height",
    }
    words = corners.get(last.boxes, "left, top, right, bottom")
    entry["box"] = {
        "type": "array",
        "description": f"{words} in {units.get(last.units, 'pixels of the input')}",
        "items": {"type": ["number", "null"]},
        "minItems": BOX,
        "maxItems": BOX,
    }
    return _entries(last, _object(entry), "best first")


def _entries(last: Value, entry: Json, description: str) -> Json:
    """A list of entries; the second size says how many, or how many at most."""
    schema: Json = {"type": "array", "description": description, "items": entry}
    most = last.shape[1] if len(last.shape) > 1 else ""
    if isinstance(most, int):
        schema["maxItems"] = most
        if not last.fewer and last.kind == "classes":
            schema["minItems"] = most
    return schema


def _label(last: Value) -> Json:
    if not last.languages:
        return {"type": "string"}
    return _object({language: {"type": "string"} for language in last.languages}, "by language")


def _number(last: Value) -> Json:
    bounds = {"minimum": 0, "maximum": 1} if last.probability else {}
    return {"type": ["number", "null"], **bounds}


def _image(last: Value) -> Json:
    height, width = last.shape[1:3]
    return _object(
        {
            "format": {"const": "png"},
            "width": _side(width),
            "height": _side(height),
            "base64": {
                "type": "string",
                "contentEncoding": "base64",
                "contentMediaType": "image/png",
            },
        }
    )


def _side(size: Dim) -> Json:
    return {"const": size} if isinstance(size, int) else {"type": "integer", "minimum": 1}


def _outputs(parts: Mapping[str, Value]) -> Json:
    """Every array without its batch dimension, as nested lists."""
    return _object({name: _array(part.shape[1:], part) for name, part in parts.items()})


def _array(shape: tuple[Dim, ...], part: Value) -> Json:
    if not shape:
        return _element(part.dtype)
    size, *inner = shape
    sizes = {"minItems": size, "maxItems": size} if isinstance(size, int) else {}
    named = {"description": str(size)} if isinstance(size, str) else {}
    return {"type": "array", **named, "items": _array(tuple(inner), part), **sizes}


def _element(dtype: str) -> Json:
    if dtype == "bool":
        return {"type": "boolean"}
    if dtype.startswith("float"):
        return {"type": ["number", "null"]}
    info = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}
