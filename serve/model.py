"""One model in this process: pre-processing in a pool, the engine in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from runtime.answers import encode_png, to_json
from runtime.predictor import PassedOver
from runtime.tensors import Tensors
from serve.batching import Batcher, ClosedError, Done, hang_s
from serve.body import Items, read_items
from serve.card import describe
from serve.course import Course
from serve.derive import Limits
from serve.journal import GONE, Journal
from serve.law import Law
from serve.messages import Call, Reply, error_reply, json_reply, server_timing, wants_png
from serve.stats import Observer, Stats
from serve.tuning import Options, Tuning
from serve.warmup import WarmUp, off_profile, read_cases, sample_of, warm_up
from specs.errors import DeploycError, InputError
from specs.manifest import Manifest, Variant

if TYPE_CHECKING:  # OpenTelemetry is imported where it is asked for
    from serve.tracing import Tracing

__all__ = ["Model", "Options", "PredictorLike"]

T = TypeVar("T")

MAX_THREADS = 4
GRAIN_S = 0.001
"""What an event loop's timer can tell apart: epoll waits for whole milliseconds."""
RECENT = 0.1
"""Weight of the newest time in the moving mean of post-processing."""
SERVER_ERROR = 500


class PredictorLike(Protocol):
    """What is used of ``runtime.Predictor``."""

    manifest: Manifest
    variant: Variant
    passed_over: tuple[PassedOver, ...]

    @property
    def max_batch(self) -> int: ...
    def preprocess(self, item: Any) -> Tensors: ...  # noqa: ANN401 - bytes, array or arrays
    def run(self, items: Sequence[Tensors]) -> list[Tensors]: ...
    def postprocess(self, outputs: Sequence[Tensors]) -> list[dict[str, Any]]: ...
    def close(self) -> None: ...


_COURSE: ContextVar[Course | None] = ContextVar("course", default=None)


class Model:
    """Answers calls. Lives in one event loop; made in it or in a thread.

    Args:
        predictor: the loaded variant.
        options: how it is served.
        folder: the artifact, for its profile and golden tensors; None: there are none.
        clock: seconds, monotonic.
        hang: seconds after which a batch counts as hung, by its expected time.

    Raises:
        ServeError: an option cannot be, or the profile says that the SLO is impossible.
        ArtifactError: the profile cannot be read.
    """

    def __init__(
        self,
        predictor: PredictorLike,
        options: Options,
        folder: Path | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        hang: Callable[[float], float] = hang_s,
    ) -> None:
        self.name = options.name
        self.limit = predictor.manifest.limits.bytes
        self.counts = Stats()
        self._predictor = predictor
        self._folder = folder
        self._clock = clock
        self._hang = hang
        self._state = "loading"
        self._tuning = Tuning(predictor.manifest, predictor.variant, options, folder)
        self._warm_up: WarmUp | None = None
        self._batcher: Batcher[Tensors, Tensors] | None = None
        self._preparing = 0
        self._post_s = 0.0
        threads = options.threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._journal = Journal(self.variant_in_use(), clock)
        self._pool = ThreadPoolExecutor(threads, f"{options.name}-items")
        self._engine = ThreadPoolExecutor(1, f"{options.name}-engine")

    @property
    def limits(self) -> Limits:
        """What it keeps to now, and where each figure comes from."""
        return self._tuning.limits

    @property
    def manifest(self) -> Manifest:
        """The artifact's."""
        return self._predictor.manifest

    async def card(self) -> dict[str, Any]:
        """What ``GET /models`` says of this model."""
        variant, tuning = self._predictor.variant, self._tuning
        about = describe(self.manifest, variant, self.name, tuning)
        about["warnings"] += [str(each) for each in self._predictor.passed_over]
        if self._warm_up:
            about["warm_up"] = self._warm_up.to_json(tuning.profile)
            off = off_profile(self._warm_up.ms(), tuning.profile) if tuning.profile else []
            about["warnings"] += map(str, off)
        return {**about, "state": self.state}

    @property
    def state(self) -> str:
        """``loading``, ``ready``, ``stuck`` or ``draining``."""
        if self._state == "ready" and self._batcher and self._batcher.stuck:
            return "stuck"
        return self._state

    def variant_in_use(self) -> dict[str, str]:
        """Tags of the metric that says which variant answers, and which ones it stands in for."""
        variant = self._predictor.variant
        passed_over = ",".join(each.variant for each in self._predictor.passed_over)
        tags = {"model": self.name, "variant": variant.name, "passed_over": passed_over}
        return {**tags, "engine": variant.engine, "device": variant.device}

    def observe(self, observer: Observer, tracing: Tracing | None = None) -> None:
        """Tell ``observer`` of all that is counted from now on, and make spans of requests."""
        self.counts.observer, self._journal.tracing = observer, tracing

    def decisions(self) -> list[dict[str, Any]]:
        """The last decisions of the batching law, the newest first (``serve.decisions``)."""
        return self.counts.log.to_json()

    def stats(self) -> dict[str, Any]:
        """Counts since the replica started (``serve.stats.Stats.to_json``), and its present load.

        Beside them ``waiting`` and ``load`` (items), and ``corrections``: by the batch size that a
        bucket ends with, the factor that the curve's time is multiplied by.
        """
        found = self.counts.to_json()
        law = self._batcher.law if self._batcher else None
        found["waiting"], found["load"] = (law.waiting, law.load) if law else (0, 0)
        found["corrections"] = _corrections(law) if law else {}
        return found

    def check_health(self) -> None:
        """Raise StuckError where the engine hangs, so that Ray replaces the replica."""
        if self._batcher:
            self._journal.state(self.state, self._batcher.load)
            self._batcher.check_engine()

    async def warm_up(self) -> None:
        """Run every bucket, compare with the golden outputs and the profile; then be ready.

        Without a profile the times measured here are the curve.

        Raises:
            ParityError: this machine computes something else than what was built.
            ServeError: an item alone takes longer than the SLO (``slo_impossible``).
        """
        variant = self._predictor.variant
        golden = await self._in_pool(lambda: read_cases(self._folder, variant))
        sample = sample_of(self.manifest, variant, golden)
        warm = WarmUp(self._run, variant, self._clock)
        await warm_up(warm, golden, sample, self._tuning)
        law = self._tuning.law()
        for size, seconds in warm.seconds():
            if size <= law.forecast.max_batch:
                law.forecast.learn(size, seconds)
        clock, hang = self._clock, self._hang
        self._batcher = Batcher(
            self._run,
            law,
            key=_shapes,
            clock=clock,
            watcher=self.counts,
            hang=hang,
            grain_s=GRAIN_S,
        )
        self._warm_up, self._state = warm, "ready"
        self._journal.state(self.state, 0)

    def reconfigure(self, config: object) -> None:
        """Take other limits while running; what cannot be is logged and shown, and changes nothing.

        Args:
            config: Ray's ``user_config``: a mapping as ``serve.args.HotArgs`` says, or None.
        """
        if self._tuning.reconfigure(config) and self._batcher:
            self._tuning.adjust(self._batcher.law)

    async def answer(self, call: Call) -> Reply:
        """The reply to one call; never raises but where the caller went away."""
        allowed = self._tuning.slo_s if call.timeout_s is None else call.timeout_s
        course = self._journal.begin(call, allowed)
        token = _COURSE.set(course)
        status, outcome = GONE
        try:
            reply, outcome = await self._reply(call)
            status = reply.status
        finally:
            _COURSE.reset(token)
            took = self._journal.end(course, status, outcome)
        self.counts.request(outcome, took, late=outcome == "ok" and took > allowed)
        return reply

    async def prepare(self, values: Sequence[Any]) -> list[Tensors]:
        """Pre-process items, in the pool.

        Args:
            values: what ``Predictor.preprocess`` takes.

        Raises:
            InputError: an item is at fault, or there are none or too many.
            OverloadError: the call's time is over, or too much is here.
        """
        return await self._prepare(lambda: self._preprocess(Items(list(values), len(values) > 1)))

    async def compute(
        self, items: list[Tensors], *, timeout_s: float | None = None, priority: int = 0
    ) -> list[Done[Tensors]]:
        """Queue items for the engine; their outputs, in order.

        Args:
            items: as ``prepare`` gives them.
            timeout_s: seconds that the answer may take, counted from the beginning of the call
                that this belongs to; by default the call's own, else the SLO.
            priority: the class; lower goes first.

        Raises:
            OverloadError: an item cannot be answered in time.
            ClosedError, StuckError: this replica cannot answer now.
            Exception: what the engine raised for one of the items.
        """
        course, left = self._here(), self._left_s(timeout_s)
        course.enter("compute", self._clock())
        done = await self._queue().submit(
            items, timeout_s=left, priority=priority, label=course.span
        )
        course.leave(self._clock())
        course.rides = [each.ride for each in done if each.ride]
        self.counts.stage("queue", max(each.queued_s for each in done))
        self.counts.stage("engine", max(each.engine_s for each in done))
        return done

    async def finish(self, outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        """Post-process outputs, in the pool: one answer each."""
        return await self._finish(lambda: self._predictor.postprocess(outputs))

    async def close(self) -> None:
        """Answer what was taken, then give the engine back."""
        self._state = "draining"
        self._journal.state(self.state, self._batcher.load if self._batcher else 0)
        if self._batcher:
            await self._batcher.close()
        self._pool.shutdown(wait=False)
        if not (self._batcher and self._batcher.stuck):
            await asyncio.get_running_loop().run_in_executor(self._engine, self._predictor.close)
        self._engine.shutdown(wait=False)

    async def _reply(self, call: Call) -> tuple[Reply, str]:
        """The reply, and the word that it is counted under."""
        try:
            reply = await (self._infer(call) if call.kind == "infer" else self._predict(call))
        except Exception as error:  # noqa: BLE001 - the boundary: every error has its reply
            reply = error_reply(error)
            code = error.code if isinstance(error, DeploycError) else "internal"
            self._journal.failed(call, self._here(), error, reply.status)
            return reply, code if reply.status != SERVER_ERROR else "internal"
        return reply, "ok" if reply.status < 400 else f"http_{reply.status}"  # noqa: PLR2004

    async def _infer(self, call: Call) -> Reply:
        from serve.oip import infer  # which imports this module

        return await infer(self, call)

    async def _predict(self, call: Call) -> Reply:
        began = self._clock()
        items, tensors = await self._prepare(lambda: self._read(call))
        prepared = self._clock()
        done = await self.compute(tensors, timeout_s=call.timeout_s, priority=call.priority)
        computed = self._clock()
        outputs = [each.output for each in done]
        reply = await self._finish(lambda: self._write(call, items.batch, outputs))
        posted = self._clock()
        reply.headers["Server-Timing"] = server_timing(prepared - began, done, posted - computed)
        return reply

    def _here(self) -> Course:
        """Where the call is that this belongs to; a new one, where it belongs to none."""
        return _COURSE.get() or Course(self._clock(), self._tuning.slo_s)

    def _queue(self) -> Batcher[Tensors, Tensors]:
        if self._batcher is None:
            hint = "wait until GET /readyz answers 200"
            raise ClosedError("this replica is not warm yet", hint=hint, code="not_ready")
        return self._batcher

    async def _prepare(self, work: Callable[[], T]) -> T:
        """``work`` in the pool, unless there is no room or no time for it."""
        self._queue().check(self._preparing + 1)  # before any work is spent on it
        course = self._here()
        course.enter("pre", self._clock())
        self._preparing += 1
        try:
            done = await self._in_pool(self._in_time(work, course.deadline))
        finally:
            self._preparing -= 1
        self.counts.stage("pre", course.leave(self._clock()))
        return done

    def _in_time(self, work: Callable[[], T], deadline: float) -> Callable[[], T]:
        """``work``, but not where the deadline passed while it waited for a thread."""

        def run() -> T:
            if self._clock() > deadline:
                raise self._queue().overload("the deadline passed before pre-processing began")
            return work()

        return run

    async def _finish(self, work: Callable[[], T]) -> T:
        course = self._here()
        course.enter("post", self._clock())
        done = await self._in_pool(work)
        took = course.leave(self._clock())
        self._post_s += RECENT * (took - self._post_s)
        self.counts.stage("post", took)
        return done

    def _left_s(self, timeout_s: float | None) -> float:
        """Seconds for queue and engine: what was spent and what comes after is taken off."""
        course = self._here()
        allowed = course.allowed_s if timeout_s is None else timeout_s
        return allowed - (self._clock() - course.began) - self._post_s

    def _read(self, call: Call) -> tuple[Items, list[Tensors]]:
        items = read_items(call, self.manifest)
        return items, self._preprocess(items)

    def _preprocess(self, items: Items) -> list[Tensors]:
        if not items.values:
            raise InputError("the list of items is empty", code="empty_body")
        most = self.limits.max_items.value
        if len(items.values) > most:
            message = f"{len(items.values)} items in one request; at most {most}"
            raise InputError(message, hint="send them in several requests", code="too_large")
        return [self._preprocess_one(n, items) for n in range(len(items.values))]

    def _preprocess_one(self, number: int, items: Items) -> Tensors:
        try:
            return self._predictor.preprocess(items.values[number])
        except InputError as error:
            if not items.batch:
                raise
            message = f"item {number}: {error.message}"
            raise InputError(message, hint=error.hint, code=error.code) from error

    def _write(self, call: Call, batch: bool, outputs: list[Tensors]) -> Reply:
        answers = self._predictor.postprocess(outputs)
        if batch:
            return json_reply({"model": self.name, "answers": [to_json(a) for a in answers]})
        if "image" in answers[0] and wants_png(call.accept):
            return Reply(200, encode_png(answers[0]["image"]), "image/png")
        return json_reply({"model": self.name, "answer": to_json(answers[0])})

    async def _run(self, batch: list[Tensors]) -> list[Tensors]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._engine, self._predictor.run, batch)

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _corrections(law: Law) -> dict[str, float]:
    sizes = [size for size in law.forecast.curve.sizes if size <= law.forecast.max_batch]
    return {str(size): round(law.forecast.ratio(size), 4) for size in sizes}


def _shapes(tensors: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in tensors.values())
