"""Finds a small set of nodes that must stay in float32, by halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["TooManyRuns", "smallest"]

Holds = Callable[[frozenset[str]], bool]


class TooManyRuns(Exception):  # noqa: N818 - a signal between two modules of this package
    """The bound on runs was met.

    Args:
        found: the nodes found so far.
    """

    def __init__(self, found: Sequence[str]) -> None:
        super().__init__(len(found))
        self.found = tuple(found)


def smallest(nodes: Sequence[str], holds: Holds, runs: int) -> tuple[str, ...]:
    """Nodes that, kept, make the graph hold; each of them is needed beside the others.

    The last needed node ends the shortest prefix of ``nodes`` that holds; it is found by
    bisection, then the next one before it, beside those found. Neighbours are likely to be
    needed together, so later searches start at the last find and double their step.

    Args:
        nodes: in the graph's order; keeping all of them holds, keeping none does not.
        holds: whether the graph holds with a set of nodes kept.
        runs: how often ``holds`` may be asked.

    Raises:
        TooManyRuns: it was asked so often, and no set was found.
    """
    found: list[str] = []
    left = runs

    def prefix_holds(end: int) -> bool:
        nonlocal left
        if left == 0:
            raise TooManyRuns(found)
        left -= 1
        return holds(frozenset(nodes[:end]) | frozenset(found))

    high, step = len(nodes), len(nodes)
    while high and (not found or not prefix_holds(0)):
        high = _shortest(high, step, prefix_holds)
        found.append(nodes[high - 1])
        high, step = high - 1, 1
    return tuple(name for name in nodes if name in set(found))


def _shortest(high: int, step: int, prefix_holds: Callable[[int], bool]) -> int:
    """The shortest prefix that holds, where that of ``high`` does and the empty one does not."""
    low = max(high - step, 0)
    while low and prefix_holds(low):
        high, step = low, step * 2
        low = max(high - step, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if prefix_holds(middle) else (middle, high)
    return high
