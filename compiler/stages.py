"""The stages that every target shares: weights, processing, export, reference."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.accuracy import Labelled, count_right, read_labels
from compiler.cache import StageResult, StageStore, cache_folder, versions
from compiler.placement.golden_items import GOLDEN_FILES, GOLDEN_TEXTS, golden_files
from compiler.processing import PROCESSING, GeneratedProcessing, generate, limits_of
from compiler.processing import read_labels as read_class_names
from compiler.progress import Reporter
from compiler.reads import source_files
from compiler.samples import calibration_files, read_item, read_items, sample_files
from compiler.weights import FoundWeights, find_weights
from runtime.golden import read_golden
from runtime.processing import FAST, Processing, load_processing
from runtime.tensors import Array, Tensors
from specs.digests import file_sha256, text_sha256
from specs.errors import SourceError
from specs.gate import Gate
from specs.loader import LoadedSpec
from specs.schema import Spec, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.placement.gate import Reference
    from compiler.sources import Model

__all__ = ["MODEL", "TOOLS", "Stages", "graph_files", "writer"]

MODEL = "model.onnx"
LOGS = "logs"
"""Folder of the export stage where the exporter's reports lie, where the spec asks for any."""
GATE_SAMPLES = 8
"""How many of ``verify.samples`` go through the gate beside the golden images."""
TOOLS = ("torch", "torchvision", "onnx", "onnxscript", "numpy", "pillow")


@dataclass
class Stages:
    """One build: its inputs, and the results of its stages, each made when first asked for.

    Args:
        loaded: the spec.
        reporter: shows the stages.
        override: takes the place of the spec's ``weights``.
    """

    loaded: LoadedSpec
    reporter: Reporter
    override: Weights | None = None
    store: StageStore = field(default_factory=lambda: StageStore(cache_folder()))
    _reference_run: Reference | None = None

    @property
    def spec(self) -> Spec:
        """The spec itself."""
        return self.loaded.spec

    @cached_property
    def model(self) -> Model:
        """The model, loaded when the first stage that is not cached needs it: torch is slow."""
        from compiler.sources import load_model

        return load_model(self.spec.model, self.loaded.folder, self.weights)

    def run(self) -> None:
        """Run the stages in their order."""
        for stage in ("weights", "processing_stage", "export_stage", "reference_stage"):
            getattr(self, stage)
        self._check_gate()

    def stage(
        self,
        shown: str,
        stage: str,
        inputs: dict[str, Any],
        make: Callable[[Path], dict[str, Any]],
    ) -> StageResult:
        """One stage: shown, and run only where its inputs changed."""
        with self.reporter.step(shown) as step:
            result = self.store.run(stage, inputs, make)
            step.cached = result.cached
        return result

    # --- weights and processing

    @cached_property
    def weights(self) -> FoundWeights:
        """The weights' file, found and checked."""
        with self.reporter.step("weights") as step:
            found = find_weights(self.spec, self.loaded.folder, self.override, self.reporter)
            step.detail = str(found.origin)
        if found.origin.origin == "random":
            self.reporter.note(f"weights are {found.origin}")
        return found

    @cached_property
    def generated(self) -> GeneratedProcessing:
        """The text of ``processing.py`` and what it answers."""
        return generate(self.spec, read_class_names(self.spec, self.loaded.folder))

    @cached_property
    def processing_stage(self) -> StageResult:
        """``processing.py`` and its labels as files."""
        files = self.processing_files
        inputs = {name: _digest_in(content) for name, content in files.items()}
        return self.stage("processing", "processing", inputs, writer(files))

    @cached_property
    def processing_files(self) -> dict[str, str | bytes]:
        """``processing.py`` and what it reads beside it, by name."""
        folder = self.loaded.folder
        copies = self.generated.copies.items()
        return {**self.generated.files, **{n: _read(folder / path) for n, path in copies}}

    @cached_property
    def processing_sha(self) -> str:
        """Digest of ``processing.py``."""
        return text_sha256(self.generated.text)

    @cached_property
    def processing(self) -> Processing:
        """``processing.py``, loaded as the runtime loads it."""
        return load_processing(self.processing_stage.folder / PROCESSING, self.processing_sha)

    # --- export

    @cached_property
    def export_stage(self) -> StageResult:
        """The portable graph, held to the spec."""
        stage = self.stage("export", "export", self._export_key(), self._export)
        for note in stage.data["notes"]:
            self.reporter.note(note)
        logs = stage.folder / LOGS
        if logs.is_dir():
            self.reporter.note(f"what the exporter wrote: {logs}")
        return stage

    @property
    def graph(self) -> Path:
        """The portable graph's file."""
        return self.export_stage.folder / MODEL

    @cached_property
    def graph_sha(self) -> str:
        """Digest of the portable graph and its weights."""
        return digest_of(graph_files(self.graph))

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

    def _export(self, folder: Path) -> dict[str, Any]:
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

    # --- reference

    @cached_property
    def reference_stage(self) -> StageResult:
        """PyTorch's outputs on the golden inputs, and its right answers."""
        inputs = {
            "export": self._export_key(),
            "graph": self.graph_sha,
            "samples": [(path.suffix, file_sha256(path)) for path in self.samples],
            **self.judged_by(),
        }
        return self.stage("reference", "reference", inputs, self._reference)

    @property
    def golden(self) -> Path:
        """The folder of golden tensors."""
        return self.reference_stage.folder / "golden"

    @cached_property
    def golden_sha(self) -> str:
        """Digest of the golden tensors."""
        return digest_of(sorted(self.golden.iterdir()))

    @cached_property
    def samples(self) -> list[Path]:
        """The files that ``verify.samples`` names."""
        return sample_files(self.spec, self.loaded.folder)

    @cached_property
    def labelled(self) -> list[Labelled]:
        """The labelled samples; none where the spec sets no accuracy budget."""
        accuracy = self.spec.verify.accuracy
        return read_labels(accuracy, self.loaded.folder) if accuracy else []

    @cached_property
    def calibration(self) -> list[Path]:
        """The files that int8 is calibrated with."""
        return calibration_files(self.spec, self.loaded.folder)

    def calibration_items(self) -> Iterator[Tensors]:
        """The calibration items as the graph's inputs, each at batch 1."""
        return read_items(self.calibration, self.processing, "calibration.samples")

    # --- the gate of processing

    @cached_property
    def golden_files(self) -> dict[str, Path]:
        """The golden images or sounds by name; none where a request brings no file."""
        takes = self.generated.takes
        if takes not in GOLDEN_FILES:
            return {}

        def make(folder: Path) -> dict[str, Any]:
            return writer(golden_files(takes))(folder)

        key = {"takes": takes, "versions": versions("numpy", "pillow")}
        stage = self.stage(f"golden {GOLDEN_FILES[takes]}", "golden-files", key, make)
        files = sorted(stage.folder.iterdir())
        return {path.name: path for path in files if path.name != "stage.json"}

    def gate_items(self) -> dict[str, Any]:
        """What goes through the executions of ``preprocess``, by name."""
        if self.generated.takes == "text":
            return dict(GOLDEN_TEXTS)
        items = {name: path.read_bytes() for name, path in self.golden_files.items()}
        if items:
            items |= {path.name: read_item(path) for path in self.samples[:GATE_SAMPLES]}
        return items

    def gate_key(self) -> dict[str, Any]:
        """What the reference of the gate depends on."""
        return {
            "processing": self.processing_sha,
            "files": {n: _digest_in(content) for n, content in self.processing_files.items()},
            "images": {name: file_sha256(path) for name, path in self.golden_files.items()},
            "samples": [file_sha256(path) for path in self.samples[:GATE_SAMPLES]],
            "golden": self.golden_sha,
            "versions": versions(*TOOLS, *(name.replace("_", "-") for name in FAST)),
        }

    def _plain_processing(self) -> Processing | None:
        """``processing.py`` as it runs where no faster library is; None where none is here."""
        if not any(find_spec(name) for name in FAST):
            return None
        file = self.processing_stage.folder / PROCESSING
        return load_processing(file, self.processing_sha, fast=False)

    @cached_property
    def gate_stage(self) -> StageResult:
        """Generated Python, held to its reference."""

        def make(_folder: Path) -> dict[str, Any]:
            from compiler.placement.gate import python_gate

            return python_gate(self.gate_reference()).model_dump(mode="json")

        return self.stage("gate", "gate", self.gate_key(), make)

    @cached_property
    def gate(self) -> Gate:
        """What it found."""
        return Gate.model_validate(self.gate_stage.data)

    def gate_reference(self) -> Reference:
        """The reference of the processing, run when first looked at."""
        if self._reference_run is None:
            from compiler.placement.gate import Reference
            from compiler.processing.executions import Home, TorchLibraries

            self._reference_run = Reference(
                spec=self.spec,
                processing=self.processing,
                items=self.gate_items(),
                goldens=list(read_golden(self.golden)),
                home=Home(self.processing_stage.folder, limits_of(self.spec)),
                plain=self._plain_processing(),
                lib=TorchLibraries(self.loaded.folder),
            )
        return self._reference_run

    def _check_gate(self) -> None:
        if self.spec.preprocess or self.spec.postprocess:
            from compiler.placement.check import check

            check(self.gate)

    def judged_by(self) -> dict[str, Any]:
        """What a result is compared with, for the keys of stages."""
        return {
            "verify": self.spec.verify.model_dump(mode="json"),
            "labelled": [(item.index, file_sha256(item.file)) for item in self.labelled],
            "processing": self.processing_sha,
        }

    def _reference(self, folder: Path) -> dict[str, Any]:
        from compiler.cases import golden_cases
        from compiler.golden import run_reference, write_golden

        cases = golden_cases(self.spec, self.samples, self.processing)
        goldens = [run_reference(self.model, self.spec, case) for case in cases]
        write_golden(goldens, folder / "golden")
        return {"right": self.right(self._run_model), "cases": len(goldens)}

    def _run_model(self, inputs: Tensors) -> Array:
        ordered = [inputs[name] for name in self.spec.inputs]
        return self.model.outputs(ordered, self.spec.export.forward_kwargs)[0]

    def right(self, run: Callable[[Tensors], Array]) -> int:
        """How many labelled samples ``run`` answers right."""
        accuracy = self.spec.verify.accuracy
        if accuracy is None:
            return 0
        return count_right(self.labelled, self.processing, run, self.spec, accuracy.metric)


def graph_files(graph: Path) -> list[Path]:
    """The graph, and its weights where they lie beside it."""
    beside = graph.with_name(f"{graph.name}.data")
    return [graph, beside] if beside.exists() else [graph]


def digest_of(files: list[Path]) -> str:
    """One digest over the content of several files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _digest_in(content: str | bytes) -> str:
    return content if isinstance(content, str) else hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        hint = "paths are relative to the spec's folder"
        raise SourceError(message, hint=hint, code="file_missing") from error


def writer(texts: Mapping[str, str | bytes]) -> Callable[[Path], dict[str, Any]]:
    """Makes a stage whose files are these."""

    def make(folder: Path) -> dict[str, Any]:
        for name, text in texts.items():
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return {}

    return make
