"""Where the processor time of a server goes, by process: idle, and at saturation.

    python bench/background.py [--rounds N] [--write]

`deployc serve` with digits is started as it is, and with Ray's own values of what it sets to save
time: how often Ray Serve looks at its replicas, and HAProxy's lines, two a request. Rounds are
interleaved. A share is of one core; what takes less than 0.002 in every column is left out. Linux.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from _artifacts import Artifacts
from _child import ROOT
from _load import Closed, send
from _players import Deployc, Played
from _serving_table import answered
from serving import right, settle

OUT = Path(__file__).with_suffix(".md")
MARK = "DEPLOYC_BENCH_RUN"
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS: dict[str, dict[str, str]] = {
    "deployc's": {},
    "Ray's": {
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "1",
        "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:514",
    },
}
REST_S, IDLE_S = 5.0, 15.0
BUSY = Closed(32, 6.0)
SLOW_MS = 1e4
LEAST = 0.002
Shares = dict[str, float]


def name_of(command: str) -> str:
    """A process's name, from its command line."""
    words = command.split("\0")
    if words[0].startswith("ray::"):
        return words[0].split()[0].partition(".")[0]
    scripts = [word for word in words[1:] if word.endswith(".py")]
    script = scripts[0] if scripts and "python" in words[0] else words[0]
    if "-m" in words[:4]:
        script = words[words.index("-m") + 1]
    return Path(script).name


def seconds(mark: str) -> dict[tuple[int, str], float]:
    """Processor time so far of every process that carries the mark, by id and name."""
    found: dict[tuple[int, str], float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() not in (folder / "environ").read_bytes():
                continue
            numbers = (folder / "stat").read_text().rpartition(")")[2].split()
            key = int(folder.name), name_of((folder / "cmdline").read_text())
            found[key] = (int(numbers[11]) + int(numbers[12])) / TICKS
    return found


def shares(before: dict[tuple[int, str], float], mark: str, began: float) -> Shares:
    """Of one core, by name, since ``began``."""
    long = time.perf_counter() - began
    found: Shares = defaultdict(float)
    for key, now in seconds(mark).items():
        found[key[1]] += (now - before.get(key, 0.0)) / long
    return dict(found)


@dataclass(frozen=True, slots=True)
class Run:
    """One server: shares when idle and at saturation, and answers per second then."""

    idle: Shares
    busy: Shares
    rate: float


def played(artifact: Path, env: dict[str, str]) -> Run:
    """Start a server, leave it alone, and load it."""
    mark = uuid.uuid4().hex
    body = (ROOT / "specs" / "samples" / "digits" / "digit_3.png").read_bytes()
    model = Played("digits", artifact, body, image=True, want='"three"', slo_ms=0.0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        player = Deployc({**env, MARK: mark}, Path(name))
        ask = player.ask(stack.enter_context(player.serve([model], Path(name))), model)
        settle(ask, SLOW_MS)
        time.sleep(REST_S)
        before, began = seconds(mark), time.perf_counter()
        time.sleep(IDLE_S)
        idle = shares(before, mark, began)
        before, began = seconds(mark), time.perf_counter()
        rate = answered(right(send(ask, BUSY)), BUSY)
        return Run(idle, shares(before, mark, began), rate)


def table(found: dict[str, list[Run]]) -> list[str]:
    """A row for each process, and their sum."""
    parts = {
        f"{state}, {name} settings": [run.idle if state == "idle" else run.busy for run in runs]
        for state in ("idle", "at saturation")
        for name, runs in found.items()
    }
    names = {process for column in parts.values() for run in column for process in run}
    rows = {
        name: [
            statistics.median([run.get(name, 0.0) for run in column]) for column in parts.values()
        ]
        for name in names
    }
    rows = {name: row for name, row in rows.items() if max(row) >= LEAST}
    rows = dict(sorted(rows.items(), key=lambda pair: -max(pair[1])))
    rows["all of them"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    head = [f"| process | {' | '.join(parts)} |", f"|---|{'---:|' * len(parts)}"]
    shown = {name: " | ".join(f"{share:.3f}" for share in row) for name, row in rows.items()}
    return [*head, *(f"| {name} | {cells} |" for name, cells in shown.items())]


def lines(found: dict[str, list[Run]], load: tuple[float, float, float]) -> list[str]:
    """The table with what it was made of, and the rates."""
    ours, rays = ([run.rate for run in runs] for runs in found.values())
    ratios = [one / other for one, other in zip(ours, rays, strict=True)]
    written = f"Written by `python bench/background.py --rounds {len(ours)}`."
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    before = ", ".join(f"{each:.1f}" for each in load)
    rates = f"{statistics.median(ours):.0f} with deployc's settings, {statistics.median(rays):.0f}"
    more = f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
    return [
        "# Where a server's processor time goes",
        "",
        f"{written} {machine}; load average before: {before}.",
        "Shares of one core, medians over the rounds; the load itself is not among them.",
        "",
        *table(found),
        "",
        f"Answers per second at saturation, a picture a request: {rates} with Ray's; {more}.",
    ]


def main() -> None:
    """Measure every round and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}, too")
    arguments = parser.parse_args()
    if not Path("/proc/self/environ").exists():
        raise SystemExit("bench/background.py reads /proc, which is Linux's")
    found: dict[str, list[Run]] = {name: [] for name in SETTINGS}
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        artifact = Artifacts(Path(folder)).built("digits", random=False, profile="1,8,32")
        for number in range(arguments.rounds):
            for name, env in SETTINGS.items():
                print(f"round {number + 1}: {name} settings", file=sys.stderr, flush=True)
                found[name].append(played(artifact, env))
    text = "\n".join(lines(found, load))
    print(text)
    if arguments.write:
        OUT.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
