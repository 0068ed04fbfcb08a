"""Imports point one way, and light things stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "ray", "torchvision")
SCRIPT = "import sys; {code}; print([name for name in {heavy} if name in sys.modules])"


def imported(code: str, heavy: tuple[str, ...] = HEAVY) -> str:
    """Which heavy packages are loaded after ``code``."""
    script = SCRIPT.format(code=code, heavy=heavy)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import specs, specs.loader, specs.manifest, specs.cli, specs.commands",
        "import runtime, runtime.predictor, runtime.engines, runtime.cli, runtime.plot",
        "import compiler, compiler.build, compiler.cli",
    ],
)
def test_importing_these_loads_neither_torch_nor_onnx_nor_ray(code: str) -> None:
    assert imported(code) == "[]"


def test_serving_code_loads_neither_torch_nor_onnx() -> None:
    code = "import serve.http, serve.batching, serve.config, serve.cli, serve.simulate_cli"
    assert imported(code) == "[]"
    assert imported("import serve.app", ("torch", "onnx")) == "[]"


def test_answering_loads_neither_torch_nor_onnx_nor_ray(digits_artifact: Path, root: Path) -> None:
    picture = root / "specs" / "samples" / "digits" / "digit_3.png"
    code = (
        f"import runtime, pathlib; p = runtime.load({str(digits_artifact)!r}); "
        f"p.predict([pathlib.Path({str(picture)!r}).read_bytes()])"
    )
    assert imported(code) == "[]"


def test_no_import_points_upwards(root: Path) -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint)], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
