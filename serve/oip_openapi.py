"""The Open Inference Protocol's part of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serve.oip_json import HEADER_LENGTH
from serve.oip_tensors import DATATYPES
from serve.replies import PROTOCOL

__all__ = ["SCHEMAS", "protocol_paths"]

Json = dict[str, Any]

TAKEN = (400, 401, 404, 408, 413, 415, 429, 500, 503)
TOLD = (401, 404, 503)


def protocol_paths(models: Iterable[str]) -> Json:
    """The protocol's paths; ``models`` are the names that a client may use."""
    prefix = f"{PROTOCOL}/models/{{name}}"
    names = [_path("name", {"type": "string", "enum": sorted(models)})]
    version = [*names, _path("version", {"const": "1"})]
    return {
        PROTOCOL: {"get": _get("oip", "ServerMetadata", codes=(401,))},
        f"{PROTOCOL}/health/live": {"get": _get("oip.live", "Live", codes=())},
        f"{PROTOCOL}/health/ready": {"get": _get("oip.ready", "Ready", codes=(), state="Ready")},
        f"{PROTOCOL}/repository/index": {"post": _index()},
        f"{PROTOCOL}/models/stats": {"get": _get("oip.stats", "Statistics", codes=(401, 503))},
        **_of_model(prefix, "oip.model", names),
        **_of_model(f"{prefix}/versions/{{version}}", "oip.version", version),
    }


def _of_model(prefix: str, name: str, parameters: list[Json]) -> Json:
    told = {
        "": _get(f"{name}.metadata", "ModelMetadata"),
        "/ready": _get(f"{name}.ready", "ModelReady", state="ModelReady"),
        "/config": _get(f"{name}.config", "ModelConfig"),
        "/stats": _get(f"{name}.stats", "Statistics"),
    }
    paths: Json = {
        prefix + end: {"get": one, "parameters": parameters} for end, one in told.items()
    }
    paths[f"{prefix}/infer"] = {"post": _infer(f"{name}.infer"), "parameters": parameters}
    return paths


def _path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _get(name: str, schema: str, *, codes: Iterable[int] = TOLD, state: str = "") -> Json:
    """``state``: what a 503 answers where it is no error."""
    responses = {**_errors(codes), "200": _answer(schema)}
    if state:
        responses["503"] = {**_answer(schema), "content": _either(state)}
    return {"operationId": name, "responses": responses}


def _infer(name: str) -> Json:
    length = {"name": HEADER_LENGTH, "in": "header", "required": False}
    binary: Json = {"schema": {}}
    answer = _answer("InferResponse")
    answer["content"]["application/octet-stream"] = binary
    body: Json = {
        "application/json": {"schema": _ref("InferRequest")},
        "application/octet-stream": binary,
    }
    return {
        "operationId": name,
        "parameters": [{**length, "schema": {"type": "integer", "minimum": 0}}],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": answer, **_errors(TAKEN)},
    }


def _index() -> Json:
    body = {"application/json": {"schema": _fields({"ready": {"type": "boolean"}}, required=())}}
    return {
        "operationId": "oip.index",
        "requestBody": {"required": False, "content": body},
        "responses": {"200": _answer("Index"), **_errors((400, 401, 408, 413, 415))},
    }


def _answer(schema: str) -> Json:
    return {"description": schema, "content": {"application/json": {"schema": _ref(schema)}}}


def _either(schema: str) -> Json:
    either = {"anyOf": [_ref(schema), _ref("ProtocolError")]}
    return {"application/json": {"schema": either}}


def _errors(codes: Iterable[int]) -> Json:
    content = {"application/json": {"schema": _ref("ProtocolError")}}
    return {str(code): {"description": "refused", "content": content} for code in codes}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _fields(properties: Json, required: Iterable[str] | None = None) -> Json:
    needed = list(properties if required is None else required)
    return {"type": "object", "properties": properties, "required": needed}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_STRING: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SIZES = _list({"type": "integer", "minimum": -1})
_DATATYPE: Json = {"enum": list(DATATYPES)}
_TENSOR = _fields({"name": _STRING, "datatype": _DATATYPE, "shape": _list(_COUNT)})
_DURATION = _fields({"count": _COUNT, "ns": _COUNT})
_PARAMETERS: Json = {"type": "object"}
_DESCRIBED = _list(_fields({"name": _STRING, "datatype": _DATATYPE, "shape": _SIZES}))
_CONFIGURED = _list(_fields({"name": _STRING, "data_type": _STRING, "dims": _SIZES}))
_GIVEN: Json = {
    **_TENSOR,
    "properties": {
        **_TENSOR["properties"],
        "parameters": _PARAMETERS,
        "data": {"description": "flat in row-major order, or nested", "type": "array"},
    },
}
_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_COUNTED = _fields(
    {
        "name": _STRING,
        "version": _STRING,
        "last_inference": _COUNT,
        "inference_count": _COUNT,
        "execution_count": _COUNT,
        "inference_stats": _fields(dict.fromkeys(_STAGES, _DURATION)),
        "batch_stats": _list({"type": "object"}),
    }
)

SCHEMAS: Json = {
    "ProtocolError": _fields({"error": _STRING}),
    "ServerMetadata": _fields({"name": _STRING, "version": _STRING, "extensions": _list(_STRING)}),
    "Live": _fields({"live": {"const": True}}),
    "Ready": _fields({"ready": {"type": "boolean"}}),
    "ModelReady": _fields({"name": _STRING, "ready": {"type": "boolean"}}),
    "ModelMetadata": _fields(
        {
            "name": _STRING,
            "versions": _list(_STRING),
            "platform": _STRING,
            "inputs": _DESCRIBED,
            "outputs": _DESCRIBED,
        }
    ),
    "ModelConfig": _fields(
        {
            "name": _STRING,
            "platform": _STRING,
            "backend": _STRING,
            "max_batch_size": _COUNT,
            "input": _CONFIGURED,
            "output": _CONFIGURED,
        }
    ),
    "Statistics": _fields({"model_stats": _list(_COUNTED)}),
    "Index": _list(_fields(dict.fromkeys(("name", "version", "state", "reason"), _STRING))),
    "InferRequest": {
        **_fields({"inputs": _list(_GIVEN), "id": _STRING}, ("inputs",)),
        "description": "outputs, where given, name those that are wanted",
    },
    "InferResponse": _fields(
        {"model_name": _STRING, "model_version": _STRING, "outputs": _list(_TENSOR)}
    ),
}
