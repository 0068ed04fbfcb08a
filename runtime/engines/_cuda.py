"""NVIDIA's driver, called through its own library: memory, a stream and graphs of one GPU.

Nothing else of CUDA has to be installed: ``libcuda.so.1`` comes with the driver.
"""

from __future__ import annotations

import ctypes
import math
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.tensors import Array
from specs.errors import EngineError

__all__ = ["CALLS", "Cuda", "Memory", "Stream", "pinned"]

DRIVER = "libcuda.so.1"
_P, _I, _U, _S = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
_PP, _PI = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
CALLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (_U,),
    "cuGetErrorString": (_I, _PP),
    "cuDriverGetVersion": (_PI,),
    "cuDeviceGet": (_PI, _I),
    "cuDeviceGetName": (ctypes.c_char_p, _I, _I),
    "cuDeviceGetAttribute": (_PI, _I, _I),
    "cuDevicePrimaryCtxRetain": (_PP, _I),
    "cuDevicePrimaryCtxRelease_v2": (_I,),
    "cuCtxSetCurrent": (_P,),
    "cuMemAlloc_v2": (_PP, _S),
    "cuMemFree_v2": (_P,),
    "cuMemHostAlloc": (_PP, _S, _U),
    "cuMemFreeHost": (_P,),
    "cuMemcpyHtoDAsync_v2": (_P, _P, _S, _P),
    "cuMemcpyDtoHAsync_v2": (_P, _P, _S, _P),
    "cuStreamCreate": (_PP, _U),
    "cuStreamDestroy_v2": (_P,),
    "cuStreamSynchronize": (_P,),
    "cuStreamBeginCapture_v2": (_P, _I),
    "cuStreamEndCapture": (_P, _PP),
    "cuGraphInstantiateWithFlags": (_PP, _P, ctypes.c_ulonglong),
    "cuGraphLaunch": (_P, _P),
    "cuGraphExecDestroy": (_P,),
    "cuGraphDestroy": (_P,),
}
"""Parameter types of the driver's functions, as CUDA 12 and 13 export them (``cuda.h``)."""
MAJOR, MINOR = 75, 76
"""``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR``."""
NON_BLOCKING, THREAD_LOCAL = 1, 1
"""``CU_STREAM_NON_BLOCKING``, ``CU_STREAM_CAPTURE_MODE_THREAD_LOCAL``."""
DEVICE_CALLS = frozenset({"cuInit", "cuDeviceGet"})
"""Calls that fail where there is a driver and no GPU."""


class Cuda:
    """The primary context of one GPU, which other CUDA libraries in this process share.

    Args:
        index: which GPU, of those that are visible.

    Raises:
        EngineError: the driver or the GPU is not there (``device_missing``).
    """

    def __init__(self, index: int = 0) -> None:
        self._library = _load()
        self.call("cuInit", 0)
        self._device = self.get("cuDeviceGet", index)
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, 256, self._device)
        self.name = text.value.decode()
        """The GPU's name, ``NVIDIA H200``."""
        level = [self.get("cuDeviceGetAttribute", which, self._device) for which in (MAJOR, MINOR)]
        self.capability = f"{level[0]}.{level[1]}"
        """Its compute capability, ``9.0``."""
        newest = self.get("cuDriverGetVersion")
        self.driver = f"{_kernel_module()} (CUDA {newest // 1000}.{newest % 1000 // 10})".lstrip()
        """The driver's version, and the newest CUDA that it runs: ``580.65.06 (CUDA 13.0)``."""
        self._context = self.get("cuDevicePrimaryCtxRetain", self._device)
        self.enter()

    def call(self, name: str, *arguments: object) -> None:
        """One call of the driver; ``EngineError`` where it fails."""
        code = getattr(self._library, name)(*arguments)
        if not code:
            return
        text = ctypes.c_void_p()
        self._library.cuGetErrorString(code, ctypes.byref(text))
        known = ctypes.string_at(text.value).decode() if text.value else "unknown error"
        missing = name in DEVICE_CALLS
        hint = "run `nvidia-smi` to see the GPUs; CUDA_VISIBLE_DEVICES may hide them"
        message = f"CUDA: {name}: {known} ({code})"
        word = "device_missing" if missing else "cuda"
        raise EngineError(message, hint=hint if missing else "", code=word)

    def get(self, name: str, *arguments: object) -> int:
        """What a call writes through its pointer, which is left out of ``arguments``."""
        types = CALLS[name]
        place = next(i for i, kind in enumerate(types) if kind in (_PP, _PI))
        value = (_I if types[place] is _PI else _P)()
        self.call(name, *arguments[:place], ctypes.byref(value), *arguments[place:])
        return value.value or 0

    def enter(self) -> None:
        """Make the context the calling thread's."""
        self.call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        """Give the context back."""
        self.call("cuDevicePrimaryCtxRelease_v2", self._device)


class Memory:
    """Memory of one tensor, pinned on the host and as much on the GPU; reused, and grown."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._size = self.host = self.device = 0

    def fit(self, size: int) -> bool:
        """Make room for ``size`` bytes; whether the addresses changed."""
        if max(size, 1) <= self._size:
            return False
        self.free()
        self.host = self._cuda.get("cuMemHostAlloc", max(size, 1), 0)
        self.device = self._cuda.get("cuMemAlloc_v2", max(size, 1))
        self._size = max(size, 1)
        return True

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The host's side as an array, without a copy."""
        size = max(math.prod(shape) * dtype.itemsize, 1)
        return np.ndarray(shape, dtype, memoryview((ctypes.c_char * size).from_address(self.host)))

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        if self.host:
            self._cuda.call("cuMemFreeHost", self.host)
        if self.device:
            self._cuda.call("cuMemFree_v2", self.device)
        self._size = self.host = self.device = 0


def pinned(index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Host memory that a GPU reads without a copy between; given back with the last view of it.

    Raises:
        EngineError: the driver or the GPU is not there, or the memory cannot be had.
    """
    cuda = Cuda(index)
    size = max(math.prod(shape) * dtype.itemsize, 1)
    try:
        address = cuda.get("cuMemHostAlloc", size, 0)
    except EngineError:
        cuda.close()
        raise
    buffer = (ctypes.c_char * size).from_address(address)
    weakref.finalize(buffer, _unpin, cuda, address)
    return np.ndarray(shape, dtype, memoryview(buffer))


def _unpin(cuda: Cuda, address: int) -> None:
    """From whichever thread dropped the last view."""
    cuda.enter()
    cuda.call("cuMemFreeHost", address)
    cuda.close()


class Stream:
    """A stream of its own, and the graphs recorded on it."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = cuda.get("cuStreamCreate", NON_BLOCKING)
        self._graphs: dict[object, int] = {}

    def upload(self, memory: Memory, size: int) -> None:
        """Begin to copy ``size`` bytes from the host's side to the GPU's."""
        pair = (memory.device, memory.host)
        self._cuda.call("cuMemcpyHtoDAsync_v2", *pair, size, self.handle)

    def download(self, memory: Memory, size: int) -> None:
        """Begin to copy ``size`` bytes from the GPU's side to the host's."""
        pair = (memory.host, memory.device)
        self._cuda.call("cuMemcpyDtoHAsync_v2", *pair, size, self.handle)

    def wait(self) -> None:
        """Wait until all that was begun is done."""
        self._cuda.call("cuStreamSynchronize", self.handle)

    @property
    def graphs(self) -> int:
        """How many graphs are recorded."""
        return len(self._graphs)

    def record(self, key: object, work: Callable[[], None]) -> None:
        """Record what ``work`` puts on the stream; it is not run."""
        self._cuda.call("cuStreamBeginCapture_v2", self.handle, THREAD_LOCAL)
        try:
            work()
        finally:  # a stream that still records refuses all other work
            graph = self._cuda.get("cuStreamEndCapture", self.handle)
        try:
            self._graphs[key] = self._cuda.get("cuGraphInstantiateWithFlags", graph, 0)
        finally:
            self._cuda.call("cuGraphDestroy", graph)

    def replay(self, key: object) -> bool:
        """Begin the recorded work again; False where none is recorded under ``key``."""
        graph = self._graphs.get(key)
        if graph is not None:
            self._cuda.call("cuGraphLaunch", graph, self.handle)
        return graph is not None

    def forget(self) -> None:
        """Drop the graphs, as when memory that they use moves."""
        while self._graphs:
            self._cuda.call("cuGraphExecDestroy", self._graphs.popitem()[1])

    def close(self) -> None:
        """Give the stream and its graphs back."""
        self.forget()
        self._cuda.call("cuStreamDestroy_v2", self.handle)


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(DRIVER)
        for name, types in CALLS.items():
            getattr(library, name).argtypes = types
    except OSError as error:
        hint = "install NVIDIA's driver, 525 or newer, and run `nvidia-smi` to see the GPU"
        message = f"NVIDIA's driver is not there: {Path(DRIVER).name} is missing"
        raise EngineError(message, hint=hint, code="device_missing") from error
    except AttributeError as error:
        message = f"NVIDIA's driver is too old: {error}"
        raise EngineError(message, hint="install 525 or newer", code="device_missing") from error
    return library


def _kernel_module() -> str:
    """The driver's version as its kernel module tells it; "" where it does not (WSL)."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8")
    except OSError:
        return ""
    found = re.search(r"\b\d{3,}\.[\d.]+", text)
    return found[0] if found else ""
