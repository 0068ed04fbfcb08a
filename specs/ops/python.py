"""``python``: a function of the spec's own, where no step does what is needed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from importlib.abc import ExecutionLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from specs.base import Frozen
from specs.digests import text_sha256
from specs.ops._base import Emitted, Op, Stage
from specs.ops._source import BadInput
from specs.values import BoxFormat, Dim, FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Gives", "Part", "Python", "step_file"]

Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Size = Annotated[int, Field(ge=1, strict=True)]
Shape = Annotated[tuple[Size | Name, ...], Field(min_length=1)]
TAKEN = ("image", "tensor", "tensors", "boxes")
"""What a function may take and give: arrays."""
LEVELS = 255
"""Grey levels between black and white."""


class Part(Frozen):
    """One array by name."""

    dtype: Dtype
    """The element type."""
    shape: Shape
    """Sizes and names, in postprocess with the batch; a name means one size everywhere."""


class Gives(Frozen):
    """What the function gives; what is left out is as in what it takes."""

    kind: Literal["image", "tensor", "tensors", "boxes"] | None = None
    """``image`` [height, width, channels] or ``tensor``: one array; ``tensors`` or ``boxes``: a
    mapping of names to arrays, which ``parts`` describes."""
    dtype: Dtype | None = None
    """The element type of one array."""
    shape: Shape | None = None
    """The sizes of one array: numbers and names, in postprocess with the batch."""
    layout: Literal["HWC", "CHW"] | None = None
    """Where channels are, for an image."""
    color: Literal["RGB", "BGR", "L"] | None = None
    """What they are."""
    low: float | None = None
    """The smallest value that there can be."""
    high: float | None = None
    """The largest value that there can be."""
    parts: Annotated[dict[Name, Part], Field(min_length=1)] | None = None
    """The arrays of ``tensors``, or ``boxes`` [batch, n, 4] and ``scores`` [batch, n, classes]."""
    boxes: Literal["xyxy", "xywh", "cxcywh"] | None = None
    """How boxes are written."""
    units: Literal["pixels", "fraction"] | None = None
    """What their coordinates count: pixels of the model's input, or fractions of it."""

    @model_validator(mode="after")
    def _check(self) -> Gives:
        several = self.kind in ("tensors", "boxes")
        if several and self.parts is None:
            raise ValueError(f"{self.kind} need parts: the name, dtype and shape of each array")
        if self.parts is not None and not several:
            raise ValueError("parts are for kind: tensors and kind: boxes")
        if several and (self.dtype or self.shape or self.layout or self.color):
            raise ValueError("dtype, shape, layout and color are those of one array: use parts")
        if (self.kind == "boxes") != (self.boxes is not None and self.units is not None):
            raise ValueError("kind: boxes needs boxes and units, and nothing else has them")
        return self


class Python(Op):
    """Call a function of a Python file that the spec brings: the way out where no step fits.

    The file is copied into the artifact and its hash checked there like every other file's. The
    function gets what the step before gives (an array, or a mapping of names to arrays: an image is
    [height, width, channels], in postprocess there is the batch dimension) and returns what
    ``gives`` says, which is checked on each call. It must not change its argument. It may import
    what is installed where the artifact runs; the build does not know of it. It is its own
    reference, and is never put into the graph. Boxes go back to the image as if a function that
    keeps an image's size leaves its pixels where they are; none that changes it can come before.
    """

    name: ClassVar[str] = "python"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess", "postprocess"})

    file: Annotated[str, Field(pattern=r"^[\w ./-]+\.py$")]
    """A Python file, in the spec's folder or below."""
    function: Name
    """A function in it that takes one argument."""
    gives: Gives = Gives()
    """What it returns."""

    def flow(self, value: Value) -> Value:
        if value.kind not in TAKEN:
            message = f"python takes arrays, found {value}"
            raise FlowError(message, "put it before the step that makes the answer")
        gives = self.gives
        if gives.parts is not None:
            return self._several(gives.parts)
        if value.kind not in ("image", "tensor") and not (
            gives.kind and gives.dtype and gives.shape
        ):
            message = f"python takes {value}: what one array it gives is not said"
            raise FlowError(message, "add gives: {kind, dtype, shape}, or gives: {kind, parts}")
        return self._one(value)

    def _several(self, parts: Mapping[str, Part]) -> Value:
        fields = {name: Value("tensor", part.dtype, part.shape) for name, part in parts.items()}
        if self.gives.kind == "tensors":
            return Value("tensors", fields=fields)
        if set(fields) != {"boxes", "scores"}:
            message = f"kind: boxes has the parts boxes and scores, found {', '.join(fields)}"
            raise FlowError(message, "name boxes [batch, n, 4] and scores [batch, n, classes]")
        boxes, units = self.gives.boxes, self.gives.units
        assert boxes is not None  # noqa: S101 - `Gives` needs both
        assert units is not None  # noqa: S101 - the same
        written: BoxFormat = boxes
        scores = fields["scores"]
        kept = (scores.dtype, scores.shape)
        return Value("boxes", *kept, fields=fields, boxes=written, units=units)

    def _one(self, value: Value) -> Value:
        gives = self.gives
        kind = gives.kind or value.kind
        shape: tuple[Dim, ...] = gives.shape or value.shape
        if kind == "image" and len(shape) != 3:  # noqa: PLR2004 - height, width, channels
            message = f"an image has the shape [height, width, channels], gives says {shape}"
            raise FlowError(message, "use kind: tensor")
        image = kind == "image"
        return Value(
            kind,
            gives.dtype or value.dtype,
            shape,
            gives.layout or (value.layout or "HWC" if image else ""),
            gives.color or (value.color if image else ""),
            gives.low,
            gives.high,
            step=self._level(value),
            origin=value.origin,
        )

    def _level(self, value: Value) -> float | None:
        """What a grey level is worth in the result: the steps after it are measured by that."""
        if value.step is None:
            return None
        low, high = self.gives.low, self.gives.high
        if low is not None and high is not None and low < high:
            return (high - low) / LEVELS
        whole = np.dtype(self.gives.dtype or value.dtype).kind in "iu"
        return 1.0 if whole else value.step

    def emit(self, value: Value) -> Emitted:
        result = self.flow(value)
        artifact_file = step_file(self.file)
        parts = result.fields or {"": result}
        gives = ", ".join(
            f'"{name}": ("{part.dtype}", {_shape(part.shape)})' for name, part in parts.items()
        )
        takes = ", ".join(f'"{n}": {_shape(p.shape)}' for n, p in _parts(value).items())
        where = f"{self.function} in {self.file}"
        moved = result.kind == "image" and result.shape[:2] != value.shape[:2]
        return Emitted(
            f'call_step(STEP, {{x}}, TAKES, GIVES, "{where}")',
            f"Call {where}, the spec's own code.",
            (call_step, load_step, lost_pixels) if moved else (call_step, load_step),
            {
                "STEP": f'load_step(__file__, "{artifact_file}", "{self.function}")',
                "TAKES": f"{{{takes}}}",
                "GIVES": f"{{{gives}}}",
            },
            geometry=f'lost_pixels("{where}")' if moved else "",
            files={artifact_file: self.file},
        )


def step_file(file: str) -> str:
    """Name in the artifact of a spec's Python file; two files of one name keep apart."""
    stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in PurePosixPath(file).stem)
    return f"step_{stem}_{text_sha256(file)[:8]}.py"


def _parts(value: Value) -> Mapping[str, Value]:
    return value.fields or {"": value}


def _shape(shape: tuple[Dim, ...]) -> str:
    dims = [f'"{dim}"' if isinstance(dim, str) else str(dim) for dim in shape]
    return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"


class StepLoader(ExecutionLoader):
    """Runs a file as it is; Python's own loader would write bytecode beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_filename(self, fullname: str) -> str:
        """Return the file, which tracebacks name."""
        del fullname
        return str(self.path)

    def get_source(self, fullname: str) -> str:
        """Return its text."""
        del fullname
        return self.path.read_text(encoding="utf-8")


def load_step(beside: str, file: str, name: str) -> Callable[[Any], Any]:
    """Load a function of the spec's own file, which lies beside ``beside``."""
    loader = StepLoader(Path(beside).with_name(file))
    # By its text, so that all steps of one file share what it keeps.
    digest = hashlib.sha256(loader.get_source(file).encode()).hexdigest()
    title = f"deployc_step_{digest[:16]}"
    module = sys.modules.get(title)
    if module is None:
        described = ModuleSpec(title, loader, origin=str(loader.path))
        described.has_location = True  # so that the file knows its own name
        module = module_from_spec(described)
        sys.modules[title] = module  # dataclasses look their module up while it runs
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[title]
            raise
    function = getattr(module, name, None)
    if not callable(function):
        message = f"{file} has no function {name}"
        raise TypeError(message)
    return function


def call_step(
    step: Callable[[Any], Any],
    x: Any,
    takes: dict[str, tuple[Any, ...]],
    gives: dict[str, tuple[str, tuple[Any, ...]]],
    where: str,
) -> Any:
    """Call the spec's own function, and check that its result is what the spec says."""
    sizes: dict[str, int] = {}
    for name, shape in takes.items():
        array = x[name] if name else x
        pairs = zip(shape, array.shape, strict=True)
        sizes |= {dim: size for dim, size in pairs if isinstance(dim, str)}
    try:
        result = step(x)
    except Exception as error:
        message = f"{where} failed: {type(error).__name__}: {error}"
        hint = "see what it says of this item"
        raise BadInput("python_step", message, hint) from error
    found: Any = {"": result} if "" in gives else result
    if not isinstance(found, dict) or found.keys() != gives.keys():
        message = f"{where} returned {type(result).__name__}"
        raise BadInput("python_step", message, f"return a dict of {', '.join(gives)}")
    for name, wanted in gives.items():
        part = f"'{name}' as " if name else ""
        check_part(found[name], wanted, sizes, f"{where} returned {part}")
    return result


def check_part(
    array: Any,
    wanted: tuple[str, tuple[Any, ...]],
    sizes: dict[str, int],
    what: str,
) -> None:
    """Refuse an array that is not as the spec says; ``sizes`` are those of names."""
    dtype, shape = wanted
    hint = f"return a numpy array, {dtype} {list(shape)}, or change the spec's gives"
    if type(array) is not np.ndarray:
        raise BadInput("python_step", what + type(array).__name__, hint)
    same = array.dtype == dtype and array.ndim == len(shape)
    for size, dim in zip(array.shape, shape, strict=False):
        known = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
        same = same and size == known
    if not same:
        message = f"{what}{array.dtype} {list(array.shape)}"
        raise BadInput("python_step", message, hint)


def lost_pixels(where: str) -> NDArray[Any]:
    """Refuse to follow the pixels through the spec's own code."""
    message = f"{where} changes the image's size: where its pixels lie is not known"
    hint = "let it keep height and width, and resize with a step of its own"
    raise BadInput("python_step", message, hint)
