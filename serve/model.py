"""One model in this process: pre-processing in a pool, the engine in a thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from runtime.answers import encode_png, to_json
from runtime.body import Items, read_items
from runtime.machine import threads_here
from runtime.predictor import PassedOver
from runtime.tensors import Tensors, joined
from serve.batching import Batcher, ClosedError, Done, hang_s
from serve.brief import is_light, may_finish, may_prepare
from serve.card import describe
from serve.course import Course
from serve.derive import Limits
from serve.journal import GONE, Journal
from serve.making import Making, Preprocessing
from serve.messages import Call, Reply, error_reply, json_reply, server_timing, wants_png
from serve.preparing import Preparing, threads_beside
from serve.recent import Recent
from serve.stats import Observer, Stats, corrections
from serve.streams import Running, Streams
from serve.together import Together
from serve.tuning import Options, Tuning
from serve.warmup import WarmUp, read_cases, sample_of, warm_up
from specs.errors import DeploycError
from specs.manifest import Manifest, Variant

if TYPE_CHECKING:  # OpenTelemetry is imported where it is asked for
    from serve.tracing import Tracing

__all__ = ["Model", "Options", "PredictorLike"]

T = TypeVar("T")

GRAIN_S = 0.001
"""What an event loop's timer can tell apart: epoll waits for whole milliseconds."""
SERVER_ERROR = 500
DRAIN_S = 0.005
"""How often the last requests are looked for."""


class PredictorLike(Preprocessing, Protocol):
    """What is used of ``runtime.Predictor``."""

    manifest: Manifest
    variant: Variant
    passed_over: tuple[PassedOver, ...]

    @property
    def max_batch(self) -> int: ...
    def run(self, items: Sequence[Tensors]) -> Sequence[Tensors]: ...
    def beside(self, threads: int) -> Running | None: ...
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
        self._about: dict[str, Any] | None = None
        self._batcher: Batcher[Tensors, Tensors] | None = None
        self._calls = 0
        self._post_s = Recent()
        threads = options.threads or threads_beside(predictor.variant.device)
        self._journal = Journal(self.variant_in_use(), clock)
        self._making = Making(predictor, self.limits.max_batch.value)
        pre, post = may_prepare(self.manifest), may_finish(self.manifest, predictor.variant)
        self._preparing = Preparing(threads, f"{options.name}-items", clock, in_loop=pre)
        self._finishing = Together(self._finish_all, self._preparing.in_pool, in_loop=post)
        self._engine = ThreadPoolExecutor(1, f"{options.name}-engine")
        self._streams = Streams(predictor, self.manifest.batch.min, threads_here())

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
        if self._about is None:
            self._about = self._described()
        return {**self._about, "state": self.state}

    def _described(self) -> dict[str, Any]:
        """All of the card that changes with the limits alone: requests look at it, too."""
        variant, passed_over = self._predictor.variant, self._predictor.passed_over
        about = describe(self.manifest, variant, self.name, self._tuning, self._warm_up)
        about["warnings"] += filter(None, [*map(str, passed_over), self._streams.warning])
        about["side_by_side"] = self._streams.to_json()
        return about

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
        found["corrections"] = corrections(law) if law else {}
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
        golden = await self._preparing.in_pool(lambda: read_cases(self._folder, variant))
        sample = sample_of(self.manifest, variant, golden)
        warm = WarmUp(self._run, variant, self._clock)
        await warm_up(warm, golden, sample, self._tuning, self._streams)
        law = self._tuning.law(self._streams)
        # Times that made the curve itself tell nothing of how far it is off.
        for size, seconds in warm.seconds() if self._tuning.profile else ():
            if size <= law.forecast.max_batch:
                law.forecast.learn(size, seconds)
        self._batcher = Batcher(
            self._run,
            law,
            key=_shapes,
            join=joined,
            clock=self._clock,
            watcher=self.counts,
            hang=self._hang,
            grain_s=GRAIN_S,
        )
        self._warm_up, self._state, self._about = warm, "ready", None
        self._journal.state(self.state, 0)

    def reconfigure(self, config: object) -> None:
        """Take other limits while running; what cannot be is logged and shown, and changes nothing.

        Args:
            config: Ray's ``user_config``: a mapping as ``serve.args.HotArgs`` says, or None.
        """
        self._about = None
        if self._tuning.reconfigure(config) and self._batcher:
            self._tuning.adjust(self._batcher.law)

    async def answer(self, call: Call) -> Reply:
        """The reply to one call; never raises but where the caller went away."""
        allowed = self._tuning.slo_s if call.timeout_s is None else call.timeout_s
        course = self._journal.begin(call, allowed)
        token = _COURSE.set(course)
        status, outcome = GONE
        self._calls += 1
        try:
            reply, outcome = await self._reply(call)
            status = reply.status
        finally:
            self._calls -= 1
            _COURSE.reset(token)
            took = self._journal.end(course, status, outcome)
        self.counts.request(outcome, took, late=outcome == "ok" and took > allowed)
        return reply

    async def prepare(self, values: Sequence[Any], *, priority: int = 0) -> list[Tensors]:
        """Pre-process items, in the pool.

        Args:
            values: what ``Predictor.preprocess`` takes.
            priority: the class; lower goes first.

        Raises:
            InputError: an item is at fault, or there are none or too many.
            OverloadError: the call's time is over, or too much is here.
        """
        items = Items(list(values), len(values) > 1)
        most = self.limits.max_items.value
        return await self._prepare(lambda: self._making.tensors(items, most), priority)

    async def compute(
        self, items: Sequence[Tensors], *, timeout_s: float | None = None, priority: int = 0
    ) -> Done[Tensors]:
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
        course.rides = done.rides
        self.counts.stage("queue", done.queued_s)
        self.counts.stage("engine", done.engine_s)
        return done

    async def finish(self, outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        """Post-process outputs: one answer each."""
        return await self._finish(_Finish(outputs, list))

    async def close(self) -> None:
        """Answer what was taken, then give the engine back."""
        self._state = "draining"
        self._journal.state(self.state, self._batcher.load if self._batcher else 0)
        if self._batcher:
            await self._batcher.close()
            while self._calls and not self._batcher.stuck:  # noqa: ASYNC110 - seen to an end once
                await asyncio.sleep(DRAIN_S)  # computed, and not written yet
        self._preparing.close()
        if not (self._batcher and self._batcher.stuck):
            await asyncio.get_running_loop().run_in_executor(self._engine, self._streams.close)
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
        light = is_light(call.content_type, call.body)
        items, tensors = await self._prepare(lambda: self._read(call), call.priority, light=light)
        prepared = self._clock()
        done = await self.compute(tensors, timeout_s=call.timeout_s, priority=call.priority)
        computed = self._clock()
        reply = await self._finish(_Finish(done.outputs, partial(self._write, call, items.batch)))
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

    async def _prepare(self, work: Callable[[], T], priority: int, *, light: bool = False) -> T:
        """``work``, unless there is no room or no time for it."""
        batcher, course = self._queue(), self._here()
        course.enter("pre", self._clock())
        due = course.deadline - self._after_s(course.allowed_s)
        done = await self._preparing.prepare(work, due, batcher, priority, light=light)
        self.counts.stage("pre", course.leave(self._clock()))
        return done

    async def _finish(self, work: _Finish[T]) -> T:
        course = self._here()
        course.enter("post", self._clock())
        done = await self._finishing(work)
        took = course.leave(now := self._clock())
        self._post_s.add(now, took)
        self.counts.stage("post", took)
        return done

    def _finish_all(self, asked: Sequence[_Finish[Any]]) -> list[Any]:
        """What several requests are answered, their outputs post-processed as one batch."""
        answers = iter(self._predictor.postprocess([o for each in asked for o in each.outputs]))
        return [each.write(list(islice(answers, len(each.outputs)))) for each in asked]

    def _left_s(self, timeout_s: float | None) -> float:
        """Seconds for queue and engine: what was spent and what comes after is taken off."""
        course = self._here()
        allowed = course.allowed_s if timeout_s is None else timeout_s
        return allowed - (self._clock() - course.began) - self._after_s(allowed)

    def _after_s(self, allowed: float) -> float:
        """What post-processing takes; half of the time allowed is the engine's in any case."""
        return min(self._post_s.most(self._clock()), allowed / 2)

    def _read(self, call: Call) -> tuple[Items, list[Tensors]]:
        items = read_items(call, self.manifest)
        return items, self._making.tensors(items, self.limits.max_items.value)

    def _write(self, call: Call, batch: bool, answers: list[dict[str, Any]]) -> Reply:
        if batch:
            return json_reply({"model": self.name, "answers": [to_json(a) for a in answers]})
        if "image" in answers[0] and wants_png(call.accept):
            return Reply(200, encode_png(answers[0]["image"]), "image/png")
        return json_reply({"model": self.name, "answer": to_json(answers[0])})

    async def _run(self, batch: Sequence[Tensors]) -> Sequence[Tensors]:
        loop = asyncio.get_running_loop()
        most = self._batcher.law.forecast.at_once if self._batcher else self._tuning.most
        return await loop.run_in_executor(self._engine, self._streams.run, batch, most)


@dataclass(frozen=True, slots=True)
class _Finish(Generic[T]):
    """The outputs of one request's items, and what is made of their answers."""

    outputs: Sequence[Tensors]
    write: Callable[[list[dict[str, Any]]], T]

    def __len__(self) -> int:
        return len(self.outputs)


def _shapes(tensors: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in tensors.values())
