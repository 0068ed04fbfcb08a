"""Ranges from calibration items."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compiler.precision._calibrate import calibrated, entropy_threshold, percentile_extent
from compiler.precision._taps import Extent
from specs.errors import ExportError
from specs.precision import Quantize


@pytest.fixture
def ranges(conversion: Callable[..., Any]) -> Callable[..., dict[str, Extent]]:
    """The ranges of ``y = x - 1`` and of ``x`` over items."""

    def run(items: list[Any], **words: Any) -> dict[str, Extent]:
        node = helper.make_node("Sub", ["x", "one"], ["y"])
        shape = ["batch", "n"]
        net = conversion([node], {"one": np.float32(1)}, {"x": shape}, {"y": shape}, [])

        def again() -> Iterator[Any]:
            return ({"x": np.atleast_2d(np.float32(item))} for item in items)

        return calibrated(onnx.load(str(net.graph)), ["x", "y"], again, Quantize(**words))

    return run


def test_minmax_takes_the_extremes_over_all_items(ranges: Callable[..., Any]) -> None:
    assert ranges([[1, 2], [-3, 0], [5, 4]]) == {"x": Extent(-3, 5), "y": Extent(-4, 4)}


def test_the_order_of_the_items_makes_no_difference(ranges: Callable[..., Any]) -> None:
    items = list(np.random.default_rng(0).standard_normal((40, 1000)))
    for method in ("minmax", "percentile", "entropy"):
        assert ranges(items, method=method) == ranges(items[::-1], method=method)


def test_a_percentile_covers_that_share_of_the_values(ranges: Callable[..., Any]) -> None:
    values = np.random.default_rng(0).standard_normal((20, 5000))
    found = ranges(list(values), method="percentile", percentile=99.0)["x"]
    inside = ((values >= found.low) & (values <= found.high)).mean()
    assert inside == pytest.approx(0.99, abs=0.002)


def test_a_percentile_cuts_nothing_off_where_the_values_end_abruptly() -> None:
    counts = np.zeros(100)
    counts[0], counts[50] = 1000, 1000
    assert percentile_extent(Extent(0, 100), counts, 0.99) == Extent(0, 51)


def test_entropy_cuts_off_outliers_and_keeps_what_minmax_keeps_without_them(
    ranges: Callable[..., Any],
) -> None:
    rng = np.random.default_rng(0)
    normal = list(rng.standard_normal((40, 5000)))
    lone = [*normal, np.append(normal[0], 100.0)[-5000:]]
    cut = ranges(lone, method="entropy")["x"]
    assert 3 < cut.high < 20
    assert ranges(lone)["x"].high == 100
    even = list(rng.uniform(-1, 1, (40, 5000)))
    assert ranges(even, method="entropy")["x"].high == pytest.approx(1, abs=0.01)


def test_entropy_keeps_everything_where_there_are_too_few_values() -> None:
    counts = np.zeros(2048)
    counts[:100], counts[-1] = 400 * np.exp(-(np.linspace(0, 3, 100) ** 2)), 1
    assert entropy_threshold(counts) == 1.0
    assert entropy_threshold(100 * counts) < 0.1


def test_empty_bins_in_between_do_not_spoil_the_entropy() -> None:
    counts = np.zeros(2048)
    counts[::2] = 1000
    assert entropy_threshold(counts) > 0.9


def test_the_zeros_of_a_relu_do_not_weigh_in_the_entropy() -> None:
    counts = np.exp(-(np.linspace(0, 5, 2048) ** 2)) * 1e6
    with_zeros = counts.copy()
    with_zeros[0] = 1e12
    assert entropy_threshold(with_zeros) == entropy_threshold(counts)


def test_one_sided_values_get_a_one_sided_range(ranges: Callable[..., Any]) -> None:
    values = np.abs(np.random.default_rng(0).standard_normal((40, 5000)))
    for method in ("percentile", "entropy"):
        assert ranges(list(values), method=method)["x"].low == pytest.approx(0, abs=0.01)


def test_a_constant_value_has_a_range_of_no_width(ranges: Callable[..., Any]) -> None:
    for method in ("minmax", "percentile", "entropy"):
        assert ranges([[1, 1]], method=method)["y"] == Extent(0, 0)


def test_no_item_at_all_is_an_error_that_names_the_field(ranges: Callable[..., Any]) -> None:
    with pytest.raises(ExportError, match="no item to calibrate with") as caught:
        ranges([])
    assert "calibration.samples" in caught.value.hint


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(ranges: Callable[..., Any], bad: float) -> None:
    with pytest.raises(ExportError, match="not finite"):
        ranges([[1, bad], [1, 2]])
