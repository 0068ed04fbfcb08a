"""``build --check``: everything of a build that needs no GPU; what needs one is told as not run.

Every step is tried, also after another has failed, as far as it does not need that one's result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from compiler.choose import build_target
from compiler.disk import disk_errors
from compiler.engines import BuildTarget
from compiler.progress import Reporter
from compiler.stages import Stages
from compiler.targets import Ladder, chosen, ladders
from compiler.variants import VariantBuild
from specs.engines import AUTO
from specs.errors import DeploycError, EngineError
from specs.loader import LoadedSpec
from specs.reports import Outcome, problems_of
from specs.schema import Target, Weights

__all__ = ["check"]

SHARED = (
    ("weights", "weights"),
    ("processing", "processing_stage"),
    ("export and contract", "export_stage"),
    ("reference", "reference_stage"),
)
"""What a person reads, and the property of ``Stages`` that does it."""
ON_DEVICE = ("engine", "parity", "accuracy and audit", "profile")
"""Steps of a variant that run on its own device."""
PORTABLE = BuildTarget("portable graph", "onnxruntime")
NO_GPU = "it needs a GPU, and --check uses none"
ONLY_BUILD = "only a build can tell which operators the engine takes"


def check(
    loaded: LoadedSpec,
    *,
    reporter: Reporter,
    targets: Sequence[str] = (),
    weights: Weights | None = None,
) -> list[Outcome]:
    """Check a spec as far as that is possible without a GPU; nothing is written but the cache.

    Args:
        loaded: the spec.
        reporter: shows the stages.
        targets: names of the targets to check; all of the spec's by default.
        weights: takes the place of the spec's ``weights``.

    Returns:
        The outcome of every step, in order. What runs on a GPU is ``not_run``, never passed.

    Raises:
        SpecError: the spec has no target of a name in ``targets``.
    """
    wanted = chosen(loaded.spec, targets)
    run = _Check(loaded, Stages(loaded, reporter, weights))
    run.outcomes.append(Outcome("schema", "passed"))
    run.shared()
    for target in wanted:
        run.target(target)
    return run.outcomes


@dataclass
class _Check:
    loaded: LoadedSpec
    stages: Stages
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    failed: str = ""
    """The first shared stage that failed: nothing can be said of any target then."""

    def step(self, name: str, run: Callable[[], object]) -> bool:
        """Run one step; whether it passed."""
        known, start = len(self.stages.reporter.steps), time.perf_counter()
        try:
            with disk_errors():
                run()
        except DeploycError as error:
            problems = problems_of(error, self.loaded.path)
            seconds = time.perf_counter() - start
            self.outcomes.append(Outcome(name, "failed", seconds, problems=problems))
            return False
        steps = self.stages.reporter.steps[known:]
        cached = bool(steps) and all(step.cached for step in steps)
        state = "cached" if cached else "passed"
        self.outcomes.append(Outcome(name, state, time.perf_counter() - start))
        return True

    def skip(self, names: Sequence[str], reason: str) -> None:
        """Tell steps as not run."""
        self.outcomes += [Outcome(name, "not_run", reason=reason) for name in names]

    def shared(self) -> None:
        """The stages that every target shares."""
        for name, stage in SHARED:
            if self.failed:
                self.skip([name], f"{self.failed} failed")
            elif not self.step(name, lambda stage=stage: getattr(self.stages, stage)):
                self.failed = name
        if not self.failed and self._for_gpu():
            # What a GPU will run is this graph, so that its numbers can be held to PyTorch's here.
            portable = VariantBuild(self.stages, PORTABLE, PORTABLE.name)
            self.step("portable graph: parity on the cpu", lambda: portable.parity)

    def _for_gpu(self) -> bool:
        return any("cuda" in target.devices for target in self.loaded.spec.targets)

    def target(self, target: Target) -> None:
        """One target of the spec."""
        steps = ladders(target, self.loaded.spec)
        if self.failed:
            self.skip([target.variant], f"{self.failed} failed")
        elif AUTO in (target.engine, target.precision):
            self._auto(target, steps)
        else:
            self._variant(VariantBuild(self.stages, steps[0].rungs[0], target.variant))

    def _auto(self, target: Target, steps: Sequence[Ladder]) -> None:
        """The choice among what runs on the CPU; which one a GPU would take, only it can tell."""
        if any(ladder.rungs[0].device == "cpu" for ladder in steps):
            here = target.model_copy(update={"device": "cpu"})
            name = f"{target.variant}: choice on the cpu"
            self.step(name, lambda: build_target(self.stages, here))
        for ladder in steps:
            first = ladder.rungs[0]
            if first.device != "cpu":
                self.skip([f"{target.variant}: {first.engine} on {first.device}"], NO_GPU)

    def _variant(self, build: VariantBuild) -> None:
        """The steps of one variant, each where those that it needs have passed."""
        name, device = build.target.name, build.target.device
        converts = build.target.precision != "fp32" and not build.builder.from_source
        if converts and not self.step(f"{name}: precision", lambda: build.precision):
            rest = ("operators", *ON_DEVICE)
            self.skip([f"{name}: {step}" for step in rest], "precision failed")
            return
        self._operators(build)
        if device != "cpu":
            self.skip([f"{name}: {step}" for step in ON_DEVICE], NO_GPU)
            return
        proofs: tuple[tuple[str, Callable[[], object]], ...] = (
            ("engine", lambda: build.engine),
            ("parity", lambda: build.parity),
            ("accuracy and audit", build.prove),
        )
        failed = ""
        for step, run in proofs:
            if failed:
                self.skip([f"{name}: {step}"], f"{failed} failed")
            elif not self.step(f"{name}: {step}", run):
                failed = step

    def _operators(self, build: VariantBuild) -> None:
        name = f"{build.target.name}: operators"
        if build.builder.from_source:
            self.skip([name], "the engine runs the model itself, not the graph")
            return
        told: list[tuple[str, ...] | None] = []
        if not self.step(name, lambda: told.append(_supported(build))):
            return
        if told == [None]:
            self.outcomes[-1] = Outcome(name, "not_run", reason=ONLY_BUILD)


def _supported(build: VariantBuild) -> tuple[str, ...] | None:
    """() or None as ``EngineBuilder.unsupported``; ``EngineError`` where an operator lacks."""
    found = build.builder.unsupported(build.graph, build.target)
    if found:
        target = build.target
        message = f"{target.engine} on {target.device} has no kernel for {', '.join(found)}"
        hint = "choose another engine, opset or exporter, or change the model"
        raise EngineError(message, hint=hint, code="op_unsupported")
    return found
