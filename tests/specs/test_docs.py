"""``docs/spec.md``: its examples are valid, and no field, step or option is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from specs import precision, schema
from specs._yaml import parse
from specs.axes import AxisRange
from specs.loader import load_spec
from specs.ops import OPS
from specs.sources import SOURCES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if line.startswith("| `")
]
MODELS: tuple[type[BaseModel], ...] = (
    schema.Spec,
    schema.Weights,
    schema.StateDict,
    schema.TensorSpec,
    schema.Export,
    schema.Target,
    precision.Quantize,
    precision.Calibration,
    precision.Tolerances,
    schema.Verify,
    schema.Accuracy,
    schema.Serving,
    schema.Slo,
    schema.Replicas,
    schema.Limits,
    AxisRange,
)


def _names(cell: str) -> list[str]:
    return re.findall(r"`([a-z_0-9]+)`", cell)


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.splitlines()[0])
def test_each_example_is_a_valid_spec_or_a_valid_part_of_one(text: str, tmp_path: Path) -> None:
    for name in ("labels", "models", "samples"):
        (tmp_path / name).symlink_to(ROOT / "specs" / name)
    whole = yaml.safe_load((ROOT / "specs" / "resnet50.yaml").read_text(encoding="utf-8"))
    part: dict[Any, Any] = dict(parse(text.encode()).data)
    path = tmp_path / "spec.yaml"
    if "version" in part:
        path.write_text(text, encoding="utf-8")
    else:
        path.write_text(yaml.dump({**whole, **part}, Dumper=_Dumper), encoding="utf-8")
    load_spec(path)


class _Dumper(yaml.SafeDumper):
    """YAML in which nothing is repeated by an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def test_the_whole_example_is_there() -> None:
    assert sum(block.startswith("# yaml-language-server") for block in BLOCKS) == 1


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_has_its_row(model: type[BaseModel]) -> None:
    rows = {name for row in ROWS for name in _names(row[0])}
    fields = {info.alias or name for name, info in model.model_fields.items()}
    assert fields <= rows, f"no row for {sorted(fields - rows)}"


def _lack(rows: Iterable[list[str]], name: str, options: Iterable[str]) -> set[str]:
    """Options that the row of ``name`` does not mention."""
    # A step and a source may share a name: the row that lacks least is meant.
    found = [row for row in rows if row[0] == f"`{name}`" and len(row) == 4]
    assert found, f"no row for {name}"
    lacks = [set(options) - {o for cell in row[1:3] for o in _names(cell)} for row in found]
    return min(lacks, key=len)


@pytest.mark.parametrize("kind", [*OPS, *SOURCES], ids=lambda kind: kind.name)
def test_every_step_and_source_has_its_row_with_its_options(kind: Any) -> None:
    assert _lack(ROWS, kind.name, kind.model_fields) == set()


def test_every_argument_of_torchs_export_has_its_place() -> None:
    torch = pytest.importorskip("torch")
    import inspect

    table = TEXT.partition("`torch.onnx.export`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .*\w", table, re.MULTILINE)
    assert rows == list(inspect.signature(torch.onnx.export).parameters)


def test_the_places_in_the_spec_are_there() -> None:
    named = re.findall(r"`export\.(\w+)`", TEXT)
    assert set(named) <= set(schema.Export.model_fields)
    missing = set(schema.Export.model_fields) - set(named) - {"ir_version"}
    assert missing == set()
