"""``decode_audio``: WAV files of every kind, their refusals, and other rates."""

from __future__ import annotations

import contextlib
import io
import struct
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compiler.placement.golden_sounds import GOLDEN_SOUNDS, golden_sounds, riff, sweep, wav
from specs.ops import _wav
from specs.ops._sound_resample import resample_sound
from specs.ops._source import BadInput
from specs.ops.decode_audio import DecodeAudio, decode_audio
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
AUDIO = Value("audio")
SOUNDS = golden_sounds()
RAMP = np.linspace(-1, 1, 64)


def refusal(data: object, mode: str = "mono") -> BadInput:
    with pytest.raises(BadInput) as caught:
        decode_audio(data, 16_000, mode)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


def changed(data: bytes, at: int, form: str, *numbers: int) -> bytes:
    """The file with some bytes of its header replaced."""
    content = bytearray(data)
    struct.pack_into(form, content, at, *numbers)
    return bytes(content)


# --- what is read


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("name", sorted(GOLDEN_SOUNDS))
def test_python_gives_the_references_samples(executions: RunStep, name: str, rate: int) -> None:
    found = executions(DecodeAudio(rate=rate), AUDIO, SOUNDS[name])
    assert found["python"].dtype == np.float32
    assert found["python"].shape == found["reference"].shape
    assert np.abs(found["python"] - found["reference"]).max() < 1e-6
    assert "graph" not in found


@pytest.mark.parametrize(
    ("bits", "values", "expected"),
    [
        (8, [0, 128, 255], [-1, 0, 127 / 128]),
        (16, [-32768, 0, 32767], [-1, 0, 32767 / 32768]),
        (24, [-(2**23), 1, 2**23 - 1], [-1, 2.0**-23, 1 - 2.0**-23]),
        (32, [-(2**31), 2**24, 2**30], [-1, 2.0**-7, 0.5]),
    ],
)
def test_integers_are_divided_by_half_of_their_range(
    bits: int, values: list[int], expected: list[float]
) -> None:
    body = b"".join(v.to_bytes(bits // 8, "little", signed=bits > 8) for v in values)
    data = riff(
        (b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 0, bits // 8, bits)), (b"data", body)
    )
    assert decode_audio(data, 16_000, "mono").tolist() == expected


@pytest.mark.parametrize("bits", [32, 64])
def test_floats_are_kept_also_above_full_scale(bits: int) -> None:
    data = wav(np.array([0.25, -1.5, 3e-9]), 16_000, bits, floats=True)
    assert decode_audio(data, 16_000, "mono").tolist() == [0.25, -1.5, float(np.float32(3e-9))]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_file_of_pythons_own_writer_is_read(width: int) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(width)
        writer.setframerate(16_000)
        writer.writeframes(wav(np.stack([RAMP, -RAMP], 1), 16_000, width * 8)[44:])
    found = decode_audio(file.getvalue(), 16_000, "stereo")
    assert np.abs(found - [RAMP, -RAMP]).max() <= 2 ** (1 - 8 * width) + 1e-7


def test_scipy_reads_the_same_samples() -> None:
    scipy_io: Any = pytest.importorskip("scipy.io.wavfile")
    for name in ("sweep.wav", "thirty_two_bit.wav", "float.wav", "double.wav"):
        rate, expected = scipy_io.read(io.BytesIO(SOUNDS[name]))
        full = 1 if expected.dtype.kind == "f" else -int(np.iinfo(expected.dtype).min)
        found = decode_audio(SOUNDS[name], rate, "mono")
        assert np.abs(found - expected / full).max() < 1e-7, name


def test_channels_are_mixed_to_their_mean() -> None:
    data = wav(np.array([[0.5, -0.25], [0.0, 1.0]]), 16_000, 32, floats=True)
    assert decode_audio(data, 16_000, "mono").tolist() == [0.125, 0.5]


def test_stereo_keeps_two_channels_and_doubles_one(executions: RunStep) -> None:
    op = DecodeAudio(mode="stereo")
    both, one = (executions(op, AUDIO, SOUNDS[name]) for name in ("stereo.wav", "notes.wav"))
    for found in (both, one):
        assert np.abs(found["python"] - found["reference"]).max() < 1e-6
    assert np.array_equal(one["python"][0], one["python"][1])
    assert np.allclose(both["python"][1], both["python"][0] / -2, atol=1e-4)


def test_stereo_refuses_more_than_two_channels() -> None:
    error = refusal(SOUNDS["extensible.wav"], "stereo")
    assert error.code == "wrong_channels"
    assert "6 channels" in error.message


def test_a_stream_without_a_length_goes_on_to_the_end() -> None:
    data = SOUNDS["streamed.wav"]
    assert len(decode_audio(data, 16_000, "mono")) == (len(data) - 44) // 2
    assert len(decode_audio(data + b"\1", 16_000, "mono")) == (len(data) - 44) // 2


# --- what is refused


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "not_audio", "0 bytes"),
        ("a.wav", "not_audio", "the item is str"),
        (np.zeros(9), "not_audio", "the item is ndarray"),
        (b"ID3\x03" + bytes(90), "not_audio", "it is an MP3 file"),
        (b"OggS" + bytes(90), "not_audio", "it is an Ogg file"),
        (b"fLaC" + bytes(90), "not_audio", "it is a FLAC file"),
        (b"RIFF\0\0\0\0AVI LIST", "not_audio", "begins with b'RIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "not_audio", "begins with b'\\x89PNG"),
        (b"RIFF\0\0\0\0WAVE", "corrupt_audio", "no chunk 'data'"),
        (riff((b"data", b"\0\0")), "corrupt_audio", "'fmt ' before the samples has 0 bytes"),
        (riff((b"fmt ", bytes(9)), (b"data", b"")), "corrupt_audio", "has 9 bytes"),
        (wav(np.zeros(0), 16_000), "empty_audio", "holds no samples"),
        (riff(*[(b"x   ", b"")] * 1_001), "corrupt_audio", "no chunk 'data'"),
    ],
)
def test_what_is_no_sound_is_refused_by_name(data: object, code: str, message: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert message in error.message


@pytest.mark.parametrize(
    ("at", "form", "number", "code", "message"),
    [
        (20, "<H", 0x55, "unsupported_audio", "16 bits in encoding 0x0055"),
        (20, "<H", 0xFFFE, "unsupported_audio", "encoding 0xfffe"),
        (34, "<H", 12, "unsupported_audio", "12 bits"),
        (22, "<H", 0, "corrupt_audio", "0 channels"),
        (24, "<I", 0, "corrupt_audio", "0 samples a second"),
        (24, "<I", 2**32 - 1, "corrupt_audio", "4294967295 samples a second"),
        (32, "<H", 7, "corrupt_audio", "no blocks of 7 bytes"),
        (40, "<I", 2**31, "corrupt_audio", "declares 2147483648 bytes of samples, 128 are there"),
        (40, "<I", 127, "corrupt_audio", "127 bytes of samples are no whole number of 2"),
    ],
)
def test_a_header_that_cannot_be_is_refused(
    at: int, form: str, number: int, code: str, message: str
) -> None:
    error = refusal(changed(wav(RAMP, 16_000), at, form, number))
    assert error.code == code
    assert message in error.message


@pytest.mark.parametrize("cut", [13, 30, 44, 100])
def test_a_truncated_file_is_refused(cut: int) -> None:
    assert refusal(wav(RAMP, 16_000)[:cut]).code == "corrupt_audio"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_refused(value: float) -> None:
    assert refusal(wav(np.array([0, value]), 16_000, 32, floats=True)).code == "not_finite"


def test_integers_that_were_stored_as_floats_are_refused_and_the_hint_says_so() -> None:
    error = refusal(wav(np.array([0, 32767.0]), 16_000, 32, floats=True))
    assert error.code == "wrong_input"
    assert "32768" in error.hint


def test_a_sound_that_declares_too_many_seconds_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_wav, "MAX_SECONDS", 2)
    assert len(decode_audio(wav(np.zeros(16_000), 8_000), 8_000, "mono")) == 16_000
    monkeypatch.setattr(_wav, "wav_samples", None)
    error = refusal(wav(np.zeros(16_001), 8_000))
    assert (error.code, error.message) == (
        "too_large",
        "the sound lasts 2.0 s, at most 2 s are taken",
    )


def test_a_file_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wav, "MAX_BYTES", 100)
    assert refusal(wav(RAMP, 16_000)).code == "too_large"


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["short.wav", "other_chunks.wav", "one_sample.wav", "extensible.wav"]),
    edits=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 400),
)
def test_no_damaged_file_raises_anything_but_a_refusal(
    name: str, edits: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(SOUNDS[name][: -cut or None])
    for at, value in edits:
        content[at % max(len(content), 1) : at % max(len(content), 1) + 1] = bytes([value])
    with contextlib.suppress(BadInput):
        assert np.isfinite(decode_audio(bytes(content), 16_000, "mono")).all()


# --- another rate


def test_resampling_is_torchaudios() -> None:
    # torchaudio 2.11, functional.resample on float64 with its defaults, 3 to 2 and 2 to 3 Hz.
    x = np.array([0, 1, 0, -0.5, 0.25, 0, 0, 0.125], np.float32)
    down = [0.284552549, 0.515136858, -0.375943413, 0.172066061, -0.015113416, 0.086271828]
    up = [0.006160006, 0.769504316, 0.901961807, 0.002877471, -0.591507731, -0.233415646]
    up += [0.248534089, 0.154293014, -0.08945489, -0.002519096, 0.130926203, 0.088394408]
    assert np.allclose(resample_sound(x, 3, 2), down, atol=2e-7)
    assert np.allclose(resample_sound(x, 2, 3), up, atol=2e-7)


def test_a_tone_keeps_its_pitch_and_one_above_the_new_nyquist_frequency_is_gone() -> None:
    t = np.arange(44_100) / 44_100
    for pitch, level in ((1_000, 1.0), (12_000, 0.0)):
        data = wav(np.sin(2 * np.pi * pitch * t), 44_100, 32, floats=True)
        found = decode_audio(data, 16_000, "mono")[200:-200]
        again = np.arange(200, 200 + len(found)) / 16_000
        assert np.abs(found - level * np.sin(2 * np.pi * pitch * again)).max() < 2e-3


def test_two_rates_that_share_no_divisor_need_little_memory_and_agree() -> None:
    x = sweep(1.0, 48_000).astype(np.float32)
    near, exact = resample_sound(x, 47_999, 16_000), resample_sound(x, 48_000, 16_000)
    assert len(near) - len(exact) == 1
    assert np.abs(near[:2_000] - exact[:2_000]).max() < 0.05


# --- the step


def test_the_rate_may_stand_alone_and_is_known_behind_it() -> None:
    value = DecodeAudio.model_validate({"decode_audio": 8_000}).flow(AUDIO)
    assert (value.kind, value.dtype, value.shape, value.rate) == (
        "tensor",
        "float32",
        ("samples",),
        8_000,
    )
    assert str(value) == "tensor float32 [samples] at 8000 Hz"
    assert DecodeAudio(mode="stereo").flow(AUDIO).shape == (2, "samples")


@pytest.mark.parametrize("rate", [0, 999, 400_000, 16_000.5])
def test_a_rate_that_no_model_has_is_refused(rate: float) -> None:
    with pytest.raises(ValidationError):
        DecodeAudio.model_validate({"decode_audio": rate})


def test_it_must_be_the_first_step(image: Value) -> None:
    with pytest.raises(FlowError) as caught:
        DecodeAudio().flow(image)
    assert "first step" in caught.value.hint
