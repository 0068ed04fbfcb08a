"""Sounds that every execution of a spec's pre-processing is run on.

Drawn here from a fixed seed, so that an artifact may carry them: what recordings and files in the
wild have of which processing goes wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GOLDEN_SOUNDS", "golden_sounds", "sweep", "wav"]

Samples = NDArray[np.float64]

SEED = 20
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID = bytes.fromhex("000000001000800000aa00389b71")
"""How a subformat goes on behind its number."""


def golden_sounds() -> dict[str, bytes]:
    """Every sound as a file's bytes, by file name."""
    return {name: draw() for name, draw in GOLDEN_SOUNDS.items()}


def wav(samples: Samples, rate: int, bits: int = 16, *, floats: bool = False) -> bytes:
    """A WAV file.

    Args:
        samples: [frames] or [frames, channels]; integers are cut at full scale, 1.
        rate: Hz.
        bits: of a sample.
        floats: IEEE floats in place of integers.
    """
    channels = samples.shape[1] if samples.ndim > 1 else 1
    block = channels * bits // 8
    form = struct.pack(
        "<HHIIHH", FLOAT if floats else PCM, channels, rate, rate * block, block, bits
    )
    return riff((b"fmt ", form), (b"data", _encoded(samples, bits, floats=floats)))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """The chunks of a file of the type WAVE; those of an odd length are filled up."""
    parts = [
        name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for name, body in chunks
    ]
    whole = b"WAVE" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def _encoded(samples: Samples, bits: int, *, floats: bool) -> bytes:
    if floats:
        return samples.astype(f"<f{bits // 8}").tobytes()
    half = 2.0 ** (bits - 1)
    whole = np.rint(samples * half).clip(-half, half - 1).astype(np.int64)
    if bits == 8:  # noqa: PLR2004 - the only unsigned one
        return (whole + 128).astype(np.uint8).tobytes()
    octets = whole.astype("<i8").reshape(-1, 1).view(np.uint8)
    return octets[:, : bits // 8].tobytes()


# --- what they sound like


def sweep(seconds: float, rate: int, low: float = 60.0) -> Samples:
    """A sine whose pitch rises evenly in octaves up to the Nyquist frequency."""
    octaves = np.log2(rate / 2 / low)
    t = np.arange(round(seconds * rate)) / rate
    phase = low * seconds / (octaves * np.log(2)) * (2 ** (octaves * t / seconds) - 1)
    return 0.7 * np.sin(2 * np.pi * phase)


def _noise(seconds: float, rate: int, channels: int = 1) -> Samples:
    rng = np.random.default_rng([SEED, rate])
    noise = rng.normal(0, 0.2, (round(seconds * rate), channels))
    return noise.clip(-1, 1)


def _notes(seconds: float, rate: int) -> Samples:
    """Three pitches that begin one after the other and fade, over a quiet hiss."""
    t = np.arange(round(seconds * rate)) / rate
    total = _noise(seconds, rate)[:, 0] * 0.01
    for number, pitch in enumerate((220.0, 277.2, 1318.5)):
        since = t - number * seconds / 4
        total += np.where(since > 0, np.exp(-8 * since), 0) * np.sin(2 * np.pi * pitch * since) / 3
    return total


def _pair(rate: int) -> Samples:
    """A sweep on the left, its negative half as loud on the right: together they are quiet."""
    left = sweep(0.2, rate)
    return np.stack([left, -0.5 * left], axis=1)


def _extensible() -> bytes:
    """Six channels of 24 bits in the form that says where the loudspeakers stand."""
    samples, rate, channels, bits = _noise(0.05, 48_000, 6), 48_000, 6, 24
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", EXTENSIBLE, channels, rate, rate * block, block, bits)
    form += struct.pack("<HHIH", 22, bits, 0x3F, PCM) + GUID
    return riff((b"fmt ", form), (b"data", _encoded(samples, bits, floats=False)))


def _with_notes() -> bytes:
    """A file with other chunks around the samples, one of an odd length."""
    plain = wav(_notes(0.3, 16_000), 16_000)
    form, body = plain[20:36], plain[44:]
    remark = (b"LIST", b"INFOISFT\x05\0\0\0deploy")
    return riff((b"JUNK", b"odd"), (b"fmt ", form), remark, (b"data", body), (b"id3 ", b"tag"))


def _streamed() -> bytes:
    """A file whose writer could not go back to say how long it is."""
    whole = wav(_notes(0.2, 16_000), 16_000)
    unknown = b"\xff\xff\xff\xff"
    return whole[:4] + unknown + whole[8:40] + unknown + whole[44:]


def _of(
    draw: Callable[..., Samples],
    seconds: float,
    rate: int,
    **kind: Any,  # noqa: ANN401 - as `wav` has them
) -> Callable[[], bytes]:
    return lambda: wav(draw(seconds, rate), rate, **kind)


GOLDEN_SOUNDS: dict[str, Callable[[], bytes]] = {
    "sweep.wav": _of(sweep, 0.5, 16_000),
    "sweep_44100.wav": _of(sweep, 0.25, 44_100),
    "noise_48000.wav": _of(_noise, 0.2, 48_000),
    "notes.wav": _of(_notes, 1.0, 16_000),
    "silence.wav": lambda: wav(np.zeros(8_000), 16_000),
    "one_sample.wav": lambda: wav(np.full(1, 0.5), 16_000),
    "short.wav": _of(sweep, 0.01, 16_000),
    "clipped.wav": lambda: wav(3 * sweep(0.25, 16_000), 16_000),
    "stereo.wav": lambda: wav(_pair(32_000), 32_000),
    "eight_bit.wav": _of(_notes, 0.5, 8_000, bits=8),
    "twenty_four_bit.wav": _of(_notes, 0.25, 22_050, bits=24),
    "thirty_two_bit.wav": _of(_notes, 0.25, 11_025, bits=32),
    "float.wav": lambda: wav(1.3 * sweep(0.25, 16_000), 16_000, 32, floats=True),
    "double.wav": _of(_notes, 0.2, 24_000, bits=64, floats=True),
    "odd_rate.wav": _of(sweep, 0.2, 12_345),
    "extensible.wav": _extensible,
    "other_chunks.wav": _with_notes,
    "streamed.wav": _streamed,
}
"""What draws each, by file name."""
