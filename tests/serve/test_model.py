"""A served model: ready only when it is warm and right, bounded by its SLO, honest about itself."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.predictor import PassedOver, Predictor
from runtime.tensors import Tensors, side_by_side, stack
from serve import warmup
from serve.args import WhenSlow
from serve.batching import OverloadError, StuckError
from serve.derive import Figure
from serve.messages import Call, Reply
from serve.model import Model, Options
from serve.warmup import REPEATS
from specs.errors import ParityError, ServeError
from specs.profile import Profile, identity, profile_path
from specs.schema import Serving, Slo

MakePredictor = Callable[..., Any]
MakeProfile = Callable[..., Profile]
OPTIONS = Options("twice", max_batch=8, max_items=16, threads=2)
ITEM = Call(b"[1, 2]")


def run(model: Model, scenario: Callable[[], Awaitable[None]]) -> None:
    """Warm the model up, play the scenario, close the model."""

    async def main() -> None:
        await model.warm_up()
        await asyncio.wait_for(scenario(), 30)
        await model.close()

    asyncio.run(main())


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["error"]["code"]


class Clock:
    """Stands still but while an engine runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def timed(self, predictor: Any, alone_s: float, item_s: float = 0.0) -> Any:
        """The predictor, whose engine takes so long on this clock, and no time at all."""
        engine = predictor.run

        def compute(items: Sequence[Tensors]) -> list[Tensors]:
            self.now += alone_s + item_s * len(items)
            return engine(items)

        predictor.run = compute
        return predictor


@pytest.mark.parametrize("passed", [(), (PassedOver("fake-cuda-fp16", "no GPU here"),)])
def test_a_variant_that_stands_in_for_another_is_told_in_the_card_and_in_the_metric(
    make_predictor: MakePredictor, passed: tuple[PassedOver, ...]
) -> None:
    predictor = make_predictor()
    predictor.passed_over = passed

    async def scenario() -> None:
        model = Model(predictor, Options("twice", 8, 128))
        card = await model.card()
        told = [each for each in card["warnings"] if "cannot run here" in each]
        assert told == ["fake-cuda-fp16 cannot run here: no GPU here"] * len(passed)
        assert model.variant_in_use() == {
            "model": "twice",
            "variant": "fake-cpu-fp32",
            "passed_over": "fake-cuda-fp16" * len(passed),
            "engine": "fake",
            "device": "cpu",
        }
        await model.close()

    asyncio.run(scenario())


def test_items_go_through_preparing_computing_and_finishing(make_predictor: MakePredictor) -> None:
    model = Model(make_predictor(), OPTIONS)

    async def scenario() -> None:
        items = await model.prepare([[1, 2], [3, 4]])
        done = await model.compute(items)
        answers = await model.finish(done.outputs)
        assert [answer["outputs"]["y"].tolist() for answer in answers] == [[2, 4], [6, 8]]

    run(model, scenario)


def test_before_it_is_warm_a_model_answers_503(make_predictor: MakePredictor) -> None:
    async def main() -> None:
        reply = await Model(make_predictor(), OPTIONS).answer(ITEM)
        assert code(reply) == (503, "not_ready")
        assert reply.headers["Retry-After"]

    asyncio.run(main())


# --- the curve


def test_without_a_profile_the_warm_up_measures_a_first_curve(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor(delay_s=0.004)
    model = Model(predictor, OPTIONS)

    async def scenario() -> None:
        assert sorted(set(predictor.batches)) == [1, 2, 4, 8]
        assert all(predictor.batches.count(size) > 1 for size in (1, 2, 4, 8))
        card = await model.card()
        assert card["curve"]["source"] == "measured at start"
        assert list(card["curve"]["ms"]) == ["1", "2", "4", "8"]
        assert all(4 <= ms < 400 for ms in card["curve"]["ms"].values())
        assert card["serving"]["capacity"]["source"] == "measured at start"
        assert card["serving"]["slo_ms"] == {"value": 2000.0, "source": "default"}
        assert card["serving"]["max_batch"] == {"value": 8, "source": "deploy.yaml"}

    run(model, scenario)


def test_measuring_ends_where_a_batch_takes_longer_than_the_slo(
    make_predictor: MakePredictor,
) -> None:
    clock = Clock()
    predictor = clock.timed(make_predictor(), 0.0, 0.01)
    model = Model(predictor, Options("twice", slo_ms=35.0), clock=clock)

    async def scenario() -> None:
        assert max(predictor.batches) == 4
        assert model.stats()["corrections"].keys() == {"1", "2", "3"}
        assert (await model.card())["batch"]["max"] == 3

    run(model, scenario)


def test_an_slo_that_one_item_breaks_keeps_the_replica_from_starting(
    make_predictor: MakePredictor,
) -> None:
    clock = Clock()
    predictor = clock.timed(make_predictor(), 0.02)
    model = Model(predictor, Options("twice", slo_ms=5.0), clock=clock)
    with pytest.raises(
        ServeError, match=r"the SLO is 5 ms.* 20 ms \(measured at start\)"
    ) as caught:
        asyncio.run(model.warm_up())
    assert caught.value.code == "slo_impossible"


def with_profile(
    artifact: Path, folder: Path, make_profile: MakeProfile, ms: dict[int, float], **changes: Any
) -> Path:
    """A copy of an artifact with a profile of its first variant."""
    copied = folder / "artifact"
    shutil.copytree(artifact, copied)
    with runtime.load(copied) as predictor:
        variant, manifest = predictor.variant, predictor.manifest
    profile = make_profile(
        ms, **{"variant": variant.name, "identity": identity(manifest, variant), **changes}
    )
    path = copied / profile_path(variant.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(profile.model_dump_json(), "utf-8")
    return copied


@pytest.fixture
def profiled(
    linear_artifact: Path, tmp_path: Path, make_profile: MakeProfile
) -> Callable[..., Path]:
    """Makes an artifact with a profile of these times."""
    return partial(with_profile, linear_artifact, tmp_path, make_profile)


def test_the_curve_of_the_artifact_is_served_by_and_told_as_such(
    profiled: Callable[..., Path],
) -> None:
    folder = profiled({1: 1.0, 4: 2.0, 32: 9.0})
    model = Model(runtime.load(folder), Options("line"), folder)

    async def scenario() -> None:
        card = await model.card()
        assert card["curve"]["source"] == "profile"
        assert card["curve"]["ms"]["4"] == pytest.approx(2.0 + card["curve"]["hop_ms"], abs=2e-3)
        assert card["serving"]["buckets"]["source"] == "profile"
        latency = card["warm_up"]["latency"]
        assert tuple(each["batch"] for each in latency) == card["serving"]["buckets"]["value"]
        assert latency[0]["profile_ms"] == 1.0
        assert card["warm_up"]["golden"]["batches"] >= 3
        assert card["warm_up"]["golden"]["largest_excess"] <= 1

    run(model, scenario)


def test_what_a_replica_needs_beside_the_engine_is_added_to_the_profile_s_times(
    profiled: Callable[..., Path],
) -> None:
    folder = profiled({1: 9.5, 32: 40.0})
    clock = Clock()
    predictor = clock.timed(runtime.load(folder), 0.01)
    model = Model(predictor, Options("line", max_batch=1), folder, clock=clock)

    async def scenario() -> None:
        card = await model.card()
        assert card["curve"]["hop_ms"] == 0.5
        assert card["curve"]["ms"]["1"] == 10.0

    run(model, scenario)


def test_a_slower_machine_is_known_as_such_before_the_first_request(
    profiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmup, "NEAR_S", 0.0)
    model = slow_at_first(profiled({1: 10.0, 32: 40.0}), monkeypatch, math.inf)

    async def scenario() -> None:
        assert model.stats()["corrections"] == {"1": 3.0}

    run(model, scenario)


def test_the_profile_of_another_build_is_not_used_and_that_is_told(
    profiled: Callable[..., Path],
) -> None:
    folder = profiled({1: 1.0}, identity="other")
    model = Model(runtime.load(folder), Options("line"), folder)

    async def scenario() -> None:
        card = await model.card()
        assert card["curve"]["source"] == "measured at start"
        assert any("another build's" in each for each in card["warnings"])

    run(model, scenario)


def changed(folder: Path, kind: type[Predictor]) -> Predictor:
    """A loaded artifact whose engine is another one."""
    predictor = runtime.load(folder)
    predictor.__class__ = kind
    return predictor


def test_a_machine_that_is_slower_than_the_profile_is_told_by_how_much(
    profiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmup, "NEAR_S", 0.0)
    folder = profiled({1: 1.0, 32: 9000.0})
    clock = Clock()
    predictor = clock.timed(runtime.load(folder), 0.012)
    model = Model(predictor, Options("line", max_batch=1), folder, clock=clock)

    async def scenario() -> None:
        (told,) = [each for each in (await model.card())["warnings"] if "profile" in each]
        assert told == "a batch of 1 takes 12 ms here, 12 times the profile's 1 ms"
        assert (await model.card())["state"] == "ready"

    run(model, scenario)


# --- readiness


def slow_at_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, runs: float, when_slow: WhenSlow = "warn"
) -> Model:
    """A model whose first runs take 33 ms, and the others the profile's 10."""
    monkeypatch.setattr(warmup, "PAUSE_S", 0.0)
    clock, left = Clock(), [runs]
    predictor = runtime.load(folder)
    engine = predictor.run

    def compute(items: Sequence[Tensors]) -> Sequence[Tensors]:
        left[0] -= 1
        clock.now += 0.033 if left[0] >= 0 else 0.01
        return engine(items)

    predictor.run = compute
    return Model(predictor, Options("line", max_batch=1, when_slow=when_slow), folder, clock=clock)


@pytest.mark.parametrize("when_slow", ["warn", "refuse"])
def test_what_slows_a_replica_down_while_it_starts_is_waited_for(
    profiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, when_slow: WhenSlow
) -> None:
    model = slow_at_first(profiled({1: 10.0, 32: 40.0}), monkeypatch, 3 * (1 + REPEATS), when_slow)

    async def scenario() -> None:
        card = await model.card()
        assert [each for each in card["warnings"] if "profile" in each] == []
        assert card["warm_up"]["latency"][0]["ratio"] == 1
        assert model.stats()["corrections"] == {"1": 1.0}

    run(model, scenario)


def test_a_machine_that_stays_slower_than_the_profile_is_not_ready_where_that_is_asked_for(
    profiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmup, "NEAR_S", 0.2)
    model = slow_at_first(profiled({1: 10.0, 32: 40.0}), monkeypatch, math.inf, "refuse")
    with pytest.raises(ServeError, match=r"33 ms here, 3\.3 times the profile's 10 ms") as caught:
        asyncio.run(model.warm_up())
    assert (caught.value.code, model.state) == ("too_slow", "loading")
    assert "when_slow: warn" in caught.value.hint


@pytest.mark.parametrize("known", [{}, {"identity": "other"}])
def test_refusing_slow_machines_needs_a_profile(
    linear_artifact: Path, profiled: Callable[..., Path], known: dict[str, Any]
) -> None:
    folder = profiled({1: 1.0}, **known) if known else linear_artifact
    with pytest.raises(ServeError, match="needs a profile") as caught:
        Model(runtime.load(folder), Options("line", when_slow="refuse"), folder)
    assert caught.value.code == "no_profile"


class Wrong(Predictor):
    """Answers wrongly where the batch is larger than one."""

    def run(self, items: Sequence[Tensors]) -> list[Tensors]:
        off = 0.5 if len(items) > 1 else 0.0
        return [
            {name: np.add(array, off).astype(array.dtype) for name, array in outputs.items()}
            for outputs in super().run(items)
        ]


def test_a_machine_that_computes_something_else_is_never_ready(linear_artifact: Path) -> None:
    model = Model(changed(linear_artifact, Wrong), Options("line"), linear_artifact)
    with pytest.raises(ParityError, match=r"golden case .*, batch 2: .* times the tolerance"):
        asyncio.run(model.warm_up())
    assert model.state == "loading"


# --- deadlines


def test_the_spec_s_slo_is_kept_and_deploy_yaml_is_stronger(make_predictor: MakePredictor) -> None:
    serving = Serving(slo=Slo(p99_ms=300.0))
    model = Model(make_predictor(serving=serving), OPTIONS)
    assert model.limits.slo_ms.to_json() == {"value": 300.0, "source": "spec"}
    options = Options("twice", slo_ms=200.0)
    model = Model(make_predictor(serving=serving), options)
    assert model.limits.slo_ms.to_json() == {"value": 200.0, "source": "deploy.yaml"}


def test_a_request_may_allow_less_time_than_the_slo(make_predictor: MakePredictor) -> None:
    model = Model(make_predictor(delay_s=0.3), Options("twice", 1, 16))

    async def scenario() -> None:
        busy = asyncio.create_task(model.answer(ITEM))
        await asyncio.sleep(0.02)
        reply = await model.answer(Call(b"[1, 2]", timeout_s=0.4))
        assert code(reply) == (429, "overloaded")
        assert reply.headers["Retry-After"] == "1"
        assert (await busy).status == 200

    run(model, scenario)


def slow_to_prepare(predictor: Any, seconds: float) -> Any:
    """The predictor, whose pre-processing takes its time."""
    fast = predictor.preprocess

    def preprocess(item: Any, out: Tensors | None = None) -> Tensors:
        time.sleep(seconds)
        return fast(item, out)

    predictor.preprocess = preprocess
    return predictor


def test_the_time_of_pre_processing_counts(make_predictor: MakePredictor) -> None:
    predictor = slow_to_prepare(make_predictor(delay_s=0.05), 0.1)
    model = Model(predictor, Options("twice", 1, 16))

    async def scenario() -> None:
        assert code(await model.answer(Call(b"[1, 2]", timeout_s=0.13))) == (429, "overloaded")
        assert (await model.answer(Call(b"[1, 2]", timeout_s=3))).status == 200

    run(model, scenario)


def test_what_waited_too_long_for_a_thread_is_not_pre_processed(
    make_predictor: MakePredictor,
) -> None:
    model = Model(slow_to_prepare(make_predictor(), 0.4), Options("twice", 8, 16, 1))

    async def scenario() -> None:
        first = asyncio.create_task(model.answer(ITEM))
        await asyncio.sleep(0.01)
        reply = await model.answer(Call(b"[1, 2]", timeout_s=0.1))
        assert code(reply) == (429, "overloaded")
        assert b"before pre-processing began" in reply.body
        assert (await first).status == 200

    run(model, scenario)


def test_a_call_s_own_time_counts_from_its_beginning_in_compute_too(
    make_predictor: MakePredictor,
) -> None:
    model = Model(make_predictor(), OPTIONS)
    items: list[Tensors] = [{"x": np.zeros(2, np.float32)}]

    async def scenario() -> None:
        with pytest.raises(OverloadError):
            await model.compute(items, timeout_s=-0.01)
        assert len((await model.compute(items, timeout_s=1.0)).outputs) == 1

    run(model, scenario)


def test_a_late_answer_is_counted_as_a_miss(make_predictor: MakePredictor) -> None:
    predictor = make_predictor()
    model = Model(predictor, OPTIONS)

    async def scenario() -> None:
        predictor.delay_s = 0.4
        assert (await model.answer(Call(b"[1, 2]", timeout_s=0.2))).status == 200
        assert model.stats()["late"] == 1

    run(model, scenario)


# --- hot changes


def test_limits_change_while_running(make_predictor: MakePredictor) -> None:
    model = Model(make_predictor(), Options("twice"))

    async def scenario() -> None:
        model.reconfigure({"slo_ms": 500, "max_items": 32})
        serving = (await model.card())["serving"]
        assert serving["slo_ms"] == {"value": 500.0, "source": "user_config"}
        assert serving["max_items"] == {"value": 32, "source": "user_config"}
        assert code(await model.answer(Call(b"[" + b"[1,2]," * 32 + b"[1,2]]")))[0] == 413
        items: list[Tensors] = [{"x": np.zeros(2, np.float32)}] * 33
        with pytest.raises(OverloadError, match="32 are allowed"):
            await model.compute(items)
        model.reconfigure(None)
        assert (await model.card())["serving"]["slo_ms"]["source"] == "default"

    run(model, scenario)


def test_a_small_limit_of_rays_own_leaves_half_of_itself_to_items(
    make_predictor: MakePredictor,
) -> None:
    held = Figure(20, "deployments")
    limits = Model(make_predictor(), Options("twice", held=held)).limits
    assert limits.max_items == Figure(10, "max_ongoing_requests")
    assert limits.max_batch == Figure(5, "max_items")
    assert limits.max_ongoing_requests == held


def test_more_items_than_ray_lets_in_are_cut_to_what_holds_and_told(
    make_predictor: MakePredictor,
) -> None:
    held = Figure(104, "max_items")
    model = Model(make_predictor(), Options("twice", max_items=40, held=held))

    async def scenario() -> None:
        model.reconfigure({"max_items": 2000})
        card = await model.card()
        assert card["serving"]["max_items"] == {"value": 40, "source": "max_ongoing_requests"}
        (told,) = [each for each in card["warnings"] if "2000" in each]
        assert "max_items is 2000 (user_config), and 40 hold: Ray lets 104 requests" in told
        model.reconfigure({"max_items": 32})
        card = await model.card()
        assert card["serving"]["max_items"] == {"value": 32, "source": "user_config"}
        assert not any("Ray lets" in each for each in card["warnings"])

    run(model, scenario)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"slo": 5}, "user_config: slo"),
        ({"slo_ms": -5}, "slo_ms"),
        ([1], "user_config"),
        ({"max_items": 9}, "max_items is 9 for batches of 8"),
        ({"slo_ms": 0.001}, "the SLO is 0.001 ms"),
    ],
)
def test_limits_that_cannot_be_change_nothing_and_are_told(
    make_predictor: MakePredictor, config: Any, said: str
) -> None:
    model = Model(make_predictor(), OPTIONS)

    async def scenario() -> None:
        before = (await model.card())["serving"]
        model.reconfigure(config)
        card = await model.card()
        assert card["serving"] == before
        (told,) = [each for each in card["warnings"] if "was refused" in each]
        assert said in told
        model.reconfigure({"slo_ms": 900})
        assert not [e for e in (await model.card())["warnings"] if "was refused" in e]

    run(model, scenario)


def test_a_longer_slo_allows_no_batch_that_has_not_run(make_predictor: MakePredictor) -> None:
    clock = Clock()
    predictor = clock.timed(make_predictor(), 0.0, 0.01)
    model = Model(predictor, Options("twice", slo_ms=35.0), clock=clock)

    async def scenario() -> None:
        model.reconfigure({"slo_ms": 5000})
        assert (await model.card())["batch"]["max"] == 3
        model.reconfigure({"slo_ms": 25})
        assert (await model.card())["batch"]["max"] == 2

    run(model, scenario)


# --- the watchdog


def test_an_engine_that_hangs_makes_the_replica_unhealthy_and_callers_get_503(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor()
    model = Model(predictor, Options("twice", 1, 16), hang=_soon)

    async def scenario() -> None:
        model.check_health()
        predictor.delay_s = 1.0
        replies = await asyncio.gather(model.answer(ITEM), model.answer(ITEM))
        assert [code(reply) for reply in replies] == [(503, "engine_stuck")] * 2
        assert all(reply.headers["Retry-After"] for reply in replies)
        assert (await model.card())["state"] == "stuck"
        with pytest.raises(StuckError, match="the engine hangs"):
            model.check_health()
        assert code(await model.answer(ITEM)) == (503, "engine_stuck")

    run(model, scenario)


def _soon(_: float) -> float:
    return 0.05


# --- what is told


def test_what_was_done_is_counted(make_predictor: MakePredictor) -> None:
    model = Model(make_predictor(delay_s=0.005), OPTIONS)

    async def scenario() -> None:
        await model.answer(Call(b"[[1, 2], [3, 4], [5, 6]]"))
        await model.answer(Call(b"[1"))
        await model.answer(Call(b"[13, 0]"))
        stats = model.stats()
        assert stats["requests"] == {"ok": 1, "bad_json": 1, "internal": 1}
        assert stats["items"] == 3
        assert stats["batches"]["3"]["count"] == 1
        assert stats["stages"]["engine"]["count"] == 1
        assert stats["stages"]["engine"]["seconds"] > 0
        assert stats["corrections"].keys() == {"1", "2", "4", "8"}
        assert (stats["waiting"], stats["load"], stats["late"]) == (0, 0, 0)
        assert abs(stats["last"] - time.time()) < 60
        assert json.dumps(stats)

    run(model, scenario)


def test_a_shed_request_is_counted_by_its_rule_and_explained(
    make_predictor: MakePredictor,
) -> None:
    model = Model(make_predictor(delay_s=0.3), Options("twice", 1, 16))

    async def scenario() -> None:
        busy = asyncio.create_task(model.answer(ITEM))
        await asyncio.sleep(0.02)
        await model.answer(Call(b"[1, 2]", timeout_s=0.4))
        await busy
        assert model.stats()["sheds"] == {"backlog": 1}
        assert model.stats()["requests"] == {"ok": 1, "overloaded": 1}
        told = [each for each in model.decisions() if each["type"] == "shed"]
        assert "the engine and 0 before it take" in told[0]["why"]
        assert json.dumps(model.decisions())

    run(model, scenario)


@contextmanager
def replica_log(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Ray turns its logger's propagation off, where it is imported."""
    log = logging.getLogger("ray.serve")
    log.addHandler(caplog.handler)
    yield
    log.removeHandler(caplog.handler)


def test_a_failure_is_one_line_of_json_with_the_request_id(
    make_predictor: MakePredictor, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(make_predictor(), OPTIONS)

    async def scenario() -> None:
        assert code(await model.answer(Call(b"[13, 0]", request_id="abc-1")))[0] == 500
        assert code(await model.answer(Call(b"[1", request_id="abc-2")))[0] == 400

    with replica_log(caplog):
        run(model, scenario)
    messages = {record.getMessage() for record in caplog.records}
    lines = {message for message in messages if "request_failed" in message}
    (line,) = lines
    found = json.loads(line)
    timings = found.pop("timings_ms")
    assert list(timings) == ["pre", "compute", "total"]
    assert timings["total"] >= timings["pre"] + timings["compute"] > 0
    assert found == {
        "event": "request_failed",
        "model": "twice",
        "status": 500,
        "code": "internal",
        "request_id": "abc-1",
        "error": "the engine choked",
    }


def counting(predictor: Any) -> list[Any]:
    """The items that it pre-processes from now on."""
    seen: list[Any] = []
    own = predictor.preprocess

    def preprocess(item: Any, out: Tensors | None = None) -> Tensors:
        seen.append(item)
        return own(item, out)

    predictor.preprocess = preprocess
    return seen


def test_what_will_be_late_is_turned_away_before_it_is_pre_processed(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor(delay_s=0.2)
    model = Model(predictor, Options("twice", 1, 16))

    async def scenario() -> None:
        seen = counting(predictor)
        busy = asyncio.create_task(model.answer(ITEM))
        await asyncio.sleep(0.05)
        assert code(await model.answer(Call(b"[3, 4]", timeout_s=0.25))) == (429, "overloaded")
        assert (await busy).status == 200
        assert len(seen) == 1
        assert model.stats()["sheds"] == {"backlog": 1}

    run(model, scenario)


def test_the_time_that_a_request_waited_to_be_read_counts(make_predictor: MakePredictor) -> None:
    model = Model(make_predictor(delay_s=0.05), Options("twice", 1, 16))

    async def scenario() -> None:
        reply = await model.answer(Call(b"[1, 2]", timeout_s=0.5, waited_s=0.6))
        assert code(reply) == (429, "overloaded")
        assert (await model.answer(Call(b"[1, 2]", timeout_s=0.5, waited_s=0.1))).status == 200

    run(model, scenario)


def test_slow_post_processing_does_not_turn_away_for_ever(make_predictor: MakePredictor) -> None:
    predictor = make_predictor()
    own, slow = predictor.postprocess, [0.5]

    def postprocess(outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        time.sleep(slow[0])
        return own(outputs)

    predictor.postprocess = postprocess
    model = Model(predictor, Options("twice", 8, 16, slo_ms=100.0))

    async def scenario() -> None:
        for _ in range(20):
            await model.answer(Call(b"[1, 2]"))
            slow[0] = 0.06
        slow[0] = 0.0
        end = time.monotonic() + 20
        while (await model.answer(Call(b"[1, 2]"))).status != 200:
            assert time.monotonic() < end, model.decisions()[:3]
            await asyncio.sleep(0.05)

    run(model, scenario)


def test_requests_of_one_batch_are_post_processed_together_and_fail_alone(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor(delay_s=0.1)
    own, sizes = predictor.postprocess, list[int]()

    def postprocess(outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        sizes.append(len(outputs))
        if any(output["y"][0] == 8 for output in outputs):
            raise ValueError("four, doubled")
        return own(outputs)

    predictor.postprocess = postprocess
    model = Model(predictor, OPTIONS)

    async def scenario() -> None:
        first = asyncio.create_task(model.answer(ITEM))
        await asyncio.sleep(0.05)
        bodies = (b"[1, 2]", b"[[2, 2], [3, 3]]", b"[4, 4]", b"[5, 5]")
        replies = await asyncio.gather(*[model.answer(Call(body)) for body in bodies])
        assert [reply.status for reply in replies] == [200, 200, 500, 200]
        assert len(json.loads(replies[1].body)["answers"]) == 2
        assert (await first).status == 200

    run(model, scenario)
    assert sizes == [1, 5, 1, 2, 1, 1]


def test_items_that_wait_lie_side_by_side_and_are_stacked_without_a_copy(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor(delay_s=0.1)
    own, batches = predictor.run, list[Sequence[Tensors]]()

    def engine(items: Sequence[Tensors]) -> list[Tensors]:
        batches.append([*items])
        return own(items)

    predictor.run = engine
    model = Model(predictor, Options("twice", 8, 16, 1))

    async def scenario() -> None:
        batches.clear()
        await asyncio.gather(*[model.answer(ITEM) for _ in range(6)])
        largest = max(batches, key=len)
        assert len(largest) > 1
        # In the order in which the engine takes them: deadlines may differ by a microsecond.
        largest = [largest[index] for index in side_by_side(largest, range(len(largest)))]
        whole = stack(largest)["x"]
        assert all(np.shares_memory(whole, item["x"]) for item in largest)

    run(model, scenario)
