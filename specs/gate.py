"""What the gate of pre- and post-processing found: how far executions lie apart."""

from __future__ import annotations

from typing import Literal

from specs.base import Frozen

__all__ = ["CHAIN", "PLAIN_CHAIN", "Execution", "Gate", "StepGap"]

CHAIN = "chain"
"""Name of all steps together in ``StepGap.step``."""
PLAIN_CHAIN = "chain, numpy and Pillow alone"
"""The same, where a faster library is installed, without it."""

Execution = Literal["python", "graph"]


class StepGap(Frozen):
    """The largest distance of one step, or of the chain, from its reference over all items.

    Pixels count in grey levels of 255, whatever the step made of them; numbers of an answer in
    units of ``1e-5 + 1e-4 * |reference|``.
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
    """Most grey levels that ``worst`` may be."""
    items: int
    """Items that were compared."""
    refused: tuple[str, ...] = ()
    """Items that the pre-processing refuses with a clear error, so that nothing was compared."""
    gaps: tuple[StepGap, ...]
    exact: bool = True
    """False where a step is not to give its reference's pixels (``decode_image: {scaled: true}``):
    the chain is then measured, and held to no bound."""
    not_compared: tuple[str, ...] = ()
    """Steps that were not compared on their own."""

    @property
    def chain(self) -> StepGap | None:
        """The gap of all steps of ``preprocess`` together."""
        found = (g for g in self.gaps if (g.stage, g.step) == ("preprocess", CHAIN))
        return next(found, None)
