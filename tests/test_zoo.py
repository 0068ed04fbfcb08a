"""``bench/zoo.py``: its results survive a stop, and its table says what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench_modules import bench_modules


@pytest.fixture
def table() -> Any:
    """The module ``zoo_table``."""
    with bench_modules(["zoo_table"]) as found:
        yield found.zoo_table


def _result(table: Any, **parts: Any) -> Any:
    proven = {"opset": 18, "runs": 4, "max_abs": 1e-5, "excess": 0.01, "spread": 1.0}
    about = {"model": "resnet18", "kind": "classification", "parameters": 11_000_000}
    return table.Result(**{**about, "exporter": "dynamo", **proven, **parts})


def _rows(table: Any, results: list[Any], file: Path) -> list[str]:
    table.write_table(results, file)
    return [line for line in file.read_text("utf-8").splitlines() if line.startswith("| ")]


def test_a_case_that_ran_again_counts_with_its_last_result(table: Any, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    case = {"model": "a", "kind": "video", "parameters": 1, "exporter": "dynamo"}
    lines = [json.dumps({**case, "code": code}) for code in ("export", "")]
    file.write_text("\n".join(lines), "utf-8")
    assert [each.code for each in table.read_results(file)] == [""]


def test_where_nothing_has_run_there_are_no_results(table: Any, tmp_path: Path) -> None:
    assert table.read_results(tmp_path / "results.jsonl") == []


def test_a_model_counts_once_where_both_exporters_prove_it(table: Any, tmp_path: Path) -> None:
    results = [_result(table), _result(table, exporter="torchscript")]
    rows = _rows(table, results, tmp_path / "zoo.md")
    assert "| classification | 1 | 1 | 1 | 1 | 0 |" in rows


def test_agreement_of_answers_that_do_not_differ_is_no_proof(table: Any, tmp_path: Path) -> None:
    rows = _rows(table, [_result(table, spread=1e-4)], tmp_path / "zoo.md")
    assert "| classification | 1 | 0 | 0 | 0 | 0 |" in rows
    assert "| resnet18 | dynamo | hollow | hollow: answers differ by 0.0001 only | ours |" in rows


def test_a_known_cause_is_told_in_one_line_with_whose_it_is(table: Any) -> None:
    message = "AttributeError: no field with name\n '__obj_flatten__'"
    failed = _result(table, code="export", message=message)
    told = ("torch.export cannot read packed int8 weights", "torch exporter")
    assert table.cause(failed) == told


def test_a_failure_of_unknown_cause_is_ours(table: Any) -> None:
    failed = _result(table, code="engine_run", message="something\nelse")
    assert table.cause(failed) == ("engine_run: something else", "ours")


def test_a_traceback_is_counted_and_ours(table: Any, tmp_path: Path) -> None:
    results = [_result(table, code="traceback", message="KeyError: 'x'")]
    rows = _rows(table, results, tmp_path / "zoo.md")
    assert "| classification | 1 | 0 | 0 | 0 | 1 |" in rows
    assert "| resnet18 | dynamo | traceback | traceback: KeyError: 'x' | ours |" in rows
