"""Places in memory that is used again, for items that will ride together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from runtime.staging import BATCHES, MAX_BYTES, Staging, places_for
from runtime.tensors import Row, Tensors, stack
from specs.schema import TensorSpec

INPUTS = {"x": TensorSpec(shape=("batch", 2))}


def filled(value: float) -> Any:
    """Writes to the place that it is given."""

    def work(out: Tensors | None) -> Tensors:
        made = out["x"] if out else np.empty(2, np.float32)
        made[:] = value
        return {"x": made}

    return work


def test_items_that_come_one_after_another_are_stacked_as_they_lie() -> None:
    staging = Staging(INPUTS, 4)
    items = [staging.prepare(filled(number)) for number in range(3)]
    batch = stack(items)["x"]
    assert batch.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert all(np.shares_memory(batch, item["x"]) for item in items)


def test_what_was_made_elsewhere_is_copied_to_its_place() -> None:
    made: Tensors = {"x": np.array([3, 4], np.float32), "@geometry": np.ones(8)}
    item = Staging(INPUTS, 1).prepare(lambda _: made)
    assert isinstance(item, Row)
    assert (item["x"].tolist(), item.block["x"].tolist()) == ([3, 4], [[3, 4]])
    assert item["@geometry"].shape == (8,)


def test_an_item_keeps_its_place_as_long_as_somebody_has_it() -> None:
    staging = Staging(INPUTS, 2)
    first, second = (staging.prepare(filled(number)) for number in (1, 2))
    third = staging.prepare(filled(3))
    assert not isinstance(third, Row)
    del first
    fourth = staging.prepare(filled(4))
    assert isinstance(fourth, Row)
    assert [second["x"].tolist(), fourth["x"].tolist()] == [[2, 2], [4, 4]]


def test_an_item_that_is_not_made_leaves_its_place_free() -> None:
    staging = Staging(INPUTS, 1)

    def fail(_: Tensors | None) -> Tensors:
        raise ValueError

    for _ in range(3):
        try:
            staging.prepare(fail)
        except ValueError:
            continue
    assert isinstance(staging.prepare(filled(1)), Row)


def test_what_the_engine_would_refuse_goes_to_it_as_it_is() -> None:
    found = Staging(INPUTS, 1).prepare(lambda _: {"x": np.zeros((2, 2), np.float32)})
    assert found["x"].shape == (2, 2)
    found = Staging(INPUTS, 1).prepare(lambda _: {"x": np.zeros(2, np.float64)})
    assert found["x"].dtype == np.float64


def test_no_place_is_given_twice_by_threads_that_race() -> None:
    staging = Staging(INPUTS, 64)
    with ThreadPoolExecutor(8) as pool:
        items = list(pool.map(staging.prepare, map(filled, range(64))))
    assert sorted(item.index for item in items if isinstance(item, Row)) == list(range(64))
    assert [item["x"].tolist() for item in items] == [[n, n] for n in range(64)]


def test_there_is_room_for_a_few_batches_within_bounds_and_none_for_sizes_that_vary() -> None:
    assert places_for(INPUTS, 8) == BATCHES * 8
    large = {"x": TensorSpec(shape=("batch", 3, 2048, 2048))}
    assert places_for(large, 2) == MAX_BYTES // (4 * 3 * 2048 * 2048)
    assert places_for(large, 32) == 0
    assert places_for({"x": TensorSpec(shape=("batch", "words"))}, 8) == 0
    assert isinstance(Staging(INPUTS, 0).prepare(filled(1)), dict)
