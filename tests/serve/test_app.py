"""The application builder, up to where Ray would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.config import DeploymentConfig
from ray.serve.config import AutoscalingConfig

from serve.app import HEADROOM, build, ingress_of
from serve.artifacts import digest_of
from serve.deployment import overridden
from serve.derive import Figure
from serve.tuning import Options
from specs.errors import DeploycError, ServeError


def deployment(model: dict[str, Any]) -> Any:
    """The deployment of a single model; Ray's class is untyped."""
    application: Any = build({"models": [model]})
    return application._bound_deployment


@pytest.mark.parametrize(
    ("args", "said", "hint"),
    [
        ({"modles": []}, "modles", "did you mean 'models'?"),
        ({"models": [{"artifact": "x", "replica": 1}]}, "models.0.replica", "'replicas'"),
        ({"models": [{"artifact": "x", "replicas": {"mni": 1}}]}, "replicas", ""),
        ({"models": []}, "models", ""),
        ({"models": [{"artifact": "x", "digest": "abc"}]}, "models.0.digest", ""),
        ({}, "models", ""),
    ],
)
def test_wrong_arguments_are_refused_with_the_nearest_name(
    args: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(ServeError) as caught:
        build(args)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_missing_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploycError, match="holds no artifact"):
        build({"models": [{"artifact": str(tmp_path)}]})


def test_another_digest_is_refused_with_both_and_the_fix(digits_artifact: Path) -> None:
    with pytest.raises(ServeError) as caught:
        build({"models": [{"artifact": str(digits_artifact), "digest": "1" * 64}]})
    assert "1" * 64 in caught.value.message
    assert digest_of(digits_artifact) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"variant": "onnxruntime-cpu-fp61"}, "no variant"),
        ({"max_batch": 10_000}, "max_batch is 10000"),
        ({"max_batch": 8, "max_ongoing_requests": 15}, "max_ongoing_requests is 15"),
    ],
)
def test_what_the_artifact_cannot_do_is_refused(
    digits_artifact: Path, option: dict[str, Any], said: str
) -> None:
    with pytest.raises(DeploycError, match=said):
        build({"models": [{"artifact": str(digits_artifact), **option}]})


def test_two_models_of_one_name_are_refused(digits_artifact: Path) -> None:
    with pytest.raises(ServeError, match="two models are called 'digits'"):
        build({"models": [{"artifact": str(digits_artifact)}] * 2})


def test_a_single_model_speaks_http_itself(digits_artifact: Path) -> None:
    found = deployment({"artifact": str(digits_artifact), "name": "three"})
    assert found.name == "three"
    assert found.func_or_class.__name__ == "ModelIngress"


def test_ray_lets_more_in_than_the_replica_takes(digits_artifact: Path) -> None:
    model = {"artifact": str(digits_artifact), "max_batch": 8, "max_ongoing_requests": 40}
    assert deployment(model).max_ongoing_requests == 40 + HEADROOM


def test_the_gate_lets_in_what_all_replicas_together_take(digits_artifact: Path) -> None:
    model = {"artifact": str(digits_artifact), "max_batch": 8, "max_ongoing_requests": 40}
    fixed = {**model, "name": "fixed", "replicas": 3}
    scaled = {**model, "name": "scaled", "replicas": {"min": 1, "max": 4}}
    gate: Any = build({"models": [fixed, scaled]})
    assert gate._bound_deployment.max_ongoing_requests == (40 + HEADROOM) * (3 + 4)


def test_one_model_takes_http_itself_or_behind_a_gate_that_is_asked_for(
    digits_artifact: Path,
) -> None:
    models = [{"artifact": str(digits_artifact)}]
    assert ingress_of(build({"models": models})) == "digits"
    assert ingress_of(build({"models": models, "gate": True})) == "ingress"


def test_what_ray_was_told_in_place_of_the_derived_figures_is_known_to_the_replica() -> None:
    built = Options("digits", held=Figure(104, "max_items"), target=Figure(8.0, "profile"))
    same = DeploymentConfig(max_ongoing_requests=104)
    assert overridden(built, same) == built
    scaling = AutoscalingConfig(max_replicas=4, target_ongoing_requests=5.0)
    other = DeploymentConfig(max_ongoing_requests=20, autoscaling_config=scaling)
    found = overridden(built, other)
    assert found.held == Figure(20, "deployments")
    assert found.target == Figure(5.0, "deployments")


def test_replicas_are_a_number_or_a_range(digits_artifact: Path) -> None:
    artifact = str(digits_artifact)
    assert deployment({"artifact": artifact, "replicas": 3}).num_replicas == 3
    scaled = deployment({"artifact": artifact, "replicas": {"min": 1, "max": 4}, "max_batch": 8})
    config = scaled._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (1, 4)
    assert config.get_target_ongoing_requests() == 8


def test_resources_are_passed_on(digits_artifact: Path) -> None:
    found = deployment({"artifact": str(digits_artifact), "cpus": 2, "gpus": 0.5})
    assert found.ray_actor_options["num_cpus"] == 2
    assert found.ray_actor_options["num_gpus"] == 0.5
