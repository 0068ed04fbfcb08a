"""Where the preferred variant cannot run: refuse, or take the next; never silently."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import runtime
from runtime.cli import inspect, predict
from runtime.engines import EngineSession
from runtime.engines.ort import OrtEngine
from specs.engines import Device
from specs.errors import EngineError

Artifact = Callable[[str], Path]
Two = Callable[[str], Path]


@pytest.fixture
def two(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Two:
    """An artifact whose first variant wants a GPU, on a machine that has none."""
    really = OrtEngine.open

    def no_gpu(file: Path, device: Device, options: dict[str, Any]) -> EngineSession:
        if device == "cuda":
            raise EngineError("libcuda.so.1 is missing", hint="a driver", code="provider_missing")
        return really(file, device, options)

    monkeypatch.setattr(OrtEngine, "open", no_gpu)

    def make(on_missing: str) -> Path:
        folder = tmp_path / on_missing
        shutil.copytree(artifact("twice"), folder)
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        first = {**manifest["variants"][0], "name": "onnxruntime-cuda-fp32", "device": "cuda"}
        manifest["variants"].insert(0, first)
        manifest["on_missing"] = on_missing
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


def test_loading_refuses_by_default_and_names_what_else_there_is(two: Two) -> None:
    with pytest.raises(EngineError, match=r"libcuda\.so\.1 is missing") as caught:
        runtime.load(two("refuse"))
    assert "a driver" in caught.value.hint
    assert "onnxruntime-cpu-fp32" in caught.value.hint
    assert "on_missing: next" in caught.value.hint


def test_the_next_variant_is_taken_where_the_spec_says_so_and_the_log_tells(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "deployc"), runtime.load(two("next")) as predictor:
        assert predictor.variant.name == "onnxruntime-cpu-fp32"
        (passed,) = predictor.passed_over
        answer = predictor.predict([np.ones(3, np.float32)])
    assert (passed.variant, passed.reason) == ("onnxruntime-cuda-fp32", "libcuda.so.1 is missing")
    assert "onnxruntime-cuda-fp32 cannot run here: libcuda.so.1 is missing" in caplog.text
    np.testing.assert_array_equal(answer[0]["outputs"]["y"], [2, 2, 2])


def test_a_variant_asked_for_by_name_is_never_replaced(two: Two) -> None:
    with pytest.raises(EngineError, match=r"libcuda\.so\.1 is missing"):
        runtime.load(two("next"), "onnxruntime-cuda-fp32")
    with runtime.load(two("refuse"), "onnxruntime-cpu-fp32") as predictor:
        assert predictor.passed_over == ()


def test_where_no_variant_runs_every_reason_is_told(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise EngineError("broken", code="engine_load")

    folder = two("next")
    monkeypatch.setattr(OrtEngine, "open", refuse)
    with pytest.raises(EngineError, match=r"broken\nonnxruntime-cuda-fp32 cannot run here: broken"):
        runtime.load(folder)


@pytest.mark.parametrize(
    ("on_missing", "takes"),
    [("refuse", "nothing: it refuses"), ("next", "onnxruntime-cpu-fp32")],
)
def test_inspect_says_what_runs_here_and_what_loading_takes(
    two: Two, on_missing: str, takes: str
) -> None:
    folder = two(on_missing)
    told = CliRunner().invoke(inspect, [str(folder)]).output
    assert "onnxruntime-cuda-fp32 cannot run here: libcuda.so.1 is missing" in told
    assert f"loading takes {takes} (on_missing: {on_missing})" in told
    data = json.loads(CliRunner().invoke(inspect, [str(folder), "--json"]).output)
    assert data["here"] == {
        "onnxruntime-cuda-fp32": "libcuda.so.1 is missing",
        "onnxruntime-cpu-fp32": "runs",
    }


def test_predict_warns_that_another_variant_answers(two: Two, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3, np.float32))
    done = CliRunner().invoke(predict, [str(two("next")), str(tmp_path / "x.npy")])
    assert done.exit_code == 0, done.output
    assert "! onnxruntime-cuda-fp32 cannot run here" in done.stderr
