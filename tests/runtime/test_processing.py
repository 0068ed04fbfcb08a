from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.processing import load_processing
from specs.digests import file_sha256
from specs.errors import ArtifactError, InputError

SOURCE = """\
from pathlib import Path

CARRIED = ()
NAME = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8")


class BadInput(ValueError):
    def __init__(self, code, message, hint):
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


def preprocess(data):
    if data is None:
        raise BadInput("wrong_dtype", "found None", "send numbers")
    return {"input": data + 1}


def postprocess(outputs):
    return [{"outputs": {NAME: item}} for item in outputs["output"]]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("name", encoding="utf-8")
    path = tmp_path / "processing.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_it_runs_beside_its_labels(file: Path) -> None:
    processing = load_processing(file, file_sha256(file))
    assert processing.preprocess(np.float32(1)) == {"input": 2}
    assert processing.postprocess({"output": np.zeros(2)}) == [{"outputs": {"name": 0}}] * 2


def test_a_bad_item_is_an_input_error_with_the_same_words(file: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_processing(file, file_sha256(file)).preprocess(None)
    assert caught.value.to_dict() == {
        "code": "wrong_dtype",
        "message": "found None",
        "hint": "send numbers",
    }


def test_a_changed_file_is_refused_before_it_runs(file: Path) -> None:
    digest = file_sha256(file)
    file.write_text("raise SystemExit('it ran')", encoding="utf-8")
    with pytest.raises(ArtifactError, match="was changed") as caught:
        load_processing(file, digest)
    assert caught.value.code == "hash_mismatch"


def test_neither_the_artifact_nor_the_import_system_is_touched(file: Path) -> None:
    before = (list(sys.path), set(sys.modules))
    load_processing(file, file_sha256(file))
    assert (list(sys.path), set(sys.modules)) == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["labels.txt", "processing.py"]


def test_two_artifacts_keep_apart(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "processing.py"
    other.parent.mkdir()
    other.write_text(SOURCE, encoding="utf-8")
    other.with_name("labels.txt").write_text("else", encoding="utf-8")
    loaded = [load_processing(path, file_sha256(path)) for path in (file, other)]
    names = [p.postprocess({"output": np.zeros(1)})[0]["outputs"] for p in loaded]
    assert names == [{"name": 0}, {"else": 0}]


def test_missing_files_are_told(file: Path, tmp_path: Path) -> None:
    digest = file_sha256(file)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(ArtifactError, match="cannot be run: FileNotFoundError"):
        load_processing(file, digest)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_processing(tmp_path / "none.py", digest)
