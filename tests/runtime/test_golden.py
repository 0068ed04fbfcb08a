"""Golden tensors as a serving node reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import compiler.cases
import compiler.compare
import compiler.golden
import runtime.compare
import runtime.golden
from compiler.golden import write_golden
from runtime.golden import Case, Golden, batch_of, read_golden
from runtime.tensors import Tensors
from specs.errors import ArtifactError

Damage = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One written case."""
    inputs: Tensors = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    outputs: Tensors = {"y": np.array([[np.nan], [np.inf], [1]], np.float32)}
    write_golden([Golden(Case("samples", inputs, (1, 4)), outputs)], tmp_path)
    return tmp_path


def test_what_was_written_is_read_back(folder: Path) -> None:
    (golden,) = read_golden(folder)
    assert (golden.case.name, golden.case.batches) == ("samples", (1, 4))
    assert golden.case.inputs["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(golden.outputs["y"], [[np.nan], [np.inf], [1]])


def test_a_batch_repeats_the_items_in_order_from_the_shift_on() -> None:
    items: Tensors = {"x": np.array([10, 20, 30])}
    assert batch_of(items, 5, 1)["x"].tolist() == [20, 30, 10, 20, 30]


DAMAGES: list[Damage] = [
    lambda folder: (folder / "cases.json").unlink(),
    lambda folder: (folder / "cases.json").write_text("[{"),
    lambda folder: (folder / "cases.json").write_text(json.dumps([{"name": "a"}])),
    lambda folder: (folder / "cases.json").write_text("[1]"),
    lambda folder: (folder / "case0.npz").write_bytes(b"PK\x03\x04 cut off"),
    lambda folder: (folder / "case0.npz").unlink(),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_golden_tensors_that_cannot_be_read_are_the_artifacts_fault(
    folder: Path, damage: Damage
) -> None:
    damage(folder)
    with pytest.raises(ArtifactError) as caught:
        list(read_golden(folder))
    assert caught.value.code == "golden_unreadable"
    assert "build" in caught.value.hint


def test_the_builds_names_are_those_of_the_runtime() -> None:
    assert compiler.cases.Case is runtime.golden.Case
    assert compiler.cases.batch_of is runtime.golden.batch_of
    assert compiler.golden.Golden is runtime.golden.Golden
    assert compiler.golden.read_golden is runtime.golden.read_golden
    assert compiler.compare.Tolerance is runtime.compare.Tolerance
    assert compiler.compare.worst_gap is runtime.compare.worst_gap


def test_reading_and_comparing_needs_numpy_alone() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "ray")
    code = (
        "import sys, runtime.golden, runtime.compare, compiler.verify_cli;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
