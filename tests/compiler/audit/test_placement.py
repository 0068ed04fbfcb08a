"""Which node runs where, against ``verify.max_nodes_off_device``."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from compiler.audit import audit, check
from compiler.engines import BuildTarget
from runtime.engines import Layer
from specs.audit import NAMES
from specs.engines import Device
from specs.errors import AuditError
from specs.schema import Spec

MakeSpec = Callable[..., Spec]
CUDA = BuildTarget("onnxruntime-cuda-fp32", "onnxruntime", "cuda")


def _layer(name: str, op: str, device: Device) -> Layer:
    return Layer(name, op, device, f"{device.upper()}ExecutionProvider", "fp32", 1.0)


ON_DEVICE = [_layer("conv0", "Conv", "cuda"), _layer("head", "Gemm", "cuda")]
OFF_DEVICE = _layer("conv1", "Conv", "cpu")


def test_a_node_off_the_device_is_refused_with_its_name_and_what_may_be_raised(
    graph: Path, spec: MakeSpec
) -> None:
    found = audit(CUDA, [*ON_DEVICE, OFF_DEVICE], graph, spec())
    assert found.placement.devices == {"cpu": 1, "cuda": 2}
    assert found.placement.places == {"CPUExecutionProvider": 1, "CUDAExecutionProvider": 2}
    assert not found.passed
    with pytest.raises(AuditError) as caught:
        check(found, CUDA, spec())
    assert caught.value.code == "placement"
    assert "cuda was asked for; 1 of 3 nodes runs on cpu, 0 may: conv1 (Conv)" in str(caught.value)
    assert "max_nodes_off_device" in caught.value.hint


def test_as_many_nodes_off_the_device_as_the_spec_allows_pass(graph: Path, spec: MakeSpec) -> None:
    layers = [*ON_DEVICE, OFF_DEVICE]
    allowed = spec(max_nodes_off_device=1)
    check(audit(CUDA, layers, graph, allowed), CUDA, allowed)
    more = audit(CUDA, [*layers, _layer("add", "Add", "cpu")], graph, allowed)
    with pytest.raises(AuditError, match="2 of 4 nodes run on cpu, 1 may"):
        check(more, CUDA, allowed)


def test_arithmetic_on_sizes_on_the_host_is_told_and_does_not_count(
    graph: Path, spec: MakeSpec
) -> None:
    names = {"shape": "Shape", "first": "Gather", "target": "Concat"}
    sizes = [_layer(name, op, "cpu") for name, op in names.items()]
    found = audit(CUDA, [*ON_DEVICE, *sizes], graph, spec())
    assert (found.placement.off_device, found.placement.shape_nodes) == (0, 3)
    check(found, CUDA, spec())


def test_the_same_ops_on_data_count_as_off_the_device(graph: Path, spec: MakeSpec) -> None:
    found = audit(CUDA, [*ON_DEVICE, _layer("flat", "Reshape", "cpu")], graph, spec())
    assert found.placement.off_device_names == ("flat (Reshape)",)


def test_work_on_constants_off_the_device_counts(graph: Path, spec: MakeSpec) -> None:
    proto = onnx.load(str(graph))
    proto.graph.node[0].input[1] = "cast"
    cast = onnx.helper.make_node("Cast", ["w0"], ["cast"], "weights", to=onnx.TensorProto.FLOAT)
    proto.graph.node.insert(0, cast)
    onnx.save(proto, str(graph))
    found = audit(CUDA, [*ON_DEVICE, _layer("weights", "Cast", "cpu")], graph, spec())
    assert found.placement.off_device == 1


def test_a_node_that_the_graph_does_not_have_is_no_arithmetic_on_sizes(
    graph: Path, spec: MakeSpec
) -> None:
    found = audit(CUDA, [*ON_DEVICE, _layer("", "Gather", "cpu")], graph, spec())
    assert found.placement.off_device == 1


def test_of_many_nodes_the_first_are_named_and_all_are_counted(graph: Path, spec: MakeSpec) -> None:
    layers = [_layer(f"n{number}", "Conv", "cpu") for number in range(NAMES + 5)]
    found = audit(CUDA, layers, graph, spec())
    assert found.placement.off_device == NAMES + 5
    assert len(found.placement.off_device_names) == NAMES
    with pytest.raises(AuditError, match=r"n4 \(Conv\) and 20 more"):
        check(found, CUDA, spec())


def test_an_engine_with_several_devices_that_tells_nothing_was_not_audited(
    graph: Path, spec: MakeSpec
) -> None:
    found = audit(CUDA, [], graph, spec())
    assert found.not_run == ("placement: onnxruntime does not tell where its nodes run",)
    assert not found.complete


def test_an_engine_with_one_device_has_no_other_place(graph: Path, spec: MakeSpec) -> None:
    target = BuildTarget("openvino-cpu-fp32", "openvino")
    found = audit(target, [], graph, spec())
    assert found.placement.source == "openvino runs on no other device"
    assert found.complete


def test_onnx_runtime_tells_that_every_node_runs_on_the_cpu(graph: Path, spec: MakeSpec) -> None:
    from compiler.engines import get_builder

    target = BuildTarget("onnxruntime-cpu-fp32", "onnxruntime")
    layers = get_builder("onnxruntime").layers(graph, target)
    found = audit(target, layers, graph, spec())
    assert found.placement.places == {"CPUExecutionProvider": len(layers)}
    assert found.passed
    assert found.complete
