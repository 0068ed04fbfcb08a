"""``docs/engines.md``: every engine has its section, and every option of it its row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specs.engines import EngineLanguage, engine_languages

TEXT = (Path(__file__).parent.parent / "docs" / "engines.md").read_text("utf-8")
SECTION = re.compile(r"^## [^\n]*\(`(\w+)`\)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = {match[1]: match[2] for match in SECTION.finditer(TEXT)}
ENGINES = list(engine_languages().values())


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_option_of_an_engine_has_its_row(engine: type[EngineLanguage]) -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", SECTIONS[engine.name], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == set(engine.Options.model_fields)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_the_first_table_tells_devices_and_precisions(engine: type[EngineLanguage]) -> None:
    row = re.search(rf"^\| `{engine.name}` \| (.*?) \| (.*?) \|", TEXT, re.MULTILINE)
    assert row is not None
    assert row[1].split(", ") == list(engine.devices)
    assert row[2].split(", ") == list(engine.precisions)
