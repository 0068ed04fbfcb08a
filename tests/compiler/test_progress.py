"""What a person sees while a build runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from compiler.progress import Reporter


def _reporter(*, quiet: bool = False) -> tuple[Reporter, io.StringIO]:
    told = io.StringIO()
    return Reporter(Console(file=told, width=200, highlight=False), quiet=quiet), told


def test_a_stage_is_one_line_when_it_ends_with_its_time_or_cached() -> None:
    reporter, told = _reporter()
    with reporter.step("export"):
        pass
    with reporter.step("parity") as step:
        step.cached, step.detail = True, "[x, y]"
    first, second = told.getvalue().splitlines()
    assert first.split() == ["✓", "export", "0.0", "s"]
    assert second.split() == ["=", "parity", "cached", "[x,", "y]"]
    assert [step.name for step in reporter.steps] == ["export", "parity"]


def test_a_stage_that_fails_is_not_said_to_be_done() -> None:
    reporter, told = _reporter()
    with pytest.raises(ValueError, match="no"), reporter.step("export"):
        raise ValueError("no")
    assert (told.getvalue(), reporter.steps) == ("", [])


def test_quiet_keeps_the_stages_and_prints_nothing() -> None:
    reporter, told = _reporter(quiet=True)
    with reporter.step("export"), reporter.download("file", 10, 0) as advance:
        advance(10)
    reporter.note("look")
    assert told.getvalue() == ""
    assert len(reporter.steps) == 1


def test_a_download_counts_on_from_where_it_was_resumed() -> None:
    reporter, told = _reporter()
    with reporter.download("file[1]", 100, 50) as advance:
        for _ in range(5):
            advance(10)
    assert told.getvalue().split() == [
        word for percent in (60, 70, 80, 90, 100) for word in ("file[1]:", str(percent), "%")
    ]


def test_a_download_of_unknown_size_prints_no_percentages() -> None:
    reporter, told = _reporter()
    with reporter.download("file", None, 0) as advance:
        advance(10)
    assert told.getvalue() == ""


def test_on_a_terminal_a_bar_and_a_spinner_are_drawn() -> None:
    told = io.StringIO()
    reporter = Reporter(Console(file=told, width=200, force_terminal=True))
    with reporter.step("export"), reporter.step("weights"):
        pass
    with reporter.download("file", 10, 0) as advance:
        advance(10)
    assert "export …" in told.getvalue()
    assert "file" in told.getvalue()
