"""The contract: every difference between the spec and the graph fails the build."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from compiler.contract import check_contract, differences
from specs.errors import ContractError, DeploycError
from specs.schema import Spec

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]


def _spec(**parts: Any) -> Spec:
    return Spec.model_validate(
        {
            "version": 1,
            "name": "net",
            "model": {"python": {"file": "net.py", "object": "Net"}},
            "inputs": {"x": {"shape": ["batch", 4]}},
            "outputs": {"y": {"shape": ["batch", 3]}},
            "dynamic_axes": {"batch": {"min": 1, "max": 8}},
            **parts,
        }
    )


def _value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _proto(
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    opset: int = 18,
    ir: int = 10,
) -> onnx.ModelProto:
    x = inputs or [_value("x", ["batch", 4])]
    y = outputs or [_value("y", ["batch", 3])]
    graph = helper.make_graph([], "net", x, y)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = ir
    return proto


def _found(proto: onnx.ModelProto, spec: Spec) -> list[str]:
    return [message for message, _ in differences(proto, spec)]


def test_a_graph_that_is_what_was_asked_for_has_no_differences() -> None:
    assert _found(_proto(), _spec()) == []


@pytest.mark.parametrize(
    ("proto", "told"),
    [
        (_proto(opset=17), "opset: asked 18, found 17"),
        (_proto(ir=14), "IR version: found 14, ONNX Runtime reads up to 13"),
        (_proto([_value("z", ["batch", 4])]), "inputs: asked ['x'], found ['z']"),
        (
            _proto([_value("x", ["batch", 4]), _value("z", [1])]),
            "inputs: asked ['x'], found ['x', 'z']",
        ),
        (_proto(outputs=[_value("out", ["batch", 3])]), "outputs: asked ['y'], found ['out']"),
        (_proto([_value("x", [2, 4])]), "input 'x' axis 0: asked batch, found 2"),
        (_proto([_value("x", ["batch", 5])]), "input 'x' axis 1: asked 4, found 5"),
        (_proto([_value("x", ["batch", "w"])]), "input 'x' axis 1: asked 4, found w"),
        (_proto([_value("x", ["batch", None])]), "input 'x' axis 1: asked 4, found None"),
        (_proto([_value("x", ["batch"])]), "input 'x' rank: asked ['batch', 4], found ['batch']"),
        (_proto(outputs=[_value("y", [1, 3])]), "output 'y' axis 0: asked batch, found 1"),
        (
            _proto(outputs=[_value("y", ["batch", 3], TensorProto.INT64)]),
            "output 'y' dtype: asked float32, found int64",
        ),
        (
            _proto(outputs=[_value("y", ["batch", 3], TensorProto.BFLOAT16)]),
            "output 'y' dtype: asked float32, found bfloat16",
        ),
    ],
)
def test_each_difference_is_told_with_what_was_asked_and_what_was_found(
    proto: onnx.ModelProto, told: str
) -> None:
    assert _found(proto, _spec()) == [told]


def test_all_differences_come_in_one_error() -> None:
    proto = _proto([_value("x", [2, 5])], opset=17)
    with pytest.raises(ContractError) as caught:
        check_contract(proto, _spec())
    assert len(caught.value.message.splitlines()) == 4
    assert "froze 'batch' at 2" in caught.value.hint


def test_what_is_no_tensor_is_told_as_what_it_is() -> None:
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["batch", 3])
    found = _found(_proto(outputs=[sequence]), _spec())
    assert found == ["output 'y': asked a tensor, found sequence_type"]


def test_a_named_axis_of_one_size_may_be_that_size_in_the_graph() -> None:
    spec = _spec(dynamic_axes={"batch": {"min": 4, "max": 4}})
    fixed = _proto([_value("x", [4, 4])], [_value("y", [4, 3])])
    other = _proto([_value("x", [2, 4])], [_value("y", [2, 3])])
    assert _found(fixed, spec) == []
    assert len(_found(other, spec)) == 2


def test_an_open_axis_is_no_named_one() -> None:
    found = _found(_proto([_value("x", [None, 4])]), _spec())
    assert found == ["input 'x' axis 0: asked batch, found None"]


def test_an_onnx_source_has_the_opset_it_has_unless_the_spec_names_one() -> None:
    source = {"model": {"onnx": "net.onnx"}}
    assert _found(_proto(opset=17), _spec(**source)) == []
    asked = _spec(**source, export={"opset": 18})
    assert _found(_proto(opset=17), asked) == ["opset: asked 18, found 17"]


def test_a_batch_that_dynamo_froze_fails_the_build(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    data = spec(export={"exporter": "dynamo"})
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        size = len(x.detach().tolist()) if not torch.compiler.is_compiling() else 2\n"
        "        return x[:, :3].reshape(size, 3)\n"
    )
    error = refused(data)
    assert error.code in {"contract", "export"}
    assert "batch" in str(error)


def test_a_batch_that_the_torchscript_exporter_froze_is_found_by_running_another(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    data = spec(export={"exporter": "torchscript"})
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x[:, :3].reshape(int(x.shape[0]), 3)\n"
    )
    error = refused(data)
    assert error.code == "parity_run"
    assert "fails on inputs of shape {'x': [1, 4]}" in error.message
    assert "int(x.shape[0])" in error.hint
