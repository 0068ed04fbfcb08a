"""``build``: from a spec to an artifact, stage by stage, each run only where something changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.choose import build_target
from compiler.describe import describe, resolved
from compiler.disk import disk_errors
from compiler.placement.golden_items import GOLDEN_FILES
from compiler.profile.store import carried
from compiler.progress import Reporter
from compiler.publish import Files, check_place, publish
from compiler.report import REPORT, drawn_with, render
from compiler.stages import Stages, graph_files, writer
from compiler.targets import chosen
from compiler.variants import Proven, audit_path
from specs.audit import Audit
from specs.gate import Gate
from specs.loader import LoadedSpec
from specs.manifest import Choice, Manifest
from specs.profile import Profile, profile_path
from specs.schema import Target, Weights

__all__ = ["BuildResult", "build"]


@dataclass(frozen=True)
class BuildResult:
    """What a build gave.

    Args:
        folder: the artifact.
        manifest: its manifest.
        written: False where this very artifact was there already.
    """

    folder: Path
    manifest: Manifest
    written: bool


def build(
    loaded: LoadedSpec,
    destination: Path,
    *,
    reporter: Reporter,
    targets: Sequence[str] = (),
    weights: Weights | None = None,
) -> BuildResult:
    """Build, prove and write an artifact.

    Args:
        loaded: the spec, from ``specs.load_spec``.
        destination: the artifact's folder, replaced as a whole or not at all.
        reporter: shows the stages.
        targets: names of the targets to build; all of the spec's by default.
        weights: takes the place of the spec's ``weights``.

    Raises:
        DeploycError: the first thing that is not as the spec asks.
    """
    stages = Stages(loaded, reporter, weights)
    wanted = chosen(loaded.spec, targets)
    with disk_errors():
        check_place(destination)  # before the work, and again when it is done
        manifest, files = _assemble(stages, wanted, destination)
        with reporter.step("write") as step:
            written = publish(destination, files, manifest)
            step.cached, step.detail = not written, str(destination)
    return BuildResult(destination, manifest, written)


def _assemble(
    stages: Stages, wanted: Sequence[Target], destination: Path
) -> tuple[Manifest, Files]:
    """Run all stages; the manifest and the files that it names."""
    stages.run()
    proven: dict[str, Proven] = {}
    choices: list[Choice] = []
    for target in wanted:
        found, choice = build_target(stages, target)
        for each in found:  # `auto` may come to what another target has named: the first stays
            proven.setdefault(each.variant.name, each)
        choices += [choice] if choice else []
    files = _shared_files(stages)
    for each in proven.values():
        files |= each.files
    variants = [each.variant for each in proven.values()]
    found = (variants, choices, _gates(stages, list(proven.values())))
    # What was measured of the very same variants holds for this build as well.
    files |= carried(destination, describe(stages, *found, files=files))
    files[REPORT] = _report(stages, describe(stages, *found, files=files), files)
    return describe(stages, *found, files=files), files


def _gates(stages: Stages, proven: Sequence[Proven]) -> list[Gate]:
    """What was found of every execution of the processing; none where there is none."""
    shared = [stages.gate] if stages.spec.preprocess or stages.spec.postprocess else []
    return shared + [each.gate for each in proven if each.gate]


def _report(stages: Stages, manifest: Manifest, files: Files) -> Path:
    """``report.html``, drawn anew only where something that it shows has changed."""

    def make(folder: Path) -> dict[str, Any]:
        names = [variant.name for variant in manifest.variants]
        profiles = {
            name: Profile.model_validate_json(files[profile_path(name)].read_text("utf-8"))
            for name in names
            if profile_path(name) in files
        }
        audits = {
            name: Audit.model_validate_json(files[audit_path(name)].read_text("utf-8"))
            for name in names
        }
        (folder / REPORT).write_text(render(manifest, profiles, audits), "utf-8")
        return {}

    shown = {
        "manifest": manifest.model_dump(mode="json", by_alias=True),
        "drawn_with": drawn_with(),
    }
    return stages.stage("report", "report", shown, make).folder / REPORT


def _shared_files(stages: Stages) -> Files:
    """Everything outside ``variants/``."""
    text = resolved(stages)
    stage = stages.store.run("spec", {"text": text}, writer({"spec.yaml": text}))
    files: Files = {"spec.yaml": stage.folder / "spec.yaml"}
    files |= {path.name: path for path in graph_files(stages.graph)}
    files |= {name: stages.processing_stage.folder / name for name in stages.processing_files}
    folder = f"golden/{GOLDEN_FILES.get(stages.generated.takes, '')}"
    files |= {f"{folder}/{name}": path for name, path in stages.golden_files.items()}
    return files | {f"golden/{path.name}": path for path in stages.golden.iterdir()}
