"""Accuracy over labelled samples: what is counted, and what a drop does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from compiler.accuracy import check_drop, read_labels
from specs.errors import DeploycError, ParityError, SourceError
from specs.manifest import AccuracyResult
from specs.schema import Accuracy

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]

LABELS = Accuracy(labels="labels.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,class_index\na.npy,1\n", "KeyError: 'file'"),
        ("file\na.npy\n", "KeyError: 'class_index'"),
        ("file,class_index\na.npy\n", "TypeError"),
        ("file,class_index\na.npy,one\n", "ValueError"),
        ("file,class_index\nlost.npy,1\n", "samples that are not there: lost.npy"),
        ("file,class_index\n", "no samples"),
        ("", "no samples"),
        ("file,class_index\n\xff\x00,1\n", "cannot be read as labels"),
        ('file,class_index\n"' + "a" * 200_000 + '",1\n', "field larger than field limit"),
    ],
)
def test_labels_that_cannot_be_used_are_one_clear_error(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "a.npy").touch()
    (tmp_path / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError) as caught:
        read_labels(LABELS, tmp_path)
    assert told in caught.value.message


def test_a_missing_file_of_labels_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="FileNotFoundError"):
        read_labels(LABELS, tmp_path)


def test_files_are_relative_to_the_table_and_a_byte_order_mark_is_no_column(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.npy").touch()
    (tmp_path / "labels.csv").write_text("\ufefffile,class_index\na.npy,2\n", "utf-8")
    found = read_labels(LABELS, tmp_path)
    assert [(item.file, item.index) for item in found] == [(tmp_path / "a.npy", 2)]


def test_a_drop_beyond_the_budget_is_refused_with_the_measured_figures() -> None:
    result = AccuracyResult(metric="top1", count=10, reference=9, variant=7)
    check_drop(result, Accuracy(labels="x", max_drop=0.2))
    with pytest.raises(ParityError) as caught:
        check_drop(result, Accuracy(labels="x", max_drop=0.19))
    assert caught.value.code == "accuracy_drop"
    assert "top1 fell from 9/10 to 7/10: a drop of 0.2000, allowed are 0.19" in (
        caught.value.message
    )


CLASSIFIER = (
    "import torch\nclass Net(torch.nn.Module):\n"
    "    def forward(self, x):\n        return x.sum({axes}) * torch.tensor([0.0, 1.0, -1.0])\n"
)


def _labelled(folder: Path, arrays: list[Any], classes: list[int]) -> None:
    rows = ["file,class_index"]
    for number, (array, index) in enumerate(zip(arrays, classes, strict=True)):
        np.save(folder / f"{number}.npy", np.asarray(array, np.float32))
        rows.append(f"{number}.npy,{index}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def test_right_answers_of_pytorch_and_of_the_variant_are_in_the_manifest(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    data = spec(verify={"samples": "*.npy", "accuracy": {"labels": "labels.csv"}})
    (tmp_path / "net.py").write_text(CLASSIFIER.format(axes="1, keepdim=True"))
    _labelled(tmp_path, [[1] * 4, [-1] * 4, [2] * 4, [3] * 4, [4] * 4], [1, 2, 1, 1, 0])
    found = build_spec(data).manifest.variants[0].accuracy
    assert (found.count, found.reference, found.variant) == (5, 4, 4)


def test_labelled_samples_may_differ_in_shape(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    data = spec(
        inputs={"x": {"shape": ["batch", "width"]}},
        dynamic_axes={"batch": {"min": 1, "opt": 4, "max": 8}, "width": {"min": 2, "max": 6}},
        verify={"accuracy": {"labels": "labels.csv"}},
    )
    (tmp_path / "net.py").write_text(CLASSIFIER.format(axes="1, keepdim=True"))
    _labelled(tmp_path, [[1] * 3, [-1] * 5, [2] * 3], [1, 2, 2])
    found = build_spec(data).manifest.variants[0].accuracy
    assert (found.reference, found.variant) == (2, 2)


def test_a_variant_that_answers_worse_than_pytorch_fails_the_build_and_leaves_no_artifact(
    spec: Make, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = spec(verify={"atol": 1e9, "accuracy": {"labels": "labels.csv"}})
    (tmp_path / "net.py").write_text(CLASSIFIER.format(axes="1, keepdim=True"))
    _labelled(tmp_path, [[1] * 4, [-1] * 4], [1, 2])
    from runtime.engines.ort import OrtSession

    original = OrtSession.run

    def flipped(self: OrtSession, inputs: Any) -> dict[str, Any]:
        return {name: np.negative(cast("Any", a)) for name, a in original(self, inputs).items()}

    monkeypatch.setattr(OrtSession, "run", flipped)
    error = refused(data)
    assert "top1 fell from 2/2 to 0/2" in error.message
    assert not (tmp_path / "artifact").exists()
