"""A Ray Serve of its own, started and ended as `deployc serve` does it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from serve.environment import ray_environment

__all__ = ["run"]

POLL_S = 0.2


def run(config: dict[str, Any], url: str, *, haproxy: bool) -> None:
    """Serve until SIGINT, or until the parent is gone; prints the address once all is running."""
    parent, stopped = os.getppid(), list[int]()
    with ray_environment(haproxy=haproxy) as variables:
        os.environ.update({k: v for k, v in variables.items() if k not in os.environ})
        from serve import cluster  # imports Ray, which reads the environment once

        cluster.connect("local", dashboard=False)
        try:
            apps = cluster.deploy(config, {})
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, _: stopped.append(number))
            if cluster.wait_until_running(apps, lambda: bool(stopped)):
                print(f"serving at {url}", flush=True)
            while not stopped and os.getppid() == parent:
                time.sleep(POLL_S)
        finally:
            cluster.disconnect("local")
