"""Parity: what was built answers as PyTorch does, or the build says where it does not."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import compiler.exporters
import runtime
from compiler.cases import Case, batch_of
from compiler.compare import Tolerance
from compiler.golden import Golden
from compiler.parity import check_parity
from runtime.predictor import Predictor
from runtime.tensors import Tensors, rows
from specs.errors import DeploycError, ParityError

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]


def _perturb(proto: onnx.ModelProto, op: str, number: int) -> onnx.ModelProto:
    """Add 1 to one weight of the ``number``-th node of its type."""
    node = [node for node in proto.graph.node if node.op_type == op][number]
    for tensor in proto.graph.initializer:
        if tensor.name == node.input[1]:
            weight = numpy_helper.to_array(tensor).copy()
            weight.flat[0] += 1
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return proto


@pytest.fixture
def tampered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make every export come out with one weight changed; nothing is taken from a cache."""
    original = compiler.exporters.export
    monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / "cache"))

    def tamper(op: str, number: int) -> None:
        def export(*args: Any) -> onnx.ModelProto:
            return _perturb(original(*args), op, number)

        monkeypatch.setattr(compiler.exporters, "export", export)

    return tamper


def test_every_case_at_every_corner_of_the_batch_is_in_the_manifest(
    spec: Make, build_spec: Build
) -> None:
    variant = build_spec(spec()).manifest.variants[0]
    assert [case.case for case in variant.parity] == [
        f"random, batch {size}" for size in (1, 2, 4, 7, 8)
    ]
    assert all(case.max_excess <= 1 for case in variant.parity)


def test_a_wrong_weight_is_caught_with_the_worst_output_its_index_and_both_values(
    spec: Make, refused: Refused, tampered: Callable[..., None]
) -> None:
    tampered("Gemm", 0)
    error = refused(spec())
    assert isinstance(error, ParityError)
    assert "differ (random, batch 1): output 'y' at [0, 0]: " in error.message
    assert "the reference has " in error.message
    assert "times the tolerance (atol 0.001, rtol 0.001)" in error.message


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_first_module_and_node_that_differ_are_named(
    conv_spec: Make, refused: Refused, tampered: Callable[..., None], exporter: str
) -> None:
    tampered("Conv", 1)
    error = refused(conv_spec(export={"exporter": exporter}))
    told = error.message.split("first divergence: ")[1]
    assert told.startswith("conv2 (Conv2d), node ")
    assert told.endswith("(Conv)")


def test_a_convolution_fused_with_its_batch_norm_is_named_not_the_one_after(
    conv_spec: Make, refused: Refused, tampered: Callable[..., None]
) -> None:
    tampered("Conv", 0)
    error = refused(conv_spec(export={"exporter": "dynamo"}))
    assert "first divergence: conv (Conv2d), node " in error.message


def test_the_first_operator_of_an_exported_program_that_differs_is_named(
    conv_spec: Make, refused: Refused, tampered: Callable[..., None], tmp_path: Path
) -> None:
    from compiler.sources.python import import_file

    data = conv_spec(model={"exported_program": "net.pt2"}, export=None)
    module = import_file(tmp_path / "net.py").Conv().eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},)
    program = torch.export.export(module, (torch.ones(2, 1, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "net.pt2"))
    tampered("Conv", 1)
    error = refused(data)
    assert "first divergence: conv2d_1 (aten.conv2d.default), node " in error.message


def test_the_first_node_of_an_onnx_source_that_differs_is_named(
    conv_spec: Make, build_spec: Build, refused: Refused, tampered: Callable[..., None]
) -> None:
    result = build_spec(conv_spec())
    (result.folder / "model.onnx").rename(result.folder.parent / "net.onnx")
    tampered("Conv", 1)
    error = refused(conv_spec(model={"onnx": "net.onnx"}, export=None))
    assert "first divergence: /conv2/Conv (Conv), node /conv2/Conv (Conv)" in error.message


def test_a_failure_while_looking_for_the_first_difference_does_not_hide_the_difference(
    spec: Make, refused: Refused, tampered: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("compiler.divergence.graph_values", fail)
    tampered("Gemm", 0)
    error = refused(spec())
    assert error.code == "parity"
    assert "first divergence" not in error.message


class _ByPlace:
    """An engine that gives the same rows whatever it is asked, right for the first order alone."""

    def __init__(self, outputs: Tensors) -> None:
        self.outputs = outputs

    def predict_batch(self, inputs: Tensors) -> Tensors:
        """The stored rows."""
        return batch_of(self.outputs, rows(inputs), 0)


def test_an_engine_that_answers_by_place_is_caught_by_a_second_order_of_the_items() -> None:
    case = Case("random", {"x": np.arange(3.0)[:, None]}, (1, 2))
    outputs: Tensors = {"y": np.arange(3.0)[:, None]}
    predictor = cast("Predictor", _ByPlace(outputs))
    seen: list[Tensors] = []

    def locate(inputs: Tensors) -> str:
        seen.append(inputs)
        return "here"

    with pytest.raises(ParityError, match="first divergence: here"):
        check_parity(predictor, [Golden(case, outputs)], Tolerance(0.1, 0.0), locate)
    assert seen[0]["x"].tolist() == [[1.0]]  # the batch that failed, not the first one


def test_what_tolerance_allows_passes(
    spec: Make, build_spec: Build, tampered: Callable[..., None]
) -> None:
    tampered("Gemm", 0)
    assert build_spec(spec(verify={"atol": 100.0})).written


def test_a_model_with_statistics_over_the_batch_is_refused(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    data = spec()
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return (x - x.mean(0))[:, :3]\n"
    )
    error = refused(data)
    assert error.code == "batch_dependent"


def test_a_fixed_batch_with_statistics_over_it_is_refused_too(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    data = spec(
        inputs={"x": {"shape": [8, 4]}}, outputs={"y": {"shape": [8, 3]}}, dynamic_axes=None
    )
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return (x - x.mean(0))[:, :3]\n"
    )
    assert refused(data).code == "batch_dependent"


def test_a_random_forward_is_refused(spec: Make, refused: Refused, tmp_path: Path) -> None:
    data = spec()
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return torch.rand_like(x)[:, :3]\n"
    )
    assert refused(data).code == "batch_dependent"


def test_the_same_nan_and_infinity_on_both_sides_agree(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    data = spec()
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        return torch.stack([x[:, 0] / 0, torch.log(-x[:, 1].abs()), x[:, 2]], 1)\n"
    )
    assert build_spec(data).written


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_nested_outputs_and_whole_number_inputs_are_proven_in_the_specs_order(
    spec: Make, build_spec: Build, tmp_path: Path, exporter: str
) -> None:
    data = spec(
        inputs={"ids": {"shape": ["batch", 4], "dtype": "int64"}, "x": {"shape": ["batch", 5]}},
        outputs={
            "total": {"shape": ["batch", 5]},
            "first": {"shape": ["batch", 4, 2]},
            "best": {"shape": ["batch"], "dtype": "int64"},
        },
        export={"exporter": exporter},
    )
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.table = torch.nn.Embedding(8, 2)\n"
        "    def forward(self, ids, x):\n"
        "        rows = self.table(ids)\n"
        "        total = x + rows.sum((1, 2), keepdim=True)[:, :, 0]\n"
        "        return {'total': total, 'more': (rows, [x.argmax(1)])}\n"
    )
    result = build_spec(data)
    with runtime.load(result.folder) as predictor:
        item = {"ids": np.arange(4), "x": np.array([0, 0, 9, 0, 0], np.float32)}
        answer = predictor.predict([item])[0]["outputs"]
    assert [(name, array.shape) for name, array in answer.items()] == [
        ("total", (5,)),
        ("first", (4, 2)),
        ("best", ()),
    ]
    assert int(answer["best"]) == 2


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_height_and_width_may_be_dynamic_together(
    spec: Make, build_spec: Build, tmp_path: Path, exporter: str
) -> None:
    data = spec(
        inputs={"x": {"shape": ["batch", 1, "height", "width"]}},
        outputs={"y": {"shape": ["batch", 1, "out_height", "out_width"]}},
        dynamic_axes={
            "batch": {"min": 1, "opt": 2, "max": 3},
            "height": {"min": 4, "opt": 6, "max": 9},
            "width": {"min": 4, "opt": 6, "max": 8},
        },
        export={"exporter": exporter},
    )
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        return torch.nn.functional.interpolate(x, scale_factor=2, mode='nearest')\n"
    )
    result = build_spec(data)
    assert {case.case.partition(",")[0] for case in result.manifest.variants[0].parity} == {
        "random",
        *(f"height={size}" for size in (4, 7, 9)),
        *(f"width={size}" for size in (4, 7, 8)),
    }
    with runtime.load(result.folder) as predictor:
        items = [np.ones((1, h, w), np.float32) for h, w in ((4, 8), (9, 4), (4, 8))]
        shapes = [answer["outputs"]["y"].shape for answer in predictor.predict(items)]
    assert shapes == [(1, 8, 16), (1, 18, 8), (1, 8, 16)]


def test_another_dtype_than_the_spec_says_is_a_difference_of_the_contract(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    data = spec()
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x[:, :3].double()\n"
    )
    error = refused(data)
    assert "output 'y' dtype: asked float32, found float64" in error.message


def test_fewer_outputs_than_the_spec_names_are_refused(spec: Make, refused: Refused) -> None:
    outputs = {"y": {"shape": ["batch", 3]}, "z": {"shape": ["batch", 3]}}
    error = refused(spec(outputs=outputs))
    assert error.message == "the model gives 1 outputs, the spec names 2"
