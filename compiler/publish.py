"""Puts an artifact into its place: written beside it, then renamed; never half of one."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from compiler.cache import cache_folder
from runtime.artifact import check_files, read_manifest
from specs.digests import file_sha256, text_sha256
from specs.errors import ArtifactError
from specs.manifest import MANIFEST, FileEntry, Manifest

__all__ = ["Files", "amend", "check_place", "file_entries", "publish", "with_files"]

Files = dict[str, Path]
"""Files by their path in the artifact."""


def file_entries(files: Files) -> dict[str, FileEntry]:
    """Hash and size of every file."""
    return {
        name: FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size)
        for name, path in sorted(files.items())
    }


def publish(destination: Path, files: Files, manifest: Manifest) -> bool:
    """Write the artifact to ``destination``; two builds of one place wait for each other.

    Args:
        destination: the artifact's folder; an artifact or an empty folder there is replaced.
        files: what it holds besides the manifest.
        manifest: goes in last, so that a torn folder is no artifact.

    Returns:
        Whether anything had to be written: False where this very artifact is there already.

    Raises:
        ArtifactError: something that is no artifact is in the way (``artifact_in_the_way``).
    """
    text = _text(manifest)
    destination = _place(destination)
    with _locked(destination):
        if _is_there(destination, text):
            return False
        _refuse_foreign(destination)
        _write(destination, lambda draft: _fill(draft, files, text))
    return True


def amend(folder: Path, make: Callable[[Manifest], Mapping[str, bytes]]) -> Manifest:
    """Add files to an artifact that is there, or replace some of its own, as a whole or not at all.

    Args:
        folder: the artifact.
        make: gives the files by their path in the artifact. It is called with the manifest under
            the lock of ``publish``, so that it sees the artifact as it is now; what it raises
            leaves the artifact as it was.

    Returns:
        The new manifest, with the new files' hashes.

    Raises:
        ArtifactError: there is no artifact, or a file of it is not the one that was built.
    """
    folder = _place(folder)
    with _locked(folder):
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        files = make(manifest)
        amended = with_files(manifest, files)
        if amended != manifest:
            _write(folder, lambda draft: _refill(draft, folder, files, _text(amended)))
    return amended


def with_files(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """The manifest with the hashes and sizes of further files, or of new content of its own."""
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in files.items()
    }
    every = dict(sorted((manifest.files | entries).items()))
    return manifest.model_copy(update={"files": every})


def _refill(draft: Path, folder: Path, files: Mapping[str, bytes], text: str) -> None:
    """Everything of ``folder``, by hard link where the disk can, with ``files`` in their places."""
    replaced = {*files, MANIFEST}
    kept = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name, path in kept.items():
        if path.is_file() and name not in replaced:
            _parent(draft / name)
            _link(path, draft / name)
    for name, content in files.items():
        _parent(draft / name)
        (draft / name).write_bytes(content)
    (draft / MANIFEST).write_text(text, "utf-8")


def _parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # the disk has no hard links, or the file has as many as it may
        shutil.copyfile(source, target)


def _text(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=1, by_alias=True) + "\n"


@contextmanager
def _locked(destination: Path) -> Generator[None, None, None]:
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{text_sha256(str(destination))[:32]}.lock"):
        yield


def _is_there(destination: Path, text: str) -> bool:
    try:
        if (destination / MANIFEST).read_text("utf-8") != text:
            return False
        check_files(destination, read_manifest(destination))
    except (OSError, UnicodeDecodeError, ArtifactError):
        return False
    return True


def _place(destination: Path) -> Path:
    """The folder itself, where a link or ``..`` names it."""
    return Path(os.path.realpath(destination))


def check_place(destination: Path) -> None:
    """Raise ``ArtifactError`` (``artifact_in_the_way``) where something else would be lost."""
    destination = _place(destination)
    with _locked(destination):  # else another build may be just between its two renames
        _refuse_foreign(destination)


def _refuse_foreign(destination: Path) -> None:
    if not destination.exists():
        return
    folder = destination.is_dir()
    if folder and (_is_artifact(destination) or not any(destination.iterdir())):
        return
    kind = "a folder that is no artifact" if folder else "a file"
    message = f"{destination} is {kind}; it is not overwritten"
    raise ArtifactError(message, hint="name another place with -o", code="artifact_in_the_way")


def _is_artifact(folder: Path) -> bool:
    """Of any schema version. Web pages and browser extensions have a manifest.json as well."""
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"schema_version", "spec_sha256"} <= found.keys()


def _write(destination: Path, fill: Callable[[Path], None]) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}."
    for orphan in destination.parent.glob(f"{glob.escape(prefix)}draft-*"):
        shutil.rmtree(orphan, ignore_errors=True)  # of a build that was killed; we hold the lock
    draft = Path(tempfile.mkdtemp(prefix=f"{prefix}draft-", dir=destination.parent))
    old = draft.with_name(draft.name.replace("draft", "draft-old"))
    try:
        draft.chmod(0o755)
        fill(draft)
        if destination.exists():
            destination.rename(old)
        draft.rename(destination)
    except BaseException:
        if old.exists() and not destination.exists():
            old.rename(destination)
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _fill(draft: Path, files: Files, text: str) -> None:
    for name, path in files.items():
        _parent(draft / name)
        shutil.copyfile(path, draft / name)
    (draft / MANIFEST).write_text(text, "utf-8")
