"""Mel filters and the window of a short-time Fourier transform.

Lines that are copied into ``processing.py`` stay within 88 columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["hann_window", "mel_corners", "mel_filters"]

BREAK_HZ = 1000.0
"""Where Slaney's scale changes from linear to logarithmic."""
HZ_PER_MEL = 200 / 3
"""Slaney's scale below the break (Auditory Toolbox, 1998)."""
MEL_STEP = float(np.log(6.4)) / 27
"""Its step above: 27 mels lie between 1000 and 6400 Hz."""


def hann_window(length: int, n_fft: int) -> NDArray[Any]:
    """Return a periodic Hann window of ``length`` in the middle of ``n_fft``, float64."""
    window = np.sin(np.pi * np.arange(length) / length) ** 2
    left = (n_fft - length) // 2
    return np.pad(window, (left, n_fft - length - left))


def mel_corners(low: float, high: float, n_mels: int, scale: str) -> NDArray[Any]:
    """Return the ``n_mels`` + 2 corners of filters in Hz, evenly on the mel scale."""
    mels = np.linspace(to_mel(low, scale), to_mel(high, scale), n_mels + 2)
    return from_mel(mels, scale)


def mel_filters(
    corners: NDArray[Any],
    rate: int,
    n_fft: int,
    norm: str,
) -> NDArray[Any]:
    """Return triangular filters [n_mels, n_fft // 2 + 1], float32.

    Each rises from a corner to the next, and falls to the one after; it is 1 at its
    middle, or has the area 1 Hz with the norm "slaney".
    """
    bins = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    shape = (0.0, 1.0, 0.0)
    triples = zip(corners[:-2], corners[1:-1], corners[2:], strict=True)
    filters = np.stack([np.interp(bins, corner, shape) for corner in triples])
    if norm == "slaney":
        filters *= 2 / (corners[2:] - corners[:-2])[:, None]
    return filters.astype(np.float32)


def to_mel(hz: float, scale: str) -> float:
    """O'Shaughnessy's formula (1987), as HTK has it, or Slaney's."""
    if scale == "htk":
        return float(2595 * np.log10(1 + hz / 700))
    if hz < BREAK_HZ:
        return hz / HZ_PER_MEL
    return float(BREAK_HZ / HZ_PER_MEL + np.log(hz / BREAK_HZ) / MEL_STEP)


def from_mel(mels: NDArray[Any], scale: str) -> NDArray[Any]:
    """Return the frequencies in Hz."""
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    above = np.maximum(mels - BREAK_HZ / HZ_PER_MEL, 0)
    linear = np.minimum(mels * HZ_PER_MEL, BREAK_HZ)
    return linear * np.exp(MEL_STEP * above)
