"""LitServe: one worker per model, batches as it cuts them, 504 once the SLO has passed."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedBaseClass=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false
# It is not among this project's packages: the bench takes it from a folder, where there is one.

from __future__ import annotations

import os
import sys
from typing import Any

import litserve as ls
from pipeline import Model, Pipeline, announce, models

WAIT = "BENCH_WAIT"
"""Environment variable: ``batch_timeout`` as a share of the SLO."""


class Api(ls.LitAPI):
    """One model."""

    def __init__(self, model: Model) -> None:
        wait = float(os.environ[WAIT]) * model.slo_ms / 1000
        path = f"/{model.name}"
        super().__init__(max_batch_size=model.max_batch, batch_timeout=wait, api_path=path)
        self._model = model

    def setup(self, device: str) -> None:
        del device
        self._pipeline = Pipeline(self._model)

    def decode_request(self, request) -> Any:  # noqa: ANN001, ANN401 - typed, it would be FastAPI's
        return request["item"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x) -> Any:  # noqa: ANN001, ANN401 - an item, or what `batch` gives
        if self.max_batch_size == 1:  # LitServe calls neither `batch` nor `unbatch` then
            return self._pipeline.answer_json([x])[0]
        return self._pipeline.answer_json(x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:  # noqa: ANN401 - JSON
        return output


def main() -> None:
    """Serve until a signal."""
    port = int(sys.argv[1])
    served = models()
    slo = max(model.slo_ms for model in served) / 1000
    server = ls.LitServer([Api(model) for model in served], accelerator="cpu", timeout=slo)
    announce(f"http://127.0.0.1:{port}", "/health")
    server.run("127.0.0.1", port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
