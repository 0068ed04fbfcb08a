"""Opens an artifact: schema version, files and hashes are checked before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from specs.digests import file_sha256
from specs.errors import ArtifactError
from specs.faults import nearest
from specs.manifest import MANIFEST, SCHEMA_VERSION, Manifest, Variant

__all__ = ["PROCESSING", "check_files", "choose_variant", "read_manifest"]

PROCESSING = "processing.py"
REBUILD = "run `deployc build SPEC` again"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the artifact in ``folder``; its files are not looked at.

    Raises:
        ArtifactError: there is none, it cannot be read, or is of another schema version.
    """
    path = folder / MANIFEST
    if folder.is_file():
        message = f"{folder} is a file, an artifact is a folder"
        hint = f"run `deployc build {folder}`, and name the folder that it says"
        is_spec = folder.suffix in {".yaml", ".yml"}
        raise ArtifactError(message, hint=hint if is_spec else REBUILD, code="artifact_missing")
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        message = f"{folder} holds no artifact: there is no {MANIFEST}"
        hint = f"run `deployc build specs/NAME.yaml -o {folder}`"
        raise ArtifactError(message, hint=hint, code="artifact_missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", code="artifact_unreadable"
        ) from error
    manifest = _parse(path, text)
    if manifest.schema_version != SCHEMA_VERSION:
        raise _other_version(path, manifest.schema_version)
    return manifest


def _other_version(path: Path, version: object) -> ArtifactError:
    message = f"{path} has schema version {version}, this deployc reads {SCHEMA_VERSION}"
    hint = "install the deployc that built it, or " + REBUILD
    return ArtifactError(message, hint=hint, code="artifact_version")


def _parse(path: Path, text: str) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        version = _version(text)
        if version is not None and version != SCHEMA_VERSION:
            raise _other_version(path, version) from error
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{path} is no valid manifest: {where}: {first['msg']}"
        raise ArtifactError(message, hint=REBUILD, code="artifact_invalid") from error


def _version(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    return cast("dict[str, object]", value).get("schema_version")


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file's hash with the manifest's, or raise ``ArtifactError``."""
    _check_named(folder, manifest)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            message = f"{path} is missing"
            raise ArtifactError(message, hint=REBUILD, code="artifact_torn")
        if path.stat().st_size != entry.bytes or file_sha256(path) != entry.sha256:
            message = f"{path} is not the file that was built: its hash differs from the manifest's"
            raise ArtifactError(message, hint=REBUILD, code="artifact_changed")


def _check_named(folder: Path, manifest: Manifest) -> None:
    """What will be opened must be among the files that have a hash."""
    needed = {PROCESSING, *(variant.file for variant in manifest.variants)}
    unlisted = sorted(needed - manifest.files.keys())
    if unlisted or not manifest.variants:
        found = f"no hash of {', '.join(unlisted)}" if unlisted else "no variant"
        message = f"{folder / MANIFEST} has {found}"
        raise ArtifactError(message, hint=REBUILD, code="artifact_invalid")


def choose_variant(manifest: Manifest, name: str | None) -> Variant:
    """The variant of that name, or the preferred one."""
    if name is None:
        return manifest.variants[0]
    for variant in manifest.variants:
        if variant.name == name:
            return variant
    known = [variant.name for variant in manifest.variants]
    message = f"'{manifest.name}' has no variant '{name}'"
    raise ArtifactError(message, hint=nearest(name, known), code="variant_unknown")
