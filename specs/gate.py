"""What the gate of pre- and post-processing found: how far executions lie apart."""

from __future__ import annotations

from typing import Literal

from specs.base import Frozen

__all__ = ["CHAIN", "PLAIN_CHAIN", "Execution", "Gate", "StepGap", "Unit"]

CHAIN = "chain"
"""Name of all steps together in ``StepGap.step``."""
PLAIN_CHAIN = "chain, numpy and Pillow alone"
"""The same, where a faster library is installed, without it."""

Execution = Literal["python", "graph"]
Unit = Literal["grey levels", "tolerance"]


class StepGap(Frozen):
    """The largest distance of one step, or of the chain, from its reference over all items.

    Pixels count in grey levels of 255, whatever the step made of them; sounds, and numbers of an
    answer, in units of ``1e-5 + 1e-4 * |reference|``.
    """

    stage: Literal["preprocess", "postprocess"]
    step: str
    """The op's name, or ``chain``."""
    worst: float
    mean: float
    """Mean over all elements of the worst item."""
    item: str
    """The item where it is worst."""


class Gate(Frozen):
    """One execution, held to the reference."""

    execution: Execution
    where: str = ""
    """The variant whose engine ran the graph; "" for Python."""
    bound: float
    """Most that ``worst`` may be in ``preprocess``, in ``unit``."""
    unit: Unit = "grey levels"
    """What distances in ``preprocess`` count in; in ``postprocess`` it is always the tolerance."""
    items: int
    """Items that were compared."""
    refused: tuple[str, ...] = ()
    """Items that the pre-processing refuses with a clear error, so that nothing was compared."""
    gaps: tuple[StepGap, ...]
    exact: bool = True
    """False where a step is not to give its reference's pixels (``decode_image: {scaled: true}``):
    the chain is then measured, and held to no bound."""
    own_code: bool = False
    """Whether the spec's own code (``python``) is among the steps of ``preprocess``: it may make a
    rounding that a faster library is allowed as large as it likes."""
    not_compared: tuple[str, ...] = ()
    """Steps that were not compared on their own."""

    def unbounded(self, gap: StepGap) -> str:
        """Why ``gap`` is measured and held to no bound; "" where it is held to one."""
        if not gap.step.startswith(CHAIN):
            return ""
        if not self.exact:
            return "scaled on request"
        # Without the faster libraries there is no rounding: that chain keeps its bound.
        plain = any(each.step == PLAIN_CHAIN for each in self.gaps)
        free = self.own_code and plain and gap.step == CHAIN
        return "through the spec's own code" if free else ""

    @property
    def chain(self) -> StepGap | None:
        """The gap of all steps of ``preprocess`` together."""
        found = (g for g in self.gaps if (g.stage, g.step) == ("preprocess", CHAIN))
        return next(found, None)
