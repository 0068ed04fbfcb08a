"""Opening an artifact: nothing runs that is not what was built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runtime
from runtime.artifact import choose_variant, read_manifest
from specs.errors import ArtifactError
from specs.manifest import SCHEMA_VERSION

Copied = Callable[[str], Path]


def _code(folder: Path, **options: Any) -> str:
    with pytest.raises(ArtifactError) as caught:
        runtime.load(folder, **options)
    assert caught.value.hint
    return caught.value.code


def _edit(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("name", ["model.onnx", "processing.py", "spec.yaml", "golden/case0.npz"])
def test_a_changed_file_is_refused_whatever_it_is(copied: Copied, name: str) -> None:
    folder = copied("twice")
    file = folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert _code(folder) == "artifact_changed"


def test_a_longer_file_is_refused(copied: Copied) -> None:
    folder = copied("twice")
    with (folder / "processing.py").open("a") as file:
        file.write("\nimport os\n")
    assert _code(folder) == "artifact_changed"


def test_a_missing_file_is_refused(copied: Copied) -> None:
    folder = copied("twice")
    (folder / "model.onnx").unlink()
    assert _code(folder) == "artifact_torn"


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    assert _code(tmp_path) == "artifact_missing"
    assert _code(tmp_path / "lost") == "artifact_missing"


@pytest.mark.parametrize("more", [{}, {"something": "new"}])
def test_a_newer_schema_version_is_told_before_anything_else(
    copied: Copied, more: dict[str, Any]
) -> None:
    folder = copied("twice")
    _edit(folder, schema_version=SCHEMA_VERSION + 1, **more)
    assert _code(folder) == "artifact_version"


@pytest.mark.parametrize(
    "text", ["", "torn {", "[]", "{}", f'{{"schema_version": {SCHEMA_VERSION}}}', "\x00"]
)
def test_a_manifest_that_is_none_is_refused(copied: Copied, text: str) -> None:
    folder = copied("twice")
    (folder / "manifest.json").write_text(text)
    assert _code(folder) == "artifact_invalid"


def test_a_manifest_that_is_no_text_or_a_folder_is_refused(copied: Copied) -> None:
    folder = copied("twice")
    (folder / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="cannot be read"):
        runtime.load(folder)
    with pytest.raises(ArtifactError, match="is a file, an artifact is a folder"):
        runtime.load(folder / "model.onnx")


def test_a_file_that_would_be_opened_but_has_no_hash_is_refused(copied: Copied) -> None:
    folder = copied("twice")
    manifest = json.loads((folder / "manifest.json").read_text())
    other = {**manifest["variants"][0], "file": "../elsewhere.onnx"}
    _edit(folder, variants=[other])
    assert _code(folder) == "artifact_invalid"
    files = {name: entry for name, entry in manifest["files"].items() if name != "processing.py"}
    _edit(folder, variants=manifest["variants"], files=files)
    assert _code(folder) == "artifact_invalid"


def test_an_artifact_without_variants_is_refused(copied: Copied) -> None:
    folder = copied("twice")
    _edit(folder, variants=[])
    assert _code(folder) == "artifact_invalid"


def test_the_first_variant_is_taken_and_an_unknown_one_told_with_the_nearest(
    copied: Copied,
) -> None:
    folder = copied("twice")
    manifest = read_manifest(folder)
    assert choose_variant(manifest, None) == manifest.variants[0]
    assert choose_variant(manifest, "onnxruntime-cpu-fp32") == manifest.variants[0]
    with pytest.raises(ArtifactError) as caught:
        runtime.load(folder, variant="onnxruntime-cpu-fp16")
    assert caught.value.code == "variant_unknown"
    assert caught.value.hint == "did you mean 'onnxruntime-cpu-fp32'?"
