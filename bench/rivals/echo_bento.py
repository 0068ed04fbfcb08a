"""BentoML, one worker: a method whose only, positional parameter is the raw body."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# pyright: reportUntypedClassDecorator=false
# It is not among this project's packages: the bench takes it from a folder, where there is one.

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import bentoml
from pipeline import announce


@bentoml.service(workers=1, traffic={"timeout": 30})
class Echo:
    """Answers the length; a coroutine, so that no thread stands between."""

    @bentoml.api
    async def echo(self, body: bytes, /) -> dict[str, int]:
        return {"bytes": len(body)}


def main() -> None:
    """Run ``bentoml serve`` until a signal."""
    port = sys.argv[1]
    command = ["-m", "bentoml", "serve", "echo_bento:Echo", "--host", "127.0.0.1"]
    folder = str(Path(__file__).parent)
    env = {**os.environ, "BENTOML_DO_NOT_TRACK": "True"}
    arguments = [sys.executable, *command, "--port", port, "--working-dir", folder]
    process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL)
    announce(f"http://127.0.0.1:{port}", "/readyz")
    signal.signal(signal.SIGINT, lambda number, _: process.send_signal(number))
    process.wait()


if __name__ == "__main__":
    main()
