"""The gate: every execution of a spec's processing, step by step and in whole, must be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from compiler.placement.compare import Apart, answers_apart, pixels_apart
from compiler.processing.executions import (
    Home,
    TorchLibraries,
    run_fused,
    run_python,
    run_reference,
)
from runtime.golden import Golden
from runtime.processing import Processing
from runtime.tensors import Tensors, rows
from specs.errors import InputError, ProcessingError
from specs.flow import carried, postprocess_start, preprocess_start, walk
from specs.gate import CHAIN, PLAIN_CHAIN, Execution, Gate, StepGap, Unit
from specs.ops import GEOMETRY, Libraries, Op
from specs.ops.python import Python
from specs.schema import Spec
from specs.values import Value

__all__ = ["BOUND", "Reference", "graph_gate", "python_gate"]

BOUND = 1.0
"""Grey levels, of sounds tolerances, that generated Python may differ from the reference by."""
Items = Mapping[str, Any]
"""Items by the name that a person knows them by."""


@dataclass
class _Gaps:
    """The worst of each step so far."""

    found: dict[tuple[str, str], tuple[Apart, str]] = field(
        default_factory=dict[tuple[str, str], tuple[Apart, str]]
    )

    def add(self, stage: str, step: str, item: str, apart: Apart) -> None:
        known = self.found.get((stage, step))
        if known is None or apart.worst > known[0].worst:
            self.found[stage, step] = apart, item

    def gaps(self) -> tuple[StepGap, ...]:
        return tuple(
            StepGap.model_validate(
                {"stage": stage, "step": step, "worst": _json(a.worst), "mean": _json(a.mean)}
                | {"item": item}
            )
            for (stage, step), (a, item) in self.found.items()
        )


def _json(number: float) -> float:
    """JSON has no infinity; a result of another form is further than any number."""
    return min(number, 1e9)


@dataclass(frozen=True)
class Traced:
    """One item through the reference: every step's argument, its type, and the last result."""

    steps: tuple[tuple[Op, Value, Any], ...]
    result: Any
    value: Value


@dataclass
class Reference:
    """The reference of a spec's processing, run once for all executions.

    Args:
        spec: the spec.
        processing: its generated Python, which decides what is refused.
        items: what goes through ``preprocess``; none where a request brings plain tensors.
        goldens: the golden tensors, whose outputs go through ``postprocess``.
        home: where the files lie that steps read.
        plain: the same Python without the faster libraries, where any is installed.
    """

    spec: Spec
    processing: Processing
    items: Items
    goldens: Sequence[Golden]
    home: Home = field(default_factory=Home)
    plain: Processing | None = None
    lib: Libraries = field(default_factory=TorchLibraries)
    refused: dict[str, str] = field(default_factory=dict[str, str])
    _traced: dict[str, Traced] = field(default_factory=dict[str, Traced])
    _python: dict[str, Tensors] = field(default_factory=dict[str, Tensors])

    @property
    def unit(self) -> Unit:
        """What distances before the model count in: a sound has no grey levels."""
        sound = preprocess_start(self.spec).kind == "audio"
        return "tolerance" if sound else "grey levels"

    def apart(self, found: Any, wanted: Any, value: Value) -> Apart:  # noqa: ANN401 - arrays
        """How far two results of a step before the model lie apart."""
        if self.unit == "tolerance":
            return answers_apart(found, wanted)
        return pixels_apart(found, wanted, value)

    def before(self) -> Iterator[tuple[str, Traced, Tensors]]:
        """Every item that is taken: its name, the reference's way, and what Python makes of it."""
        for name, item in self.items.items():
            if name not in self._traced and name not in self.refused:
                self._run(name, item)
            if name in self._traced:
                yield name, self._traced[name], self._python[name]

    def check_taken(self) -> None:
        """Refuse to compare nothing: raise ``ProcessingError`` where every item is refused."""
        if self.items and next(self.before(), None) is None:
            found = "; ".join(f"{name}: {code}" for name, code in self.refused.items())
            message = f"the pre-processing refuses every item of the gate: {found}"
            raise ProcessingError(message, hint="widen `limits` in the spec", code="gate_empty")

    def _run(self, name: str, item: object) -> None:
        try:
            self._python[name] = self.processing.preprocess(item)
        except InputError as error:
            self.refused[name] = error.code
            return
        start = preprocess_start(self.spec)
        self._traced[name] = self._trace(self.spec.preprocess, start, item, {})

    def behind(self) -> Iterator[tuple[str, Traced, Tensors]]:
        """Every golden case: its name, the reference's way, and what travels beside it."""
        for golden in self.goldens:
            beside = self._beside(golden)
            start = postprocess_start(self.spec)
            x: Any = dict(golden.outputs) if start.fields else next(iter(golden.outputs.values()))
            traced = self._trace(self.spec.postprocess, start, x, beside)
            yield golden.case.name, traced, beside

    def _trace(
        self,
        steps: tuple[Op, ...],
        start: Value,
        x: Any,  # noqa: ANN401 - what a request brings, or arrays
        beside: Tensors,
    ) -> Traced:
        taken: list[tuple[Op, Value, Any]] = []
        value = start
        for op, takes, gives in walk(steps, start):
            taken.append((op, takes, x))
            if _judged(op):
                x = run_reference(op, takes, x, self.lib)
            else:
                x = run_python(op, takes, x, beside, self.home)
            value = gives
        return Traced(tuple(taken), x, value)

    def _beside(self, golden: Golden) -> Tensors:
        """What steps read beside the outputs: inputs, and where the pixels of some image are."""
        count = rows(golden.outputs)
        found = {n: a for n, a in golden.case.inputs.items() if n in carried(self.spec)}
        if GEOMETRY in carried(self.spec):
            at = next(tensors[GEOMETRY] for _, _, tensors in self.before())
            found[GEOMETRY] = np.repeat(at[None], count, axis=0)
        return found


def _judged(op: Op) -> bool:
    """Whether there is a reference: not for the spec's own code, nor where more than ``x`` counts.

    What reads beside its value (``Op.carried``) is held to its reference by the op's own test.
    """
    return type(op).reference is not Op.reference and not op.carried()


def _compared(op: Op) -> bool:
    return _judged(op) and op.exact


def python_gate(reference: Reference) -> Gate:
    """Generated Python against the reference."""
    gaps = _Gaps()
    reference.check_taken()
    _each_step(reference, gaps, run_python)
    for name, traced, tensors in reference.before():
        wanted = _by_input(traced, reference.spec)
        found = {key: tensors[key] for key in wanted}
        gaps.add("preprocess", CHAIN, name, reference.apart(found, wanted, traced.value))
        if reference.plain:
            again = reference.plain.preprocess(reference.items[name])
            apart = reference.apart({key: again[key] for key in wanted}, wanted, traced.value)
            gaps.add("preprocess", PLAIN_CHAIN, name, apart)
    return _gate("python", "", BOUND, reference, gaps)


def graph_gate(
    reference: Reference,
    bound: float,
    where: str,
    prepare: Callable[[object], Tensors] | None,
) -> Gate:
    """The steps as ONNX nodes against the reference.

    Args:
        reference: what they are held to.
        bound: grey levels that the engine may differ by.
        where: the variant whose engine runs ``prepare``.
        prepare: an item to the model's inputs, by the engine; None where the graph prepares none.
    """
    gaps = _Gaps()
    _each_step(reference, gaps, run_fused)
    for name, traced, _ in reference.before() if prepare else ():
        assert prepare is not None  # noqa: S101 - the line above
        wanted = _by_input(traced, reference.spec)
        found = prepare(reference.items[name])
        gaps.add("preprocess", CHAIN, name, reference.apart(found, wanted, traced.value))
    return _gate("graph", where, bound, reference, gaps)


def _by_input(traced: Traced, spec: Spec) -> dict[str, Any]:
    result: object = traced.result
    if isinstance(result, Mapping):
        return dict(cast("Mapping[str, Any]", result))
    name, tensor = next(iter(spec.inputs.items()))
    return {name: np.asarray(traced.result).astype(tensor.dtype)}


def _each_step(reference: Reference, gaps: _Gaps, run: Callable[..., Any]) -> None:
    """Every step on the very argument that its reference took."""
    for name, traced, _ in reference.before():
        for (op, value, x), wanted in _with_results(traced):
            found = run(op, value, x, None, reference.home) if _compared(op) else None
            if found is not None:  # some steps have no nodes
                apart = reference.apart(found, wanted, op.flow(value))
                gaps.add("preprocess", type(op).name, name, apart)
    for name, traced, beside in reference.behind():
        for (op, value, x), wanted in _with_results(traced):
            found = run(op, value, x, beside, reference.home) if _compared(op) else None
            if found is not None:
                gaps.add("postprocess", type(op).name, name, answers_apart(found, wanted))


def _with_results(traced: Traced) -> Iterator[tuple[tuple[Op, Value, Any], Any]]:
    results = [x for _, _, x in traced.steps[1:]] + [traced.result] * bool(traced.steps)
    yield from zip(traced.steps, results, strict=True)


def _gate(
    execution: Execution, where: str, bound: float, reference: Reference, gaps: _Gaps
) -> Gate:
    spec = reference.spec
    unjudged = [type(op).name for op in (*spec.preprocess, *spec.postprocess) if not _compared(op)]
    return Gate(
        execution=execution,
        where=where,
        bound=bound,
        unit=reference.unit,
        items=len(reference.items) - len(reference.refused) + len(reference.goldens),
        refused=tuple(f"{name}: {code}" for name, code in reference.refused.items()),
        gaps=gaps.gaps(),
        exact=all(op.exact for op in spec.preprocess),
        own_code=any(isinstance(op, Python) for op in spec.preprocess),
        not_compared=tuple(unjudged),
    )
