"""The pipelines that ``bench/processing.py`` compares, and the images that they are given.

Every pipeline turns the bytes of an image file into what ImageNet's classifiers take: shorter side
256, bilinear; the middle 224x224; (x / 255 - mean) / std; float32 [3, 224, 224], contiguous.
"""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

import runtime
from compiler.placement.golden_images import photo
from runtime.predictor import Predictor

__all__ = [
    "CROP",
    "SCALED",
    "Built",
    "Pipeline",
    "by_hand",
    "encode",
    "floor",
    "levels",
    "reference",
    "synthetic",
    "versions",
]

Tensor = NDArray[np.float32]
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SIDE, CROP = 256, 224
QUALITY = 90
SIZES = {"500x375": (375, 500), "4000x3000": (3000, 4000)}
FAST = ("simplejpeg", "cykooz_resizer")
"""What the generated Python uses where it is installed, by import name."""
LIBRARIES = (
    "numpy",
    "pillow",
    "simplejpeg",
    "cykooz-resizer",
    "torch",
    "torchvision",
    "opencv-python-headless",
    "onnxruntime-gpu",
)
"""What the results depend on, as distributions."""
PYTHON, GRAPH = "python", "graph"
SCALED = "generated Python, scaled"
"""`deployc` in a process of its own, as users run it."""
DEPLOYC = "import sys; from specs.cli import main; sys.argv[0] = 'deployc'; main()"
MODEL = "from torch.nn import Identity as Pixels\n"


@dataclass(frozen=True)
class Pipeline:
    """One way to prepare an image: its name, what runs it, and otherwise why nothing does."""

    name: str
    run: Callable[[bytes], Tensor] | None
    fault: str = ""


def encode(pixels: NDArray[np.uint8], quality: int = QUALITY) -> bytes:
    """A baseline JPEG with halved chroma (4:2:0), as cameras and libraries write by default."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def synthetic(seed: int) -> dict[str, bytes]:
    """Drawn pictures by name: smooth light, edges, texture and noise; the same for a seed."""
    return {name: encode(photo(*size, seed)) for name, size in SIZES.items()}


def reference(data: bytes) -> Tensor:
    """What everything is held to: torchvision's transforms on a PIL image."""
    transforms: Any = importlib.import_module("torchvision.transforms")
    steps = [transforms.Resize(SIDE), transforms.CenterCrop(CROP), transforms.ToTensor()]
    chain = transforms.Compose([*steps, transforms.Normalize(MEAN.tolist(), STD.tolist())])
    with Image.open(io.BytesIO(data)) as image:
        return chain(image.convert("RGB")).numpy()


def floor(data: bytes) -> Callable[[], object]:
    """Decoding at an eighth of the size, by the fastest decoder that is installed.

    All coefficients are entropy-decoded, which no decoder can avoid, and of each block the mean
    alone becomes a pixel: an upper bound on the time of bare entropy decoding, and a tight one.
    """
    simplejpeg = optional("simplejpeg")
    if simplejpeg:
        return lambda: simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8)

    def draft() -> object:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (1, 1))
            return image.load()

    return draft


def by_hand() -> Iterator[Pipeline]:
    """What one would write without deployc; torchvision's comes first."""
    yield Pipeline("torchvision v2", torchvision_v2())
    yield Pipeline("Pillow by hand", pillow_by_hand)
    cv2 = optional("cv2")
    missing = "opencv-python-headless is not installed"
    for name, filter_ in (("linear", "INTER_LINEAR"), ("area", "INTER_AREA")):
        run = opencv_by_hand(cv2, filter_) if cv2 else None
        yield Pipeline(f"OpenCV by hand, {name}", run, "" if cv2 else missing)


def torchvision_v2() -> Callable[[bytes], Tensor]:
    """As torchvision's documentation recommends: decode to a tensor, resize uint8, then floats."""
    torch: Any = importlib.import_module("torch")
    v2: Any = importlib.import_module("torchvision.transforms.v2")
    io_: Any = importlib.import_module("torchvision.io")
    torch.set_num_threads(1)
    # Memory of bytes cannot be written to; nothing here tries.
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    steps = [v2.Resize(SIDE, antialias=True), v2.CenterCrop(CROP)]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN.tolist(), STD.tolist())]
    chain = v2.Compose(steps)

    def run(data: bytes) -> Tensor:
        with torch.inference_mode():
            coded = torch.frombuffer(data, dtype=torch.uint8)
            pixels = io_.decode_jpeg(coded, mode=io_.ImageReadMode.RGB)
            return chain(pixels).contiguous().numpy()

    return run


def pillow_by_hand(data: bytes) -> Tensor:
    """Pillow until the crop, then numpy on planes: no copy that is not needed."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        width, height = fitted(image.width, image.height)
        small = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - CROP) / 2), round((height - CROP) / 2)
    return normalized(np.asarray(small.crop((left, top, left + CROP, top + CROP))))


def opencv_by_hand(cv2: Any, filter_: str) -> Callable[[bytes], Tensor]:  # noqa: ANN401 - a module
    """OpenCV until the crop, with one of its filters (none is Pillow's), then numpy on planes."""
    cv2.setNumThreads(1)
    interpolation = getattr(cv2, filter_)

    def run(data: bytes) -> Tensor:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        width, height = fitted(pixels.shape[1], pixels.shape[0])
        small = cv2.resize(pixels, (width, height), interpolation=interpolation)
        left, top = round((width - CROP) / 2), round((height - CROP) / 2)
        return normalized(small[top : top + CROP, left : left + CROP])

    return run


def fitted(width: int, height: int) -> tuple[int, int]:
    """Width and height at which the shorter side has SIDE pixels."""
    longer = int(SIDE * max(width, height) / min(width, height))
    return (SIDE, longer) if width <= height else (longer, SIDE)


def normalized(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [height, width, 3] to normalized float32 [3, height, width]."""
    planes: Tensor = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    planes /= np.float32(255)
    planes -= MEAN[:, None, None]
    planes /= STD[:, None, None]
    return planes


def optional(name: str) -> Any:  # noqa: ANN401 - a module that may be missing
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@dataclass
class Built:
    """Artifacts whose model gives back what it is given, so that processing is all there is.

    Args:
        folder: where they are built.
    """

    folder: Path
    _open: list[Predictor] = field(default_factory=list[Predictor])

    def pipelines(self) -> Iterator[Pipeline]:
        """The generated Python with and without what makes it fast, and the fused graph."""
        plain = "generated Python, numpy and Pillow alone"
        yield self._python("generated Python", {})
        yield self._python(plain, {}, blocked=FAST)
        yield self._python(SCALED, {"scaled": True})
        yield self._python(f"{plain}, scaled", {"scaled": True}, blocked=FAST)
        yield self._graph()

    def close(self) -> None:
        """Close the engines."""
        for predictor in self._open:
            predictor.close()

    def _python(
        self,
        name: str,
        decode: Mapping[str, object],
        blocked: tuple[str, ...] = (),
    ) -> Pipeline:
        artifact, fault = self._build(PYTHON, decode)
        if fault:
            return Pipeline(name, None, fault)
        module = load(artifact / "processing.py", blocked)
        return Pipeline(name, lambda data: module.preprocess(data)["input"])

    def _graph(self) -> Pipeline:
        name = "fused graph, ONNX Runtime"
        artifact, fault = self._build(GRAPH, {})
        if fault:
            return Pipeline(name, None, fault)
        predictor = runtime.load(artifact)
        self._open.append(predictor)

        def run(data: bytes) -> Tensor:
            pixels = predictor.run([predictor.preprocess(data)])[0]["output"]
            return pixels.astype(np.float32, copy=False)

        return Pipeline(name, run)

    def _build(self, placement: str, decode: Mapping[str, object]) -> tuple[Path, str]:
        """An artifact, built where it is not there yet; and why it is not there now."""
        artifact = self.folder / "-".join([placement, *decode])
        fault = "" if artifact.exists() else build(artifact, spec(placement, decode))
        return artifact, fault


def load(file: Path, blocked: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - known by contract alone
    """The generated file as a module that finds none of the ``blocked`` libraries installed."""
    module = ModuleType("processing")
    module.__file__ = str(file)
    exec(compile(file.read_bytes(), file, "exec"), vars(module))  # noqa: S102 - as the runtime does
    vars(module).get("LIBRARIES", {}).update(dict.fromkeys(blocked))
    return module


def spec(placement: str, decode: Mapping[str, object]) -> dict[str, Any]:
    """The processing of ImageNet's classifiers, before a model that does nothing."""
    pixels = ["batch", 3, CROP, CROP]
    numbers = {"scale": 255, "mean": MEAN.round(3).tolist(), "std": STD.round(3).tolist()}
    target = {"engine": "onnxruntime", "device": "cpu", "placement": placement}
    return {
        "version": 1,
        "name": "pixels",
        "model": {"python": {"file": "pixels.py", "object": "Pixels"}},
        "weights": {"random": {"seed": 0}},
        "inputs": {"input": {"shape": pixels}},
        "outputs": {"output": {"shape": pixels}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 1, "max": 2}},
        "export": {"exporter": "torchscript"},
        "preprocess": [
            {"decode_image": {"mode": "RGB", **decode}},
            {"resize": {"shorter_side": SIDE}},
            {"center_crop": CROP},
            {"normalize": numbers},
            {"layout": "CHW"},
        ],
        "targets": [target],
    }


def build(artifact: Path, raw: Mapping[str, Any]) -> str:
    """Run ``deployc build``; "" or why it failed."""
    file = artifact.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(dict(raw)), "utf-8")
    (file.parent / "pixels.py").write_text(MODEL, "utf-8")
    command = [sys.executable, "-c", DEPLOYC, "build", "-q", str(file), "-o", str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no message"])[-1]


def levels(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """How far two results lie apart in grey levels of 255: worst and mean."""
    apart = np.abs(found - wanted) * (255 * STD[:, None, None])
    return float(apart.max()), float(apart.mean())


def versions() -> str:
    """The libraries that did the work, with their versions."""
    return ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
