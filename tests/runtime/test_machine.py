"""What the machine is; the GPU on libraries that are compiled here and answer as NVIDIA does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.machine import gpu_memory_used, int8_saturates, machine, peak_memory

CUDA = """
#include <string.h>
static int ready = 0;
int cuInit(unsigned flags) { ready = flags == 0; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ready ? 0 : 3; }
int cuDeviceGetPCIBusId(char *out, int size, int device) {
  if (size < 13 || device != 41) return 1;
  strcpy(out, "0000:81:00.0");
  return 0;
}
"""
NVML = """
#include <string.h>
static int ready = 0, device = 7;
int nvmlInit_v2(void) { ready = 1; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) {
  if (!ready || strcmp(bus, "0000:81:00.0")) return 2;
  *handle = &device;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *memory) {
  if (handle != &device) return 2;
  memory[0] = 9000000000ull; memory[1] = 4000000000ull; memory[2] = 5000000000ull;
  return REFUSED;
}
int nvmlDeviceGetName(void *handle, char *out, unsigned size) {
  if (handle != &device || size < 8) return 7;
  strcpy(out, "NVIDIA X");
  return 0;
}
int nvmlSystemGetDriverVersion(char *out, unsigned size) { strcpy(out, "580.65"); return 0; }
"""
ASK = "from runtime.machine import *; print(gpu_memory_used(1), machine('cuda', 1).gpu, end=' ')"
Libraries = Callable[..., str]


@pytest.fixture
def answered(tmp_path: Path) -> Libraries:
    """What a process is told that finds these libraries as NVIDIA's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    def run(refused: int = 0, *, nvml: bool = True) -> str:
        sources = {"libcuda.so.1": CUDA, **({"libnvidia-ml.so.1": NVML} if nvml else {})}
        for name, text in sources.items():
            command = [compiler, "-shared", "-fPIC", f"-DREFUSED={refused}", "-x", "c", "-"]
            subprocess.run([*command, "-o", str(tmp_path / name)], input=text.encode(), check=True)
        done = subprocess.run(
            [sys.executable, "-c", f"{ASK}; print(machine('cuda', 1).driver)"],
            env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    return run


def test_the_machine_is_described() -> None:
    found = machine()
    assert found.cpu
    assert found.threads >= 1
    assert found.cores >= 1
    assert found.memory_bytes > 2**28
    assert (found.gpu, found.driver) == ("", "")


def test_peak_memory_is_the_process_own_and_not_its_parents() -> None:
    ballast = np.ones(300 * 2**17)  # 300 MiB
    script = "from runtime.machine import peak_memory; print(peak_memory())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < ballast.nbytes < peak_memory()


def test_the_gpu_that_cuda_counts_is_asked_for_its_memory_name_and_driver(
    answered: Libraries,
) -> None:
    assert answered() == "5000000000 NVIDIA X 580.65"


def test_a_gpu_whose_driver_refuses_has_no_memory_told(answered: Libraries) -> None:
    assert answered(refused=15) == "None NVIDIA X 580.65"


def test_without_nvml_nothing_is_told_of_a_gpu(answered: Libraries) -> None:
    assert answered(nvml=False) == "None"


def test_without_a_driver_nothing_is_told_of_a_gpu() -> None:
    if gpu_memory_used() is not None:
        pytest.skip("there is a GPU here")
    assert (machine("cuda").gpu, machine("cuda").driver) == ("", "")


@pytest.mark.parametrize(
    ("kind", "flags", "saturates"),
    [
        ("x86_64", "fma avx2", True),
        ("x86_64", "fma avx2 avx512f avx512_vnni", False),
        ("AMD64", "avx2 avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", "asimd", False),
    ],
)
def test_sums_of_eight_bit_products_saturate_on_x86_without_vnni(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    flags: str | None,
    saturates: bool,
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr("runtime.machine.PROC", tmp_path)
    monkeypatch.setattr("platform.machine", lambda: kind)
    assert int8_saturates() is saturates
