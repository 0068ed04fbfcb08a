"""Drift of every variant of an artifact: which of its graphs is compared with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from compiler.audit.drift import Probe, Rule, graph_drift, probe_of
from runtime.golden import GOLDEN, read_golden
from specs.audit import Drift
from specs.errors import ArtifactError, EngineError
from specs.manifest import Manifest, Variant
from specs.precision import TolerancePair
from specs.schema import Spec

if TYPE_CHECKING:
    from compiler.sources import Model

__all__ = ["LayersFound", "Original", "variant_layers"]

MODEL = "model.onnx"


@dataclass(frozen=True)
class Original:
    """What the artifact was built from.

    Args:
        spec: its spec.
        model: loads the model.
    """

    spec: Spec
    model: Callable[[], Model]


@dataclass(frozen=True)
class LayersFound:
    """The drift of one variant.

    Args:
        drift: None where it could not be measured.
        reason: why not; "" otherwise.
        note: what a person must know of the comparison.
    """

    drift: Drift | None
    reason: str = ""
    note: str = ""


def variant_layers(
    folder: Path, manifest: Manifest, variant: Variant, original: Original | None
) -> LayersFound:
    """Compare the layers of a variant's graph with the fp32 graph's, or those with the model's.

    Args:
        folder: the artifact.
        manifest: its manifest.
        variant: a variant of it.
        original: what it was built from, where that is at hand.

    Raises:
        ArtifactError: the golden tensors cannot be read.
        DeploycError: the model of ``original`` cannot be loaded.
    """
    if variant.placement == "graph":
        why = "its graph holds the steps of processing as well, whose proof is the gate's"
        return LayersFound(None, why)
    graph = _graph_of(manifest, variant)
    if graph == MODEL and original is None:
        why = (
            "it runs the fp32 graph itself"
            if variant.file == MODEL
            else "it has no graph of its own"
        )
        return LayersFound(None, f"{why}; --spec SPEC compares the fp32 graph with its model")
    note = ""
    if graph != variant.file:
        its = "the portable fp32 graph" if graph == MODEL else f"{graph}, which it was made from,"
        note = f"{variant.file} lacks tensors: {its} is compared"
    try:
        probe = _probe(folder)
        if graph == MODEL and original is not None:
            return LayersFound(_against_model(folder, variant, original, probe), note=note)
        rule = Rule(variant.tolerance)
        return LayersFound(
            graph_drift(folder / graph, folder / MODEL, probe, rule, graph), "", note
        )
    except EngineError as error:
        return LayersFound(None, f"{graph} cannot be run node by node on the CPU: {error.message}")


def _graph_of(manifest: Manifest, variant: Variant) -> str:
    """The ONNX graph that the engine took: beside its file, the file itself, or the portable one.

    What an engine has optimised lacks most tensors, so that the graph before it is preferred.
    """
    own = PurePosixPath("variants", variant.name)
    beside = (name for name in sorted(manifest.files) if PurePosixPath(name).parent == own)
    graphs = [name for name in beside if name.endswith(".onnx") and name != variant.file]
    return next(iter(graphs), variant.file if variant.file.endswith(".onnx") else MODEL)


def _probe(folder: Path) -> Probe:
    golden = next(read_golden(folder / GOLDEN), None)
    if golden is None:
        message = f"{folder} has no golden case to run"
        raise ArtifactError(message, hint="run `deployc build SPEC` again", code="golden_missing")
    return probe_of(golden)


def _against_model(folder: Path, variant: Variant, original: Original, probe: Probe) -> Drift:
    from compiler.audit.steps import model_drift

    spec = original.spec
    tolerance = variant.tolerance if variant.precision == "fp32" else None
    pair = tolerance or TolerancePair(atol=spec.verify.atol, rtol=spec.verify.rtol)
    return model_drift(original.model(), folder / MODEL, spec, probe, pair)
