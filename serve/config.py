"""``deploy.yaml``: read, checked key by key, and resolved for Ray Serve.

Ray ignores keys that it does not know, so that a misspelt one changes nothing and nobody is told.
The keys are Ray's own, taken from its schemas.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_origin

from pydantic import BaseModel, ValidationError

from serve.args import GATE, AppArgs, HotArgs, HotGate, model_inside
from serve.artifacts import check_digest, open_artifact
from serve.yamlfile import YamlFile, YamlFileError, read_yaml
from specs.errors import ArtifactError, Problem, ServeError
from specs.faults import Path as FieldPath
from specs.faults import nearest

__all__ = ["check", "grpc_port", "http_address", "our_apps", "read", "resolve"]

BUILDERS = {"serve.app:build", "serve.app.build"}
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
DEFAULT_GRPC_PORT = 9000
"""Ray's."""
GRPC_SERVICE = "serve.oip_grpc:add_to_server"


def read(path: Path) -> YamlFile:
    """The config in the file at ``path``, its keys unchecked. Raises ServeError."""
    try:
        return read_yaml(path)
    except YamlFileError as error:
        hint = "" if path.exists() else "name a Serve config: `deployc serve PATH/deploy.yaml`"
        raise ServeError(str(error), hint=hint, code="serve_config") from error


def http_address(config: YamlFile) -> tuple[str, int]:
    """Host and port that the config asks for. Without a host: loopback, where Ray has 0.0.0.0.

    Values of a wrong kind are left to ``check``.
    """
    options = config.data.get("http_options")
    values = cast("dict[str, Any]", options) if isinstance(options, dict) else {}
    host, port = values.get("host"), values.get("port")
    return (
        host if isinstance(host, str) else DEFAULT_HOST,
        port if isinstance(port, int) else DEFAULT_PORT,
    )


def grpc_port(config: YamlFile) -> int:
    """The port that ``grpc_options`` asks for; 0 where there are none, so that gRPC is off."""
    options = config.data.get("grpc_options")
    if not isinstance(options, dict):
        return 0
    port = cast("dict[str, Any]", options).get("port", DEFAULT_GRPC_PORT)
    return port if isinstance(port, int) else 0


def check(config: YamlFile) -> None:
    """Compare every key and value with Ray's schemas and with our builder's arguments.

    Imports Ray, so that the environment must be set before.

    Raises:
        ServeError: with every problem, its line, and the nearest known name.
    """
    from ray.serve.schema import ServeDeploySchema

    problems = [*_unknown(config, config.data, ServeDeploySchema, ()), *_unknown_args(config)]
    problems += _nothing(config)
    if not problems:
        problems = [*_invalid(config, ServeDeploySchema, (), config.data), *_invalid_args(config)]
    if problems:
        text = "\n".join(map(str, problems))
        raise ServeError(text, code="serve_config")


def resolve(config: YamlFile) -> dict[str, Any]:
    """The config with absolute artifact paths and the digest of each artifact's manifest.

    Paths are relative to the config's folder. With the digest in ``args`` a rebuilt artifact is
    a change that Ray deploys; without, the same YAML means that nothing is done. Where there is no
    ``logging_config``, the access log is off: a line for each request costs time on every one.
    """
    data = copy.deepcopy(config.data)
    data.setdefault("logging_config", {"enable_access_log": False})
    if isinstance(data.get("grpc_options"), dict):  # asked for: Ray opens it for services alone
        data["grpc_options"] = {"grpc_servicer_functions": [GRPC_SERVICE], **data["grpc_options"]}
    for app in our_apps(data):
        for model in app["args"]["models"]:
            for entry in (model, model.get("canary"), model.get("shadow")):
                if entry:
                    _pin(entry, config.path.parent)
    return data


def _pin(entry: dict[str, Any], root: Path) -> None:
    folder = (root / entry["artifact"]).resolve()
    digest = _digest(folder, root)
    if entry.get("digest"):
        check_digest(folder, entry["digest"])
    entry.update(artifact=str(folder), digest=digest)


def _digest(folder: Path, root: Path) -> str:
    try:
        return open_artifact(folder)[1]
    except ArtifactError as error:
        spec = root / "specs" / f"{folder.name}.yaml"
        if error.code != "artifact_missing" or not spec.exists():
            raise
        hint = f"run `deployc build {spec.relative_to(root)}`"
        raise ServeError(error.message, hint=hint, code=error.code) from error


def our_apps(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The applications in a checked config that ``serve.app:build`` makes."""
    return [app for _, app in _numbered_apps(data)]


def _numbered_apps(data: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The applications that ``serve.app:build`` makes, with their numbers."""
    apps: Any = data.get("applications")
    for number, app in enumerate(cast("list[Any]", apps) if isinstance(apps, list) else []):
        if isinstance(app, dict):
            mapping = cast("dict[str, Any]", app)
            if mapping.get("import_path") in BUILDERS:
                yield number, mapping


def _unknown(
    config: YamlFile,
    value: object,
    model: type[BaseModel],
    path: FieldPath,
) -> Iterator[Problem]:
    """Keys in ``value`` that ``model``, and the models inside it, do not have."""
    if isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _unknown(config, item, model, (*path, index))
    if not isinstance(value, dict):
        return
    for key, inner in cast("dict[str, Any]", value).items():
        field = model.model_fields.get(key)
        if field is None:
            hint = nearest(str(key), model.model_fields)
            where = (*path, str(key))
            yield config.problem(where, "unknown_key", f"there is no key '{key}' here", hint)
        elif inside := model_inside(field.annotation):
            for where, part in _parts(field.annotation, inner):
                yield from _unknown(config, part, inside, (*path, key, *where))


def _parts(annotation: object, value: object) -> Iterator[tuple[FieldPath, object]]:
    """The values in which a model is expected: several, by name, where it says ``dict``."""
    if get_origin(annotation) is dict and isinstance(value, dict):
        for name, part in cast("dict[str, Any]", value).items():
            yield (name,), part
    else:
        yield (), value


def _nothing(config: YamlFile) -> Iterator[Problem]:
    """Ray would start, serve nobody and say nothing."""
    if config.data.get("applications") == []:
        message = "the list is empty: there is nothing to serve"
        hint = "add one with `import_path: serve.app:build` and `args: {models: [...]}`"
        yield config.problem(("applications",), "invalid_value", message, hint)


def _unknown_args(config: YamlFile) -> Iterator[Problem]:
    for number, app in _numbered_apps(config.data):
        where = ("applications", number, "args")
        yield from _unknown(config, app.get("args"), AppArgs, where)
        for place, hot, kind in _user_configs(app):
            yield from _unknown(config, hot, kind, ("applications", number, *place))


def _invalid(
    config: YamlFile, model: type[BaseModel], path: FieldPath, value: object
) -> Iterator[Problem]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        faults = error.errors()
        places = [fault["loc"] for fault in faults]
        for fault in faults:
            place = fault["loc"]
            # A list whose items are at fault is reported as too short, too.
            if not any(len(p) > len(place) and p[: len(place)] == place for p in places):
                yield config.problem((*path, *place), "invalid_value", fault["msg"])


def _invalid_args(config: YamlFile) -> Iterator[Problem]:
    for number, app in _numbered_apps(config.data):
        where = ("applications", number, "args")
        yield from _invalid(config, AppArgs, where, app.get("args", {}))
        for place, hot, kind in _user_configs(app):
            yield from _invalid(config, kind, ("applications", number, *place), hot)


def _user_configs(
    app: dict[str, Any],
) -> Iterator[tuple[FieldPath, object, type[HotArgs | HotGate]]]:
    """What Ray hands to running replicas: each deployment's ``user_config``, its place and kind."""
    listed: Any = app.get("deployments")
    for number, entry in enumerate(cast("list[Any]", listed) if isinstance(listed, list) else []):
        mapping = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        if mapping.get("user_config") is not None:
            kind = HotGate if mapping.get("name") == GATE else HotArgs
            yield ("deployments", number, "user_config"), mapping["user_config"], kind
