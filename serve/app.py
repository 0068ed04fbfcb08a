"""``serve.app:build``: the application that ``deploy.yaml`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ray import serve
from ray.serve import Application

from runtime.artifact import choose_variant
from serve.args import AppArgs, ModelArgs
from serve.artifacts import check_digest, open_artifact
from serve.deployment import Gate, ModelIngress, ModelReplica, Settings
from serve.model import Options
from specs.errors import ServeError
from specs.manifest import Manifest
from specs.schema import Replicas

__all__ = ["build"]

MIN_ITEMS = 128
"""Items that a replica holds where neither the batch nor the user asks for more."""
BATCHES_HELD = 8
"""Batches that a replica holds, waiting and running, where nothing else is asked for."""
HEADROOM = 64
"""Requests that Ray lets in beyond those, so that the replica itself can answer 429 and /models."""
DRAIN_S = 60
"""How long a replica may take to answer what it holds before Ray ends it."""
GATE = "ingress"

Bound = tuple[ModelArgs, Manifest, Settings]


def build(args: dict[str, Any]) -> Application:
    """The Serve application for ``args`` (see ``serve.args.AppArgs``).

    One model speaks HTTP itself; several are deployments of their own behind one that does.

    Raises:
        ServeError: an argument is unknown or wrong, or an artifact is not the one asked for.
        ArtifactError: an artifact is missing.
    """
    models = [_bind(model) for model in AppArgs.parse(args).models]
    _check_names([settings.options.name for _, _, settings in models])
    if len(models) == 1:
        return _deploy(ModelIngress, *models[0])
    limits = {settings.options.name: manifest.limits.bytes for _, manifest, settings in models}
    handles = [_deploy(ModelReplica, *model) for model in models]
    held = sum(settings.options.max_items for _, _, settings in models)
    gate = _deployment(Gate, GATE, held, ray_actor_options={"num_cpus": 0})
    return gate.bind(limits, *handles)


def _bind(args: ModelArgs) -> Bound:
    folder = Path(args.artifact).resolve()
    manifest, digest = open_artifact(folder)
    if args.digest is not None:
        check_digest(folder, args.digest)
    choose_variant(manifest, args.variant)  # a name that is not there is told now
    return args, manifest, Settings(str(folder), digest, args.variant, _options(args, manifest))


def _options(args: ModelArgs, manifest: Manifest) -> Options:
    name, most = args.name or manifest.name, manifest.batch.max
    batch = args.max_batch or most
    if batch > most:
        message = f"'{name}': max_batch is {batch}, and the artifact was built for {most}"
        hint = "raise the batch axis in the spec and build again"
        raise ServeError(message, hint=hint, code="serve_args")
    items = args.max_ongoing_requests or max(MIN_ITEMS, BATCHES_HELD * batch)
    if items < 2 * batch:
        message = f"'{name}': max_ongoing_requests is {items} for batches of {batch}"
        hint = f"while one batch runs the next one gathers: at least {2 * batch}"
        raise ServeError(message, hint=hint, code="serve_args")
    return Options(name, batch, items, args.threads)


def _deploy(
    kind: type[ModelReplica], args: ModelArgs, manifest: Manifest, settings: Settings
) -> Any:  # noqa: ANN401 - an Application, which turns into a handle where it is bound
    options = settings.options
    gpus = _gpus(args, manifest, settings)
    replicas = _replicas(args.replicas, manifest.serving.replicas, options.max_batch)
    actor = {"num_cpus": args.cpus, "num_gpus": gpus}
    deployment = _deployment(
        kind, options.name, options.max_items, ray_actor_options=actor, **replicas
    )
    return deployment.bind(settings)


def _deployment(kind: type, name: str, held: int, **options: Any) -> Any:  # noqa: ANN401 - Ray's are untyped
    """A Deployment of ``kind`` whose replicas hold ``held`` items and drain before they stop."""
    return (
        cast("Any", serve)
        .deployment(kind)
        .options(
            name=name,
            max_ongoing_requests=held + HEADROOM,
            graceful_shutdown_wait_loop_s=0.2,
            graceful_shutdown_timeout_s=DRAIN_S,
            **options,
        )
    )


def _gpus(args: ModelArgs, manifest: Manifest, settings: Settings) -> float:
    if args.gpus is not None:
        return args.gpus
    if manifest.serving.gpus is not None:
        return manifest.serving.gpus
    return 1 if choose_variant(manifest, settings.variant).device == "cuda" else 0


def _replicas(asked: int | Replicas | None, spec: Replicas, batch: int) -> dict[str, Any]:
    chosen = spec if asked is None else asked
    if isinstance(chosen, int):
        return {"num_replicas": chosen}
    if chosen.min == chosen.max:
        return {"num_replicas": chosen.min}
    # Ray's default target of 2 would add replicas before a batch is full.
    scaling = {"min_replicas": chosen.min, "max_replicas": chosen.max}
    return {"autoscaling_config": {**scaling, "target_ongoing_requests": max(2, batch)}}


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            message = f"two models are called '{name}'"
            hint = "give one of them another `name`"
            raise ServeError(message, hint=hint, code="serve_args")
