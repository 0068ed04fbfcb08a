"""Batches: stacked, cut, filled up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.tensors import (
    Row,
    Rows,
    Tensors,
    chunks,
    group_by_shape,
    joined,
    pad,
    rows,
    side_by_side,
    stack,
    unstack,
)


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


def _block(size: int) -> Tensors:
    return stack([_item(number) for number in range(size)])


def test_rows_that_lie_side_by_side_are_stacked_without_a_copy() -> None:
    block = _block(6)
    batch = stack(unstack(block)[2:5])
    assert batch["y"].tolist() == [2, 3, 4]
    assert all(np.shares_memory(batch[name], block[name]) for name in block)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_rows_in_any_order_are_stacked_as_other_items_are(places: list[int]) -> None:
    block = _block(6)
    found = stack([Row(block, place) for place in places])
    assert found["y"].tolist() == places
    assert found["x"].tolist() == [[place, place] for place in places]


def test_what_was_added_to_rows_is_stacked_with_them() -> None:
    items = unstack(_block(3))
    for number, item in enumerate(items):
        item["z"] = np.array(10 * number)
    assert stack(items)["z"].tolist() == [0, 10, 20]
    assert list(stack(items, ["y"])) == ["y"]


def test_rows_of_two_blocks_are_copied_together() -> None:
    first, second = _block(4), _block(4)
    found = stack([*unstack(first)[:2], *unstack(second)[1:3]])
    assert found["y"].tolist() == [0, 1, 1, 2]


@given(st.permutations(range(8)))
def test_side_by_side_is_the_order_in_the_block_and_loses_nobody(order: list[int]) -> None:
    block = _block(8)
    items: list[Tensors] = [Row(block, place) for place in order]
    found = side_by_side(items, range(8))
    assert [int(items[index]["y"]) for index in found] == list(range(8))


def test_items_of_their_own_keep_their_order() -> None:
    assert side_by_side([_item(0), *unstack(_block(2))], [2, 0, 1]) == [2, 0, 1]


def test_only_the_named_arrays_decide_who_is_grouped_with_whom() -> None:
    items = [{**_item(0), "z": np.zeros(3)}, {**_item(1), "z": np.zeros(4)}]
    assert group_by_shape(items, ["x", "y"]) == [[0, 1]]
    assert group_by_shape(items) == [[0], [1]]
    mixed = [*unstack(_block(2)), _item(2), _item(3, 5)]
    assert group_by_shape(mixed, ["x", "y"]) == [[0, 1, 2], [3]]


def test_rows_are_the_items_of_a_batch_without_a_step_for_each() -> None:
    block = _block(5)
    every = Rows(block)
    assert (len(every), int(every[-1]["y"]), len(every[1:4])) == (5, 4, 3)
    assert [int(item["y"]) for item in every[1:4]] == [1, 2, 3]
    assert np.shares_memory(stack(every[1:4])["x"], block["x"])
    assert list(stack(every, ["y"])) == ["y"]
    assert group_by_shape(every) == [[0, 1, 2, 3, 4]]


def test_parts_are_joined_in_order_and_stay_rows_where_they_can() -> None:
    every = Rows(_block(5))
    again = joined([every[:2], every[2:]])
    assert isinstance(again, Rows)
    assert [int(item["y"]) for item in again] == [0, 1, 2, 3, 4]
    assert joined([every]) is every
    wide = Rows(stack([_item(7, 3)]))
    for parts in ([every, wide], [every, [_item(7)]]):
        mixed = joined(parts)
        assert not isinstance(mixed, Rows)
        assert [int(item["y"]) for item in mixed] == [0, 1, 2, 3, 4, 7]
    assert list(joined([])) == []
