"""How long `deployc validate` takes for 100 specs, start-up included. The goal is one second.

Run ``python bench/validate.py``. It writes 100 specs, each different, into a temporary folder,
runs the command several times, and beside it the start of a Python that imports what a spec
checker cannot do without. Exit status 1 where the goal is missed or a heavy library is imported.
"""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPECS = 100
RUNS = 9
GOAL = 1.0
"""Seconds."""
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "ray")
BARE = "import pydantic, yaml, numpy, PIL"
VALIDATE = "import sys; from specs.cli import main; sys.argv[0] = 'deployc'; main()"
IMPORTED = f"""
import sys
from specs.cli import main
try:
    main()
finally:
    print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""

SPEC = """\
version: 1
name: model_{index}
description: Spec {index} of {count}.
model: {{torchvision: {{model: resnet{depth}, kwargs: {{num_classes: {classes}}}}}}}
weights:
  url: https://example.com/{index}.pth
  sha256: {sha256}
  state_dict: {{key: state_dict, rename: [{{from: '^module\\.', to: ''}}]}}
inputs:
  input: {{shape: [batch, 3, {side}, {side}], dtype: float32}}
outputs:
  output: {{shape: [batch, {classes}]}}
dynamic_axes:
  {axes}
export: {{exporter: {exporter}, opset: 18}}
preprocess:
  - decode_image: {{mode: RGB}}
  - resize: {{shorter_side: {larger}, interpolation: bilinear, antialias: true}}
  - center_crop: {side}
  - normalize: {{scale: 255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}
  - layout: CHW
postprocess:
  - softmax
  - top_k: {{k: {k}, labels: labels/{classes}.txt}}
targets:
  - {{engine: onnxruntime, device: cpu}}
verify: {{atol: 1e-3, rtol: 1.0e-3}}
serving: {{slo: {{p99_ms: {p99}}}, replicas: {{min: 1, max: 4}}}}
"""


def write_specs(folder: Path) -> None:
    """100 valid specs that differ in every field that may differ, and their label files."""
    (folder / "labels").mkdir()
    for index in range(SPECS):
        classes, side = 10 + index, 32 + index
        labels = folder / "labels" / f"{classes}.txt"
        labels.write_text("".join(f"class {number}\n" for number in range(classes)))
        text = SPEC.format(
            index=index,
            sha256=hashlib.sha256(str(index).encode()).hexdigest(),
            count=SPECS,
            depth=(18, 34, 50, 101, 152)[index % 5],
            classes=classes,
            side=side,
            larger=side + 32,
            axes="batch: {min: 1, opt: 8, max: 32}" if index % 2 else "batch: {max: 64}",
            exporter=("dynamo", "torchscript")[index % 3 == 0],
            k=1 + index % 5,
            p99=50 + index,
        )
        (folder / f"spec_{index:03}.yaml").write_text(text)


def run(code: str, *arguments: str) -> float:
    """Seconds that a fresh Python takes to run ``code``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def heavy_imports(folder: Path) -> str:
    """The libraries of ``HEAVY`` that validating imports, separated by blanks."""
    command = [sys.executable, "-c", IMPORTED, "validate", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr.strip()


def main() -> int:
    """Measure, print, judge."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_specs(folder)
        heavy = heavy_imports(folder)  # the first run; it also fills the caches
        pairs = [(run(VALIDATE, "validate", name), run(BARE)) for _ in range(RUNS)]
    validate, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    worst = max(pair[0] for pair in pairs)
    print(f"{'median of ' + str(RUNS) + ' runs':<44}{'seconds':>8}{'of goal':>9}{'of bare':>9}")
    for what, took in (
        (f"deployc validate, {SPECS} specs", validate),
        ("  slowest run", worst),
        (f'python -c "{BARE}"', bare),
    ):
        print(f"{what:<44}{took:>8.3f}{took / GOAL:>9.2f}{took / bare:>9.2f}")
    print(f"heavy libraries imported: {heavy or 'none'}")
    return int(bool(heavy) or validate > GOAL)


if __name__ == "__main__":
    sys.exit(main())
