"""Calibration: the range that each quantized activation gets.

Two passes over the items, one item in memory at a time: the first finds the extents, the second
fills one histogram per value within them, which therefore does not depend on the items' order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compiler.precision._taps import Extent, extents, values
from runtime.tensors import Array, Tensors
from specs.errors import ExportError
from specs.precision import Quantize

__all__ = ["calibrated", "entropy_threshold", "percentile_extent"]

BINS = 2048
"""Bins of a histogram, as in TensorRT's entropy calibration."""
LEVELS = 128
"""Magnitudes of a signed 8-bit integer, which the entropy method compares with."""
FEWEST = 10 * BINS
"""Values below which a histogram says nothing, and the entropy method keeps the whole range."""
STRIDE = 8
"""Bins between two thresholds that the entropy method tries: 241 candidates."""
SMOOTH = 1e-4
"""What an empty bin counts, so that the divergence is finite; as in MXNet's entropy calibration."""
Histogram = NDArray[np.float64]
Items = Callable[[], Iterator[Tensors]]


def calibrated(
    proto: onnx.ModelProto, names: Sequence[str], items: Items, quantize: Quantize
) -> dict[str, Extent]:
    """The range of each named value by the method that ``quantize`` asks for.

    Args:
        proto: the float32 graph.
        names: float32 values of its main graph.
        items: gives the calibration items anew at each call, each at batch 1.
        quantize: method and percentile.

    Raises:
        ExportError: there is no item, or a value is not finite; code ``quantize``.
    """
    if not names:
        return {}
    whole = extents(proto, names, items())
    for name, extent in whole.items():
        if not (np.isfinite(extent.low) and np.isfinite(extent.high)):
            raise _unusable(name, extent)
    if quantize.method == "minmax":
        return whole
    open_ = {name: extent for name, extent in whole.items() if extent.low < extent.high}
    absolute = quantize.method == "entropy"
    counts = _histograms(proto, open_, items, absolute=absolute)
    if absolute:
        return {**whole, **{n: _clip(open_[n], entropy_threshold(h)) for n, h in counts.items()}}
    share = quantize.percentile / 100
    return {**whole, **{n: percentile_extent(open_[n], h, share) for n, h in counts.items()}}


def _unusable(name: str, extent: Extent) -> ExportError:
    if extent.low > extent.high:
        return ExportError(
            "there is no item to calibrate with",
            hint="name files under calibration.samples",
            code="quantize",
        )
    message = f"value '{name}' is not finite on the calibration items: {extent.low}, {extent.high}"
    hint = "look at the items, or keep its node out by quantize.exclude"
    return ExportError(message, hint=hint, code="quantize")


def _histograms(
    proto: onnx.ModelProto, ranges: dict[str, Extent], items: Items, *, absolute: bool
) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS) for name in ranges}
    if not ranges:
        return counts
    for found in values(proto, list(ranges), items()):
        for name, array in found.items():
            counts[name] += _count(array, ranges[name], absolute=absolute)
    return counts


def _count(array: Array, extent: Extent, *, absolute: bool) -> NDArray[Any]:
    low, high = (0.0, _magnitude(extent)) if absolute else (extent.low, extent.high)
    numbers: NDArray[np.float32] = np.asarray(array, np.float32)
    placed = np.abs(numbers) if absolute else numbers - np.float32(low)
    bins = (placed * np.float32(BINS / (high - low))).astype(np.int64)
    # Five times as fast as np.histogram; the clip takes in the right end, and rounding.
    return np.bincount(np.clip(bins, 0, BINS - 1).ravel(), minlength=BINS)


def _magnitude(extent: Extent) -> float:
    return max(abs(extent.low), abs(extent.high))


def _clip(extent: Extent, share: float) -> Extent:
    """The extent cut at a share of its magnitude on both sides."""
    limit = share * _magnitude(extent)
    return Extent(max(extent.low, -limit), min(extent.high, limit))


def percentile_extent(extent: Extent, counts: Histogram, share: float) -> Extent:
    """The range that covers a share of the values; as much is cut off on either side.

    Args:
        extent: where the histogram begins and ends.
        counts: bins of equal width.
        share: between 0.5 and 1.
    """
    edges = np.linspace(extent.low, extent.high, counts.size + 1)
    reached = np.cumsum(counts) / counts.sum()
    cut = (1 - share) / 2
    first = int(np.searchsorted(reached, cut, side="right"))
    last = int(np.searchsorted(reached, 1 - cut, side="left"))
    return Extent(float(edges[first]), float(edges[min(last, counts.size - 1) + 1]))


def entropy_threshold(counts: Histogram) -> float:
    """Where to cut off magnitudes so that 8 bits keep most of the information, as a share.

    The threshold with the least Kullback-Leibler divergence between the clipped histogram and the
    same in 128 levels: TensorRT's entropy calibration (S. Migacz, "8-bit Inference with TensorRT",
    GTC 2017). As in NVIDIA's pytorch-quantization, the first bin, full of ReLU's zeros, counts like
    its neighbour.

    Args:
        counts: histogram of magnitudes from 0, bins of equal width.
    """
    if counts.sum() < FEWEST:
        return 1.0
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    ends = range(LEVELS, bins.size + 1, STRIDE)
    losses = [_divergence(bins, end) for end in ends]
    return ends[int(np.argmin(losses))] / bins.size


def _divergence(bins: Histogram, end: int) -> float:
    """KL divergence of the first ``end`` bins in 128 levels from them with the rest put on top."""
    kept = bins[:end]
    clipped = kept.copy()
    clipped[-1] += bins[end:].sum()
    level = np.arange(end) * LEVELS // end
    there = kept > 0
    sums = np.bincount(level, kept, LEVELS)
    filled = np.bincount(level, there, LEVELS)
    spread = np.where(there, sums[level] / np.maximum(filled[level], 1), 0.0)
    clipped, spread = np.maximum(clipped, SMOOTH), np.maximum(spread, SMOOTH)
    p, q = clipped / clipped.sum(), spread / spread.sum()
    return float(np.sum(p * np.log(p / q)))
