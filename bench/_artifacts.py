"""What the serving bench serves: artifacts built and profiled here, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from _child import ROOT, deployc
from PIL import Image

__all__ = ["CURVE_MS", "SLEEPING", "Artifacts", "plug_in", "sleeping_spec"]

SLEEPING = ROOT / "bench" / "sleeping"
CURVE_MS = (4.0, 0.25)
"""Time of a batch of the sleeping engine: a constant, and per item; milliseconds."""
LARGEST = 128
CALIBRATED = 8
"""Pictures that int8 is calibrated with."""
ENTRY_POINTS = "[deployc.engines]\nsleeping = sleeping_engines\n"
METADATA = "Metadata-Version: 2.1\nName: deployc-sleeping\nVersion: 0\n"


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Builds into ``folder``."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to find the sleeping engine."""
        return plug_in(self.folder)

    def built(self, name: str, *, random: bool = True, profile: str = "1,2,4,8,16,32") -> Path:
        """A spec of the project, built and profiled."""
        out = self.folder / name
        weights = ["--weights", "random:0"] if random else []
        spec = str(ROOT / "specs" / f"{name}.yaml")
        deployc("build", "-q", *weights, "-o", str(out), spec, env=self.env)
        self._profile(out, profile)
        return out

    def int8(self, name: str, *, profile: str) -> Path:
        """The spec of that name without ``_int8``, in int8; nothing judges what random weights say.

        Calibrated with a few pictures of noise.
        """
        source = ROOT / "specs" / f"{name.removesuffix('_int8')}.yaml"
        spec: dict[str, Any] = yaml.safe_load(source.read_text("utf-8"))
        samples, out = self.folder / f"{name}-samples", self.folder / name
        samples.mkdir(exist_ok=True)
        for seed in range(CALIBRATED):
            _noise(seed).save(samples / f"{seed}.png")
        labels: dict[str, str] = spec["postprocess"][-1]["top_k"]["labels"]
        labels |= {key: str(source.parent / path) for key, path in labels.items()}
        tolerance = {"int8": {"atol": 1e6, "rtol": 1.0}}
        spec |= {
            "name": name,
            "weights": {"random": {"seed": 0}},
            "targets": [{"engine": "onnxruntime", "device": "cpu", "precision": "int8"}],
            "calibration": {"samples": f"{samples}/*.png"},
            "verify": {"tolerance": tolerance},
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(spec), "utf-8")  # JSON is YAML
        deployc("build", "-q", "-o", str(out), str(file), env=self.env)
        self._profile(out, profile)
        return out

    def sleeping(self, stretch: float) -> Path:
        """The sleeping engine's artifact: a linear model, its time stretched."""
        spec, out = self.folder / "sleeping.yaml", self.folder / "sleeping"
        spec.write_text(json.dumps(sleeping_spec(stretch)), "utf-8")  # JSON is YAML
        command = [sys.executable, str(SLEEPING / "build.py"), "build", "-q", "-o", str(out)]
        env = {**os.environ, **self.env}
        subprocess.run([*command, str(spec)], check=True, stdout=subprocess.DEVNULL, env=env)
        self._profile(out, f"1,32,{LARGEST}")
        return out

    def _profile(self, out: Path, batches: str) -> None:
        arguments = ["profile", str(out), "--batches", batches, "--seconds", "0.3", "-q"]
        deployc(*arguments, env=self.env)


def _noise(seed: int) -> Image.Image:
    dice = np.random.default_rng(seed)
    small = dice.integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(small).resize((256, 256))


def sleeping_spec(stretch: float) -> dict[str, object]:
    """The spec; ``stretch`` multiplies every time of the curve."""
    base, item = (stretch * ms for ms in CURVE_MS)
    options = {"base_ms": base, "item_ms": item}
    return {
        "version": 1,
        "name": "sleeping",
        "model": {"onnx": str(ROOT / "specs" / "models" / "linear_regression.onnx")},
        "inputs": {"X": {"shape": ["batch", 2]}},
        "outputs": {"Y": {"shape": ["batch", 1]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 32, "max": LARGEST}},
        "targets": [{"engine": "sleeping", "device": "cpu", "options": options}],
    }


def plug_in(folder: Path) -> dict[str, str]:
    """Make the sleeping engine known to processes with this environment, as an installed plug-in.

    An entry point is found wherever its distribution's metadata lies on the module path.
    """
    info = folder / "deployc_sleeping-0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(METADATA, "utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, "utf-8")
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(SLEEPING), *before])}
