"""What a person is told of an application that did not start, or will not be changed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from specs.errors import ServeError

pytest.importorskip("ray")

from serve.cluster import LAST_LINES, check_ingress, last_of

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


def served(**replicas: int) -> dict[str, SimpleNamespace]:
    """Deployments as Ray's status tells them."""
    return {name: SimpleNamespace(replica_states={"RUNNING": n}) for name, n in replicas.items()}


@pytest.mark.parametrize(
    ("now", "ingress", "said"),
    [
        (served(digits=1), "ingress", "between one model and several"),
        (served(ingress=1, digits=1, line=1), "digits", "between one model and several"),
        (served(digits=1), "numbers", "of its only model's name"),
    ],
)
def test_an_application_that_would_have_nobody_to_take_requests_is_refused(
    now: dict[str, SimpleNamespace], ingress: str, said: str
) -> None:
    with pytest.raises(ServeError, match="gate: true") as caught:
        check_ingress("app", now, ingress)
    assert said in caught.value.message
    assert caught.value.code == "ingress"


@pytest.mark.parametrize(
    ("now", "ingress"),
    [
        (served(digits=1), "digits"),
        (served(ingress=1, digits=1), "ingress"),
        (served(digits=0), "ingress"),  # it failed to start, and serves nobody
        ({}, "digits"),
    ],
)
def test_what_takes_no_request_away_is_deployed(
    now: dict[str, SimpleNamespace], ingress: str
) -> None:
    check_ingress("app", now, ingress)
