"""``build``: from a spec to an artifact, stage by stage, each run only where something changed."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from compiler.accuracy import Labelled, check_drop, count_right, read_labels
from compiler.cache import StageResult, StageStore, cache_folder, versions
from compiler.cases import golden_cases, sample_files
from compiler.compare import Tolerance
from compiler.disk import disk_errors
from compiler.engines import get_builder
from compiler.processing import PROCESSING, GeneratedProcessing, generate
from compiler.processing import read_labels as read_class_names
from compiler.progress import Reporter
from compiler.publish import Files, check_place, file_entries, publish
from compiler.reads import source_files
from compiler.weights import FoundWeights, find_weights
from runtime.processing import Processing, load_processing
from runtime.tensors import Array, Tensors
from specs.digests import file_sha256, text_sha256
from specs.errors import SpecError
from specs.faults import nearest
from specs.loader import LoadedSpec
from specs.manifest import (
    SCHEMA_VERSION,
    AccuracyResult,
    Graph,
    Manifest,
    ParityCase,
    Variant,
)
from specs.schema import Spec, Target, Weights

if TYPE_CHECKING:
    from compiler.sources import Model
    from runtime.predictor import Predictor

__all__ = ["BuildResult", "build"]

MODEL = "model.onnx"
LOGS = "logs"
"""Folder of the export stage where the exporter's reports lie, where the spec asks for any."""
TOOLS = ("torch", "torchvision", "onnx", "onnxscript", "numpy", "pillow")


@dataclass(frozen=True)
class BuildResult:
    """What a build gave.

    Args:
        folder: the artifact.
        manifest: its manifest.
        written: False where this very artifact was there already.
    """

    folder: Path
    manifest: Manifest
    written: bool


def build(
    loaded: LoadedSpec,
    destination: Path,
    *,
    reporter: Reporter,
    targets: Sequence[str] = (),
    weights: Weights | None = None,
) -> BuildResult:
    """Build, prove and write an artifact.

    Args:
        loaded: the spec, from ``specs.load_spec``.
        destination: the artifact's folder, replaced as a whole or not at all.
        reporter: shows the stages.
        targets: names of the variants to build; all of the spec's by default.
        weights: takes the place of the spec's ``weights``.

    Raises:
        DeploycError: the first thing that is not as the spec asks.
    """
    run = _Build(loaded, reporter, weights, _chosen(loaded.spec, targets))
    with disk_errors():
        check_place(destination)  # before the work, and again when it is done
        manifest, files = run.assemble()
        with reporter.step("write") as step:
            written = publish(destination, files, manifest)
            step.cached, step.detail = not written, str(destination)
    return BuildResult(destination, manifest, written)


def _chosen(spec: Spec, names: Sequence[str]) -> tuple[Target, ...]:
    known = {target.variant: target for target in spec.targets}
    for name in names:
        if name not in known:
            message = f"the spec has no target '{name}'"
            raise SpecError(message, hint=nearest(name, known), code="target_unknown")
    return tuple(target for target in spec.targets if not names or target.variant in names)


@dataclass
class _Build:
    """One build: its inputs, and the stages in their order."""

    loaded: LoadedSpec
    reporter: Reporter
    override: Weights | None
    targets: tuple[Target, ...]
    store: StageStore = field(default_factory=lambda: StageStore(cache_folder()))

    @property
    def spec(self) -> Spec:
        return self.loaded.spec

    @cached_property
    def model(self) -> Model:
        """The model, loaded when the first stage that is not cached needs it: torch is slow."""
        from compiler.sources import load_model

        return load_model(self.spec.model, self.loaded.folder, self.weights)

    @cached_property
    def tolerance(self) -> Tolerance:
        return Tolerance(self.spec.verify.atol, self.spec.verify.rtol)

    def assemble(self) -> tuple[Manifest, Files]:
        """Run all stages; the manifest and the files that it names."""
        self.weights = self._weights()
        self.processing_stage, self.generated = self._processing()
        self.export_stage = self._export()
        self.graph = self.export_stage.folder / MODEL
        self.graph_sha = " ".join(file_sha256(path) for path in self._graph_files())
        self.golden_stage = self._reference()
        variants = [self._variant(target) for target in self.targets]
        resolved = self._resolved()
        files = self._files([variant for variant, _ in variants], resolved)
        for _, built in variants:
            files |= built
        return self._manifest([variant for variant, _ in variants], files, resolved), files

    def _weights(self) -> FoundWeights:
        with self.reporter.step("weights") as step:
            found = find_weights(self.spec, self.loaded.folder, self.override, self.reporter)
            step.detail = str(found.origin)
        if found.origin.origin == "random":
            self.reporter.note(f"weights are {found.origin}")
        return found

    def _processing(self) -> tuple[StageResult, GeneratedProcessing]:
        generated = generate(self.spec, read_class_names(self.spec, self.loaded.folder))
        make = _writer(generated.files)
        return self._stage("processing", "processing", dict(generated.files), make), generated

    def _export(self) -> StageResult:
        stage = self._stage("export", "export", self._export_key(), self._make_export)
        for note in stage.data["notes"]:
            self.reporter.note(note)
        logs = stage.folder / LOGS
        if logs.is_dir():
            self.reporter.note(f"what the exporter wrote: {logs}")
        return stage

    def _graph_files(self) -> list[Path]:
        """The graph, and its weights where they lie beside it."""
        beside = self.graph.with_name(f"{MODEL}.data")
        return [self.graph, beside] if beside.exists() else [self.graph]

    def _export_key(self) -> dict[str, Any]:
        parts = {"model", "inputs", "outputs", "dynamic_axes", "export"}
        return {
            "spec": self.spec.model_dump(mode="json", include=parts),
            "asked": sorted(self.spec.export.model_fields_set),
            "verify_seed": self.spec.verify.seed,
            "weights": self.weights.key(),
            "sources": {n: file_sha256(p) for n, p in source_files(self.spec, self.loaded.folder)},
            "versions": versions(*TOOLS),
            "python": platform.python_version(),
        }

    def _make_export(self, folder: Path) -> dict[str, Any]:
        from compiler.contract import check_contract
        from compiler.exporters import export
        from compiler.graph import clean, describe, name_dims, save, set_ir_version

        proto = export(self.model, self.spec, self.loaded.folder, folder / LOGS)
        set_ir_version(proto, self.spec.export.ir_version)
        name_dims(proto, self.spec)
        check_contract(proto, self.spec)
        clean(proto)
        save(proto, folder / MODEL, external=self.spec.export.external_data)
        exporter = self.spec.export.exporter if self.spec.model.exporters else "none"
        notes = list(getattr(self.model, "notes", ()))
        return {"graph": describe(proto, exporter).model_dump(mode="json"), "notes": notes}

    def _reference(self) -> StageResult:
        inputs = {
            "export": self._export_key(),
            "graph": self.graph_sha,
            "samples": [(path.suffix, file_sha256(path)) for path in self.samples],
            "labelled": [(item.index, file_sha256(item.file)) for item in self.labelled],
            "processing": text_sha256(self.generated.text),
            "verify": self.spec.verify.model_dump(mode="json"),
        }
        return self._stage("reference", "reference", inputs, self._make_reference)

    @cached_property
    def samples(self) -> list[Path]:
        return sample_files(self.spec, self.loaded.folder)

    @cached_property
    def labelled(self) -> list[Labelled]:
        accuracy = self.spec.verify.accuracy
        return read_labels(accuracy, self.loaded.folder) if accuracy else []

    @cached_property
    def processing(self) -> Processing:
        return load_processing(
            self.processing_stage.folder / PROCESSING, text_sha256(self.generated.text)
        )

    def _make_reference(self, folder: Path) -> dict[str, Any]:
        from compiler.golden import run_reference, write_golden

        cases = golden_cases(self.spec, self.samples, self.processing)
        goldens = [run_reference(self.model, self.spec, case) for case in cases]
        write_golden(goldens, folder / "golden")
        return {"right": self._right(self._run_model), "cases": len(goldens)}

    def _run_model(self, inputs: Tensors) -> Array:
        ordered = [inputs[name] for name in self.spec.inputs]
        return self.model.outputs(ordered, self.spec.export.forward_kwargs)[0]

    def _right(self, run: Callable[[Tensors], Array]) -> int:
        accuracy = self.spec.verify.accuracy
        if accuracy is None:
            return 0
        return count_right(self.labelled, self.processing, run, self.spec, accuracy.metric)

    def _variant(self, target: Target) -> tuple[Variant, Files]:
        name = target.variant
        builder = get_builder(target.engine)
        key = {
            "graph": self.graph_sha,
            "target": target.model_dump(mode="json"),
            "axes": {k: v.model_dump() for k, v in self.spec.dynamic_axes.items()},
            "engine": builder.fingerprint(target),
        }

        def make(folder: Path) -> dict[str, Any]:
            return {"file": builder.build(self.graph, folder, target, self.spec).file}

        built = self._stage(f"{name}: engine", f"engine-{target.engine}", key, make)
        proven = self._prove(target, built, key)
        file = built.data["file"]
        names = sorted(path.name for path in built.folder.iterdir()) if file else []
        files = {f"variants/{name}/{n}": built.folder / n for n in names if n != "stage.json"}
        variant = self._described(target, f"variants/{name}/{file}" if file else MODEL, proven.data)
        return variant, files

    def _prove(self, target: Target, built: StageResult, key: dict[str, Any]) -> StageResult:
        inputs = {**key, "golden": self._golden_digest(), "verify": self._verify_key()}

        def make(_folder: Path) -> dict[str, Any]:
            from compiler.golden import read_golden
            from compiler.parity import check_parity

            file = built.folder / built.data["file"] if built.data["file"] else self.graph
            with self._predictor(target, file) as predictor:
                goldens = read_golden(self.golden_stage.folder / "golden")
                parity = check_parity(predictor, goldens, self.tolerance, self._locate)
                right = self._right(lambda batch: _first(predictor.predict_batch(batch)))
                details = predictor.details
            cases = [case.model_dump(mode="json") for case in parity]
            return {"parity": cases, "right": right, "details": details}

        return self._stage(f"{target.variant}: parity", "parity", inputs, make)

    def _verify_key(self) -> dict[str, Any]:
        return {
            **self.spec.verify.model_dump(mode="json"),
            "labelled": [(item.index, file_sha256(item.file)) for item in self.labelled],
            "processing": text_sha256(self.generated.text),
        }

    def _golden_digest(self) -> str:
        folder = self.golden_stage.folder / "golden"
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            digest.update(file_sha256(path).encode())
        return digest.hexdigest()

    def _predictor(self, target: Target, file: Path) -> Predictor:
        from runtime.engines import get_engine
        from runtime.predictor import Predictor

        session = get_engine(target.engine).open(file, target.device, target.options)
        variant = self._described(target, file.name, {"parity": [], "details": {}, "right": 0})
        return Predictor(self._manifest([variant], {}, ""), variant, self.processing, session)

    def _locate(self, inputs: Tensors) -> str:
        from compiler.divergence import first_divergence

        return first_divergence(self.model, self.graph, self.spec, inputs)

    def _described(self, target: Target, file: str, proven: dict[str, Any]) -> Variant:
        variant = Variant(
            name=target.variant,
            engine=target.engine,
            device=target.device,
            precision=target.precision,
            options=target.options,
            file=file,
            details=proven["details"],
            parity=tuple(ParityCase.model_validate(case) for case in proven["parity"]),
        )
        budget = self.spec.verify.accuracy
        if budget is None or not variant.parity:
            return variant
        result = AccuracyResult(
            metric=budget.metric,
            count=len(self.labelled),
            reference=self.golden_stage.data["right"],
            variant=proven["right"],
        )
        check_drop(result, budget)
        return variant.model_copy(update={"accuracy": result})

    def _resolved(self) -> str:
        """The spec in full notation, as ``spec.yaml`` of the artifact holds it."""
        data = self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)

    def _files(self, variants: list[Variant], resolved: str) -> Files:
        stage = self.store.run("spec", {"text": resolved}, _writer({"spec.yaml": resolved}))
        files: Files = {"spec.yaml": stage.folder / "spec.yaml"}
        files |= {path.name: path for path in self._graph_files()}
        for name in self.generated.files:
            files[name] = self.processing_stage.folder / name
        golden = self.golden_stage.folder / "golden"
        files |= {f"golden/{path.name}": path for path in golden.iterdir()}
        return files

    def _manifest(self, variants: list[Variant], files: Files, resolved: str) -> Manifest:
        spec = self.spec
        graph = Graph.model_validate(self.export_stage.data["graph"])
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=spec.name,
            description=spec.description,
            spec_sha256=text_sha256(resolved),
            toolchain=_toolchain(),
            files=file_entries(files),
            inputs=spec.inputs,
            outputs=spec.outputs,
            axes=spec.dynamic_axes,
            batch=spec.batch,
            takes=self.generated.takes,
            answer=self.generated.answer,
            weights=self.weights.origin_in(graph),
            graph=graph,
            variants=tuple(variants),
            limits=spec.limits,
            serving=spec.serving,
        )

    def _stage(self, shown: str, stage: str, inputs: dict[str, Any], make: Any) -> StageResult:  # noqa: ANN401
        with self.reporter.step(shown) as step:
            result = self.store.run(stage, inputs, make)
            step.cached = result.cached
        return result


def _first(outputs: Tensors) -> Array:
    return next(iter(outputs.values()))


def _writer(texts: Mapping[str, str]) -> Any:  # noqa: ANN401 - what StageStore.run takes
    def make(folder: Path) -> dict[str, Any]:
        for name, text in texts.items():
            (folder / name).write_bytes(text.encode())
        return {}

    return make


def _toolchain() -> dict[str, str]:
    found = versions("deployc", *TOOLS, "onnxruntime", "onnxruntime-gpu", "pydantic")
    return {"python": platform.python_version(), **{k: v for k, v in found.items() if v}}
