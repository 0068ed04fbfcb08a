"""An artifact comes into its place as a whole, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from compiler.publish import Files, amend, check_place, file_entries, publish
from runtime.artifact import check_files, read_manifest
from specs.errors import ArtifactError
from specs.manifest import MANIFEST, Manifest


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


def _inodes(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in paths}


def test_amending_adds_and_replaces_files_with_their_hashes(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    publish(tmp_path / "net", files, manifest)
    before = _inodes(tmp_path / "net")
    made = {"variants/v/new.json": b"{}", "spec.yaml": b"another"}
    amended = amend(tmp_path / "net", lambda _: made)
    assert read_manifest(tmp_path / "net") == amended
    check_files(tmp_path / "net", amended)
    assert (tmp_path / "net" / "variants" / "v" / "new.json").read_bytes() == b"{}"
    assert amended.files.keys() == manifest.files.keys() | {"variants/v/new.json"}
    after = _inodes(tmp_path / "net")
    assert {name for name in before if before[name] != after[name]} == {"spec.yaml", MANIFEST}
    assert _left(tmp_path) == ["net"]


def test_amending_keeps_files_that_the_manifest_does_not_name(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    publish(tmp_path / "net", files, manifest)
    (tmp_path / "net" / "notes.txt").write_text("mine")
    amend(tmp_path / "net", lambda _: {"new": b""})
    assert (tmp_path / "net" / "notes.txt").read_text() == "mine"


def test_amending_with_what_is_there_writes_nothing(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    publish(tmp_path / "net", files, manifest)
    before = (tmp_path / "net").stat().st_ino
    same = {"spec.yaml": (tmp_path / "net" / "spec.yaml").read_bytes()}
    assert amend(tmp_path / "net", lambda _: same) == manifest
    assert (tmp_path / "net").stat().st_ino == before


def test_amending_copies_where_the_disk_has_no_hard_links(
    tmp_path: Path, files: Files, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported", str(self), None, str(target))

    publish(tmp_path / "net", files, manifest)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    amended = amend(tmp_path / "net", lambda _: {"new": b"1"})
    check_files(tmp_path / "net", amended)


def test_an_artifact_that_was_changed_is_not_amended(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    publish(tmp_path / "net", files, manifest)
    (tmp_path / "net" / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError) as caught:
        amend(tmp_path / "net", lambda _: {"new": b""})
    assert caught.value.code == "artifact_changed"
    with pytest.raises(ArtifactError) as caught:
        amend(tmp_path / "nothing", lambda _: {"new": b""})
    assert caught.value.code == "artifact_missing"


def test_what_fails_while_amending_leaves_the_artifact_as_it_was(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    def fail(_manifest: Manifest) -> dict[str, bytes]:
        raise KeyboardInterrupt

    publish(tmp_path / "net", files, manifest)
    before = _inodes(tmp_path / "net")
    with pytest.raises(KeyboardInterrupt):
        amend(tmp_path / "net", fail)
    with pytest.raises(OSError, match="spec"):  # a folder cannot be where a file is
        amend(tmp_path / "net", lambda _: {"spec.yaml/x": b""})
    assert _inodes(tmp_path / "net") == before
    assert _left(tmp_path) == ["net"]


def test_amendments_at_the_same_time_all_come_in(
    tmp_path: Path, files: Files, manifest: Manifest
) -> None:
    publish(tmp_path / "net", files, manifest)
    errors: list[BaseException] = []

    def write(name: str) -> None:
        try:
            amend(tmp_path / "net", lambda _: {name: name.encode()})
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    names = {f"new{number}" for number in range(6)}
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = read_manifest(tmp_path / "net")
    check_files(tmp_path / "net", found)
    assert found.files.keys() == manifest.files.keys() | names
