"""ONNX Runtime: proves that it takes the graph, optimises it offline, builds TensorRT's engines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar, Literal

from compiler.cache import versions
from compiler.engines._base import BuildTarget, Built, EngineBuilder, Job
from runtime.engines import Layer, get_engine
from runtime.engines._ort_built import BuiltFile, TensorrtBuild, cpu_kind
from runtime.engines._ort_options import OrtOptions
from runtime.engines._ort_providers import driver_version, gpu_name, require, tensorrt_version
from runtime.engines._ort_session import Opening, open_session, read_options
from specs.errors import EngineError

__all__ = ["OrtBuilder"]

OPTIMIZED = "optimized.onnx"
FOR_TENSORRT = "tensorrt.onnx"
BOUND_TO_CPU = ("layout", "all")
"""Optimisation levels that bake this CPU's layout into the graph."""


class OrtBuilder(EngineBuilder):
    """Proves that ONNX Runtime takes the graph with the provider that was asked for.

    There is a file to build with the options ``offline`` and ``tensorrt`` alone.
    """

    name: ClassVar[str] = "onnxruntime"

    @classmethod
    def resize_on(cls, target: BuildTarget) -> Literal["product", "native"]:
        """Its CPU kernel is Pillow's on uint8, and faster than products; others are not."""
        return "native" if target.device == "cpu" else "product"

    @classmethod
    def fingerprint(cls, target: BuildTarget) -> dict[str, str]:
        """ONNX Runtime's version, and what a file is bound to: the CPU's kind, the GPU."""
        found = versions("onnxruntime", "onnxruntime-gpu")
        options = _options_or_defaults(target)
        if target.device == "cpu":
            return found | ({"cpu": cpu_kind()} if _bound_to_cpu(target, options) else {})
        found |= {"gpu": gpu_name(options.device_id), "driver": driver_version()}
        return found | ({"tensorrt": tensorrt_version()} if options.tensorrt else {})

    @classmethod
    def build(cls, job: Job) -> Built:
        """Open a session once: a provider that does not load fails the build here."""
        options = read_options(job.target.options, job.target.device)
        require(job.target.device, options)
        if options.tensorrt is not None:
            built = _with_tensorrt(job, options)
        else:
            built = _offline(job, options) if options.offline else Built()
        file = job.folder / built.file if built.file else job.graph
        get_engine(cls.name).open(file, job.target.device, job.target.options).close()
        return built

    @classmethod
    def unsupported(cls, graph: Path, target: BuildTarget) -> tuple[str, ...] | None:
        """Op types without a kernel; for cuda, only a machine with a GPU can tell."""
        from compiler.engines._ort_kernels import without_cpu_kernel

        if target.device == "cpu":
            return without_cpu_kernel(graph)
        options = {**target.options, "tensorrt": None}
        try:
            layers = get_engine(cls.name).layers(graph, target.device, options)
        except EngineError:
            return None
        return tuple(sorted({layer.op for layer in layers if layer.device != target.device}))

    @classmethod
    def layers(cls, file: Path, target: BuildTarget) -> tuple[Layer, ...]:
        """The optimised graph's nodes: ONNX Runtime's own, with the types it computes in.

        Of what TensorRT takes, ONNX Runtime tells the place alone.
        """
        from compiler.engines._ort_layers import layers_of

        options = read_options(target.options, target.device)
        if options.tensorrt is not None:
            return super().layers(file, target)
        return layers_of(file, target.device, options)


def _options_or_defaults(target: BuildTarget) -> OrtOptions:
    """The options; where they are wrong, ``build`` says so."""
    try:
        return read_options(target.options, target.device)
    except EngineError:
        return OrtOptions()


def _bound_to_cpu(target: BuildTarget, options: OrtOptions) -> bool:
    baked = options.offline and options.optimization in BOUND_TO_CPU
    return baked and target.device == "cpu"


def _beside(graph: Path) -> Path:
    """Where a graph's weights lie, if they are not in it."""
    return graph.with_name(f"{graph.name}.data")


def _offline(job: Job, options: OrtOptions) -> Built:
    """Save what the optimiser makes of the graph."""
    file = job.folder / OPTIMIZED
    external = _beside(job.graph).exists()
    device = job.target.device
    open_session(Opening(job.graph, device, options, save=file, external=external))
    bound = _bound_to_cpu(job.target, options)
    cpu = cpu_kind() if bound else ""
    BuiltFile(onnxruntime=_version(), optimized=True, cpu=cpu).write(file)
    notes = (f"optimised for this kind of CPU alone: {cpu}",) if bound else ()
    return Built(file.name, notes)


def _with_tensorrt(job: Job, options: OrtOptions) -> Built:
    """Let TensorRT build its engines beside a copy of the graph."""
    file = job.folder / FOR_TENSORRT
    shutil.copyfile(job.graph, file)
    if _beside(job.graph).exists():
        # The graph names the file of its weights, so that it keeps its name.
        shutil.copyfile(_beside(job.graph), job.folder / _beside(job.graph).name)
    built = BuiltFile(onnxruntime=_version(), tensorrt=_tensorrt_build(job, options))
    built.write(file)
    opening = Opening(file, job.target.device, options, built=built, timing_cache=job.keep)
    open_session(opening)
    if not list(job.folder.glob("*.engine")):
        message = f"TensorRT took no part of {job.graph.name}, so that CUDA would run all of it"
        raise EngineError(message, hint="remove the option tensorrt", code="engine_empty")
    return Built(file.name)


def _tensorrt_build(job: Job, options: OrtOptions) -> TensorrtBuild:
    inputs = {name: tensor.shape for name, tensor in job.spec.inputs.items()}
    used = {dim for shape in inputs.values() for dim in shape if isinstance(dim, str)}
    axes = {name: axis for name, axis in job.spec.dynamic_axes.items() if name in used}
    gpu = gpu_name(options.device_id)
    return TensorrtBuild(gpu=gpu, precision=job.target.precision, inputs=inputs, axes=axes)


def _version() -> str:
    import onnxruntime as ort

    return ort.__version__
