"""Another rate for a sound: a windowed sinc, evaluated at the places of the new samples.

The formula is that of ``torchaudio.functional.resample`` with its defaults (Hann window, 6 zero
crossings, rolloff 0.99), after J. O. Smith's "Digital Audio Resampling" (2002). It gives
what that gives on float64; on float32, torchaudio computes the weights in float32, which is off by
up to 3e-4 where the rates have no large common divisor. Only weights inside the window are
computed, so that such rates cost no more memory than others.

Lines that are copied into ``processing.py`` stay within 88 columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CROSSINGS", "ROLLOFF", "resample_sound"]

CROSSINGS = 6
"""Zero crossings of the sinc on either side (``lowpass_filter_width``)."""
ROLLOFF = 0.99
"""Where the filter cuts, as a share of the lower rate's Nyquist frequency."""
WEIGHTS_AT_ONCE = 1 << 20
"""Bounds the memory of a long sound, and of two rates that share no divisor."""


def resample_sound(x: NDArray[Any], have: int, want: int) -> NDArray[Any]:
    """Return ``x`` [..., samples] at ``want`` Hz in place of ``have`` Hz, float32.

    New sample n stands at m = n * have / want and is the sum over j of x[j] * h(j - m),
    where h(d) = s * sinc(s * d) * cos(pi * s * d / (2 * CROSSINGS))^2 for |s * d| below
    CROSSINGS, else 0, and s = ROLLOFF * min(have, want) / have. Before the first and
    behind the last sample it is silent. There are ceil(samples * want / have) new ones.
    Sums are in float64: a logarithm would make much of rounding where it is quiet.
    """
    if have == want:
        return x.astype(np.float32)
    divisor = math.gcd(have, want)
    have, want = have // divisor, want // divisor
    s = ROLLOFF * min(have, want) / have
    width = math.ceil(CROSSINGS / s)
    frame = [(0, 0)] * (x.ndim - 1) + [(width, width)]
    wide = np.pad(x.astype(np.float64), frame)
    view = np.lib.stride_tricks.sliding_window_view
    windows = view(wide, 2 * width + 1, axis=-1)
    count = -(-x.shape[-1] * want // have)
    rows = max(WEIGHTS_AT_ONCE // (2 * width + 1), 1)
    # Weights repeat every `want` new samples: where these are few, they are kept.
    kept = sinc_weights(np.arange(want), have, want, s) if want <= rows else None
    found = np.empty((*x.shape[:-1], count), np.float32)
    for first in range(0, count, rows):
        number = np.arange(first, min(first + rows, count))
        taken = windows[..., number * have // want, :]
        phase = number % want
        weights = sinc_weights(phase, have, want, s) if kept is None else kept[phase]
        found[..., number] = np.einsum("...nt,nt->...n", taken, weights)
    return found


def sinc_weights(
    phase: NDArray[Any],
    have: int,
    want: int,
    s: float,
) -> NDArray[Any]:
    """Return the weights [phases, taps] of the samples around new ones."""
    behind = phase * have % want / want
    width = math.ceil(CROSSINGS / s)
    t = s * (np.arange(-width, width + 1) - behind[:, None])
    t = t.clip(-CROSSINGS, CROSSINGS)
    window = np.cos(np.pi / (2 * CROSSINGS) * t) ** 2
    return s * np.sinc(t) * window
