"""``serve.app:build``: the application that ``deploy.yaml`` names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ray import serve
from ray.serve import Application

from runtime.artifact import choose_variant
from serve.args import GATE, AppArgs, ModelArgs
from serve.artifacts import check_digest, open_artifact
from serve.canary import Pair, check_alike
from serve.deployment import Gate, ModelIngress, ModelReplica, Settings
from serve.derive import HEADROOM
from serve.tuning import Options, Tuning
from specs.errors import ServeError
from specs.manifest import Manifest, Variant
from specs.schema import Replicas

__all__ = ["build", "ingress_of"]

HEALTH_S = 2
"""Ray asks a replica so often whether it is well, and replaces it after three times that it is not:
seconds after the watchdog found the engine hung, and not half a minute."""
DRAIN_S = 60
"""How long a replica may take to answer what it holds before Ray ends it."""

SURGE_PERCENT = 20
"""Share of the replicas, one at least, that Ray starts beyond their number while it replaces them:
the old ones answer until the new ones are warm. Ray's 0 stops the old one first, which takes the
only replica away for as long as another needs to start."""

Bound = tuple[ModelArgs, Manifest, Settings]


def build(args: dict[str, Any]) -> Application:
    """The Serve application for ``args`` (see ``serve.args.AppArgs``).

    One artifact speaks HTTP itself; several, or one with ``gate``, are deployments of their own
    behind one that does.

    Raises:
        ServeError: an argument is unknown or wrong, or an artifact is not the one asked for.
        ArtifactError: an artifact is missing.
    """
    parsed = AppArgs.parse(args)
    models = [_model(model) for model in parsed.models]
    listed = [each for model in models for each in model.deployments()]
    if len(listed) == 1 and not parsed.gate:
        name, (asked, manifest, settings) = listed[0]
        bound = asked, manifest, replace(settings, protected=parsed.protected)
        return _deploy(ModelIngress, name, bound)
    _check_names([GATE, *(name for name, _ in listed)])
    found = dict(listed)
    held = sum(_held(bound[2]) * _most_replicas(bound) for bound in found.values())
    free = {"ray_actor_options": {"num_cpus": 0}, "max_surge_percent": SURGE_PERCENT}
    gate = _deployment(Gate, GATE, held, **free)
    limits = {model.name: model.first[1].limits.bytes for model in models}
    pairs = {model.name: model.pair for model in models if model.pair}
    handles = {name: _deploy(ModelReplica, name, bound) for name, bound in found.items()}
    new = [handles[pair.deployment] for pair in pairs.values()]
    stable = [handles[name] for name in limits]
    return gate.bind(limits, pairs, parsed.protected, *stable, *new)


def ingress_of(app: Application) -> str:
    """The name of the deployment that takes HTTP."""
    return str(cast("Any", app)._bound_deployment.name)  # noqa: SLF001 - Ray has no other way


@dataclass(frozen=True, slots=True)
class _Model:
    """A model: one artifact, or two and how they share the requests."""

    first: Bound
    pair: Pair | None = None
    second: Bound | None = None

    @property
    def name(self) -> str:
        return self.first[2].options.name

    def deployments(self) -> list[tuple[str, Bound]]:
        """By name."""
        found = [(self.name, self.first)]
        return [*found, (self.pair.deployment, self.second)] if self.pair and self.second else found


def _model(args: ModelArgs) -> _Model:
    first = _bind(args)
    other = args.other
    if other is None:
        return _Model(first)
    name = first[2].options.name
    changes = {"artifact": other.artifact, "digest": other.digest, "name": name}
    changes |= {"variant": other.variant or args.variant, "canary": None, "shadow": None}
    changes |= {"replicas": other.replicas or args.replicas}
    second = _bind(args.model_copy(update=changes))
    check_alike(name, first[1], second[1], other.gate)
    return _Model(first, Pair.of(args, name, first[2].digest, second[2].digest), second)


def _bind(args: ModelArgs) -> Bound:
    folder = Path(args.artifact).resolve()
    manifest, digest = open_artifact(folder)
    if args.digest is not None:
        check_digest(folder, args.digest)
    variant = choose_variant(manifest, args.variant)
    options = _options(args, manifest, folder, variant)
    return args, manifest, Settings(str(folder), digest, args.variant, options)


def _options(args: ModelArgs, manifest: Manifest, folder: Path, variant: Variant) -> Options:
    """What was set by hand, and what Ray is told because of it and of the profile."""
    name = args.name or manifest.name
    items = args.max_ongoing_requests
    asked = Options(name, args.max_batch, items, args.threads, args.slo_ms, args.when_slow)
    try:
        limits = Tuning(manifest, variant, asked, folder).limits
    except ServeError as error:
        message = f"'{name}': {error.message}"
        raise ServeError(message, hint=error.hint, code=error.code) from error
    held, target = limits.max_ongoing_requests, limits.target_ongoing_requests
    return replace(asked, held=held, target=target)


def _deploy(kind: type[ModelReplica], name: str, bound: Bound) -> Any:  # noqa: ANN401 - an Application, which turns into a handle where it is bound
    args, manifest, settings = bound
    gpus = _gpus(args, manifest, settings)
    replicas = _replicas(_asked_replicas(bound), _target(settings))
    actor = {"num_cpus": args.cpus, "num_gpus": gpus}
    # A GPU more may not be there, and Ray would wait for it for ever.
    surge = 0 if gpus else SURGE_PERCENT
    options = {"ray_actor_options": actor, "max_surge_percent": surge, **replicas}
    deployment = _deployment(kind, name, _held(settings), **options)
    return deployment.bind(settings)


def _held(settings: Settings) -> int:
    held = settings.options.held
    return held.value if held else HEADROOM


def _target(settings: Settings) -> float:
    target = settings.options.target
    return target.value if target else 1.0


def _deployment(kind: type, name: str, held: int, **options: Any) -> Any:  # noqa: ANN401 - Ray's are untyped
    """A Deployment of ``kind`` whose replicas hold ``held`` requests and drain before they stop."""
    return (
        cast("Any", serve)
        .deployment(kind)
        .options(
            name=name,
            max_ongoing_requests=held,
            health_check_period_s=HEALTH_S,
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


def _asked_replicas(bound: Bound) -> Replicas:
    args, manifest, _ = bound
    asked = manifest.serving.replicas if args.replicas is None else args.replicas
    return Replicas(min=asked, max=asked) if isinstance(asked, int) else asked


def _most_replicas(bound: Bound) -> int:
    return _asked_replicas(bound).max


def _replicas(chosen: Replicas, target: float) -> dict[str, Any]:
    if chosen.min == chosen.max:
        return {"num_replicas": chosen.min}
    scaling = {"min_replicas": chosen.min, "max_replicas": chosen.max}
    return {"autoscaling_config": {**scaling, "target_ongoing_requests": target}}


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            message = f"two models are called '{name}'"
            hint = "give one of them another `name`"
            raise ServeError(message, hint=hint, code="serve_args")
