"""``report.html``: one self-contained page of what an artifact is, and what was proven of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from runtime.profile import read_profile
from specs.audit import Audit
from specs.digests import file_sha256
from specs.errors import ArtifactError
from specs.manifest import Manifest
from specs.profile import Profile

__all__ = ["REPORT", "drawn_with", "lacking", "render", "render_folder"]

REPORT = "report.html"
"""Its path in an artifact."""
AUDIT = "audit.json"
NEEDED = ("jinja2", "matplotlib")


def lacking() -> tuple[str, ...]:
    """Packages that drawing needs and that are not installed; a serving machine has neither."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)


def drawn_with() -> dict[str, str]:
    """What the page depends on besides its arguments and deployc's Python code, by name."""
    folder = Path(__file__).parent
    own = {name: file_sha256(folder / name) for name in ("report.html.j2", "style.css")}
    return own | {name: version(name) for name in NEEDED}


def render(manifest: Manifest, profiles: Mapping[str, Profile], audits: Mapping[str, Audit]) -> str:
    """The page. The same arguments give the same bytes; nothing else is read.

    Args:
        manifest: the artifact's; an entry of the page itself in ``files`` is not looked at.
        profiles: by the variant's name; a variant without one is said to be unmeasured.
        audits: by the variant's name; a variant without one is said to be unaudited.

    Raises:
        ModuleNotFoundError: a package of ``lacking()`` is needed.
    """
    from compiler.report.page import page

    return page(manifest, profiles, audits)


def render_folder(
    folder: Path,
    manifest: Manifest,
    profiles: Mapping[str, Profile] | None = None,
    audits: Mapping[str, Audit] | None = None,
) -> str:
    """The page of an artifact, with the profiles and audits that lie in it.

    Args:
        folder: the artifact.
        manifest: its manifest.
        profiles: take the place of those in the folder.
        audits: take the place of those in the folder.

    Raises:
        ArtifactError: a profile or an audit cannot be read.
    """
    names = [variant.name for variant in manifest.variants]
    found = {name: (profiles or {}).get(name) or read_profile(folder, name) for name in names}
    told = {name: (audits or {}).get(name) or _audit(folder, name) for name in names}
    return render(
        manifest,
        {name: profile for name, profile in found.items() if profile},
        {name: audit for name, audit in told.items() if audit},
    )


def _audit(folder: Path, variant: str) -> Audit | None:
    path = folder / "variants" / variant / AUDIT
    try:
        return Audit.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        message = f"{path} is no valid audit: {error}"
        hint = "run `deployc build SPEC` again"
        raise ArtifactError(message, hint=hint, code="audit_invalid") from error
