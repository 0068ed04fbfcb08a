"""The base of every processing op: what it takes, what it gives, and its executions.

One declaration, three executions: ``emit`` gives the Python that ``processing.py`` runs, ``fuse``
the ONNX nodes of ``placement: graph``, and ``reference`` is what both are held to by the build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from specs.base import OneKey
from specs.ops._graph import Fused, Graph, Symbols
from specs.values import Kind, Value

__all__ = ["GEOMETRY", "Emitted", "Fused", "Graph", "Libraries", "Op", "Stage", "Symbols"]

Stage = Literal["preprocess", "postprocess"]

GEOMETRY = "@geometry"
"""Name of what travels beside an item's tensors to its post-processing (``_geometry``)."""


@dataclass(frozen=True)
class Emitted:
    """What one step adds to the generated ``processing.py``.

    Args:
        expression: a Python expression of the step's result; ``{x}`` stands for the value that
            the step takes, constants by their names below. In post-processing, ``outputs`` is the
            mapping of all of the model's outputs and of what travels beside them (``Op.carried``).
        comment: one line above the step that says what it does and why.
        functions: module-level functions that the expression calls; their source is copied, so
            they may use numpy as ``np``, ``Image`` and ``io`` and each other, nothing else.
        constants: module-level names and the Python expressions of their values.
        geometry: where the step moves pixels: a Python expression of where they are afterwards,
            from ``{at}``, where they were (``specs.ops._geometry``). It may depend on sizes alone,
            never on pixels, since it is computed without them where the step is in the graph.
            The first step's has ``{x}``, what it gave, and ``data``, what it took. It may raise
            BadInput for a size that the step cannot take or would make.
        into: where the step can write its result to memory that is used again: the expression that
            does, from ``{x}`` and ``{into}``, an array of the result's dtype, or None.
        files: files of the spec's folder that the artifact takes along: name in the artifact, and
            path as the spec writes it.
    """

    expression: str
    comment: str
    functions: tuple[Callable[..., Any], ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    geometry: str = ""
    into: str = ""
    files: Mapping[str, str] = field(default_factory=dict[str, str])


class Libraries(Protocol):
    """What references are written in. The compiler passes it in: ``specs`` imports none of it."""

    torch: Any
    """``torch``."""
    vision: Any
    """``torchvision.transforms.v2.functional``."""
    ops: Any
    """``torchvision.ops``."""
    folder: Path
    """The spec's folder, which the paths of its files lead from."""


class Op(OneKey):
    """One step of ``preprocess`` or ``postprocess``: a subclass in a module of ``specs.ops``.

    An op is one file: its fields are the options in the spec, ``flow`` says what it makes of a
    value or why it cannot take it, ``emit`` gives the code that production runs, ``fuse`` the same
    as ONNX nodes where that can be, and ``reference`` what both are compared with.
    """

    stages: ClassVar[frozenset[Stage]]
    starts: ClassVar[Kind | None] = None
    """What a request's item is, for a step that takes it as it comes and must be the first."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What the emitted code imports beside numpy, Pillow and the standard library."""

    def before(self, following: tuple[Op, ...]) -> Op:
        """The step as it is before others; most do not care what follows."""
        del following
        return self

    def join(self, after: Op) -> tuple[Op, ...] | None:
        """Steps that do in generated Python what this one and the next do, sooner.

        Args:
            after: the next step, or what an earlier join made of it.

        Returns:
            One step or two in the place of the two; None where nothing is gained.
        """
        del after
        return None

    def flow(self, value: Value) -> Value:
        """The type of the result, or ``FlowError`` where ``value`` cannot be taken."""
        raise NotImplementedError

    @property
    def exact(self) -> bool:
        """Whether the step is to give its reference's pixels; False for a speed-up by request."""
        return True

    def emit(self, value: Value) -> Emitted:
        """The step's source for a ``value`` that ``flow`` accepted."""
        raise NotImplementedError

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        """Add the step to ``graph``; None where standard ONNX operators cannot express it.

        Args:
            graph: takes the nodes. Everything in it has the batch dimension, images as well:
                [batch, height, width, channels].
            x: the name of the tensor that the step takes, or names by part (``Value.fields``).
            value: its type, which ``flow`` accepted.
        """
        del graph, x, value
        return None

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        """The step as PyTorch, torchvision or Pillow do it, on the same kinds of arguments.

        Args:
            x: what the emitted expression takes: bytes, a text, an image or array of numpy; in
                post-processing with the batch dimension.
            value: its type.
            lib: the libraries.

        Returns:
            What the emitted expression gives, as numpy arrays.
        """
        raise NotImplementedError

    def files(self) -> dict[str, str]:
        """Files of the spec's folder that the step reads, labels aside, by option."""
        return {name: value for name, value in self if name == "file" and isinstance(value, str)}

    def carried(self) -> tuple[str, ...]:
        """Names of what a post-processing step reads beside its value.

        ``GEOMETRY``, or a model's input (an attention mask); the emitted expression finds them in
        ``outputs``, with the batch dimension.
        """
        return ()
