"""The Ray Serve deployments: a model, a model that speaks HTTP itself, and an HTTP gate to many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from ray import serve
from ray.serve import metrics
from ray.serve._private.config import DeploymentConfig
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

import runtime
from serve import telemetry
from serve.artifacts import check_digest
from serve.canary import Pair, SplitModel, SplitObserver, reconfigure
from serve.derive import Figure
from serve.guard import Keys, check_protected
from serve.http import http_app
from serve.messages import Call, Reply, failure
from serve.model import Model, Options
from serve.oip_grpc import GrpcSurface
from serve.split import Outcome, Side, Split
from serve.stats import Observer, Stage

__all__ = ["Gate", "ModelIngress", "ModelReplica", "Settings"]

T = TypeVar("T")

STAGE_MS = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 1e4]
"""Upper ends of the histogram's buckets, milliseconds."""
BATCH_ITEMS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]
GAUGES_S = 2.0
"""How often gauges are set; Ray exports every ten seconds."""


def _speaks_http(kind: type[T]) -> type[T]:
    """Ray's decorator, which is untyped; the ASGI application is built in the replica."""
    decorate = cast("Callable[[type[T]], type[T]]", cast("Any", serve).ingress())
    return decorate(kind)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a replica needs to load its model."""

    artifact: str
    digest: str
    variant: str | None
    """A variant's name; None for the preferred one, under the spec's ``on_missing``."""
    options: Options
    protected: bool = False
    """``AppArgs.protected``."""


class _Metrics(Observer):
    """Passes what is counted on to Ray's metrics, which Prometheus reads.

    Counters and histograms are told as things happen, at about a microsecond each; gauges once in
    ``GAUGES_S``.

    Args:
        model: whose events these are.
        provider: the execution providers in use, as the engine tells them.
    """

    def __init__(self, model: Model, provider: str = "") -> None:
        self._model = model
        self._requests = metrics.Counter(
            "deployc_requests",
            description="Requests answered, by outcome: ok, or the error's code.",
            tag_keys=_keys("outcome"),
        )
        self._late = metrics.Counter(
            "deployc_deadline_misses", description="Answers that came after their deadline."
        )
        self._sheds = metrics.Counter(
            "deployc_sheds",
            description="Items turned away, by the batching law's rule.",
            tag_keys=_keys("rule"),
        )
        self._stages = metrics.Histogram(
            "deployc_stage_ms",
            description="Milliseconds that a request spent in pre, queue, engine and post.",
            boundaries=STAGE_MS,
            tag_keys=_keys("stage"),
        )
        self._batches = metrics.Histogram(
            "deployc_batch_items", description="Items in a batch.", boundaries=BATCH_ITEMS
        )
        self._waiting = metrics.Gauge(
            "deployc_queue_items", description="Items that wait for the engine."
        )
        self._corrections = metrics.Gauge(
            "deployc_curve_correction",
            description="Observed over measured time of a batch, by the largest of its bucket.",
            tag_keys=_keys("bucket"),
        )
        self._variant = {**model.variant_in_use(), "provider": provider}
        self._in_use = metrics.Gauge(
            "deployc_variant_in_use",
            description="1 for the variant that answers; passed_over names those that cannot.",
            tag_keys=_keys(*self._variant),
        )

    def request(self, outcome: str, *, late: bool) -> None:
        self._requests.inc(1, {"outcome": outcome})
        if late:
            self._late.inc()

    def stage(self, stage: Stage, seconds: float) -> None:
        self._stages.observe(1000 * seconds, {"stage": stage})

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def shed(self, rule: str) -> None:
        self._sheds.inc(1, {"rule": rule})

    async def watch(self) -> None:
        """Set the gauges, for ever: Ray exports one that is set once a single time."""
        while True:
            self._in_use.set(1, self._variant)
            stats = self._model.stats()
            self._waiting.set(stats["waiting"])
            for bucket, ratio in stats["corrections"].items():
                self._corrections.set(ratio, {"bucket": bucket})
            await asyncio.sleep(GAUGES_S)


class _SplitMetrics(SplitObserver):
    """Passes on what happens at a model of two artifacts."""

    def __init__(self, model: str) -> None:
        self._model = {"model": model}
        self._split: Split | None = None
        self._requests = metrics.Counter(
            "deployc_split_requests",
            description="Requests that an artifact of a split model answered: ok, failed, refused.",
            tag_keys=_keys("model", "artifact", "outcome"),
        )
        self._compared = metrics.Counter(
            "deployc_split_compared",
            description="Requests that both artifacts answered.",
            tag_keys=_keys("model", "agree"),
        )
        self._weight = metrics.Gauge(
            "deployc_split_weight",
            description="Share of requests that the new artifact answers.",
            tag_keys=_keys("model"),
        )
        self._rolled_back = metrics.Gauge(
            "deployc_split_rolled_back",
            description="1 where the new artifact was rolled back.",
            tag_keys=_keys("model"),
        )

    def answered(self, side: Side, outcome: Outcome) -> None:
        self._set()
        self._requests.inc(1, {**self._model, "artifact": side, "outcome": outcome})

    def compared(self, *, agree: bool) -> None:
        self._compared.inc(1, {**self._model, "agree": str(agree).lower()})

    def changed(self, split: Split) -> None:
        self._split = split
        self._set()

    def _set(self) -> None:
        """Set the gauges; with every request, since Ray stops exporting one that is not set."""
        if self._split is not None:
            self._weight.set(self._split.weight, self._model)
            self._rolled_back.set(int(self._split.rolled_back is not None), self._model)


def _keys(*names: str) -> Any:  # noqa: ANN401 - Ray's annotation allows one key alone
    return names


class ModelReplica:
    """One model, called through a handle. Ready only when it is loaded and warm."""

    async def __init__(self, settings: Settings) -> None:
        told = serve.get_replica_context()._deployment_config  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - Ray tells it nowhere else
        self.model, provider = await asyncio.to_thread(_load, settings, told)
        await self.model.warm_up()
        counted = _Metrics(self.model, provider)
        self.model.observe(counted, telemetry.tracing(self.model.variant_in_use()))
        self._watching = asyncio.create_task(counted.watch())

    async def answer(self, call: Call) -> Reply:
        """The reply to one call."""
        return await self.model.answer(call)

    async def card(self) -> dict[str, Any]:
        """The model's entry in ``GET /models``."""
        return await self.model.card()

    async def decisions(self) -> list[dict[str, Any]]:
        """The last decisions of this replica's batching law, the newest first."""
        return self.model.decisions()

    async def stats(self) -> dict[str, Any]:
        """What this replica has counted."""
        return self.model.stats()

    async def reconfigure(self, config: Any) -> None:  # noqa: ANN401 - whatever the config holds
        """Take Ray's ``user_config``. Never raises: after three failures Ray gives up."""
        self.model.reconfigure(config)

    async def check_health(self) -> None:
        """Raise where the engine hangs: Ray then replaces this replica."""
        self.model.check_health()

    async def __del__(self) -> None:
        if hasattr(self, "_watching"):  # __init__ may have failed
            self._watching.cancel()
        if hasattr(self, "model"):
            await self.model.close()
            await asyncio.to_thread(telemetry.flush)


@_speaks_http
class ModelIngress(GrpcSurface, ModelReplica):
    """The only model of an application: its replicas speak HTTP and gRPC, which saves a hop."""

    async def __init__(self, settings: Settings) -> None:
        check_protected(Keys.from_environment(), protected=settings.protected)
        await super().__init__(settings)

    def grpc_models(self) -> list[Model]:
        return [self.model]

    def __serve_build_asgi_app__(self) -> Starlette:
        return http_app([self.model], echo_id=False)


@_speaks_http
class Gate(GrpcSurface):
    """Speaks HTTP and gRPC for several models and passes calls on to their replicas.

    Args:
        limits: most bytes of a request's body, by model.
        pairs: how models of two artifacts are split, by model.
        protected: ``AppArgs.protected``.
        handles: the models' handles, in the same order; then those of the new artifacts, in the
            order of ``pairs``.

    Raises:
        ServeError: ``unprotected``.
    """

    def __init__(
        self,
        limits: dict[str, int],
        pairs: dict[str, Pair],
        protected: bool,
        *handles: DeploymentHandle[Any],
    ) -> None:
        check_protected(Keys.from_environment(), protected=protected)
        names = [*limits, *pairs]
        far = [_Far(name, limits[name], each) for name, each in zip(names, handles, strict=True)]
        found: dict[str, _Far | SplitModel] = {each.name: each for each in far[: len(limits)]}
        for (name, pair), new in zip(pairs.items(), far[len(limits) :], strict=True):
            found[name] = SplitModel(pair, found[name], new, _SplitMetrics(name))
        self._models = list(found.values())

    def reconfigure(self, config: Any) -> None:  # noqa: ANN401 - whatever the config holds
        """Take Ray's ``user_config``. Never raises: after three failures Ray gives up."""
        reconfigure([each for each in self._models if isinstance(each, SplitModel)], config)

    def grpc_models(self) -> list[_Far | SplitModel]:
        return self._models

    def __serve_build_asgi_app__(self) -> Starlette:
        return http_app(self._models, echo_id=False)


@dataclass(frozen=True, slots=True)
class _Far:
    """A model in another process."""

    name: str
    limit: int
    handle: Any
    """A DeploymentHandle; its methods come into being when they are called."""

    async def card(self) -> dict[str, Any]:
        return await self.handle.card.remote()

    async def decisions(self) -> list[dict[str, Any]]:
        return await self.handle.decisions.remote()

    async def stats(self) -> dict[str, Any]:
        return await self.handle.stats.remote()

    async def answer(self, call: Call) -> Reply:
        try:
            return await self.handle.answer.remote(call)
        except Exception:  # noqa: BLE001 - the replica itself always replies: it was lost
            message, hint = f"the replica of '{self.name}' was lost", "try again in a second"
            return failure(503, "replica_lost", message, hint, {"Retry-After": "1"})


def _load(settings: Settings, told: DeploymentConfig) -> tuple[Model, str]:
    """The model, and the execution providers that its engine uses; none where it knows no such."""
    check_digest(Path(settings.artifact), settings.digest)
    folder = Path(settings.artifact)
    options = overridden(settings.options, told)
    predictor = runtime.load(folder, settings.variant)
    return Model(predictor, options, folder), predictor.details.get("providers", "")


def overridden(options: Options, told: DeploymentConfig) -> Options:
    """``options``, with what Ray was told in their place: ``deployments`` of deploy.yaml wins.

    Args:
        options: as the application was built.
        told: what Ray goes by in this replica.
    """
    held, target = options.held, options.target
    if held is None or held.value != told.max_ongoing_requests:
        held = Figure(told.max_ongoing_requests, "deployments")
    scaling = told.autoscaling_config
    aim = scaling.get_target_ongoing_requests() if scaling else None
    if aim is not None and (target is None or target.value != aim):
        target = Figure(aim, "deployments")
    return replace(options, held=held, target=target)
