"""What serving costs, and what it wins: one table over HTTP through Ray and HAProxy.

    python bench/serving.py [--quick] [--rounds N] [--out bench] [--rivals FOLDER]

The ``--quick`` form takes about 4 minutes. Three questions:

1. One client, by a blocking socket: how much of a request's latency is not the engine's.
2. Saturation: items per second over those of a bare loop over the engine on the same cores. For
   both, a server has one model alone.
3. Open loop: right answers within the SLO per second at 50, 90, 120 and 200 % of the capacity,
   next to plain Ray Serve with ``serve.batch`` (grid-tuned), LitServe and BentoML. Latency counts
   from the moment at which a request was due. Every server runs the artifact's own processing and
   engine (``bench/rivals``); no two run at once, and rounds are interleaved.

Three models are played, the first two with random weights: MobileNetV2 in fp32, SLO 250 ms, and
ResNet-50 in int8, SLO 500 ms, in ONNX Runtime here; and an engine that takes a GPU's time, L(b) =
4 ms + 0.25 ms per item, SLO 50 ms (``bench/sleeping``: a plug-in engine that runs a small graph in
ONNX Runtime and sleeps for the rest). ``--stretch`` plays the latter in slow motion, all its times
and the SLO multiplied, by default by 16: at 1 its capacity is 3,360 requests per second, and on a
small machine HTTP and the load itself would be the limit.

The capacity is that of a bare loop over pre-processing, engine and post-processing, in batches of
the largest size that leaves the SLO room for two. LitServe and BentoML are no packages of this
project: ``pip install --target FOLDER litserve bentoml`` and ``--rivals FOLDER`` (by default the
folder ``rivals`` of the temporary folder), else they are left out and the table says so. A rival
that does not start, or gives no right answer within 30 s, is in the table as such.

Their settings: LitServe ``max_batch_size`` of that size, ``batch_timeout`` a twentieth of the SLO,
``timeout`` the longer SLO; BentoML the same size and ``max_latency_ms`` the SLO. Ray's
``max_ongoing_requests`` and ``max_queued_requests`` are capacity times SLO together; its
``max_batch_size``, ``batch_wait_timeout_s`` and whether the engine blocks the event loop come from
a short grid search in the first round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from _artifacts import Artifacts
from _child import ROOT
from _load import Ask, Closed, Open, Sent, send
from _players import PLAYERS, Deployc, PlainRay, Played, Player
from _serving_bodies import photo, tensors_ask
from _serving_table import (
    Beside,
    Outcome,
    Served,
    answered,
    beside,
    outcome,
)
from _serving_write import lines, write

from runtime.artifact import read_manifest
from runtime.profile import read_profile
from serve.law import Curve

SHARES = (0.5, 0.9, 1.2, 2.0)
SLO_MS = {"mobilenet_v2": 250.0, "resnet50_int8": 500.0, "sleeping": 50.0}
OPEN_SLOS = 8
"""An open loop counts so many SLOs at least."""
ITEMS = (256, 1024)
"""Items in a request of raw tensors."""
SETTLE_S = 30.0
SLOW_MS = 1e4
"""What a model without an SLO has to answer within, to be settled."""
LOOKS = 3
"""Loops that the capacity is the fastest of: the one that other work disturbed least."""
RIVALS = Path(tempfile.gettempdir()) / "rivals"
TUNED_AT, TUNED_SLOS = 0.9, 4
GRID_SIZES, GRID_WAITS = (0.25, 0.5, 1.0), (0.0, 0.05)
"""Shares of the capacity's batch size and of the SLO."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of each part."""

    rounds: int = 2
    one: float = 4.0
    saturated: float = 4.0
    slow: float = 12.0
    bare: float = 0.7
    warm_up: float = 0.5
    open: float = 2.5
    tuning: float = 1.2
    """0: knobs are not tuned, and the table says so."""


QUICK = Lengths(1, 1.0, 1.0, 3.0, 0.3, 0.3, 1.3, 0.0)


@dataclass(slots=True)
class Results:
    """All that was measured."""

    started: str
    load_before: tuple[float, float, float]
    models: list[Played] = field(default_factory=list[Played])
    beside: dict[str, list[Beside]] = field(default_factory=dict[str, list[Beside]])
    served: dict[str, list[Served]] = field(default_factory=dict[str, list[Served]])
    live: dict[str, dict[float, dict[str, list[Outcome | str]]]] = field(
        default_factory=dict[str, dict[float, dict[str, list[Outcome | str]]]]
    )
    """By model, load and server, for each round: what came back, or why there was no load."""
    knobs: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    versions: dict[str, str | None] = field(default_factory=dict[str, str | None])
    load_after: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seconds: float = 0.0


def bare(model: Played, sizes: Sequence[int], seconds: float, env: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """The rates without a server, from a process of its own (``bench/_bare.py``)."""
    with tempfile.NamedTemporaryFile() as body:
        Path(body.name).write_bytes(model.body)
        program = str(ROOT / "bench" / "_bare.py")
        command = [sys.executable, program, str(model.artifact), body.name, str(seconds)]
        done = subprocess.run(
            [*command, *map(str, sizes)],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout)


def largest_batch(artifact: Path, slo_ms: float) -> int:
    """The batch size with the best rate of those that fit twice into the SLO; by the profile."""
    manifest = read_manifest(artifact)
    profile = read_profile(artifact, manifest.variants[0].name)
    if profile is None:
        raise SystemExit(f"{artifact} has no profile")
    curve = Curve.of(profile, manifest.batch.max)
    fit = [b for b in range(1, manifest.batch.max + 1) if 2000 * curve.seconds(b) <= slo_ms]
    return max(fit or [1], key=lambda b: b / curve.seconds(b))


class Bench:
    """One run of everything."""

    def __init__(self, folder: Path, packages: Path, lengths: Lengths, stretch: float) -> None:
        self.folder = folder
        self.lengths = lengths
        self.artifacts = Artifacts(folder)
        started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self.results = Results(started, os.getloadavg())
        self.players = [kind(self.artifacts.env, packages) for kind in PLAYERS]
        self.results.versions = {each.name: each.version for each in self.players}
        self.digits = self._digits()
        self.resnet50 = self._image("resnet50", 0.0, "1,4,8")
        real = self._image("mobilenet_v2", SLO_MS["mobilenet_v2"], "1,4,8,16")
        int8 = self._image("resnet50_int8", SLO_MS["resnet50_int8"], "1,2,4,8,16")
        played = [self._sleeping(stretch), real, int8]
        self.results.models = [self._sized(each) for each in played]

    def run(self, told: Callable[[], object]) -> Results:
        """Every round; ``told`` after each server."""
        for number in range(self.lengths.rounds):
            found = self._bare_rates()
            for player in self.players:
                if player.version is not None:
                    log(f"round {number + 1}: {player.name}")
                    self._play(player, number, found)
                    self.results.load_after = os.getloadavg()
                    told()
        return self.results

    def _play(self, player: Player, number: int, found: dict[str, Any]) -> None:
        if isinstance(player, Deployc):
            self._alone(player, found)
        with ExitStack() as stack:
            server = player.serve(self.results.models, self.folder)
            try:
                url = stack.enter_context(server)
            except SystemExit as error:
                self._not_started(player, error)
                return
            for model in self.results.models:
                self._live(player, url, model, number)

    def _alone(self, player: Player, found: dict[str, Any]) -> None:
        """A server for each model: idle replicas of others would take a little of the cores."""
        for model in (self.digits, self.resnet50):
            with player.serve([model], self.folder) as url:
                self._settled(player, url, model)
                self._beside(player.ask(url, model), model, found)
                self._saturated(player.ask(url, model), model, found)

    def _not_started(self, player: Player, error: SystemExit) -> None:
        if isinstance(player, Deployc):
            raise error
        log(f"{player.name} did not start: {error}")
        for model in self.results.models:
            for share in SHARES:
                self._note(player, model, share, "did not start")

    def _live(self, player: Player, url: str, model: Played, number: int) -> None:
        """Every load; what a rival does not answer is noted, and the rest goes on."""
        ready = self._settled(player, url, model)
        if ready:
            send(player.ask(url, model), self._open(model, 0.5, seed=0, seconds=1.0))
        if ready and isinstance(player, PlainRay):
            self._tune(player, url, model)
        for share in SHARES:
            if not ready or not self._settled(player, url, model):
                self._note(player, model, share, f"no right answer in {SETTLE_S:g} s")
                continue
            plan = self._open(model, share, seed=100 * number + round(10 * share))
            found = outcome(send(player.ask(url, model), plan), plan)
            self._note(player, model, share, found)

    def _note(self, player: Player, model: Played, share: float, found: Outcome | str) -> None:
        table = self.results.live.setdefault(model.name, {})
        table.setdefault(share, {}).setdefault(player.name, []).append(found)

    def _settled(self, player: Player, url: str, model: Played) -> bool:
        """Whether it answers; without our own answers there is nothing to compare."""
        ask = player.ask(url, model)
        if settle(ask, model.slo_ms or SLOW_MS):
            return True
        if isinstance(player, Deployc):
            raise SystemExit(f"{ask.url} gave no right answer within {SETTLE_S:g} s")
        return False

    def _open(self, model: Played, share: float, seed: int, seconds: float | None = None) -> Open:
        slo_s = model.slo_ms / 1000
        warm_up = max(self.lengths.warm_up, slo_s) if seconds is None else 0.0
        long = warm_up + max(self.lengths.open, OPEN_SLOS * slo_s) if seconds is None else seconds
        return Open(share * model.capacity, long, model.slo_ms, seed, warm_up)

    def _tune(self, player: PlainRay, url: str, model: Played) -> None:
        """Once, in the first round: the best of a grid at 90 %, then blocking or threaded."""
        known = self.results.knobs.get(model.name)
        if known is None and self.lengths.tuning:
            known = self._best(player, url, model)
        elif known is None:
            known = knobs(model, 1.0, 0.0, threaded=False)
        self.results.knobs[model.name] = known
        _set(player, url, model, known)

    def _best(self, player: PlainRay, url: str, model: Played) -> dict[str, Any]:
        grid = [knobs(model, size, wait) for size in GRID_SIZES for wait in GRID_WAITS]
        tried = [(self._tried(player, url, model, each), each) for each in grid]
        score, best = max(tried, key=lambda pair: pair[0])
        threaded = {**best, "threaded": True}
        return threaded if self._tried(player, url, model, threaded) > score else best

    def _tried(
        self, player: PlainRay, url: str, model: Played, each: dict[str, Any]
    ) -> tuple[int, float]:
        """Answers in time; where equal, the lower median."""
        _set(player, url, model, each)
        settle(player.ask(url, model), model.slo_ms)
        seconds = max(self.lengths.tuning, TUNED_SLOS * model.slo_ms / 1000)
        plan = self._open(model, TUNED_AT, seed=1, seconds=seconds)
        found = outcome(send(player.ask(url, model), plan), plan)
        return found.in_time, -(found.p50_ms or 1e9)

    def _bare_rates(self) -> dict[str, Any]:
        seconds, env = self.lengths.bare, self.artifacts.env
        return {
            "digits": bare(self.digits, (1, 8, 32), seconds, env),
            "resnet50": bare(self.resnet50, (1, 4, 8), 2 * seconds, env),
        }

    def _beside(self, ask: Ask, model: Played, found: dict[str, Any]) -> None:
        made = beside(right(send(ask, Closed(1, self.lengths.one))), found[model.name]["p50_ms"])
        self.results.beside.setdefault(model.name, []).append(made)

    def _saturated(self, ask: Ask, model: Played, found: dict[str, Any]) -> None:
        few, many = Closed(4, self.lengths.saturated), Closed(32, self.lengths.saturated)
        picture = f"{model.name}, a picture a request"
        runs = [(picture, ask, 1, Closed(16, self.lengths.slow))]
        if model is self.digits:
            raw = [(items, tensors_ask(ask.url, model, items)) for items in ITEMS]
            runs = [(f"digits, {n} tensors a request", each, n, few) for n, each in raw]
            runs.append((picture, ask, 1, many))
        rates = found[model.name]
        best, whole = max(rates["engine"].values()), max(rates["pipeline"].values())
        for name, each, items, plan in runs:
            rate = answered(right(send(each, plan)), plan, items)
            self.results.served.setdefault(name, []).append(Served(rate, best, whole))

    def _digits(self) -> Played:
        log("building digits")
        out = self.artifacts.built("digits", random=False, profile="1,8,32")
        body = (ROOT / "specs" / "samples" / "digits" / "digit_3.png").read_bytes()
        return Played("digits", out, body, image=True, want='"three"', slo_ms=0.0)

    def _image(self, name: str, slo_ms: float, profile: str) -> Played:
        log(f"building {name}")
        build = self.artifacts.int8 if name.endswith("_int8") else self.artifacts.built
        out = build(name, profile=profile)
        model = Played(name, out, photo(), image=True, want="", slo_ms=slo_ms)
        answer = json.loads(bare(model, [1], 0.0, self.artifacts.env)["answer"])
        return replace(model, want=f'"{answer["classes"][0]["label"]["en"]}"')

    def _sleeping(self, stretch: float) -> Played:
        log("building the sleeping engine's artifact")
        out = self.artifacts.sleeping(stretch)
        slo = stretch * SLO_MS["sleeping"]
        model = Played("sleeping", out, b"[1.0,2.0]", image=False, want="", slo_ms=slo)
        answer = json.loads(bare(model, [1], 0.0, self.artifacts.env)["answer"])
        return replace(model, want=str(answer["outputs"]["Y"][0]))

    def _sized(self, model: Played) -> Played:
        """With its capacity and the batch size that gives it."""
        size = largest_batch(model.artifact, model.slo_ms)
        runs = [bare(model, [size], self.lengths.bare, self.artifacts.env) for _ in range(LOOKS)]
        rate = max(each["pipeline"][str(size)] for each in runs)
        return replace(model, capacity=rate, max_batch=size)


def knobs(model: Played, size: float, wait: float, *, threaded: bool = False) -> dict[str, Any]:
    """Ray's, from shares of the capacity's batch size and of the SLO."""
    most = max(1, round(size * model.max_batch))
    seconds = wait * model.slo_ms / 1000
    return {"max_batch_size": most, "batch_wait_timeout_s": seconds, "threaded": threaded}


def _set(player: PlainRay, url: str, model: Played, each: dict[str, Any]) -> None:
    right(send(player.tune(url, model, each), Closed(1, 0.0)))


def right(sent: list[Sent]) -> list[Sent]:
    """What came back, where all of it is right."""
    if not sent:
        raise SystemExit("nothing came back")
    if wrong := [each.status for each in sent if not each.right]:
        raise SystemExit(f"{len(wrong)} wrong answers of {len(sent)}, the first with {wrong[0]}")
    return sent


def settle(ask: Ask, slo_ms: float) -> bool:
    """Wait until a server answers within the SLO: it has started, or got rid of what it held.

    One that answers, but slower, is left to the load that follows. False: it gave no right answer
    at all within ``SETTLE_S``.
    """
    end, seen, answers = time.monotonic() + SETTLE_S, Counter[int](), False
    while time.monotonic() < end:
        sent = send(ask, Closed(1, 0.05))
        seen.update(each.status for each in sent)
        answers = answers or any(each.right for each in sent)
        if all(each.right and 1000 * (each.took or 1e9) <= slo_ms for each in sent):
            return True
        time.sleep(0.2)
    what = f"answers, but not within {slo_ms:g} ms" if answers else "gives no right answer"
    log(f"{ask.url} {what}; HTTP statuses: {dict(seen)}")
    return answers


def log(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round, nothing tuned")
    parser.add_argument("--out", type=Path, help="write serving.md and serving.json here")
    parser.add_argument("--rivals", type=Path, default=RIVALS, help="folder of their packages")
    parser.add_argument("--stretch", type=float, default=16.0, help="of the sleeping engine")
    parser.add_argument("--rounds", type=int, default=0, help="in place of the usual number")
    arguments = parser.parse_args()
    lengths, stretch = QUICK if arguments.quick else Lengths(), arguments.stretch
    lengths = replace(lengths, rounds=arguments.rounds or lengths.rounds)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.rivals.resolve(), lengths, stretch)

        def told() -> None:
            bench.results.seconds = time.monotonic() - began
            if arguments.out:
                write(bench.results, lengths, stretch, arguments.out)

        bench.run(told)
    print("\n".join(lines(bench.results, lengths, stretch)))


if __name__ == "__main__":
    main()
