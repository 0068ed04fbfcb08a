"""``deployc simulate``: how many replicas for this traffic and SLO."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from runtime.artifact import check_files, choose_variant, read_manifest
from serve.oip_parameters import MAX_TIMEOUT_S
from serve.simulate import P99, Result, Router, Setup, measured, play, smallest
from serve.traces import Request, poisson, read_trace
from serve.tuning import Options, Tuning, profile_of
from specs.errors import ArtifactError, ServeError
from specs.manifest import Variant
from specs.profile import Profile

__all__ = ["NOT_SIMULATED", "simulate"]

NOT_SIMULATED = (
    "pre- and post-processing",
    "the network",
    "replicas that compete for one machine's cores or GPU (the profile had it alone)",
    "replicas that start or fail",
)
MOST = 1000
SECONDS = 60.0
MAX_MS = 1000 * MAX_TIMEOUT_S
PIPE_WIDTH = 200
POSITIVE = click.FloatRange(min=0, min_open=True)
COLUMNS = (
    *("replicas", "in time %", "late %", "shed %", "p50 ms", "p95 ms", "p99 ms"),
    *("batch", "busy %", "in time/s"),
)


@dataclass(frozen=True)
class Asked:
    """The command's options."""

    rate: float | None
    seconds: float | None
    burst: float | None
    variant: str | None
    slo_ms: float | None
    goal: float
    """Per cent."""
    replicas: int | None
    max_replicas: int
    router: Router
    seed: int
    as_json: bool


@dataclass(frozen=True)
class Served:
    """What is simulated."""

    artifact: Path
    variant: Variant
    profile: Profile
    tuning: Tuning
    slo_source: str

    @property
    def warnings(self) -> list[str]:
        """What makes the figures less sure."""
        most = self.tuning.limits.max_batch.value
        points = [p for p in self.profile.of(self.profile.advice.form) if p.batch <= most]
        rough = [str(p.batch) for p in points if {"few_samples", "disturbed"} & {*p.flags}]
        told = list(self.tuning.limits.warnings)
        if rough:
            told.append(
                f"the profile is rough at batch {', '.join(rough)} (few runs, or other work ran): "
                "`deployc profile --seconds 30`, on an idle machine, tells more"
            )
        return told


@dataclass(frozen=True)
class Found:
    """What came out, by the number of replicas."""

    results: list[Result]
    enough: int | None
    """The number that meets the goal: the smallest, or the one that was asked for."""


@click.command(short_help="How many replicas for this traffic and SLO.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("trace", required=False, type=click.Path(path_type=Path), metavar="[TRACE.csv]")
@click.option("--rate", type=POSITIVE, help="Instead of a trace: requests per second, Poisson.")
@click.option("--seconds", type=POSITIVE, help="With --rate: for how long; 60 by default.")
@click.option(
    "--burst",
    type=click.FloatRange(1, 10),
    help="With --rate: so many times the rate for 1 s out of 10 s; the mean stays.",
)
@click.option("--variant", help="Which variant; by default the spec's first target.")
@click.option(
    "--slo-ms",
    type=click.FloatRange(0, MAX_MS, min_open=True),
    help="99 % of answers within this; else the spec's.",
)
@click.option(
    "--goal",
    type=click.FloatRange(0, 100, min_open=True),
    default=99.0,
    show_default=True,
    help="Per cent of all requests to be answered in time.",
)
@click.option("--replicas", type=click.IntRange(1, MOST), help="Try this number alone.")
@click.option("--max-replicas", type=click.IntRange(1, MOST), default=64, show_default=True)
@click.option(
    "--router",
    type=click.Choice(["two-choices", "least"]),
    default="two-choices",
    show_default=True,
    help="As Ray's router does, or as HAProxy's leastconn.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def simulate(artifact: Path, trace: Path | None, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Find the smallest number of replicas of ARTIFACT for a traffic and an SLO.

    TRACE.csv has a column arrival_s (seconds), and may have timeout_ms, priority and items. The
    batching that serves runs in virtual time, over the times that `deployc profile` measured.
    Enough is: --goal per cent of all requests are answered in time, and the p99 is within the SLO.
    Exit status 1 where no number is.
    """
    asked = Asked(**options)
    _check_usage(trace, asked)
    served = _served(artifact, asked)
    requests = _traffic(trace, asked)
    _check_sizes(requests, served)
    found = _find(served, requests, asked)
    if asked.as_json:
        click.echo(json.dumps(_as_json(served, requests, asked, found), indent=1))
    else:
        _show(served, requests, asked, found)
    if found.enough is None:
        raise _missed(served, asked, found)


def _check_usage(trace: Path | None, asked: Asked) -> None:
    numbers = {"rate": asked.rate, "seconds": asked.seconds, "burst": asked.burst}
    numbers |= {"slo-ms": asked.slo_ms, "goal": asked.goal}
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise click.UsageError(f"--{name} {value}: that is no number")
    if trace is not None and asked.rate is not None:
        raise click.UsageError("give a trace or --rate, not both")
    if trace is None and asked.rate is None:
        raise click.UsageError("give a trace, or --rate")
    if asked.goal <= 1:
        found = f"--goal is in per cent, {asked.goal:g} is hardly any"
        raise click.UsageError(f"{found}: --goal {asked.goal * 100:g} means that share")
    if trace is not None and (asked.seconds is not None or asked.burst is not None):
        raise click.UsageError("--seconds and --burst go with --rate; a trace has its own arrivals")


def _served(folder: Path, asked: Asked) -> Served:
    """The artifact's variant, with the limits that a replica would derive.

    Raises:
        ArtifactError: there is no profile, or another build's.
        ServeError: the profile says that the SLO is impossible.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    variant = choose_variant(manifest, asked.variant)
    profile, stale = profile_of(folder, manifest, variant)
    if profile is None:
        message = stale.partition(":")[0] or f"{folder} has no profile of {variant.name}"
        hint = f"measure it on the machine that will serve: `deployc profile {folder}`"
        raise ArtifactError(
            message, hint=hint, code="profile_stale" if stale else "profile_missing"
        )
    tuning = Tuning(manifest, variant, Options(manifest.name, slo_ms=asked.slo_ms), folder)
    source = "--slo-ms" if asked.slo_ms else tuning.limits.slo_ms.source
    return Served(folder, variant, profile, tuning, source)


def _traffic(trace: Path | None, asked: Asked) -> list[Request]:
    if trace is not None:
        return read_trace(trace)
    requests = poisson(asked.rate or 0.0, asked.seconds or SECONDS, asked.seed, asked.burst or 1.0)
    if not requests:
        message = "no request arrives in that time"
        raise ServeError(message, hint="a higher --rate, or more --seconds", code="trace_invalid")
    return requests


def _check_sizes(requests: Sequence[Request], served: Served) -> None:
    """Refuse what every replica would answer with 413."""
    largest, most = max(each.items for each in requests), served.tuning.limits.max_items.value
    if largest > most:
        message = f"a request has {largest} items, and a replica holds {most}: it answers 413"
        hint = "send them in several requests"
        raise ServeError(message, hint=hint, code="too_large")


def _find(served: Served, requests: Sequence[Request], asked: Asked) -> Found:
    law = served.tuning.law
    service = measured(served.profile, law().forecast.curve)
    setup = Setup(law, service, asked.router, asked.seed)
    results: dict[int, Result] = {}

    def passes(replicas: int) -> bool:
        results[replicas] = play(requests, replicas, setup)
        return results[replicas].meets(asked.goal / 100)

    if asked.replicas:
        enough = asked.replicas if passes(asked.replicas) else None
    else:
        enough = smallest(passes, _guess(served, requests), asked.max_replicas)
    return Found([results[each] for each in sorted(results)], enough)


def _guess(served: Served, requests: Sequence[Request]) -> int:
    """The offered load over what one replica can answer in time."""
    capacity = served.tuning.limits.capacity
    seconds = requests[-1].arrived
    if capacity is None or not seconds:
        return 1
    items = sum(each.items for each in requests)
    return 1 + int(min(MOST, items / seconds / capacity.value))


def _missed(served: Served, asked: Asked, found: Found) -> ServeError:
    last = found.results[-1]
    first = served.profile.of(served.profile.advice.form)[0]
    does = "does" if last.replicas == 1 else "do"
    message = (
        f"{_replicas(last.replicas)} {does} not meet the goal: of {last.requests:,} requests "
        f"{last.in_time:,} were answered in time and {last.late:,} late; {asked.goal:g} % in time "
        "were asked for, and at most one answer in a hundred late"
    )
    hint = (
        f"a batch of {first.batch} takes {first.p50_ms:.3g} ms, one in a hundred "
        f"{first.p99_ms:.3g} ms, and the SLO is {served.tuning.limits.slo_ms.value:g} ms: allow "
        "more time or more replicas, or build for a faster engine"
    )
    return ServeError(message, hint=hint, code="goal_missed")


def _show(served: Served, requests: Sequence[Request], asked: Asked, found: Found) -> None:
    # Into a pipe nothing is cut to the 80 columns that Rich assumes there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, markup=False, soft_wrap=True, width=width)
    profile, limits = served.profile, served.tuning.limits
    console.print(
        f"profile: {profile.variant}, {profile.advice.form} batches, measured "
        f"{profile.measured_at} on {profile.machine}"
    )
    console.print(f"traffic: {_traffic_words(requests)}")
    console.print(
        f"SLO: {limits.slo_ms.value:g} ms ({served.slo_source}); goal: {asked.goal:g} % of all "
        f"requests in time; batches up to {limits.max_batch.value}; router: {asked.router}"
    )
    for warning in served.warnings:
        console.print(f"! {warning}")
    console.print(_table(found, asked))
    if found.enough is not None:
        console.print(f"{_replicas(found.enough)} {'is' if found.enough == 1 else 'are'} enough")
    console.print(f"not simulated: {'; '.join(NOT_SIMULATED)}")


def _replicas(count: int) -> str:
    return f"{count} replica{'s' if count > 1 else ''}"


def _traffic_words(requests: Sequence[Request]) -> str:
    items, seconds = sum(each.items for each in requests), requests[-1].arrived
    carried = "" if items == len(requests) else f" with {items:,} items"
    rate = f", {len(requests) / seconds:.1f} per second" if seconds else ""
    return f"{len(requests):,} requests{carried} in {seconds:.1f} s{rate}"


def _table(found: Found, asked: Asked) -> Table:
    made = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("goal", no_wrap=True)
    for result in found.results:
        made.add_row(*_cells(result), _verdict(result, found, asked))
    return made


def _verdict(result: Result, found: Found, asked: Asked) -> str:
    if result.replicas == found.enough and not asked.replicas:
        return "met <- recommended"
    return "met" if result.meets(asked.goal / 100) else "missed"


def _cells(result: Result) -> list[str]:
    shares = (result.in_time, result.late, result.shed)
    times = (result.p50_ms, result.p95_ms, result.p99_ms)
    return [
        str(result.replicas),
        *(f"{100 * each / result.requests:.2f}" for each in shares),
        *("-" if each is None else f"{each:.2f}" for each in times),
        f"{result.batch:.1f}",
        f"{100 * result.busy:.1f}",
        f"{result.goodput:.1f}",
    ]


def _as_json(
    served: Served, requests: Sequence[Request], asked: Asked, found: Found
) -> dict[str, Any]:
    """All figures; rates per second, shares from 0 to 1."""
    profile, limits = served.profile, served.tuning.limits
    return {
        "artifact": str(served.artifact),
        "variant": served.variant.name,
        "profile": {
            "form": profile.advice.form,
            "measured_at": profile.measured_at,
            "machine": profile.machine.model_dump(mode="json"),
        },
        "traffic": {
            "requests": len(requests),
            "items": sum(each.items for each in requests),
            "seconds": requests[-1].arrived,
        },
        "slo_ms": {"value": limits.slo_ms.value, "source": served.slo_source},
        "goal": {"in_time": asked.goal / 100, "p99_of_answers": P99},
        "router": asked.router,
        "seed": asked.seed,
        "warnings": served.warnings,
        "results": [
            {**asdict(each), "goodput": each.goodput, "meets": each.meets(asked.goal / 100)}
            for each in found.results
        ],
        "recommended": found.enough,
        "not_simulated": NOT_SIMULATED,
    }
