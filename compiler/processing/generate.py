"""Writes the text of ``processing.py`` from a spec's steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from compiler.processing.copying import Copied
from compiler.processing.layout import comment, statement
from specs.digests import json_sha256
from specs.flow import postprocess_start, preprocess_start, walk
from specs.manifest import Answer
from specs.ops import Op
from specs.ops._labels import label_file
from specs.ops._source import BadInput, as_input, as_tensors
from specs.schema import Spec, TensorSpec
from specs.values import Value

__all__ = ["PROCESSING", "GeneratedProcessing", "generate", "parts"]

PROCESSING = "processing.py"
"""The file's name in the artifact."""
INDENT = 4


@dataclass(frozen=True)
class GeneratedProcessing:
    """What the stage puts into the artifact, and what the manifest says of it."""

    text: str
    """The text of ``processing.py``."""
    labels: Mapping[str, str]
    """The texts of the label files beside it, by file name."""
    takes: Literal["image", "tensors"]
    """What ``preprocess`` takes."""
    answer: Answer
    """What ``postprocess`` gives."""

    @property
    def files(self) -> dict[str, str]:
        """Every file's text by its name in the artifact."""
        return {PROCESSING: self.text, **self.labels}


def parts(spec: Spec) -> dict[str, Any]:
    """What generation reads of a spec, as JSON; its digest stands in the file's head."""
    fields = ("name", "inputs", "outputs", "dynamic_axes", "preprocess", "postprocess", "limits")
    return spec.model_dump(mode="json", by_alias=True, include=set(fields))


def generate(spec: Spec, labels: Mapping[str, Sequence[str]]) -> GeneratedProcessing:
    """Write the processing of ``spec``.

    Args:
        spec: a valid spec.
        labels: names of the classes by language, as ``read_labels`` gives them.
    """
    draft = _Draft(spec)
    preprocess = draft.preprocess()
    postprocess, answer = draft.postprocess()
    return GeneratedProcessing(
        text=draft.text(preprocess, postprocess),
        labels={label_file(key): "\n".join(lines) + "\n" for key, lines in labels.items()},
        takes="image" if preprocess_start(spec).kind == "encoded" else "tensors",
        answer=answer,
    )


@dataclass
class _Draft:
    """The file as it grows: copied code, and the constants of the steps."""

    spec: Spec
    copied: Copied = field(init=False)
    constants: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        limits = self.spec.limits
        self.copied = Copied({"MAX_BYTES": f"{limits.bytes:_}", "MAX_PIXELS": f"{limits.pixels:_}"})
        self.copied.add_import("typing", "Any", "Any")
        self.copied.add_import("numpy.typing", "NDArray", "NDArray")
        self.copied.add(BadInput)

    def preprocess(self) -> str:
        """The function's body."""
        start = preprocess_start(self.spec)
        if start.kind == "encoded":
            return "\n".join(
                ["    x = data", *self._steps(self.spec.preprocess, start), self._end()]
            )
        self.copied.add(as_tensors)
        inputs = [f'"{name}": {self._tensor(tensor)}' for name, tensor in self.spec.inputs.items()]
        self.constants["INPUTS"] = f"{{{', '.join(inputs)}}}"
        if not self.spec.preprocess:
            return "    return as_tensors(data, INPUTS)"
        name = next(iter(self.spec.inputs))
        first = f'    x = as_tensors(data, INPUTS)["{name}"]'
        return "\n".join([first, *self._steps(self.spec.preprocess, start), self._end()])

    def postprocess(self) -> tuple[str, Answer]:
        """The function's body, and what it answers."""
        names = list(self.spec.outputs)
        if not self.spec.postprocess:
            return _ALL_OUTPUTS, "tensors"
        start = postprocess_start(self.spec)
        steps = [f'    x = outputs["{names[0]}"]', *self._steps(self.spec.postprocess, start)]
        *_, (_, _, last) = walk(self.spec.postprocess, start)
        returned, answer = _answer(last, names[0])
        return "\n".join([*steps, f"    return [{returned} for item in x]"]), answer

    def _steps(self, steps: tuple[Op, ...], start: Value) -> list[str]:
        """Every step's comment and statement."""
        lines: list[str] = []
        for step, value, _ in walk(steps, start):
            emitted = step.emit(value)
            for function in emitted.functions:
                self.copied.add(function)
            expression = emitted.expression
            for name, constant in emitted.constants.items():
                kept = self._constant(name, constant)
                expression = re.sub(rf"\b{name}\b", kept, expression)
            lines.append(comment(emitted.comment, INDENT))
            if expression != "{x}":
                self._use_numpy(expression)
                lines.append(statement("x = ", expression.replace("{x}", "x"), INDENT))
        return lines

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

    def _end(self) -> str:
        """The check of the finished item, and the result."""
        (name, tensor), *_ = self.spec.inputs.items()
        self.copied.add(as_input)
        dtype, shape = tensor.dtype, self._shape(tensor)
        check = statement("x = ", f'as_input(x, "{name}", "{dtype}", {shape})', INDENT)
        remark = comment("Check that this is what the model takes.", INDENT)
        return f'{remark}\n{check}\n    return {{"{name}": x}}'

    def _tensor(self, tensor: TensorSpec) -> str:
        return f'("{tensor.dtype}", {self._shape(tensor)})'

    def _shape(self, tensor: TensorSpec) -> str:
        """One item's shape; an open size as (name, min, max)."""
        dims: list[str] = []
        for dim in tensor.shape[1:]:
            axis = self.spec.axis(dim)
            dims.append(str(dim) if isinstance(dim, int) else f'("{dim}", {axis.min}, {axis.max})')
        return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"

    def text(self, preprocess: str, postprocess: str) -> str:
        """The whole file."""
        head = _HEAD.format(
            name=self.spec.name, version=version("deployc"), digest=json_sha256(parts(self.spec))
        )
        constants = [statement(f"{name} = ", value) for name, value in self.constants.items()]
        blocks = [
            f"{head}\n\n{self.copied.import_lines()}\n\n{_ALL}",
            *self.copied.functions.values(),
            *(["\n".join(constants)] if constants else []),
            _PREPROCESS + preprocess,
            _POSTPROCESS + postprocess,
        ]
        if self.copied.constants:
            blocks[0] += "\n\n" + "\n".join(self.copied.constants.values())
        return "\n\n\n".join(blocks) + "\n"


def _answer(last: Value, name: str) -> tuple[str, Answer]:
    """The expression of one item's answer, and its kind."""
    if last.kind == "classes":
        return '{"classes": item}', "classes"
    if last.kind == "answer_image":
        return '{"image": item}', "image"
    return f'{{"outputs": {{"{name}": item}}}}', "tensors"


_HEAD = '''\
# Processing of '{name}', generated by deployc {version}; do not edit: its hash is checked.
# sha256 of the parts of the spec that it is made from:
# {digest}
"""From a request's item to the model's inputs, and from its outputs to the answer.

The steps are at the end, in ``preprocess`` and ``postprocess``; the functions that they call
stand before. Needs numpy and Pillow.
"""

from __future__ import annotations'''

_ALL = '__all__ = ["BadInput", "postprocess", "preprocess"]'

_PREPROCESS = '''\
def preprocess(data: Any) -> dict[str, NDArray[Any]]:
    """Turn one item into the model's inputs, without the batch; BadInput refuses it."""
'''

_POSTPROCESS = '''\
def postprocess(outputs: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Turn the model's outputs, with the batch, into one answer for each item."""
'''

_ALL_OUTPUTS = """\
    names = list(outputs)
    rows = zip(*outputs.values(), strict=True)
    return [{"outputs": dict(zip(names, row, strict=True))} for row in rows]"""
