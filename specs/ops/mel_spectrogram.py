"""``mel_spectrogram``: a sound to the energy in bands of the mel scale, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from specs.faults import Fault, raise_faults
from specs.ops._base import Emitted, Libraries, Op, Stage
from specs.ops._checks import need_sound
from specs.ops._mel import hann_window, mel_corners, mel_filters
from specs.ops._sound_reference import mel_reference
from specs.ops._source import BadInput
from specs.values import Dim, FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MelSpectrogram"]

FRAMES_AT_ONCE = 2_048
"""Frames at once: bounds the memory of a long sound."""

Length = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Hertz = Annotated[float, Field(ge=0)]


class MelSpectrogram(Op):
    """Turn a sound [samples] into [n_mels, frames], as torchaudio's transform of that name does.

    Frames of ``n_fft`` samples, one every ``hop_length``, are weighted with a periodic Hann window
    and transformed as ``torch.stft`` does; magnitudes, or their squares, are summed under
    triangular filters. The defaults are torchaudio's. Of two channels each has its own:
    [2, n_mels, frames].
    """

    name: ClassVar[str] = "mel_spectrogram"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    n_fft: Annotated[int, Field(ge=2, le=65_536, strict=True)] = 400
    """Samples of a frame."""
    hop_length: Length | None = None
    """Samples from one frame to the next; by default half of the window."""
    win_length: Length | None = None
    """Samples under the window, in the middle of the frame; by default all of them."""
    n_mels: Annotated[int, Field(ge=1, le=1_024, strict=True)] = 128
    """How many bands."""
    f_min: Hertz = 0.0
    """Where the first band begins, in Hz."""
    f_max: Hertz | None = None
    """Where the last band ends, in Hz; by default half of the rate."""
    power: Literal[1, 2] = 2
    """1: magnitudes; 2: their squares, power."""
    center: bool = True
    """Frame n has its middle at sample n * ``hop_length``; before the first and behind the last
    sample the sound is mirrored. Else the first frame begins at the first sample."""
    scale: Literal["htk", "slaney"] = "htk"
    """The formula of the mel scale: torchaudio's default, or librosa's."""
    norm: Literal["none", "slaney"] = "none"
    """``none``: every filter is 1 at its middle; ``slaney``: its area is 1, as librosa has it."""
    log: Literal["none", "ln", "log10", "db"] = "none"
    """The logarithm of the energies, if any; ``db`` is ten times the one to base 10."""
    floor: Annotated[float, Field(gt=0)] = 1e-10
    """With ``log``: what smaller energies count as."""

    @model_validator(mode="after")
    def _check(self) -> MelSpectrogram:
        if self.window > self.n_fft:
            message = f"{self.window} is longer than a frame, n_fft {self.n_fft}"
            raise_faults([Fault(("win_length",), "invalid", message, f"use {self.n_fft}")])
        if self.f_max is not None and self.f_max <= self.f_min:
            message = f"{self.f_max:g} is not above f_min, {self.f_min:g}"
            raise_faults([Fault(("f_max",), "invalid", message)])
        return self

    @property
    def window(self) -> int:
        """Samples under the window."""
        return self.win_length or self.n_fft

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.hop_length or max(self.window // 2, 1)

    def flow(self, value: Value) -> Value:
        lead, samples, rate = need_sound("mel_spectrogram", value)
        high = rate / 2 if self.f_max is None else self.f_max
        if high > rate / 2 or self.f_min >= high:
            message = f"bands from {self.f_min:g} to {high:g} Hz, the sound ends at {rate / 2:g}"
            raise FlowError(message, f"decode at a higher rate, or set f_max: {rate / 2:g}")
        shape = (*lead, self.n_mels, self._frames(samples))
        low = 0.0 if self.log == "none" else None
        return Value("tensor", "float32", shape, low=low)

    def _frames(self, samples: Dim) -> Dim:
        if isinstance(samples, str):
            return "frames"
        if samples < self._least:
            message = f"mel_spectrogram needs {self._least} samples, found {samples}"
            raise FlowError(message, "make the sound longer, or n_fft smaller")
        return 1 + (samples if self.center else samples - self.n_fft) // self.hop

    @property
    def _least(self) -> int:
        """The shortest sound: a mirrored one must be longer than what is mirrored."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def emit(self, value: Value) -> Emitted:
        rate = value.rate or 0
        high = rate / 2 if self.f_max is None else self.f_max
        corners = f'mel_corners({self.f_min!r}, {high!r}, {self.n_mels}, "{self.scale}")'
        sound = f"mirrored({{x}}, {self.n_fft // 2})" if self.center else "{x}"
        call = f"mel_spectrogram({sound}, WINDOW, FILTERS, {self.hop}, {self.power})"
        kind = "power" if self.power > 1 else "magnitude"
        told = f"{self.n_mels} mel bands of {kind}, a frame every {self.hop} samples"
        return Emitted(
            self._logarithm(call),
            f"{told}{'' if self.log == 'none' else f', as {self.log}'}.".replace("as db", "in dB"),
            (mel_spectrogram, mirrored, hann_window, mel_corners, mel_filters),
            {
                "WINDOW": f"hann_window({self.window}, {self.n_fft})",
                "FILTERS": f'mel_filters({corners}, {rate}, {self.n_fft}, "{self.norm}")',
            },
        )

    def _logarithm(self, call: str) -> str:
        forms = {"ln": "np.log({})", "log10": "np.log10({})", "db": "10 * np.log10({})"}
        if self.log == "none":
            return call
        return forms[self.log].format(f"np.maximum({call}, np.float32({self.floor!r}))")

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        return mel_reference(self, x, value.rate or 0, lib.torch).float().numpy()


def mirrored(x: NDArray[Any], half: int) -> NDArray[Any]:
    """Put ``half`` samples before the first and behind the last, mirrored at them."""
    check_length(x, half + 1)
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], "reflect")


def check_length(x: NDArray[Any], least: int) -> None:
    """Refuse a sound that is too short for one frame."""
    if x.shape[-1] < least:
        message = f"the sound has {x.shape[-1]} samples, at least {least} are needed"
        raise BadInput("too_short", message, "send a longer sound")


def mel_spectrogram(
    x: NDArray[Any],
    window: NDArray[Any],
    filters: NDArray[Any],
    hop: int,
    power: int,
) -> NDArray[Any]:
    """Return the energies [..., bands, frames] of a sound [..., samples], float32.

    The transform is computed in float64: in float32 the quiet bands of a loud frame are
    rounding errors of its loud ones.
    """
    check_length(x, len(window))
    view = np.lib.stride_tricks.sliding_window_view
    frames = view(x, len(window), axis=-1)[..., ::hop, :]
    count = frames.shape[-2]
    found = np.empty((*x.shape[:-1], len(filters), count), np.float32)
    for first in range(0, count, FRAMES_AT_ONCE):
        some = slice(first, first + FRAMES_AT_ONCE)
        spectrum = np.fft.rfft(frames[..., some, :] * window)
        energy = spectrum.real**2 + spectrum.imag**2
        energy = (np.sqrt(energy) if power == 1 else energy).astype(np.float32)
        found[..., some] = filters @ np.swapaxes(energy, -1, -2)
    return found
