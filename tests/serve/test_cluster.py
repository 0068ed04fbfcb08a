"""What a person is told of an application that did not start."""

from __future__ import annotations

import pytest

from specs.errors import ServeError

pytest.importorskip("ray")

from serve.cluster import LAST_LINES, last_of

TRACE = """ray::ServeReplica:a:digits.initialize() (pid=1)
  File "/x/serve/deployment.py", line 190, in __init__
    await self.model.warm_up()
"""


def test_a_refusal_is_told_without_the_trace() -> None:
    error = ServeError("a batch of 1 takes 9 ms here", hint="profile it here", code="too_slow")
    said = f"{TRACE}\n{type(error).__module__}.{type(error).__name__}: {error}\n"
    told = ["a batch of 1 takes 9 ms here", "  hint: profile it here"]
    assert last_of(["deploying", said]) == told
    assert last_of([said, said]) == told  # Ray tries three times


def test_of_another_failure_the_end_of_its_trace_is_told() -> None:
    said = TRACE * LAST_LINES + "ValueError: unforeseen"
    lines = last_of([said])
    assert (len(lines), lines[-1]) == (LAST_LINES, "ValueError: unforeseen")


def test_without_a_message_nothing_is() -> None:
    assert last_of([]) == []
