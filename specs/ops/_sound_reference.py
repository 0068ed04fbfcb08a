"""Sounds in PyTorch, in float64: what ``decode_audio`` and ``mel_spectrogram`` are held to.

Each is another way to the same numbers than the code of production: samples as sums of bytes,
resampling as a strided convolution for each phase (torchaudio's own form), ``torch.stft``, and
filters from the slopes of their sides.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from specs.ops._sound_resample import CROSSINGS, ROLLOFF

if TYPE_CHECKING:
    from specs.ops.mel_spectrogram import MelSpectrogram

__all__ = ["mel_reference", "resample_reference", "wav_reference"]

IEEE_FLOAT = 3
EXTENSIBLE = 0xFFFE
PHASES_AT_ONCE = 64
"""Bounds the memory where two rates share no divisor."""


def wav_reference(data: bytes, torch: Any) -> tuple[Any, int]:
    """Samples [channels, frames] of a file that is right, as float32 holds them, and its rate."""
    form, body = _chunks(data)
    encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if encoding == EXTENSIBLE:
        (encoding,) = struct.unpack_from("<H", form, 24)
    whole = len(body) - len(body) % (channels * bits // 8)
    body = bytearray(body[:whole])
    if encoding == IEEE_FLOAT:
        kind = torch.float32 if bits == 32 else torch.float64  # noqa: PLR2004 - else 64
        samples = torch.frombuffer(body, dtype=kind).double()
    else:
        octets = torch.frombuffer(body, dtype=torch.uint8).double().reshape(-1, bits // 8)
        samples = (octets * 256.0 ** torch.arange(bits // 8)).sum(1)
        half = 2.0 ** (bits - 1)
        signed = samples - half if bits == 8 else (samples + half) % (2 * half) - half  # noqa: PLR2004
        samples = signed / half
    return samples.float().double().reshape(-1, channels).T, rate


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The contents of the chunks ``fmt`` and ``data``."""
    found: dict[bytes, bytes] = {}
    at = 12
    while b"data" not in found:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        found[data[at : at + 4]] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return found[b"fmt "], found[b"data"]


def resample_reference(x: Any, have: int, want: int, torch: Any) -> Any:
    """``x`` [channels, samples], a float64 tensor, at another rate; as it is at its own."""
    if have == want:
        return x
    divisor = math.gcd(have, want)
    have, want = have // divisor, want // divisor
    base = min(have, want) * ROLLOFF
    width = math.ceil(CROSSINGS * have / base)
    wide = torch.nn.functional.pad(x[:, None], (width, width + have))
    place = torch.arange(-width, width + have, dtype=torch.float64) / have
    count = math.ceil(x.shape[-1] * want / have)
    phases = torch.arange(min(want, count), dtype=torch.float64)[:, None, None] / want
    found: list[Any] = []
    for some in phases.split(PHASES_AT_ONCE):
        t = ((place - some) * base).clamp(-CROSSINGS, CROSSINGS)
        window = torch.cos(t * math.pi / CROSSINGS / 2) ** 2
        kernels = torch.sinc(t) * window * base / have
        found.append(torch.nn.functional.conv1d(wide, kernels, stride=have))
    return torch.cat(found, 1).mT.flatten(-2)[:, :count]


def mel_reference(op: MelSpectrogram, x: Any, rate: int, torch: Any) -> Any:
    """The spectrogram of ``x`` [..., samples], float64."""
    n_fft, length = op.n_fft, op.window
    spectrum = torch.stft(
        torch.from_numpy(x).double(),
        n_fft,
        hop_length=op.hop,
        win_length=length,
        window=torch.hann_window(length, dtype=torch.float64),
        center=op.center,
        pad_mode="reflect",
        return_complex=True,
    )
    mels = _filters(op, rate, torch) @ spectrum.abs() ** op.power
    if op.log == "none":
        return mels
    mels = mels.clamp(min=op.floor)
    if op.log == "ln":
        return mels.log()
    return mels.log10() * (10 if op.log == "db" else 1)


def _filters(op: MelSpectrogram, rate: int, torch: Any) -> Any:
    """Each filter as the lower of a rising and a falling line."""
    high = rate / 2 if op.f_max is None else op.f_max
    ends = [_mel(hz, op.scale) for hz in (op.f_min, high)]
    mels = torch.linspace(*ends, op.n_mels + 2, dtype=torch.float64)
    corners = torch.tensor([_hz(float(mel), op.scale) for mel in mels], dtype=torch.float64)
    bins = torch.fft.rfftfreq(op.n_fft, 1 / rate, dtype=torch.float64)
    gaps = corners.diff()[:, None]
    above = bins - corners[:, None]
    filters = torch.minimum(above[:-2] / gaps[:-1], -above[2:] / gaps[1:]).clamp(min=0)
    if op.norm == "slaney":
        filters = filters * 2 / (gaps[:-1] + gaps[1:])
    return filters


def _mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 1127.010480 * math.log1p(hz / 700)  # 2595 / ln 10
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)  # noqa: PLR2004


def _hz(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700 * math.expm1(mel / 1127.010480)
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)  # noqa: PLR2004 - 1 kHz
