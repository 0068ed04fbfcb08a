"""The OpenAPI document says what there is, and what it says is so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from runtime import load
from serve.http import http_app
from serve.model import Model, Options

MakePredictor = Callable[..., Any]
Serving = Callable[..., Any]
FOR_PEOPLE = {"/", "/page/{file}"}
"""The page: what it asks is in the document."""
CASES = 6
"""Requests of schemathesis for each operation and kind."""


@pytest.fixture(scope="module")
def port(serving: Serving, digits_artifact: Path) -> Generator[int]:
    """The embedded model, served."""
    with serving(lambda: Model(load(digits_artifact), Options("digits"), digits_artifact)) as ports:
        yield ports.http


@pytest.fixture(scope="module")
def document(port: int) -> dict[str, Any]:
    response = httpx.get(f"http://127.0.0.1:{port}/openapi.json")
    assert response.status_code == 200
    return response.json()


def test_the_document_has_every_route_and_no_other(
    make_predictor: MakePredictor, document: dict[str, Any]
) -> None:
    app: Any = http_app([Model(make_predictor(), Options("digits"))])
    routes = {
        (
            route.path.replace(
                "/models/{name}/", "/models/digits/", 0 if "/v2" in route.path else 1
            ),
            m,
        )
        for route in app.routes
        for m in route.methods - {"HEAD"}
        if route.path not in FOR_PEOPLE
    }
    told = {
        (path, m.upper())
        for path, item in document["paths"].items()
        for m in item
        if m != "parameters"
    }
    assert told == routes


def test_every_reference_in_the_document_has_its_target(document: dict[str, Any]) -> None:
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        jsonschema.Draft202012Validator.check_schema(found)


def references(value: object) -> list[str]:
    """Every ``$ref`` in a document."""
    return re.findall(r'"\$ref": "([^"]+)"', json.dumps(value))


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    names = [
        op["operationId"]
        for item in document["paths"].values()
        for m, op in item.items()
        if m != "parameters"
    ]
    assert len(set(names)) == len(names)


def test_an_answer_fits_its_schema(document: dict[str, Any], port: int, root: Path) -> None:
    picture = (root / "specs" / "samples" / "digits" / "digit_3.png").read_bytes()
    headers = {"content-type": "image/png"}
    url = f"http://127.0.0.1:{port}/models/digits/predict"
    answer = httpx.post(url, content=picture, headers=headers).json()
    operation = document["paths"]["/models/digits/predict"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**answer, "model": "another"}, schema)


def test_a_model_that_cannot_be_reached_is_left_out() -> None:
    from serve.openapi import openapi

    paths = openapi([{"name": "lost", "state": "unavailable"}])["paths"]
    assert not any("lost" in path for path in paths)


def test_the_prefix_of_the_application_is_the_servers_address() -> None:
    from serve.openapi import openapi

    assert openapi([], "/many")["servers"] == [{"url": "/many"}]


def test_what_the_document_promises_is_kept(port: int, document: dict[str, Any]) -> None:
    """Requests that fit the document, and some that do not: status, type and form as it says."""
    schemathesis: Any = import_module("schemathesis")
    general: Any = import_module("schemathesis.checks")
    checks: Any = import_module("schemathesis.specs.openapi.checks")
    held = [
        general.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.response_headers_conformance,
    ]
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document)))
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    quick = settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=slow)
    tried: set[str] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        path, about = operation.path, operation.definition.raw
        tried.add(path)
        for mode in modes(schemathesis.GenerationMode, document["paths"][path], about):

            @quick
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate(base_url=f"http://127.0.0.1:{port}", checks=held)

            ask()
    assert tried == set(document["paths"])


def modes(mode: Any, item: dict[str, Any], operation: dict[str, Any]) -> list[Any]:
    """Where nothing can be sent, nothing can be sent that is wrong."""
    sends = "parameters" in item or "parameters" in operation or "requestBody" in operation
    return [mode.POSITIVE, *([mode.NEGATIVE] if sends else [])]
