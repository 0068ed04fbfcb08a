"""Which op types ONNX Runtime has no kernel for."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compiler.engines import BuildTarget
from compiler.engines.ort import OrtBuilder
from specs.errors import EngineError

DOUBLE = TensorProto.DOUBLE
CPU = BuildTarget("it", "onnxruntime")
Values = tuple[list[Any], list[Any]]


def write(file: Path, nodes: list[NodeProto], values: Values, *, external: bool = False) -> Path:
    """Write a graph of opset 18 with the weight w, 2 x 2."""
    inputs, outputs = ([helper.make_tensor_value_info(*item) for item in part] for part in values)
    weight = numpy_helper.from_array(np.ones((2, 2)), "w")
    graph = helper.make_graph(nodes, "net", inputs, outputs, [weight])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    location = f"{file.name}.data"
    where: Any = {"save_as_external_data": external, "location": location, "size_threshold": 0}
    onnx.save(model, str(file), **where)
    return file


def test_a_graph_with_kernels_for_all_of_it_lacks_nothing(tmp_path: Path) -> None:
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16):
        values: Values = [("x", kind, ["batch", 2, 2])], [("y", kind, ["batch"])]
        file = write(tmp_path / "net.onnx", [helper.make_node("Det", ["x"], ["y"])], values)
        assert OrtBuilder.unsupported(file, CPU) == ()


@pytest.mark.parametrize("external", [False, True])
def test_every_op_type_without_a_kernel_is_named_at_once(tmp_path: Path, external: bool) -> None:
    nodes = [
        helper.make_node("Erf", ["x"], ["a"], name="e1"),
        helper.make_node("Add", ["a", "w"], ["b"]),
        helper.make_node("Det", ["b"], ["c"], name="d"),
        helper.make_node("Erf", ["c"], ["y"], name="e2"),
        helper.make_node("Own", ["x"], ["z"], domain="my.domain"),
    ]
    file = write(
        tmp_path / "net.onnx",
        nodes,
        (
            [("x", DOUBLE, ["batch", 2, 2])],
            [("y", DOUBLE, ["batch"]), ("z", DOUBLE, ["batch", 2, 2])],
        ),
        external=external,
    )
    assert OrtBuilder.unsupported(file, CPU) == ("Det", "Erf", "Own")


def test_a_graph_that_is_none_is_an_error_and_not_a_lack(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"cannot load net\.onnx"):
        OrtBuilder.unsupported(tmp_path / "net.onnx", CPU)


def test_without_a_gpu_nobody_can_tell_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    values: Values = [("x", DOUBLE, ["batch", 2])], [("y", DOUBLE, ["batch", 2])]
    file = write(tmp_path / "net.onnx", [helper.make_node("Erf", ["x"], ["y"])], values)
    assert OrtBuilder.unsupported(file, BuildTarget("it", "onnxruntime", "cuda")) is None
