"""Every engine that runs keeps the contract of its base, and none falls back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import pytest

import runtime
from runtime.engines import Engine, get_engine
from runtime.engines.ort import OrtEngine
from specs.base import Frozen
from specs.engines import engine_languages
from specs.errors import EngineError

ENGINES = [cast("type[Engine]", engine) for engine in engine_languages().values()]
Artifact = Callable[[str], Path]

each = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


@each
def test_an_engine_declares_its_words(engine: type[Engine]) -> None:
    assert get_engine(engine.name) is engine
    assert engine.devices
    assert engine.precisions
    assert issubclass(engine.Options, Frozen)
    assert engine.Options()


@each
def test_a_session_answers_by_name_for_every_batch_and_closes(
    engine: type[Engine], artifact: Artifact
) -> None:
    if "cpu" not in engine.devices:
        pytest.skip(f"{engine.name} does not run on the CPU")
    session = engine.open(artifact("twice") / "model.onnx", "cpu", {})
    for size in (1, 2, 4):
        found = session.run({"x": np.ones((size, 3), np.float32)})
        assert (list(found), found["y"].shape) == (["y"], (size, 3))
    assert all(isinstance(value, str) for value in session.details().values())
    session.close()
    session.close()


@each
def test_a_batch_that_the_graph_does_not_take_is_an_error_of_the_engine(
    engine: type[Engine], artifact: Artifact
) -> None:
    session = engine.open(artifact("twice") / "model.onnx", "cpu", {})
    with pytest.raises(EngineError):
        session.run({"x": np.ones((1, 5), np.float32)})
    with pytest.raises(EngineError):
        session.run({"z": np.ones((1, 3), np.float32)})


@each
def test_a_file_that_is_none_is_an_error_of_the_engine(
    engine: type[Engine], tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError):
        engine.open(tmp_path / "model.onnx", "cpu", {})
    with pytest.raises(EngineError):
        engine.open(tmp_path / "lost.onnx", "cpu", {})


def test_an_unknown_engine_is_told_with_the_nearest() -> None:
    with pytest.raises(EngineError) as caught:
        get_engine("onnxruntim")
    assert (caught.value.code, caught.value.hint) == (
        "engine_unknown",
        "did you mean 'onnxruntime'?",
    )


# --- ONNX Runtime


@pytest.mark.parametrize("optimization", ["disabled", "basic", "extended", "layout", "all"])
def test_every_option_of_onnx_runtime_opens_a_session(
    artifact: Artifact, optimization: str
) -> None:
    options: dict[str, Any] = {
        "optimization": optimization,
        "intra_op_threads": 1,
        "inter_op_threads": 1,
        "parallel": True,
    }
    OrtEngine.open(artifact("twice") / "model.onnx", "cpu", options).close()


def _no_cuda() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


@pytest.mark.skipif(not _no_cuda(), reason="this machine has a GPU's driver")
def test_a_device_that_is_not_there_is_an_error_naming_the_library_never_a_fallback(
    artifact: Artifact,
) -> None:
    with pytest.raises(EngineError) as caught:
        OrtEngine.open(artifact("twice") / "model.onnx", "cuda", {})
    assert caught.value.code == "provider_missing"
    assert ".so" in caught.value.message
    assert "is missing" in caught.value.message
    assert "install" in caught.value.hint


@pytest.mark.skipif(not _no_cuda(), reason="this machine has a GPU's driver")
def test_loading_an_artifact_for_a_device_that_is_not_there_is_the_same_error(
    artifact: Artifact, tmp_path: Path
) -> None:
    import json
    import shutil

    folder = tmp_path / "cuda"
    shutil.copytree(artifact("twice"), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["variants"][0]["device"] = "cuda"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"does not load: .*\.so.* is missing"):
        runtime.load(folder)


def test_the_drivers_library_gives_another_way_out_than_cudas(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: list[str] = []

    def nothing(**_options: object) -> None:
        pass

    for library in ("libcuda.so.1", "libcudnn.so.9"):

        def refuse(_path: str, missing: str = library) -> None:
            raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

        monkeypatch.setattr(ctypes, "CDLL", refuse)
        monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
        monkeypatch.setattr(ort, "preload_dlls", nothing)
        with pytest.raises(EngineError, match=f"does not load: {library} is missing") as caught:
            OrtEngine.open(artifact("twice") / "model.onnx", "cuda", {})
        hints.append(caught.value.hint)
    assert "driver" in hints[0]
    assert "pip install" in hints[1]


def test_a_build_of_onnx_runtime_without_cuda_says_which_package_has_it(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError) as caught:
        OrtEngine.open(artifact("twice") / "model.onnx", "cuda", {})
    assert "onnxruntime-gpu" in caught.value.hint


def test_another_provider_than_was_asked_for_is_refused(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(_session: object) -> list[str]:
        return ["OtherExecutionProvider"]

    monkeypatch.setattr(ort.InferenceSession, "get_providers", other)
    with pytest.raises(EngineError, match="CPUExecutionProvider was asked for, Other"):
        OrtEngine.open(artifact("twice") / "model.onnx", "cpu", {})
