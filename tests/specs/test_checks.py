"""Checks between the parts of a spec: each contradiction is told, with the way out."""

# ruff: noqa: E501 - tables read best with one row on a line

from __future__ import annotations

from collections.abc import Callable

import pytest

from specs.errors import Problem

Problems = Callable[..., list[Problem]]

SHA = "0" * 63 + "a"
FILE = {"model": "{onnx: spec.yaml}", "weights": None}

INT8 = "{samples: spec.yaml, tolerance: {int8: {atol: 1, rtol: 1}}}"

WRONG = [
    ({"weights": None}, "weights", "weights_missing", "add weights: "),
    ({"weights": "{}"}, "weights", "weights_origin", ""),
    ({"weights": "{path: a, random: {}}"}, "weights", "weights_origin", ""),
    ({"weights": "{url: 'https://a/b'}"}, "weights", "sha256_missing", "sha256sum"),
    ({"weights": f"{{random: {{}}, sha256: {SHA}}}"}, "weights.sha256", "sha256_unused", "remove"),
    ({"model": "{onnx: spec.yaml}"}, "weights", "weights_unused", "remove weights"),
    ({"dynamic_axes": None}, "inputs.input.shape", "axis_undeclared", "add dynamic_axes: {batch:"),
    ({"outputs": "{output: {shape: [1, 10]}}"}, "outputs.output.shape", "batch_differs", ""),
    ({"outputs": "{output: {shape: [bach, 10]}}"}, "outputs.output.shape", "batch_differs", ""),
    ({"outputs": "{output: {shape: [batch, bacth]}}"}, "outputs.output.shape", "axis_undeclared", "did you mean 'batch'?"),
    ({"dynamic_axes": "{batch: {max: 2}, hieght: {max: 3}}"}, "dynamic_axes.hieght", "axis_unused", "known: batch"),
    ({"dynamic_axes": "{batch: {max: 1000000000}}"}, "dynamic_axes.batch.max", "batch_size", "every build runs it"),
    ({"dynamic_axes": "{batch: {max: 60000}}", "inputs": "{input: {shape: [batch, 3, 512, 512]}}", "preprocess": "[]"}, "dynamic_axes.batch.max", "batch_size", "every build runs it"),
    ({"export": "{opset: 17}"}, "export.opset", "opset_exporter", "use exporter: torchscript"),
    ({"export": "{exporter: torchscript, opset: 21}"}, "export.opset", "opset_exporter", "use opset: 20"),
    ({"export": "{export_params: false}"}, "export.export_params", "export_params", "remove"),
    ({"export": "{do_constant_folding: true}"}, "export.do_constant_folding", "option_exporter", "use exporter: torchscript"),
    ({"export": "{exporter: torchscript, optimize: false}"}, "export.optimize", "option_exporter", "use exporter: dynamo"),
    ({**FILE, "export": "{exporter: torchscript}"}, "export.exporter", "option_unused", "remove it"),
    ({"model": "{exported_program: spec.yaml}", "weights": None, "export": "{exporter: torchscript}"}, "export.exporter", "exporter_source", "use exporter: dynamo"),
    ({"targets": "[]"}, "targets", "targets_empty", ""),
    ({"targets": "[{engine: onxruntime}]"}, "targets[0].engine", "engine_unknown", "did you mean 'onnxruntime'?"),
    ({"targets": "[{engine: onnxruntime}, {engine: onnxruntime, options: {parallel: true}}]"}, "targets[1]", "target_twice", "remove one"),
    ({"targets": "[{engine: openvino, device: cuda}]"}, "targets[0].device", "engine_device", ""),
    ({"targets": "[{engine: onnxruntime, precision: bf16}]"}, "targets[0].precision", "engine_precision", ""),
    ({"targets": "[{engine: torch, precision: int8}]", "verify": INT8}, "targets[0].precision", "engine_precision", ""),
    ({"targets": "[{engine: auot}]"}, "targets[0].engine", "engine_unknown", "did you mean 'auto'?"),
    ({"targets": "[{engine: auto, options: {parallel: true}}]"}, "targets[0].options", "option_engine", "name the engine"),
    ({"targets": "[{engine: onnxruntime, name: a}, {engine: openvino, name: a}]"}, "targets[1]", "target_twice", "remove one"),
    ({"targets": "[{engine: onnxruntime, precision: int8}]", "verify": "{samples: spec.yaml}"}, "targets[0].precision", "int8_unjudged", "verify.accuracy"),
    ({"targets": "[{engine: onnxruntime, precision: int8}]", "verify": "{tolerance: {int8: {atol: 1, rtol: 1}}}"}, "targets[0].precision", "int8_uncalibrated", "mode: dynamic"),
    ({"targets": "[{engine: onnxruntime, options: {kept_shapes: 3}}]"}, "targets[0].options.kept_shapes", "option_device", "remove it"),
    ({"targets": "[{engine: onnxruntime, device: cuda, options: {parallel: true}}]"}, "targets[0].options.parallel", "option_device", "remove it"),
    ({"targets": "[{engine: onnxruntime, options: {optimisation: all}}]"}, "targets[0].options.optimisation", "unknown_field", "did you mean 'optimization'?"),
    ({"targets": "[{engine: onnxruntime, options: {intra_op_threads: -1}}]"}, "targets[0].options.intra_op_threads", "out_of_range", ""),
    ({"serving": "{replicas: {min: 3, max: 2}}"}, "serving.replicas", "replicas", ""),
    ({"verify": "{accuracy: {labels: spec.yaml}}", "outputs": "{a: {shape: [batch, 2]}, b: {shape: [batch, 2]}}"}, "verify.accuracy", "accuracy_output", "remove accuracy"),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "path", "code", "hint"), WRONG)
def test_a_contradiction_is_one_problem_with_its_way_out(
    problems: Problems, sections: dict[str, str | None], path: str, code: str, hint: str
) -> None:
    (problem,) = problems(**sections)
    assert (problem.path, problem.code) == (path, code)
    assert hint in problem.hint
    assert problem.line > 0


RIGHT: list[dict[str, str | None]] = [
    {},
    {"targets": "[{engine: auto}]"},
    {"targets": "[{engine: auto, device: cpu, precision: auto}]"},
    {"targets": "[{engine: onnxruntime, precision: auto}, {engine: onnxruntime, name: b}]"},
    {"targets": "[{engine: onnxruntime, precision: int8}]", "verify": INT8},
    {
        "targets": "[{engine: onnxruntime, precision: int8, quantize: {mode: dynamic}}]",
        "verify": "{tolerance: {int8: {atol: 1, rtol: 1}}}",
    },
    {"weights": "{path: a}"},
    {"weights": f"{{url: 'http://a/b', sha256: {SHA}}}"},
    FILE,
    {**FILE, "export": "{opset: 13}"},
    {"export": "{exporter: torchscript, opset: 9, do_constant_folding: false}"},
    {"export": "{opset: 26, optimize: false}"},
    # An output's size may follow from the graph, and is then named without a range.
    {"outputs": "{output: {shape: [batch, out_batch]}}"},
    {"outputs": "{output: {shape: [batch, tokens]}}"},
]


@pytest.mark.parametrize("sections", RIGHT)
def test_what_fits_is_no_problem(problems: Problems, sections: dict[str, str | None]) -> None:
    assert problems(**sections) == []


def test_all_contradictions_are_told_at_once(problems: Problems) -> None:
    found = problems(weights=None, export="{opset: 17}", targets="[{engine: ort}]")
    assert [problem.code for problem in found] == [
        "weights_missing",
        "opset_exporter",
        "engine_unknown",
    ]


def test_a_misspelt_axis_is_told_on_both_sides(problems: Problems) -> None:
    *uses, declared = problems(dynamic_axes="{bacth: {max: 2}}")
    assert {(problem.code, problem.hint) for problem in uses} == {
        ("axis_undeclared", "did you mean 'bacth'?")
    }
    assert (declared.path, declared.code) == ("dynamic_axes.bacth", "axis_unused")
    assert declared.hint == "did you mean 'batch'?"
