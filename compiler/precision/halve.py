"""fp16 and bf16: the graph converted, with the nodes that would be wrong kept in fp32."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto

from compiler.graph import save
from compiler.precision._base import Converted, Request
from compiler.precision._born import born_of_integers
from compiler.precision._graphs import inferred, prepared, write
from compiler.precision._narrow import Narrowed, narrow
from compiler.precision._opset import raised
from compiler.precision._ranges import beyond
from compiler.precision._search import TooManyRuns, smallest
from compiler.precision.emulate import emulate
from specs.engines import Precision
from specs.errors import ParityError

__all__ = ["MAX_RUNS", "halve"]

DTYPES: dict[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
MAX_RUNS = 60
"""How often the search runs the golden cases. One needed node costs about log2 of the graph's
nodes, its neighbours two or three runs each."""


def halve(request: Request) -> Converted:
    """Convert to fp16 or bf16.

    Whether a conversion holds is judged by ``request.excess`` on its emulation.

    Raises:
        ExportError: the converted graph would be no valid ONNX, or needs an opset that it cannot
            be raised to; code ``precision``.
        ParityError: the fp32 graph is beyond tolerance itself, or ``MAX_RUNS`` runs found no set
            of nodes to keep; code ``precision_parity``.
    """
    dtype = DTYPES[request.precision]
    proto, notes = raised(prepared(request.graph), dtype)
    trial = _Trial(request, proto, dtype, born_of_integers(inferred(proto).graph))
    found = _needed(trial)
    result = trial.converted(found)
    file = f"{request.graph.stem}.{request.precision}.onnx"
    write(result.proto, request.folder / file)
    kept = [n.name for n in proto.graph.node if n.name in trial.lost | found]
    inner = sorted((trial.lost | found) - set(kept))
    return Converted(file, (*kept, *inner), (*notes, *_notes(trial, result)))


@dataclass
class _Trial:
    """Tries conversions of one graph.

    Args:
        born: nodes that stay in fp32 in any case.
        lost: nodes with weights that the type cannot hold; they stay in fp32, too.
        excess: what the last one that was judged came to.
    """

    request: Request
    proto: onnx.ModelProto
    dtype: int
    born: frozenset[str]
    lost: frozenset[str] = field(default=frozenset())
    excess: float = 0.0

    def converted(self, keep: Collection[str]) -> Narrowed:
        """The graph with these nodes kept, and those whose weights would be lost."""
        result = narrow(self.proto, self.dtype, self.born | self.lost | frozenset(keep))
        if not result.lost:
            return result
        self.lost |= frozenset(result.lost)
        return self.converted(keep)

    def holds(self, keep: frozenset[str]) -> bool:
        """Whether the golden cases are within tolerance with these nodes kept."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "emulated.onnx")
            save(emulate(self.converted(keep).proto), file, external=None)
            self.excess = self.request.excess(file)
        return self.excess <= 1


def _needed(trial: _Trial) -> frozenset[str]:
    """The nodes that must stay in fp32 for the golden cases to hold."""
    if trial.holds(frozenset()):
        return frozenset()
    first = trial.excess
    nodes = trial.converted(()).changed
    if not trial.holds(frozenset(nodes)):
        raise _unfit(trial)
    wide = _beyond(trial, nodes)
    if wide and trial.holds(wide):
        return wide
    try:
        rest = [name for name in nodes if name not in wide]
        more = smallest(rest, lambda keep: trial.holds(keep | wide), MAX_RUNS - 3)
    except TooManyRuns as many:
        raise _endless(trial, first, sorted({*wide, *many.found})) from many
    return wide | frozenset(more)


def _beyond(trial: _Trial, nodes: Collection[str]) -> frozenset[str]:
    golden = trial.request.golden
    if golden is None:
        return frozenset()
    return beyond(trial.proto, trial.dtype, golden()) & frozenset(nodes)


def _unfit(trial: _Trial) -> ParityError:
    message = (
        f"{trial.request.precision}: even with every node in fp32 the outputs are "
        f"{trial.excess:.3g} times beyond verify.tolerance.{trial.request.precision}"
    )
    hint = f"build precision: fp32 first, or raise verify.tolerance.{trial.request.precision}"
    return ParityError(message, hint=hint, code="precision_parity")


def _endless(trial: _Trial, excess: float, found: list[str]) -> ParityError:
    precision = trial.request.precision
    shown = ", ".join(found[:8]) + (", …" if len(found) > 8 else "")  # noqa: PLR2004 - a line's worth
    message = (
        f"{precision}: the outputs are {excess:.3g} times beyond verify.tolerance.{precision}, and "
        f"{MAX_RUNS} runs found no small set of nodes to keep in fp32; needed so far: {shown}"
    )
    other = "bf16" if precision == "fp16" else "fp16"
    hint = f"take precision: {other} or fp32, or raise verify.tolerance.{precision}"
    return ParityError(message, hint=hint, code="precision_parity")


def _notes(trial: _Trial, result: Narrowed) -> list[str]:
    notes: list[str] = []
    precision = trial.request.precision
    if trial.born:
        notes.append(f"in fp32, because they compute sizes, positions or masks: {len(trial.born)}")
    if result.fixed:
        counts = sorted(Counter(result.fixed).items())
        told = ", ".join(f"{op} ({count})" for op, count in counts)
        notes.append(f"in fp32, because they have no form in {precision} at this opset: {told}")
    if trial.lost:
        notes.append(f"in fp32, because {precision} cannot hold a weight: {len(trial.lost)}")
    return notes
