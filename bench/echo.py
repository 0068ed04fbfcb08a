"""The ingress table: the same 27 KB through every server, and nothing computed behind them.

    python bench/echo.py [--quick] [--out bench/echo.md] [--rivals FOLDER]

The ``--quick`` form takes about 2 minutes, the whole about 15. Each server reads the whole body,
27,648 bytes, and answers ``{"bytes": 27648}``: bare uvicorn (an ASGI function, one worker),
LitServe (no batches) and BentoML, both with the raw body and one worker, and one Ray Serve
application twice: behind Ray's Python proxy, and behind HAProxy with the settings of `deployc
serve`. The last is this project's ingress alone. Both have the rest of these settings, no access
log among them: Ray's proxy without them would be slower.

The last server is `deployc serve` with a model: the same bytes as 6,912 float32 in a ``.npy`` file
(its header is 128 bytes more), summed up by ONNX Runtime. Guard, reading, batching, engine and
answer are in its figures, and in nobody else's.

One server runs at a time; a round has all of them one after the other. The load comes from another
process with keep-alive connections, and every answer is checked. On a small machine the clients
take cores from the server: read the ratios, not the rates. Rivals are found as for
``bench/serving.py``; those that are missing, or fail, are in the table as such.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _child import ROOT, child, deployc, serving
from _load import Ask, Closed, send
from _players import installed, with_path
from _serving_table import answered, table_head
from _serving_write import busy
from serving import RIVALS, SLOW_MS, log, right, settle

from serve.environment import free_port

__all__ = ["SERVERS", "Bench", "Results", "Server", "lines"]

PROGRAMS = ROOT / "bench" / "rivals"
CLIENTS = (1, 8, 32, 64)
COUNT = 6912
"""Numbers in the body: 27,648 bytes."""
LARGEST = 64
WARM_S = 0.3
READY = r"serving at (\S+)"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Rounds, and the seconds of one load."""

    rounds: int = 5
    seconds: float = 3.0


QUICK = Lengths(1, 1.2)


@dataclass(frozen=True, slots=True)
class Server:
    """One row of the table."""

    name: str
    package: str
    """The distribution whose version is told."""
    program: str = ""
    """Of ``bench/rivals``; "" for `deployc serve`."""
    options: tuple[str, ...] = ()
    path: str = "/echo"
    rival: bool = False
    """Whether the package comes from the folder of rivals."""

    def version(self, packages: Path) -> str | None:
        """Of its package; None where that is not installed."""
        if self.rival:
            return installed(self.package, packages)
        return importlib.metadata.version(self.package)


BASE = Server("Ray's Python proxy", "ray", "echo_ray.py", ("proxy",))
SERVERS = (
    BASE,
    Server("deployc's ingress alone (HAProxy)", "ray-haproxy", "echo_ray.py", ("haproxy",)),
    Server("deployc, with a model", "deployc", path="/models/sum/predict"),
    Server("bare uvicorn", "uvicorn", "echo_uvicorn.py"),
    Server("LitServe", "litserve", "echo_lit.py", rival=True),
    Server("BentoML", "bentoml", "echo_bento.py", rival=True),
)


@dataclass(slots=True)
class Results:
    """All that was measured."""

    started: str
    load_before: tuple[float, float, float]
    lengths: Lengths
    versions: dict[str, str | None]
    """By server; None: not installed."""
    rates: dict[str, dict[int, list[float | str]]] = field(
        default_factory=dict[str, dict[int, list[float | str]]]
    )
    """By server and clients, for each round: answers per second, or why there are none."""
    load_after: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seconds: float = 0.0

    def note(self, server: Server, clients: int, found: float | str) -> None:
        """What one load found."""
        self.rates.setdefault(server.name, {}).setdefault(clients, []).append(found)


def numbers() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Whole ones, so that their sum is exact in any order."""
    return np.random.default_rng(0).integers(0, 256, COUNT).astype(np.float32)


class Bench:
    """One run of everything, in a folder of its own."""

    def __init__(self, folder: Path, packages: Path, lengths: Lengths) -> None:
        self.folder = folder
        self.packages = packages
        self.lengths = lengths
        started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        versions = {each.name: each.version(packages) for each in SERVERS}
        self.results = Results(started, os.getloadavg(), lengths, versions)

    def run(self, told: Callable[[], object]) -> Results:
        """Every round; ``told`` after each server."""
        for number in range(self.lengths.rounds):
            for server in SERVERS:
                if self.results.versions[server.name] is not None:
                    log(f"round {number + 1}: {server.name}")
                    self.play(server)
                    self.results.load_after = os.getloadavg()
                    told()
        return self.results

    def play(self, server: Server) -> None:
        """One round of one server; what it does not answer is noted, and the run goes on."""
        left, why = list(CLIENTS), "did not start"
        try:
            with self._serve(server) as url:
                why = "no right answer"
                settled = settle(self._ask(server, url), SLOW_MS)
                while left and settled:
                    self.results.note(server, left[0], self._rate(server, url, left[0]))
                    left.pop(0)
        except (SystemExit, subprocess.SubprocessError, OSError) as error:
            log(f"{server.name}: {why}: {error}")
        for clients in left:
            self.results.note(server, clients, why)

    def _rate(self, server: Server, url: str, clients: int) -> float | str:
        """Answers per second, all of them right."""
        ask, plan = self._ask(server, url), Closed(clients, self.lengths.seconds)
        try:
            send(ask, Closed(clients, WARM_S))
            return answered(right(send(ask, plan)), plan) or "too few answers"
        except SystemExit as error:
            found = str(error)
        except subprocess.TimeoutExpired:
            found = "no end in time"
        log(f"{server.name}, {clients} clients: {found}")
        return found

    def _ask(self, server: Server, url: str) -> Ask:
        if server.program:
            body = numbers().tobytes()
            return Ask(url + server.path, body, "application/octet-stream", f"{len(body)}}}")
        file = io.BytesIO()
        np.save(file, numbers())
        want = f"{numbers().sum():.1f}"
        return Ask(url + server.path, file.getvalue(), "application/x-npy", want)

    def _serve(self, server: Server) -> AbstractContextManager[str]:
        if not server.program:
            return serving([self._application()], self.folder)
        env = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        if server.rival:
            home = str(self.folder / "bentoml")
            env = with_path(env, self.packages) | {"BENTOML_HOME": home}
        program = str(PROGRAMS / server.program)
        command = [sys.executable, program, str(free_port()), *server.options]
        return child(command, READY, with_path(env, PROGRAMS))

    def _application(self) -> dict[str, object]:
        """The model behind `deployc serve`, built where it is not there yet."""
        artifact = self.folder / "sum"
        if not artifact.exists():
            log("building the model")
            build(artifact)
        models = [{"artifact": str(artifact), "name": "sum"}]
        return {"name": "echo", "import_path": "serve.app:build", "args": {"models": models}}


def build(artifact: Path) -> None:
    """The artifact of a graph that sums up each item, with its profile."""
    graph, spec = artifact.with_suffix(".onnx"), artifact.with_suffix(".yaml")
    write_graph(graph)
    about = {
        "version": 1,
        "name": "sum",
        "model": {"onnx": str(graph)},
        "inputs": {"X": {"shape": ["batch", COUNT]}},
        "outputs": {"Y": {"shape": ["batch", 1]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 8, "max": LARGEST}},
        "targets": [{"engine": "onnxruntime", "device": "cpu"}],
    }
    spec.write_text(json.dumps(about), "utf-8")  # JSON is YAML
    deployc("build", "-q", "-o", str(artifact), str(spec))
    deployc("profile", str(artifact), "--batches", f"1,8,{LARGEST}", "--seconds", "0.3", "-q")


def write_graph(file: Path) -> None:
    """``Y = ReduceSum(X)`` over the numbers of each item."""
    from onnx import TensorProto, helper, numpy_helper

    about = helper.make_tensor_value_info
    axis = numpy_helper.from_array(np.array([1], np.int64), name="axis")
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["X", "axis"], ["Y"])],
        "sum",
        [about("X", TensorProto.FLOAT, ["batch", COUNT])],
        [about("Y", TensorProto.FLOAT, ["batch", 1])],
        [axis],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    file.write_bytes(model.SerializeToString(deterministic=True))


def lines(results: Results) -> list[str]:
    """The page."""
    found = ["# Echo: what an ingress costs", "", *_about(results), ""]
    found += table_head(["server", *(f"{n} client{'s' * (n > 1)}" for n in CLIENTS)])
    return found + [_row(results, server) for server in SERVERS]


def _about(results: Results) -> list[str]:
    lengths = results.lengths
    rounds = f"{lengths.rounds} round{'s' * (lengths.rounds > 1)} of {lengths.seconds:g} s"
    written = f"Written by `python bench/echo.py`, {results.started}, {results.seconds:.0f} s"
    before, after = (
        ", ".join(f"{each:.1f}" for each in load)
        for load in (results.load_before, results.load_after)
    )
    versions = {each.package: results.versions[each.name] for each in SERVERS}
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    found = [
        f"{written}, {os.cpu_count()} cores, {rounds}.",
        f"Ratios to {BASE.name} in the same round: median, the range over the rounds in square",
        "brackets, and the median rate, answers per second, in round ones. Every server reads",
        '27,648 bytes and answers `{"bytes": 27648}`; "deployc, with a model" sums them up as',
        "6,912 float32 through its whole path, which nobody else does.",
        f"Load average (1, 5, 15 minutes) before: {before}; after, by the bench itself: {after}.",
        f"{told}.",
    ]
    if busy(results.load_before):
        found.append("**The machine was busy with other work before the run: ratios are rough.**")
    return found


def ours_failed(results: Results) -> list[str]:
    """Servers that this project starts by itself and that gave no figure somewhere."""
    mine = [each.name for each in SERVERS if not each.rival]
    return [
        name
        for name in mine
        if any(isinstance(f, str) for found in results.rates.get(name, {}).values() for f in found)
    ]


def _row(results: Results, server: Server) -> str:
    cells = ["not installed", *[""] * (len(CLIENTS) - 1)]
    if results.versions[server.name] is not None:
        mine, base = (results.rates.get(name, {}) for name in (server.name, BASE.name))
        cells = [cell(mine.get(n, []), base.get(n, [])) for n in CLIENTS]
    return f"| {server.name} | {' | '.join(cells)} |"


def cell(mine: Sequence[float | str], base: Sequence[float | str]) -> str:
    """Ratio, its range, the rate, and in how many rounds there was none."""
    rates = [each for each in mine if isinstance(each, float)]
    faults = [each for each in mine if isinstance(each, str)]
    if not rates:
        return faults[0] if faults else ""
    words = f"; {faults[0]}: {len(faults)} of {len(mine)} rounds" if faults else ""
    return f"{_ratio(mine, base)}({statistics.median(rates):.0f}/s){words}"


def _ratio(mine: Sequence[float | str], base: Sequence[float | str]) -> str:
    """Round by round; nothing where no round has both."""
    both = zip(mine, base, strict=False)
    found = [a / b for a, b in both if isinstance(a, float) and isinstance(b, float) and b > 0]
    if not found:
        return ""
    middle = f"{statistics.median(found):.2f} "
    return middle if len(found) == 1 else f"{middle}[{min(found):.2f} to {max(found):.2f}] "


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path, help="write the page here, as Markdown")
    parser.add_argument("--rivals", type=Path, default=RIVALS, help="folder of their packages")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lengths = QUICK if arguments.quick else Lengths()
        bench = Bench(Path(folder), arguments.rivals.resolve(), lengths)

        def told() -> None:
            bench.results.seconds = time.monotonic() - began
            if arguments.out:
                arguments.out.write_text("\n".join(lines(bench.results)) + "\n", "utf-8")

        bench.run(told)
    print("\n".join(lines(bench.results)))
    if failed := ours_failed(bench.results):
        raise SystemExit(f"without figures in some round: {', '.join(failed)}")


if __name__ == "__main__":
    main()
