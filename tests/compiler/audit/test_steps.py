"""The portable graph against the model that it was exported from."""

# pyright: reportUnknownMemberType=false
# onnx's and torch's functions are typed in part.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compiler.audit.drift import Probe, Rule
from compiler.audit.steps import model_drift, nearest
from compiler.sources import TorchModel
from compiler.sources.onnx import OnnxModel
from compiler.traces import Step, Value, model_steps
from runtime.tensors import Tensors
from specs.precision import TolerancePair
from specs.schema import Spec

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the TorchScript-based exporter
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of torch.jit.script
]

PAIR = TolerancePair(atol=1e-4, rtol=1e-4)
INPUT: Tensors = {"x": np.random.default_rng(2).standard_normal((2, 4, 8, 8)).astype(np.float32)}
PROBE = Probe("random, batch 2", INPUT)
SPEC = Spec.model_validate(
    {
        "version": 1,
        "name": "net",
        "model": {"python": {"file": "net.py", "object": "Net"}},
        "inputs": {"x": {"shape": ["batch", 4, 8, 8]}},
        "outputs": {"y": {"shape": ["batch", 3]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    }
)


class Net(torch.nn.Module):
    """A convolution with its batch norm, a second one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(4, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.norm.running_var = torch.tensor([0.5, 0.7, 1.1, 1.5])
        self.second = torch.nn.Conv2d(4, 5, 3)
        self.head = torch.nn.Linear(5, 3)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        found = self.second(torch.relu(self.norm(self.conv(x))))
        return self.head(found.mean([2, 3]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The net as ONNX; the exporter folds the batch norm into its convolution."""
    file = tmp_path_factory.mktemp("steps") / "net.onnx"
    arguments = (torch.from_numpy(INPUT["x"]),)
    axes = {"x": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(Net(), arguments, str(file), dynamo=False, opset_version=17, **names)
    return file


def _spoiled(file: Path, shape: tuple[int, ...]) -> Path:
    """The graph with one weight, known by its shape, planted wrong."""
    proto = onnx.load(str(file))
    tensor = next(each for each in proto.graph.initializer if tuple(each.dims) == shape)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 3
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    other = file.with_name("spoiled.onnx")
    onnx.save(proto, str(other))
    return other


def test_every_module_is_found_in_the_graph_but_those_that_were_fused(exported: Path) -> None:
    model = TorchModel(Net(), None)
    found = model_drift(model, exported, SPEC, PROBE, PAIR)
    names = [layer.name.split()[0] for layer in found.layers]
    assert names == ["norm", "second", "head"]
    assert found.not_compared == 1  # conv, whose batch norm was folded into it
    assert found.reference == "PyTorch"
    assert found.first is None
    assert all((layer.excess or 0) < 1 for layer in found.layers)


def test_a_planted_wrong_weight_is_found_at_its_module(exported: Path) -> None:
    model = TorchModel(Net(), None)
    found = model_drift(model, _spoiled(exported, (5, 4, 3, 3)), SPEC, PROBE, PAIR)
    assert found.first == "second (Conv2d)"
    assert found.divergence.startswith("second (Conv2d), node ")


def test_of_several_tensors_of_a_shape_the_nearest_stands_for_a_step() -> None:
    def full(number: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.full((2, 3), number, np.float32)

    values = [Value(f"v{number}", full(number), f"n{number}") for number in (5.0, 1.5, 3.0)]
    row = nearest(Step("step", (), full(1.0)), values, Rule(PAIR))
    assert (row.node, row.max_abs) == ("n1.5", 0.5)
    assert nearest(Step("step", (), full(1.0)[:1]), values, Rule(PAIR)).excess is None


def test_a_scripted_model_has_its_operators_as_steps(exported: Path) -> None:
    scripted = torch.jit.script(Net())
    model = TorchModel(scripted, scripted)
    assert len(model_steps(model, SPEC, INPUT)) > 3
    assert model_drift(model, exported, SPEC, PROBE, PAIR).first is None
    spoiled = model_drift(model, _spoiled(exported, (5, 4, 3, 3)), SPEC, PROBE, PAIR)
    assert spoiled.first is not None
    assert "conv2d" in spoiled.first


def test_an_onnx_source_is_compared_with_onnxs_own_evaluator(exported: Path) -> None:
    model = OnnxModel(onnx.load(str(exported)))
    found = model_drift(model, exported, SPEC, PROBE, PAIR)
    assert found.reference == "ONNX's evaluator"
    assert found.first is None
    assert found.not_compared == 0
