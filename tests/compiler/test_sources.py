"""The five kinds of sources, built and proven, and each way in which they can be wrong."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import runtime
from compiler.sources import LOADERS, SourceLoader
from specs.errors import DeploycError, SourceError
from specs.sources import SOURCES

Spec = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]


class _Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.linear(x)


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if bool(x.sum() > 1e9):
        return x * y
    return x + 2 * y


def _python(**options: Any) -> dict[str, Any]:
    return {"python": {"file": "net.py", "object": "Net", **options}}


def _save_jit(thing: Any, file: Path) -> Any:
    torch.jit.save(thing, str(file))
    return thing


def _answer(artifact: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with runtime.load(artifact) as predictor:
        return cast("np.ndarray[Any, Any]", predictor.predict([x])[0]["outputs"]["y"])


def test_every_source_of_the_language_has_a_loader_and_the_other_way_round() -> None:
    assert {source.name for source in SOURCES} == set(LOADERS)
    assert all(issubclass(loader, SourceLoader) for loader in LOADERS.values())


# --- torchvision


def test_a_torchvision_model_is_built_by_its_name(spec: Spec, build_spec: Build) -> None:
    result = build_spec(
        spec(
            model={"torchvision": {"model": "squeezenet1_1", "kwargs": {"num_classes": 5}}},
            weights={"random": {"seed": 1}},
            inputs={"x": {"shape": ["batch", 3, 32, 32]}},
            outputs={"y": {"shape": ["batch", 5]}},
            dynamic_axes={"batch": {"min": 1, "opt": 2, "max": 3}},
        )
    )
    assert result.manifest.graph.nodes["Conv"] == 26


def test_an_unknown_torchvision_name_is_told_with_the_nearest(spec: Spec, refused: Refused) -> None:
    error = refused(spec(model={"torchvision": "resnet500"}, weights={"random": {}}))
    assert (error.code, error.hint) == ("model_unknown", "did you mean 'resnet50'?")


@pytest.mark.parametrize("kwargs", [{"num_classs": 3}, {"num_classes": "many"}])
def test_wrong_kwargs_of_a_torchvision_model_are_one_error(
    spec: Spec, refused: Refused, kwargs: dict[str, Any]
) -> None:
    model = {"torchvision": {"model": "squeezenet1_1", "kwargs": kwargs}}
    error = refused(spec(model=model, weights={"random": {}}))
    assert "torchvision.models.squeezenet1_1 refuses its kwargs" in error.message


def test_torchvision_is_not_let_download_weights_itself(spec: Spec, refused: Refused) -> None:
    model = {"torchvision": {"model": "squeezenet1_1", "kwargs": {"weights": "DEFAULT"}}}
    error = refused(spec(model=model, weights={"random": {}}))
    assert error.code == "source_downloads"


# --- Python


def test_a_python_class_gets_its_kwargs(spec: Spec, build_spec: Build) -> None:
    model = _python(kwargs={"width": 5})
    result = build_spec(spec(model=model, outputs={"y": {"shape": ["batch", 5]}}))
    assert result.manifest.graph.parameters == 4 * 5 + 5


def test_a_python_function_may_make_the_module(spec: Spec, build_spec: Build) -> None:
    assert build_spec(spec(model=_python(object="make"))).written


def test_a_python_source_imports_its_own_siblings_not_namesakes_of_another_source(
    spec: Spec, tmp_path: Path, build_file: Build
) -> None:
    import yaml

    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "helper_block.py").write_text(f"FACTOR = {number}\n")
        (folder / "net.py").write_text(
            "import torch, helper_block\n"
            "class Net(torch.nn.Module):\n"
            "    def forward(self, x):\n        return x[:, :3] * helper_block.FACTOR\n"
        )
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec()))
        build_file(folder / "spec.yaml", folder / "artifact")
        ones = np.ones(4, np.float32)
        assert _answer(folder / "artifact", ones).tolist() == [number] * 3


def test_a_sibling_may_be_imported_as_late_as_in_the_constructor(
    spec: Spec, tmp_path: Path, build_spec: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "late_block.py").write_text("FACTOR = 3\n")
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        import late_block\n        self.factor = late_block.FACTOR\n"
        "    def forward(self, x):\n        return x[:, :3] * self.factor\n"
    )
    build_spec(spec())
    assert _answer(tmp_path / "artifact", np.ones(4, np.float32)).tolist() == [3] * 3
    assert not list(tmp_path.rglob("__pycache__"))


def test_an_edit_within_one_second_that_keeps_the_size_is_seen(
    spec: Spec, tmp_path: Path, build_spec: Build
) -> None:
    for factor in (2, 7):
        (tmp_path / "net.py").write_text(
            "import torch\nclass Net(torch.nn.Module):\n"
            f"    def forward(self, x):\n        return x[:, :3] * {factor}\n"
        )
        os.utime(tmp_path / "net.py", (1e9, 1e9))
        build_spec(spec())
        assert _answer(tmp_path / "artifact", np.ones(4, np.float32)).tolist() == [factor] * 3
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("def Net(:\n", "source_import", "net.py cannot be imported: SyntaxError"),
        ("import nothing_of_the_kind\n", "source_import", "No module named"),
        ("import sys\nsys.exit(3)\n", "source_import", "SystemExit: 3"),
        ("class Net:\n    pass\n", "source_object", "Net of net.py gave a Net"),
        ("def Net():\n    raise ValueError('no disk')\n", "source_failed", "ValueError: no disk"),
        ("def Net(width):\n    pass\n", "source_failed", "missing 1 required positional argument"),
        ("class Nett:\n    pass\n", "object_unknown", "no class or function 'Net'"),
        ("import torch\nNet = torch.nn.Linear(4, 3)\n", "source_object", "'Net' of net.py is a"),
    ],
)
def test_a_faulty_python_source_is_one_clear_error(  # noqa: PLR0913, PLR0917 - one per column
    spec: Spec, refused: Refused, tmp_path: Path, text: str, code: str, told: str
) -> None:
    data = spec()
    (tmp_path / "net.py").write_text(text)
    error = refused(data)
    assert isinstance(error, SourceError)
    assert error.code == code
    assert told in error.message
    assert error.hint


def test_an_unknown_object_is_told_with_the_nearest(spec: Spec, refused: Refused) -> None:
    error = refused(spec(model=_python(object="Nett")))
    assert error.hint == "did you mean 'Net'?"


def test_a_forward_that_fails_is_told_with_its_shapes(
    spec: Spec, refused: Refused, tmp_path: Path
) -> None:
    data = spec(model={"torchscript": "jit.pt"})
    _save_jit(torch.jit.script(_Twice()), tmp_path / "jit.pt")
    data["inputs"] = {"x": {"shape": ["batch", 5]}}
    error = refused(data)
    assert error.code == "source_run"
    assert "shape {'x': [2, 5]}: RuntimeError: mat1 and mat2 shapes cannot be" in error.message


# --- TorchScript


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_a_script_module_is_built_with_either_exporter(
    spec: Spec, build_spec: Build, tmp_path: Path, kind: str, exporter: str
) -> None:
    module = _Twice().eval()
    example = torch.ones(2, 4)
    trace = cast("Callable[..., Any]", torch.jit.trace)
    scripted = torch.jit.script(module) if kind == "scripted" else trace(module, example)
    _save_jit(scripted, tmp_path / "jit.pt")
    build_spec(spec(model={"torchscript": "jit.pt"}, export={"exporter": exporter}))
    expected = module(example)[0].detach().numpy()
    np.testing.assert_allclose(_answer(tmp_path / "artifact", example[0].numpy()), expected, 1e-5)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_script_function_is_built_with_either_exporter(
    spec: Spec, build_spec: Build, tmp_path: Path, exporter: str
) -> None:
    _save_jit(torch.jit.script(_add), tmp_path / "function.pt")
    inputs = {name: {"shape": ["batch", 4]} for name in ("x", "y")}
    outputs = {"z": {"shape": ["batch", 4]}}
    model = {"torchscript": "function.pt"}
    build_spec(spec(model=model, inputs=inputs, outputs=outputs, export={"exporter": exporter}))
    with runtime.load(tmp_path / "artifact") as predictor:
        item = {"x": np.ones(4, np.float32), "y": np.full(4, 3, np.float32)}
        assert predictor.predict([item])[0]["outputs"]["z"].tolist() == [7] * 4


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_torchscript_archive_gives_the_same_bytes_twice_in_one_process(
    spec: Spec, build_spec: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exporter: str
) -> None:
    _save_jit(torch.jit.script(_Twice().eval()), tmp_path / "jit.pt")
    found: set[bytes] = set()
    for number in range(2):
        monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / f"cache{number}"))
        build_spec(spec(model={"torchscript": "jit.pt"}, export={"exporter": exporter}))
        found.add((tmp_path / "artifact" / "model.onnx").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("content", [b"hello\n", b"", "checkpoint"])
def test_what_is_no_torchscript_archive_is_one_clear_error(
    spec: Spec, refused: Refused, tmp_path: Path, content: bytes | str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "jit.pt").write_bytes(content)
    else:
        torch.save(_Twice().state_dict(), tmp_path / "jit.pt")
    error = refused(spec(model={"torchscript": "jit.pt"}))
    assert error.message.startswith("jit.pt is no TorchScript archive")
    assert "a checkpoint goes under weights" in error.hint


# --- ExportedProgram


def _program(tmp_path: Path, *, dynamic: bool) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},) if dynamic else None
    example = (torch.ones(2, 4),)
    program = torch.export.export(_Twice().eval(), example, dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "net.pt2"))


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_program_is_built_with_its_own_batch(
    spec: Spec, build_spec: Build, tmp_path: Path, *, dynamic: bool
) -> None:
    _program(tmp_path, dynamic=dynamic)
    data = spec(model={"exported_program": "net.pt2"}, export=None)
    if not dynamic:
        data |= {"inputs": {"x": {"shape": [2, 4]}}, "outputs": {"y": {"shape": [2, 3]}}}
        del data["dynamic_axes"]
    assert build_spec(data).manifest.batch.min == (1 if dynamic else 2)


def test_a_static_exported_program_is_not_taken_for_a_dynamic_one(
    spec: Spec, refused: Refused, tmp_path: Path
) -> None:
    _program(tmp_path, dynamic=False)
    error = refused(spec(model={"exported_program": "net.pt2"}, export=None))
    assert "input 'x' axis 0: asked batch, found 2" in error.message


def test_what_is_no_exported_program_is_one_clear_error(
    spec: Spec, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "net.pt2").write_text("hello")
    error = refused(spec(model={"exported_program": "net.pt2"}, export=None))
    assert error.message.startswith("net.pt2 is no ExportedProgram")


# --- ONNX


def _onnx(file: Path, *, ir: int = 8, opset: int = 17, external: bool = False) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weight],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = ir
    kwargs: dict[str, Any] = {"save_as_external_data": True, "location": "w", "size_threshold": 0}
    onnx.save_model(proto, str(file), **(kwargs if external else {}))


def test_an_onnx_file_is_taken_and_its_names_for_sizes_become_the_specs(
    spec: Spec, build_spec: Build, tmp_path: Path
) -> None:
    _onnx(tmp_path / "net.onnx")
    result = build_spec(spec(model={"onnx": "net.onnx"}, export=None))
    assert (result.manifest.graph.exporter, result.manifest.graph.opset) == ("none", 17)
    built = onnx.load(str(tmp_path / "artifact" / "model.onnx"))
    assert built.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_an_onnx_file_whose_external_weights_change_is_built_again(
    spec: Spec, build_spec: Build, tmp_path: Path
) -> None:
    _onnx(tmp_path / "net.onnx", external=True)
    data = spec(model={"onnx": "net.onnx"}, export=None)
    build_spec(data)
    (tmp_path / "w").write_bytes(np.full((4, 3), 2, np.float32).tobytes())
    build_spec(data)
    assert _answer(tmp_path / "artifact", np.ones(4, np.float32)).tolist() == [8] * 3


def test_an_ir_version_that_the_engine_cannot_read_is_refused_with_the_one_to_write(
    spec: Spec, refused: Refused, tmp_path: Path
) -> None:
    _onnx(tmp_path / "net.onnx", ir=14)
    error = refused(spec(model={"onnx": "net.onnx"}, export=None))
    assert "IR version: found 14, ONNX Runtime reads up to 13" in error.message
    assert "ir_version=13" in error.hint


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"\x08\x07\x12"])
def test_a_corrupt_onnx_file_is_one_clear_error(
    spec: Spec, refused: Refused, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    error = refused(spec(model={"onnx": "net.onnx"}, export=None))
    assert error.message.startswith("net.onnx is no valid ONNX file")


def test_an_onnx_file_without_its_external_weights_is_one_clear_error(
    spec: Spec, refused: Refused, tmp_path: Path
) -> None:
    _onnx(tmp_path / "net.onnx", external=True)
    (tmp_path / "w").unlink()
    error = refused(spec(model={"onnx": "net.onnx"}, export=None))
    assert error.message.startswith("net.onnx is no valid ONNX file")
