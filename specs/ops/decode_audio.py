"""``decode_audio``: the bytes of a WAV file to samples at one rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Libraries, Op, Stage
from specs.ops._sound_reference import resample_reference, wav_reference
from specs.ops._sound_resample import resample_sound
from specs.ops._source import BadInput
from specs.ops._wav import check_sound, open_wav, wav_samples
from specs.values import Dim, FlowError, Kind, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DecodeAudio"]

STEREO = 2


class DecodeAudio(Op):
    """Decode a WAV file to float32 samples, full scale 1, at a rate of its own.

    PCM of 8, 16, 24 and 32 bits and IEEE floats of 32 and 64 bits are read, integers divided by
    2^(bits-1) as torchaudio and soundfile do; floats may exceed 1. A file of another rate is
    resampled as ``torchaudio.functional.resample`` does by default: a sinc with 6 zero crossings
    under a Hann window, cut at 0.99 of the lower Nyquist frequency. A truncated or corrupt file is
    refused, and one longer than ``limits.seconds`` before it is decoded.
    """

    name: ClassVar[str] = "decode_audio"
    shorthand: ClassVar[str] = "rate"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})
    starts: ClassVar[Kind | None] = "audio"

    rate: int = Field(default=16_000, ge=1_000, le=384_000, strict=True)
    """Samples in a second, in Hz."""
    mode: Literal["mono", "stereo"] = "mono"
    """``mono``: the mean of all channels, [samples]; ``stereo``: [2, samples], a single channel
    twice; more than two are refused."""

    def flow(self, value: Value) -> Value:
        if value.kind != "audio":
            message = f"decode_audio takes the bytes of a sound file, found {value}"
            raise FlowError(message, "make it the first step, once")
        shape: tuple[Dim, ...] = ("samples",) if self.mode == "mono" else (STEREO, "samples")
        return Value("tensor", "float32", shape, rate=self.rate)

    def emit(self, value: Value) -> Emitted:
        del value
        return Emitted(
            f'decode_audio({{x}}, {self.rate}, "{self.mode}")',
            f"Decode the WAV file, {self.mode}, and resample it to {self.rate} Hz.",
            (decode_audio,),
        )

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        samples, rate = wav_reference(x, lib.torch)
        if self.mode == "mono":
            samples = samples.mean(0, keepdim=True)
        samples = resample_reference(samples, rate, self.rate, lib.torch)
        samples = samples[0] if self.mode == "mono" else samples.expand(STEREO, -1)
        return samples.float().numpy()


def decode_audio(data: object, rate: int, mode: str) -> NDArray[Any]:
    """Return samples [samples], or [2, samples], float32, at ``rate`` Hz."""
    data = check_sound(data)
    wav = open_wav(data)
    if mode == "stereo" and wav.channels > STEREO:
        message = f"the file has {wav.channels} channels, at most 2 are taken"
        raise BadInput("wrong_channels", message, "send one channel or two")
    samples = wav_samples(data, wav)
    if mode == "mono":
        return resample_sound(samples.mean(axis=1, dtype=np.float64), wav.rate, rate)
    both = np.broadcast_to(samples, (wav.frames, STEREO))
    return resample_sound(np.ascontiguousarray(both.T), wav.rate, rate)
