"""Puts profiles into an artifact, and carries them over into its next build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from compiler.publish import Files, amend, with_files
from compiler.report import REPORT, render_folder
from runtime.artifact import check_files, read_manifest
from runtime.profile import read_profile
from specs.digests import file_sha256
from specs.errors import ArtifactError, DeploycError
from specs.manifest import Manifest
from specs.profile import Profile, identity, profile_path

__all__ = ["carried", "open_artifact", "redraw", "store"]


def store(folder: Path, profiles: Iterable[Profile], *, report: bool) -> Manifest:
    """Write profiles, and the report that shows them, into the artifact that was measured.

    Args:
        folder: the artifact.
        profiles: of its variants; others that lie there stay.
        report: whether to draw ``report.html`` again, which needs jinja2 and matplotlib.

    Raises:
        ArtifactError: the artifact was built anew meanwhile (``profile_stale``).
    """
    found = {profile.variant: profile for profile in profiles}

    def make(manifest: Manifest) -> Mapping[str, bytes]:
        _check_same(folder, manifest, found)
        files = {profile_path(name): _bytes(profile) for name, profile in found.items()}
        if report:
            # The page lists the profiles' hashes as well, as one drawn by a build does.
            page = render_folder(folder, with_files(manifest, files), found)
            files[REPORT] = page.encode()
        return files

    return amend(folder, make)


def _bytes(profile: Profile) -> bytes:
    return (profile.model_dump_json(indent=1) + "\n").encode()


def _check_same(folder: Path, manifest: Manifest, found: Mapping[str, Profile]) -> None:
    now = {variant.name: identity(manifest, variant) for variant in manifest.variants}
    for name, profile in found.items():
        if now.get(name) != profile.identity:
            message = f"{folder} was built anew while {name} was measured; nothing was stored"
            hint = "run `deployc profile` again"
            raise ArtifactError(message, hint=hint, code="profile_stale")


def carried(old: Path, manifest: Manifest) -> Files:
    """The profiles of the artifact in ``old`` that hold for a new build of it as well.

    A profile holds where the variant's files, engine, device, options and shapes are the same.
    What is torn, changed, or of another version is left behind.

    Args:
        old: the folder that the new build will replace; there may be no artifact in it.
        manifest: that of the new build, before these files are part of it.
    """
    try:
        before = read_manifest(old)
    except ArtifactError:
        return {}
    names = [variant.name for variant in manifest.variants]
    held = {name for name in names if _holds(old, before, manifest, name)}
    return {profile_path(name): old / profile_path(name) for name in sorted(held)}


def _holds(old: Path, before: Manifest, manifest: Manifest, name: str) -> bool:
    path = profile_path(name)
    entry = before.files.get(path)
    try:
        if entry is None or file_sha256(old / path) != entry.sha256:
            return False
        profile = read_profile(old, name)
    except (OSError, ArtifactError):
        return False
    variant = next(variant for variant in manifest.variants if variant.name == name)
    return profile is not None and profile.identity == identity(manifest, variant)


def open_artifact(folder: Path) -> Manifest:
    """The manifest of an artifact whose files are those that were built."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest


def redraw(folder: Path, output: Path | None) -> Path:
    """Draw the artifact's report into the artifact, or into the file ``output``; where it lies.

    Raises:
        ArtifactError: the artifact is torn or changed, or a profile in it cannot be read.
        DeploycError: ``output`` cannot be written.
        OSError: the disk refuses.
    """
    if output is not None:
        text = render_folder(folder, open_artifact(folder))
        try:
            output.write_text(text, "utf-8")
        except OSError as error:
            message = f"{output} cannot be written: {error.strerror}"
            hint = "name a file, in a folder that is there, with -o"
            raise DeploycError(message, hint=hint, code="output") from error
        return output
    amend(folder, lambda manifest: {REPORT: render_folder(folder, manifest).encode()})
    return folder / REPORT
