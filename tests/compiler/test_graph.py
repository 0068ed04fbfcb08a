"""The portable graph: names, versions, files."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.graph import (
    clean,
    describe,
    external_files,
    graph_inputs,
    name_dims,
    opset_of,
    save,
    set_ir_version,
    shape_of,
)
from specs.schema import Spec

Shape = list[Any]


def _proto(x: Shape, y: Shape) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product", doc_string="/home/me")
    node.metadata_props.add(key="stack", value="/home/me/net.py")
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [weight],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version, proto.producer_version = 10, "2.14"
    return proto


def _spec(x: Shape, y: Shape) -> Spec:
    axes = {name: {"min": 1, "max": 8} for name in x if isinstance(name, str)}
    return Spec.model_validate(
        {
            "version": 1,
            "name": "net",
            "model": {"onnx": "net.onnx"},
            "inputs": {"x": {"shape": x}},
            "outputs": {"y": {"shape": y}},
            "dynamic_axes": axes,
        }
    )


def _named(found: tuple[Shape, Shape], wanted: tuple[Shape, Shape]) -> tuple[Shape, Shape]:
    proto = _proto(*found)
    name_dims(proto, _spec(*wanted))
    return shape_of(proto.graph.input[0]), shape_of(proto.graph.output[0])


def test_nothing_of_the_machine_that_built_stays_in_a_clean_graph() -> None:
    proto = _proto(["n", 4], ["n", 4])
    clean(proto)
    assert b"/home/me" not in proto.SerializeToString()
    assert proto.producer_version == ""


def test_a_machine_named_batch_takes_the_specs_name_everywhere() -> None:
    found = _named((["s77", 4], ["s77", 4]), (["batch", 4], ["batch", 4]))
    assert found == (["batch", 4], ["batch", 4])


def test_names_are_replaced_in_expressions_and_an_output_may_have_a_name_of_its_own() -> None:
    wanted = (["batch", "height"], ["batch", "out"])
    assert _named((["s1", "s2"], ["s1", "3*s2"]), wanted)[1] == ["batch", "out"]


def test_an_open_size_of_an_output_takes_what_the_spec_says() -> None:
    assert _named((["n", 4], ["n", None]), (["batch", 4], ["batch", 4]))[1] == ["batch", 4]


def test_an_output_that_follows_another_axis_keeps_that_ones_name() -> None:
    wanted = (["batch", "height"], ["batch", "batch"])
    assert _named((["a", "b"], ["a", "b"]), wanted)[1] == ["batch", "height"]


def test_a_size_that_the_graph_fixes_is_never_renamed() -> None:
    assert _named(([2, 4], [2, 4]), (["batch", 4], ["batch", 4])) == ([2, 4], [2, 4])


def test_weights_listed_as_inputs_are_not_what_a_caller_fills() -> None:
    proto = _proto(["n", 4], ["n", 4])
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))
    assert [value.name for value in graph_inputs(proto)] == ["x"]


def test_the_opset_is_that_of_the_default_domain() -> None:
    proto = _proto(["n", 4], ["n", 4])
    proto.opset_import.insert(0, helper.make_opsetid("own", 3))
    assert opset_of(proto) == 18
    del proto.opset_import[:]
    assert opset_of(proto) == 0


@pytest.mark.parametrize(("wanted", "written"), [(None, 10), (9, 9), (13, 13), (7, 10)])
def test_an_ir_version_is_written_where_the_opset_allows_it(
    wanted: int | None, written: int
) -> None:
    proto = _proto(["n", 4], ["n", 4])
    set_ir_version(proto, wanted)
    assert proto.ir_version == written


def test_weights_beside_the_graph_are_all_of_them_and_are_found_again(tmp_path: Path) -> None:
    save(_proto(["n", 4], ["n", 4]), tmp_path / "model.onnx", external=True)
    beside = tmp_path / "model.onnx.data"
    assert beside.stat().st_size == 64
    assert external_files(tmp_path / "model.onnx") == [beside]
    onnx.checker.check_model(str(tmp_path / "model.onnx"))


@pytest.mark.parametrize("external", [None, False])
def test_small_weights_stay_in_the_graph(tmp_path: Path, external: bool | None) -> None:
    save(_proto(["n", 4], ["n", 4]), tmp_path / "model.onnx", external=external)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert external_files(tmp_path / "model.onnx") == []


def test_a_file_that_is_no_graph_has_no_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    assert external_files(tmp_path / "model.onnx") == []


def test_nodes_are_counted_by_type_also_those_of_branches() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "b", [], [])
    proto = _proto(["n", 4], ["n", 4])
    node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    proto.graph.node.extend([node, helper.make_node("Own", ["x"], ["q"], domain="my")])
    graph = describe(proto, "none")
    assert graph.nodes == {"Identity": 2, "If": 1, "MatMul": 1, "my::Own": 1}
    assert graph.parameters == 16
