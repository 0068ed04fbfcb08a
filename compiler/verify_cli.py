"""``deployc verify``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from compiler.verify import CaseResult, Verified, open_artifact, verify_variant
from compiler.verify_table import print_layers, print_variants
from specs.digests import file_sha256
from specs.errors import AuditError, DeploycError, EngineError, ParityError
from specs.manifest import MANIFEST, Manifest, Variant

if TYPE_CHECKING:
    from compiler.audit.layers import LayersFound, Original

__all__ = ["verify"]

FILE = click.Path(path_type=Path)


@dataclass(frozen=True)
class _Options:
    """The options that belong to ``--layers``."""

    spec: Path | None
    weights: str | None
    plot: Path | None


@click.command(short_help="Check an artifact against its golden tensors.")
@click.argument("artifact", type=FILE)
@click.option("--variant", help="Verify this variant alone.")
@click.option("--layers", is_flag=True, help="Compare every intermediate tensor instead.")
@click.option("--spec", type=FILE, help="With --layers: compare the fp32 graph with its model.")
@click.option("--weights", metavar="FILE|random:SEED", help="With --spec: as in the build.")
@click.option("--plot", type=FILE, help="With --layers: draw the drift into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--out", type=FILE, help="Write the result as JSON into this file.")
def verify(  # noqa: PLR0913 - one argument per option
    artifact: Path,
    *,
    variant: str | None,
    layers: bool,
    spec: Path | None,
    weights: str | None,
    plot: Path | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Check ARTIFACT where it lies: every file's hash, then every variant on the golden tensors.

    A variant that cannot run here is told as not run; it does not fail, but where none can run,
    nothing was verified, and the exit status is 1. Needs neither torch nor onnx.

    With --layers, every intermediate tensor of a converted graph is compared with the fp32
    graph's instead, and the first layer beyond tolerance is marked. --spec compares the fp32 graph
    with the model that it was exported from.
    """
    options = _Options(spec, weights, plot)
    _check_usage(options, layers=layers)
    manifest, variants = open_artifact(artifact, variant)
    about = {"artifact": str(artifact), "digest": file_sha256(artifact / MANIFEST)}
    if layers:
        _layers(artifact, manifest, variants, options, _Sink(about, out, as_json=as_json))
    else:
        _outputs(artifact, manifest, variants, _Sink(about, out, as_json=as_json))


def _check_usage(options: _Options, *, layers: bool) -> None:
    given = {"--spec": options.spec, "--plot": options.plot, "--weights": options.weights}
    for name, value in given.items():
        if value is not None and not layers:
            raise click.UsageError(f"{name} belongs to --layers")
    if options.weights is not None and options.spec is None:
        raise click.UsageError("--weights belongs to --spec")


@dataclass(frozen=True)
class _Sink:
    """Where the result goes, besides the table."""

    about: dict[str, Any]
    out: Path | None
    as_json: bool

    def write(self, data: dict[str, Any]) -> None:
        text = json.dumps({**self.about, **data}, indent=1, ensure_ascii=False)
        if self.as_json:
            click.echo(text)
        if self.out is not None:
            try:
                self.out.write_text(text + "\n", "utf-8")
            except OSError as error:
                message = f"{self.out} cannot be written: {error.strerror}"
                raise DeploycError(message, code="output") from error


def _outputs(folder: Path, manifest: Manifest, variants: Sequence[Variant], sink: _Sink) -> None:
    results = [verify_variant(folder, manifest, variant) for variant in variants]
    failed = [result for result in results if result.state == "failed"]
    ran = [result for result in results if result.state != "not_run"]
    passed = bool(ran) and not failed
    sink.write({"passed": passed, "variants": [_as_json(result) for result in results]})
    if not sink.as_json:
        print_variants(str(folder), results)
    if failed:
        raise _beyond(failed)
    if not ran:
        raise EngineError(
            f"nothing was verified: no variant of {folder} can run here",
            hint=next((result.hint for result in results if result.hint), ""),
            code="verify_nothing",
        )


def _beyond(failed: Sequence[Verified]) -> ParityError:
    lines = [
        f"{result.variant.name} ({case.case}): {case.reason}"
        for result in failed
        for case in result.cases
        if case.failed
    ]
    message = "the artifact does not answer as it did when it was built:\n  " + "\n  ".join(lines)
    hint = (
        "`deployc verify --layers` shows where a converted graph leaves the fp32 one; build again"
    )
    return ParityError(message, hint=hint, code="verify")


def _as_json(result: Verified) -> dict[str, Any]:
    tolerance = result.variant.tolerance
    return {
        "variant": result.variant.name,
        "state": result.state,
        "reason": result.reason,
        "details": result.details,
        "tolerance": tolerance.model_dump() if tolerance else None,
        "cases": [_case_json(case) for case in result.cases],
    }


def _case_json(case: CaseResult) -> dict[str, Any]:
    return {
        "case": case.case,
        "failed": case.failed,
        "reason": case.reason,
        "max_abs": None if case.error else _finite(case.gap.max_abs),
        "max_excess": _finite(case.gap.excess) if case.judged and not case.error else None,
    }


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None


def _layers(
    folder: Path,
    manifest: Manifest,
    variants: Sequence[Variant],
    options: _Options,
    sink: _Sink,
) -> None:
    from compiler.audit.layers import variant_layers

    original = None if options.spec is None else _original(options, manifest)
    found = {each.name: variant_layers(folder, manifest, each, original) for each in variants}
    judged = {each.name for each in variants if each.tolerance is not None}
    beyond = [name for name in judged if (drift := found[name].drift) and drift.first]
    ran = any(each.drift for each in found.values())
    told = [_layers_json(name, each, judged=name in judged) for name, each in found.items()]
    sink.write({"passed": ran and not beyond, "variants": told})
    if not sink.as_json:
        print_layers(str(folder), found)
    _draw(manifest, found, options.plot)
    if beyond:
        raise _drifted({name: found[name] for name in found if name in beyond})
    if not ran:
        reasons = "\n  ".join(f"{name}: {each.reason}" for name, each in found.items())
        message = f"no layer was compared:\n  {reasons}"
        raise AuditError(message, hint="name the spec with --spec", code="verify_nothing")


def _original(options: _Options, manifest: Manifest) -> Original:
    """The model that the artifact was built from, held to the manifest before it is loaded."""
    from compiler.audit.original import original_of
    from compiler.weights import parse_override

    assert options.spec is not None  # noqa: S101 - the caller has looked
    override = None if options.weights is None else parse_override(options.weights)
    return original_of(options.spec, override, manifest)


def _layers_json(name: str, found: LayersFound, *, judged: bool) -> dict[str, Any]:
    drift = found.drift
    state = "not_run" if drift is None else "measured"
    if drift is not None and judged:
        state = "failed" if drift.first else "passed"
    return {
        "variant": name,
        "state": state,
        "reason": found.reason,
        "note": found.note,
        "drift": drift.model_dump(mode="json") if drift else None,
    }


def _draw(manifest: Manifest, found: dict[str, LayersFound], out: Path | None) -> None:
    drifts = {name: each.drift for name, each in found.items() if each.drift is not None}
    if out is None or not drifts:
        return
    from compiler.audit.plot import plot_drift

    plot_drift(drifts, f"{manifest.name}: drift by layer", out)
    click.echo(f"plot: {out}", err=True)


def _drifted(found: dict[str, LayersFound]) -> AuditError:
    lines = [f"{name}: {each.drift.divergence}" for name, each in found.items() if each.drift]
    message = "a layer is beyond tolerance though what it takes is not:\n  " + "\n  ".join(lines)
    hint = (
        "keep that node in fp32 (quantize.exclude for int8), or loosen verify.tolerance where the "
        "outputs are right"
    )
    return AuditError(message, hint=hint, code="drift")


if __name__ == "__main__":
    sys.exit(verify())
