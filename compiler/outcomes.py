"""From what a build did to what a continuous-integration service is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compiler.progress import Reporter
from specs.errors import DeploycError, SpecError
from specs.reports import Outcome, junit, problems_of, sarif, write_report

__all__ = ["check_data", "check_lines", "error_data", "outcomes_of", "write_reports"]


def outcomes_of(reporter: Reporter, error: DeploycError | None, spec: Path) -> list[Outcome]:
    """Every stage of a build, and the one that ended it.

    Args:
        reporter: the build's.
        error: what ended the build; None where it is done.
        spec: the spec's file, to which an error without a place is laid.
    """
    found = [
        Outcome(step.name, "cached" if step.cached else "passed", step.seconds)
        for step in reporter.steps
    ]
    if error is None:
        return found
    broken = reporter.broken
    name, seconds = (broken.name, broken.seconds) if broken else ("spec", 0.0)
    return [*found, Outcome(name, "failed", seconds, problems=problems_of(error, spec))]


def write_reports(
    suite: str, outcomes: Sequence[Outcome], junit_file: Path | None, sarif_file: Path | None
) -> None:
    """Write the reports that were asked for; ``DeploycError`` where the disk refuses."""
    if junit_file is not None:
        write_report(junit_file, junit(suite, outcomes))
    if sarif_file is not None:
        write_report(sarif_file, sarif(outcomes))


def error_data(error: DeploycError) -> dict[str, Any]:
    """An error as ``--json`` prints it, with the place of every problem of a spec."""
    data: dict[str, Any] = error.to_dict()
    if isinstance(error, SpecError) and error.problems:
        data["problems"] = [asdict(problem) for problem in error.problems]
    return {"error": data}


def check_lines(spec: Path, outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes of a check for a person, the sum last."""
    lines = [f"{_WORDS[each.state]:<8} {each.name}{_why(each)}" for each in outcomes]
    return [*lines, f"{spec}: {_sum(outcomes)}"]


_WORDS = {"passed": "passed", "cached": "passed", "failed": "FAILED", "not_run": "not run"}


def _why(outcome: Outcome) -> str:
    if outcome.state == "failed" and outcome.problems:
        return f": {' '.join(outcome.problems[0].message.split())}"
    return f": {outcome.reason}" if outcome.reason else ""


def _sum(outcomes: Sequence[Outcome]) -> str:
    counts = {
        word: sum(_WORDS[each.state].lower() == word for each in outcomes)
        for word in ("passed", "failed", "not run")
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def check_data(spec: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The outcomes of a check as JSON data."""
    return {
        "spec": str(spec),
        "ok": all(each.state != "failed" for each in outcomes),
        "steps": [
            {
                "step": each.name,
                "state": each.state,
                "seconds": round(each.seconds, 3),
                "reason": each.reason,
                "problems": [asdict(problem) for problem in each.problems],
            }
            for each in outcomes
        ],
    }
