"""One model in this process: pre-processing in a pool, the engine in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from runtime.answers import encode_png, to_json
from runtime.predictor import PassedOver
from runtime.tensors import Tensors
from serve.batching import Batcher, Done
from serve.body import Items, read_items
from serve.messages import Call, Reply, error_reply, json_reply
from specs.errors import DeploycError, InputError
from specs.manifest import Manifest, Variant

__all__ = ["Model", "Options", "PredictorLike"]

_LOG = logging.getLogger("ray.serve")  # where a replica's log goes; the name alone, no import

MAX_THREADS = 4


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


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is served, with nothing left open."""

    name: str
    max_batch: int
    max_items: int
    """Items that wait or run at once."""
    threads: int | None = None
    """For pre- and post-processing; by default one per core of the replica's machine, at most 4."""


class Model:
    """Answers calls. Lives in one event loop; made in it or in a thread."""

    def __init__(self, predictor: PredictorLike, options: Options) -> None:
        self.name = options.name
        self.limit = predictor.manifest.limits.bytes
        self._predictor = predictor
        self._options = options
        self._state = "loading"
        threads = options.threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, f"{options.name}-items")
        self._engine = ThreadPoolExecutor(1, f"{options.name}-engine")
        self._batcher = Batcher[Tensors, Tensors](
            self._run, max_batch=options.max_batch, max_items=options.max_items, key=_shapes
        )

    async def card(self) -> dict[str, Any]:
        """What ``GET /models`` says of this model."""
        about = _describe(self._predictor.manifest, self._predictor.variant, self._options)
        about["warnings"] += [str(each) for each in self._predictor.passed_over]
        return {**about, "state": self._state}

    def variant_in_use(self) -> dict[str, str]:
        """Tags of the metric that says which variant answers, and which ones it stands in for."""
        variant = self._predictor.variant
        passed_over = ",".join(each.variant for each in self._predictor.passed_over)
        tags = {"model": self.name, "variant": variant.name, "passed_over": passed_over}
        return {**tags, "engine": variant.engine, "device": variant.device}

    async def warm_up(self) -> None:
        """Run zeros at the corners of the batch, so that the first request finds all in place."""
        manifest = self._predictor.manifest
        item, most = _zeros(manifest), self._options.max_batch
        for size in sorted({1, min(manifest.batch.opt, most), most}):
            outputs = await self._run([item] * size)
            await self._in_pool(self._predictor.postprocess, outputs)
        self._state = "ready"

    async def answer(self, call: Call) -> Reply:
        """The reply to one call; never raises but where the caller went away."""
        try:
            return await self._answer(call)
        except Exception as error:  # noqa: BLE001 - the boundary: every error has its reply
            if not isinstance(error, DeploycError):
                _LOG.exception("%s: a request failed", self.name)
            return error_reply(error)

    async def close(self) -> None:
        """Answer what was taken, then give the engine back."""
        self._state = "draining"
        await self._batcher.close()
        self._pool.shutdown(wait=False)
        await asyncio.get_running_loop().run_in_executor(self._engine, self._predictor.close)
        self._engine.shutdown(wait=False)

    async def _answer(self, call: Call) -> Reply:
        self._batcher.check()  # before any work is spent on it
        began = time.perf_counter()
        items, tensors = await self._in_pool(self._prepare, call)
        prepared = time.perf_counter()
        done = await self._batcher.submit(tensors)
        computed = time.perf_counter()
        reply = await self._in_pool(self._finish, call, items.batch, [d.output for d in done])
        posted = time.perf_counter()
        reply.headers["Server-Timing"] = _timing(prepared - began, done, posted - computed)
        return reply

    def _prepare(self, call: Call) -> tuple[Items, list[Tensors]]:
        items = read_items(call, self._predictor.manifest)
        if not items.values:
            raise InputError("the list of items is empty", code="empty_body")
        if len(items.values) > self._options.max_items:
            message = f"{len(items.values)} items in one request; at most {self._options.max_items}"
            raise InputError(message, hint="send them in several requests", code="too_large")
        return items, [self._preprocess(n, items) for n in range(len(items.values))]

    def _preprocess(self, number: int, items: Items) -> Tensors:
        try:
            return self._predictor.preprocess(items.values[number])
        except InputError as error:
            if not items.batch:
                raise
            message = f"item {number}: {error.message}"
            raise InputError(message, hint=error.hint, code=error.code) from error

    def _finish(self, call: Call, batch: bool, outputs: list[Tensors]) -> Reply:
        answers = self._predictor.postprocess(outputs)
        if batch:
            return json_reply({"model": self.name, "answers": [to_json(a) for a in answers]})
        if "image" in answers[0] and _wants_png(call.accept):
            return Reply(200, encode_png(answers[0]["image"]), "image/png")
        return json_reply({"model": self.name, "answer": to_json(answers[0])})

    async def _run(self, batch: list[Tensors]) -> list[Tensors]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._engine, self._predictor.run, batch)

    async def _in_pool(self, call: Any, *args: Any) -> Any:  # noqa: ANN401 - passes on what it gets
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)


def _describe(manifest: Manifest, variant: Variant, options: Options) -> dict[str, Any]:
    """What there is to say of a model that is served, all but its state."""
    return {
        "name": options.name,
        "description": manifest.description,
        "takes": manifest.takes,
        "answer": manifest.answer,
        "inputs": {name: tensor.model_dump() for name, tensor in manifest.inputs.items()},
        "outputs": {name: tensor.model_dump() for name, tensor in manifest.outputs.items()},
        "batch": {"min": manifest.batch.min, "max": options.max_batch},
        "limits": manifest.limits.model_dump(),
        "variant": {
            "name": variant.name,
            "engine": variant.engine,
            "device": variant.device,
            "precision": variant.precision,
        },
        "warnings": list(manifest.warnings()),
    }


def _shapes(tensors: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in tensors.values())


def _zeros(manifest: Manifest) -> Tensors:
    """One item of zeros; a dynamic axis has the size to be fast at."""
    return {
        name: np.zeros(
            [dim if isinstance(dim, int) else manifest.axes[dim].opt for dim in tensor.shape[1:]],
            tensor.dtype,
        )
        for name, tensor in manifest.inputs.items()
    }


def _wants_png(accept: str) -> bool:
    wanted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not wanted.isdisjoint({"image/png", "image/*"})


def _timing(pre_s: float, done: list[Done[Tensors]], post_s: float) -> str:
    """Server-Timing, in milliseconds; of several items, the slowest."""
    queue, engine = max(d.queued_s for d in done), max(d.engine_s for d in done)
    parts = {"pre": pre_s, "queue": queue, "engine": engine, "post": post_s}
    times = ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in parts.items())
    return f'{times}, batch;desc="{max(d.batch for d in done)}"'
