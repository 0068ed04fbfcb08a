"""``bench/batching``: the simulated world is fair, and its table says what was measured."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench_modules import BENCH, bench_modules

BATCHING = BENCH / "batching"
MODULES = (
    "simulator",
    "virtual",
    "rivals",
    "scenarios",
    "ray_queue",
    "cork",
    "tuning",
    "table",
    "run",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The bench's modules, which find their neighbours in their own folder."""
    with bench_modules(MODULES, folders=[BATCHING]) as found:
        yield found


@pytest.fixture
def bentoml(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """BentoML's package, which is none of this project's, behind all others on the path."""
    folder: Path = bench.cork.RIVALS
    if bench.cork.cork_version(folder) is None:
        pytest.skip(f"BentoML is not there: pip install --target {folder} bentoml")
    monkeypatch.setattr(sys, "path", [*sys.path])
    bench.cork.use(folder)
    return folder


def scenario(bench: Any, name: str) -> Any:
    return next(each for each in bench.scenarios.SCENARIOS if each.name == name)


def play(bench: Any, knobs: Any, name: str, seed: int = 5, seconds: float = 0.6) -> Any:
    length = bench.simulator.Length(0.3, seconds)
    return bench.tuning.play(knobs, scenario(bench, name), seed, length)


def result(bench: Any, name: str, player: str, goodputs: list[float]) -> Any:
    about = {"scenario": name, "capacity": 3360.0, "player": player, "knobs": "k"}
    rest = {"late": 0, "shed": 0, "batch": 1.0, "p50_ms": 1.0, "cpu_s": 1.0, "seconds": 2.0}
    return bench.table.Result(**about, goodputs=goodputs, **rest)


def grid_of(*settings: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    def grid(*_: Any) -> tuple[Any, ...]:
        return settings

    return grid


def test_overload_leaves_the_law_its_capacity(bench: Any) -> None:
    outcome = play(bench, bench.rivals.NoKnobs(), "steady, 200%")
    assert outcome.goodput > 0.97 * 3_360
    assert outcome.shed > 0


def test_a_closed_loop_of_eight_gets_more_from_the_law_than_from_greedy(bench: Any) -> None:
    ours = play(bench, bench.rivals.NoKnobs(), "closed loop, 8 clients")
    greedy = play(bench, bench.rivals.GreedyKnobs(128), "closed loop, 8 clients")
    assert ours.goodput > 1.4 * greedy.goodput


def test_every_player_meets_the_same_requests(bench: Any) -> None:
    knobs = [
        bench.rivals.NoKnobs(),
        bench.rivals.GreedyKnobs(64),
        bench.rivals.TritonKnobs(64, timeout=0.5),
        bench.rivals.ClipperKnobs(0.5),
        bench.ray_queue.RayKnobs(64, 0.01),
    ]
    outcomes = [play(bench, each, "bursts, mean 60 %") for each in knobs]
    counts = {each.good + each.late + each.shed for each in outcomes}
    assert len(counts) == 1
    assert counts.pop() > 500


def test_a_seed_gives_the_same_run_again_and_another_seed_another(bench: Any) -> None:
    runs = [play(bench, bench.rivals.NoKnobs(), "steady, 80%", seed) for seed in (5, 5, 6)]
    first, again, other = (each.latencies for each in runs)
    assert first == again != other


def test_an_event_loop_in_virtual_time_sleeps_without_waiting(bench: Any) -> None:
    loop, began = bench.virtual.VirtualLoop(), time.perf_counter()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(asyncio.sleep(3_600))
    assert time.perf_counter() - began < 5
    assert 3_600 <= loop.time() < 3_601


def test_the_queue_that_is_played_is_rays_own(bench: Any) -> None:
    from ray.serve import batching

    own: type = bench.ray_queue._Queue
    changed = {str(name) for name in vars(own) if not str(name).startswith("__")}
    assert own.__bases__ == (batching._BatchQueue,)  # pyright: ignore[reportPrivateUsage]
    assert changed == {"_warn_if_max_batch_size_exceeds_max_ongoing_requests"}


def test_rays_module_is_left_as_it_was(bench: Any) -> None:
    batching: Any = importlib.import_module("ray.serve.batching")
    play(bench, bench.ray_queue.RayKnobs(8, 0.001), "closed loop, 8 clients")
    assert batching.time is time
    assert batching.Histogram.__module__.startswith("ray")


def test_rays_queue_waits_for_its_timeout_and_no_longer(bench: Any) -> None:
    outcome = play(bench, bench.ray_queue.RayKnobs(8, 0.005), "closed loop, 1 client")
    spent = sorted(outcome.latencies)[len(outcome.latencies) // 2]
    assert 0.0090 < spent < 0.0100  # 5 ms of waiting, 4.25 ms of engine


def test_a_future_that_fails_without_being_a_refusal_ends_the_run(bench: Any) -> None:
    class Broken(bench.virtual.Replica):
        def submit(self, job: Any) -> asyncio.Future[Any]:
            async def fail() -> None:
                raise ValueError(job.arrived)

            return self._loop.create_task(fail())

    async def main() -> None:
        kind = scenario(bench, "steady, 30%")
        into = bench.simulator.Outcome(0.0, 0.1)
        await Broken(None).play(kind.engine(0.1), kind.traffic(0.1), 1, into)

    with pytest.raises(RuntimeError, match="the queue failed"):
        bench.virtual.run(bench.virtual.VirtualLoop(), main(), "the queue")


@pytest.mark.usefixtures("bentoml")
def test_the_dispatcher_that_is_played_is_bentomls_own_from_its_folder(
    bench: Any, bentoml: Path
) -> None:
    before = [importlib.import_module(name) for name in (bench.cork.DISPATCHER, bench.cork.BUCKET)]
    play(bench, bench.cork.CorkKnobs(8, 50), "closed loop, 8 clients")
    assert all(Path(str(each.__file__)).is_relative_to(bentoml) for each in before)
    assert all(vars(each)["time"] is time for each in before)
    assert not Path(str(importlib.import_module("numpy").__file__)).is_relative_to(bentoml)


@pytest.mark.usefixtures("bentoml")
def test_cork_refuses_what_it_could_not_answer_in_time(bench: Any) -> None:
    outcome = play(bench, bench.cork.CorkKnobs(84, 50), "steady, 120%")
    assert outcome.shed > 0
    assert outcome.goodput > 0.9 * 3_360


@pytest.mark.usefixtures("bentoml")
def test_cork_knows_its_engine_when_the_run_that_counts_begins(bench: Any) -> None:
    kind, length = scenario(bench, "steady, 80%"), bench.simulator.Length(0.3, 0.6)
    found: dict[str, float] = {}

    async def main() -> None:
        replica = bench.cork._Replica(bench.cork.CorkKnobs(84, 50))
        await replica.learn(kind.engine(0.9), kind.traffic(0.9), length, 1)
        fit = replica._dispatcher.optimizer
        found.update(began=replica._loop.time(), refresh=fit.INTERVAL_REFRESH_PARAMS)
        await replica.play(
            kind.engine(0.9), kind.traffic(0.9), 1, bench.simulator.Outcome(0.0, 0.3)
        )
        found.update(base=fit.o_b, item=fit.o_a)
        replica.close()

    loop = bench.virtual.VirtualLoop()
    with bench.cork._virtual(loop):
        bench.virtual.run(loop, main(), "the dispatcher")
    assert found["refresh"] <= found["began"] < found["refresh"] + 1
    assert found["base"] == pytest.approx(0.004, rel=0.1)
    assert found["item"] == pytest.approx(0.00025, rel=0.1)


@pytest.mark.usefixtures("bentoml")
def test_cork_meets_the_same_requests_as_the_law(bench: Any) -> None:
    knobs = (bench.rivals.NoKnobs(), bench.cork.CorkKnobs(84, 50))
    outcomes = [play(bench, each, "bursts, mean 60 %") for each in knobs]
    assert len({each.good + each.late + each.shed for each in outcomes}) == 1


def test_a_folder_without_bentoml_costs_its_column_and_is_told(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few: dict[str, Any] = {bench.tuning.OURS: bench.tuning.PLAYERS[bench.tuning.OURS]}
    few |= {"greedy": (grid_of(bench.rivals.GreedyKnobs(128)),)}
    few |= {bench.cork.CORK: (grid_of(bench.cork.CorkKnobs(8, 50)),)}
    for module in (bench.run, bench.table, bench.tuning):
        monkeypatch.setattr(module, "PLAYERS", few)
    options = ["--seeds", "2", "--seconds", "0.2", "--warm-up", "0.1", "--out", str(tmp_path)]
    bench.run.main([*options, "--only", "closed loop, 8", "--rivals", str(tmp_path)])
    text = (tmp_path / "README.md").read_text("utf-8")
    assert f"no bentoml in {tmp_path}" in capsys.readouterr().err
    assert "| scenario | deployc | greedy | deployc over the best rival |" in text
    assert "`CorkDispatcher` was not played" in text


def test_a_replica_that_is_full_refuses(bench: Any) -> None:
    outcome = play(bench, bench.ray_queue.RayKnobs(64, 0.01, ongoing=100), "steady, 120%")
    assert outcome.shed > 0
    assert outcome.good > 0


def test_triton_goes_at_a_preferred_size_and_else_after_its_delay(bench: Any) -> None:
    triton = bench.rivals.Triton(bench.rivals.TritonKnobs(8, preferred=(4,), delay=0.002))
    for n in range(3):
        triton.offer(0.0, bench.simulator.Job(0.0, 0.05, n))
    assert triton.cut(0.001) == ((), [], 0.002)
    triton.offer(0.001, bench.simulator.Job(0.001, 0.05))
    triton.offer(0.001, bench.simulator.Job(0.001, 0.05))
    assert len(triton.cut(0.001)[0]) == 4
    assert triton.cut(0.001)[2] == pytest.approx(0.003)
    assert len(triton.cut(0.003)[0]) == 1


def test_triton_rejects_what_waited_for_too_long(bench: Any) -> None:
    triton = bench.rivals.Triton(bench.rivals.TritonKnobs(8, timeout=0.5))
    old, new = (bench.simulator.Job(at, at + 0.05) for at in (0.0, 0.02))
    triton.offer(0.0, old)
    triton.offer(0.02, new)
    batch, dropped, _ = triton.cut(0.03)
    assert (batch, dropped) == ([new], [old])


def test_clipper_adds_when_a_full_batch_was_quick_and_multiplies_when_it_was_not(
    bench: Any,
) -> None:
    clipper = bench.rivals.Clipper(bench.rivals.ClipperKnobs(1.0, 4, 0.5), 0.05, 64)
    sizes: list[int] = []
    for seconds in (0.01, 0.01, 0.06, 0.01):
        for _ in range(20):
            clipper.offer(0.0, bench.simulator.Job(0.0, 1.0))
        batch, _, _ = clipper.cut(0.0)
        sizes.append(len(batch))
        clipper.done(0.0, batch, seconds)
    assert sizes == [1, 5, 9, 4]


def test_knobs_are_chosen_on_seeds_that_the_table_does_not_use(bench: Any) -> None:
    assert min(bench.tuning.TUNING_SEEDS) > 100


def test_tuning_takes_the_setting_with_the_most_answers_in_time(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, poor = bench.rivals.TritonKnobs(92, timeout=0.45), bench.rivals.TritonKnobs(4)
    monkeypatch.setitem(bench.tuning.PLAYERS, "two", (grid_of(poor, good),))
    length = bench.simulator.Length(0.2, 0.6)
    assert bench.tuning.tune("two", scenario(bench, "steady, 120%"), length) == good


def test_a_confidence_interval_is_students(bench: Any) -> None:
    values = [float(n % 2) for n in range(20)]  # standard deviation 0.513
    assert bench.table.half_width(values) == pytest.approx(2.093 * 0.51299 / 20**0.5, rel=1e-3)


def test_a_goal_that_is_missed_is_told(bench: Any, tmp_path: Path) -> None:
    names = ("steady, 120%", "closed loop, 8 clients")
    results = {
        (name, player): result(bench, name, player, [100.0, 101.0] if index else [90.0, 91.0])
        for name in names
        for index, player in enumerate(bench.tuning.PLAYERS)
    }
    bench.table.write_table(results, tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text("utf-8")
    assert text.count("| **no** |") == 3
    assert "| yes |" not in text


def test_the_command_writes_table_results_and_plot(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, Any] = {bench.tuning.OURS: bench.tuning.PLAYERS[bench.tuning.OURS]}
    few["greedy"] = (grid_of(bench.rivals.GreedyKnobs(128)),)
    for module in (bench.run, bench.table, bench.tuning):
        monkeypatch.setattr(module, "PLAYERS", few)
    options = ["--seeds", "2", "--seconds", "0.2", "--warm-up", "0.1", "--out", str(tmp_path)]
    bench.run.main([*options, "--only", "closed loop, 8"])
    assert "closed loop, 8 clients" in (tmp_path / "README.md").read_text("utf-8")
    assert len(bench.table.read_results(tmp_path / "results.json")) == 2
    assert "<svg" in (tmp_path / "goodput.svg").read_text("utf-8")


def test_the_table_that_is_kept_is_the_one_that_the_results_give(
    bench: Any, tmp_path: Path
) -> None:
    results = bench.table.read_results(BATCHING / "results.json")
    assert {name for name, _ in results} == {each.name for each in bench.scenarios.SCENARIOS}
    bench.table.write_table(results, tmp_path / "README.md")
    kept = (BATCHING / "README.md").read_text("utf-8")
    assert (tmp_path / "README.md").read_text("utf-8") == kept
