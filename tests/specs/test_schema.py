"""The JSON Schema: equal to the committed copy, and it tells good specs from bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import specs.ops
from specs._yaml import parse
from specs.jsonschema import json_schema
from specs.ops import OPS
from specs.sources import SOURCES

SPECS = Path(specs.ops.__file__).parents[1]
FIRST_LINE = "# yaml-language-server: $schema=./spec.schema.json"
SHIPPED = sorted(SPECS.glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_the_committed_copy_is_what_the_command_prints() -> None:
    committed = (SPECS / "spec.schema.json").read_text(encoding="utf-8")
    assert json.loads(committed) == json_schema(), "run: deployc schema > specs/spec.schema.json"
    assert committed == json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_shipped_spec_names_the_schema_and_fits_it(path: Path, validator: Any) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == FIRST_LINE
    assert _errors(validator, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"dynamic_axes": "{batch: {max: 3}}"},
        {"dynamic_axes": "{input: {0: batch}, output: [0]}"},
        {"verify": "{samples: a/*.png}"},
        {"verify": "{samples: [a.png, b.png]}"},
        {"preprocess": "[decode_image, {decode_image: L}, {decode_image: {mode: L}}]"},
        {"preprocess": "[{decode_image: null}, {center_crop: 224}, {center_crop: [2, 3]}]"},
        {"postprocess": "[softmax, {top_k: 3}, {top_k: {labels: {en: a, zh: b}}}]"},
        {"model": "{torchvision: {model: resnet18, kwargs: {num_classes: 3}}}"},
        {"targets": "[{engine: onnxruntime, options: {parallel: true}}]"},
    ],
)
def test_every_notation_fits_the_schema(
    validator: Any, spec_text: Callable[..., str], sections: dict[str, str]
) -> None:
    assert _errors(validator, spec_text(**sections)) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"name": None},
        {"name": "a b"},
        {"version": "2"},
        {"naem": "x"},
        {"model": "{torchvison: x}"},
        {"model": "resnet50"},
        {"model": "{onnx: a, torchvision: b}"},
        {"inputs": "{}"},
        {"inputs": "{in put: {shape: [1]}}"},
        {"inputs": "{input: {shape: [0]}}"},
        {"dynamic_axes": "{batch: {min: 1}}"},
        {"dynamic_axes": "{input: {0: 3}}"},
        {"dynamic_axes": "{input: []}"},
        {"export": "{opset: 99}"},
        {"export": "{optimize: yes}"},
        {"preprocess": "[resise]"},
        {"preprocess": "[center_crop]"},
        {"preprocess": "[{resize: {interp: nearest}}]"},
        {"preprocess": "[{center_crop: [1, 2, 3]}]"},
        {"postprocess": "[{top_k: {labels: {EN!: a}}}]"},
        {"targets": "[{engine: ort}]"},
        {"targets": "[{engine: onnxruntime, options: {paralel: true}}]"},
    ],
)
def test_a_bad_spec_does_not_fit_the_schema(
    validator: Any, spec_text: Callable[..., str], sections: dict[str, str | None]
) -> None:
    assert _errors(validator, spec_text(**sections))


def test_every_op_source_and_field_is_described() -> None:
    definitions = json_schema()["$defs"]
    names = {key for entry in definitions.values() for key in _keyed(entry)}
    assert {member.name for member in (*OPS, *SOURCES)} <= names
    for name, entry in definitions.items():
        for field, schema in entry.get("properties", {}).items():
            described = "description" in schema or field in {m.name for m in (*OPS, *SOURCES)}
            assert described, f"{name}.{field} has no docstring"


def _keyed(entry: dict[str, Any]) -> list[str]:
    """Names of the keys that an entry, or its keyed form, has."""
    forms = [entry, *entry.get("anyOf", [])]
    return [key for form in forms for key in form.get("properties", {})]


def _errors(validator: Any, text: str) -> list[str]:
    """What the schema says of a spec, read as editors do: JSON's types, and keys of text."""
    data = json.loads(json.dumps(parse(text.encode()).data))
    return [error.message for error in validator.iter_errors(data)]


def test_the_yaml_of_other_readers_fits_as_well(validator: Any) -> None:
    text = (SPECS / "resnet50.yaml").read_text(encoding="utf-8")
    assert not list(validator.iter_errors(yaml.safe_load(text)))
