"""``deployc simulate``: the figures of queueing theory, the production code, and the command."""

# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import asyncio
import importlib
import json
import math
import random
import selectors
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Invoked
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.publish import file_entries
from serve.batching import Batcher, OverloadError
from serve.law import Curve, Law, Shed, capacity
from serve.simulate import Result, Router, Service, Setup, measured, play, smallest
from serve.simulate_cli import NOT_SIMULATED, simulate
from serve.traces import MAX_ITEMS, Request, poisson, read_trace
from specs.errors import ArtifactError, DeploycError, ServeError
from specs.manifest import Manifest
from specs.profile import Profile, identity, profile_path

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CURVE = Curve(SIZES, tuple(4 + 0.25 * size for size in SIZES))
"""L(b) = 4 ms + 0.25 ms * b: the engine of ``bench/batching``."""
SINGLE = Curve((1,), (4.0,))
"""4 ms an item: 250 per second."""
SLO_S = 0.050


def exact(curve: Curve) -> Service:
    return lambda size, _: curve.seconds(size)


def noisy(curve: Curve) -> Service:
    return lambda size, dice: curve.seconds(size) * math.exp(abs(dice.gauss(0, 0.3)))


def setup(
    curve: Curve = CURVE, *, noise: bool = False, router: Router = "two-choices", **law: Any
) -> Setup:
    options: dict[str, Any] = {"slo_s": SLO_S, **law}
    service = noisy(curve) if noise else exact(curve)
    return Setup(lambda: Law(curve, **options), service, router)


def at(*seconds: float, **fields: Any) -> list[Request]:
    return [Request(each, **fields) for each in seconds]


# What queueing theory says.


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_single_items_wait_as_long_as_in_an_m_d_1_queue(load: float) -> None:
    """Pollaczek and Khinchine, for a constant service time: rho / (2 mu (1 - rho))."""
    rate = 1000 / SINGLE.ms[0]
    found = play(poisson(load * rate, 20_000 / (load * rate), 2), 1, setup(SINGLE, slo_s=3600.0))
    wait_ms = 1000 * load / (2 * rate * (1 - load))
    assert found.mean_ms == pytest.approx(SINGLE.ms[0] + wait_ms, rel=0.05)
    assert found.busy == pytest.approx(load, rel=0.02)
    assert found.batch == 1


def test_even_arrivals_below_capacity_never_wait() -> None:
    found = play(at(*(n / 200 for n in range(200))), 1, setup(SINGLE))
    assert found.p99_ms == pytest.approx(4.0)
    assert found.in_time == 200


def test_an_item_that_finds_the_engine_running_rides_in_the_next_batch() -> None:
    found = play(at(0.0, 0.001, 0.002), 1, setup(Curve((1, 8), (10.0, 10.0))))
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(18.0), pytest.approx(19.0))
    assert found.batch == 1.5
    assert found.seconds == pytest.approx(0.020)
    assert found.busy == pytest.approx(1.0)


@pytest.mark.parametrize("replicas", [1, 4])
def test_overload_leaves_the_capacity_and_no_more_than_the_engines_can_run(replicas: int) -> None:
    full = capacity(CURVE, SLO_S)
    found = play(poisson(3 * replicas * full, 0.8, 0), replicas, setup())
    assert 0.97 * replicas * full < found.goodput < replicas * 128 / CURVE.seconds(128)
    assert found.shed > 0.6 * found.requests


def test_replicas_share_the_load_of_one_that_is_as_busy() -> None:
    one = play(poisson(2000, 1.5, 0), 1, setup())
    four = play(poisson(8000, 1.5, 0), 4, setup())
    assert four.batch == pytest.approx(one.batch, rel=0.1)
    assert four.goodput == pytest.approx(4 * one.goodput, rel=0.05)


def test_more_replicas_never_answer_fewer_in_time() -> None:
    requests = [replace(each, arrived=each.arrived / 50) for each in poisson(180, 50.0, 3, burst=4)]
    results = [play(requests, n, setup(noise=True)) for n in range(1, 17, 5)]
    assert all(b.in_time >= a.in_time - 0.002 * a.requests for a, b in pairwise(results))
    assert results[0].in_time < 0.7 * results[0].requests
    assert results[-1].in_time > 0.99 * results[-1].requests


# What becomes of every request.

REQUESTS = st.lists(
    st.builds(
        Request,
        arrived=st.floats(0, 0.2),
        timeout_s=st.none() | st.floats(0.001, 0.2),
        priority=st.integers(0, 2),
        items=st.integers(1, 6),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, st.integers(1, 3), st.sampled_from(["two-choices", "least"]))
def test_every_request_has_one_outcome(
    requests: list[Request], replicas: int, router: Router
) -> None:
    requests.sort(key=lambda each: each.arrived)
    found = play(requests, replicas, setup(noise=True, router=router, max_items=12))
    assert found.requests == len(requests)
    assert min(found.in_time, found.late, found.shed) >= 0
    assert 0 <= found.busy <= 1 + 1e-9
    assert found.meets(1.0) == (found.in_time == len(requests))


def test_a_request_of_several_items_is_answered_with_its_last_item() -> None:
    found = play(at(0.0, items=5), 1, setup(Curve((1, 2), (10.0, 10.0)), slo_s=1.0))
    assert (found.requests, found.p50_ms) == (1, pytest.approx(30.0))


class OneGivenUp(Law):
    """Turns one item away at 4 ms, whatever its deadline."""

    def expire(self, now: float) -> tuple[Shed, ...]:
        given_up = [each for queue in self._queues.values() for each in queue][:1]
        return self._drop(now, given_up, "given_up") if math.isclose(now, 0.004) else ()


def test_one_item_turned_away_turns_its_request_away_and_the_others_leave_the_queue() -> None:
    """The first runs, the second is given up, the third was cut with it: two more never run."""
    law = replace(setup(SINGLE), law=lambda: OneGivenUp(SINGLE, slo_s=1.0))
    found = play(at(0.0, items=5), 1, law)
    assert (found.in_time, found.late, found.shed) == (0, 0, 1)
    assert found.seconds == pytest.approx(0.008)


def test_while_a_batch_overruns_who_cannot_be_answered_any_more_makes_room() -> None:
    """The first batch takes 100 ms in place of 4; the last of four requests finds room again."""
    times = iter((0.100, 0.004))

    def stall(_size: int, _dice: random.Random) -> float:
        return next(times)

    stalled = replace(setup(SINGLE, max_items=3), service=stall)
    found = play(at(0.0, 0.001, 0.002, 0.080), 1, stalled)
    assert (found.in_time, found.late, found.shed) == (1, 1, 2)
    assert found.p50_ms == pytest.approx(24.0)


def test_a_request_larger_than_the_room_is_turned_away_whole() -> None:
    requests = [Request(0.0, items=3), Request(0.001, items=3), Request(0.002, items=2)]
    found = play(requests, 1, setup(slo_s=1.0, max_items=5))
    assert (found.in_time, found.shed) == (2, 1)


def test_a_request_has_until_its_own_timeout_and_else_the_slo() -> None:
    alone = play(at(0.0, timeout_s=0.005), 1, setup(Curve((1,), (10.0,))))
    assert (alone.in_time, alone.shed) == (0, 1)
    usual = play(at(0.0), 1, setup(Curve((1,), (10.0,))))
    assert usual.in_time == 1


def test_a_higher_class_is_served_first() -> None:
    low = [Request(n / 1000, priority=1) for n in range(40)]
    high = [Request(n / 1000 + 0.0005, priority=0) for n in range(0, 40, 4)]
    requests = sorted([*low, *high], key=lambda each: each.arrived)
    alone = play(high, 1, setup(SINGLE))
    mixed = play(requests, 1, setup(SINGLE))
    assert alone.in_time == len(high)
    assert len(high) < mixed.in_time < 24
    without = play([replace(each, priority=0) for each in requests], 1, setup(SINGLE))
    assert without.p50_ms != mixed.p50_ms


def test_a_seed_gives_the_same_again_and_another_seed_another() -> None:
    requests = poisson(5000, 1.0, 0)
    same = setup(noise=True)
    first, again = (play(requests, 3, same) for _ in range(2))
    assert first == again != play(requests, 3, replace(same, seed=1))
    assert play(requests, 1, same) != play(requests, 1, replace(same, seed=1))
    assert poisson(50, 9.0, 1) == poisson(50, 9.0, 1) != poisson(50, 9.0, 2)


def test_nothing_to_do_is_no_division_by_zero() -> None:
    found = play([], 2, setup())
    assert (found.requests, found.goodput, found.busy, found.p99_ms) == (0, 0, 0, None)


# Where requests go.


@pytest.mark.parametrize("router", ["two-choices", "least"])
def test_two_replicas_take_one_each_of_two_requests(router: Router) -> None:
    found = play(at(0.0, 0.001), 2, setup(SINGLE, router=router))
    assert found.p99_ms == pytest.approx(4.0)


def test_the_router_that_sees_all_queues_finds_an_idle_replica_every_time() -> None:
    requests = at(*(n / 8000 for n in range(8)))
    assert play(requests, 8, setup(SINGLE, router="least")).p99_ms == pytest.approx(4.0)
    two = [play(requests, 8, replace(setup(SINGLE), seed=seed)).p99_ms for seed in range(20)]
    assert max(each or 0 for each in two) > 7.0


# The same as what serves.


class _Jump(selectors.DefaultSelector):
    """Lets time pass in place of waiting for files."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing is left to happen"
        self.now += max(1e-9, timeout)  # a clock that stands still never ends what rounding left
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


async def _serve(requests: Sequence[Request], law: Law, service: Service) -> list[float | None]:
    """Latencies from the production batcher; None: turned away."""
    loop, dice = asyncio.get_running_loop(), random.Random("engine 0 0")

    async def engine(items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(service(len(items), dice))
        return items

    batcher = Batcher(engine, law, clock=loop.time)

    async def one(request: Request) -> float | None:
        await asyncio.sleep(request.arrived)
        items, allowed = [0] * request.items, request.timeout_s
        try:
            await batcher.submit(items, timeout_s=allowed, priority=request.priority)
        except OverloadError:
            return None
        return loop.time() - request.arrived

    return await asyncio.gather(*map(one, requests))


@pytest.mark.parametrize(("rate", "room"), [(800, 400), (2000, 400), (6000, 400), (6000, 40)])
def test_the_batcher_that_serves_gives_the_same_figures(rate: float, room: int) -> None:
    dice = random.Random(7)
    requests = [
        replace(
            each,
            timeout_s=dice.choice([None, 0.02, 0.1]),
            priority=dice.choice([0, 0, 1]),
            items=dice.choice([1, 1, 1, 4]),
        )
        for each in poisson(rate / 1.75, 1.0, 5)
    ]
    same = setup(noise=True, max_items=room)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        served = runner.run(_serve(requests, same.law(), same.service))
    found = play(requests, 1, same)
    latencies = sorted(1000 * each for each in served if each is not None)
    assert found.shed == served.count(None)
    assert found.mean_ms == pytest.approx(sum(latencies) / len(latencies), rel=1e-4)
    assert found.p99_ms == pytest.approx(latencies[math.ceil(0.99 * len(latencies)) - 1], rel=1e-4)
    assert (found.shed > 0.1 * found.requests) == (rate > 800)


def test_the_benchmarks_simulator_gives_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "bench" / "batching"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    bench: Any = importlib.import_module("simulator")
    rivals: Any = importlib.import_module("rivals")
    for name in ("simulator", "rivals"):
        monkeypatch.delitem(sys.modules, name)

    def rate(now: float) -> float:
        return 5000.0 if now % 0.4 < 0.1 else 800.0

    traffic = bench.Open(rate, 5000.0, (SLO_S,))
    engine, length = bench.Engine(CURVE.seconds, jitter=0.0), bench.Length(0.0, 2.0)
    other = bench.simulate(rivals.Ours(CURVE, SLO_S), engine, traffic, length, 5)
    jobs = traffic.jobs(2.0, random.Random("traffic 5"))
    ours = play([Request(each.arrived) for each in jobs], 1, setup())
    assert (ours.in_time, ours.late, ours.shed) == (other.good, other.late, other.shed)
    assert ours.batch == other.items / other.batches
    assert ours.p50_ms == 1000 * sorted(other.latencies)[math.ceil(len(other.latencies) / 2) - 1]
    assert other.shed > 50


# Times out of a profile.

ProfileMaker = Callable[..., Profile]


def test_times_have_the_quantiles_that_were_measured(make_profile: ProfileMaker) -> None:
    profile = make_profile({1: 2.0, 4: 4.0, 8: 8.0})  # p95 1.2 and p99 1.5 times the median
    draw, dice = measured(profile, Curve.of(profile, 8)), random.Random(0)
    times = sorted(draw(6, dice) for _ in range(40_000))
    assert times[0] == pytest.approx(0.006)
    assert times[19_000] == pytest.approx(0.006)
    assert times[38_000] == pytest.approx(1.2 * 0.006, rel=0.01)
    assert times[39_600] == pytest.approx(1.5 * 0.006, rel=0.03)
    assert times[-1] == pytest.approx(1.5 * 0.006)
    # 0.8416 and 1.6449: the standard normal's 0.8 and 0.95 quantiles.
    assert times[32_000] == pytest.approx(1.2 ** (0.8416 / 1.6449) * 0.006, rel=0.01)


def test_a_batch_between_two_fixed_sizes_takes_as_long_as_the_larger(
    make_profile: ProfileMaker,
) -> None:
    profile = make_profile({1: 2.0, 4: 4.0, 8: 8.0})
    points = [{**each.model_dump(), "form": "fixed"} for each in profile.points]
    advice = {"form": "fixed", "throughput": 8}
    fixed = make_profile({1: 1.0}, points=points, advice=advice)
    draw, dice = measured(fixed, Curve.of(fixed, 8)), random.Random(0)
    least = [min(draw(size, dice) for _ in range(50)) for size in (1, 2, 4, 5, 8)]
    assert least == pytest.approx([0.002, 0.004, 0.004, 0.008, 0.008])


# The smallest number.


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_the_smallest_number_that_passes_is_found_and_the_one_below_it_was_tried(
    wanted: int, guess: int, most: int
) -> None:
    tried: list[int] = []

    def passes(number: int) -> bool:
        tried.append(number)
        return number >= wanted

    found = smallest(passes, guess, most)
    assert found == (wanted if wanted <= most else None)
    assert len(set(tried)) == len(tried) <= 20
    assert all(1 <= each <= most for each in tried)
    assert found in {None, 1} or wanted - 1 in tried


def test_enough_is_the_goal_over_all_requests_and_the_p99_of_the_answers() -> None:
    found = play([], 1, setup())
    assert replace(found, in_time=99, shed=1).meets(0.99)
    assert not replace(found, in_time=98, shed=2).meets(0.99)
    assert replace(found, in_time=50, shed=50).meets(0.5)
    assert replace(found, in_time=198, late=2).meets(0.5)
    assert not replace(found, in_time=197, late=3).meets(0.5)


# Traffic.


def trace(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_trace_is_read_by_arrival_and_counted_from_the_first(tmp_path: Path) -> None:
    header = "\ufeffitems, arrival_s,priority,timeout_ms"
    text = f"{header}\r\n2,1700000003.5,,\r\n\r\n,1700000003,1,250\r\n"
    assert read_trace(trace(tmp_path, text)) == [
        Request(0.0, 0.25, 1, 1),
        Request(0.5, None, 0, 2),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "trace.csv:1: there is no column arrival_s"),
        ("arrival_s\n", "there is no request in it"),
        ("1.0\n2.0\n", "trace.csv:1: '1.0' is no column"),
        ("arrival_s,timeout\n1,2\n", "trace.csv:1: 'timeout' is no column"),
        ("arrival_s,arrival_s\n1,2\n", "trace.csv:1: there are two columns arrival_s"),
        ("timeout_ms\n1\n", "trace.csv:1: there is no column arrival_s"),
        ("arrival_s\n1\nsoon\n", "trace.csv:3: arrival_s is 'soon'"),
        ("arrival_s\n-1\n", "trace.csv:2: arrival_s is '-1'"),
        ("arrival_s\nnan\n", "trace.csv:2: arrival_s is 'nan'"),
        ("arrival_s\n1700000000000\n", "trace.csv:2: arrival_s is '1700000000000'"),
        ("arrival_s,items\n,2\n", "trace.csv:2: arrival_s is empty"),
        ("arrival_s,items\n1\n", "trace.csv:2: 1 cells, and 2 columns"),
        ("arrival_s,items\n1,0\n", "trace.csv:2: items is '0'"),
        ("arrival_s,items\n1,1.5\n", "trace.csv:2: items is '1.5'"),
        ("arrival_s,timeout_ms\n1,0\n", "trace.csv:2: timeout_ms is '0'"),
        ("arrival_s,timeout_ms\n1,inf\n", "trace.csv:2: timeout_ms is 'inf'"),
        ("arrival_s,priority\n1,10\n", "trace.csv:2: priority is '10'"),
        ('arrival_s\n"1\n', "trace.csv:2: unexpected end of data"),
        ("arrival_s\n" + "1" * 20_000, "trace.csv:2: the line is longer than 10,000 characters"),
        (f"arrival_s,items\n1,{MAX_ITEMS}\n2,1\n", "trace.csv:3: more than 1,000,000 items"),
    ],
)
def test_a_trace_that_cannot_be_is_refused_with_its_line_and_column(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ServeError) as caught:
        read_trace(trace(tmp_path, text))
    assert said in caught.value.message
    assert caught.value.code == "trace_invalid"
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"arrival_s\n\xff\xfe\n", None])
def test_a_trace_that_cannot_be_read_is_no_traceback(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "missing.csv" if content is None else trace(tmp_path, content)
    with pytest.raises(ServeError) as caught:
        read_trace(path)
    assert caught.value.code == "trace_unreadable"
    assert str(path) in caught.value.message


def test_bursts_come_a_tenth_of_the_time_and_leave_the_mean() -> None:
    for burst in (1.0, 4.0, 10.0):
        times = [each.arrived for each in poisson(200, 200.0, 0, burst)]
        assert len(times) / 200 == pytest.approx(200, rel=0.03)
        inside = sum(each % 10 >= 9 for each in times) / len(times)
        assert inside == pytest.approx(burst / 10, rel=0.1)
        assert times == sorted(times)


def test_more_requests_than_memory_is_for_are_refused() -> None:
    with pytest.raises(ServeError, match="more than 1,000,000 requests"):
        poisson(1e9, 60.0, 0)


# The command.

Serving = Callable[..., Path]


@pytest.fixture
def artifact(
    tmp_path: Path, make_manifest: Callable[..., Manifest], make_profile: ProfileMaker
) -> Serving:
    """Writes an artifact's manifest, and the profile of its variant where times are given."""

    def write(ms: dict[int, float] | None = None, **changes: Any) -> Path:
        files = {name: tmp_path / name for name in ("model", "processing.py")}
        for path in files.values():
            path.write_bytes(b"content")
        slo = {"slo": {"p99_ms": 50.0}}
        manifest = make_manifest(serving=slo, files=file_entries(files))
        (tmp_path / "manifest.json").write_text(manifest.model_dump_json(), "utf-8")
        if ms:
            variant = manifest.variants[0]
            known = {"identity": identity(manifest, variant), "measured_at": "2026-01-02T03:04:05Z"}
            profile = make_profile(ms, **{**known, **changes})
            path = tmp_path / profile_path(variant.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(profile.model_dump_json(), "utf-8")
        return tmp_path

    return write


MS = {1: 5.0, 4: 8.0, 8: 12.0}
"""Capacity under 50 ms: 8 items in 12 ms, 667 per second."""


def exactly(batch: int, ms: float) -> dict[str, Any]:
    """A point whose quantiles are all the same."""
    interval = {"low": ms, "high": ms}
    times = {"mean_ms": ms, "p50_ms": ms, "p95_ms": ms, "p99_ms": ms}
    runs = {"samples": 1000, "warmup": 10, "load_seconds": 0.1, "peak_memory_bytes": 1}
    about = {"batch": batch, "form": "dynamic", "rate": 1000 * batch / ms}
    return {**about, **times, **runs, "p50_ci": interval, "p99_ci": interval}


def run(*arguments: object) -> Invoked:
    return CliRunner().invoke(simulate, [str(each) for each in arguments])


def figures(*arguments: object) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json").stdout)


def test_the_command_recommends_the_smallest_number_that_is_enough(artifact: Serving) -> None:
    done = run(artifact(MS), "--rate", 1500, "--seconds", 4)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("profile: fake-cpu-fp32, dynamic batches, measured 2026-01-02")
    assert "SLO: 50 ms (spec)" in done.stdout
    rows = [line.split() for line in lines if line.split()[0].isdigit() and "enough" not in line]
    assert [(row[0], row[10]) for row in rows] == [("2", "missed"), ("3", "met")]
    assert rows[1][-1] == "recommended"
    assert lines[-2] == "3 replicas are enough"
    assert lines[-1] == f"not simulated: {'; '.join(NOT_SIMULATED)}"


def test_the_number_below_the_one_recommended_is_not_enough(artifact: Serving) -> None:
    folder = artifact(MS)
    enough = figures(folder, "--rate", 1500, "--seconds", 4)["recommended"]
    fewer = figures(folder, "--rate", 1500, "--seconds", 4, "--replicas", enough - 1)
    assert fewer["recommended"] is None
    assert [each["replicas"] for each in fewer["results"]] == [enough - 1]


def test_the_json_has_every_figure_of_the_table(artifact: Serving) -> None:
    found = figures(artifact(MS), "--rate", 300, "--seconds", 2, "--seed", 3, "--slo-ms", 60)
    assert found["slo_ms"] == {"value": 60.0, "source": "--slo-ms"}
    assert found["goal"] == {"in_time": 0.99, "p99_of_answers": 0.99}
    assert (found["variant"], found["seed"], found["router"]) == ("fake-cpu-fp32", 3, "two-choices")
    assert found["profile"]["measured_at"] == "2026-01-02T03:04:05Z"
    assert found["profile"]["machine"]["cores"] == 1
    assert found["not_simulated"] == list(NOT_SIMULATED)
    (only,) = found["results"]
    assert set(only) == {
        *(each for each in Result.__dataclass_fields__),
        "goodput",
        "meets",
    }
    assert only["in_time"] + only["late"] + only["shed"] == found["traffic"]["requests"] > 500
    assert only["meets"] is True
    assert found["recommended"] == only["replicas"] == 1


def test_a_trace_gives_the_traffic(artifact: Serving, tmp_path: Path) -> None:
    rows = "".join(f"{n / 100},{200 if n % 2 else ''},{n % 3},2\n" for n in range(50))
    path = trace(tmp_path, f"arrival_s,timeout_ms,priority,items\n{rows}")
    found = figures(artifact(MS), path)
    assert found["traffic"] == {"requests": 50, "items": 100, "seconds": pytest.approx(0.49)}


def test_a_goal_that_no_number_meets_is_told_after_the_table(artifact: Serving) -> None:
    done = run(artifact(MS), "--rate", 6000, "--seconds", 1, "--max-replicas", 3)
    error = done.exception
    assert isinstance(error, ServeError)
    assert error.code == "goal_missed"
    assert error.message.startswith("3 replicas do not meet the goal")
    assert "a batch of 1 takes 5 ms" in error.hint
    assert "missed" in done.stdout
    assert "enough" not in done.stdout


def test_a_lower_goal_needs_fewer_replicas(artifact: Serving) -> None:
    folder = artifact(MS, points=[exactly(batch, ms) for batch, ms in MS.items()])
    counts = [
        figures(folder, "--rate", 2200, "--seconds", 2, "--goal", goal)["recommended"]
        for goal in (50, 90, 99.9)
    ]
    assert counts == [2, 3, 4]


@pytest.mark.parametrize(
    ("ms", "changes", "code"),
    [(None, {}, "profile_missing"), (MS, {"identity": "another build"}, "profile_stale")],
)
def test_without_a_profile_of_this_build_the_command_to_run_is_named(
    artifact: Serving, ms: dict[int, float] | None, changes: dict[str, Any], code: str
) -> None:
    folder = artifact(ms, **changes)
    error = run(folder, "--rate", 10).exception
    assert isinstance(error, ArtifactError)
    assert error.code == code
    assert f"`deployc profile {folder}`" in error.hint


def test_rough_measurements_are_told(artifact: Serving) -> None:
    folder = artifact(MS)
    path = folder / profile_path("fake-cpu-fp32")
    profile = json.loads(path.read_text("utf-8"))
    profile["points"][1]["flags"] = ["few_samples"]
    path.write_text(json.dumps(profile), "utf-8")
    (told,) = figures(folder, "--rate", 10, "--seconds", 1)["warnings"]
    assert "rough at batch 4 " in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a trace, or --rate"),
        (["TRACE", "--rate", "5"], "give a trace or --rate, not both"),
        (["TRACE", "--seconds", "5"], "go with --rate"),
        (["--rate", "inf"], "--rate inf: that is no number"),
        (["--rate", "5", "--goal", "nan"], "--goal nan: that is no number"),
        (["--rate", "5", "--slo-ms", "nan"], "--slo-ms nan: that is no number"),
    ],
)
def test_wrong_usage_is_exit_status_2(
    artifact: Serving, tmp_path: Path, arguments: list[str], said: str
) -> None:
    path = str(trace(tmp_path, "arrival_s\n1\n"))
    done = run(artifact(MS), *(path if each == "TRACE" else each for each in arguments))
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        ("arrival_s,items\n1,9999\n", [], "too_large"),
        ("arrival_s\n1\n", ["--slo-ms", "1"], "slo_impossible"),
        ("arrival_s\n1\n", ["--variant", "other"], "variant_unknown"),
        ("arrival_s\nx\n", [], "trace_invalid"),
    ],
)
def test_what_cannot_be_simulated_is_one_error(
    artifact: Serving, tmp_path: Path, text: str, options: list[str], code: str
) -> None:
    error = run(artifact(MS), trace(tmp_path, text), *options).exception
    assert isinstance(error, DeploycError)
    assert error.code == code
    assert error.hint


def test_a_rate_at_which_nothing_comes_is_told(artifact: Serving) -> None:
    error = run(artifact(MS), "--rate", 0.001, "--seconds", 1).exception
    assert isinstance(error, ServeError)
    assert error.message == "no request arrives in that time"
