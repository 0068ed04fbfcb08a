"""From a target to a proven variant: precision, engine, parity, accuracy, audit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compiler.accuracy import check_drop
from compiler.cache import StageResult, cache_folder, versions
from compiler.compare import Tolerance
from compiler.describe import describe
from compiler.engines import BuildTarget, EngineBuilder, Job, get_builder
from compiler.publish import Files
from compiler.stages import MODEL, Stages, digest_of, graph_files
from runtime.engines import get_engine
from runtime.golden import batch_of, read_golden
from runtime.machine import int8_saturates
from runtime.predictor import Predictor
from runtime.tensors import Array, Tensors
from specs.audit import Audit
from specs.digests import file_sha256
from specs.errors import ProcessingError
from specs.gate import Gate
from specs.manifest import AccuracyResult, ParityCase, Variant
from specs.precision import TolerancePair
from specs.schema import Spec

__all__ = ["Proven", "VariantBuild", "audit_path", "tolerance_of"]

AUDIT = "audit.json"
CONVERTERS = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu")
"""What converts a graph to a lower precision."""


@dataclass(frozen=True)
class Proven:
    """A variant with the files that it brings into the artifact."""

    variant: Variant
    files: Files
    gate: Gate | None = None
    """What the gate found of the processing in its graph."""


def tolerance_of(spec: Spec, target: BuildTarget) -> TolerancePair | None:
    """What parity is held to; None where it is only measured."""
    if target.precision == "fp32":
        return TolerancePair(atol=spec.verify.atol, rtol=spec.verify.rtol)
    return getattr(spec.verify.tolerance, target.precision)


@dataclass
class VariantBuild:
    """The stages of one variant, each made when first asked for.

    Args:
        stages: the stages that every target shares.
        target: what to build.
        asked: name of the spec's target that it is built for.
    """

    stages: Stages
    target: BuildTarget
    asked: str

    @property
    def spec(self) -> Spec:
        """The spec."""
        return self.stages.spec

    @cached_property
    def builder(self) -> type[EngineBuilder]:
        """The engine's side that builds."""
        return get_builder(self.target.engine)

    def prove(self) -> Proven:
        """Build and prove the variant.

        Raises:
            DeploycError: it cannot be built here, or is not what was asked for.
        """
        for note in self.notes:
            self.stages.reporter.note(f"{self.target.name}: {note}")
        parity = self.parity
        accuracy = self._accuracy(parity.data["right"])
        proven = Proven(self._variant(parity.data, accuracy, self.audited), self._files())
        return proven if self.target.placement == "python" else self._place_processing(proven)

    def _place_processing(self, proven: Proven) -> Proven:
        """The variant with its processing in the graph, where that was asked for or is faster."""
        from compiler.placement.placed import Placed, why_not

        auto = self.target.placement == "auto"
        reason = why_not(self)
        if reason and not auto:
            message = f"{self.target.name}: processing cannot be in the graph: {reason}"
            raise ProcessingError(message, hint="use placement: python", code="placement")
        if reason:
            return _noted(proven, f"processing stays in Python: {reason}")
        placed = Placed(self)
        try:
            placed.check()
        except ProcessingError as error:
            if not auto:
                raise
            return _noted(proven, f"processing stays in Python: {error.message}")
        if auto and not placed.faster:
            return _noted(proven, f"processing stays in Python: {placed.told}")
        return Proven(placed.place(proven.variant), placed.files(), placed.gate)

    def keep(self) -> Path:
        """The engine's folder that outlives builds."""
        folder = cache_folder() / "engines" / self.target.engine
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- precision

    @cached_property
    def precision(self) -> StageResult | None:
        """The graph in the target's precision; None where the portable one is in it already."""
        if self.target.precision == "fp32" or self.builder.from_source:
            return None
        inputs = {
            "graph": self.stages.graph_sha,
            "precision": self.target.precision,
            "engine": self.target.engine,
            "device": self.target.device,
            "quantize": self.target.quantize.model_dump(mode="json"),
            "calibration": [file_sha256(path) for path in self._calibration()],
            "processing": self.stages.processing_sha,
            "versions": versions(*CONVERTERS),
        }
        if self.target.precision != "int8":  # which nodes stay in fp32 is found by parity
            pair = tolerance_of(self.spec, self.target)
            inputs |= {"golden": self.stages.golden_sha, "tolerance": pair and pair.model_dump()}
        elif self.target.quantize.reduce_range is None:
            inputs |= {"saturates": int8_saturates()}
        return self.stages.stage(
            f"{self.target.name}: precision", "precision", inputs, self._convert
        )

    def _calibration(self) -> list[Path]:
        static = self.target.precision == "int8" and self.target.quantize.mode == "static"
        return self.stages.calibration if static else []

    def _convert(self, folder: Path) -> dict[str, Any]:
        from compiler.precision import Request, convert

        request = Request(
            graph=self.stages.graph,
            folder=folder,
            precision=self.target.precision,
            engine=self.target.engine,
            quantize=self.target.quantize,
            calibration=self.stages.calibration_items,
            excess=self._excess,
            device=self.target.device,
            golden=self._golden_inputs,
        )
        return asdict(convert(request))

    def _golden_inputs(self) -> Iterator[Tensors]:
        for golden in read_golden(self.stages.golden):
            yield batch_of(golden.case.inputs, golden.case.batches[0], 0)

    def _excess(self, graph: Path) -> float:
        """How far a graph lies beyond the tolerance, on any CPU."""
        from compiler.parity import worst_excess

        return worst_excess(graph, read_golden(self.stages.golden), self.tolerance)

    @cached_property
    def graph(self) -> Path:
        """The graph that the engine gets."""
        if self.precision is None:
            return self.stages.graph
        return self.precision.folder / self.precision.data["file"]

    @property
    def kept(self) -> tuple[str, ...]:
        """Nodes that stay in fp32."""
        return tuple(self.precision.data["kept"]) if self.precision else ()

    # --- engine

    @cached_property
    def key(self) -> dict[str, Any]:
        """What the engine's file depends on."""
        spec = self.spec
        return {
            "graph": digest_of(graph_files(self.graph)),
            "target": {**asdict(self.target), "quantize": None, "name": None, "placement": None},
            "axes": {k: v.model_dump() for k, v in spec.dynamic_axes.items()},
            "inputs": {k: v.model_dump(mode="json") for k, v in spec.inputs.items()},
            "engine": self.builder.fingerprint(self.target),
        }

    @cached_property
    def engine(self) -> StageResult:
        """The engine's file."""
        shown = f"{self.target.name}: engine"
        return self.stages.stage(shown, f"engine-{self.target.engine}", self.key, self._build)

    def _build(self, folder: Path) -> dict[str, Any]:
        job = Job(
            graph=self.graph,
            folder=folder,
            target=self.target,
            spec=self.spec,
            model=lambda: self.stages.model,
            keep=self.keep(),
        )
        built = self.builder.build(job)
        return {"file": built.file, "notes": built.notes}

    @property
    def file(self) -> Path:
        """The file that the engine loads."""
        name = self.engine.data["file"]
        return self.engine.folder / name if name else self.graph

    @property
    def notes(self) -> tuple[str, ...]:
        """What the conversion and the engine's builder have to tell."""
        converted: list[str] = self.precision.data["notes"] if self.precision else []
        return (*converted, *self.engine.data["notes"])

    # --- proofs

    @cached_property
    def tolerance(self) -> Tolerance:
        """What parity is held to; without bounds where it is only measured."""
        return Tolerance.of(tolerance_of(self.spec, self.target), self.target.precision)

    @cached_property
    def parity(self) -> StageResult:
        """Agreement with the reference, right answers, and what the engine says of itself."""
        inputs = {**self.key, "golden": self.stages.golden_sha, "judged": self.stages.judged_by()}
        return self.stages.stage(f"{self.target.name}: parity", "parity", inputs, self._compare)

    def _compare(self, _folder: Path) -> dict[str, Any]:
        from compiler.parity import check_parity

        with self.predictor() as predictor:
            goldens = read_golden(self.stages.golden)
            parity = check_parity(predictor, goldens, self.tolerance, self._locate)
            right = self.stages.right(lambda batch: _first(predictor.predict_batch(batch)))
            details = predictor.details
        cases = [case.model_dump(mode="json") for case in parity]
        return {"parity": cases, "right": right, "details": details}

    def predictor(self) -> Predictor:
        """The variant, through the code that runs in production."""
        target = self.target
        session = get_engine(target.engine).open(self.file, target.device, target.options)
        variant = self._variant({"parity": [], "details": {}}, None, None)
        manifest = describe(self.stages, (variant,))
        return Predictor(manifest, variant, self.stages.processing, session)

    def _locate(self, inputs: Tensors) -> str:
        from compiler.divergence import first_divergence

        if self.target.precision != "fp32":
            return ""  # every layer of it differs a little: `deployc verify --layers` shows them
        return first_divergence(self.stages.model, self.stages.graph, self.spec, inputs)

    def _accuracy(self, right: int) -> AccuracyResult | None:
        budget = self.spec.verify.accuracy
        if budget is None:
            return None
        result = AccuracyResult(
            metric=budget.metric,
            count=len(self.stages.labelled),
            reference=self.stages.reference_stage.data["right"],
            variant=right,
        )
        check_drop(result, budget)
        return result

    @cached_property
    def audit_stage(self) -> StageResult:
        """``audit.json``: where and in which precision the engine really computes."""
        inputs = {
            **self.key,
            "precision": self.target.precision,
            "kept": self.kept,
            "bounds": [self.spec.verify.max_nodes_off_device, self.spec.verify.min_precision_share],
        }
        if self.graph != self.stages.graph:  # then its tensors are compared with the fp32 graph's
            pair = tolerance_of(self.spec, self.target)
            inputs |= {"golden": self.stages.golden_sha, "tolerance": pair and pair.model_dump()}
        return self.stages.stage(f"{self.target.name}: audit", "audit", inputs, self._look)

    def _look(self, folder: Path) -> dict[str, Any]:
        from compiler.audit import audit, with_drift

        layers = self.builder.layers(self.file, self.target)
        found = audit(self.target, layers, self.graph, self.spec, self.kept)
        if self.graph != self.stages.graph:
            pair = tolerance_of(self.spec, self.target)
            found = with_drift(found, self.graph, self.stages.graph, self.stages.golden, pair)
        (folder / AUDIT).write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
        return {}

    @cached_property
    def audited(self) -> Audit:
        """What the audit found; refused where it is not as asked."""
        return self._audit()

    def _audit(self) -> Audit:
        from compiler.audit import check

        found = Audit.model_validate_json((self.audit_stage.folder / AUDIT).read_text("utf-8"))
        check(found, self.target, self.spec)
        return found

    # --- result

    def _variant(
        self, proven: dict[str, Any], accuracy: AccuracyResult | None, audit: Audit | None
    ) -> Variant:
        target = self.target
        return Variant(
            name=target.name,
            target=self.asked,
            engine=target.engine,
            device=target.device,
            precision=target.precision,
            options=target.options,
            file=self._place(),
            details=proven["details"],
            kept=self.kept,
            notes=self.notes,
            parity=tuple(ParityCase.model_validate(case) for case in proven["parity"]),
            tolerance=tolerance_of(self.spec, target),
            accuracy=accuracy,
            not_audited=audit.not_run if audit else (),
        )

    def _place(self) -> str:
        """The file that the engine loads, in the artifact."""
        if self.file == self.stages.graph:
            return MODEL
        return f"variants/{self.target.name}/{self.file.name}"

    def _files(self) -> Files:
        """Everything of ``variants/<name>/``: the engine's files, its graph, the audit."""
        paths = _files_in(self.engine.folder)
        if self.graph != self.stages.graph:
            paths += graph_files(self.graph)
        files = {f"variants/{self.target.name}/{path.name}": path for path in paths}
        return files | {audit_path(self.target.name): self.audit_stage.folder / AUDIT}


def _noted(proven: Proven, note: str) -> Proven:
    notes = (*proven.variant.notes, note)
    return Proven(proven.variant.model_copy(update={"notes": notes}), proven.files)


def audit_path(variant: str) -> str:
    """Where a variant's audit lies in the artifact."""
    return f"variants/{variant}/{AUDIT}"


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "stage.json")


def _first(outputs: Tensors) -> Array:
    return next(iter(outputs.values()))
