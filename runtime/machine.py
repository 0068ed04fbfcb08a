"""What this machine is, and how much memory a process takes of it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from specs.engines import Device
from specs.profile import Machine

__all__ = ["gpu_memory_used", "int8_saturates", "machine", "peak_memory", "threads_here"]

PROC = Path("/proc")
EACH_LINE = re.MULTILINE | re.DOTALL
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""The container's memory limit, in versions 2 and 1 of Linux' control groups."""
X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
WIDE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
"""Processor features, in Linux' words, with products of 8 bits that are summed in 32."""
NAME_SIZE = 96
"""NVML_DEVICE_NAME_V2_BUFFER_SIZE; the driver's version is shorter."""
BUS_SIZE = 32
"""NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE."""


def machine(device: Device = "cpu", index: int = 0) -> Machine:
    """This machine.

    Args:
        device: with ``cuda``, the GPU and its driver are told, too.
        index: which GPU, as CUDA counts those that are visible.
    """
    gpu, driver = _gpu(index) if device == "cuda" else ("", "")
    return Machine(
        cpu=_cpu(),
        cores=_cores(),
        threads=threads_here(),
        memory_bytes=_memory(),
        gpu=gpu,
        driver=driver,
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def int8_saturates() -> bool:
    """Whether sums of 8-bit products saturate at 16 bits here: x86 without VNNI or AMX.

    Where the system does not tell the processor's features, the cautious answer.
    """
    if platform.machine().lower() not in X86:
        return False
    return not WIDE_SUMS & set(_text(PROC / "cpuinfo").split())


def threads_here() -> int:
    """Hardware threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes.

    From ``VmHWM`` of /proc where there is one: Linux hands ``ru_maxrss`` on through fork and exec,
    so that a small child of a large parent would be told its parent's memory (getrusage(2)).
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", _text(PROC / "self" / "status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _text(PROC / "cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cores() -> int:
    info = _text(PROC / "cpuinfo")
    pairs = re.findall(r"^physical id\s*:\s*(\d+)$.*?^core id\s*:\s*(\d+)$", info, EACH_LINE)
    return len(set(pairs)) or os.cpu_count() or 1


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for path in LIMITS if (text := _text(path).strip()).isdigit()]
    return min(total, *limits) if limits else total


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def gpu_memory_used(index: int = 0) -> int | None:
    """Memory in use on a GPU, by every process, in bytes; None where it cannot be told.

    The GPU is found by its PCI bus, since CUDA and NVML number them differently.

    Args:
        index: which GPU, as CUDA counts those that are visible.
    """
    with suppress(OSError, AttributeError, ValueError):
        nvml, handle = _nvml_device(index)
        fields = (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
        _ok(nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(fields)))
        return int(fields[2])
    return None


def _gpu(index: int) -> tuple[str, str]:
    """Name and driver version; "" where NVML is not there."""
    with suppress(OSError, AttributeError, ValueError):
        nvml, handle = _nvml_device(index)
        name, driver = (ctypes.create_string_buffer(NAME_SIZE) for _ in range(2))
        _ok(nvml.nvmlDeviceGetName(handle, name, NAME_SIZE))
        _ok(nvml.nvmlSystemGetDriverVersion(driver, NAME_SIZE))
        return name.value.decode(), driver.value.decode()
    return "", ""


def _nvml_device(index: int) -> tuple[Any, ctypes.c_void_p]:
    """NVML and its handle of the GPU that CUDA calls ``index``.

    Raises:
        OSError: a library is missing.
        ValueError: one of them refused.
    """
    cuda, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
    device, bus, handle = ctypes.c_int(), ctypes.create_string_buffer(BUS_SIZE), ctypes.c_void_p()
    _ok(cuda.cuInit(0))
    _ok(cuda.cuDeviceGet(ctypes.byref(device), index))
    _ok(cuda.cuDeviceGetPCIBusId(bus, BUS_SIZE, device))
    _ok(nvml.nvmlInit_v2())
    _ok(nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle)))
    return nvml, handle


def _ok(status: int) -> None:
    if status != 0:
        raise ValueError(f"status {status}")
