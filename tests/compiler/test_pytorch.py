"""PyTorch's files: the model itself, in the precision that was asked for."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's functions are typed in part.
from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiler.engines import BuildTarget, Job
from compiler.engines.pytorch import TorchBuilder
from compiler.sources import Model, TorchModel
from compiler.sources.onnx import OnnxModel
from runtime.engines.pytorch import TorchEngine
from runtime.tensors import Tensors
from specs.engines import Precision
from specs.errors import EngineError
from specs.schema import Spec

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "it",
    "model": {"python": {"file": "net.py", "object": "Net"}},
    "weights": {"random": {"seed": 0}},
    "inputs": {"x": {"shape": ["batch", 3, 8, 8]}, "n": {"shape": ["batch"], "dtype": "int64"}},
    "outputs": {
        "y": {"shape": ["batch", 5]},
        "z": {"shape": ["batch"], "dtype": "int64"},
        "w": {"shape": ["batch", 3]},
    },
    "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}},
}
WIDEST = {"fp32": 0.0, "fp16": 1e-2, "bf16": 1e-1}
Build = Callable[..., Path]
in_each = pytest.mark.parametrize("precision", list(WIDEST))


class Net(nn.Module):
    """Nested outputs, a constant that is made on the way, and a constant argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor, n: torch.Tensor, *, gain: float = 1.0) -> dict[str, Any]:
        """Linear over a mean; twice the integers; channel means."""
        found = torch.relu_(self.norm(self.conv(x))).mean((2, 3))
        scale = torch.arange(1, 4, device=x.device).to(x)
        return {"y": self.head(found) * gain, "rest": [n * 2, (None, x.mean((2, 3)) * scale)]}


class Scripted(nn.Module):
    """Control flow that only TorchScript keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 5)

    def forward(
        self, x: torch.Tensor, n: torch.Tensor, gain: float = 1.0
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """As ``Net``, with a branch that depends on a value."""
        flat = x.flatten(1)
        if bool(n.sum() > 3):
            flat = flat * 2
        return self.head(flat) * gain, (n * 2, x.mean((2, 3)))


def model_of(module: nn.Module) -> TorchModel:
    torch.manual_seed(0)
    module.eval()
    return TorchModel(module, module)


def scripted() -> TorchModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = torch.jit.script(Scripted().eval())
    return TorchModel(whole, whole)


@pytest.fixture(scope="module", autouse=True)
def seeded() -> Generator[None, None, None]:
    """Modules with the same weights each time, and torch's own state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a model into a folder; gives its file."""

    def run(loaded: Model, precision: Precision = "fp32", name: str = "out", **parts: Any) -> Path:
        options = parts.pop("options", {})
        (tmp_path / name).mkdir()
        target = BuildTarget("it", "torch", "cpu", precision, options)
        spec = Spec.model_validate({**SPEC, **parts})
        lost = tmp_path / "no.onnx"
        job = Job(lost, tmp_path / name, target, spec, lambda: loaded, tmp_path)
        return tmp_path / name / TorchBuilder.build(job).file

    return run


def batch(size: int) -> Tensors:
    x = np.random.default_rng(size).standard_normal((size, 3, 8, 8)).astype(np.float32)
    return {"x": x, "n": np.arange(size)}


def gap(model: TorchModel, file: Path, size: int, kwargs: dict[str, Any] | None = None) -> float:
    """Largest difference to the model, after names, dtypes and shapes were compared."""
    inputs = batch(size)
    expected = model.outputs(list(inputs.values()), kwargs or {})
    found = TorchEngine.open(file, "cpu", {}).run(inputs)
    assert list(found) == ["y", "z", "w"]
    for array, other in zip(found.values(), expected, strict=True):
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
    pairs = zip(found.values(), expected, strict=True)
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in pairs)


@in_each
def test_a_module_answers_as_it_did_at_every_batch_and_keeps_the_specs_dtypes(
    build: Build, precision: Precision
) -> None:
    model = model_of(Net())
    file = build(model, precision)
    assert file.name == "model.pt2"
    for size in (1, 2, 5, 8):
        assert gap(model, file, size) <= WIDEST[precision]


@in_each
def test_a_lower_precision_is_computed_in_it_and_leaves_the_reference_alone(
    build: Build, precision: Precision
) -> None:
    net = Net()
    layers = TorchEngine.layers(build(model_of(net), precision), "cpu", {})
    costly = {layer.op: layer.precision for layer in layers if layer.cost}
    assert costly == {"aten.conv2d.default": precision, "aten.linear.default": precision}
    assert {str(weight.dtype) for weight in net.parameters()} == {"torch.float32"}


@in_each
def test_torchscript_stays_torchscript_with_its_branches(
    build: Build, precision: Precision
) -> None:
    model = scripted()
    file = build(model, precision)
    assert file.name == "model.pt"
    for size in (1, 2, 3, 8):  # from 3 items on the other branch
        assert gap(model, file, size) <= WIDEST[precision]
    assert {str(weight.dtype) for weight in model.call.parameters()} == {"torch.float32"}


def test_a_scripted_function_is_stored_too(build: Build) -> None:
    def double(x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x.flatten(1)[:, :5] * 2, n * 2, x.mean((2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = torch.jit.script(double)
    model = TorchModel(function, function)
    assert gap(model, build(model), 3) == 0.0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_exported_program_is_taken_as_well(build: Build, precision: Precision) -> None:
    inputs = tuple(torch.from_numpy(array) for array in batch(2).values())
    free = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(Net().eval(), inputs, dynamic_shapes=({0: free}, {0: free}))
    model = TorchModel(program.module(), program)
    assert gap(model, build(model, precision), 5) <= WIDEST[precision]


@pytest.mark.parametrize("make", [lambda: model_of(Net()), scripted], ids=["program", "script"])
def test_constant_arguments_of_the_spec_reach_the_model(
    build: Build, make: Callable[[], TorchModel]
) -> None:
    model = make()
    file = build(model, export={"forward_kwargs": {"gain": 3.0}})
    assert gap(model, file, 4, {"gain": 3.0}) == 0.0
    assert gap(model, file, 4, {"gain": 2.0}) > 0.0


@pytest.mark.parametrize("make", [lambda: model_of(Net()), scripted], ids=["program", "script"])
def test_a_file_has_the_same_bytes_each_time_and_nothing_of_the_place(
    build: Build, make: Callable[[], TorchModel], root: Path
) -> None:
    model = make()
    first, second = build(model, name="one"), build(model, name="two")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = [name for name in archive.namelist() if ".debug_pkl" not in name]
        content = b"".join(archive.read(name) for name in names)
    assert str(root).encode() not in content
    assert b"test_pytorch.py" not in content


def test_a_fixed_batch_is_fixed(build: Build) -> None:
    shapes = {
        "inputs": {"x": {"shape": [4, 3, 8, 8]}, "n": {"shape": [4], "dtype": "int64"}},
        "outputs": {
            "y": {"shape": [4, 5]},
            "z": {"shape": [4], "dtype": "int64"},
            "w": {"shape": [4, 3]},
        },
        "dynamic_axes": {},
    }
    model = model_of(Net())
    file = build(model, **shapes)
    assert gap(model, file, 4) == 0.0
    with pytest.raises(EngineError, match=r"'x' has shape \[3, 3, 8, 8\], expected \[4, 3, 8, 8\]"):
        TorchEngine.open(file, "cpu", {}).run(batch(3))


def test_a_model_that_freezes_its_batch_is_refused_with_torchs_reason(build: Build) -> None:
    class Frozen(nn.Module):
        def forward(self, x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x.reshape(2, 192)[:, :5], n, x.mean((2, 3))

    with pytest.raises(EngineError, match="cannot be exported in fp32") as caught:
        build(model_of(Frozen()))
    assert caught.value.code == "engine_build"
    assert "dynamic_axes" in caught.value.hint
    assert "batch" in caught.value.message


def test_a_graph_without_a_pytorch_model_is_refused_with_the_sources_that_have_one(
    build: Build, linear_artifact: Path
) -> None:
    import onnx

    model = OnnxModel(onnx.load(linear_artifact / "model.onnx"))
    onnx_source = {"model": {"onnx": "it.onnx"}, "weights": None}
    with pytest.raises(EngineError, match="from 'onnx' has no PyTorch model") as caught:
        build(model, **onnx_source)
    assert caught.value.code == "engine_source"
    for source in ("torchvision", "python", "torchscript", "exported_program"):
        assert source in caught.value.hint


def test_torchscript_and_torch_compile_are_refused_together(build: Build) -> None:
    with pytest.raises(EngineError, match="does not take TorchScript") as caught:
        build(scripted(), options={"mode": "compile"})
    assert caught.value.code == "option_compile"


def test_a_fingerprint_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from compiler.engines import BuildTarget, get_builder; "
        "found = get_builder('torch').fingerprint(BuildTarget('it', 'torch')); "
        "print(found, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{{'torch': '{torch.__version__.split('+')[0]}'}} False\n"
