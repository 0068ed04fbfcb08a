"""Reads a variant's profile from an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from specs.errors import ArtifactError
from specs.profile import PROFILE_VERSION, Profile, profile_path

__all__ = ["read_profile"]

AGAIN = "run `deployc profile` again"


def read_profile(folder: Path, variant: str) -> Profile | None:
    """The profile of the variant of that name; None where it was not measured.

    Args:
        folder: the artifact. Whether its files are those of the manifest is not checked here.
        variant: the variant's name.

    Raises:
        ArtifactError: it is there and cannot be read (``profile_invalid``), or another version of
            deployc wrote it (``profile_version``).
    """
    path = folder / profile_path(variant)
    try:
        text = path.read_text("utf-8")
        found: object = json.loads(text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read: {error}"
        raise ArtifactError(message, hint=AGAIN, code="profile_invalid") from error
    _check_version(path, found)
    try:
        return Profile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{path} is no valid profile: {where}: {first['msg']}"
        raise ArtifactError(message, hint=AGAIN, code="profile_invalid") from error


def _check_version(path: Path, found: object) -> None:
    mapping = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    version = mapping.get("version")
    if version is not None and version != PROFILE_VERSION:
        message = f"{path} has version {version}, this deployc reads {PROFILE_VERSION}"
        raise ArtifactError(message, hint=AGAIN, code="profile_version")
