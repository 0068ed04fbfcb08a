"""Structured logs: a JSON object per failure and per change of state, none for what went well."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.handlers
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter

from serve.events import tell
from serve.messages import Call
from serve.model import Model, Options

MakePredictor = Callable[..., Any]
OPTIONS = Options("twice", max_batch=8, max_items=16, threads=2)
BROKEN = Call(b"[13, 0]", request_id="broken-1")
MISTAKEN = Call(b"[1", request_id="mistaken-1")


class Lines(logging.Handler):
    """Keeps what is logged: the message, and the line that Ray writes where it encodes as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []
        self.encoded: list[dict[str, Any]] = []
        self.flushed = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(json.loads(record.getMessage()))
        self.encoded.append(json.loads(JSONFormatter().format(record)))

    def flush(self) -> None:
        self.flushed += 1

    def of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.messages if each["event"] == event]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What goes to a replica's log, at Ray's default level."""
    log, handler = logging.getLogger("ray.serve"), Lines()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


def run(model: Model, scenario: Callable[[], Awaitable[object]]) -> None:
    """Warm the model up, play the scenario, close the model."""

    async def main() -> None:
        await model.warm_up()
        await asyncio.wait_for(scenario(), 30)
        await model.close()

    asyncio.run(main())


def test_what_is_answered_well_writes_no_line(make_predictor: MakePredictor, lines: Lines) -> None:
    model = Model(make_predictor(), OPTIONS)
    run(model, lambda: model.answer(Call(b"[1, 2]")))
    assert lines.of("request_failed") == []


def test_a_failure_is_one_line_with_the_request_s_id_and_where_its_time_went(
    make_predictor: MakePredictor, lines: Lines
) -> None:
    model = Model(make_predictor(), OPTIONS)
    run(model, lambda: model.answer(BROKEN))
    (line,) = lines.of("request_failed")
    timings = line.pop("timings_ms")
    assert list(timings) == ["pre", "compute", "total"]
    assert 0 < timings["pre"] + timings["compute"] <= timings["total"]
    assert line == {
        "event": "request_failed",
        "request_id": "broken-1",
        "model": "twice",
        "status": 500,
        "code": "internal",
        "error": "the engine choked",
    }


def test_where_ray_encodes_as_json_the_fields_are_at_the_top_with_the_traceback(
    make_predictor: MakePredictor, lines: Lines
) -> None:
    model = Model(make_predictor(), OPTIONS)
    run(model, lambda: model.answer(BROKEN))
    (line,) = [each for each in lines.encoded if each.get("event") == "request_failed"]
    assert (line["request_id"], line["model"], line["code"]) == ("broken-1", "twice", "internal")
    assert line["timings_ms"]["total"] > 0
    assert line["levelname"] == "ERROR"
    assert "RuntimeError: the engine choked" in line["exc_text"]


def test_a_client_s_mistake_is_a_line_only_at_debug(
    make_predictor: MakePredictor, lines: Lines
) -> None:
    model = Model(make_predictor(), OPTIONS)

    async def scenario() -> None:
        await model.answer(MISTAKEN)
        assert lines.of("request_failed") == []
        logging.getLogger("ray.serve").setLevel(logging.DEBUG)
        await model.answer(MISTAKEN)

    run(model, scenario)
    (line,) = lines.of("request_failed")
    assert (line["request_id"], line["status"], line["code"]) == ("mistaken-1", 400, "bad_json")


def test_every_change_of_state_is_one_line(make_predictor: MakePredictor, lines: Lines) -> None:
    predictor = make_predictor()
    model = Model(predictor, Options("twice", 1, 16), hang=lambda _: 0.05)

    async def scenario() -> None:
        model.check_health()
        predictor.delay_s = 0.5
        assert (await model.answer(Call(b"[1, 2]"))).status == 503
        for _ in range(2):
            with pytest.raises(Exception, match="the engine hangs"):
                model.check_health()
        await asyncio.sleep(0.6)
        model.check_health()

    run(model, scenario)
    changes = [(each["was"], each["state"]) for each in lines.of("state_changed")]
    assert changes == [
        ("loading", "ready"),
        ("ready", "stuck"),
        ("stuck", "ready"),
        ("ready", "draining"),
    ]
    ready = lines.of("state_changed")[0]
    assert (ready["model"], ready["variant"], ready["engine"]) == ("twice", "fake-cpu-fp32", "fake")
    levels = [each["levelname"] for each in lines.encoded if each["event"] == "state_changed"]
    assert levels == ["INFO", "ERROR", "INFO", "INFO"]


def test_an_event_is_written_at_once_though_ray_keeps_lines_back(lines: Lines) -> None:
    file = io.StringIO()
    late = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(file))
    log = logging.getLogger("ray.serve")
    log.addHandler(late)
    tell("state_changed", {"state": "ready"})
    log.removeHandler(late)
    assert json.loads(file.getvalue()) == {"event": "state_changed", "state": "ready"}
    assert lines.flushed == 1


def test_what_json_does_not_have_is_written_as_text_and_none_is_left_out(lines: Lines) -> None:
    tell("told", {"path": Path("a"), "nothing": None, "text": "größer \ud83d"})
    assert lines.messages == [{"event": "told", "path": "a", "text": "größer \ud83d"}]


# --- deadline misses and sheds: counted, and passed on to what exports them


def test_a_slo_that_the_engine_breaks_is_counted_as_misses_and_sheds(
    make_predictor: MakePredictor,
) -> None:
    from serve.stats import Observer, Stage

    class Heard(Observer):
        """What Ray's metrics are told."""

        def __init__(self) -> None:
            self.requests: list[tuple[str, bool]] = []
            self.sheds: list[str] = []
            self.stages: set[Stage] = set()

        def request(self, outcome: str, *, late: bool) -> None:
            self.requests.append((outcome, late))

        def shed(self, rule: str) -> None:
            self.sheds.append(rule)

        def stage(self, stage: Stage, seconds: float) -> None:
            assert seconds >= 0
            self.stages.add(stage)

    predictor = make_predictor(delay_s=0.001)
    model = Model(predictor, Options("twice", 1, 16, slo_ms=30.0))
    heard = Heard()

    async def scenario() -> None:
        model.observe(heard)
        predictor.delay_s = 0.1  # three times the SLO, and nobody told the law
        first = asyncio.create_task(model.answer(Call(b"[1, 2]")))
        await asyncio.sleep(0.01)
        others = await asyncio.gather(*(model.answer(Call(b"[1, 2]")) for _ in range(4)))
        assert (await first).status == 200
        assert [each.status for each in others] == [429] * 4

    run(model, scenario)
    stats = model.stats()
    assert stats["late"] == 1
    assert stats["requests"] == {"ok": 1, "overloaded": 4}
    assert sum(stats["sheds"].values()) == 4
    assert sorted(heard.requests) == [("ok", True), *[("overloaded", False)] * 4]
    assert sorted(heard.sheds) == sorted(
        rule for rule, count in stats["sheds"].items() for _ in range(count)
    )
    assert heard.stages == {"pre", "queue", "engine", "post"}
