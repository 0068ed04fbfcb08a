"""What a hop costs: digits over HTTP through each ingress, as ratios to Ray's Python proxy.

Run ``python bench/ingress.py`` (about 3 minutes). Each set-up is a `deployc serve` of its own on
loopback; the load comes from another process with keep-alive connections, a fixed number of
requests each, every answer checked. On a small machine the clients take cores from the server, so
read the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "specs" / "samples" / "digits" / "digit_3.png"
CLIENTS = (1, 8, 32)
SECONDS = 4.0
ROUNDS = 3
START_S = 180
SETUPS: dict[str, tuple[int, list[str]]] = {
    "Ray's Python proxy, one model": (1, ["--no-haproxy"]),
    "HAProxy, one model": (1, []),
    "HAProxy, three models behind one gate": (3, []),
}
"""Models served, and options of the command."""


@contextmanager
def serving(artifact: Path, models: int, options: list[str]) -> Generator[str, None, None]:
    """`deployc serve` of one artifact under several names; yields its URL."""
    entries = [{"artifact": str(artifact), "name": f"digits{n}"} for n in range(models)]
    application = {"name": "bench", "import_path": "serve.app:build", "args": {"models": entries}}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "deploy.yaml"
        config.write_text(json.dumps({"applications": [application]}), "utf-8")  # JSON is YAML
        command = [str(Path(sys.executable).parent / "deployc"), "serve", str(config)]
        process = subprocess.Popen(
            [*command, "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield url_of(process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(START_S)


def url_of(process: subprocess.Popen[str]) -> str:
    """The address that the command prints when it is ready."""
    for line in process.stdout or ():
        if found := re.search(r"serving at (\S+)", line):
            return found[1]
    raise SystemExit("deployc serve ended before it served")


def client(url: str, seconds: float) -> int:
    """One keep-alive connection, one request after the other; how many were answered."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    body = PICTURE.read_bytes()
    headers = {"Content-Type": "image/png"}
    answered = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.request("POST", "/models/digits0/predict", body, headers)
        response = connection.getresponse()
        if b'"three"' not in response.read():
            raise SystemExit(f"a wrong answer: {response.status}")
        answered += 1
    return answered


def load(url: str, clients: int, seconds: float) -> float:
    """Answers per second from ``clients`` at once."""
    with ThreadPoolExecutor(clients) as pool:
        counts = list(pool.map(client, [url] * clients, [seconds] * clients))
    return sum(counts) / seconds


def measured(url: str) -> list[float]:
    """The median rate over the rounds at each number of clients, loaded from another process."""
    rates: list[float] = []
    for clients in CLIENTS:
        command = [sys.executable, __file__, "--load", url, "--clients", str(clients)]
        found = [
            float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for _ in range(ROUNDS)
        ]
        rates.append(statistics.median(found))
    return rates


def main() -> None:
    """Build digits, measure every set-up, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", help="send load to this URL and print the rate")
    parser.add_argument("--clients", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.load:
        print(load(arguments.load, arguments.clients, SECONDS))
        return
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "digits"
        build = [str(Path(sys.executable).parent / "deployc"), "build", "-q", "-o", str(artifact)]
        spec = str(ROOT / "specs" / "digits.yaml")
        subprocess.run([*build, spec], check=True, stdout=subprocess.DEVNULL)
        rates: dict[str, list[float]] = {}
        for name, (models, options) in SETUPS.items():
            with serving(artifact, models, options) as url:
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
