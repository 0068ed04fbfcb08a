"""Sounds end to end: a WAV file in, ranked kinds of sounds out; by command, HTTP and protocol."""

from __future__ import annotations

import asyncio
import base64
import csv
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import httpx
import numpy as np
import pytest
from PIL import Image

import runtime
from compiler.placement.golden_sounds import GOLDEN_SOUNDS, wav
from runtime.artifact import read_manifest
from runtime.predictor import Predictor
from serve.first import curl
from serve.http import http_app
from serve.model import Model, Options
from specs.cli import main
from specs.errors import InputError
from specs.loader import load_spec

URL = "/models/sounds/predict"
KINDS = ["silence", "noise", "tone", "rising tone", "falling tone", "clicks"]


@pytest.fixture(scope="module")
def artifact(
    root: Path, tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any]
) -> Path:
    """The spec that comes along, built once."""
    destination = tmp_path_factory.mktemp("sounds") / "sounds"
    build_file(root / "specs" / "sounds.yaml", destination)
    return destination


@pytest.fixture(scope="module")
def predictor(artifact: Path) -> Iterator[Predictor]:
    with runtime.load(artifact) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def samples(root: Path) -> Path:
    return root / "specs" / "samples" / "sounds"


def _run(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def _best(answer: dict[str, Any]) -> str:
    return answer["classes"][0]["label"]


# --- answers


def test_every_sample_is_named_right(predictor: Predictor, samples: Path) -> None:
    with (samples / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = predictor.predict([(samples / row["file"]).read_bytes() for row in rows])
    assert [_best(answer) for answer in found] == [KINDS[int(row["class_index"])] for row in rows]


@pytest.mark.parametrize("rate", [4_000, 8_000, 12_345, 44_100])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_a_sweep_rises_at_every_rate_and_in_every_format(
    predictor: Predictor, rate: int, bits: int
) -> None:
    t = np.arange(rate // 2) / rate
    up = 0.3 * np.sin(2 * np.pi * 300 * (8**t - 1) / np.log(8))  # 300 to 849 Hz
    answers = predictor.predict([wav(up, rate, bits), wav(up[::-1], rate, bits)])
    assert [_best(answer) for answer in answers] == ["rising tone", "falling tone"]


def test_sounds_of_all_lengths_in_one_call_are_answered_as_each_alone(
    predictor: Predictor, samples: Path
) -> None:
    items = [path.read_bytes() for path in sorted(samples.glob("*.wav"))]
    together = predictor.predict(items * 4)
    for answer, item in zip(together, items, strict=False):
        (alone,) = predictor.predict([item])
        assert _best(answer) == _best(alone)
        pairs = zip(answer["classes"], alone["classes"], strict=True)
        assert all(abs(a["probability"] - b["probability"]) < 1e-5 for a, b in pairs)


def test_the_gate_saw_every_golden_sound_and_they_lie_in_the_artifact(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    (gate,) = manifest.gates
    assert (gate.unit, manifest.takes) == ("tolerance", "audio")
    assert gate.chain is not None
    assert gate.chain.worst < 1
    lie = {name for name in manifest.files if name.startswith("golden/sounds/")}
    assert lie == {f"golden/sounds/{name}" for name in GOLDEN_SOUNDS}
    assert manifest.variants[0].accuracy is not None
    assert manifest.variants[0].accuracy.variant == manifest.variants[0].accuracy.count == 12


def test_the_report_and_inspect_tell_the_tolerance(artifact: Path) -> None:
    assert "times (1e-5 + 1e-4" in (artifact / "report.html").read_text("utf-8")
    done = _run("inspect", artifact)
    assert done.exit_code == 0
    assert re.search(r"decode_audio .* 1 of its tolerance", done.output)
    assert "of 255" not in done.output


# --- what is refused


BAD: dict[str, tuple[bytes, str, int]] = {
    "no sound": (b"no sound at all", "not_audio", 415),
    "cut short": (wav(np.zeros(100), 8_000)[:-50], "corrupt_audio", 400),
    "too long": (wav(np.zeros(61 * 8_000), 8_000, 8), "too_large", 413),
    "NaN": (wav(np.array([np.nan]), 8_000, 32, floats=True), "not_finite", 400),
    "no samples": (wav(np.zeros(0), 8_000), "empty_audio", 400),
}


@pytest.mark.parametrize("name", BAD)
def test_the_runtime_the_command_and_http_say_the_same(
    predictor: Predictor, artifact: Path, tmp_path: Path, name: str
) -> None:
    item, code, status = BAD[name]
    with pytest.raises(InputError) as caught:
        predictor.predict([item])
    error = caught.value
    assert error.code == code
    reply = _over_http(predictor, content=item, headers={"content-type": "audio/wav"})
    told = {"code": error.code, "message": error.message, "hint": error.hint}
    assert (reply.status_code, reply.json()["error"]) == (status, told)
    (tmp_path / "item.wav").write_bytes(item)
    done = _run("predict", artifact, tmp_path / "item.wav")
    assert done.exit_code == 1
    assert error.message in done.stderr
    assert f"hint: {error.hint}" in done.stderr


def test_a_model_of_sounds_takes_no_text(artifact: Path) -> None:
    done = _run("predict", artifact, "--text", "hiss")
    assert done.exit_code == 1
    assert "sounds takes sounds, no text" in done.stderr


# --- the command and the server


def test_the_command_answers_files_and_draws_bars(
    artifact: Path, samples: Path, tmp_path: Path
) -> None:
    done = _run("predict", artifact, samples / "clicks_0.wav", samples / "noise_1.wav", "--json")
    assert done.exit_code == 0, done.output
    assert [_best(entry["answer"]) for entry in json.loads(done.stdout)] == ["clicks", "noise"]
    plot = tmp_path / "plot.png"
    done = _run("predict", artifact, samples / "tone_0.wav", "--plot", plot)
    assert done.exit_code == 0, done.output
    with Image.open(plot) as image:
        assert min(image.size) > 100


def _over_http(
    predictor: Predictor, path: str = URL, method: str = "POST", **kwargs: Any
) -> httpx.Response:
    async def main() -> httpx.Response:
        model = Model(predictor, Options("sounds", max_batch=8, max_items=16, threads=1))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **kwargs)

    return asyncio.run(main())


def test_http_answers_bytes_base64_and_forms_alike(predictor: Predictor, samples: Path) -> None:
    content = (samples / "falling_0.wav").read_bytes()
    text = base64.b64encode(content).decode()
    (expected,) = predictor.predict([content])
    replies = [
        _over_http(predictor, content=content, headers={"content-type": "audio/wav"}),
        _over_http(predictor, content=content),
        _over_http(predictor, json={"audio": text}),
        _over_http(predictor, files={"sound": ("a.wav", content, "audio/wav")}),
    ]
    for reply in replies:
        found = reply.json()
        answer = found.get("answer") or found["answers"][0]
        assert _best(answer) == _best(expected) == "falling tone"


def test_the_protocol_takes_a_sound_in_each_element(predictor: Predictor, samples: Path) -> None:
    content = (samples / "rising_1.wav").read_bytes()
    size = len(content).to_bytes(4, "little")
    given = {"name": "audio", "datatype": "BYTES", "shape": [1]}
    head = json.dumps(
        {"inputs": [given | {"parameters": {"binary_data_size": len(content) + 4}}]}
    ).encode()
    headers = {"inference-header-content-length": str(len(head))}
    reply = _over_http(
        predictor, "/v2/models/sounds/infer", content=head + size + content, headers=headers
    )
    (answer,) = reply.json()["outputs"][0]["data"]
    assert _best(json.loads(answer)) == "rising tone"


def test_the_openapi_document_and_the_first_command_name_a_wav_file(predictor: Predictor) -> None:
    document = _over_http(predictor, "/openapi.json", "GET").json()
    content = document["paths"][URL]["post"]["requestBody"]["content"]
    assert set(content) == {"audio/wav", "multipart/form-data", "application/json"}
    (card,) = _over_http(predictor, "/models", "GET").json()["models"]
    assert curl("http://host", card) == f"curl --data-binary @SOUND.wav http://host{URL}"


# --- the figure in the description


def test_the_figure_in_the_description_is_that_of_the_artifact_on_held_out_sounds(
    root: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(root / "specs" / "models"), *sys.path])
    training: Any = importlib.import_module("train_sounds")
    files, classes = training.drawn(training.HELD_OUT, training.SEED + 1)
    found = [answer["classes"][0]["index"] for answer in predictor.predict(files)]
    told = re.search(r"all of (\d+) others", load_spec(root / "specs/sounds.yaml").spec.description)
    assert told is not None
    assert int((np.array(found) == classes).sum()) == int(told[1])
