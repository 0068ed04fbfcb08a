"""Starts the serving process in a session of its own, passes signals on, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from serve.session import ServeOptions

__all__ = ["supervise"]

LINGER_S = 10.0
"""How long Ray's processes may take to notice that their node has gone."""
POLL_S = 0.1
ENOUGH = 3
"""The first signal drains, the second hurries, this one kills."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = signal.SIGUSR1
"""Not SIGHUP, which comes when a terminal is closed: this is to end then."""


def supervise(options: ServeOptions) -> int:
    """Run ``serve.session`` until it ends; its exit status."""
    command = [sys.executable, "-m", "serve.session", options.to_json()]
    # The pipe is never written to: when this process dies, its end closes, and the child stops.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - ours
    try:
        with _passed_on(child):
            return child.wait()
    finally:
        _sweep(child.pid)


@contextmanager
def _passed_on(child: subprocess.Popen[bytes]) -> Generator[None]:
    passed: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        passed.append(number)
        child.send_signal(number if len(passed) < ENOUGH else signal.SIGKILL)

    before = {number: signal.signal(number, forward) for number in _SIGNALS}
    before[_AGAIN] = signal.signal(_AGAIN, lambda number, _: child.send_signal(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sweep(session: int) -> None:
    """Wait for the processes of ``session`` to end, and end those that do not."""
    deadline = time.monotonic() + LINGER_S
    while left := _members(session):
        if time.monotonic() > deadline:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(POLL_S)


def _members(session: int) -> list[int]:
    """Living processes of a session; none are found where there is no /proc."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the command's name, which may hold anything: state, parent, group, session.
            state, _, _, sid = entry.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                found.append(int(entry.parent.name))
    return found
