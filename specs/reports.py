"""What a continuous-integration service reads: JUnit XML and SARIF 2.1.0.

A step that was not run is never told as passed: JUnit has it as skipped, SARIF as a notification
of the run, since only failures are results.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any, Literal
from urllib.parse import quote
from xml.etree import ElementTree as ET

from specs.errors import DeploycError, Problem, SpecError

__all__ = ["Outcome", "State", "junit", "problems_of", "sarif", "write_report"]

State = Literal["passed", "cached", "failed", "not_run"]
"""``cached``: passed before, on the very same inputs."""

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, section 2.2."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step, or one file, fared.

    Args:
        name: the step's or file's name.
        state: what became of it.
        seconds: how long it took.
        reason: why it was not run; "" otherwise.
        problems: what is at fault, where it failed.
    """

    name: str
    state: State
    seconds: float = 0.0
    reason: str = ""
    problems: tuple[Problem, ...] = ()


def problems_of(error: DeploycError, file: Path) -> tuple[Problem, ...]:
    """The problems of an error; one that names no place is laid to the spec in ``file``."""
    if isinstance(error, SpecError) and error.problems:
        return error.problems
    return (Problem(str(file), 0, 0, "", error.code, error.message, error.hint),)


def junit(suite: str, outcomes: Sequence[Outcome]) -> str:
    """JUnit XML with one test case per outcome, as Jenkins, GitLab and GitHub's actions read it.

    Args:
        suite: the name of the test suite.
        outcomes: in the order in which they are listed.
    """
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(each.state == "failed" for each in outcomes)),
        "errors": "0",
        "skipped": str(sum(each.state == "not_run" for each in outcomes)),
        "time": f"{sum(each.seconds for each in outcomes):.3f}",
    }
    root = ET.Element("testsuites", {"name": "deployc", **counts})
    element = ET.SubElement(root, "testsuite", {"name": _xml(suite), **counts})
    for outcome in outcomes:
        _case(element, suite, outcome)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(parent: ET.Element, suite: str, outcome: Outcome) -> None:
    given = {"name": outcome.name, "classname": suite, "time": f"{outcome.seconds:.3f}"}
    case = ET.SubElement(parent, "testcase", {key: _xml(text) for key, text in given.items()})
    if outcome.state == "not_run":
        ET.SubElement(case, "skipped", {"message": _xml(f"not run: {outcome.reason}")})
    if outcome.state == "cached":
        ET.SubElement(case, "system-out").text = "cached: passed before, on the same inputs"
    if outcome.state == "failed":
        first = outcome.problems[0] if outcome.problems else None
        about = {"message": first.message, "type": first.code} if first else {"type": "error"}
        failure = ET.SubElement(case, "failure", {key: _xml(text) for key, text in about.items()})
        failure.text = _xml("\n".join(map(str, outcome.problems)))


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def sarif(outcomes: Sequence[Outcome]) -> str:
    """SARIF 2.1.0 with one result per problem, as GitHub's code scanning reads it."""
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    codes = sorted({problem.code for problem in problems})
    run = {
        "tool": {"driver": _driver(codes)},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(outcomes)],
        "results": [_result(problem, codes.index(problem.code)) for problem in problems],
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _driver(codes: Iterable[str]) -> dict[str, Any]:
    return {"name": "deployc", **_own_version(), "rules": [_rule(code) for code in codes]}


def _rule(code: str) -> dict[str, Any]:
    """GitHub asks for all three texts; what to do depends on the case, and stands in its result."""
    words = {"text": f"deployc: {code.replace('_', ' ')}"}
    help_text = {"text": "The message says what was found and expected, the hint what to do."}
    return {"id": code, "shortDescription": words, "fullDescription": words, "help": help_text}


def _own_version() -> dict[str, str]:
    try:
        return {"semanticVersion": version("deployc")}
    except PackageNotFoundError:  # run from a source tree that is not installed
        return {}


def _invocation(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    told = [
        {"level": "note", "message": {"text": f"{each.name}: not run: {each.reason}"}}
        for each in outcomes
        if each.state == "not_run"
    ]
    return {"executionSuccessful": True, "toolExecutionNotifications": told}


def _result(problem: Problem, rule: int) -> dict[str, Any]:
    where = f"{problem.path}: " if problem.path else ""
    hint = f"\nhint: {problem.hint}" if problem.hint else ""
    return {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": f"{where}{problem.message}{hint}"},
        "locations": [{"physicalLocation": _place(problem)}],
    }


def _place(problem: Problem) -> dict[str, Any]:
    """Line 1 stands for the whole file: GitHub's code scanning takes no result without a line."""
    region = {"startLine": problem.line or 1}
    if problem.line and problem.column:
        region["startColumn"] = problem.column
    return {"artifactLocation": _location(problem.file), "region": region}


def _location(name: str) -> dict[str, str]:
    """Relative to where the command was run, which in CI is the root of the repository."""
    path, here = Path(os.path.abspath(name)), Path.cwd()  # noqa: PTH100 - it resolves `..`, too
    if path.is_relative_to(here):
        return {"uri": _quoted(path.relative_to(here)), "uriBaseId": "%SRCROOT%"}
    return {"uri": path.as_uri()}


def _quoted(path: PurePath) -> str:
    return quote(path.as_posix())


def write_report(file: Path, text: str) -> None:
    """Write a report, with folders where they lack.

    Raises:
        DeploycError: the disk refuses (``output``).
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{file} cannot be written: {reason}"
        raise DeploycError(message, hint="name another place", code="output") from error
