"""PyTorch as an engine: what it trusts, what it refuses, and what compiling may cost."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's functions are typed in part.
from __future__ import annotations

import ctypes
import importlib.util
import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import runtime.engines._pytorch as loading
from compiler.engines import BuildTarget, Job
from compiler.engines.pytorch import TorchBuilder
from compiler.sources import TorchModel
from runtime.engines.pytorch import TorchEngine, TorchOptions
from runtime.tensors import Tensors
from specs.errors import EngineError
from specs.schema import Spec

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "it",
    "model": {"python": {"file": "net.py", "object": "Net"}},
    "weights": {"random": {"seed": 0}},
    "inputs": {"x": {"shape": ["batch", 3, 8, 8]}},
    "outputs": {"y": {"shape": ["batch", 5]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}},
}
Build = Callable[..., Path]


class Net(nn.Module):
    """A convolution, a product, and a model that writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Numbers [batch, 5] from x [batch, 3, 8, 8]."""
        return self.head(self.conv(x.mul_(2.0)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Generator[Net, None, None]:
    """The model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield Net().eval()


def _build(folder: Path, model: TorchModel) -> Path:
    folder.mkdir()
    job = Job(
        folder, folder, BuildTarget("it", "torch"), Spec.model_validate(SPEC), lambda: model, folder
    )
    return folder / TorchBuilder.build(job).file


@pytest.fixture(scope="module")
def program(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as an ExportedProgram."""
    return _build(tmp_path_factory.mktemp("torch") / "out", TorchModel(net, net))


@pytest.fixture(scope="module")
def script(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(net)
    return _build(tmp_path_factory.mktemp("torch") / "out", TorchModel(scripted, scripted))


@pytest.fixture
def each(program: Path, script: Path) -> tuple[Path, Path]:
    """Both kinds of file."""
    return program, script


def _x(size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(size).standard_normal((size, 3, 8, 8)).astype(np.float32)


def _y(net: Net, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return net(torch.tensor(x)).numpy()


# --- what goes in and comes out


def test_eager_answers_bit_for_bit_as_the_module_and_leaves_its_input_alone(
    each: tuple[Path, Path], net: Net
) -> None:
    for file in each:
        session = TorchEngine.open(file, "cpu", {})
        for size in (1, 3, 8):
            x = _x(size)
            kept = x.copy()
            x.flags.writeable = False
            np.testing.assert_array_equal(session.run({"x": x})["y"], _y(net, kept))
            np.testing.assert_array_equal(x, kept)
            turned = np.asfortranarray(x)
            np.testing.assert_array_equal(session.run({"x": turned})["y"], _y(net, kept))


def test_a_session_refuses_what_it_was_not_built_for(each: tuple[Path, Path]) -> None:
    for file in each:
        session = TorchEngine.open(file, "cpu", {})
        wrong: list[tuple[Tensors, str]] = [
            ({"x": _x(9)}, r"\[9, 3, 8, 8\], expected \[batch 1\.\.8, 3, 8, 8\]"),
            ({"x": _x(2)[:, :, :4]}, r"\[2, 3, 4, 8\], expected"),
            ({"x": _x(2)[0]}, r"\[3, 8, 8\], expected"),
            ({"x": _x(2).astype(np.float16)}, "is float16, expected float32"),
            ({"z": _x(2)}, r"found the inputs \['z'\], expected \['x'\]"),
        ]
        for batch, told in wrong:
            with pytest.raises(EngineError, match=told):
                session.run(batch)


def test_a_session_held_at_one_size_takes_no_other(each: tuple[Path, Path], net: Net) -> None:
    for file in each:
        session = TorchEngine.open(file, "cpu", {}, {"batch": 3})
        np.testing.assert_array_equal(session.run({"x": _x(3)})["y"], _y(net, _x(3)))
        with pytest.raises(EngineError, match=r"expected \[batch 3, 3, 8, 8\]"):
            session.run({"x": _x(2)})


def test_a_closed_session_says_so(program: Path) -> None:
    session = TorchEngine.open(program, "cpu", {})
    session.close()
    with pytest.raises(EngineError) as caught:
        session.run({"x": _x(1)})
    assert caught.value.code == "engine_closed"


# --- files


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def _with_pickle(program: Path, spoilt: Path, weight: bytes) -> None:
    """The program with a weight that torch would unpickle."""
    with zipfile.ZipFile(program) as source:
        content = {name: source.read(name) for name in source.namelist()}
    where = "model/data/weights/"
    config = json.loads(content[f"{where}model_weights_config.json"])
    entry = config["config"]["module.head.bias"]
    entry["use_pickle"] = True
    content[f"{where}model_weights_config.json"] = json.dumps(config).encode()
    content[where + entry["path_name"]] = weight
    with zipfile.ZipFile(spoilt, "w") as target:
        for name, data in content.items():
            target.writestr(name, data)


def test_a_pickled_object_in_a_program_is_refused_and_not_run(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    made, pickled = tmp_path / "made", tmp_path / "weight.pt"
    torch.save(Evil(made), pickled, pickle_module=pickle)
    _with_pickle(program, tmp_path / "evil.pt2", pickled.read_bytes())
    with pytest.raises(EngineError, match=r"PyTorch cannot load evil\.pt2: .*[Ww]eights"):
        TorchEngine.open(tmp_path / "evil.pt2", "cpu", {})
    assert not made.exists()
    torch.load(pickled, weights_only=False)
    assert made.exists()  # so it would have run


def test_a_file_that_is_none_is_one_clear_error(
    each: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in each:
        ending = file.suffix
        (tmp_path / f"junk{ending}").write_bytes(b"nothing")
        (tmp_path / f"torn{ending}").write_bytes(file.read_bytes()[:-2000])
        with zipfile.ZipFile(tmp_path / f"empty{ending}", "w") as archive:
            archive.writestr("a", b"b")
        for name, told in (
            ("junk", "it is no archive"),
            ("torn", "it is no archive"),
            ("lost", "there is no such file"),
            ("empty", "."),
        ):
            expected = rf"cannot load {name}\{ending}: {told}"
            with pytest.raises(EngineError, match=expected) as caught:
                TorchEngine.open(tmp_path / f"{name}{ending}", "cpu", {})
            assert caught.value.code == "engine_load"
    assert capfd.readouterr().err == ""


def test_a_file_of_somebody_else_does_not_say_what_its_inputs_are(net: Net, tmp_path: Path) -> None:
    foreign = torch.export.export(net, (torch.zeros(2, 3, 8, 8),))
    torch.export.save(foreign, tmp_path / "model.pt2")
    with pytest.raises(EngineError, match="does not say what its inputs and outputs are"):
        TorchEngine.open(tmp_path / "model.pt2", "cpu", {})


# --- layers, options, probe


def test_the_operators_tell_type_device_and_cost_at_the_smallest_batch(
    each: tuple[Path, Path],
) -> None:
    program, script = each
    layers = TorchEngine.layers(program, "cpu", {})
    costs = {layer.op: layer.cost for layer in layers if layer.cost}
    assert costs == {"aten.conv2d.default": 4 * 36 * 27, "aten.linear.default": 20}
    assert {(layer.device, layer.place, layer.precision) for layer in layers} == {
        ("cpu", "eager", "fp32")
    }
    assert TorchEngine.layers(script, "cpu", {}) == ()


def test_threads_are_those_of_the_process(program: Path) -> None:
    before = torch.get_num_threads()
    try:
        session = TorchEngine.open(program, "cpu", {"threads": before + 1})
        assert session.details()["threads"] == str(torch.get_num_threads()) == str(before + 1)
    finally:
        torch.set_num_threads(before)
    assert TorchEngine.open(program, "cpu", {}).details()["threads"] == str(before)


def test_a_probe_runs_and_tells_whether_compiling_could() -> None:
    found = TorchEngine.probe("cpu")
    assert found["torch"] == torch.__version__
    expected = "available" if shutil.which("g++") else "no C++ compiler"
    assert found["compile"].startswith(expected)


def test_without_a_compiler_torch_compile_is_refused_with_the_way_out(program: Path) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        with pytest.raises(EngineError, match=r"cannot run: no C\+\+ compiler") as caught:
            TorchEngine.open(program, "cpu", {"mode": "compile"})
        assert TorchEngine.probe("cpu")["compile"].startswith("no C++ compiler")
    assert caught.value.code == "compiler_missing"
    assert "g++" in caught.value.hint
    assert "eager" in caught.value.hint


def test_torchscript_and_torch_compile_are_refused_together(script: Path) -> None:
    with pytest.raises(EngineError, match="does not take TorchScript"):
        TorchEngine.open(script, "cpu", {"mode": "compile"})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_answers_every_batch_and_compiles_for_none(
    program: Path, net: Net
) -> None:
    from torch._dynamo.utils import counters

    session = TorchEngine.open(program, "cpu", {"mode": "compile"})
    assert session.details()["mode"] == "compile"
    before = counters["stats"]["unique_graphs"]
    assert before > 0
    for size in (1, 2, 3, 5, 8):
        difference = session.run({"x": _x(size)})["y"].astype(float) - _y(net, _x(size))
        assert np.abs(difference).max() < 1e-5
    assert counters["stats"]["unique_graphs"] == before
    places = {layer.place for layer in TorchEngine.layers(program, "cpu", {"mode": "compile"})}
    assert places == {"inductor"}


# --- GPUs that are not there


def _refusal() -> EngineError:
    with pytest.raises(EngineError) as caught:
        TorchEngine.probe("cuda")
    assert caught.value.code == "provider_missing"
    return caught.value


def test_each_reason_why_there_is_no_gpu_has_its_own_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_driver(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    def found(_name: str) -> None:
        pass

    def old() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (1).\nUpdate", stacklevel=2)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(loading.ctypes, "CDLL", no_driver)
    missing = _refusal()
    assert "driver, is missing" in missing.message
    assert "install NVIDIA's driver" in missing.hint

    monkeypatch.setattr(ctypes, "CDLL", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "0 GPUs are visible" in _refusal().message
    assert "CUDA_VISIBLE_DEVICES" in _refusal().hint

    monkeypatch.setattr(torch.cuda, "is_available", old)
    assert _refusal().message.endswith("The NVIDIA driver on your system is too old (1).")

    monkeypatch.setattr(torch.version, "cuda", None)
    unfit = _refusal()
    assert "was built without CUDA" in unfit.message
    assert "CUDA build" in unfit.hint


def test_no_model_is_loaded_onto_a_gpu_that_is_not_there(
    each: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for file in each:
        with pytest.raises(EngineError) as caught:
            TorchEngine.open(file, "cuda", {})
        assert caught.value.code == "provider_missing"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_fp32_without_tf32(each: tuple[Path, Path], net: Net) -> None:
    for file in each:
        session = TorchEngine.open(file, "cuda", {})
        for size in (1, 3, 8):
            difference = session.run({"x": _x(size)})["y"].astype(float) - _y(net, _x(size))
            assert np.abs(difference).max() < 1e-5
        assert "cpu" not in session.details()["device"]
    assert {layer.device for layer in TorchEngine.layers(each[0], "cuda", {})} == {"cuda"}


def test_where_torch_is_not_installed_the_line_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(EngineError, match="torch is not installed") as caught:
        TorchEngine.probe("cpu")
    assert (caught.value.hint, caught.value.code) == ("pip install torch", "engine_missing")


def test_options_are_what_a_spec_may_say() -> None:
    assert TorchOptions().mode == "eager"
    with pytest.raises(ValueError, match="mode"):
        TorchOptions.model_validate({"mode": "fast"})
