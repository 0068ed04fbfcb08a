"""The manifest of what was built."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence

import yaml

from compiler.cache import versions
from compiler.publish import Files, file_entries
from compiler.stages import TOOLS, Stages
from specs.answers import answer_schema
from specs.digests import text_sha256
from specs.flow import answer_type
from specs.gate import Gate
from specs.manifest import SCHEMA_VERSION, Choice, Graph, Manifest, OwnStep, Variant
from specs.ops.python import Python, step_file
from specs.schema import Spec

__all__ = ["describe", "resolved"]


def resolved(stages: Stages) -> str:
    """The spec in full notation, as ``spec.yaml`` of the artifact holds it."""
    data = stages.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def describe(
    stages: Stages,
    variants: Sequence[Variant],
    choices: Sequence[Choice] = (),
    gates: Sequence[Gate] = (),
    *,
    files: Files | None = None,
) -> Manifest:
    """The manifest for these variants, the preferred one first, and these files."""
    spec = stages.spec
    graph = Graph.model_validate(stages.export_stage.data["graph"])
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=spec.name,
        description=spec.description,
        spec_sha256=text_sha256(resolved(stages)),
        toolchain=_toolchain(),
        files=file_entries(files or {}),
        inputs=spec.inputs,
        outputs=spec.outputs,
        axes=spec.dynamic_axes,
        batch=spec.batch,
        takes=stages.generated.takes,
        answer=stages.generated.answer,
        answer_schema=answer_schema(answer_type(spec), spec.outputs),
        weights=stages.weights.origin_in(graph),
        graph=graph,
        variants=tuple(variants),
        on_missing=spec.on_missing,
        gates=tuple(gates),
        own_code=tuple(_own_code(spec)),
        choices=tuple(choices),
        limits=spec.limits,
        serving=spec.serving,
    )


def _own_code(spec: Spec) -> Iterator[OwnStep]:
    for stage, steps in (("preprocess", spec.preprocess), ("postprocess", spec.postprocess)):
        for op in steps:
            if isinstance(op, Python):
                about = {"function": op.function, "file": op.file, "copy_in": step_file(op.file)}
                yield OwnStep.model_validate({"stage": stage, **about})


def _toolchain() -> dict[str, str]:
    found = versions("deployc", *TOOLS, "onnxruntime", "onnxruntime-gpu", "pydantic")
    return {"python": platform.python_version(), **{k: v for k, v in found.items() if v}}
