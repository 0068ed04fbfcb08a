"""Refuses what the gate found; torch is not needed for that."""

from __future__ import annotations

from specs.errors import ProcessingError
from specs.gate import CHAIN, Gate, StepGap

__all__ = ["check"]

ROUNDING = 1.01
"""What float32 adds to a whole level."""


def check(gate: Gate) -> None:
    """Raise ``ProcessingError`` where an execution is not the reference's."""
    for gap in gate.gaps:
        if gate.unbounded(gap):
            continue
        bound = gate.bound if gap.stage == "preprocess" else 1.0
        if gap.worst > bound * ROUNDING:
            raise ProcessingError(_message(gate, gap, bound), hint=_HINTS[gate.execution])


def _message(gate: Gate, gap: StepGap, bound: float) -> str:
    where = f" on {gate.where}" if gate.where else ""
    what = "all steps together" if gap.step.startswith(CHAIN) else f"step '{gap.step}'"
    levels = gap.stage == "preprocess" and gate.unit == "grey levels"
    unit = "grey levels" if levels else f"times {_TOLERANCE}"
    return (
        f"{gap.stage}: {what} in {_WORDS[gate.execution]}{where} differs from its reference by "
        f"{gap.worst:.3g} {unit} on '{gap.item}', at most {bound:g} is allowed"
    )


_TOLERANCE = "(1e-5 + 1e-4 * |value|)"
_WORDS = {"python": "generated Python", "graph": "the graph"}
_HINTS: dict[str, str] = {
    "python": "a library here computes otherwise: compare the versions that `deployc doctor` shows",
    "graph": "use placement: python for this target",
}
