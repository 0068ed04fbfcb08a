"""One model of two artifacts: who answers, what is compared, and what people are told."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from runtime.tensors import Tensors
from serve import canary
from serve.app import build
from serve.args import AppArgs, HotSplit, ParityGate, SplitGate
from serve.artifacts import digest_of
from serve.canary import ARTIFACT, COPIES, Pair, SplitModel, SplitObserver, check_alike, reconfigure
from serve.http import http_app
from serve.messages import Call, Reply, json_reply
from serve.model import Model, Options
from serve.replies_apart import replies_apart
from serve.split import Outcome, Shares, Side, Split
from specs.errors import ServeError
from specs.schema import TensorSpec

MakePredictor = Callable[..., Any]
MakeManifest = Callable[..., Any]
Run = Callable[[Sequence[Tensors]], list[Tensors]]
OPTIONS = Options("twice", max_batch=8, max_items=64, threads=2)
CALL = Call(b"[1, 2]", "application/json")
OLD, NEW = "a" * 64, "b" * 64
PARITY = SplitGate(min_requests=5, max_latency_ratio=None, parity=ParityGate())


def pair(weight: float, sample: float = 0.0, gate: SplitGate = PARITY) -> Pair:
    mode = "canary" if weight else "shadow"
    return Pair(mode, f"twice-{mode}", OLD, NEW, Shares(weight, sample), gate)


def plus(amount: float) -> Run:
    """An engine whose answers are off by so much."""
    return lambda items: [{"y": np.add(np.multiply(2, item["x"]), amount)} for item in items]


def broken(_: Sequence[Tensors]) -> list[Tensors]:
    raise RuntimeError("the engine choked")


def slowly(_: Sequence[Tensors]) -> list[Tensors]:
    time.sleep(0.15)
    return [{"y": np.zeros(2)} for _ in _]


class Heard(SplitObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.agreed: list[bool] = []
        self.weights: list[float] = []

    def answered(self, side: Side, outcome: Outcome) -> None:
        self.outcomes.append((side, outcome))

    def compared(self, *, agree: bool) -> None:
        self.agreed.append(agree)

    def changed(self, split: Split) -> None:
        self.weights.append(split.weight)


def play(
    make: MakePredictor,
    how: Pair,
    scenario: Callable[[SplitModel], Awaitable[None]],
    engine: Run | None = None,
    observer: SplitObserver | None = None,
) -> None:
    """The scenario over two warm models, of which the new one has ``engine``."""

    async def main() -> None:
        predictors = make(), make()
        models = [Model(predictor, OPTIONS) for predictor in predictors]
        for model in models:
            await model.warm_up()
        if engine:
            predictors[1].run = engine
        split = SplitModel(how, models[0], models[1], observer)
        await asyncio.wait_for(scenario(split), 20)
        await split.drained()
        for model in models:
            await model.close()

    asyncio.run(main())


async def ask(model: SplitModel, times: int, call: Call = CALL) -> list[Reply]:
    replies: list[Reply] = []
    for _ in range(times):
        replies.append(await model.answer(call))
        await model.drained()
    return replies


def answered(replies: list[Reply]) -> set[str]:
    return {reply.headers[ARTIFACT] for reply in replies}


def test_a_header_names_who_answered_and_both_do(make_predictor: MakePredictor) -> None:
    async def scenario(model: SplitModel) -> None:
        replies = await ask(model, 40)
        assert {reply.status for reply in replies} == {200}
        assert answered(replies) == {OLD[:12], NEW[:12]}
        same = answered(await ask(model, 10, replace(CALL, request_id="me")))
        assert len(same) == 1
        assert json.loads(replies[0].body)["model"] == "twice"

    play(make_predictor, pair(0.5), scenario)


def test_a_shadow_answers_nobody_and_equal_answers_keep_it(make_predictor: MakePredictor) -> None:
    async def scenario(model: SplitModel) -> None:
        assert answered(await ask(model, 30)) == {OLD[:12]}
        told = model.split.to_json()
        assert told["compared"] == {"agree": 30}
        assert told["counts"]["new"] == {"ok": 30}
        assert told["state"] == "running"

    play(make_predictor, pair(0, 1.0), scenario)


def test_a_shadow_with_other_answers_is_rolled_back_and_that_is_told(
    make_predictor: MakePredictor, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(model: SplitModel) -> None:
        assert answered(await ask(model, 30)) == {OLD[:12]}
        card = await model.card()
        assert card["state"] == "ready"
        told = card["split"]
        assert (told["state"], told["reason"]["rule"]) == ("rolled_back", "parity")
        assert told["artifacts"]["stable"]["digest"] == OLD
        assert told["artifacts"]["new"]["digest"] == NEW
        assert told["artifacts"]["new"]["deployment"] == "twice-shadow"
        assert told["compared"]["disagree"] < 30  # no copies were sent afterwards
        assert any("twice-shadow was rolled back" in each for each in card["warnings"])

    with caplog.at_level(logging.ERROR, "ray.serve"):
        play(make_predictor, pair(0, 1.0), scenario, plus(0.5))
    lines = [json.loads(record.message) for record in caplog.records]
    assert [line["event"] for line in lines] == ["rolled_back"]
    assert lines[0]["artifact"] == NEW


def test_a_canary_that_fails_is_covered_by_the_stable_one_and_rolled_back(
    make_predictor: MakePredictor,
) -> None:
    async def scenario(model: SplitModel) -> None:
        replies = await ask(model, 60)
        assert {reply.status for reply in replies} == {200}
        assert answered(replies) == {OLD[:12]}
        told = model.split.to_json()
        assert told["state"] == "rolled_back"
        assert told["reason"]["rule"] == "error_rate"
        assert 5 <= told["counts"]["new"]["failed"] < 30

    play(make_predictor, pair(0.5), scenario, broken)


def test_a_canary_that_does_not_answer_is_not_waited_for(
    make_predictor: MakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "PATIENCE_S", 0.02)

    async def scenario(model: SplitModel) -> None:
        (reply,) = await ask(model, 1)
        assert reply.status == 200
        assert answered([reply]) == {OLD[:12]}
        assert model.split.to_json()["counts"]["new"] == {"failed": 1}

    play(make_predictor, pair(1.0), scenario, slowly)


def test_a_bad_request_is_refused_and_counts_against_nobody(make_predictor: MakePredictor) -> None:
    async def scenario(model: SplitModel) -> None:
        replies = await ask(model, 30, Call(b"[1, 2", "application/json"))
        assert {reply.status for reply in replies} == {400}
        told = model.split.to_json()
        assert told["state"] == "running"
        assert told["counts"]["new"]["refused"] + told["counts"]["stable"]["refused"] == 30
        assert told["compared"] == {}

    play(make_predictor, pair(0.5, 1.0), scenario)


def test_copies_never_delay_the_answer_and_are_dropped_when_there_are_many(
    make_predictor: MakePredictor,
) -> None:
    async def scenario(model: SplitModel) -> None:
        began = time.perf_counter()
        replies = await asyncio.gather(*(model.answer(CALL) for _ in range(COPIES + 6)))
        assert time.perf_counter() - began < 0.14
        assert {reply.status for reply in replies} == {200}
        assert model.split.to_json()["compared"] == {"dropped": 6}

    play(make_predictor, pair(0, 1.0), scenario, slowly)


def test_a_canary_s_answers_are_compared_with_the_stable_one_s(
    make_predictor: MakePredictor,
) -> None:
    async def scenario(model: SplitModel) -> None:
        await ask(model, 40)
        assert model.split.to_json()["reason"]["rule"] == "parity"

    play(make_predictor, pair(1.0, 1.0), scenario, plus(0.5))


def test_an_observer_hears_of_answers_comparisons_and_the_roll_back(
    make_predictor: MakePredictor,
) -> None:
    heard = Heard()

    async def scenario(model: SplitModel) -> None:
        model.change(HotSplit(weight=1.0, sample=1.0))
        await ask(model, 40)

    play(make_predictor, pair(0.25, 0.5), scenario, plus(0.5), heard)
    assert heard.weights == [0.25, 1.0, 0.0]
    assert set(heard.outcomes) == {("new", "ok"), ("stable", "ok")}
    assert heard.agreed
    assert not any(heard.agreed)


def test_a_copy_is_no_outcome_where_the_new_artifact_answers_too(
    make_predictor: MakePredictor,
) -> None:
    async def scenario(model: SplitModel) -> None:
        replies = await ask(model, 40)
        new = sum(reply.headers[ARTIFACT] == NEW[:12] for reply in replies)
        assert model.split.rolled_back is not None
        assert sum(model.split.to_json()["counts"]["new"].values()) == new

    play(make_predictor, pair(0.3, 1.0), scenario, plus(0.5))


def test_over_http_the_header_and_both_artifacts_are_there(make_predictor: MakePredictor) -> None:
    async def scenario(model: SplitModel) -> None:
        transport = httpx.ASGITransport(http_app([model]))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/models/twice/predict", json=[1, 2])
            assert response.headers[ARTIFACT] == NEW[:12]
            (card,) = (await client.get("/models")).json()["models"]
            assert set(card["split"]["artifacts"]) == {"stable", "new"}
            assert card["split"]["counts"]["new"] == {"ok": 1}
            stats = (await client.get("/models/twice/stats")).json()["stats"]
            assert (stats["requests"], stats["new"]["requests"]) == ({}, {"ok": 1})
            assert (await client.get("/models/twice/decisions")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200

    play(make_predictor, pair(1.0), scenario)


# --- hot changes


def test_a_user_config_changes_the_shares_of_one_model_and_none_goes_back(
    make_predictor: MakePredictor,
) -> None:
    async def scenario(model: SplitModel) -> None:
        reconfigure([model], {"splits": {"twice": {"weight": 1.0}}})
        assert answered(await ask(model, 10)) == {NEW[:12]}
        reconfigure([model], None)
        assert model.split.weight == 0.25

    play(make_predictor, pair(0.25), scenario)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"splits": {"twice": {"weight": 2}}}, "less than or equal to 1"),
        ({"splits": {"twice": {"wieght": 0.1}}}, "splits.twice.wieght"),
        ({"splits": {"twcie": {"weight": 0.1}}}, "'twcie' has neither"),
        ("half", "user_config"),
    ],
)
def test_a_user_config_that_cannot_be_changes_nothing_and_is_told(
    make_predictor: MakePredictor, config: object, said: str
) -> None:
    async def scenario(model: SplitModel) -> None:
        reconfigure([model], config)
        assert model.split.weight == 0.25
        assert any(said in each for each in (await model.card())["warnings"])
        reconfigure([model], {})
        assert not any("user_config" in each for each in (await model.card())["warnings"])

    play(make_predictor, pair(0.25), scenario)


def test_a_shadow_takes_no_weight(make_predictor: MakePredictor) -> None:
    async def scenario(model: SplitModel) -> None:
        reconfigure([model], {"splits": {"twice": {"weight": 0.5}}})
        assert model.split.weight == 0
        assert "shadow, which answers nobody" in model.refused

    play(make_predictor, pair(0, 0.5), scenario)


# --- comparing replies


def png(*levels: int, compress: int = 6) -> bytes:
    file = io.BytesIO()
    pixels = np.array([levels], np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=compress)
    return file.getvalue()


def test_pictures_are_compared_by_their_pixels() -> None:
    gate = ParityGate()
    one, same, other = png(1, 2), png(1, 2, compress=0), png(1, 9)
    assert one != same
    replies = [Reply(200, each, "image/png") for each in (one, same, other)]
    assert replies_apart(replies[0], replies[1], gate) == 0
    assert replies_apart(replies[0], replies[2], gate) == 7


def classes(*indices: int) -> Reply:
    entries = [{"index": index, "probability": 0.5} for index in indices]
    return json_reply({"model": "m", "answer": {"classes": entries}})


def test_the_best_class_alone_counts_where_that_is_asked() -> None:
    top, values = ParityGate(by="top"), ParityGate()
    assert replies_apart(classes(3, 1), classes(3, 2), top) == 0
    assert replies_apart(classes(3, 1), classes(3, 2), values) > 1
    assert replies_apart(classes(1, 3), classes(3, 1), top) > 1
    assert replies_apart(classes(), classes(3), top) > 1


def test_a_refusal_is_infinitely_far_from_an_answer() -> None:
    assert replies_apart(json_reply({}, 400), classes(1), ParityGate()) == float("inf")


# --- what is refused before anything starts


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"canary": {"artifact": "y"}}, "canary.weight"),
        ({"canary": {"artifact": "y", "weight": 1.5}}, "canary.weight"),
        ({"canary": {"artifact": "y", "wieght": 0.5}}, "canary.wieght"),
        ({"shadow": {"artifact": "y", "weight": 0.5}}, "shadow.weight"),
        ({"canary": {"artifact": "y", "weight": 0.1, "gate": {"parity": {}}}}, "set sample"),
        ({"shadow": {"artifact": "y", "gate": {"parity": {"atol": 0, "rtol": 0}}}}, "atol"),
        ({"shadow": {"artifact": "y", "gate": {"min_requests": 1}}}, "min_requests"),
        (
            {"shadow": {"artifact": "y"}, "canary": {"artifact": "y", "weight": 0.1}},
            "not both",
        ),
    ],
)
def test_wrong_arguments_are_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ServeError) as caught:
        AppArgs.parse({"models": [{"artifact": "x", **model}]})
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"takes": "image"}, "takes"),
        ({"answer": "classes"}, "answers"),
        ({"inputs": {"x": TensorSpec(shape=("batch", 3))}}, "float32 [?, 2]"),
        ({"outputs": {"z": TensorSpec(shape=("batch", 2))}}, "has the outputs"),
    ],
)
def test_artifacts_that_are_not_alike_are_refused_with_the_difference(
    make_manifest: MakeManifest, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ServeError) as caught:
        check_alike("m", make_manifest(), make_manifest(**changes), PARITY)
    assert said in caught.value.message
    renamed = make_manifest(inputs={"x": TensorSpec(shape=("n", 2))}, name="other")
    check_alike("m", make_manifest(), renamed, PARITY)


def test_the_best_class_cannot_be_compared_where_there_is_none(make_manifest: MakeManifest) -> None:
    gate = SplitGate(parity=ParityGate(by="top"))
    with pytest.raises(ServeError, match="no best class"):
        check_alike("m", make_manifest(), make_manifest(), gate)


def test_an_application_has_a_deployment_for_each_artifact(digits_artifact: Path) -> None:
    artifact = str(digits_artifact)
    shadow = {"artifact": artifact, "variant": None, "replicas": 2}
    application: Any = build({"models": [{"artifact": artifact, "shadow": shadow}]})
    gate = application._bound_deployment
    assert gate.name == "ingress"
    limits, pairs, protected, *bound = gate.init_args
    names = [each._bound_deployment.name for each in bound]
    assert names == ["digits", "digits-shadow"]
    assert bound[1]._bound_deployment.num_replicas == 2
    assert list(limits) == ["digits"]
    assert protected is False
    assert pairs["digits"].new == digest_of(digits_artifact)


def test_an_application_of_artifacts_that_are_not_alike_is_refused(
    digits_artifact: Path, linear_artifact: Path
) -> None:
    shadow = {"artifact": str(linear_artifact)}
    with pytest.raises(ServeError, match="takes image, the new one tensors"):
        build({"models": [{"artifact": str(digits_artifact), "shadow": shadow}]})


def test_the_deployment_of_a_new_artifact_needs_a_free_name(digits_artifact: Path) -> None:
    artifact = str(digits_artifact)
    first = {"artifact": artifact, "canary": {"artifact": artifact, "weight": 0.1}}
    with pytest.raises(ServeError, match="two models are called 'digits-canary'"):
        build({"models": [first, {"artifact": artifact, "name": "digits-canary"}]})
