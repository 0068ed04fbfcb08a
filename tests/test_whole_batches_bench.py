"""``bench/whole_batches.py``: all ways end with the same batch, and its table."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from tests.bench_modules import bench_modules


@pytest.fixture
def bench() -> Generator[Any, None, None]:
    """The script."""
    with bench_modules(["whole_batches"], ["processing"]) as found:
        yield found.whole_batches


@pytest.mark.parametrize(("side", "batch"), [(8, 1), (9, 3)])
def test_all_ways_give_the_same_batch(bench: Any, side: int, batch: int) -> None:
    found = [run(b"") for run in bench.ways(side, batch).values()]
    assert found[0].shape == (batch, 3, side, side)
    assert found[0].dtype == np.float32
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_a_line_tells_times_of_one_item_and_the_ratio_with_its_spread(bench: Any) -> None:
    row = bench.measure(8, 4, seconds=0.05)
    for middle, low, high in (row.placed, row.whole):
        assert 0 < low <= middle <= high
    assert row.items > 0
    told = bench.Row(8, 4, 5e-6, (1, 0.9, 1.25), (2.5, 2.4, 2.75)).line()
    assert told == "| 8x8 | 4 | 5.0 | **1.00** (0.90 to 1.25) | **2.50** (2.40 to 2.75) |"


def test_the_committed_table_has_every_size_and_batch(bench: Any) -> None:
    text = bench.TABLE.read_text("utf-8")
    for side in bench.SIDES:
        for batch in bench.BATCHES:
            assert f"| {side}x{side} | {batch} |" in text
