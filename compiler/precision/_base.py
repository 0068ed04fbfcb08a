"""What a conversion gets and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.tensors import Tensors
from specs.engines import Device, Precision
from specs.precision import Quantize

__all__ = ["Converted", "Request"]


@dataclass(frozen=True)
class Request:
    """One conversion.

    Args:
        graph: the portable fp32 graph; ``<name>.data`` may lie beside it.
        folder: where to write, empty.
        precision: what to convert to; not fp32.
        engine: name of the engine that will take the graph.
        quantize: how int8 is made.
        calibration: the calibration items, each as the graph's inputs at batch 1; read when called.
        excess: runs a graph file on the golden cases and gives the largest
            ``|found - reference| / (atol + rtol * |reference|)``, above 1 beyond tolerance,
            infinite where the graph gives NaN or cannot run. fp16 and bf16 are judged by a float32
            emulation, so that any engine on a CPU serves.
        golden: the inputs of the golden cases, read when called: overflows are seen in one run of
            each. Without it they are found by bisection alone.
        device: where the engine will run it.
    """

    graph: Path
    folder: Path
    precision: Precision
    engine: str
    quantize: Quantize
    calibration: Callable[[], Iterator[Tensors]]
    excess: Callable[[Path], float]
    golden: Callable[[], Iterator[Tensors]] | None = None
    device: Device = "cpu"


@dataclass(frozen=True)
class Converted:
    """The converted graph.

    Args:
        file: its name in the folder.
        kept: names of the nodes that stay in fp32 because they would be wrong otherwise.
        notes: what a person should be told.
    """

    file: str
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
