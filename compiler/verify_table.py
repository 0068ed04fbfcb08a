"""What ``deployc verify`` shows a person."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from compiler.verify import CaseResult, Verified
from specs.audit import Drift, LayerDrift

if TYPE_CHECKING:
    from compiler.audit.layers import LayersFound

__all__ = ["print_layers", "print_variants"]

PIPE_WIDTH = 200
WIDE = 110
"""Width from which there is room for two names."""
FIGURES = 47
"""Width of the columns beside the names."""
PLAIN = (100, 1e6)
"""Numbers in this range are written without an exponent."""


def _console() -> Console:
    # Into a pipe nothing is cut to the 80 columns that Rich assumes there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, markup=False, width=width)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        left = column in {"case", "layer", "node", "type", ""}
        # Names may be cut where the terminal is narrow, numbers never.
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    return table


def print_variants(folder: str, results: Sequence[Verified]) -> None:
    """The cases of every variant, and the variants that were not run, with the reason."""
    console = _console()
    console.print(f"{folder}: every file is the one that was built", soft_wrap=True)
    for result in results:
        state = result.state.replace("_", " ")
        told = f"{state}: {result.reason}" if result.reason else f"{state} ({result.details})"
        console.print(f"\n{result.variant.name}: {told}", soft_wrap=True)
        if result.hint:
            console.print(f"  hint: {result.hint}", soft_wrap=True)
        if result.cases:
            console.print(_cases(result))
        for case in result.cases:
            if case.failed:
                console.print(f"  {case.case}: {case.reason}", soft_wrap=True)


def _cases(result: Verified) -> Table:
    table = _table("case", "largest difference", "of the tolerance", "")
    for case in result.cases:
        table.add_row(case.case, *_figures(case), "<- beyond" if case.failed else "")
    return table


def _figures(case: CaseResult) -> tuple[str, str]:
    if case.error:
        return "", ""
    share = f"{100 * case.gap.excess:.2g} %" if math.isfinite(case.gap.excess) else "beyond"
    return f"{case.gap.max_abs:.2g}", share if case.judged else "no tolerance"


def print_layers(folder: str, found: Mapping[str, LayersFound]) -> None:
    """Every layer of every variant, in the graph's order, the first divergence marked."""
    console = _console()
    console.print(f"{folder}: every file is the one that was built", soft_wrap=True)
    for name, each in found.items():
        if each.drift is None:
            console.print(f"\n{name}: not run: {each.reason}", soft_wrap=True)
            continue
        drift = each.drift
        about = f"{drift.graph} against {drift.reference}, {drift.case}"
        console.print(f"\n{name}: {about}", soft_wrap=True)
        for line in filter(None, (each.note, drift.how)):
            console.print(f"  {line}", soft_wrap=True)
        console.print(f"  a layer may differ by: {drift.rule}", soft_wrap=True)
        console.print(_layers(drift, console.width))
        console.print(_summary(drift), soft_wrap=True)


def _layers(drift: Drift, width: int) -> Table:
    """The layers; where the reference is the model, with the node that gave the nearest tensor."""
    steps = drift.reference != "the fp32 graph"
    names = ["layer", "node"] if steps and width >= WIDE else ["layer"]
    table = _table(*names, "type", "max", "relative", "excess", "")
    for column, name in zip(table.columns, names, strict=False):
        column.overflow = "ellipsis"
        column.max_width = max((width - FIGURES) // len(names) - 2, len(name))
    for layer in drift.layers:
        told = [layer.name, layer.node] if steps else [layer.node]
        figures = (_number(layer.max_abs), _number(layer.relative), _number(layer.excess))
        table.add_row(*told[: len(names)], layer.dtype, *figures, _mark(layer, drift))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "NaN/inf"
    return f"{value:.0f}" if PLAIN[0] <= value < PLAIN[1] else f"{value:.2g}"


def _mark(layer: LayerDrift, drift: Drift) -> str:
    if layer.name == drift.first:
        return "<- first"
    if layer.name == drift.worst:
        return "<- worst"
    return "beyond" if layer.beyond else ""


def _summary(drift: Drift) -> str:
    beyond = sum(layer.beyond for layer in drift.layers)
    left_out = f", {drift.not_compared} not compared" if drift.not_compared else ""
    told = f"{len(drift.layers)} layers{left_out}; {beyond} beyond what they may differ by"
    return f"  {told}; first divergence: {drift.divergence}" if drift.first else f"  {told}"
