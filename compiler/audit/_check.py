"""Refuses a variant that is not what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.engines import BuildTarget
from specs.audit import Audit, Placement, PrecisionShare
from specs.errors import AuditError
from specs.schema import Spec

__all__ = ["check"]

SHOWN = 5
"""How many nodes a message names."""


def check(audit: Audit, target: BuildTarget, spec: Spec) -> None:
    """Hold what was found to the bounds of ``verify``.

    Args:
        audit: what ``audit`` found. Its own bounds are those of the build that made it.
        target: what was asked.
        spec: for ``verify.max_nodes_off_device`` and ``verify.min_precision_share``.

    Raises:
        AuditError: too many nodes run elsewhere (``placement``), or too little is computed in the
            type that was asked for (``precision``); with the figures.
    """
    verify = spec.verify
    placement = audit.placement.model_copy(update={"allowed": verify.max_nodes_off_device})
    if not placement.passed:
        raise _misplaced(placement, target)
    precision = audit.precision.model_copy(update={"floor": verify.min_precision_share})
    if not precision.passed:
        raise _mistyped(precision, target)


def _misplaced(placement: Placement, target: BuildTarget) -> AuditError:
    count, whole = placement.off_device, sum(placement.devices.values())
    where = ", ".join(device for device in placement.devices if device != placement.asked)
    verb = "runs" if count == 1 else "run"
    message = (
        f"{target.name}: {placement.asked} was asked for; {count} of {whole} nodes {verb} on "
        f"{where}, {placement.allowed} may: {_some(placement.off_device_names, count)}"
    )
    hint = (
        f"{target.engine} has no kernel on {placement.asked} for them: another opset or exporter "
        "may give other ops; or raise verify.max_nodes_off_device"
    )
    return AuditError(message, hint=hint, code="placement")


def _mistyped(precision: PrecisionShare, target: BuildTarget) -> AuditError:
    asked = precision.asked
    found = ", ".join(f"{_percent(share)} in {name}" for name, share in precision.shares.items())
    message = (
        f"{target.name}: {asked} was asked for; {_percent(precision.share or 0.0)} of the "
        f"computation is in {asked} ({found}), the floor is {_percent(precision.floor)}; "
        f"{precision.source}"
    )
    if precision.kept:
        kept = _some(precision.kept, len(precision.kept))
        message += f"\n  kept in fp32, for they would be wrong in {asked}: {kept}"
    return AuditError(message, hint=_remedy(precision, target), code="precision")


def _remedy(precision: PrecisionShare, target: BuildTarget) -> str:
    lower = "or lower verify.min_precision_share"
    asked = precision.asked
    if asked in precision.shares and precision.kept:
        return f"ask for another precision, loosen verify.tolerance.{asked}, {lower}"
    if target.device == "cpu" and asked in {"fp16", "bf16"}:
        why = f"{target.engine} casts to fp32 where it has no {asked} kernel for the CPU"
        return f"{why}: ask for fp32 or int8, or for device: cuda, {lower}"
    if asked == "int8":
        return f"see the conversion's notes and quantize.exclude; {lower}"
    return f"ask for the precision that it computes in, {lower}"


def _some(names: Sequence[str], count: int) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    more = count - len(names[:SHOWN])
    return f"{shown} and {more} more" if more else shown


def _percent(share: float) -> str:
    """``90 %``; a share below 100 % never rounds up to it, nor one above 0 % down."""
    exact = 100 * share
    if exact not in {0.0, 100.0}:
        exact = min(max(exact, 0.1), 99.9)
    return f"{exact:.3g} %"
