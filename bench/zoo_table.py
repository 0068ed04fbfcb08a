"""The zoo's results, and the table that is made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Result", "read_results", "write_table"]

EXPORTERS = ("torchscript", "dynamo")
KINDS = (
    "classification",
    "segmentation",
    "detection",
    "video",
    "optical flow",
    "quantised",
    "quantised int8",
)
HOLLOW = 0.01
"""Spread below which agreement proves nothing: ten times the absolute tolerance."""
TORCH, RUNTIME, OURS = "torch exporter", "ONNX Runtime", "ours"
CAUSES = (
    (r"__obj_flatten__", "torch.export cannot read packed int8 weights", TORCH),
    (
        r"missing support for quantized `onnx::(\w+)`",
        r"the TorchScript exporter has no int8 form of \1",
        TORCH,
    ),
    (
        r"GuardOnDataDependentSymNode",
        "torch.export cannot branch on how many boxes are left ({where})",
        TORCH,
    ),
    (
        r"raft\w+ dynamo contract: .*asked batch, found 2",
        "torch.export fixes the batch at 2, where torch.chunk parts two stacked images",
        TORCH,
    ),
    (
        r"_int8 torchscript parity: .*?([\d.e+]+) times the tolerance",
        r"PyTorch's int8 kernels and ONNX Runtime round differently: \1 times the tolerance",
        "PyTorch and " + RUNTIME,
    ),
    (r"(traceback: .*)", r"\1", OURS),
)
"""What is looked for in ``model exporter code: message``; the cause in one line, and whose it is.
Each was found by hand; a failure that none of them knows is ours until it is looked into."""
ABOUT = """\
# The zoo

Every model that `torchvision.models.list_models()` names, built by deployc through both of
torch's exporters and proven: opset {opset}, parity with PyTorch at every corner of the batch (1, 2,
3 and 4; MViT, for its memory, 1 and 2; a detector 1). Written by `python bench/zoo.py`; nothing
here is typed by hand.

- **Parity** is the largest difference from PyTorch over all outputs and runs, and in brackets the
  largest difference over what is allowed (atol and rtol 0.001); parity holds up to 1.
- **Inputs** are the smallest that a model and both exporters take, of side 64 or more (multiples of
  8): below 64 the last stage of most is a single pixel. `bench/zoo_models.py` finds them by trying.
  AlexNet and VGG need more because TorchScript's exporter takes an adaptive pooling only where its
  output divides its input.
- **Weights** are random, scaled layer by layer so that every output depends on the input: as
  torchvision draws them, many models answer the same to everything. A model whose answers to
  different inputs differ by less than {hollow} is not counted ("hollow").
- **Detectors** are functions of one image [1, 3, 64, 64] with outputs of a fixed number of rows
  (`docs/spec.md`), hence a fixed batch of 1. The threshold of their scores is set such that a
  few things are found, and they are compared on images in which PyTorch alone sees no two scores
  whose logits lie within 0.001: nearer ones may change places with the last bit. Every row of every
  output is compared.
- **Quantised int8** rows are the quantised models with `kwargs: {{quantize: true}}`; their name
  alone gives the float model that is meant to be quantised.
- **Seconds** are of the whole process on a busy two-core machine, one thread: for planning only.

Versions: {versions}.
"""


@dataclass(frozen=True)
class Result:
    """What came of one case, as a line of ``results.jsonl``.

    Args:
        model, kind, parameters, exporter: the case.
        input: shapes of the inputs.
        code, message, hint: of the error that it ended with; "" where it was built.
        opset: of the graph.
        runs: batches at which parity was measured.
        max_abs: largest difference from PyTorch.
        excess: largest difference over what is allowed; parity holds up to 1.
        spread: how far PyTorch's answers to different items lie apart.
        seconds, peak_gb: of the whole process.
        stages: seconds of each stage.
        versions: of the libraries.
    """

    model: str
    kind: str
    parameters: int
    exporter: str
    input: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""
    opset: int = 0
    runs: int = 0
    max_abs: float = 0.0
    excess: float = 0.0
    spread: float = 0.0
    seconds: float = 0.0
    peak_gb: float = 0.0
    stages: dict[str, float] = field(default_factory=dict[str, float])
    versions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        """The case's name."""
        return f"{self.model} {self.exporter}"

    @property
    def proven(self) -> bool:
        """Built, in parity, and of outputs that depend on the input."""
        return not self.code and self.spread >= HOLLOW

    @property
    def line(self) -> str:
        """For the terminal."""
        told = f"{self.max_abs:.2g} ({self.excess:.2g})" if self.proven else cause(self)[0]
        return f"{self.name}: {told}, {self.seconds:g} s, {self.peak_gb:g} GB"


def read_results(file: Path) -> list[Result]:
    """The last result of each case; none where there is no file."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    found = [Result(**json.loads(line)) for line in lines]
    return list({each.name: each for each in found}.values())


def cause(result: Result) -> tuple[str, str]:
    """Why a case failed, in one line, and whose fault it is."""
    if not result.code:
        return f"hollow: answers differ by {result.spread:.2g} only", OURS
    message = " ".join(result.message.split())
    text = f"{result.name} {result.code}: {message}"
    for pattern, told, owner in CAUSES:
        match = re.search(pattern, text)
        if match:
            where = re.search(r"Caused by: \(\S*/(\S+\.py:\d+) in (\w+)\)", text)
            place = f"{where[2]}, {where[1]}" if where else "non-maximum suppression"
            return match.expand(told).replace("{where}", place)[:200], owner
    return f"{result.code}: {message[:200]}", OURS


def write_table(results: Sequence[Result], file: Path) -> None:
    """Write the table of all results as Markdown."""
    file.write_text("\n".join(_lines(results)) + "\n", "utf-8")


def _lines(results: Sequence[Result]) -> Iterator[str]:
    versions = {k: v for each in results for k, v in each.versions.items()}
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    opsets = sorted({each.opset for each in results if each.opset})
    yield ABOUT.format(opset=", ".join(map(str, opsets)), hollow=HOLLOW, versions=told)
    yield from _summary(results)
    yield from _failures([each for each in results if not each.proven])
    for kind in KINDS:
        yield from _rows(kind, [each for each in results if each.kind == kind])


def _summary(results: Sequence[Result]) -> Iterator[str]:
    yield "## Built and in parity\n"
    yield "| kind | models | torchscript | dynamo | at least one | tracebacks |"
    yield "|---|---|---|---|---|---|"
    for kind in (*KINDS, "all"):
        of = [each for each in results if kind in (each.kind, "all")]
        models = {each.model for each in of}
        proven = {(each.model, each.exporter) for each in of if each.proven}
        counts = [sum(exporter == wanted for _, exporter in proven) for wanted in EXPORTERS]
        either = len({model for model, _ in proven})
        bad = sum(each.code == "traceback" for each in of)
        yield f"| {kind} | {len(models)} | {counts[0]} | {counts[1]} | {either} | {bad} |"


def _failures(results: Sequence[Result]) -> Iterator[str]:
    yield "\n## What fails, why, and whose it is\n"
    yield "| model | exporter | code | cause | whose |"
    yield "|---|---|---|---|---|"
    for each in sorted(results, key=lambda result: (KINDS.index(result.kind), result.name)):
        why, owner = cause(each)
        told = why.replace("|", r"\|").replace("<", r"\<")
        yield f"| {each.model} | {each.exporter} | {each.code or 'hollow'} | {told} | {owner} |"


def _rows(kind: str, results: Sequence[Result]) -> Iterator[str]:
    yield f"\n## {kind.capitalize()}\n"
    yield "| model | parameters | input | torchscript | s | dynamo | s | opset |"
    yield "|---|---|---|---|---|---|---|---|"
    for model in sorted({each.model for each in results}):
        found = {each.exporter: each for each in results if each.model == model}
        some = next(iter(found.values()))
        shape = next((each.input for each in found.values() if each.input), "")
        cells = [_cell(found.get(exporter)) for exporter in EXPORTERS]
        opsets = sorted({each.opset for each in found.values() if each.opset})
        opset = ", ".join(map(str, opsets)) or "-"
        size = f"{some.parameters / 1e6:.1f} M"
        yield f"| {model} | {size} | {shape} | {' | '.join(cells)} | {opset} |"


def _cell(result: Result | None) -> str:
    if result is None:
        return "not run | "
    told = f"{result.max_abs:.1e} ({result.excess:.2g})" if result.proven else "fails"
    return f"{told} | {result.seconds:.0f}"
