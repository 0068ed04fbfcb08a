"""The files that a spec names as samples, and their items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.samples import calibration_files
from specs.errors import SourceError
from specs.schema import Spec


def _spec(**parts: Any) -> Spec:
    return Spec.model_validate(
        {
            "version": 1,
            "name": "net",
            "model": {"onnx": "net.onnx"},
            "inputs": {"x": {"shape": ["batch", 4]}},
            "outputs": {"y": {"shape": ["batch", 3]}},
            "dynamic_axes": {"batch": {"min": 1, "max": 8}},
            **parts,
        }
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twelve files, in the order of their names."""
    paths = [tmp_path / f"{number:02}.npy" for number in range(12)]
    for path in paths:
        path.write_bytes(b"")
    return paths


def test_without_calibration_the_samples_of_verify_are_taken(
    files: list[Path], tmp_path: Path
) -> None:
    assert calibration_files(_spec(verify={"samples": "0*.npy"}), tmp_path) == files[:10]


def test_of_many_files_a_count_is_taken_evenly_over_their_names(
    files: list[Path], tmp_path: Path
) -> None:
    spec = _spec(calibration={"samples": "*.npy", "count": 4})
    assert calibration_files(spec, tmp_path) == files[::3]


def test_of_few_files_all_are_taken(files: list[Path], tmp_path: Path) -> None:
    spec = _spec(calibration={"samples": ["*.npy"]})
    assert calibration_files(spec, tmp_path) == files


def test_a_pattern_that_matches_nothing_is_told_with_its_field(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"calibration\.samples: no file matches \*\.npy"):
        calibration_files(_spec(calibration={"samples": "*.npy"}), tmp_path)
