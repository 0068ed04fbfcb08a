"""The search for the nodes that must stay in fp32."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.precision._search import TooManyRuns, smallest

NODES = [f"n{number}" for number in range(200)]


def _asked(needed: set[str]) -> tuple[tuple[str, ...], int]:
    runs = 0

    def holds(kept: frozenset[str]) -> bool:
        nonlocal runs
        runs += 1
        return needed <= kept

    return smallest(NODES, holds, 1000), runs


@settings(max_examples=50, deadline=None)
@given(st.sets(st.sampled_from(NODES), min_size=1, max_size=8))
def test_exactly_the_needed_nodes_are_found_in_the_graphs_order(needed: set[str]) -> None:
    found, _ = _asked(needed)
    assert set(found) == needed
    assert list(found) == sorted(found, key=NODES.index)


def test_one_node_among_two_hundred_takes_nine_runs() -> None:
    assert _asked({"n57"})[1] <= 9


def test_neighbours_take_two_or_three_runs_each() -> None:
    assert _asked({f"n{number}" for number in range(60, 70)})[1] <= 9 + 9 * 3


def test_the_bound_on_runs_is_kept_and_tells_what_was_found() -> None:
    runs = 0

    def holds(kept: frozenset[str]) -> bool:
        nonlocal runs
        runs += 1
        return {"n10", "n100", "n190"} <= kept

    with pytest.raises(TooManyRuns) as caught:
        smallest(NODES, holds, 12)
    assert (runs, caught.value.found) == (12, ("n190",))
