"""LitServe, one worker, no batches: FastAPI gives it the raw body, its worker says the length.

What is annotated at ``decode_request`` is FastAPI's parameter, so that no JSON stands between.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedBaseClass=false
# It is not among this project's packages: the bench takes it from a folder, where there is one.
# No `from __future__ import annotations`: LitServe reads the annotations as they stand.

import sys
from typing import Annotated

import litserve as ls
from fastapi import Body
from pipeline import announce

Raw = Annotated[bytes, Body(media_type="application/octet-stream")]


class Echo(ls.LitAPI):
    """Reads the body in the server's process, answers from the worker's."""

    def setup(self, device: str) -> None:
        del device

    def decode_request(self, request: Raw) -> bytes:
        return request

    def predict(self, x: bytes) -> int:
        return len(x)

    def encode_response(self, output: int) -> dict[str, int]:
        return {"bytes": output}


def main() -> None:
    """Serve until a signal."""
    port = int(sys.argv[1])
    server = ls.LitServer(Echo(api_path="/echo"), accelerator="cpu")
    announce(f"http://127.0.0.1:{port}", "/health")
    server.run("127.0.0.1", port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
