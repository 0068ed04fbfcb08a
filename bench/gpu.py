"""ResNet-50 on a GPU: parity, placement, precision, and latency per batch size from 1 to 256.

Run ``python bench/gpu.py`` on a machine with a CUDA GPU; ``--targets`` names what to build, by
default ONNX Runtime and PyTorch in fp32 and fp16. It writes ``bench/gpu/<machine>.md``: the
machine, what was asked and proven of each variant, and a table of batch sizes in which every
rate stands as a ratio to PyTorch eager in fp32 of the same run. Weights are random: speed does
not depend on them. ``--device cpu`` runs the same on a CPU, with small batches, to try it out.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
BASE = ("torch", "fp32")
"""What every rate is compared with."""
DEPLOYC = "import sys; from specs.cli import main; sys.argv[0] = 'deployc'; main()"
DEFAULT = "onnxruntime:fp32,onnxruntime:fp16,torch:fp32,torch:fp16"


def spec(device: str, targets: list[tuple[str, str]], largest: int) -> dict[str, Any]:
    """ResNet-50 with plain tensors in and out."""
    return {
        "version": 1,
        "name": "resnet50",
        "model": {"torchvision": "resnet50"},
        "weights": {"random": {"seed": 0}},
        "inputs": {"input": {"shape": ["batch", 3, 224, 224]}},
        "outputs": {"output": {"shape": ["batch", 1000]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": min(8, largest), "max": largest}},
        "targets": [{"engine": e, "device": device, "precision": p} for e, p in targets],
    }


def deployc(*arguments: str) -> str:
    """Run the command; what it printed. Its own error is enough where it fails."""
    command = [sys.executable, "-c", DEPLOYC, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def proven(folder: Path) -> list[str]:
    """A row for each variant: what was asked, and what the build found."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    rows = ["| variant | largest difference | nodes off the device | share in the precision |"]
    rows.append("|---|---|---|---|")
    for variant in manifest["variants"]:
        path = folder / "variants" / variant["name"] / "audit.json"
        audit = json.loads(path.read_text("utf-8"))
        worst = max(case["max_abs"] for case in variant["parity"])
        share = audit["precision"]["shares"].get(variant["precision"], 0.0)
        off = audit["placement"]["off_device"]
        rows.append(f"| {variant['name']} | {worst:.2g} | {off} | {share:.1%} |")
    return rows


def measured(profiles: list[dict[str, Any]]) -> list[str]:
    """A row for each batch size and form, and a pair of columns for each variant."""
    points = {
        (p["variant"], point["batch"], point["form"]): point
        for p in profiles
        for point in p["points"]
    }
    base = next(p["variant"] for p in profiles if (p["engine"], p["precision"]) == BASE)
    names = [profile["variant"] for profile in profiles]
    rows = ["| batch | form | " + " | ".join(f"{n}: p50 ms | p99 ms | ratio" for n in names) + " |"]
    rows.append("|---" * (2 + 3 * len(names)) + "|")
    for batch, form in sorted({(batch, form) for _, batch, form in points}):
        reference = points.get((base, batch, form))
        cells = [_cells(points.get((name, batch, form)), reference) for name in names]
        rows.append(f"| {batch} | {form} | " + " | ".join(cells) + " |")
    return rows


def _cells(point: dict[str, Any] | None, reference: dict[str, Any] | None) -> str:
    if point is None:
        return "not run | |"
    ratio = f"{point['rate'] / reference['rate']:.2f}" if reference else ""
    return f"{point['p50_ms']:.3g} | {point['p99_ms']:.3g} | {ratio}"


def main() -> None:
    """Build, profile, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--targets", default=DEFAULT, help="ENGINE:PRECISION, …")
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128,256")
    parser.add_argument("--seconds", default="3")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "gpu")
    given = parser.parse_args()
    targets = [(e, p) for e, _, p in (t.partition(":") for t in given.targets.split(","))]
    if BASE not in targets:
        parser.error(f"--targets must have {':'.join(BASE)}, which the others are compared with")
    largest = max(int(batch) for batch in given.batches.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        file, folder = Path(scratch) / "resnet50.yaml", Path(scratch) / "resnet50"
        file.write_text(yaml.safe_dump(spec(given.device, targets, largest)), "utf-8")
        deployc("build", str(file), "-o", str(folder))
        options = ("--batches", given.batches, "--seconds", given.seconds, "--json")
        profiles: list[dict[str, Any]] = json.loads(deployc("profile", str(folder), *options))
        machine = profiles[0]["machine"]
        name = machine["gpu"] or machine["cpu"]
        lines = [
            f"# ResNet-50 on {name}",
            "",
            f"`python bench/gpu.py {' '.join(sys.argv[1:])}`",
            "",
        ]
        lines += [f"- {key}: {value}" for key, value in machine.items() if value]
        lines += [f"- {p['variant']}: {json.dumps(p['engine_details'])}" for p in profiles]
        lines += ["", "## Proven", "", *proven(folder), "", "## Measured", ""]
        lines += [f"`ratio`: items per second over those of {'-'.join(BASE)}.", ""]
        lines += measured(profiles)
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / (re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + ".md")
    table.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    print(f"\nwrote {table}")


if __name__ == "__main__":
    main()
