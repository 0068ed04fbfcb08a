"""Stands in for TensorRT in tests: the part of its interface that deployc uses, on the CPU.

A "plan" is the ONNX graph with its profiles, and ONNX Runtime computes: the builder and the
session run whole, with real numbers. Shapes outside of a profile, missing addresses and wrong
flags are errors, as in TensorRT. ``tests/runtime/test_trt.py`` holds the names to
``typings/tensorrt``, and that to the real bindings. What it cannot show is how the real TensorRT
behaves: the tests marked ``tensorrt`` do.
"""

# pyright: basic
# It keeps the signatures of a library that has no types.
# ruff: noqa: ARG001, D101, D106 - the arguments and names are TensorRT's, and described there
from __future__ import annotations

import base64
import ctypes
import enum
import json
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, shape_inference

__version__ = "10.16.1.11"
DRIVER = ""
"""The stand-in of the driver; tests set it."""
WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _enum(name: str, *members: str) -> Any:
    return enum.Enum(name, {member: number for number, member in enumerate(members)})


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


BuilderFlag = _enum(
    "BuilderFlag",
    "DISABLE_TIMING_CACHE",
    "ERROR_ON_TIMING_CACHE_MISS",
    "TF32",
    "VERSION_COMPATIBLE",
)
HardwareCompatibilityLevel = _enum(
    "HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"
)
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "DETAILED")
LayerInformationFormat = _enum("LayerInformationFormat", "JSON")
ExecutionContextAllocationStrategy = _enum(
    "ExecutionContextAllocationStrategy", "STATIC", "USER_MANAGED"
)
TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
TensorLocation = _enum("TensorLocation", "DEVICE", "HOST")
DataType = _enum(
    "DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64"
)
_TYPES: dict[int, Any] = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.DOUBLE: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BOOL: DataType.BOOL,
}
_WORDS: dict[Any, str] = {DataType.FLOAT: "Float", DataType.HALF: "Half", DataType.INT8: "Int8"}


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    pass


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor:
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


class ILayer:
    def __init__(self, tensors: list[ITensor]) -> None:
        self._tensors = tensors

    @property
    def num_outputs(self) -> int:
        return len(self._tensors)

    def get_output(self, index: int) -> ITensor:
        return self._tensors[index]


class INetworkDefinition:
    def __init__(self) -> None:
        self.model: Any = None

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node)

    def get_layer(self, index: int) -> ILayer:
        types = _types(self.model)
        outputs = self.model.graph.node[index].output
        return ILayer([ITensor(types[name]) for name in outputs if name in types])


def _types(model: Any) -> dict[str, Any]:
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = [(value.name, value.type.tensor_type.elem_type) for value in values]
    found += [(tensor.name, tensor.data_type) for tensor in graph.initializer]
    return {name: _TYPES[kind] for name, kind in found}


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise ValueError(f"{input}: {min} {opt} {max}")
        self.shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, device: str, times: set[str]) -> None:
        self.device, self.times = device, times

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self.times |= input_cache.times
        return True

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps([self.device, sorted(self.times)]).encode())


def _device() -> str:
    return os.environ.get("STANDIN_GPU", "Stand-in GPU")


class IBuilderConfig:
    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.flags = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if not serialized_timing_cache:
            return ITimingCache(_device(), set())
        try:
            device, times = json.loads(serialized_timing_cache)
        except ValueError:
            return None
        return ITimingCache(device, set(times))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.device != _device() and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.cache


class Builder:
    built: ClassVar[list[dict[str, Any]]] = []
    """What every plan was built with."""

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        if flags != 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise RuntimeError("the network is not strongly typed")
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        times = {node.op_type for node in network.model.graph.node}
        if config.cache is not None:
            missing = times - config.cache.times
            if missing and "ERROR_ON_TIMING_CACHE_MISS" in config.flags:
                told = f"timing cache miss: {sorted(missing)}"
                self._logger.log(ILogger.Severity.ERROR, told)
                return None
            config.cache.times |= times
        facts: dict[str, Any] = {
            "version": __version__,
            "flags": sorted(config.flags),
            "pools": config.pools,
            "level": config.builder_optimization_level,
            "hardware": config.hardware_compatibility_level.name,
            "detailed": config.profiling_verbosity is ProfilingVerbosity.DETAILED,
            "profiles": [profile.shapes for profile in config.profiles],
        }
        self.built.append(facts)
        graph = base64.b64encode(network.model.SerializeToString()).decode()
        return IHostMemory(b"PLAN" + json.dumps({**facts, "graph": graph}).encode())


class ParserError:
    def __init__(self, told: str) -> None:
        self._told = told

    def desc(self) -> str:
        return self._told

    def node_name(self) -> str:
        return "the_node"

    def node_operator(self) -> str:
        return "TheOp"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def parse(self, model: bytes) -> bool:
        return self._take(onnx.load_from_string(model))

    def parse_from_file(self, model: str) -> bool:
        return self._take(onnx.load(model))

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def _take(self, model: Any) -> bool:
        if any(node.op_type == "Det" for node in model.graph.node):
            self._errors.append(ParserError("no importer registered for op: Det"))
            return False
        self._network.model = model
        return True


class EngineInspector:
    def __init__(self, facts: dict[str, Any], model: Any) -> None:
        self._facts, self._model = facts, model

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        nodes = self._model.graph.node
        if not self._facts["detailed"]:
            return json.dumps({"Layers": [node.name for node in nodes], "Bindings": []})
        return json.dumps({"Layers": [self._layer(node) for node in nodes]})

    def _layer(self, node: Any) -> dict[str, Any]:
        types = _types(self._model)
        key = "Format/Datatype" if __version__.startswith("10") else "DataType"
        return {
            "Name": node.name,
            "LayerType": node.op_type,
            "Inputs": [{key: _WORDS.get(types.get(name), "N/A")} for name in node.input],
            "Outputs": [{key: _WORDS.get(types.get(name), "N/A")} for name in node.output],
            "Metadata": f"[ONNX Layer: {node.name}]",
        }


class ICudaEngine:
    def __init__(self, facts: dict[str, Any], logger: ILogger) -> None:
        self.facts, self.logger = facts, logger
        self.model = onnx.load_from_string(base64.b64decode(facts["graph"]))
        self.session = ort.InferenceSession(
            self.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        graph = self.model.graph
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self._types = _types(self.model)

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.facts["profiles"])

    @property
    def device_memory_size_v2(self) -> int:
        return 1024

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._types[name]

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation.HOST if name == "on_host" else TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        return self.facts["profiles"][profile_index][name]

    def create_execution_context(self, strategy: Any) -> IExecutionContext:
        return IExecutionContext(self, strategy)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self.facts, self.model)


class IExecutionContext:
    count: ClassVar[int] = 0
    runs: ClassVar[int] = 0
    """How often any context was asked to work; a replayed graph does not ask."""

    def __init__(self, engine: ICudaEngine, strategy: Any) -> None:
        type(self).count += 1
        self._engine, self._profile = engine, 0
        self._needs_memory = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._kept: list[Any] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return profile_index < self._engine.num_optimization_profiles

    def set_device_memory(self, memory: int, size: int) -> None:
        self._needs_memory = size < self._engine.device_memory_size_v2 or not memory

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        good = all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if not good:
            self._say(f"{name} {shape} is outside of profile {self._profile}")
        self._shapes[name] = tuple(shape)
        return good

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        return self._inferred(self._shapes)[name]

    def _inferred(self, shapes: Any) -> dict[str, tuple[int, ...]]:
        model = onnx.ModelProto()
        model.CopyFrom(self._engine.model)
        for value in model.graph.input:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        graph = shape_inference.infer_shapes(model).graph
        return {
            value.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else -1
                for dim in value.type.tensor_type.shape.dim
            )
            for value in graph.output
        }

    def get_max_output_size(self, name: str) -> int:
        most = {n: shapes[2] for n, shapes in self._engine.facts["profiles"][self._profile].items()}
        shape = self._inferred(most)[name]
        return -1 if -1 in shape else int(np.prod(shape)) * self._dtype(name).itemsize

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        type(self).runs += 1
        if self._needs_memory or any(not self._addresses.get(n) for n in self._engine.inputs):
            self._say("scratch memory or an address is missing")
            return False
        driver = ctypes.CDLL(DRIVER)
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        if self._allocators:  # TensorRT waits as well, to learn the shape
            driver.cuStreamSynchronize(ctypes.c_void_p(stream_handle))
            return self._compute(shapes, addresses)
        work = WORK(lambda _: self._compute(shapes, addresses) and None)
        self._kept.append(work)
        return driver.cuLaunchHostFunc(ctypes.c_void_p(stream_handle), work, None) == 0

    def _compute(self, shapes: Any, addresses: dict[str, int]) -> bool:
        feed = {n: self._at(addresses[n], shapes[n], self._dtype(n)) for n in self._engine.inputs}
        outputs = self._engine.session.run(self._engine.outputs, feed)
        for name, array in zip(self._engine.outputs, outputs, strict=True):
            address = addresses[name]
            if name in self._allocators:
                allocator = self._allocators[name]
                address = allocator.reallocate_output_async(name, address, array.nbytes, 256, 0)
                allocator.notify_shape(name, array.shape)
                if not address:
                    self._say(f"no memory for {name}")
                    return False
            self._at(address, array.shape, array.dtype)[...] = array
        return True

    def _dtype(self, name: str) -> Any:
        words = {"FLOAT": "float32", "HALF": "float16"}
        word = self._engine.get_tensor_dtype(name).name
        return np.dtype(words.get(word, word.lower()))

    @staticmethod
    def _at(address: int, shape: Any, dtype: Any) -> Any:
        size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        return np.ndarray(shape, dtype, memoryview((ctypes.c_char * size).from_address(address)))

    def _say(self, text: str) -> None:
        self._engine.logger.log(ILogger.Severity.ERROR, text)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if serialized_engine[:4] != b"PLAN":
            self._logger.log(ILogger.Severity.ERROR, "the plan's magic tag does not match")
            return None
        facts = json.loads(serialized_engine[4:])
        if "VERSION_COMPATIBLE" in facts["flags"] and not self.engine_host_code_allowed:
            self._logger.log(ILogger.Severity.ERROR, "engines with host code are not allowed")
            return None
        return ICudaEngine(facts, self._logger)


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    return True
