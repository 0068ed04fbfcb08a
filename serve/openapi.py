"""The OpenAPI 3.1 document: routes, and what each model takes and answers, out of its card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serve import guard, reading
from serve.oip_cards import TENSORS, server_metadata
from serve.oip_openapi import SCHEMAS, protocol_paths

__all__ = ["openapi"]

Json = dict[str, Any]
Card = Mapping[str, Any]

ERRORS: dict[int, str] = {
    400: "the request is at fault",
    401: "an API key is needed",
    404: "there is no such model",
    408: "the body came too slowly",
    413: "the body, or the list in it, is too large",
    415: "the body is of a kind that the model does not take",
    429: "it cannot be answered in time: `Retry-After` says when to try again",
    500: "the server failed; its log says more",
    503: "the model is not ready, or its replica was lost",
}
SLOW = (408, 413, 415, 429, 503)
FILES = {"image": ("image/png", "image/jpeg", "image/webp"), "audio": ("audio/wav",)}
"""Types of the files that models take; the server goes by their bytes."""


def openapi(cards: Iterable[Card], prefix: str = "") -> Json:
    """The document for the models of ``cards``, below ``prefix``."""
    known = [card for card in cards if "inputs" in card]  # others cannot be reached
    paths: Json = {
        "/models": {"get": _get("models", "What is served", _object("models"))},
        "/healthz": {"get": _open("healthz", "Whether the process lives", {})},
        "/readyz": {"get": _open("readyz", "Whether every model is ready", {503: ERRORS[503]})},
        "/openapi.json": {"get": _get("openapi", "This document", {"type": "object"})},
    }
    for card in known:
        paths |= _model_paths(card)
    return {
        "openapi": "3.1.0",
        "info": {"title": "deployc", "version": server_metadata()["version"]},
        "servers": [{"url": prefix or "/"}],
        "security": [{}, {"bearer": []}, {"header": []}],
        "paths": paths | protocol_paths(_names(known)),
        "components": {
            "schemas": {"Error": _ERROR, **SCHEMAS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _names(cards: Iterable[Card]) -> list[str]:
    return [name for card in cards for name in (card["name"], card["name"] + TENSORS)]


def _model_paths(card: Card) -> Json:
    name = card["name"]
    decisions = _get(f"decisions.{name}", "The queue's last decisions", _object("decisions"))
    stats = _get(f"stats.{name}", "Counts since the replica started", _object("stats"))
    return {
        f"/models/{name}/predict": {"post": _predict(card)},
        f"/models/{name}/decisions": {"get": _with_errors(decisions, (503,))},
        f"/models/{name}/stats": {"get": _with_errors(stats, (503,))},
    }


def _predict(card: Card) -> Json:
    answers = {"application/json": {"schema": _answer(card)}}
    if card["answer"] == "image":
        answers["image/png"] = {"schema": {}}
    return {
        "operationId": f"predict.{card['name']}",
        "summary": card["description"] or f"Ask {card['name']}",
        "parameters": [_header(reading.TIMEOUT_MS, _TIMEOUT), _header(reading.PRIORITY, _PRIORITY)],
        "requestBody": {"required": True, "content": _bodies(card)},
        "responses": {
            "200": {"description": "the answer", "headers": _ANSWERED, "content": answers},
            **_failures((400, 401, *SLOW, 500)),
        },
    }


def _answer(card: Card) -> Json:
    """``answer`` for one item, ``answers`` for a list."""
    one: Json = {"type": "object", **card.get("answer_schema", {})}
    name: Json = {"const": card["name"]}
    return {
        "oneOf": [
            _fields({"model": name, "answer": one}),
            _fields({"model": name, "answers": {"type": "array", "items": one}}),
        ]
    }


def _fields(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _bodies(card: Card) -> Json:
    if card["takes"] == "text":
        texts = {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
        return {"text/plain": {"schema": _TEXT}, "application/json": {"schema": texts}}
    if card["takes"] in FILES:
        file: Json = {"schema": {}}
        kinds: Json = dict.fromkeys(FILES[card["takes"]], file)
        schema = _IMAGES_JSON if card["takes"] == "image" else _SOUNDS_JSON
        return {**kinds, "multipart/form-data": _FORM, "application/json": {"schema": schema}}
    return {"application/json": {"schema": _arrays(card["inputs"])}, "application/x-npy": _NPY}


def _arrays(inputs: Card) -> Json:
    """Nested lists by the rank of an item, or one rank more; one input needs no name."""
    named = {name: _nested(len(tensor["shape"]) - 1) for name, tensor in inputs.items()}
    by_name = {**_fields(named), "additionalProperties": False}
    only = [next(iter(named.values()))] if len(named) == 1 else []
    return {"anyOf": [*only, by_name]}


def _nested(rank: int) -> Json:
    """An item of ``rank``, or a list of items."""
    one: Json = {"type": ["number", "boolean"]}
    for _ in range(rank):
        one = {"type": "array", "items": one}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _get(name: str, summary: str, schema: Json) -> Json:
    """An operation that takes nothing; a key is needed where there are keys."""
    return _with_errors(_open(name, summary, {}, schema), (401,))


def _open(name: str, summary: str, others: Mapping[int, str], schema: Json | None = None) -> Json:
    content = {"application/json": {"schema": schema or _object("status")}}
    good = {"description": summary, "content": content}
    bad = {str(code): {"description": text, "content": content} for code, text in others.items()}
    return {"operationId": name, "summary": summary, "responses": {"200": good, **bad}}


def _with_errors(operation: Json, codes: Iterable[int]) -> Json:
    return {**operation, "responses": {**operation["responses"], **_failures(codes)}}


def _failures(codes: Iterable[int]) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    content = {"application/json": {"schema": schema}}
    return {str(code): {"description": ERRORS[code], "content": content} for code in codes}


def _object(key: str) -> Json:
    return {"type": "object", "required": [key]}


def _header(name: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "schema": schema}


_ERROR: Json = _fields(
    {"error": _fields({name: {"type": "string"} for name in ("code", "message", "hint")})}
)
_TEXT: Json = {"type": "string", "minLength": 1}
_TIMEOUT: Json = {"type": "number", "minimum": 0, "description": "milliseconds; 0: the SLO"}
_PRIORITY: Json = {"type": "integer", "minimum": 0, "maximum": 9, "description": "0 goes first"}
_ANSWERED: Json = {
    name: {"description": text, "schema": {"type": "string"}}
    for name, text in (
        (guard.REQUEST_ID, "the request's own id, or one that was made for it"),
        ("server-timing", "milliseconds in each stage, and the batch that it rode in"),
    )
}
_PIXELS: Json = {"type": "array", "items": {"type": "array", "items": {}}, "minItems": 1}
_BASE64: Json = {"type": "string", "contentEncoding": "base64", "minLength": 4}
_IMAGES_JSON: Json = {
    "description": "image files in base64, or pixels [height, width] or [height, width, 3]",
    "anyOf": [_BASE64, {"type": "array", "items": _BASE64, "minItems": 1}, _PIXELS],
}
_SOUNDS_JSON: Json = {
    "description": "WAV files in base64",
    "anyOf": [_BASE64, {"type": "array", "items": _BASE64, "minItems": 1}],
}
_FORM: Json = {
    "schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
}
_NPY: Json = {"schema": {}}
