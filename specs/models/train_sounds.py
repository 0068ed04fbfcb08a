"""Train ``SoundsNet`` on sounds that are drawn at random and write what its spec needs.

Run ``python specs/models/train_sounds.py`` (a minute on one core). It writes, below ``specs/``:

* ``weights/sounds.safetensors``: the state dict, in float16 to halve its size;
* ``samples/sounds/silence_0.wav`` ..: two held-out sounds of each kind, in several rates and
  formats, and ``samples/sounds/labels.csv`` (``file,class_index``).

Every sound is written as a WAV file and goes through the spec's own pre-processing, so that the
network is trained on what a server makes of it. The seeds and the thread count are fixed, so two
runs on one machine write the same bytes.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch and safetensors leave some of their own types unknown)

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from sounds import SoundsNet
from torch.nn import functional

from compiler.placement.golden_sounds import wav
from compiler.processing import generate
from specs.loader import load_spec

SPECS = Path(__file__).resolve().parents[1]
SAMPLES = SPECS / "samples" / "sounds"
SEED = 0
TRAINING, HELD_OUT = 6_000, 600
PER_KIND = 2
EPOCHS, BATCH, PEAK_RATE = 10, 64, 8e-3
SECONDS = (0.3, 0.55)  # the spec cuts at 0.5
OCTAVE = 2.0
PITCHES = (110.0, 1600.0)  # Hz, where a tone begins or ends
FORMATS: tuple[tuple[int, dict[str, Any]], ...] = (
    (8_000, {"bits": 8}),
    (8_000, {"bits": 16}),
    (11_025, {"bits": 24}),
    (16_000, {"bits": 16}),
    (8_000, {"bits": 32, "floats": True}),
    (22_050, {"bits": 16}),
)
"""Rates and kinds of samples that files are written in."""

Samples = NDArray[np.float64]
Rng = np.random.Generator


class Sounds(NamedTuple):
    """Spectrograms float32 [n, 32, 41] and their classes int64 [n]."""

    mels: torch.Tensor
    classes: torch.Tensor


# --- sounds: what each kind is, from t in seconds


def silence(t: Samples, rng: Rng) -> Samples:
    """Nothing but what ``recorded`` adds to every sound."""
    del rng
    return np.zeros(len(t))


def noise(t: Samples, rng: Rng) -> Samples:
    """White noise."""
    return rng.normal(0, 0.5, len(t))


def tone(t: Samples, rng: Rng) -> Samples:
    """One pitch, with some overtones."""
    return voice(np.full(len(t), pitch(rng)), t, rng)


def rising(t: Samples, rng: Rng) -> Samples:
    """A pitch that rises by one to two octaves."""
    way = np.linspace(0, rng.uniform(1, 2), len(t))
    return voice(pitch(rng) * OCTAVE**way, t, rng)


def falling(t: Samples, rng: Rng) -> Samples:
    """A pitch that falls by one to two octaves."""
    return rising(t, rng)[::-1]


def clicks(t: Samples, rng: Rng) -> Samples:
    """Short bursts, five to fifteen in a second."""
    every = rng.uniform(1 / 15, 1 / 5)
    since = (t + rng.uniform(0, every)) % every
    return np.exp(-since / 0.002) * rng.normal(0, 1, len(t))


KINDS: tuple[Callable[[Samples, Rng], Samples], ...] = (
    silence,
    noise,
    tone,
    rising,
    falling,
    clicks,
)
"""In the order of ``labels/sounds.txt``."""


def pitch(rng: Rng) -> float:
    """A pitch in Hz, evenly over the octaves."""
    low, high = PITCHES
    return low * (high / low) ** rng.uniform()


def voice(hertz: Samples, t: Samples, rng: Rng) -> Samples:
    """A sound of that pitch at each time; overtones are weaker."""
    phase = 2 * np.pi * np.cumsum(hertz) * (t[1] - t[0])
    second, third = (rng.uniform(0, 1) / n**2 for n in (2, 3))
    return np.sin(phase) + second * np.sin(2 * phase) + third * np.sin(3 * phase)


def recorded(kind: int, number: int, rng: Rng) -> bytes:
    """A sound of a kind as a file: some loudness, a little hiss, one of FORMATS."""
    rate, form = FORMATS[number % len(FORMATS)]
    t = np.arange(round(rng.uniform(*SECONDS) * rate)) / rate
    sound = KINDS[kind](t, rng)
    sound *= rng.uniform(0.1, 0.8) / max(float(np.abs(sound).max()), 1e-9)
    hiss = rng.normal(0, 10 ** rng.uniform(-4, -2.5), len(t))
    return wav(sound + hiss, rate, **form)


# --- training


def processing() -> ModuleType:
    """The spec's generated pre-processing, loaded."""
    spec = load_spec(SPECS / "sounds.yaml").spec.model_copy(update={"postprocess": ()})
    module = ModuleType("processing")
    text = generate(spec, {}).text
    exec(compile(text, "processing.py", "exec"), vars(module))  # noqa: S102 - generated here
    return module


def drawn(count: int, seed: int) -> tuple[list[bytes], NDArray[np.int64]]:
    """``count`` sounds as files, as many of each kind, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % len(KINDS)
    files = [recorded(int(kind), n // len(KINDS), rng) for n, kind in enumerate(classes)]
    return files, classes


def prepared(count: int, seed: int, preprocess: Callable[[bytes], Any]) -> Sounds:
    """The same, as the network takes them."""
    files, classes = drawn(count, seed)
    mels = np.stack([preprocess(file)["mels"] for file in files])
    return Sounds(torch.from_numpy(mels), torch.from_numpy(classes))


def train(sounds: Sounds) -> SoundsNet:
    """Fit a fresh network with Adam and a one-cycle rate."""
    torch.manual_seed(SEED)
    network = SoundsNet()
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-5)
    steps = EPOCHS * len(sounds.classes) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(sounds.classes), (BATCH,))
        loss = functional.cross_entropy(network(sounds.mels[chosen]), sounds.classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: {loss.item():.4f}")
    return network.eval()


# --- what came of it


def write_samples() -> None:
    """Write held-out sounds of each kind, with their classes."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED + 2)
    with (SAMPLES / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "class_index"])
        for kind, draw in enumerate(KINDS):
            for number in range(PER_KIND):
                name = f"{draw.__name__}_{number}.wav"
                (SAMPLES / name).write_bytes(recorded(kind, kind + number, rng))
                rows.writerow([name, kind])


def main() -> None:
    """Train, report how many held-out sounds are named right, write weights and samples."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    write_samples()
    preprocess = processing().preprocess
    network = train(prepared(TRAINING, SEED, preprocess))
    network = network.half().float()  # as it will be read from the file
    held_out = prepared(HELD_OUT, SEED + 1, preprocess)
    with torch.inference_mode():
        right = int((network(held_out.mels).argmax(1) == held_out.classes).sum())
    print(f"held out: {right} of {HELD_OUT} right")
    file = SPECS / "weights" / "sounds.safetensors"
    file.write_bytes(save({name: t.half() for name, t in network.state_dict().items()}))


if __name__ == "__main__":
    main()
