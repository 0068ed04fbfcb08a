"""An artifact comes into its place as a whole, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from compiler.publish import Files, check_place, file_entries, publish
from runtime.artifact import check_files, read_manifest
from specs.errors import ArtifactError
from specs.manifest import Manifest


@pytest.fixture
def manifest(linear_artifact: Path) -> Manifest:
    """That of a small artifact."""
    return read_manifest(linear_artifact)


@pytest.fixture
def files(linear_artifact: Path, manifest: Manifest) -> Files:
    """Its files."""
    return {name: linear_artifact / name for name in manifest.files}


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _changed(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"description": "another"})


def test_what_is_written_is_whole_and_a_second_time_nothing_is(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    assert publish(tmp_path / "a" / "net", files, manifest)
    check_files(tmp_path / "a" / "net", manifest)
    before = (tmp_path / "a" / "net").stat().st_ino
    assert not publish(tmp_path / "a" / "net", files, manifest)
    assert (tmp_path / "a" / "net").stat().st_ino == before


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_an_artifact_that_was_changed_is_written_again(
    tmp_path: Path, files: Files, manifest: Manifest, name: str
) -> None:
    publish(tmp_path / "net", files, manifest)
    file = tmp_path / "net" / name
    file.write_bytes(file.read_bytes() + b"\n")
    assert publish(tmp_path / "net", files, manifest)
    check_files(tmp_path / "net", manifest)


def test_an_older_artifact_is_replaced_with_all_its_files(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    publish(tmp_path / "net", files, manifest)
    (tmp_path / "net" / "old.txt").touch()
    publish(tmp_path / "net", files, _changed(manifest))
    assert not (tmp_path / "net" / "old.txt").exists()
    assert _left(tmp_path) == ["net"]


@pytest.mark.parametrize("failing", ["fill", "rename"])
def test_a_failure_leaves_the_old_artifact_and_no_draft(
    tmp_path: Path,
    files: Files,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    publish(tmp_path / "net", files, manifest)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".draft-" in self.name and target.name == "net" and "draft-old" not in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    broken = files if failing == "rename" else {**files, "lost": tmp_path / "lost"}
    if failing == "rename":
        monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match=r"error|No such file"):
        publish(tmp_path / "net", broken, _changed(manifest))
    monkeypatch.undo()
    check_files(tmp_path / "net", read_manifest(tmp_path / "net"))
    assert read_manifest(tmp_path / "net").description == manifest.description
    assert _left(tmp_path) == ["net"]


def test_drafts_of_builds_that_were_killed_are_cleared(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    for name in (".a[b].draft-1", ".a[b].draft-old-2", ".other.draft-3"):
        (tmp_path / name).mkdir()
    publish(tmp_path / "a[b]", files, manifest)
    assert _left(tmp_path) == [".other.draft-3", "a[b]"]


@pytest.mark.parametrize("content", ["{}", "torn {", '{"name": "a web page"}', "[1]", ""])
def test_a_folder_that_is_no_artifact_is_not_overwritten(
    tmp_path: Path, files: Files, manifest: Manifest, content: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError) as caught:
        publish(tmp_path / "site", files, manifest)
    assert caught.value.code == "artifact_in_the_way"
    assert "-o" in caught.value.hint
    assert _left(tmp_path / "site") == ["manifest.json"]


def test_a_file_is_not_overwritten_and_an_empty_folder_is_taken(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is a file; it is not overwritten"):
        publish(tmp_path / "file", files, manifest)
    (tmp_path / "empty").mkdir()
    assert publish(tmp_path / "empty", files, manifest)


def test_an_artifact_of_another_schema_version_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 99, "spec_sha256": ""}')
    check_place(tmp_path)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path, files: Files, manifest: Manifest) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    publish(tmp_path / "link", files, manifest)
    publish(tmp_path / "link", files, _changed(manifest))
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(tmp_path / "real").description == "another"
    assert _left(tmp_path) == ["link", "real"]


def test_a_place_named_with_dots_is_the_folder_it_means(
    tmp_path: Path, files: Files, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net" / "inner").mkdir(parents=True)
    (tmp_path / "net" / "inner").rmdir()
    monkeypatch.chdir(tmp_path / "net")
    os.mkdir("sub")  # noqa: PTH102 - relative on purpose
    monkeypatch.chdir(tmp_path)
    publish(Path("net/sub/../sub"), files, manifest)
    assert _left(tmp_path / "net") == ["sub"]


def test_two_writers_of_one_place_both_end_well(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    errors: list[BaseException] = []

    def write(each: Manifest) -> None:
        try:
            publish(tmp_path / "net", files, each)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    both = (manifest, _changed(manifest)) * 4
    threads = [threading.Thread(target=write, args=(each,)) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check_files(tmp_path / "net", read_manifest(tmp_path / "net"))
    assert _left(tmp_path) == ["net"]


def test_entries_have_the_hash_and_the_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    entry = file_entries({"file": tmp_path / "file"})["file"]
    assert (entry.bytes, entry.sha256[:8]) == (3, "ba7816bf")
