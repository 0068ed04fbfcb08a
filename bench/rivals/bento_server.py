"""BentoML: an API per model, its adaptive batching told the SLO."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# It is not among this project's packages: the bench takes it from a folder, where there is one.

from __future__ import annotations

import os
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import bentoml
from pipeline import Model, Pipeline, announce, models


def api(model: Model) -> t.Any:  # noqa: ANN401 - BentoML's decorator is untyped
    """A batched method for one model."""

    def run(self: t.Any, items: list[t.Any]) -> list[t.Any]:  # noqa: ANN401 - the service
        return self.pipelines[model.name].answer_json(items)

    run.__annotations__ = {"items": list[t.Any], "return": list[t.Any]}
    run.__name__ = model.name
    slo, most = round(model.slo_ms), max(2, model.max_batch)
    return bentoml.api(batchable=True, max_batch_size=most, max_latency_ms=slo)(run)


def _init(self: t.Any) -> None:  # noqa: ANN401 - the service
    self.pipelines = {model.name: Pipeline(model) for model in models()}


def service() -> t.Any:  # noqa: ANN401 - BentoML's Service
    """A service with a method per model."""
    methods = {model.name: api(model) for model in models()}
    inner = type("Bench", (), {"__init__": _init, **methods})
    return bentoml.service(workers=1, traffic={"timeout": 30})(inner)


bench = service()


def main() -> None:
    """Run ``bentoml serve`` until a signal."""
    port = sys.argv[1]
    command = ["-m", "bentoml", "serve", "bento_server:bench", "--host", "127.0.0.1"]
    folder = str(Path(__file__).parent)
    env = {**os.environ, "BENTOML_DO_NOT_TRACK": "True"}
    arguments = [sys.executable, *command, "--port", port, "--working-dir", folder]
    process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL)
    announce(f"http://127.0.0.1:{port}", "/readyz")
    signal.signal(signal.SIGINT, lambda number, _: process.send_signal(number))
    process.wait()


if __name__ == "__main__":
    main()
