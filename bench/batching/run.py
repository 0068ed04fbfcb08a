"""The batching law against its rivals, in virtual time: writes the table and the plot.

``python bench/batching/run.py`` takes about half an hour of one core; ``--only closed`` plays the
scenarios whose name holds a word, and keeps the results of the others. Rivals are tuned for every
scenario on seeds of their own, before the seeds of the table are played; the law has no knob.

BentoML is no package of this project: ``pip install --target FOLDER bentoml`` and ``--rivals
FOLDER`` (by default the folder ``rivals`` of the temporary folder). Where it is not found, the run
says so, and the table has no such column unless its results are there from before.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from cork import CORK, RIVALS, cork_version, use
from scenarios import SCENARIOS, Scenario
from simulator import Length
from table import Result, read_results, write_plot, write_results, write_table
from tuning import PLAYERS, RAY, play, tune

HERE = Path(__file__).parent


def versions(packages: Path) -> dict[str, str | None]:
    """Of the packages whose code plays; None where one is not installed."""
    return {RAY: importlib.metadata.version("ray"), CORK: cork_version(packages)}


def measure(player: str, scenario: Scenario, seeds: int, length: Length) -> Result:
    """Tune, then play every seed."""
    began = time.process_time()
    knobs = tune(player, scenario, length)
    outcomes = [play(knobs, scenario, seed, length) for seed in range(1, seeds + 1)]
    latencies = sorted(each for outcome in outcomes for each in outcome.latencies)
    batches = max(1, sum(outcome.batches for outcome in outcomes))
    return Result(
        scenario=scenario.name,
        capacity=scenario.capacity,
        player=player,
        knobs=str(knobs),
        goodputs=[outcome.goodput for outcome in outcomes],
        late=sum(outcome.late for outcome in outcomes),
        shed=sum(outcome.shed for outcome in outcomes),
        batch=sum(outcome.items for outcome in outcomes) / batches,
        p50_ms=1000 * latencies[len(latencies) // 2] if latencies else 0.0,
        cpu_s=round(time.process_time() - began, 2),
        seconds=length.seconds,
    )


def main(arguments: list[str]) -> None:
    """Play, and write after every scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of virtual time per run")
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--player", default="", help="columns whose name holds this")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the table and the plot")
    parser.add_argument("--rivals", type=Path, default=RIVALS, help="folder of BentoML's package")
    options = parser.parse_args(arguments)
    length = Length(options.warm_up, options.seconds)
    found = versions(options.rivals)
    players = [each for each in PLAYERS if found.get(each, "") is not None]
    if CORK in players:
        use(options.rivals)
    else:
        print(f"{CORK} is not played: no bentoml in {options.rivals}", file=sys.stderr)
    kept = options.out / "results.json"
    results = read_results(kept)
    for scenario in SCENARIOS:
        if options.only in scenario.name:
            for player in (each for each in players if options.player in each):
                result = measure(player, scenario, options.seeds, length)
                result = replace(result, version=found.get(player) or "")
                results[scenario.name, player] = result
                print(json.dumps(result.line), flush=True)
            write_results(results, kept)
    write_table(results, options.out / "README.md")
    write_plot(results, options.out / "goodput.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
