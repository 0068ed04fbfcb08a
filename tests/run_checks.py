"""Runs every check of the project and says at the end what passed, failed and was skipped.

Each check is one command; all run, so that one failure does not hide another.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@dataclass
class Tally:
    """Counts over all checks; a check without tests of its own counts as one."""

    counts: Counter[str] = field(default_factory=Counter[str])
    lines: list[str] = field(default_factory=list[str])
    reasons: Counter[str] = field(default_factory=Counter[str])

    def add(self, name: str, seconds: float, **counts: int) -> None:
        """Note one check."""
        self.counts.update(counts)
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        self.lines.append(f"  {name:<14} {told:<40} {seconds:6.1f} s")


def run(name: str, *command: str) -> tuple[int, float]:
    """Run one check in the repository, its output on the terminal."""
    print(f"\n== {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False).returncode
    return code, time.monotonic() - start


def simple(tally: Tally, name: str, *command: str) -> None:
    """A check that passes or fails as a whole."""
    code, seconds = run(name, *command)
    tally.add(name, seconds, passed=int(code == 0), failed=int(code != 0))


def pytest(tally: Tally, arguments: list[str]) -> None:
    """The tests; counted from the report that pytest writes."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code, seconds = run("pytest", "pytest", f"--junitxml={report}", *arguments)
        if not report.exists():
            tally.add("pytest", seconds, passed=0, failed=1)
            return
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - pytest's own report
    counts = Counter(_outcome(case) for case in cases)
    # An exit code that no test explains (no tests, an internal error) is a failure of its own.
    failed = counts["failed"] or int(code != 0)
    tally.reasons.update(_reason(case) for case in cases if _outcome(case) == "skipped")
    tally.add("pytest", seconds, passed=counts["passed"], failed=failed, skipped=counts["skipped"])


def _outcome(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def _reason(case: ET.Element) -> str:
    skipped = case.find("skipped")
    return skipped.get("message", "") if skipped is not None else ""


def main(arguments: list[str]) -> int:
    """Run all checks; ``arguments`` go to pytest."""
    tally = Tally()
    simple(tally, "ruff check", "ruff", "check", ".")
    simple(tally, "ruff format", "ruff", "format", "--check", ".")
    simple(tally, "pyright", "pyright")
    simple(tally, "import-linter", "lint-imports")
    pytest(tally, arguments)
    print("\n== summary")
    print("\n".join(tally.lines))
    for reason, count in tally.reasons.items():
        print(f"  skipped {count}: {reason}")
    counts = tally.counts
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
