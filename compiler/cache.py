"""The cache: downloaded weights and the results of build stages, addressed by what made them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from specs.digests import file_sha256, json_sha256, text_sha256

__all__ = ["RESULT", "StageResult", "StageStore", "cache_folder", "code_digest", "versions"]

RESULT = "stage.json"
"""Lies in every stored result: its data and its files' hashes."""


def cache_folder() -> Path:
    """``DEPLOYC_CACHE``, else the platform's cache folder for deployc."""
    given = os.environ.get("DEPLOYC_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("deployc")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, without importing anything; "" for what is not installed."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def code_digest() -> str:
    """Digest of deployc's own sources: a stage that other code would run is not the same stage."""
    root = Path(__file__).parent.parent
    files = sorted(
        path
        for package in ("specs", "compiler", "runtime")
        for path in (root / package).rglob("*.py")
        if "models" not in path.parts[len(root.parts) :]
    )
    return text_sha256("".join(file_sha256(path) for path in files))


@dataclass(frozen=True)
class StageResult:
    """What a stage left: a folder of files, plain data, and whether it was there already."""

    folder: Path
    data: dict[str, Any]
    cached: bool


@dataclass(frozen=True)
class StageStore:
    """Results of stages under ``root/stages/<stage>/<key>``, each with its files' hashes."""

    root: Path

    def run(
        self, stage: str, inputs: dict[str, Any], make: Callable[[Path], dict[str, Any]]
    ) -> StageResult:
        """The stage's result for these inputs, made by ``make`` where it is not stored yet.

        Args:
            stage: the stage's name.
            inputs: everything that the result depends on, as JSON data; deployc's code is added.
            make: writes files into the folder that it gets and returns JSON data.
        """
        key = json_sha256({**inputs, "code": code_digest()})
        folder = self.root / "stages" / stage / key[:32]
        data = self._read(folder)
        if data is not None:
            return StageResult(folder, data, cached=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            # Another build may have made it while this one waited; its files may be in use.
            data = self._read(folder)
            if data is not None:
                return StageResult(folder, data, cached=True)
            return StageResult(folder, self._make(folder, make), cached=False)

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """The stored data, or None where nothing is stored or a file is not what was stored."""
        try:
            stored = json.loads((folder / RESULT).read_text("utf-8"))
            whole = all(file_sha256(folder / name) == sha for name, sha in stored["files"].items())
            whole = whole and stored["files"].keys() == _names(folder) - {RESULT}
            return stored["data"] if whole else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _make(self, folder: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Run the stage; called under its lock, so what lies in its place is torn or left over."""
        for left in (folder, *folder.parent.glob(f".{folder.name}-*")):
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            data = make(draft)
            files = {name: file_sha256(draft / name) for name in sorted(_names(draft))}
            (draft / RESULT).write_text(json.dumps({"data": data, "files": files}), "utf-8")
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return data


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
