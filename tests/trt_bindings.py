"""TensorRT's real bindings without TensorRT: the wheel, imported on generated stub libraries.

``tensorrt.so`` links three libraries of NVIDIA and needs nine of their functions to be loaded, none
of them to be imported. So all classes, members and docstrings can be read, and nothing can be run.
The wheels lie where ``pip install --no-deps --target <sys.prefix>/bindings/<major>`` put them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["BINDINGS", "STANDIN", "compile_library", "in_bindings", "wheel"]

BINDINGS = {"10": "10.16.1.11", "11": "11.4.0.106"}
"""Versions of tensorrt-cu13-bindings by major version."""
STANDIN = Path(__file__).with_name("standin_cuda.c")
SYMBOLS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}
"""What the bindings need of each library."""


def compile_library(source: Path, library: Path) -> Path:
    """Compile one C file into a shared library that is found by its file name."""
    name = f"-Wl,-soname,{library.name}"
    command = ["gcc", "-shared", "-fPIC", "-O1", name, "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def wheel(major: str) -> Path:
    """Where the bindings of that version lie; skips the test where they do not."""
    folder = Path(sys.prefix) / "bindings" / major
    if not folder.is_dir():
        asked = f"pip install --no-deps --target {folder} tensorrt-cu13-bindings={'='}"
        pytest.skip(f"TensorRT's bindings are not there: {asked}{BINDINGS[major]}")
    return folder


def make_stubs(folder: Path, major: str) -> Path:
    """Libraries that hold the functions which the bindings need, all of which give 0."""
    folder.mkdir(exist_ok=True)
    for library, names in SYMBOLS.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
        compile_library(source, folder / f"lib{library}.so.{major}")
    return folder


def in_bindings(code: str, major: str, stubs: Path, **given: Any) -> Any:
    """Run code in a process of its own that has the bindings; gives the JSON that it prints.

    Args:
        code: may ``import tensorrt_bindings``; ``given`` is a dict with the keyword arguments.
        major: which version of the bindings.
        stubs: where the stub libraries lie.
        given: plain data for the code.
    """
    root = Path(__file__).parent.parent
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(stubs),
        "PYTHONPATH": os.pathsep.join([str(wheel(major)), str(root)]),
        "GIVEN": json.dumps(given),
    }
    start = "import json, os\ngiven = json.loads(os.environ['GIVEN'])\n"
    command = [sys.executable, "-c", start + code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
