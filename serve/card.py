"""A model's entry in ``GET /models``."""

from __future__ import annotations

from typing import Any

from serve.derive import Evidence
from serve.tuning import Tuning
from serve.warmup import WarmUp, off_profile
from specs.manifest import Manifest, Variant

__all__ = ["describe"]


def describe(
    manifest: Manifest, variant: Variant, name: str, tuning: Tuning, warm: WarmUp | None
) -> dict[str, Any]:
    """What there is to say of a model that is served, all but its state."""
    profile = tuning.profile
    off = off_profile(warm.ms(), profile) if warm and profile else []
    limits = tuning.limits
    inputs, outputs = variant.inputs or manifest.inputs, variant.outputs or manifest.outputs
    axes = {**manifest.axes, **variant.axes}
    return {
        "name": name,
        "description": manifest.description,
        "takes": manifest.takes,
        "answer": manifest.answer,
        "answer_schema": manifest.answer_schema,
        "inputs": {name: each.model_dump() for name, each in inputs.items()},
        "outputs": {name: each.model_dump() for name, each in outputs.items()},
        "axes": {name: each.model_dump() for name, each in axes.items()},
        "batch": {"min": manifest.batch.min, "max": limits.max_batch.value},
        "limits": manifest.limits.model_dump(),
        "variant": {
            "name": variant.name,
            "engine": variant.engine,
            "device": variant.device,
            "precision": variant.precision,
        },
        "serving": limits.to_json(),
        "curve": _curve(tuning.evidence),
        "warnings": [*manifest.warnings(), *limits.warnings, *tuning.warnings, *map(str, off)],
        **({"warm_up": warm.to_json(profile)} if warm else {}),
    }


def _curve(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    curve = evidence.curve
    pairs = zip(curve.sizes, curve.ms, strict=True)
    times = {str(size): round(ms, 3) for size, ms in pairs}
    about = {"source": evidence.source, "fixed": curve.fixed}
    return {**about, "hop_ms": round(evidence.hop_ms, 3), "ms": times}
