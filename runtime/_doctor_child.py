"""What ``deployc doctor`` asks in a process of its own: a broken native library may end that one.

``python -m runtime._doctor_child engine NAME DEVICE``, ``… variant ARTIFACT NAME``, ``… gpus``:
one line of JSON on stdout, ``{"versions": {…}}`` or ``{"error": {…}}``.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from specs.errors import DeploycError, EngineError

if TYPE_CHECKING:
    from specs.engines import Device

NVML = "libnvidia-ml.so.1"
NAME_SIZE = 96
"""NVML_DEVICE_NAME_V2_BUFFER_SIZE; the driver's version is shorter."""
DRIVER_HINT = "install NVIDIA's driver where there is a GPU, and run `nvidia-smi` to see it"


def engine(name: str, device: str) -> dict[str, str]:
    """Versions, from a session of the engine on the device."""
    from runtime.engines import get_engine

    return get_engine(name).probe(cast("Device", device))


def variant(artifact: str, name: str) -> dict[str, str]:
    """What the engine says of itself after it has run one golden batch of the variant."""
    from runtime.golden import batch_of, read_golden
    from runtime.predictor import load

    with load(artifact, name) as predictor:
        for golden in read_golden(Path(artifact) / predictor.variant.golden):
            size = golden.case.batches[0]
            predictor.predict_batch(batch_of(golden.case.inputs, size, 0))
            break
        return predictor.details


def gpus() -> dict[str, str]:
    """Every GPU with its memory, the driver's version and the CUDA version that it brings."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError as error:
        message = f"no NVIDIA driver here: {NVML} is missing"
        raise EngineError(message, hint=DRIVER_HINT, code="driver_missing") from error
    _ok(nvml.nvmlInit_v2(), "nvmlInit")
    count, cuda = ctypes.c_uint(), ctypes.c_int()
    driver = ctypes.create_string_buffer(NAME_SIZE)
    _ok(nvml.nvmlSystemGetDriverVersion(driver, NAME_SIZE), "nvmlSystemGetDriverVersion")
    _ok(nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda)), "nvmlSystemGetCudaDriver")
    _ok(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)), "nvmlDeviceGetCount")
    # 13020 is CUDA 13.2: NVML_CUDA_DRIVER_VERSION_MAJOR and _MINOR in nvml.h.
    versions = {"cuda": f"{cuda.value // 1000}.{cuda.value % 1000 // 10}"}
    devices = {f"gpu {index}": _gpu(nvml, index) for index in range(count.value)}
    return {"driver": driver.value.decode(), **versions, **devices}


def _gpu(nvml: Any, index: int) -> str:  # noqa: ANN401 - a library of ctypes
    handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(NAME_SIZE)
    memory = (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
    _ok(nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)), "nvmlDeviceGetHandle")
    _ok(nvml.nvmlDeviceGetName(handle, name, NAME_SIZE), "nvmlDeviceGetName")
    _ok(nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)), "nvmlDeviceGetMemoryInfo")
    return f"{name.value.decode()}, {memory[0] / 2**30:.0f} GiB"


def _ok(status: int, call: str) -> None:
    if status != 0:
        message = f"NVIDIA's driver refuses: {call} gives status {status}"
        raise EngineError(message, hint=DRIVER_HINT, code="driver_missing")


ASKED = {"engine": engine, "variant": variant, "gpus": gpus}


def main() -> None:
    """Answer what the arguments ask."""
    kept = os.dup(1)
    os.dup2(2, 1)  # libraries print as they like; stdout is for the answer
    try:
        answer: dict[str, Any] = {"versions": ASKED[sys.argv[1]](*sys.argv[2:])}
    except DeploycError as error:
        answer = {"error": error.to_dict()}
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is its finding
        told = f"{type(error).__name__}: {error}"
        answer = {"error": {"code": "broken", "message": told, "hint": ""}}
    with os.fdopen(kept, "w", encoding="utf-8") as out:
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
