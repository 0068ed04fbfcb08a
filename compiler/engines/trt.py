"""TensorRT: builds an engine plan from the graph, for the GPU of this machine."""
# pyright: reportMissingModuleSource=false
# TensorRT is not installed where this is developed; typings/tensorrt has the part that is used.

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from filelock import FileLock

from compiler.engines._base import BuildTarget, Built, EngineBuilder, Job
from compiler.engines._trt_graph import (
    NEWEST,
    check_types,
    graph_types,
    read_graph,
    unsupported,
)
from runtime.engines._cuda import Cuda
from runtime.engines._signature import Signature
from runtime.engines._trt_library import (
    add_profile,
    make_log,
    require,
    said,
    strongly_typed,
    translated,
)
from runtime.engines._trt_plan import Place, PlanHeader, Ranges, header_file
from runtime.engines.trt import TrtOptions
from specs.axes import AxisRange
from specs.digests import json_sha256
from specs.errors import EngineError
from specs.schema import Spec

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["TrtBuilder", "derive_profiles", "split_batch", "timing_file"]

PLAN = "engine.plan"
TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}
"""Precisions by the names of ``tensorrt.DataType``."""


class TrtBuilder(EngineBuilder):
    """Writes ``engine.plan``, and beside it what it was built for."""

    name: ClassVar[str] = "tensorrt"

    @classmethod
    def fingerprint(cls, target: BuildTarget) -> dict[str, str]:
        """TensorRT, GPU, driver and system; "" for what is not here."""
        options = TrtOptions.model_validate(target.options)
        return asdict(_place(options.device_id))

    @classmethod
    def build(cls, job: Job) -> Built:
        """Parse, build for every bucket of batch sizes, and write the plan."""
        options = TrtOptions.model_validate(job.target.options)
        check_types(graph_types(read_graph(job.graph)), job.target.precision, job.graph.name)
        profiles = derive_profiles(job.spec, options.buckets)
        require()
        import tensorrt as trt

        cuda = Cuda(options.device_id)
        try:
            here = Place.here(cuda, trt.__version__)
            plan, notes = _Build(job, options, profiles, here).plan()
        finally:
            cuda.close()
        (job.folder / PLAN).write_bytes(plan)
        header = _header(job, options, profiles, here)
        text = header.model_dump_json(indent=1) + "\n"
        header_file(job.folder / PLAN).write_text(text, "utf-8")
        return Built(PLAN, notes)

    @classmethod
    def unsupported(cls, graph: Path, target: BuildTarget) -> tuple[str, ...] | None:
        """What the parser of the installed TensorRT, or of the newest, does not list."""
        version = _place(None).tensorrt
        major = int(version.partition(".")[0]) if version else NEWEST
        return unsupported(read_graph(graph), major)


def _place(device: int | None) -> Place:
    """This machine, with "" for what is not here; without the GPU where ``device`` is None."""
    version, cuda = "", None
    try:
        require()
        import tensorrt as trt

        version = trt.__version__
    except EngineError:
        pass
    try:
        cuda = None if device is None else Cuda(device)
        return Place.here(cuda, version)
    except EngineError:
        return Place.here(None, version)
    finally:
        if cuda:
            cuda.close()


def _header(job: Job, options: TrtOptions, profiles: tuple[Ranges, ...], here: Place) -> PlanHeader:
    return PlanHeader(
        **asdict(here),
        target=job.target.name,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        signature=Signature(
            inputs=job.spec.inputs,
            outputs=job.spec.outputs,
            axes=job.spec.dynamic_axes,
            precision=job.target.precision,
        ),
        profiles=profiles,
    )


# --- optimisation profiles


def split_batch(batch: AxisRange, buckets: tuple[int, ...]) -> tuple[AxisRange, ...]:
    """The batch sizes of each optimisation profile.

    A profile ends at a bucket, is fastest there, and begins behind the one before; so every size
    has one profile, and the sizes that matter are those that TensorRT tunes for.

    Args:
        batch: sizes that the graph takes.
        buckets: rising; () for ``min``, ``opt`` and ``max``.

    Raises:
        EngineError: the buckets do not end with the largest batch, or begin below the smallest.
    """
    tops = buckets or tuple(sorted({batch.min, batch.opt, batch.max}))
    if tops[-1] != batch.max or tops[0] < batch.min:
        message = f"buckets {list(tops)}: expected the last to be {batch.max}"
        message += f" and none below {batch.min}, as the batch axis says"
        hint = f"options: {{buckets: [{batch.opt}, {batch.max}]}}"
        raise EngineError(message, hint=hint, code="engine_profile")
    lows = (batch.min, *(top + 1 for top in tops))
    return tuple(AxisRange(min=low, opt=top, max=top) for low, top in zip(lows, tops, strict=False))


def derive_profiles(spec: Spec, buckets: tuple[int, ...] = ()) -> tuple[Ranges, ...]:
    """The optimisation profiles of a spec: one per bucket of the batch, all other axes whole."""
    batch = next(iter(spec.inputs.values())).shape[0]
    axes = [{batch: part} for part in split_batch(spec.axis(batch), buckets)]
    return tuple(
        {
            name: _corners([own.get(dim) or spec.axis(dim) for dim in tensor.shape])
            for name, tensor in spec.inputs.items()
        }
        for own in axes
    )


def _corners(dims: list[AxisRange]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return (
        tuple(dim.min for dim in dims),
        tuple(dim.opt for dim in dims),
        tuple(dim.max for dim in dims),
    )


# --- the timing cache


def timing_file(keep: Path, here: Place) -> Path:
    """Where kernel times that were measured in a place are kept: times of another would mislead."""
    shown = re.sub(r"[^A-Za-z0-9.]+", "-", f"{here.gpu}-trt{here.tensorrt}")
    return keep / f"{shown}-{json_sha256(asdict(here))[:12]}.timing"


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _replace(file: Path, data: bytes) -> None:
    """Write in one step: a reader sees the old file or the new one."""
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    Path(draft).replace(file)


# --- the build


@dataclass(frozen=True)
class _Build:
    """One run of TensorRT's builder."""

    job: Job
    options: TrtOptions
    profiles: tuple[Ranges, ...]
    here: Place

    def plan(self) -> tuple[bytes, tuple[str, ...]]:
        """The plan, and what a person should be told."""
        import tensorrt as trt

        log, errors = make_log()
        with translated(errors, "engine_build"):
            trt.init_libnvinfer_plugins(log, "")
            builder = trt.Builder(log)
            network = builder.create_network(strongly_typed())
            parser = trt.OnnxParser(network, log)  # it holds the weights, so it outlives the build
            self._parse(parser)
            check_types(_network_types(network), self.job.target.precision, "the parsed network")
            config = builder.create_builder_config()
            self._configure(config)
            for ranges in self.profiles:
                add_profile(builder, config, ranges)
            note = self._use_times(config)
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                raise self._failed(said(errors))
            self._keep_times(config)
        return bytes(plan), (f"{len(self.profiles)} optimisation profiles", note)

    def _parse(self, parser: trt.OnnxParser) -> None:
        if parser.parse_from_file(str(self.job.graph)):
            return
        faults = [parser.get_error(index) for index in range(parser.num_errors)]
        told = "; ".join(f"{e.node_operator()} '{e.node_name()}': {e.desc()}" for e in faults)
        message = f"TensorRT's parser does not take {self.job.graph.name}: {told}"
        raise EngineError(message, hint="try another opset or exporter", code="engine_unsupported")

    def _configure(self, config: trt.IBuilderConfig) -> None:
        import tensorrt as trt

        levels = {
            "none": trt.HardwareCompatibilityLevel.NONE,
            "same_compute_capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
            "ampere_plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        }
        options = self.options
        config.hardware_compatibility_level = levels[options.hardware_compatibility]
        config.builder_optimization_level = options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else no audit of precision
        if options.workspace_mib:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)

    @property
    def _times(self) -> Path:
        return timing_file(self.job.keep, self.here)

    def _use_times(self, config: trt.IBuilderConfig) -> str:
        """Give the build the kept kernel times; tells which."""
        import tensorrt as trt

        if not self.options.timing_cache:
            config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
            return "no timing cache"
        with FileLock(f"{self._times}.lock"):
            kept = _read(self._times)
        cache = config.create_timing_cache(kept)
        used = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
        if self.options.timing_cache_strict:
            if not kept or not used:
                raise self._no_times()
            config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
        if kept and used:
            return f"kernel times of an earlier build, sha256 {hashlib.sha256(kept).hexdigest()}"
        if not used and (empty := config.create_timing_cache(b"")):
            config.set_timing_cache(empty, ignore_mismatch=False)
        return "kernels timed anew"

    def _no_times(self) -> EngineError:
        message = f"there are no kernel times for this place: {self._times} is missing or foreign"
        hint = "build once without timing_cache_strict, on this machine"
        return EngineError(message, hint=hint, code="timing_cache_missing")

    def _keep_times(self, config: trt.IBuilderConfig) -> None:
        """Add the times of this build to those that are kept; strict ones stay as they are."""
        found = config.get_timing_cache()
        if found is None or not self.options.timing_cache or self.options.timing_cache_strict:
            return
        with FileLock(f"{self._times}.lock"):
            kept = _read(self._times)  # another build may have added to it
            other = config.create_timing_cache(kept) if kept else None
            if other is not None:
                found.combine(other, ignore_mismatch=False)
            _replace(self._times, bytes(found.serialize()))

    def _failed(self, told: str) -> EngineError:
        hint = "a larger workspace_mib, or a smaller max of dynamic_axes, may help"
        if self.options.timing_cache_strict:
            hint = "timing_cache_strict: a kernel that is not in the cache fails the build"
        message = told or "TensorRT builds no plan, and does not say why"
        return EngineError(message, hint=hint, code="engine_build")


def _network_types(network: trt.INetworkDefinition) -> set[str]:
    """Precisions of what the network's layers give."""
    return {TYPES[word] for word in _outputs(network) if word in TYPES}


def _outputs(network: trt.INetworkDefinition) -> Iterator[str]:
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        for index in range(layer.num_outputs):
            tensor = layer.get_output(index)
            if tensor is not None:
                yield tensor.dtype.name
