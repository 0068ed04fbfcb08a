"""What a hop costs: digits over HTTP through each ingress, as ratios to Ray's Python proxy.

Run ``python bench/ingress.py`` (about 3 minutes). Each set-up is a `deployc serve` of its own on
loopback; the load comes from another process with keep-alive connections, a fixed number of
requests each, every answer checked. On a small machine the clients take cores from the server, so
read the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from _child import ROOT, deployc, serving
from _load import Ask, Closed, send

PICTURE = ROOT / "specs" / "samples" / "digits" / "digit_3.png"
CLIENTS = (1, 8, 32)
SECONDS = 4.0
ROUNDS = 3
SETUPS: dict[str, tuple[int, list[str]]] = {
    "Ray's Python proxy, one model": (1, ["--no-haproxy"]),
    "HAProxy, one model": (1, []),
    "HAProxy, three models behind one gate": (3, []),
}
"""Models served, and options of the command."""


def application(artifact: Path, models: int) -> dict[str, object]:
    """One artifact under several names."""
    entries = [{"artifact": str(artifact), "name": f"digits{n}"} for n in range(models)]
    return {"name": "bench", "import_path": "serve.app:build", "args": {"models": entries}}


def load(url: str, clients: int) -> float:
    """Answers per second from ``clients`` at once."""
    body = PICTURE.read_bytes()
    ask = Ask(f"{url}/models/digits0/predict", body, "image/png", '"three"')
    sent = send(ask, Closed(clients, SECONDS))
    if wrong := [each.status for each in sent if not each.right]:
        raise SystemExit(f"a wrong answer: {wrong[0]}")
    return len(sent) / SECONDS


def measured(url: str) -> list[float]:
    """The median rate over the rounds at each number of clients."""
    return [statistics.median(load(url, clients) for _ in range(ROUNDS)) for clients in CLIENTS]


def main() -> None:
    """Build digits, measure every set-up, print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "digits"
        deployc("build", "-q", "-o", str(artifact), str(ROOT / "specs" / "digits.yaml"))
        rates: dict[str, list[float]] = {}
        for name, (models, options) in SETUPS.items():
            with serving([application(artifact, models)], Path(folder), options) as url:
                rates[name] = measured(url)
    report(rates)


def report(rates: dict[str, list[float]]) -> None:
    """The table: ratio to the first set-up, and the rate behind it."""
    print(f"{os.cpu_count()} cores, median of {ROUNDS} rounds of {SECONDS:g} s")
    print("| HTTP ingress |" + "".join(f" {n} client{'s' * (n > 1)} |" for n in CLIENTS))
    print("|---|" + "---|" * len(CLIENTS))
    first = next(iter(rates.values()))
    for name, found in rates.items():
        cells = [
            f" {rate / base:.1f} ({rate:.0f}/s) |" for rate, base in zip(found, first, strict=True)
        ]
        print(f"| {name} |" + "".join(cells))


if __name__ == "__main__":
    main()
