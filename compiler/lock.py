"""``deployc.lock``: by SHA-256, everything outside a spec that its artifact is made of.

One file a folder of specs, TOML, a table per spec. Only hashes, seeds and the language's version
are compared; the URL or path that weights came from, and the versions of the tools, are kept for
people. Neither torch nor a network is needed to check it.
"""

from __future__ import annotations

import json
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field, ValidationError

from compiler.accuracy import read_labels
from compiler.cache import cache_folder, versions
from compiler.processing.labels import label_steps
from compiler.reads import source_files
from compiler.samples import calibration_files, sample_files
from compiler.weights import FoundWeights
from specs.base import Frozen
from specs.digests import file_sha256, text_sha256
from specs.errors import Problem, SpecError
from specs.loader import LoadedSpec
from specs.schema import Spec

__all__ = [
    "LOCK",
    "Locked",
    "LockedWeights",
    "check_lock",
    "differences",
    "lock_entry",
    "write_lock",
]

LOCK = "deployc.lock"
LOCK_VERSION = 1
HEAD = """\
# What the specs of this folder are built from, by SHA-256.
# Written by `deployc lock`, checked by `deployc build --locked`. Commit it; do not edit it.
# `tools` is for information: it is never compared.
"""
TOOLS = ("deployc", "torch", "torchvision", "onnx", "onnxscript", "numpy", "pillow")


class LockedWeights(Frozen):
    """Where weights came from, and which they were."""

    url: str | None = None
    path: str | None = None
    sha256: str | None = None
    """SHA-256 of the file; None for weights that come from no file."""
    seed: int | None = None
    """Seed of random weights."""


class Locked(Frozen):
    """The entry of one spec."""

    language: int
    """Version of the specs' language."""
    weights: LockedWeights
    sources: dict[str, str]
    """SHA-256 of every file that the graph is made of, by its path from the spec's folder."""
    data: dict[str, str]
    """The same of label files, samples and calibration items."""
    tools: dict[str, str]
    """Versions of what wrote the entry."""


class _File(Frozen):
    version: int
    specs: dict[str, Locked] = Field(default_factory=dict)


def lock_entry(loaded: LoadedSpec, weights: FoundWeights) -> Locked:
    """What a spec is built from now.

    Raises:
        DeploycError: a file that the spec names is not there.
    """
    return Locked(
        language=loaded.spec.version,
        weights=_weights(loaded.spec, weights),
        sources=_hashes(loaded, _sources(loaded)),
        data=_hashes(loaded, _data(loaded)),
        tools={"python": platform.python_version(), **_present(versions(*TOOLS))},
    )


def _present(found: Mapping[str, str]) -> dict[str, str]:
    return {name: version for name, version in found.items() if version}


def _weights(spec: Spec, found: FoundWeights) -> LockedWeights:
    origin = found.origin
    if origin.origin == "source":
        return LockedWeights()
    if origin.origin == "random":
        return LockedWeights(seed=origin.seed)
    asked = spec.weights
    path = asked.path if asked else None
    url = origin.location if origin.origin == "url" else None
    return LockedWeights(url=url, path=path if url is None else None, sha256=origin.sha256)


def _sources(loaded: LoadedSpec) -> Iterator[Path]:
    return (path for _, path in source_files(loaded.spec, loaded.folder))


def _data(loaded: LoadedSpec) -> Iterator[Path]:
    spec, folder = loaded.spec, loaded.folder
    for _, step, _ in label_steps(spec):
        yield from (folder / name for name in step.label_files().values())
    for step in (*spec.preprocess, *spec.postprocess):
        yield from (folder / name for name in step.files().values())
    yield from sample_files(spec, folder)
    yield from calibration_files(spec, folder)
    if spec.verify.accuracy is not None:
        yield folder / spec.verify.accuracy.labels
        yield from (item.file for item in read_labels(spec.verify.accuracy, folder))


def _hashes(loaded: LoadedSpec, files: Iterator[Path]) -> dict[str, str]:
    named = {_name(path, loaded.folder): path for path in files}
    return {name: file_sha256(named[name]) for name in sorted(named)}


def _name(path: Path, folder: Path) -> str:
    """From the spec's folder, so that the lock is the same wherever that lies.

    Only a file that the spec itself names by an absolute path keeps it.
    """
    if not path.is_relative_to(folder):
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def write_lock(folder: Path, entries: Mapping[str, Locked]) -> bool:
    """Put entries into the folder's lock, and drop those of specs that are gone.

    Args:
        folder: where the specs lie.
        entries: by the spec's file name.

    Returns:
        Whether the file changed.

    Raises:
        SpecError: the file that is there cannot be read (``lock_invalid``).
    """
    file = folder / LOCK
    with _locked(file):
        before = _read(file) if file.exists() else {}
        kept = {name: entry for name, entry in before.items() if (folder / name).is_file()}
        text = _text(kept | dict(entries))
        if file.exists() and file.read_bytes() == text.encode():
            return False
        draft = file.with_name(f".{LOCK}.{os.getpid()}")
        draft.write_bytes(text.encode())
        draft.replace(file)
    return True


def _locked(file: Path) -> FileLock:
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{text_sha256(os.path.realpath(file))[:32]}.lock")


def _read(file: Path) -> dict[str, Locked]:
    try:
        data = tomllib.loads(file.read_text("utf-8"))
        if data.get("version") != LOCK_VERSION:
            found = f"version {data.get('version')!r}, this deployc reads {LOCK_VERSION}"
            raise _unreadable(file, f"{file} has {found}")
        return _File.model_validate(data).specs
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _unreadable(file, f"{file} is no lock: {where}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, f"{file} cannot be read: {error}") from error


def _unreadable(file: Path, message: str) -> SpecError:
    hint = f"remove {file} and run `deployc lock` on the specs of its folder"
    return SpecError(message, hint=hint, code="lock_invalid")


def _text(entries: Mapping[str, Locked]) -> str:
    lines = [HEAD, f"version = {LOCK_VERSION}"]
    for name in sorted(entries):
        entry = entries[name].model_dump(mode="json", exclude_none=True)
        table = f"specs.{_quoted(name)}"
        lines += ["", f"[{table}]", f"language = {entry.pop('language')}"]
        for part, values in entry.items():
            lines += ["", f"[{table}.{part}]", *_pairs(values)]
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{_quoted(key)} = {_quoted(value)}" for key, value in values.items()]


def _quoted(value: str | int) -> str:
    """As TOML writes it: JSON's strings are its basic strings, but for U+007F."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def check_lock(loaded: LoadedSpec, weights: FoundWeights | None = None) -> None:
    """Hold a spec to the lock beside it.

    Args:
        loaded: the spec.
        weights: those of the build; None compares what the spec itself says of them.

    Raises:
        SpecError: there is no lock (``lock_missing``), it cannot be read (``lock_invalid``), or
            something differs from it (``lock_differs``): a problem for each difference.
    """
    file = loaded.folder / LOCK
    entry = _read(file).get(loaded.path.name) if file.exists() else None
    relock = f"`deployc lock {loaded.path}`"
    if entry is None:
        found = f"{file} has no entry for it" if file.exists() else f"there is no {file}"
        message = f"{loaded.path} is not locked: {found}"
        raise SpecError(message, hint=f"run {relock}, and commit {LOCK}", code="lock_missing")
    found = list(differences(loaded, entry, weights))
    if not found:
        return
    told = f"{loaded.path} differs from {file} in {len(found)} place(s)"
    hint = f"undo the change, or run {relock} where it is wanted"
    problems = tuple(_problem(loaded, each) for each in found)
    raise SpecError(told, hint=hint, code="lock_differs", problems=problems)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was locked.

    Args:
        where: the field or table: ``weights``, ``sources``, ``data``, ``version``.
        file: the file, from the spec's folder; "" where it is the spec itself.
        message: what was found and what the lock says.
    """

    where: str
    file: str
    message: str


def _problem(loaded: LoadedSpec, difference: Difference) -> Problem:
    if difference.file:
        file = str(loaded.path.parent / difference.file)
        return Problem(file, 0, 0, difference.where, "lock_differs", difference.message)
    return loaded.problem_at((difference.where,), "lock_differs", difference.message)


def differences(
    loaded: LoadedSpec, entry: Locked, weights: FoundWeights | None = None
) -> Iterator[Difference]:
    """Everything in which a spec is not what its entry says."""
    if loaded.spec.version != entry.language:
        message = f"found version {loaded.spec.version}, locked was {entry.language}"
        yield Difference("version", "", message)
    yield from _weights_differ(loaded, entry.weights, weights)
    yield from _files_differ("sources", _hashes(loaded, _sources(loaded)), entry.sources)
    yield from _files_differ("data", _hashes(loaded, _data(loaded)), entry.data)


def _weights_differ(
    loaded: LoadedSpec, locked: LockedWeights, weights: FoundWeights | None
) -> Iterator[Difference]:
    sha256, seed = _known(loaded) if weights is None else _found(weights)
    if sha256 != locked.sha256:
        told = f"found {_sha(sha256)}, locked was {_sha(locked.sha256)}"
        yield Difference("weights", "", told)
    if seed != locked.seed:
        yield Difference("weights", "", f"found {_seed(seed)}, locked was {_seed(locked.seed)}")


def _found(weights: FoundWeights) -> tuple[str | None, int | None]:
    """Hash and seed of weights at hand; a source that makes its own has a seed of no one's."""
    origin = weights.origin
    return origin.sha256 or None, origin.seed if origin.origin == "random" else None


def _known(loaded: LoadedSpec) -> tuple[str | None, int | None]:
    """Hash and seed as far as the spec and its folder tell, without a network."""
    asked = loaded.spec.weights
    if asked is None or loaded.spec.model.weights == "forbidden":
        return None, None
    if asked.random is not None:
        return None, asked.random.seed
    file = loaded.folder / asked.path if asked.path else None
    if file is not None and os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises on long names
        return file_sha256(file), None
    return asked.sha256, None


def _sha(sha256: str | None) -> str:
    return f"sha256 {sha256}" if sha256 else "no file of weights"


def _seed(seed: int | None) -> str:
    return "no random weights" if seed is None else f"random weights of seed {seed}"


def _files_differ(
    where: str, found: Mapping[str, str], locked: Mapping[str, str]
) -> Iterator[Difference]:
    for name in sorted(found.keys() | locked.keys()):
        if name not in locked:
            yield Difference(where, name, "the file is not in the lock")
        elif name not in found:
            yield Difference(where, name, "the file is in the lock, and is read no more")
        elif found[name] != locked[name]:
            told = f"found sha256 {found[name]}, locked was {locked[name]}"
            yield Difference(where, name, told)
