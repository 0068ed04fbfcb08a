"""An artifact as serving sees it from outside: its manifest and the manifest's digest."""

from __future__ import annotations

from pathlib import Path

from runtime.artifact import read_manifest
from specs.digests import file_sha256
from specs.errors import ServeError
from specs.manifest import MANIFEST, Manifest

__all__ = ["check_digest", "digest_of", "open_artifact"]


def open_artifact(folder: Path) -> tuple[Manifest, str]:
    """The manifest in ``folder`` and its SHA-256; ArtifactError where there is none."""
    manifest = read_manifest(folder)
    return manifest, digest_of(folder)


def digest_of(folder: Path) -> str:
    """SHA-256 of the manifest, which holds the hashes of all other files."""
    return file_sha256(folder / MANIFEST)


def check_digest(folder: Path, expected: str) -> None:
    """Raise ServeError where the artifact is not the one that was asked for."""
    found = digest_of(folder)
    if found != expected:
        message = f"{folder} has the digest {found}, and {expected} was asked for"
        hint = "it was built again: deploy it with its new digest, or leave `digest` out"
        raise ServeError(message, hint=hint, code="digest")
