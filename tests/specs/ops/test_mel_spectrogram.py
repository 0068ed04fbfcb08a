"""``mel_spectrogram``, held to ``torch.stft`` and to librosa's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from specs.ops import mel_spectrogram as module
from specs.ops._mel import hann_window, mel_corners, mel_filters
from specs.ops._source import BadInput
from specs.ops.mel_spectrogram import MelSpectrogram
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
SOUND = Value("tensor", "float32", ("samples",), rate=16_000)
OPTIONS: dict[str, dict[str, Any]] = {
    "torchaudio's defaults": {},
    "short window": {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40},
    "odd window": {"n_fft": 401, "win_length": 300, "hop_length": 77, "n_mels": 20},
    "librosa's filters": {"n_fft": 1024, "scale": "slaney", "norm": "slaney", "n_mels": 80},
    "magnitudes": {"power": 1, "n_mels": 32, "f_min": 50.0, "f_max": 7600.0},
    "not centred": {"center": False, "n_mels": 32},
    "decibels": {"log": "db", "n_mels": 32},
    "natural": {"log": "ln", "floor": 1e-5, "n_mels": 32},
    "decimal": {"log": "log10", "n_mels": 32, "scale": "slaney"},
}


@pytest.fixture
def sound(rng: np.random.Generator) -> Any:
    """A loud tone over a hiss that is a thousand times quieter."""
    t = np.arange(6_000) / 16_000
    return (np.sin(2 * np.pi * 440 * t) + rng.normal(0, 1e-3, len(t))).astype(np.float32)


@pytest.mark.parametrize("name", OPTIONS)
def test_python_gives_the_references_energies(executions: RunStep, sound: Any, name: str) -> None:
    op = MelSpectrogram(**OPTIONS[name])
    found = executions(op, SOUND, sound)
    assert found["python"].dtype == np.float32
    assert np.allclose(found["python"], found["reference"], rtol=1e-5, atol=1e-6)
    shape = op.flow(SOUND.but(shape=(len(sound),))).shape
    assert found["python"].shape == shape


def test_silence_has_the_floors_logarithm(executions: RunStep) -> None:
    found = executions(MelSpectrogram(log="db"), SOUND, np.zeros(1_000, np.float32))
    assert np.allclose(found["python"], -100)
    assert np.allclose(found["reference"], -100)


def test_two_channels_have_their_own(executions: RunStep, sound: Any) -> None:
    both = np.stack([sound, sound[::-1]])
    value = SOUND.but(shape=(2, "samples"))
    op = MelSpectrogram(n_mels=32)
    found = executions(op, value, both)
    assert found["python"].shape[:2] == op.flow(value).shape[:2] == (2, 32)
    assert np.allclose(found["python"], found["reference"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(found["python"][0], executions(op, SOUND, sound)["python"])


def test_many_frames_are_computed_in_parts_that_join(
    run_step: RunStep, sound: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    op = MelSpectrogram(n_mels=32)
    whole = run_step(op, SOUND, sound)
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 7)
    assert np.allclose(run_step(op, SOUND, sound), whole, rtol=1e-6)


# --- literature values


@pytest.mark.parametrize(
    ("scale", "norm", "rows"),
    [
        (
            "slaney",
            "slaney",
            [
                [0, 0.00142878, 0.00053487, 0, 0, 0, 0, 0, 0],
                [0, 0, 0.00085101, 0.00086471, 0.00023411, 0, 0, 0, 0],
                [0, 0, 0, 0.00021985, 0.00057935, 0.00058931, 0.00039287, 0.00019644, 0],
            ],
        ),
        (
            "htk",
            "none",
            [
                [0, 0.8934592, 0.16569184, 0, 0, 0, 0, 0, 0],
                [0, 0.10654078, 0.83430815, 0.6508237, 0.19871527, 0, 0, 0, 0],
                [0, 0, 0, 0.3491763, 0.80128473, 0.8425854, 0.5617236, 0.2808618, 0],
            ],
        ),
    ],
)
def test_the_filters_are_librosas(scale: str, norm: str, rows: list[list[float]]) -> None:
    # librosa 0.11, filters.mel(sr=8000, n_fft=16, n_mels=3).
    filters = mel_filters(mel_corners(0.0, 4000.0, 3, scale), 8000, 16, norm)
    assert np.allclose(filters, rows, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("scale", "corners"),
    [
        ("slaney", [0, 754.09400787, 1688.90846266, 3675.76763429, 8000]),
        ("htk", [0, 614.32673833, 1767.79253585, 3933.55102075, 8000]),
    ],
)
def test_the_corners_are_librosas(scale: str, corners: list[float]) -> None:
    # librosa 0.11, mel_frequencies(n_mels=5, fmin=0, fmax=8000).
    assert np.allclose(mel_corners(0.0, 8000.0, 3, scale), corners, rtol=1e-9)


def test_the_window_is_periodic_and_in_the_middle_of_the_frame() -> None:
    assert np.allclose(hann_window(4, 4), [0, 0.5, 1, 0.5])
    assert np.allclose(hann_window(4, 7), [0, 0, 0.5, 1, 0.5, 0, 0])


# --- what is refused


@pytest.mark.parametrize(("center", "least"), [(True, 201), (False, 400)])
def test_a_sound_shorter_than_a_frame_is_refused(
    run_step: RunStep, *, center: bool, least: int
) -> None:
    op = MelSpectrogram(center=center)
    with pytest.raises(BadInput, match=f"{least - 1} samples, at least {least}") as caught:
        run_step(op, SOUND, np.zeros(least - 1, np.float32))
    assert caught.value.code == "too_short"
    assert run_step(op, SOUND, np.zeros(least, np.float32)).shape[1] == (2 if center else 1)
    with pytest.raises(FlowError, match=f"needs {least} samples, found {least - 1}"):
        op.flow(SOUND.but(shape=(least - 1,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"win_length": 500}, "500 is longer than a frame, n_fft 400"),
        ({"f_min": 300, "f_max": 200}, "200 is not above f_min, 300"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MelSpectrogram(**options)
    assert message in str(caught.value.errors()[0].get("ctx", {})["faults"][0])


@pytest.mark.parametrize("options", [{"power": 3}, {"floor": 0}, {"n_mels": 0}, {"n_fft": 1}])
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MelSpectrogram(**options)


@pytest.mark.parametrize("options", [{"f_max": 8_001}, {"f_min": 8_000}])
def test_bands_above_the_nyquist_frequency_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(FlowError, match="the sound ends at 8000") as caught:
        MelSpectrogram(**options).flow(SOUND)
    assert "set f_max: 8000" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Value("tensor", "float32", ("samples",)), "put - decode_audio: 16000 first"),
        (Value("audio"), "put - decode_audio: 16000 first"),
        (SOUND.but(dtype="float16"), "put mel_spectrogram before - cast: float16"),
    ],
)
def test_only_a_sound_of_known_rate_is_taken(value: Value, hint: str) -> None:
    with pytest.raises(FlowError) as caught:
        MelSpectrogram().flow(value)
    assert caught.value.hint == hint


def test_an_open_length_gives_open_frames_and_no_rate() -> None:
    value = MelSpectrogram(log="db").flow(SOUND)
    assert (value.shape, value.rate, value.low) == ((128, "frames"), None, None)
    assert MelSpectrogram().flow(SOUND).low == 0
