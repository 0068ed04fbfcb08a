"""JPEG decoders on one core: which one, and whether its pixels are Pillow's.

    python bench/decoders.py [--quick] [--write] [--rivals FOLDER]

Every decoder gets the bytes of a JPEG (baseline, 4:2:0, quality 90) and gives uint8 RGB; Pillow is
what the others are compared with, in speed and in pixels. Rounds, stretches and ratios are those of
``bench/processing.py``: all decoders work in every round, in an order that changes, and ratios are
taken within stretches of rounds.

OpenCV and PyTurboJPEG are no packages of this project: ``pip install --target FOLDER --no-deps
opencv-python-headless PyTurboJPEG`` and ``--rivals FOLDER`` (by default the folder ``rivals`` of
the temporary folder). What cannot be had is named in the table. The ``--quick`` form takes about 10
seconds and is for trying out; ``--write`` puts the table into ``bench/decoders.md``.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from processing import PARTS, ROUNDS, SECONDS, SEED, compared, one_core, quick, rounds

TABLE = Path(__file__).with_suffix(".md")
RIVALS = Path(tempfile.gettempdir()) / "rivals"
BASE = "Pillow"
QUICK_SECONDS = 1.0
HEAD = "| decoder | images/s | times Pillow's | off by: worst, mean |"
Decode = Callable[[bytes], NDArray[np.uint8]]
ABOUT = """\
# JPEG decoders on one core

Written by `python bench/decoders.py --write`; nothing here is typed by hand. The bytes of a JPEG
(baseline, 4:2:0, quality 90) become uint8 RGB [height, width, 3].

- **images/s** are of one core, in CPU time. **Times Pillow's** is the ratio of rates within one of
  {parts} stretches of {rounds} rounds or more: median, and lowest to highest.
- **Off by** is the largest difference from Pillow's pixels, in grey levels of 255, and the mean.
- **Pillow, draft** lets the decoder make half of each side: other pixels, and fewer of them.

Machine: {machine}, one core of it.
Versions: {versions}.
"""


@dataclass(frozen=True)
class Decoder:
    """One way to decode, or why it cannot be had here."""

    name: str
    decode: Decode | None = None
    fault: str = ""


@dataclass(frozen=True)
class Row:
    """One decoder on one picture; ``rate`` is 0 where it did not run, which ``fault`` explains."""

    name: str
    rate: float = 0.0
    ratio: tuple[float, float, float] = (0.0, 0.0, 0.0)
    off: str = ""
    fault: str = ""


def pillow(data: bytes) -> NDArray[np.uint8]:
    """Pillow, as ``decode_image`` has it where no faster library is installed."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def pillow_draft(data: bytes) -> NDArray[np.uint8]:
    """Pillow, with the decoder's own halving."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(image.convert("RGB"))


def _simplejpeg() -> Decode:
    library: Any = import_module("simplejpeg")
    return lambda data: library.decode_jpeg(data, "RGB")


def _opencv() -> Decode:
    library: Any = import_module("cv2")
    library.setNumThreads(1)

    def decode(data: bytes) -> NDArray[np.uint8]:
        pixels = library.imdecode(np.frombuffer(data, np.uint8), library.IMREAD_COLOR)
        return library.cvtColor(pixels, library.COLOR_BGR2RGB)

    return decode


def _torchvision() -> Decode:
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    library: Any = import_module("torchvision.io")
    mode: Any = library.ImageReadMode.RGB

    def decode(data: bytes) -> NDArray[np.uint8]:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return library.decode_jpeg(buffer, mode).permute(1, 2, 0).numpy()

    return decode


def _turbojpeg() -> Decode:
    library: Any = import_module("turbojpeg")
    decoder = library.TurboJPEG()  # raises where the C library is not installed
    return lambda data: decoder.decode(data, pixel_format=library.TJPF_RGB)


FOUND: dict[str, Callable[[], Decode]] = {
    "simplejpeg": _simplejpeg,
    "OpenCV": _opencv,
    "torchvision.io": _torchvision,
    "PyTurboJPEG": _turbojpeg,
}
"""What opens each library."""
PACKAGES = ("pillow", "simplejpeg", "opencv-python-headless", "torchvision", "PyTurboJPEG")


def decoders() -> list[Decoder]:
    """Every decoder, Pillow first."""
    own = [Decoder(BASE, pillow), Decoder("Pillow, draft", pillow_draft)]
    return [*own, *(opened(name, make) for name, make in FOUND.items())]


def opened(name: str, make: Callable[[], Decode]) -> Decoder:
    """The decoder; what its library raises where it cannot be had is kept, not raised."""
    try:
        return Decoder(name, make())
    except Exception as error:  # noqa: BLE001 - foreign libraries raise what they like when loaded
        return Decoder(name, fault=str(error).partition("\n")[0])


def off(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> str:
    """The largest and the mean difference; of another size, its sides."""
    if found.shape != wanted.shape:
        return f"{found.shape[1]}x{found.shape[0]} pixels"
    gap = np.abs(found.astype(np.int16) - wanted.astype(np.int16))
    return f"{gap.max()}, {gap.mean():.3f}"


def measure(every: list[Decoder], data: bytes, least: int, seconds: float) -> list[Row]:
    """Every decoder on one picture."""
    runs = {each.name: each.decode for each in every if each.decode}
    times = rounds(runs, data, least, seconds)
    wanted, rows = runs[BASE](data), list[Row]()
    for each in every:
        if each.decode is None:
            rows.append(Row(each.name, fault=each.fault))
            continue
        mine = times[each.name]
        rate = len(quick(mine)) / sum(quick(mine))
        ratio = compared(mine, times[BASE])
        rows.append(Row(each.name, rate, ratio, off(each.decode(data), wanted)))
    return rows


def table(image: str, size: int, rows: list[Row]) -> list[str]:
    """Markdown: a heading for the picture, and a line for each decoder."""
    lines = [f"## {image}, {size:,} bytes", "", HEAD, "|---|---:|---:|---:|"]
    for row in rows:
        if not row.rate:
            lines.append(f"| {row.name} | not run: {row.fault} | | |")
            continue
        middle, low, high = row.ratio
        speed = f"**{middle:.2f}** ({low:.2f} to {high:.2f})"
        lines.append(f"| {row.name} | {row.rate:,.0f} | {speed} | {row.off} |")
    return [*lines, ""]


def versions() -> str:
    """Of the packages that are here."""
    found: list[str] = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def page(least: int, seconds: float) -> str:
    """The results as Markdown."""
    from processing_pipelines import synthetic

    from runtime.machine import machine

    about = {"parts": PARTS, "rounds": least, "machine": machine(), "versions": versions()}
    lines, every = [ABOUT.format(**about)], decoders()
    for name, data in synthetic(SEED).items():
        lines += table(f"{name}, drawn", len(data), measure(every, data, least, seconds))
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short run, for trying out")
    parser.add_argument("--write", action="store_true", help="write bench/decoders.md")
    parser.add_argument("--rivals", type=Path, default=RIVALS, help="folder of further packages")
    given = parser.parse_args()
    if given.quick and given.write:
        parser.error("--write takes a full run: leave --quick away")
    sys.path.append(str(given.rivals.resolve()))
    one_core()
    text = page(PARTS, QUICK_SECONDS) if given.quick else page(ROUNDS, SECONDS)
    if given.write:
        TABLE.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
