"""Writes the text of ``processing.py`` from a spec's steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from compiler.processing.copying import PACKAGES, Copied
from compiler.processing.layout import comment, statement
from specs.axes import AxisRange
from specs.digests import json_sha256
from specs.flow import carried, postprocess_start, preprocess_start, walk
from specs.manifest import Answer, Takes
from specs.ops import GEOMETRY, Emitted, Op
from specs.ops._boxes import detection_entries
from specs.ops._geometry import whole_image
from specs.ops._labels import label_file
from specs.ops._source import BadInput, as_input, as_tensors
from specs.schema import Spec, TensorSpec, image_side
from specs.values import Dim, Kind, Value

__all__ = ["PROCESSING", "GeneratedProcessing", "InGraph", "generate", "limits_of", "parts"]

PROCESSING = "processing.py"
"""The file's name in the artifact."""
INDENT = 4
TAKES: dict[Kind, Takes] = {"encoded": "image", "audio": "audio", "text": "text"}
LIMITS = {
    "MAX_BYTES": "bytes",
    "MAX_PIXELS": "pixels",
    "MAX_SIDE": "side",
    "MAX_FRAMES": "frames",
    "MAX_TEXT": "text",
    "MAX_SECONDS": "seconds",
}
"""The op library's own constants that the spec's limits take the place of."""


@dataclass(frozen=True)
class GeneratedProcessing:
    """What the stage puts into the artifact, and what the manifest says of it."""

    text: str
    """The text of the processing file."""
    labels: Mapping[str, str]
    """The texts of the label files beside it, by file name."""
    copies: Mapping[str, str]
    """Files beside it that come from the spec's folder: name in the artifact, and path there."""
    takes: Takes
    """What ``preprocess`` takes."""
    answer: Answer
    """What ``postprocess`` gives."""

    @property
    def files(self) -> dict[str, str]:
        """Every generated file's text by its name in the artifact."""
        return {PROCESSING: self.text, **self.labels}


@dataclass(frozen=True)
class InGraph:
    """Which steps are in the graph (``placement: graph``), and how Python meets it.

    Args:
        first: the first step of ``preprocess`` that is in the graph.
        inputs: what the graph takes in their place, one item without the batch dimension.
        last: the first step of ``postprocess`` that is in Python again.
        outputs: what the graph gives in the place of the model's outputs.
        rest: what Python still does of the last step in the graph.
        start: the type of the value that the step at ``last`` takes.
    """

    first: int
    inputs: Mapping[str, Value]
    last: int
    outputs: tuple[str, ...]
    rest: Emitted | None
    start: Value


def parts(spec: Spec) -> dict[str, Any]:
    """What generation reads of a spec, as JSON; its digest stands in the file's head."""
    fields = ("name", "inputs", "outputs", "dynamic_axes", "preprocess", "postprocess", "limits")
    return spec.model_dump(mode="json", by_alias=True, include=set(fields))


def limits_of(spec: Spec) -> dict[str, str]:
    """The expressions of the spec's limits, by the name that they have in the op library."""
    return {name: f"{getattr(spec.limits, key):_}" for name, key in LIMITS.items()}


def joined(steps: tuple[Op, ...]) -> tuple[Op, ...]:
    """The steps, those that do better together joined (``Op.join``)."""
    done: list[Op] = []
    for step in steps:
        together = done[-1].join(step) if done else None
        done[-1:] = together or (*done[-1:], step)
    return tuple(done)


def generate(
    spec: Spec, labels: Mapping[str, Sequence[str]], in_graph: InGraph | None = None
) -> GeneratedProcessing:
    """Write the processing of ``spec``.

    Args:
        spec: a valid spec.
        labels: names of the classes by language, as ``read_labels`` gives them.
        in_graph: the steps that the graph does, where it does any.
    """
    draft = _Draft(spec, in_graph)
    preprocess = draft.preprocess()
    postprocess, answer = draft.postprocess()
    return GeneratedProcessing(
        text=draft.text(preprocess, postprocess),
        labels={label_file(key): "\n".join(lines) + "\n" for key, lines in labels.items()},
        copies=draft.files,
        takes=TAKES.get(preprocess_start(spec).kind, "tensors"),
        answer=answer,
    )


@dataclass
class _Draft:
    """The file as it grows: copied code, and the constants of the steps."""

    spec: Spec
    in_graph: InGraph | None
    copied: Copied = field(init=False)
    constants: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.copied = Copied(limits_of(self.spec), set(PACKAGES))
        self.copied.add_import("typing", "Any", "Any")
        self.copied.add_import("numpy.typing", "NDArray", "NDArray")
        self.copied.add(BadInput)

    def preprocess(self) -> str:
        """The function's body."""
        start = preprocess_start(self.spec)
        if start.kind == "tensor":
            return self._from_tensors(start)
        first = self.in_graph.first if self.in_graph else len(self.spec.preprocess)
        track = GEOMETRY in carried(self.spec)
        lines = ["    x, into = data, out or {}"]
        python, fused = self.spec.preprocess[:first], self.spec.preprocess[first:]
        python, first = joined(python), len(joined(python))
        steps = [(step.emit(value), to) for step, value, to in walk((*python, *fused), start)]
        # Sizes that a step refuses are refused before the graph makes them.
        follow = track or any(emitted.geometry for emitted, _ in steps[first:])
        for number, (emitted, result) in enumerate(steps):
            if number == len(steps) - 1 and emitted.into and number < first:
                into = emitted.into.replace("{into}", self._into(next(iter(self.spec.inputs))))
                emitted = replace(emitted, expression=into)  # noqa: PLW2901 - the same step
            lines += self._step(emitted) if number < first else []
            lines += self._geometry(emitted, result, number) if follow else []
        last = self._last(start)
        return "\n".join([*lines, self._end(last, track=track)])

    def _last(self, start: Value) -> Mapping[str, Value]:
        """What Python's last step gives, by the input that it is for."""
        if self.in_graph:
            return self.in_graph.inputs
        *_, (_, _, value) = walk(self.spec.preprocess, start)
        return value.fields or {next(iter(self.spec.inputs)): value}

    def _from_tensors(self, start: Value) -> str:
        self.copied.add(as_tensors)
        inputs = [f'"{name}": {self._tensor(tensor)}' for name, tensor in self.spec.inputs.items()]
        self.constants["INPUTS"] = f"{{{', '.join(inputs)}}}"
        if not self.spec.preprocess:
            return "    del out  # the item's own arrays\n    return as_tensors(data, INPUTS)"
        name = next(iter(self.spec.inputs))
        first = f'    x, into = as_tensors(data, INPUTS)["{name}"], out or {{}}'
        steps = self._steps(self.spec.preprocess, start)
        return "\n".join([first, *steps, self._end(self._last(start), track=False)])

    def _geometry(self, emitted: Emitted, result: Value, number: int) -> list[str]:
        """The line that follows the pixels through one step."""
        if emitted.geometry:
            self._copy(emitted, emitted.geometry)
            now = emitted.geometry.replace("{at}", "at").replace("{x}", "x")
            return [statement("at = ", now, INDENT)]
        if number > 0 or result.kind != "image":
            return []
        self.copied.add(whole_image)
        return ["    at = whole_image(x)"]

    def postprocess(self) -> tuple[str, Answer]:
        """The function's body, and what it answers."""
        if not self.spec.postprocess:
            return _ALL_OUTPUTS.format(x="outputs"), "tensors"
        start, steps = postprocess_start(self.spec), self.spec.postprocess
        names, lines = list(self.spec.outputs), list[str]()
        *_, (_, _, last) = walk(steps, start)
        if self.in_graph:
            start, steps = self.in_graph.start, steps[self.in_graph.last :]
            names = list(self.in_graph.outputs)
        first = "outputs" if len(names) > 1 else f'outputs["{names[0]}"]'
        lines = [f"    x: Any = {first}"]
        if self.in_graph and self.in_graph.rest:
            lines += self._step(self.in_graph.rest)
        lines += self._steps(steps, start)
        ending, answer = self._answer(last)
        return "\n".join([*lines, ending]), answer

    def _answer(self, last: Value) -> tuple[str, Answer]:
        """The return statement, and the answer's kind."""
        if last.kind == "classes":
            return '    return [{"classes": item} for item in x]', "classes"
        if last.kind == "answer_image":
            return '    return [{"image": item} for item in x]', "image"
        if last.kind == "detections":
            self.copied.add(detection_entries)
            return '    return [{"detections": detection_entries(i)} for i in x]', "detections"
        if last.kind == "tensors":
            picked = ", ".join(f'"{name}": x["{name}"]' for name in last.fields)
            return f"    x = {{{picked}}}\n{_ALL_OUTPUTS.format(x='x')}", "tensors"
        name = last.origin or next(iter(self.spec.outputs))
        return f'    return [{{"outputs": {{"{name}": item}}}} for item in x]', "tensors"

    def _steps(self, steps: tuple[Op, ...], start: Value) -> list[str]:
        """Every step's comment and statement."""
        lines: list[str] = []
        for step, value, _ in walk(steps, start):
            self.copied.packages.update(step.packages)
            lines += self._step(step.emit(value))
        return lines

    def _step(self, emitted: Emitted) -> list[str]:
        """One step's comment and statement."""
        self._copy(emitted, emitted.expression, *emitted.constants.values())
        self.files |= emitted.files
        expression = emitted.expression
        for name, constant in emitted.constants.items():
            kept = self._constant(name, constant)
            expression = re.sub(rf"\b{name}\b", kept, expression)
        lines = [comment(emitted.comment, INDENT)]
        if expression != "{x}":
            self._use_numpy(expression)
            lines.append(statement("x = ", expression.replace("{x}", "x"), INDENT))
        return lines

    def _copy(self, emitted: Emitted, *texts: str) -> None:
        """Copy those of a step's functions that the texts call."""
        called = set(re.findall(r"\w+", " ".join(texts)))
        for function in emitted.functions:
            if function.__name__ in called:
                self.copied.add(function)

    def _constant(self, name: str, expression: str) -> str:
        """Keep a step's constant; a name that has another value already gets a number."""
        self._use_numpy(expression)
        kept, number = name, 1
        while self.constants.setdefault(kept, expression) != expression:
            number += 1
            kept = f"{name}_{number}"
        return kept

    def _use_numpy(self, expression: str) -> None:
        if re.search(r"\bnp\.", expression):
            self.copied.add_import("numpy", "", "np")

    def _end(self, last: Mapping[str, Value], *, track: bool) -> str:
        """The check of the finished item, and the result."""
        self.copied.add(as_input)
        remark = comment("Check that this is what the model takes.", INDENT)
        single = len(last) == 1
        if single and not track:
            (name, value), *_ = last.items()
            check = statement("x = ", self._check("x", name, value), INDENT)
            return f'{remark}\n{check}\n    return {{"{name}": x}}'
        pairs = [
            f'"{name}": {self._check("x" if single else f"""x["{name}"]""", name, value)}'
            for name, value in last.items()
        ]
        pairs += [f'"{GEOMETRY}": at'] if track else []
        result = f"{{{', '.join(pairs)}}}"
        return f"{remark}\n{statement('return ', result, INDENT)}"

    def _check(self, x: str, name: str, value: Value) -> str:
        known = self.spec.inputs.get(name)
        dtype = known.dtype if known else value.dtype
        shape = self._shape(known.shape[1:] if known else value.shape)
        return f'as_input({x}, "{name}", "{dtype}", {shape}, {self._into(name)})'

    @staticmethod
    def _into(name: str) -> str:
        """Where an input may be written to, or None."""
        return f'into.get("{name}")'

    def _tensor(self, tensor: TensorSpec) -> str:
        return f'("{tensor.dtype}", {self._shape(tensor.shape[1:])})'

    def _shape(self, shape: tuple[Dim, ...]) -> str:
        """One item's shape; an open size as (name, min, max)."""
        dims: list[str] = []
        for dim in shape:
            axis = self._axis(dim)
            dims.append(str(dim) if isinstance(dim, int) else f'("{dim}", {axis.min}, {axis.max})')
        return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"

    def _axis(self, dim: Dim) -> AxisRange:
        if isinstance(dim, str) and dim not in self.spec.dynamic_axes:  # a side of the image
            return image_side(self.spec.limits)
        return self.spec.axis(dim)

    def text(self, preprocess: str, postprocess: str) -> str:
        """The whole file."""
        head = _HEAD.format(
            name=self.spec.name, version=version("deployc"), digest=json_sha256(parts(self.spec))
        )
        names = ", ".join(f'"{name}"' for name in carried(self.spec))
        comma = "," if names and ", " not in names else ""
        constants = [f"CARRIED: tuple[str, ...] = ({names}{comma})"]
        constants += [statement(f"{name} = ", value) for name, value in self.constants.items()]
        blocks = [
            f"{head}\n\n{self.copied.import_lines()}\n\n{_ALL}",
            *self.copied.functions.values(),
            _CARRIED + "\n".join(constants),
            _PREPROCESS + preprocess,
            _POSTPROCESS + postprocess,
        ]
        if self.copied.constants:
            blocks[0] += "\n\n" + "\n".join(self.copied.constants.values())
        return "\n\n\n".join(blocks) + "\n"


_HEAD = '''\
# Processing of '{name}', generated by deployc {version}; do not edit: its hash is checked.
# sha256 of the parts of the spec that it is made from:
# {digest}
"""From a request's item to the model's inputs, and from its outputs to the answer.

The steps are at the end, in ``preprocess`` and ``postprocess``; the functions that they
call stand before. Needs numpy and Pillow; is faster with simplejpeg and cykooz_resizer.
"""

from __future__ import annotations'''

_ALL = '__all__ = ["CARRIED", "BadInput", "postprocess", "preprocess"]'

_CARRIED = """\
# What travels beside an item's outputs to its post-processing.
"""

_PREPROCESS = '''\
def preprocess(
    data: Any,
    out: dict[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Turn one item into the model's inputs, without the batch; BadInput refuses it.

    The result may be written to the arrays in ``out``, by input, of its shape and dtype.
    """
'''

_POSTPROCESS = '''\
def postprocess(outputs: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Turn the model's outputs, with the batch, into one answer for each item."""
'''

_ALL_OUTPUTS = """\
    names = list({x})
    rows = zip(*{x}.values(), strict=True)
    return [{{"outputs": dict(zip(names, row, strict=True))}} for row in rows]"""
