"""Golden tensors: PyTorch's outputs on the golden cases, stored beside their inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.sources import Model
from runtime.compare import Tolerance, worst_gap
from runtime.golden import CASES, Case, Golden, batch_of, read_golden
from runtime.tensors import Tensors, rows
from specs.errors import ParityError, SourceError
from specs.schema import Spec

__all__ = ["Golden", "read_golden", "run_model", "run_reference", "write_golden"]

BUDGET = 32_000_000
"""Bytes of one case's inputs and outputs; fewer items are kept where they would be more."""

ROUNDING = Tolerance(1e-6, 1e-5, in_rms=True)
"""What float32 sums of the same numbers in another order may differ by, whatever the spec says."""


def run_reference(model: Model, spec: Spec, case: Case) -> Golden:
    """The reference's outputs for each item of a case, checked against itself at every batch.

    Raises:
        ParityError: the model's answer to an item depends on the other items of its batch
            (``batch_dependent``): no batching can be right for it.
        SourceError: the model fails on the case, or gives another number of outputs.
    """
    smallest = case.batches[0]
    first = run_model(model, spec, batch_of(case.inputs, smallest, 0))
    case = _within_budget(case, first, smallest)
    golden = Golden(case, _by_item(model, spec, case, first))
    for size in case.batches:
        if size > 1:
            _check_neighbours(model, spec, golden, size)
    return golden


def _check_neighbours(model: Model, spec: Spec, golden: Golden, size: int) -> None:
    """Run a batch of which every second item is the same one, at other places than before."""
    case = golden.case
    index = _skewed(size, rows(case.inputs))
    found = run_model(model, spec, {name: array[index] for name, array in case.inputs.items()})
    expected = {name: array[index] for name, array in golden.outputs.items()}
    gap = worst_gap(found, expected, Tolerance(spec.verify.atol, spec.verify.rtol))
    if gap.excess > 1 and not _only_rounded(found, expected):
        message = (
            f"the model itself answers an item differently at batch {size} than at batch "
            f"{case.batches[0]}, or among other items ({case.name}): {gap}"
        )
        hint = "the model mixes the items of a batch, or is random: ask for a fixed batch of 1"
        raise ParityError(message, hint=hint, code="batch_dependent")


def _only_rounded(found: Tensors, expected: Tensors) -> bool:
    """Whether outputs differ by no more than the order of sums, which BLAS chooses by the batch.

    A tolerance of 0 says how near an engine must come, not that a processor's product of 8 rows has
    the bits of its product of 1.
    """
    exact = [name for name, array in expected.items() if array.dtype.kind != "f"]
    same = all(np.array_equal(found[name], expected[name]) for name in exact)
    return same and worst_gap(found, expected, ROUNDING).excess <= 1


def _skewed(size: int, count: int) -> NDArray[np.intp]:
    """Item 1 and others in turn: a rotated batch has the same mean, and would hide a mixing."""
    order = np.arange(size)
    return np.where(order % 2 == 0, 1, order // 2 + 1) % count


def _within_budget(case: Case, outputs: Tensors, size: int) -> Case:
    item = sum(array.nbytes for array in outputs.values()) / size
    item += sum(array[:1].nbytes for array in case.inputs.values())
    keep = max(2, int(BUDGET / item))
    return Case(case.name, {name: a[:keep] for name, a in case.inputs.items()}, case.batches)


def _by_item(model: Model, spec: Spec, case: Case, first: Tensors) -> Tensors:
    """Outputs of every item, run at the smallest batch, of which ``first`` is done already."""
    count, size = rows(case.inputs), case.batches[0]
    starts = range(size, count, size)
    parts = [first, *(run_model(model, spec, batch_of(case.inputs, size, i)) for i in starts)]
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in spec.outputs}


def run_model(model: Model, spec: Spec, inputs: Tensors) -> Tensors:
    """The model's outputs by the spec's names, or ``SourceError`` where it fails."""
    try:
        ordered = [inputs[name] for name in spec.inputs]
        outputs = model.outputs(ordered, spec.export.forward_kwargs)
    except SourceError:
        raise
    except Exception as error:  # the model's own code may raise anything
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        message = f"the model fails on inputs of shape {shapes}: {_cause(error)}"
        hint = "correct inputs, dynamic_axes or the model"
        raise SourceError(message, hint=hint, code="source_run") from error
    if len(outputs) != len(spec.outputs):
        message = f"the model gives {len(outputs)} outputs, the spec names {len(spec.outputs)}"
        raise SourceError(message, hint="name all of them in order", code="outputs_differ")
    return dict(zip(spec.outputs, outputs, strict=True))


def _cause(error: Exception) -> str:
    """The reason; a scripted model's stands at the end of its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    scripted = "TorchScript interpreter" in lines[0]
    return lines[-1] if scripted else f"{type(error).__name__}: {lines[0]}"


def write_golden(goldens: Iterable[Golden], folder: Path) -> None:
    """One ``.npz`` a case, and ``cases.json`` with their names and batches."""
    folder.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, object]] = []
    for number, golden in enumerate(goldens):
        file = f"case{number}.npz"
        arrays = {f"inputs/{name}": array for name, array in golden.case.inputs.items()}
        arrays |= {f"outputs/{name}": array for name, array in golden.outputs.items()}
        np.savez(folder / file, allow_pickle=False, **arrays)
        index.append({"file": file, "name": golden.case.name, "batches": golden.case.batches})
    (folder / CASES).write_text(json.dumps(index, indent=1) + "\n", "utf-8")
