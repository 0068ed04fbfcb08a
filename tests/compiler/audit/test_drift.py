"""Every tensor of a converted graph against the fp32 graph's."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compiler.audit import audit, drift, with_drift
from compiler.audit.drift import Probe, Rule, graph_drift, layer_drift, probe_of
from compiler.engines import BuildTarget
from compiler.golden import write_golden
from runtime.golden import Case, Golden
from runtime.tensors import Tensors
from specs.precision import TolerancePair
from specs.schema import Spec

TIGHT = Rule(TolerancePair(atol=1e-3, rtol=1e-3))
HALF = Rule(TolerancePair(atol=1e-2, rtol=1e-2))
INPUT: Tensors = {"x": np.random.default_rng(2).standard_normal((1, 4, 8, 8)).astype(np.float32)}
PROBE = Probe("random, batch 1", INPUT)
NODES = ["conv0", "relu", "conv1", "add", "mean", "shape", "first", "target", "flat", "head"]

Wrong = Callable[..., Path]


def _array(*numbers: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


# --- whole graphs


def test_a_graph_has_no_drift_from_itself(graph: Path) -> None:
    found = graph_drift(graph, graph, PROBE, TIGHT)
    assert [layer.node.split()[0] for layer in found.layers] == NODES
    assert all(layer.max_abs == 0 and layer.excess == 0 for layer in found.layers)
    assert (found.first, found.worst, found.divergence) == (None, None, "")


@pytest.mark.parametrize(
    ("weight", "node", "tensor"), [("w0", "conv0", "a"), ("w1", "conv1", "c"), ("wg", "head", "y")]
)
def test_a_planted_wrong_layer_is_the_first_divergence(
    graph: Path, wrong: Wrong, weight: str, node: str, tensor: str
) -> None:
    found = graph_drift(wrong(weight, 5.0), graph, PROBE, TIGHT)
    op = "Gemm" if node == "head" else "Conv"
    assert found.first == tensor
    assert found.divergence == f"{node} ({op}), tensor {tensor}"
    before = NODES[: NODES.index(node)]
    assert all(layer.excess == 0 for layer in found.layers if layer.node.split()[0] in before)


def test_layers_after_the_first_divergence_are_beyond_and_not_first(
    graph: Path, wrong: Wrong
) -> None:
    found = graph_drift(wrong("w0", 5.0), graph, PROBE, TIGHT)
    assert {layer.name for layer in found.layers if layer.beyond} >= {"a", "b", "c", "d"}
    assert found.first == "a"


def test_a_layer_that_gives_nan_is_told_without_a_number(graph: Path, wrong: Wrong) -> None:
    found = graph_drift(wrong("w1", float("nan")), graph, PROBE, TIGHT)
    layer = next(layer for layer in found.layers if layer.name == "c")
    assert (layer.max_abs, layer.relative, layer.excess) == (None, None, None)
    assert layer.beyond
    assert (found.first, found.worst) == ("c", "c")


def test_an_fp16_graph_is_emulated_and_keeps_the_names_of_its_types(
    graph: Path, half_graph: Path
) -> None:
    found = graph_drift(half_graph, graph, PROBE, HALF)
    types = {layer.name: layer.dtype for layer in found.layers}
    assert (types["a"], types["s"], types["y"]) == ("float16", "int64", "float32")
    errors = {layer.name: layer.relative for layer in found.layers}
    assert all(0 < (errors[name] or 0) < 2e-3 for name in ("a", "b", "c", "d", "e", "y"))
    assert found.first is None
    assert "emulated" in found.how


def test_a_bf16_graph_is_compared_though_no_cpu_runs_it(graph: Path, brain_graph: Path) -> None:
    found = graph_drift(brain_graph, graph, PROBE, Rule(TolerancePair(atol=0.1, rtol=0.1)))
    errors = {
        layer.name: layer.relative or 0 for layer in found.layers if layer.dtype == "bfloat16"
    }
    assert set(errors) >= {"a", "b", "c", "d", "e"}
    assert all(1e-4 < error < 2e-2 for error in errors.values())


def test_a_tensor_before_a_qdq_pair_is_taken_as_later_nodes_see_it(
    graph: Path, quantized: Path
) -> None:
    found = graph_drift(quantized, graph, PROBE, Rule(None))
    errors = {layer.name: layer.relative or 1.0 for layer in found.layers}
    # The quantizer drops the Relu: without the pair's clipping this layer would be far away.
    assert errors["b"] < 0.05
    assert found.not_compared == 1
    assert found.first is None


def test_many_tensors_are_fetched_in_parts_with_the_same_result(
    graph: Path, wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = wrong("w1", 5.0)
    whole = graph_drift(file, graph, PROBE, TIGHT)
    monkeypatch.setattr(drift, "FIRST_PART", 2)
    monkeypatch.setattr(drift, "BUDGET", 3 * 4 * 8 * 64)  # about three of the larger tensors
    assert graph_drift(file, graph, PROBE, TIGHT) == whole


def test_tensors_of_the_reference_that_the_graph_lacks_are_counted(graph: Path) -> None:
    proto = onnx.load(str(graph))
    relu = next(node for node in proto.graph.node if node.name == "relu")
    relu.output[0] = "renamed"
    for node in proto.graph.node:
        node.input[:] = ["renamed" if name == "b" else name for name in node.input]
    file = graph.with_name("renamed.onnx")
    onnx.save(proto, str(file))
    found = graph_drift(file, graph, PROBE, TIGHT)
    assert found.not_compared == 1
    assert "b" not in {layer.name for layer in found.layers}


# --- one layer


def test_the_absolute_tolerance_is_in_units_of_a_large_tensors_rms() -> None:
    reference = _array(100, -100, 0)
    row = layer_drift("t", "n", reference + _array(0, 0, 0.05), reference, TIGHT)
    assert row.excess == pytest.approx(0.05 / (1e-3 * np.sqrt(2e4 / 3)), rel=1e-4)
    small = layer_drift("t", "n", _array(0.002), _array(0), TIGHT)
    assert small.excess == pytest.approx(2, rel=1e-4)


def test_without_a_tolerance_the_relative_error_of_the_whole_layer_counts() -> None:
    reference = _array(3, 4)
    row = layer_drift("t", "n", reference + _array(0.5, 0), reference, Rule(None))
    assert row.relative == pytest.approx(0.1)
    assert row.excess == pytest.approx(1 / 3)


def test_equal_nan_and_infinities_agree() -> None:
    odd = _array(float("nan"), float("inf"), 1)
    row = layer_drift("t", "n", odd, odd, TIGHT)
    assert (row.max_abs, row.relative, row.excess) == (0, 0, 0)


def test_another_shape_and_something_where_nothing_should_be_are_beyond() -> None:
    assert layer_drift("t", "n", _array(1, 2), _array(1, 2, 3), TIGHT).excess is None
    assert layer_drift("t", "n", _array(1), _array(0), Rule(None)).excess is None
    assert layer_drift("t", "n", _array(), _array(), TIGHT).excess == 0


# --- in the audit


def test_the_smallest_batch_of_a_case_is_run() -> None:
    items: Tensors = {"x": np.zeros((4, 2), np.float32)}
    probe = probe_of(Golden(Case("samples", items, (2, 8)), {}))
    assert probe.case == "samples, batch 2"
    assert probe.inputs["x"].shape == (2, 2)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Golden tensors of the net."""
    outputs: Tensors = {"y": np.zeros((1, 3), np.float32)}
    write_golden([Golden(Case("random", INPUT, (1, 2)), outputs)], tmp_path / "golden")
    return tmp_path / "golden"


TARGET = BuildTarget("onnxruntime-cpu-fp16", "onnxruntime", "cpu", "fp16")


def test_the_drift_lands_in_the_audit_and_refuses_nothing(
    graph: Path, wrong: Wrong, golden: Path, spec: Callable[..., Spec]
) -> None:
    found = audit(TARGET, [], graph, spec(min_precision_share=0))
    found = with_drift(found, wrong("w1", 5.0), graph, golden, TIGHT.tolerance)
    assert found.drift is not None
    assert found.drift.graph == "variants/onnxruntime-cpu-fp16/wrong.onnx"
    assert found.drift.first == "c"
    assert found.passed
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_a_graph_that_no_cpu_runs_was_not_audited(
    graph: Path, golden: Path, spec: Callable[..., Spec]
) -> None:
    proto = onnx.load(str(graph))
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    other = graph.with_name("other.onnx")
    onnx.save(proto, str(other))
    found = with_drift(audit(TARGET, [], graph, spec()), other, graph, golden, None)
    assert found.drift is None
    assert found.not_run[-1].startswith("drift by layer: ")
