"""Batches: stacked, cut, filled up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.tensors import Tensors, chunks, group_by_shape, pad, rows, stack, unstack


def _item(number: int, width: int = 2) -> Tensors:
    return {"x": np.full(width, number), "y": np.array(number)}


def test_what_was_stacked_is_unstacked_in_order() -> None:
    batch = stack([_item(number) for number in range(3)])
    assert (rows(batch), batch["x"].shape, batch["y"].shape) == (3, (3, 2), (3,))
    assert [int(item["y"]) for item in unstack(batch)] == [0, 1, 2]


def test_a_batch_is_filled_up_with_its_last_item_and_never_cut() -> None:
    batch = stack([_item(1), _item(2)])
    assert pad(batch, 4)["y"].tolist() == [1, 2, 2, 2]
    assert pad(batch, 2) is batch
    assert pad(batch, 1) is batch


@given(st.integers(0, 100), st.integers(1, 20))
def test_chunks_cover_everything_once_in_order_and_are_never_too_large(
    count: int, size: int
) -> None:
    parts = list(chunks(count, size))
    assert [index for part in parts for index in range(count)[part]] == list(range(count))
    assert all(0 < part.stop - part.start <= size for part in parts)


def test_items_are_grouped_by_shape_in_order_of_their_first() -> None:
    items = [_item(0, 2), _item(1, 3), _item(2, 2)]
    assert group_by_shape(items) == [[0, 2], [1]]
    assert group_by_shape([]) == []
