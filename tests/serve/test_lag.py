"""How long a request waited before it was read."""

from __future__ import annotations

import pytest

from serve.lag import HEADER, MOST_S, NOTED, Lag
from serve.recent import HALVES_S, Recent

NOW = 1_800_000_000.0


def started(at: float) -> dict[str, str]:
    return {HEADER: f"t={round(1e6 * at)}"}


class Wall:
    """A clock in the test's hand."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def test_the_wait_is_what_exceeds_the_shortest_one_seen() -> None:
    lag = Lag(Wall(), noted=True)
    assert lag.seconds(started(NOW - 0.002)) == 0
    assert lag.seconds(started(NOW - 0.102)) == pytest.approx(0.1, abs=1e-5)
    assert lag.seconds(started(NOW - 0.001)) == 0


def test_a_clock_that_is_off_does_not_make_requests_old_or_young() -> None:
    lag = Lag(Wall(), noted=True)
    assert lag.seconds(started(NOW + 5)) == 0
    assert lag.seconds(started(NOW + 4.8)) == pytest.approx(0.2, abs=1e-5)


def test_a_clock_that_drifts_is_followed() -> None:
    wall = Wall()
    lag = Lag(wall, noted=True)
    lag.seconds(started(NOW))
    wall.now += 1000
    assert lag.seconds(started(wall.now - 0.06)) == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize("said", ["", "t=", "now", "t=12", "t=-1800000000000000", "1800000000"])
def test_what_cannot_be_read_is_no_wait(said: str) -> None:
    assert Lag(Wall(), noted=True).seconds({HEADER: said}) == 0
    assert Lag(Wall(), noted=True).seconds({}) == 0


def test_nobody_makes_a_request_older_than_can_be() -> None:
    lag = Lag(Wall(), noted=True)
    lag.seconds(started(NOW))
    assert lag.seconds(started(NOW - MOST_S - 1)) == 0


def test_a_clients_own_word_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTED, raising=False)
    lag = Lag(Wall())
    assert [lag.seconds(started(NOW + ahead)) for ahead in (50, 0, -3)] == [0, 0, 0]
    monkeypatch.setenv(NOTED, "1")
    lag = Lag(Wall())
    assert [lag.seconds(started(NOW - ago)) for ago in (0, 3)] == [0, pytest.approx(3, abs=1e-4)]


def test_what_is_set_aside_is_seldom_exceeded() -> None:
    recent = Recent()
    for number in range(200):
        recent.add(number / 100, 0.010 + 0.001 * (number % 5))
    assert 0.013 < recent.most(2.0) < 0.016


def test_what_nothing_is_added_to_is_forgotten() -> None:
    recent = Recent()
    for number in range(100):
        recent.add(number / 100, 1.0)
    before = recent.most(1.0)
    assert recent.most(1.0 + 11 * HALVES_S) < before / 500
