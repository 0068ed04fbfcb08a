"""JUnit and SARIF reports: valid, complete, and never calling passed what was not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from click.testing import CliRunner

from specs.commands import validate
from specs.errors import DeploycError, Problem, SpecError
from specs.reports import Outcome, junit, problems_of, sarif, write_report

PROBLEM = Problem("specs/a.yaml", 3, 7, "export.opset", "out_of_range", "found 99", "take 18")
PLAIN = Problem("specs/a.yaml", 0, 0, "", "parity", "differs", "")
OUTCOMES = [
    Outcome("weights", "passed", 0.25),
    Outcome("export", "cached", 0.5),
    Outcome("parity", "failed", 1.0, problems=(PROBLEM, PLAIN)),
    Outcome("engine", "not_run", reason="it needs a GPU"),
]

TEXT: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "minLength": 1}},
}
RULE = {"id": {"type": "string"}, "shortDescription": TEXT, "fullDescription": TEXT, "help": TEXT}
WHOLE = {"type": "integer", "minimum": 1}
RESULT: dict[str, Any] = {
    "type": "object",
    "required": ["message", "ruleId", "level", "locations"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string", "minLength": 1},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": TEXT,
        "locations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["physicalLocation"],
                "additionalProperties": False,
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "required": ["artifactLocation", "region"],
                        "additionalProperties": False,
                        "properties": {
                            "artifactLocation": {
                                "type": "object",
                                "required": ["uri"],
                                "additionalProperties": False,
                                "properties": {
                                    "uri": {"type": "string", "pattern": "^[^ \\\\]+$"},
                                    "uriBaseId": {"const": "%SRCROOT%"},
                                },
                            },
                            "region": {
                                "type": "object",
                                "required": ["startLine"],
                                "additionalProperties": False,
                                "properties": {"startLine": WHOLE, "startColumn": WHOLE},
                            },
                        },
                    }
                },
            },
        },
    },
}
RUN: dict[str, Any] = {
    "type": "object",
    "required": ["tool", "results"],
    "additionalProperties": False,
    "properties": {
        "tool": {
            "type": "object",
            "required": ["driver"],
            "additionalProperties": False,
            "properties": {
                "driver": {
                    "type": "object",
                    "required": ["name", "rules"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"type": "string"},
                        "semanticVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                        "rules": {
                            "type": "array",
                            "uniqueItems": True,
                            "items": {
                                "type": "object",
                                "required": [*RULE],
                                "additionalProperties": False,
                                "properties": RULE,
                            },
                        },
                    },
                }
            },
        },
        "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        "invocations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["executionSuccessful"],
                "additionalProperties": False,
                "properties": {
                    "executionSuccessful": {"type": "boolean"},
                    "toolExecutionNotifications": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "additionalProperties": False,
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": TEXT,
                            },
                        },
                    },
                },
            },
        },
        "results": {"type": "array", "items": RESULT},
    },
}
SARIF: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "minItems": 1, "items": RUN},
    },
}
"""What SARIF 2.1.0 (OASIS, sections 3.13 to 3.58) says of the properties that are written,
and which of them GitHub's code scanning asks for."""


def _run(outcomes: list[Outcome]) -> dict[str, Any]:
    log = json.loads(sarif(outcomes))
    jsonschema.validate(log, SARIF)
    (run,) = log["runs"]
    return run


def _place(run: dict[str, Any]) -> dict[str, Any]:
    return run["results"][0]["locations"][0]["physicalLocation"]


def test_junit_counts_every_outcome_once() -> None:
    root = ET.fromstring(junit("build", OUTCOMES))  # noqa: S314 - our own text
    (suite,) = root
    counts = {key: suite.attrib[key] for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "1"}
    assert suite.attrib["time"] == "1.750"
    assert [case.attrib["name"] for case in suite] == ["weights", "export", "parity", "engine"]


def test_junit_tells_a_failure_with_its_places_and_hints() -> None:
    root = ET.fromstring(junit("build", OUTCOMES))  # noqa: S314 - our own text
    (failure,) = root.iter("failure")
    assert failure.attrib == {"message": "found 99", "type": "out_of_range"}
    assert "specs/a.yaml:3:7: export.opset: found 99 [out_of_range]" in (failure.text or "")
    assert "hint: take 18" in (failure.text or "")


def test_junit_tells_what_was_not_run_as_skipped_with_the_reason() -> None:
    root = ET.fromstring(junit("build", OUTCOMES))  # noqa: S314 - our own text
    (skipped,) = root.iter("skipped")
    assert skipped.attrib["message"] == "not run: it needs a GPU"
    (cached,) = root.iter("system-out")
    assert (cached.text or "").startswith("cached")


def test_junit_stays_xml_whatever_a_message_holds() -> None:
    odd = Problem("a\x00.yaml", 1, 1, "", "x", "\x1b[31m <&> ]]> \ud800 \ufffe é", "")
    text = junit('su"ite<', [Outcome("na\x07me", "failed", problems=(odd,))])
    root = ET.fromstring(text.encode())  # noqa: S314 - our own text
    (failure,) = root.iter("failure")
    assert failure.attrib["message"] == "\ufffd[31m <&> ]]> \ufffd \ufffd é"


def test_sarif_has_a_result_for_each_problem_with_its_rule() -> None:
    run = _run(OUTCOMES)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["out_of_range", "parity"]
    assert [rules[result["ruleIndex"]] for result in run["results"]] == rules
    assert [result["ruleId"] for result in run["results"]] == rules
    assert run["results"][0]["message"]["text"] == "export.opset: found 99\nhint: take 18"


def test_sarif_places_a_problem_where_the_spec_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    place = _place(_run(OUTCOMES))
    assert place["artifactLocation"] == {"uri": "specs/a.yaml", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 3, "startColumn": 7}


def test_sarif_lays_what_has_no_place_to_the_file_s_first_line() -> None:
    place = _place(_run([Outcome("a", "failed", problems=(PLAIN,))]))
    assert place["region"] == {"startLine": 1}


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("a b.yaml", "a%20b.yaml"),
        ("é/ü.yaml", "%C3%A9/%C3%BC.yaml"),
        ("x/../a.yaml", "a.yaml"),
        ("../b.yaml", "file:///b.yaml"),
        ("/b.yaml", "file:///b.yaml"),
    ],
)
def test_sarif_names_files_from_where_it_was_run(
    file: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    problem = Problem(file, 0, 0, "", "x", "y")
    found = _place(_run([Outcome("a", "failed", problems=(problem,))]))["artifactLocation"]["uri"]
    expected = uri if file != "../b.yaml" else (tmp_path.parent / "b.yaml").as_uri()
    assert found == expected


def test_sarif_tells_what_was_not_run_as_a_note_and_never_as_a_result() -> None:
    run = _run(OUTCOMES[3:])
    assert run["results"] == []
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note == {"level": "note", "message": {"text": "engine: not run: it needs a GPU"}}


def test_an_error_without_a_place_is_laid_to_the_spec() -> None:
    error = DeploycError("differs", hint="look", code="parity")
    assert problems_of(error, Path("a.yaml")) == (
        Problem("a.yaml", 0, 0, "", "parity", "differs", "look"),
    )
    assert problems_of(SpecError.of(PROBLEM, PLAIN), Path("b.yaml")) == (PROBLEM, PLAIN)


def test_a_report_makes_the_folders_it_needs_and_says_what_the_disk_refuses(
    tmp_path: Path,
) -> None:
    write_report(tmp_path / "a" / "b.xml", "text")
    assert (tmp_path / "a" / "b.xml").read_text() == "text"
    with pytest.raises(DeploycError, match="cannot be written") as caught:
        write_report(tmp_path / "a" / "b.xml" / "c", "text")
    assert caught.value.code == "output"


def test_validate_writes_both_reports(spec_text: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(spec_text())
    (tmp_path / "bad.yaml").write_text(spec_text(export="{opset: 99}"))
    reports = [tmp_path / "out" / "j.xml", tmp_path / "out" / "s.sarif"]
    options = ["--junit", str(reports[0]), "--sarif", str(reports[1])]
    result = CliRunner().invoke(validate, [str(tmp_path), *options])
    assert result.exit_code == 1
    root = ET.fromstring(reports[0].read_text())  # noqa: S314 - our own text
    assert [len(case) for case in root.iter("testcase")] == [1, 0]
    log = json.loads(reports[1].read_text())
    jsonschema.validate(log, SARIF)
    (found,) = log["runs"][0]["results"]
    assert found["locations"][0]["physicalLocation"]["region"]["startLine"] == 8
