"""Which share of the computation is in the type that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compiler.audit import audit, check
from compiler.engines import BuildTarget, get_builder
from runtime.engines import Layer
from specs.engines import Precision
from specs.errors import AuditError
from specs.schema import Spec

MakeSpec = Callable[..., Spec]


def _target(precision: Precision, engine: str = "onnxruntime") -> BuildTarget:
    return BuildTarget(f"{engine}-cpu-{precision}", engine, "cpu", precision)


def _layer(name: str, precision: str, cost: float = 0.0, op: str = "Conv") -> Layer:
    return Layer(name, op, "cpu", "CPUExecutionProvider", precision, cost)


def test_fp16_that_an_engine_computes_in_fp32_is_refused_with_the_figures(
    half_graph: Path, spec: MakeSpec
) -> None:
    target = _target("fp16")
    layers = get_builder("onnxruntime").layers(half_graph, target)
    found = audit(target, layers, half_graph, spec())
    assert found.precision.shares == {"fp32": 1.0}
    with pytest.raises(AuditError) as caught:
        check(found, target, spec())
    assert caught.value.code == "precision"
    said = (
        "fp16 was asked for; 0 % of the computation is in fp16 (100 % in fp32), the floor is 90 %"
    )
    assert said in caught.value.message
    assert "device: cuda" in caught.value.hint


def test_a_lower_floor_lets_it_pass(half_graph: Path, spec: MakeSpec) -> None:
    target, lenient = _target("fp16"), spec(min_precision_share=0)
    layers = get_builder("onnxruntime").layers(half_graph, target)
    check(audit(target, layers, half_graph, lenient), target, lenient)


def test_layers_are_weighted_by_their_cost(graph: Path, spec: MakeSpec) -> None:
    layers = [_layer("conv0", "fp16", 95), _layer("conv1", "fp32", 5)]
    found = audit(_target("fp16"), layers, graph, spec()).precision
    assert found.shares == pytest.approx({"fp16": 0.95, "fp32": 0.05})
    assert found.passed


def test_without_costs_the_graphs_own_are_found_by_the_names_of_fused_nodes(
    graph: Path, spec: MakeSpec
) -> None:
    layers = [
        _layer("conv0 + relu", "fp16"),
        _layer("conv1 || add", "fp16"),
        _layer("head", "fp32"),
    ]
    found = audit(_target("fp16", "tensorrt"), layers, graph, spec()).precision
    macs = {"fp16": 8 * 64 * 9 * (4 + 8), "fp32": 8 * 3}
    whole = sum(macs.values())
    assert found.shares == pytest.approx({name: n / whole for name, n in macs.items()})
    assert "multiply-accumulates" in found.source


def test_layers_of_unknown_names_count_once_each_if_they_multiply(
    graph: Path, spec: MakeSpec
) -> None:
    others = [_layer(f"r{n}", "fp32", op="Reorder") for n in range(9)]
    layers = [_layer("p", "int8"), _layer("q", "int8", op="QGemm"), _layer("r", "fp32"), *others]
    found = audit(_target("int8"), layers, graph, spec()).precision
    assert found.shares == pytest.approx({"int8": 2 / 3, "fp32": 1 / 3})


def test_a_layer_whose_type_is_not_told_never_counts_as_the_one_asked_for(
    graph: Path, spec: MakeSpec
) -> None:
    layers = [_layer("conv0", "fp32", 50), _layer("conv1", "", 50)]
    found = audit(_target("fp32"), layers, graph, spec())
    assert found.precision.shares == {"fp32": 0.5, "unknown": 0.5}
    with pytest.raises(AuditError, match="50 % in unknown"):
        check(found, _target("fp32"), spec())


def test_fp32_that_an_engine_lowers_is_refused_too(graph: Path, spec: MakeSpec) -> None:
    target = _target("fp32", "openvino")
    with pytest.raises(AuditError, match="fp32 was asked for; 0 % of the computation is in fp32"):
        check(audit(target, [_layer("conv0", "bf16", 1)], graph, spec()), target, spec())


def test_where_the_engine_does_not_tell_the_graph_speaks_and_it_is_said(
    half_graph: Path, spec: MakeSpec
) -> None:
    found = audit(_target("fp16"), [Layer("conv0", "Conv", "cpu")], half_graph, spec()).precision
    assert found.shares == {"fp16": 1.0}
    assert found.source == "from the graph; onnxruntime does not tell"


def test_an_engine_that_builds_from_the_source_and_does_not_tell_was_not_audited(
    graph: Path, spec: MakeSpec
) -> None:
    found = audit(_target("bf16", "torch"), [], graph, spec())
    assert found.precision.share is None
    assert any(text.startswith("precision: torch does not tell") for text in found.not_run)


def test_nodes_that_were_kept_in_fp32_are_named_in_the_refusal(graph: Path, spec: MakeSpec) -> None:
    target = _target("fp16")
    layers = [_layer("conv0", "fp16", 50), _layer("conv1", "fp32", 50)]
    found = audit(target, layers, graph, spec(), ["conv1", "head"])
    with pytest.raises(AuditError, match="wrong in fp16: conv1, head") as caught:
        check(found, target, spec())
    assert "verify.tolerance.fp16" in caught.value.hint


def test_a_model_that_is_quantized_itself_is_held_to_what_it_has_in_fp32(
    quantized: Path, graph: Path, spec: MakeSpec
) -> None:
    layers = [_layer("conv0", "int8", 1)]
    found = audit(_target("fp32"), layers, quantized, spec())
    assert found.precision.in_model < 0.01
    assert found.passed
    assert not audit(_target("fp32"), layers, graph, spec()).passed


def test_tf32_that_the_options_allow_was_not_audited(graph: Path, spec: MakeSpec) -> None:
    target = BuildTarget("t", "tensorrt", "cuda", "fp32", {"tf32": True})
    layers = [Layer("conv0", "Conv", "cuda", "TensorRT", "fp32", 1.0)]
    assert "TF32" in audit(target, layers, graph, spec()).not_run[0]
    plain = BuildTarget("t", "tensorrt", "cuda", "fp32", {"tf32": False})
    assert audit(plain, layers, graph, spec()).complete


@pytest.mark.parametrize(("share", "told"), [(0.9996, "99.9 %"), (0.0001, "0.1 %"), (0.5, "50 %")])
def test_a_share_is_never_rounded_to_all_or_nothing(
    share: float, told: str, graph: Path, spec: MakeSpec
) -> None:
    target = _target("fp16")
    layers = [_layer("conv0", "fp16", share), _layer("conv1", "fp32", 1 - share)]
    strict = spec(min_precision_share=1)
    with pytest.raises(AuditError, match=f"fp16 was asked for; {told} of the computation"):
        check(audit(target, layers, graph, strict), target, strict)
