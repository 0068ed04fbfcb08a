"""Which files an export depends on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiler.reads import source_files
from specs.schema import Spec

Make = Callable[..., dict[str, Any]]


def _names(data: dict[str, Any], folder: Path) -> set[str]:
    return {name for name, _ in source_files(Spec.model_validate(data), folder)}


def test_a_python_source_reads_the_python_files_beside_and_below_it(
    spec: Make, tmp_path: Path
) -> None:
    for name in ("block.py", "parts/deep.py", "notes.txt", ".venv/lib/x.py", "site-packages/y.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert _names(spec(), tmp_path) == {"net.py", "block.py", "parts/deep.py"}


def test_what_was_built_beside_a_source_is_no_part_of_it(spec: Make, tmp_path: Path) -> None:
    for folder, marker in (("build/net", "manifest.json"), ("cache/stages/x", "stage.json")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "processing.py").touch()
        (tmp_path / folder / marker).touch()
    assert _names(spec(), tmp_path) == {"net.py"}


def test_translations_of_ones_own_are_read_too(spec: Make, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table.py").touch()
    (tmp_path / "net.pt2").touch()
    export = {"exporter": "dynamo", "custom_translations": "tables/table.py:TABLE"}
    data = spec(model={"exported_program": "net.pt2"}, export=export)
    assert {"net.pt2", "tables/table.py"} <= _names(data, tmp_path)


def test_a_file_that_is_not_there_is_left_to_whoever_loads_it(spec: Make, tmp_path: Path) -> None:
    data = spec(model={"onnx": "lost.onnx"}, export=None)
    assert _names(data, tmp_path) == set()


def test_a_folder_that_goes_away_meanwhile_is_no_error(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    scan = os.scandir

    def vanish(path: str | Path) -> Any:
        if Path(path).name == "parts":
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", vanish)
    assert _names(spec(), tmp_path) == {"net.py"}
