"""Traces: every request's way through a replica, and nothing where nobody asked for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import StatusCode
from starlette.testclient import TestClient

from serve.http import http_app
from serve.messages import Call
from serve.model import Model, Options
from serve.stats import Observer
from serve.telemetry import asked_exporters
from serve.tracing import MOST_LINKS, Tracing

MakePredictor = Callable[..., Any]
ITEM = b"[1, 2]"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Traced:
    """A model, and the spans that it made."""

    predictor: Any
    model: Model
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def trace(self, sampler: Sampler | None = None) -> None:
        """Export to this."""
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracing = Tracing(provider.get_tracer("test"), self.model.variant_in_use())
        self.model.observe(Observer(), tracing)

    def roots(self) -> list[ReadableSpan]:
        return [each for each in self._spans() if each.name.startswith("deployc.")]

    def below(self, root: ReadableSpan) -> dict[str, ReadableSpan]:
        """Its spans by name, in the order of their beginnings."""
        own = [e for e in self._spans() if e.parent and e.parent.span_id == _id(root)]
        return {each.name: each for each in sorted(own, key=lambda each: each.start_time or 0)}

    def _spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


def _id(span: ReadableSpan) -> int:
    assert span.context
    return span.context.span_id


def _times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time
    assert span.end_time
    return span.start_time, span.end_time


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def traced(make_predictor: MakePredictor) -> Callable[..., Traced]:
    """Makes a model that is traced; keywords go to the predictor."""

    def make(options: Options | None = None, **changes: Any) -> Traced:
        predictor = make_predictor(**changes)
        options = options or Options("twice", max_batch=8, max_items=64)
        return Traced(predictor, Model(predictor, options))

    return make


def run(
    it: Traced,
    scenario: Callable[[], Awaitable[object]],
    sampler: Sampler | None = None,
    slower_s: float = 0.0,
) -> None:
    """Warm the model up, trace, play the scenario with a slower engine, close the model."""

    async def main() -> None:
        await it.model.warm_up()
        it.trace(sampler)
        it.predictor.delay_s += slower_s
        await asyncio.wait_for(scenario(), 30)
        await it.model.close()

    asyncio.run(main())


def test_a_request_is_a_span_with_pre_queue_engine_and_post_below_it(
    traced: Callable[..., Traced],
) -> None:
    it = traced()
    run(it, lambda: it.model.answer(Call(ITEM, request_id="r-1")), slower_s=0.02)
    (root,) = it.roots()
    below = it.below(root)
    assert root.name == "deployc.predict"
    assert list(below) == ["pre", "queue", "engine", "post"]
    began, ended = _times(root)
    marks = [began]
    for each in below.values():
        marks += _times(each)
    assert marks == sorted(marks), "one after the other, inside of the request"
    assert marks[-1] <= ended
    engine = _times(below["engine"])
    assert 0.02e9 <= engine[1] - engine[0] <= ended - began


def test_the_span_tells_the_model_the_outcome_and_how_much_time_was_left(
    traced: Callable[..., Traced],
) -> None:
    it = traced()
    run(it, lambda: it.model.answer(Call(ITEM, request_id="r-1", timeout_s=5.0)))
    (root,) = it.roots()
    told = attributes(root)
    assert 0 < told.pop("deployc.slack_ms") < 5000
    assert told == {
        "deployc.model": "twice",
        "deployc.variant": "fake-cpu-fp32",
        "deployc.engine": "fake",
        "deployc.device": "cpu",
        "deployc.request_id": "r-1",
        "deployc.priority": 0,
        "deployc.allowed_ms": 5000.0,
        "deployc.body_bytes": 6,
        "http.response.status_code": 200,
        "deployc.outcome": "ok",
    }


def test_the_engine_span_says_why_it_was_this_batch_in_the_words_of_decisions(
    traced: Callable[..., Traced],
) -> None:
    it = traced()
    run(it, lambda: it.model.answer(Call(b"[[1, 2], [3, 4], [5, 6]]")))
    (root,) = it.roots()
    told = attributes(it.below(root)["engine"])
    (decided,) = [each for each in it.model.decisions() if each["type"] == "cut"]
    assert told["deployc.batch"] == told["deployc.batch.own_items"] == 3
    assert told["deployc.decision.why"] == decided["why"]
    assert told["deployc.decision.rule"] == decided["rule"]
    assert told["deployc.decision.slack_ms"] == decided["slack_ms"]


def test_those_who_share_a_batch_are_linked_with_each_other(traced: Callable[..., Traced]) -> None:
    it = traced()

    async def scenario() -> None:
        busy = asyncio.create_task(it.model.answer(Call(ITEM, request_id="first")))
        await asyncio.sleep(0.02)
        await asyncio.gather(*(it.model.answer(Call(ITEM, request_id=name)) for name in "abc"))
        await busy

    run(it, scenario, slower_s=0.05)
    roots = {attributes(each)["deployc.request_id"]: each for each in it.roots()}
    linked = {
        name: {link.context.span_id for link in it.below(root)["engine"].links}
        for name, root in roots.items()
    }
    assert linked["first"] == set()
    for name in "abc":
        assert linked[name] == {_id(roots[other]) for other in "abc" if other != name}


def test_links_are_bounded(traced: Callable[..., Traced]) -> None:
    many = MOST_LINKS + 4
    it = traced(
        Options("twice", max_items=128), delay_s=0.05, batch={"min": 1, "opt": 8, "max": 64}
    )

    async def scenario() -> None:
        await asyncio.gather(*(it.model.answer(Call(ITEM)) for _ in range(2 * many)))

    run(it, scenario, slower_s=0.05)
    counts = [len(it.below(each)["engine"].links) for each in it.roots()]
    assert max(counts) == MOST_LINKS


def test_items_that_rode_in_several_batches_have_a_span_for_each(
    traced: Callable[..., Traced],
) -> None:
    it = traced(Options("twice", max_batch=2, max_items=64), delay_s=0.02)
    run(it, lambda: it.model.answer(Call(b"[[1, 2], [3, 4], [5, 6]]")))
    names = [each.name for each in it.exporter.get_finished_spans()]
    assert names.count("engine") == names.count("queue") == 2
    assert (names.count("pre"), names.count("post")) == (1, 1)


def test_a_span_continues_the_client_s_trace(traced: Callable[..., Traced]) -> None:
    it = traced()

    async def scenario() -> None:
        await it.model.answer(Call(ITEM, traceparent=PARENT, tracestate="vendor=1"))
        await it.model.answer(Call(ITEM, traceparent="00-nonsense"))

    run(it, scenario)
    continued, new = it.roots()
    assert continued.context
    assert continued.parent
    assert f"{continued.context.trace_id:032x}" == TRACE
    assert f"{continued.parent.span_id:016x}" == "b7ad6b7169203331"
    assert continued.context.trace_state.get("vendor") == "1"
    assert new.parent is None


@pytest.mark.parametrize("path", ["/models/twice/predict", "/v2/models/twice.tensors/infer"])
def test_the_header_traceparent_reaches_the_span(traced: Callable[..., Traced], path: str) -> None:
    it = traced()
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    body: Any = [1, 2] if "predict" in path else {"inputs": [tensor]}
    with TestClient(http_app([it.model])) as client:
        assert client.portal
        client.portal.call(it.model.warm_up)
        it.trace()
        reply = client.post(path, json=body, headers={"traceparent": PARENT})
        client.portal.call(it.model.close)
    assert reply.status_code == 200, reply.text
    (root,) = it.roots()
    assert root.context
    assert f"{root.context.trace_id:032x}" == TRACE
    assert root.name == f"deployc.{path.rsplit('/', 1)[1]}"
    assert "engine" in it.below(root)


def test_an_engine_that_fails_makes_the_request_s_span_an_error(
    traced: Callable[..., Traced],
) -> None:
    it = traced()
    run(it, lambda: it.model.answer(Call(b"[13, 0]")))
    (root,) = it.roots()
    assert root.status.status_code is StatusCode.ERROR
    assert root.status.description == "the engine choked"
    assert attributes(root)["error.type"] == "internal"
    assert list(it.below(root)) == ["pre", "queue or engine"]


def test_a_request_that_is_turned_away_says_why_and_is_no_error_of_the_server(
    traced: Callable[..., Traced],
) -> None:
    it = traced(Options("twice", 1, 16), delay_s=0.2)

    async def scenario() -> None:
        busy = asyncio.create_task(it.model.answer(Call(ITEM)))
        await asyncio.sleep(0.02)
        await it.model.answer(Call(ITEM, timeout_s=0.25, request_id="shed"))
        await busy

    run(it, scenario)
    (root,) = [each for each in it.roots() if attributes(each)["deployc.request_id"] == "shed"]
    told = attributes(root)
    assert told["http.response.status_code"] == 429
    assert told["error.type"] == told["deployc.outcome"] == "overloaded"
    assert "the engine and 0 before it take" in told["deployc.error"]
    assert root.status.status_code is StatusCode.UNSET
    assert list(it.below(root)) == ["pre"]


def test_a_bad_item_fails_in_pre(traced: Callable[..., Traced]) -> None:
    it = traced()
    run(it, lambda: it.model.answer(Call(b"[1")))
    (root,) = it.roots()
    assert list(it.below(root)) == ["pre"]
    assert attributes(it.below(root)["pre"])["error.type"] == "bad_json"


def test_a_client_that_goes_away_leaves_no_span_open(traced: Callable[..., Traced]) -> None:
    it = traced()

    async def scenario() -> None:
        gone = asyncio.create_task(it.model.answer(Call(ITEM)))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)

    run(it, scenario, slower_s=0.2)
    (root,) = it.roots()
    assert attributes(root)["deployc.outcome"] == "client_gone"
    assert attributes(root)["http.response.status_code"] == 499


def test_what_the_sampler_leaves_out_makes_no_spans(traced: Callable[..., Traced]) -> None:
    it = traced()
    run(it, lambda: it.model.answer(Call(ITEM)), ALWAYS_OFF)
    assert not it.exporter.get_finished_spans()


# --- whether and where to


@pytest.mark.parametrize(
    ("environment", "exporters"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, ["otlp_proto_grpc"]),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "e", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
        ),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "e", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_opentelemetry_s_own_variables_say_where_spans_go(
    environment: dict[str, str], exporters: list[str]
) -> None:
    assert asked_exporters(environment) == exporters


# The provider is the process's own and can be set but once: each case has a process.
SETUP = """
import logging, os, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout, level="INFO")
from opentelemetry import trace
from serve import telemetry
from serve.course import Course
from serve.messages import Call
found = telemetry.tracing({"model": "twice"})
print("tracing", found is not None, "spans", "serve.tracing" in sys.modules)
if found:
    course = Course(0.0, 1.0)
    found.begin(Call(b""), course)
    found.end(course, 200, "ok", 0.5)
telemetry.flush()
sys.stdout.flush()
os._exit(0)  # as Ray ends a replica: nothing runs at exit
"""


@pytest.fixture
def replica() -> Callable[..., str]:
    """What a replica's start prints with these variables."""

    def start(**variables: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        done = subprocess.run(
            [sys.executable, "-c", SETUP],
            env={**clean, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


def test_without_a_variable_nothing_traces_and_nothing_is_imported_for_it(
    replica: Callable[..., str],
) -> None:
    assert replica() == "tracing False spans False\n"


def test_with_a_variable_spans_are_exported_when_the_replica_ends(
    replica: Callable[..., str],
) -> None:
    printed = replica(OTEL_TRACES_EXPORTER="console", OTEL_RESOURCE_ATTRIBUTES="rack=7")
    assert "tracing True spans True" in printed
    assert '"name": "deployc.predict"' in printed
    assert '"service.name": "deployc"' in printed
    assert '"rack": "7"' in printed


def test_an_exporter_that_is_not_installed_is_told_of_and_stops_nothing(
    replica: Callable[..., str],
) -> None:
    printed = replica(OTEL_TRACES_EXPORTER="jaeger_of_old")
    assert "tracing False" in printed
    assert '"event": "tracing_off"' in printed
    assert "install opentelemetry-exporter-jaeger-of-old" in printed


def test_a_protocol_that_otlp_does_not_have_is_told_of(replica: Callable[..., str]) -> None:
    printed = replica(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="smoke")
    assert "'smoke' is no protocol of OTLP" in printed


class Collector(BaseHTTPRequestHandler):
    """Takes what OTLP's exporter sends over HTTP."""

    names: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        sent = ExportTraceServiceRequest.FromString(body)
        type(self).names += [
            span.name
            for r in sent.resource_spans
            for scope in r.scope_spans
            for span in scope.spans
        ]
        self.send_response(200)
        self.end_headers()


def test_spans_reach_a_collector_over_otlp(replica: Callable[..., str]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the exporter is optional")
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        printed = replica(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_COMPRESSION="none",
        )
        server.shutdown()
    assert "tracing True" in printed
    assert Collector.names == ["deployc.predict"]
