"""Every engine that runs keeps the contract of its base, and none falls back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from runtime.engines import Engine, get_engine
from specs.base import Frozen
from specs.engines import Device, engine_languages
from specs.errors import EngineError

ENGINES = [cast("type[Engine]", engine) for engine in engine_languages().values()]
Artifact = Callable[[str], Path]

NET = """
import torch


class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x
"""
TWICE: dict[str, Any] = {
    "version": 1,
    "name": "twice",
    "model": {"python": {"file": "net.py", "object": "Twice"}},
    "inputs": {"x": {"shape": ["batch", 3]}},
    "outputs": {"y": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
}

each = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


@each
def test_an_engine_declares_its_words(engine: type[Engine]) -> None:
    assert get_engine(engine.name) is engine
    assert engine.devices
    assert engine.precisions
    assert issubclass(engine.Options, Frozen)
    assert engine.Options()


@pytest.fixture
def built(tmp_path: Path, build_spec: Callable[..., Any]) -> Callable[[type[Engine]], Path]:
    """The file of a variant that doubles numbers [batch, 3], batch 1 to 4, built for an engine."""

    def make(engine: type[Engine]) -> Path:
        device = engine.devices[0]
        try:
            engine.probe(device)
        except EngineError as error:
            pytest.skip(f"{engine.name} cannot run here: {error.message}")
        (tmp_path / "net.py").write_text(NET, "utf-8")
        spec = {**TWICE, "targets": [{"engine": engine.name, "device": device}]}
        found = build_spec(spec)
        return found.folder / found.manifest.variants[0].file

    return make


@each
def test_a_session_answers_by_name_for_every_batch_and_closes(
    engine: type[Engine], built: Callable[[type[Engine]], Path]
) -> None:
    session = engine.open(built(engine), engine.devices[0], {})
    for size in (1, 2, 4):
        x = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
        found = session.run({"x": x})
        assert list(found) == ["y"]
        assert found["y"].dtype == np.float32
        np.testing.assert_array_equal(found["y"], 2 * x)
    assert all(isinstance(value, str) for value in session.details().values())
    session.close()
    session.close()


@each
def test_an_answer_stays_what_it_was_when_the_next_batch_runs(
    engine: type[Engine], built: Callable[[type[Engine]], Path]
) -> None:
    session = engine.open(built(engine), engine.devices[0], {})
    x = np.ones((2, 3), np.float32)
    first = session.run({"x": x})["y"]
    x[:] = 7
    session.run({"x": x})
    np.testing.assert_array_equal(first, np.full((2, 3), 2, np.float32))


@each
def test_a_session_held_at_one_size_answers_at_it_and_takes_no_other(
    engine: type[Engine], built: Callable[[type[Engine]], Path]
) -> None:
    session = engine.open(built(engine), engine.devices[0], {}, {"batch": 2})
    assert session.run({"x": np.ones((2, 3), np.float32)})["y"].shape == (2, 3)
    with pytest.raises(EngineError):
        session.run({"x": np.ones((3, 3), np.float32)})


@each
def test_a_batch_that_the_graph_does_not_take_is_an_error_of_the_engine(
    engine: type[Engine], built: Callable[[type[Engine]], Path]
) -> None:
    session = engine.open(built(engine), engine.devices[0], {})
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
        engine.open(tmp_path / "model.onnx", engine.devices[0], {})
    with pytest.raises(EngineError):
        engine.open(tmp_path / "lost.onnx", engine.devices[0], {})


@each
def test_what_an_engine_made_of_the_graph_is_told_layer_by_layer_on_the_device(
    engine: type[Engine], built: Callable[[type[Engine]], Path]
) -> None:
    layers = engine.layers(built(engine), engine.devices[0], {})
    assert {layer.device for layer in layers} == {engine.devices[0]}
    assert all(layer.name and layer.op for layer in layers)


def _probed(engine: type[Engine], device: Device) -> dict[str, str] | EngineError:
    try:
        return engine.probe(device)
    except EngineError as error:
        return error


@each
def test_a_probe_tells_versions_or_what_to_install(engine: type[Engine]) -> None:
    for device in engine.devices:
        found = _probed(engine, device)
        if isinstance(found, EngineError):
            assert found.code in {"engine_missing", "provider_missing", "device_missing"}
            assert found.hint
        else:
            assert found
            assert all(found.values())


def test_an_unknown_engine_is_told_with_the_nearest() -> None:
    with pytest.raises(EngineError) as caught:
        get_engine("onnxruntim")
    assert (caught.value.code, caught.value.hint) == (
        "engine_unknown",
        "did you mean 'onnxruntime'?",
    )
