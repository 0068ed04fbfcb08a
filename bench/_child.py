"""What the serving benches start: the command `deployc`, and servers as child processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["ROOT", "child", "deployc", "serving"]

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
START_S = 180.0
STOP_S, HURRY_S = 90.0, 5.0
LAST = 2000
"""Characters of a server's stderr that are shown where it did not start."""


def deployc(*arguments: str, env: Mapping[str, str] | None = None) -> None:
    """Run the command to its end, with what it says on stderr alone.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run(
        [str(BIN / "deployc"), *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )


@contextmanager
def serving(
    applications: Sequence[Mapping[str, Any]],
    folder: Path,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Generator[str, None, None]:
    """`deployc serve` on a free port; yields the first application's URL."""
    config = folder / "deploy.yaml"
    config.write_text(json.dumps({"applications": list(applications)}), "utf-8")  # JSON is YAML
    command = [str(BIN / "deployc"), "serve", str(config), "--port", "0", *options]
    with child(command, r"serving at (\S+)", env) as url:
        yield url


@contextmanager
def child(
    command: Sequence[str], ready: str, env: Mapping[str, str] | None = None
) -> Generator[str, None, None]:
    """A server as a child process; yields what ``ready`` finds on its stdout.

    It is ended by its id: asked by SIGINT, killed where it does not come to an end; and with it
    what it left behind in its group, so that the next server has the cores for itself.
    """
    if threading.current_thread() is threading.main_thread():
        # The server has a session of its own, and hears nothing of what ends the bench.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stopped)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=_heed,  # noqa: PLW1509 - no thread of ours holds a lock that this needs
        )
        killer = threading.Timer(START_S, process.kill)
        killer.start()
        try:
            found = _said(process, ready, log)
            killer.cancel()
            threading.Thread(target=_drain, args=[process], daemon=True).start()
            yield found
        finally:
            killer.cancel()
            _end(process)


def _said(process: subprocess.Popen[str], ready: str, log: IO[str]) -> str:
    """What the process says when it is ready."""
    for line in process.stdout or ():
        if found := re.search(ready, line):
            return found[1]
    process.wait(STOP_S)
    log.seek(0)
    raise SystemExit(f"{log.read()[-LAST:]}\n{process.args} ended before it served")


def _drain(process: subprocess.Popen[str]) -> None:
    """Read on: a full pipe would stop the server."""
    for _ in process.stdout or ():
        pass


_hurried = threading.Event()
"""The bench itself was told to end: its servers get little time."""


def _stopped(*_: object) -> None:
    """As Ctrl-C does: a SystemExit is taken for a rival that did not start."""
    _hurried.set()
    raise KeyboardInterrupt


def _heed() -> None:
    """SIGINT is ignored where a shell started this in the background, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(HURRY_S if _hurried.is_set() else STOP_S)
    finally:  # also where a second Ctrl-C does not wait
        process.kill()
        process.wait()
        with suppress(OSError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
