"""TensorRT: runs an engine plan that was built for this GPU.

``<plan>.json`` beside the plan tells what it was built for; a plan that was built for something
else is refused before TensorRT sees it.
"""
# pyright: reportMissingModuleSource=false
# TensorRT is not installed where this is developed; typings/tensorrt has the part that is used.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from runtime.engines._base import Engine, EngineSession, Layer
from runtime.engines._cuda import Cuda, Memory, Stream
from runtime.engines._probe import TINY_ONNX, answer_tiny
from runtime.engines._signature import Signature
from runtime.engines._trt_library import (
    INSTALL,
    Loaded,
    add_profile,
    load,
    make_allocator,
    make_log,
    require,
    said,
    strongly_typed,
    translated,
    type_of,
)
from runtime.engines._trt_plan import (
    Compatibility,
    Place,
    PlanHeader,
    Ranges,
    Shape,
    choose_profile,
    header_of,
    parse_layers,
    plan_of,
    refuse,
)
from runtime.tensors import Array, Tensors
from specs.axes import AxisRange
from specs.engines import Device, EngineOptions, Precision
from specs.errors import EngineError
from specs.schema import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["TrtEngine", "TrtOptions", "TrtSession"]

GRAPHS = 32
"""CUDA graphs that a session keeps; each has a context of its own."""
TINY = Signature(
    inputs={"x": TensorSpec(shape=("batch", 2))},
    outputs={"y": TensorSpec(shape=("batch", 2))},
    axes={"batch": AxisRange(min=1, opt=2, max=4)},
    precision="fp32",
)
"""What ``TINY_ONNX`` takes and gives."""


class TrtOptions(EngineOptions):
    """How a plan is built and run; all but ``cuda_graphs`` and ``device_id`` are for the build."""

    workspace_mib: int | None = Field(default=None, ge=1)
    """Scratch memory that a layer may use, in MiB; by default all of the GPU's."""
    buckets: tuple[int, ...] = ()
    """Batch sizes, rising, at which an optimisation profile ends, and for which it is fastest; by
    default ``min``, ``opt`` and ``max`` of the batch axis, so that each of them is fast."""
    optimization_level: int = Field(default=3, ge=0, le=5)
    """How long to search for fast kernels: 0 hardly, 5 everything."""
    version_compatible: bool = False
    """Let newer versions of TensorRT run the plan, at some cost in speed."""
    hardware_compatibility: Compatibility = "none"
    """Which other GPUs may run the plan, at some cost in speed."""
    timing_cache: bool = True
    """Keep measured kernel times for later builds on the same GPU, driver and TensorRT."""
    timing_cache_strict: bool = False
    """A kernel that is not in the kept cache is an error, so that builds choose the same ones."""
    tf32: bool = False
    """Let fp32 round the factors of products to TF32 (10 bits of mantissa)."""
    cuda_graphs: bool = False
    """Record the work of each shape once and replay it, which saves launch time."""
    device_id: int = Field(default=0, ge=0)
    """Which GPU, of those that are visible."""

    @model_validator(mode="after")
    def _check(self) -> TrtOptions:
        if any(low >= high for low, high in zip((0, *self.buckets), self.buckets, strict=False)):
            raise ValueError(f"buckets {list(self.buckets)}: expected rising sizes from 1")
        if self.timing_cache_strict and not self.timing_cache:
            raise ValueError("timing_cache_strict needs timing_cache")
        return self


class TrtSession(EngineSession):
    """A plan with its contexts, buffers and stream.

    There is a context for each profile, or with CUDA graphs for each shape, because a context must
    not change once it is recorded. They share their scratch memory: only one runs at a time.
    """

    def __init__(
        self, plan: Loaded, options: TrtOptions, sizes: Mapping[str, int] | None = None
    ) -> None:
        engine = plan.engine
        self._plan: Loaded | None = plan
        self._record = options.cuda_graphs
        self._signature = plan.header.signature.hold(sizes)
        self._types = _types(engine, self._signature)
        self._memory = {name: Memory(plan.cuda) for name in self._types}
        self._allocators: dict[str, tuple[trt.IOutputAllocator, list[Shape]]] = {}
        self._contexts: dict[object, trt.IExecutionContext] = {}
        self._bound: dict[object, dict[str, Shape]] = {}
        self._scratch = plan.cuda.get("cuMemAlloc_v2", max(engine.device_memory_size_v2, 1))
        self._stream = Stream(plan.cuda)

    def run(self, inputs: Tensors) -> Tensors:
        """One batch through the plan; see the base."""
        plan = self._loaded()
        self._signature.check(inputs)
        shapes = {name: inputs[name].shape for name in self._signature.inputs}
        number = choose_profile(plan.header.profiles, shapes)
        if number is None:
            ranges = " | ".join(_words(profile) for profile in plan.header.profiles)
            message = f"no profile of the plan takes {shapes}: it has {ranges}"
            raise EngineError(message, hint="widen dynamic_axes", code="engine_run")
        plan.cuda.enter()
        plan.errors.clear()
        with translated(plan.errors, "engine_run"):
            found = self._run(plan, number, shapes, inputs)
        return {name: self._array(name, found[name]).copy() for name in self._signature.outputs}

    def details(self) -> dict[str, str]:
        """Versions, the GPU, and the optimisation profiles."""
        plan = self._loaded()
        profiles = " | ".join(_words(profile) for profile in plan.header.profiles)
        return {
            "tensorrt": plan.version,
            "gpu": plan.cuda.name,
            "compute_capability": plan.cuda.capability,
            "driver": plan.cuda.driver,
            "profiles": profiles,
            "cuda_graphs": "on" if self._record else "off",
        }

    def close(self) -> None:
        """Give everything back; a second time does nothing."""
        plan, self._plan = self._plan, None
        if plan is None:
            return
        cuda = plan.cuda
        cuda.enter()
        self._stream.close()
        self._contexts.clear()
        self._allocators.clear()
        for memory in self._memory.values():
            memory.free()
        cuda.call("cuMemFree_v2", self._scratch)
        del plan  # the engine frees GPU memory, for which the context must still be there
        cuda.close()

    def _loaded(self) -> Loaded:
        if self._plan is None:
            raise EngineError("the session is closed", hint="load it again", code="engine_closed")
        return self._plan

    def _run(
        self, plan: Loaded, number: int, shapes: dict[str, Shape], inputs: Tensors
    ) -> dict[str, Shape]:
        """Bind, copy in, work, copy out; gives the shape of every tensor."""
        key = self._key(number, shapes)
        bound = self._bound.get(key, {})
        if any(bound.get(name) != shape for name, shape in shapes.items()):
            bound = self._bind(plan, key, number, shapes)
        for name, shape in shapes.items():
            self._array(name, shape)[...] = inputs[name]
        if not self._stream.replay(key):
            self._enqueue(plan, key, bound)
            self._stream.wait()
            if key != number:  # TensorRT wants to have run a shape before it is recorded
                self._stream.record(key, lambda: self._enqueue(plan, key, bound))
        self._stream.wait()
        told = {name: shapes[-1] for name, (_, shapes) in self._allocators.items()}
        return {**bound, **told}

    def _key(self, number: int, shapes: dict[str, Shape]) -> object:
        """Which context runs the shapes: their own where they are recorded, else the profile's."""
        own = (number, tuple(shapes.values()))
        room = own in self._contexts or self._stream.graphs < GRAPHS
        return own if self._record and room else number

    def _bind(
        self, plan: Loaded, key: object, number: int, shapes: dict[str, Shape]
    ) -> dict[str, Shape]:
        """Set shapes and addresses; gives the shape of every tensor, -1 where the data decides."""
        context = self._contexts.get(key) or self._context(plan, key, number)
        taken = [context.set_input_shape(name, shape) for name, shape in shapes.items()]
        if not all(taken) or context.infer_shapes():
            message = said(plan.errors) or f"TensorRT does not take the shapes {shapes}"
            raise EngineError(message, code="engine_run")
        bound = {name: tuple(context.get_tensor_shape(name)) for name in self._memory}
        ranges = plan.header.profiles[number]
        moved = [self._fit(context, ranges, name, shape) for name, shape in bound.items()]
        if any(moved):
            self._stream.forget()  # graphs and contexts hold addresses that are no longer valid
            self._bound.clear()
        if not all(context.set_tensor_address(n, self._memory[n].device) for n in bound):
            raise EngineError(said(plan.errors) or "TensorRT takes no address", code="engine_run")
        self._bound[key] = bound
        return bound

    def _fit(self, context: trt.IExecutionContext, ranges: Ranges, name: str, shape: Shape) -> bool:
        """Make room for the largest shape of the profile; whether addresses changed."""
        memory, size = self._memory[name], self._types[name].itemsize
        if name in ranges:
            return memory.fit(math.prod(ranges[name][2]) * size)
        if -1 not in shape:
            return memory.fit(max(math.prod(shape) * size, context.get_max_output_size(name)))
        if self._record:
            message = f"the shape of '{name}' depends on the data, which a CUDA graph cannot hold"
            raise EngineError(message, hint="options: {cuda_graphs: false}", code="engine_graph")
        allocator, _ = self._allocators.setdefault(name, make_allocator(memory))
        context.set_output_allocator(name, allocator)
        return memory.fit(1)

    def _context(self, plan: Loaded, key: object, number: int) -> trt.IExecutionContext:
        import tensorrt as trt

        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = plan.engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(
            number, self._stream.handle
        ):
            message = said(plan.errors) or f"TensorRT gives no context for profile {number}"
            raise EngineError(message, code="engine_run")
        self._stream.wait()
        context.set_device_memory(self._scratch, max(plan.engine.device_memory_size_v2, 1))
        self._contexts[key] = context
        return context

    def _enqueue(self, plan: Loaded, key: object, bound: dict[str, Shape]) -> None:
        for name in self._signature.inputs:
            self._stream.upload(self._memory[name], self._bytes(name, bound[name]))
        if not self._contexts[key].execute_async_v3(self._stream.handle):
            raise EngineError(said(plan.errors) or "TensorRT failed", code="engine_run")
        for name in self._signature.outputs:
            shape = self._allocators[name][1][-1] if name in self._allocators else bound[name]
            self._stream.download(self._memory[name], self._bytes(name, shape))

    def _bytes(self, name: str, shape: Shape) -> int:
        return math.prod(shape) * self._types[name].itemsize

    def _array(self, name: str, shape: Shape) -> Array:
        return self._memory[name].view(shape, self._types[name])


def _types(engine: trt.ICudaEngine, signature: Signature) -> dict[str, np.dtype[Any]]:
    """Types of the plan's inputs and outputs, which must be the spec's."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: type_of(engine, name) for name in names}
    asked = {name: np.dtype(t.dtype) for name, t in (signature.inputs | signature.outputs).items()}
    if found != asked:
        message = f"TensorRT has {_shown(found)}, the spec says {_shown(asked)}"
        raise EngineError(message, hint="keep to the dtypes of the graph", code="engine_type")
    return found


def _shown(types: dict[str, np.dtype[Any]]) -> str:
    return ", ".join(f"{name}: {types[name]}" for name in sorted(types))


def _words(profile: Ranges) -> str:
    return ", ".join(
        f"{name} {list(low)}..{list(high)}" for name, (low, _, high) in profile.items()
    )


# --- the engine


class TrtEngine(Engine):
    """TensorRT 10 and 11."""

    name: ClassVar[str] = "tensorrt"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    packages: ClassVar[tuple[str, ...]] = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
    install: ClassVar[str] = INSTALL
    Options: ClassVar[type[EngineOptions]] = TrtOptions

    @classmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        """Load a plan that was built for this machine; any other is refused."""
        asked = TrtOptions.model_validate(options)
        plan = _load_file(file, device, asked)
        try:
            return TrtSession(plan, asked, sizes)
        except EngineError:
            plan.cuda.close()
            raise

    @classmethod
    def probe(cls, device: Device) -> dict[str, str]:
        """Build and run ``x + x``."""
        _require_cuda(device)
        require()
        cuda = Cuda()
        session = TrtSession(_tiny(cuda), TrtOptions())
        try:
            answer_tiny(session)
            return session.details()
        finally:
            session.close()

    @classmethod
    def layers(cls, file: Path, device: Device, options: dict[str, Any]) -> tuple[Layer, ...]:
        """What the engine inspector tells of the plan."""
        plan = _load_file(file, device, TrtOptions.model_validate(options))
        import tensorrt as trt

        inspector = plan.engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        cuda = plan.cuda
        del inspector, plan  # before their context
        cuda.close()
        return parse_layers(text)


def _require_cuda(device: Device) -> None:
    if device != "cuda":
        message = f"tensorrt runs on cuda, not on {device}"
        raise EngineError(message, hint="set device: cuda", code="device_unknown")


def _load_file(file: Path, device: Device, options: TrtOptions) -> Loaded:
    _require_cuda(device)
    header, plan = header_of(file), plan_of(file)
    require()
    import tensorrt as trt

    cuda = Cuda(options.device_id)
    try:
        refuse(header, Place.here(cuda, trt.__version__), file)
        return load(plan, header, cuda)
    except EngineError:
        cuda.close()
        raise


def _tiny(cuda: Cuda) -> Loaded:
    """The plan of ``TINY_ONNX``, built here."""
    import tensorrt as trt

    ranges: Ranges = {"x": ((1, 2), (2, 2), (4, 2))}
    log, errors = make_log()
    with translated(errors, "engine_build"):
        builder = trt.Builder(log)
        network, config = builder.create_network(strongly_typed()), builder.create_builder_config()
        parser = trt.OnnxParser(network, log)  # it holds the weights, so it outlives the build
        parsed = parser.parse(TINY_ONNX)
        add_profile(builder, config, ranges)
        plan = builder.build_serialized_network(network, config) if parsed else None
    if plan is None:
        raise EngineError(said(errors) or "TensorRT builds no plan", code="engine_build")
    header = PlanHeader(
        **asdict(Place.here(cuda, trt.__version__)),
        target="probe",
        hardware_compatibility="none",
        version_compatible=False,
        signature=TINY,
        profiles=(ranges,),
    )
    return load(plan, header, cuda)
