"""A proven variant whose processing goes into its graph: fused, built, gated and measured."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.cache import StageResult
from compiler.engines import EngineBuilder, Job
from compiler.placement.compare import answers_apart
from compiler.placement.fusing import IMAGE, OPSET, Fusion, fused_steps
from compiler.placement.proof import golden_of, picture_cases, taken, time_items
from compiler.processing import generate
from compiler.processing import read_labels as read_class_names
from compiler.publish import Files
from compiler.stages import digest_of, graph_files, writer
from runtime.engines import get_engine
from runtime.golden import GOLDEN, Case, batch_of, read_golden
from runtime.predictor import Predictor
from runtime.processing import Processing, load_processing
from runtime.tensors import Tensors, unstack
from specs.audit import Audit
from specs.digests import text_sha256
from specs.errors import ProcessingError
from specs.gate import Gate
from specs.manifest import ParityCase, Variant
from specs.schema import Spec, TensorSpec

if TYPE_CHECKING:
    from compiler.variants import VariantBuild

__all__ = ["PROCESSING_GRAPH", "Placed", "why_not"]

PROCESSING_GRAPH = "processing_graph.py"
"""The processing of the variants whose graph does most of it."""
FUSED, PRE = "fused.onnx", "pre.onnx"
AUDIT = "audit.json"
USUAL = ("photo.jpg", "odd.jpg", "sentence", "one word")
"""The items that stand for requests where answers and times are compared."""
APART = 100.0
"""How far answers of the two placements may lie apart, in units of ``compare.answers_apart``: the
same numbers, computed by an engine that optimised another graph."""
FORM = 1e9
"""In a lower precision a rounding may fall otherwise, and only the answer's form is held."""


def why_not(build: VariantBuild) -> str:
    """Why no step of this variant can be in its graph; "" where some can."""
    from compiler.graph import opset_in

    if build.builder.from_source:
        return (
            f"engine {build.target.engine} is built from the model's source and runs no ONNX graph"
        )
    opset = opset_in(build.graph)
    if opset < OPSET:
        return f"the graph has opset {opset}, the steps need {OPSET} or more"
    if Fusion(build.spec, opset).empty:
        return "no step of preprocess or postprocess can be written in ONNX operators"
    return ""


@dataclass
class Placed:
    """The stages of one variant's fused graph, each made when first asked for.

    Args:
        build: the variant as it was proven with its processing in Python.
    """

    build: VariantBuild

    @cached_property
    def fusion(self) -> Fusion:
        """What is in the graph."""
        from compiler.graph import opset_in

        return Fusion(
            self.build.spec, opset_in(self.build.graph), self.builder.resize_on(self.target)
        )

    @property
    def builder(self) -> type[EngineBuilder]:
        """The engine's side that builds."""
        return self.build.builder

    @property
    def target(self) -> Any:  # noqa: ANN401 - the BuildTarget
        """What is built."""
        return self.build.target

    # --- graph, processing, engine

    @cached_property
    def fused(self) -> StageResult:
        """``fused.onnx``, and ``pre.onnx`` for the gate."""
        inputs = {
            "graph": digest_of(graph_files(self.build.graph)),
            "processing": self.build.stages.processing_sha,
            "limits": self.build.spec.limits.model_dump(),
            "resize": self.fusion.resize,
        }
        return self._stage("fuse", "fuse", inputs, self._fuse)

    def _fuse(self, folder: Path) -> dict[str, Any]:
        from compiler.graph import read, save
        from compiler.placement.fusing import fuse, pre_model

        model, outputs = fuse(read(self.build.graph), self.fusion)
        save(model, folder / FUSED, external=None)
        if self.fusion.pre:
            save(pre_model(self.fusion), folder / PRE, external=None)
        return {"outputs": {name: each.model_dump(mode="json") for name, each in outputs.items()}}

    @property
    def outputs(self) -> dict[str, TensorSpec]:
        """What the fused graph gives."""
        told = self.fused.data["outputs"].items()
        return {name: TensorSpec.model_validate(each) for name, each in told}

    @cached_property
    def spec(self) -> Spec:
        """The spec as the engine's builder reads it."""
        return self.fusion.for_engine(self.outputs)

    @cached_property
    def text(self) -> str:
        """The Python that is left."""
        stages = self.build.stages
        labels = read_class_names(stages.spec, stages.loaded.folder)
        return generate(stages.spec, labels, self.fusion.in_graph).text

    @cached_property
    def processing_stage(self) -> StageResult:
        """``processing_graph.py``, with the files that it reads beside it."""
        stages = self.build.stages
        files: dict[str, str | bytes] = {**stages.processing_files, PROCESSING_GRAPH: self.text}
        inputs = {name: text_sha256(str(content)) for name, content in files.items()}
        return self._stage("processing", "processing", inputs, writer(files))

    @cached_property
    def processing(self) -> Processing:
        """It, loaded as the runtime loads it."""
        return load_processing(
            self.processing_stage.folder / PROCESSING_GRAPH, text_sha256(self.text)
        )

    @cached_property
    def engine(self) -> StageResult:
        """The engine's file of the fused graph."""
        return self._stage("engine", f"engine-{self.target.engine}", self._key(FUSED), self._build)

    @cached_property
    def pre_engine(self) -> StageResult:
        """The engine's file of the steps before the model alone."""
        key = self._key(PRE)
        return self._stage(
            "steps alone", f"engine-{self.target.engine}", key, lambda f: self._build(f, PRE)
        )

    def _key(self, name: str) -> dict[str, Any]:
        axes = {k: v.model_dump() for k, v in self.spec.dynamic_axes.items()}
        graph = digest_of([self.fused.folder / name])
        return {**self.build.key, "graph": graph, "axes": axes, "part": name}

    def _build(self, folder: Path, name: str = FUSED) -> dict[str, Any]:
        job = Job(
            graph=self.fused.folder / name,
            folder=folder,
            target=self.target,
            spec=self.spec if name == FUSED else self._pre_spec(),
            model=lambda: self.build.stages.model,
            keep=self.build.keep(),
        )
        built = self.builder.build(job)
        return {"file": built.file, "notes": built.notes}

    def _pre_spec(self) -> Spec:
        name, tensor = next(iter(self.build.spec.inputs.items()))
        return self.fusion.for_engine({name: tensor})

    def file(self, stage: StageResult, name: str = FUSED) -> Path:
        """What the engine loads."""
        built = stage.data["file"]
        return stage.folder / built if built else self.fused.folder / name

    def predictor(self) -> Predictor:
        """The variant through the code that runs in production."""
        from compiler.describe import describe

        session = get_engine(self.target.engine).open(
            self.file(self.engine), self.target.device, self.target.options
        )
        plain = self.build.predictor()
        plain.close()
        variant = self._variant(plain.variant)
        return Predictor(describe(self.build.stages, (variant,)), variant, self.processing, session)

    # --- proofs

    @cached_property
    def gate(self) -> Gate:
        """The steps as nodes, held to their reference."""
        stages = self.build.stages
        inputs = {**self._key(FUSED), "reference": stages.gate_key(), "text": self.text}
        found = self._stage("gate", "gate", inputs, self._look)
        return Gate.model_validate(found.data)

    def _look(self, _folder: Path) -> dict[str, Any]:
        from compiler.placement.gate import graph_gate

        reference, bound = self.build.stages.gate_reference(), self.builder.pixel_bound
        if self.fusion.pre is None:
            gate = graph_gate(reference, bound, self.target.name, None)
        else:
            with self._prepare() as prepare:
                gate = graph_gate(reference, bound, self.target.name, prepare)
        return gate.model_dump(mode="json")

    @contextmanager
    def _prepare(self) -> Generator[Callable[[object], Tensors]]:
        """An item to the model's inputs, by the engine."""
        target = self.target
        file = self.file(self.pre_engine, PRE)
        session = get_engine(target.engine).open(file, target.device, target.options)

        def prepare(item: object) -> Tensors:
            image = self.processing.preprocess(item)[IMAGE]
            return unstack(session.run({IMAGE: image[np.newaxis]}))[0]

        try:
            yield prepare
        finally:
            session.close()

    @cached_property
    def proof(self) -> StageResult:
        """Golden pictures with the outputs that they give, at every batch, and the answers."""
        inputs = {**self._key(FUSED), "text": self.text, "golden": self.build.stages.golden_sha}
        return self._stage("parity", "parity-fused", inputs, self._prove)

    def _prove(self, folder: Path) -> dict[str, Any]:
        from compiler.golden import write_golden
        from compiler.parity import check_parity

        with self.predictor() as fused, self.build.predictor() as plain:
            goldens = [golden_of(fused, case) for case in self._cases()]
            parity = check_parity(fused, goldens, self.build.tolerance, lambda _: "")
            items = taken(plain, self._items())[:2]
            apart = self._answers(fused, plain, items)
            ms = {"python": time_items(plain, items), "graph": time_items(fused, items)}
        write_golden(goldens, folder / GOLDEN)
        cases = [case.model_dump(mode="json") for case in parity]
        return {"parity": cases, "apart": apart, "ms": ms}

    def _cases(self) -> list[Case]:
        """Pictures of two sizes; where the graph takes tensors, the golden tensors themselves."""
        if self.fusion.pre is None:
            return [golden.case for golden in read_golden(self.build.stages.golden)]
        return picture_cases(self.fusion, self.processing)

    def _items(self) -> list[Any]:
        """What requests bring, for answers and times."""
        items = self.build.stages.gate_items()
        if items:
            return [items[name] for name in sorted(items, key=lambda name: name not in USUAL)]
        case = next(read_golden(self.build.stages.golden)).case
        return [dict(item) for item in unstack(batch_of(case.inputs, 2, 0))]

    def _answers(self, fused: Predictor, plain: Predictor, items: list[Any]) -> float:
        """How far the fused graph's answers lie from those of its parts, one after the other.

        Pixels of the two placements differ by what the gate allows, which a model may make much
        of: so the engine's own pixels go through the model and Python's post-processing.
        """
        prepared = [plain.preprocess(item) for item in items]
        if self.fusion.pre is not None:
            with self._prepare() as prepare:
                prepared = [p | prepare(item) for p, item in zip(prepared, items, strict=True)]
        wanted = plain.postprocess(plain.run(prepared))
        return answers_apart(fused.predict(items), wanted).worst

    # --- result

    def check(self) -> None:
        """Raise ``ProcessingError`` where the fused graph is not what it stands for."""
        from compiler.placement.check import check

        check(self.gate)
        apart = self.proof.data["apart"]
        if not apart <= (APART if self.target.precision == "fp32" else FORM):
            message = (
                f"{self.target.name}: answers with processing in the graph are not those with "
                f"processing in Python: {apart:.3g} times (1e-5 + 1e-4 * |value|) apart"
            )
            hint = "use placement: python for this target"
            raise ProcessingError(message, hint=hint, code="answers_differ")

    @property
    def faster(self) -> bool:
        """Whether the fused graph answered sooner, on the machine that built it."""
        ms = self.proof.data["ms"]
        return ms["graph"] < ms["python"]

    @property
    def told(self) -> str:
        """What was measured, in words."""
        ms = self.proof.data["ms"]
        return (
            f"processing in the graph ({fused_steps(self.fusion)}): "
            f"{ms['graph']:.1f} ms an item, in Python {ms['python']:.1f} ms"
        )

    def place(self, variant: Variant) -> Variant:
        """The variant as it runs with its processing in the graph."""
        cases = tuple(ParityCase.model_validate(case) for case in self.proof.data["parity"])
        placed = self._variant(variant)
        return placed.model_copy(
            update={
                "parity": (*variant.parity, *cases),
                "notes": (*variant.notes, self.told),
                "not_audited": self.audit.not_run,
            }
        )

    def _variant(self, variant: Variant) -> Variant:
        name = self.file(self.engine).name
        changes = {
            "file": f"variants/{self.target.name}/{name}",
            "processing": PROCESSING_GRAPH,
            "placement": "graph",
            "golden": f"variants/{self.target.name}/{GOLDEN}",
            "inputs": self.fusion.inputs,
            "outputs": self.outputs,
            "axes": self.fusion.axes,
        }
        return variant.model_copy(update=changes)

    @cached_property
    def audit_stage(self) -> StageResult:
        """``audit.json``: the model's, with where the engine runs the whole fused graph."""
        from compiler.audit.fused import with_placement

        def make(folder: Path) -> dict[str, Any]:
            layers = self.builder.layers(self.file(self.engine), self.target)
            graph = self.fused.folder / FUSED
            audit = with_placement(self.build.audited, self.target, layers, graph, self.spec)
            (folder / AUDIT).write_text(audit.model_dump_json(indent=1) + "\n", "utf-8")
            return {}

        plain = self.build.audited.model_dump(mode="json")
        return self._stage("audit", "audit-fused", {**self._key(FUSED), "plain": plain}, make)

    @cached_property
    def audit(self) -> Audit:
        """What it found; refused where it is not as asked."""
        from compiler.audit import check

        text = (self.audit_stage.folder / AUDIT).read_text("utf-8")
        found = Audit.model_validate_json(text)
        check(found, self.target, self.build.spec)
        return found

    def files(self) -> Files:
        """The variant's files, the fused engine's in the place of the others."""
        folder = f"variants/{self.target.name}"
        built = [path for path in self.engine.folder.iterdir() if path.name != "stage.json"]
        built += graph_files(self.fused.folder / FUSED)
        golden = sorted((self.proof.folder / GOLDEN).iterdir())
        return {
            f"{folder}/{AUDIT}": self.audit_stage.folder / AUDIT,
            **{f"{folder}/{path.name}": path for path in sorted(built)},
            **{f"{folder}/{GOLDEN}/{path.name}": path for path in golden},
            PROCESSING_GRAPH: self.processing_stage.folder / PROCESSING_GRAPH,
        }

    def _stage(
        self, shown: str, stage: str, inputs: dict[str, Any], make: Callable[[Path], dict[str, Any]]
    ) -> StageResult:
        name = f"{self.target.name} (graph): {shown}"
        return self.build.stages.stage(name, stage, inputs | {"target": self._told()}, make)

    def _told(self) -> dict[str, Any]:
        return asdict(self.target) | {"quantize": None, "name": None, "placement": None}
