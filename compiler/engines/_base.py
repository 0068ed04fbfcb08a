"""The base of every engine, on the side that builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from runtime.engines import Layer, get_engine
from specs.engines import Device, Precision
from specs.precision import Quantize
from specs.schema import Placement, Spec

if TYPE_CHECKING:
    from compiler.sources import Model

__all__ = ["BuildTarget", "Built", "EngineBuilder", "Job"]


@dataclass(frozen=True)
class BuildTarget:
    """One engine on one device in one precision: what a target of the spec comes to.

    Args:
        name: the variant's name, ``onnxruntime-cpu-fp32``.
        engine, device, precision: as asked; never ``auto``.
        options: the engine's own options.
        quantize: how int8 is made.
        placement: where processing runs.
    """

    name: str
    engine: str
    device: Device = "cpu"
    precision: Precision = "fp32"
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    quantize: Quantize = field(default_factory=Quantize)
    placement: Placement = "python"


@dataclass(frozen=True)
class Job:
    """What a builder gets.

    Args:
        graph: the ONNX graph, in the target's precision; the portable fp32 one for builders that
            build ``from_source``. A file ``<name>.data`` may lie beside it.
        folder: where to write, empty.
        target: what to build.
        spec: the whole spec; its ``dynamic_axes`` are the ranges to build for.
        model: the model as its source gives it, loaded when first asked for, which is slow.
        keep: a folder that outlives builds, for timing caches and the like.
    """

    graph: Path
    folder: Path
    target: BuildTarget
    spec: Spec
    model: Callable[[], Model]
    keep: Path


@dataclass(frozen=True)
class Built:
    """What a builder left.

    Args:
        file: the file that the engine loads, in the builder's folder; "" where it loads the
            graph itself. Other files of the folder go into the artifact as well.
        notes: what a person should be told.
    """

    file: str = ""
    notes: tuple[str, ...] = ()


class EngineBuilder(ABC):
    """Builds one engine's file: a module of ``compiler.engines``.

    The module of the same file name in ``runtime.engines`` declares the words and runs it.
    """

    name: ClassVar[str]
    """The engine's name in a spec."""
    from_source: ClassVar[bool] = False
    """Whether it builds from ``Job.model`` in the target's precision, and not from the graph."""
    pixel_bound: ClassVar[float] = 2.0
    """Grey levels of 255 that processing in its graph may differ from the reference by.

    Shrinking stays within 1. Where an image grows, sums of float32 that meet exactly between two
    levels may fall to the other side after each of the two passes.
    """

    @classmethod
    def resize_on(cls, target: BuildTarget) -> Literal["product", "native"]:
        """How a graph for it resizes: ``native`` only where the operator Resize is right on it."""
        del target
        return "product"

    @classmethod
    @abstractmethod
    def fingerprint(cls, target: BuildTarget) -> dict[str, str]:
        """What the file depends on besides graph and target: versions, GPU, driver.

        Must not fail where the engine is not installed: that is for ``build`` to say.
        """

    @classmethod
    @abstractmethod
    def build(cls, job: Job) -> Built:
        """Write the engine's file into ``job.folder``.

        Raises:
            EngineError: it cannot be built here; names what is missing and the line to install it.
        """

    @classmethod
    def unsupported(cls, graph: Path, target: BuildTarget) -> tuple[str, ...] | None:
        """Op types of the graph that the engine has no kernel for, told without a GPU.

        None where only a build can tell.
        """
        return None

    @classmethod
    def layers(cls, file: Path, target: BuildTarget) -> tuple[Layer, ...]:
        """What the engine made of the graph: place, precision and cost of each step.

        Args:
            file: what the engine loads.
            target: what it was built for.

        Raises:
            EngineError: as ``Engine.open``.
        """
        return get_engine(target.engine).layers(file, target.device, target.options)
