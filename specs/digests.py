"""SHA-256 of files and of plain data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["file_sha256", "json_sha256", "text_sha256"]


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Hex digest of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_sha256(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Hex digest of a JSON value, the same however its keys are ordered."""
    return text_sha256(json.dumps(value, sort_keys=True, separators=(",", ":")))
