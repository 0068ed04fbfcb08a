"""One side of a comparison: an artifact with its profiles, or a spec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from runtime.artifact import check_files, read_manifest
from runtime.profile import read_profile
from specs.errors import ArtifactError, DeploycError
from specs.loader import load_spec
from specs.manifest import MANIFEST, Manifest, Variant
from specs.profile import Profile, identity
from specs.schema import Spec

__all__ = ["Side", "pairs", "read_side", "same_kind"]

SPEC = "spec.yaml"


@dataclass(frozen=True)
class Side:
    """One of the two.

    Args:
        path: as it was given.
        spec: the spec with its defaults filled in.
        manifest: the artifact's; None where the side is a spec.
        profiles: by variant; those that were measured on what the artifact holds.
        notes: what a person should be told.
    """

    path: Path
    spec: Spec
    manifest: Manifest | None = None
    profiles: dict[str, Profile] = field(default_factory=dict[str, Profile])
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``artifact`` or ``spec``."""
        return "spec" if self.manifest is None else "artifact"

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants; none of a spec."""
        return self.manifest.variants if self.manifest else ()

    def spec_data(self) -> dict[str, Any]:
        """The spec as plain data."""
        return self.spec.model_dump(mode="json", by_alias=True)


def read_side(path: Path) -> Side:
    """The artifact in the folder ``path``, or the spec in that file.

    Raises:
        DeploycError: it is neither, or a file of the artifact is not what was built.
    """
    if not path.is_dir():
        return Side(path, load_spec(path).spec)
    manifest = read_manifest(path)
    check_files(path, manifest)
    profiles: dict[str, Profile] = {}
    notes: list[str] = []
    for variant in manifest.variants:
        found = read_profile(path, variant.name)
        if found is None:
            continue
        if found.identity == identity(manifest, variant):
            profiles[variant.name] = found
        else:
            notes.append(f"{path}: the profile of {variant.name} is of another build, left out")
    return Side(path, _built_spec(path), manifest, profiles, tuple(notes))


def _built_spec(folder: Path) -> Spec:
    """The artifact's own spec; the files that it names do not lie beside it."""
    file = folder / SPEC
    try:
        return Spec.model_validate(yaml.safe_load(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        message = f"{file} cannot be read: {str(error).splitlines()[0]}"
        hint = "build it again with this deployc"
        raise ArtifactError(message, hint=hint, code="artifact_invalid") from error


def same_kind(a: Side, b: Side) -> None:
    """Refuse to compare an artifact with a spec."""
    if a.kind != b.kind:
        message = f"{a.path} is an {a.kind}, {b.path} a {b.kind}"
        if a.kind == "spec":
            message = f"{a.path} is a {a.kind}, {b.path} an {b.kind}"
        hint = f"two artifacts or two specs: an artifact's own spec is its {SPEC}; see {MANIFEST}"
        raise DeploycError(message, hint=hint, code="diff_kinds")


def pairs(a: Side, b: Side) -> Iterator[tuple[Variant, Variant | None]]:
    """Every variant of ``a`` with its counterpart in ``b``.

    That of the same name; else, since ``auto`` may have come to something else, that of the same
    target which no variant of ``a`` has the name of.
    """
    named = {variant.name: variant for variant in b.variants}
    free = {v.target: v for v in reversed(b.variants) if v.name not in _names(a)}
    for variant in a.variants:
        yield variant, named.get(variant.name) or free.pop(variant.target, None)


def _names(side: Side) -> set[str]:
    return {variant.name for variant in side.variants}
