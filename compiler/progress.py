"""What a build shows while it runs: Rich on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

__all__ = ["Reporter", "Step"]

_Advance = Callable[[int], None]


@dataclass
class Step:
    """One stage while it runs; ``cached`` and ``detail`` are filled in by what runs it."""

    name: str
    detail: str = ""
    cached: bool = False
    seconds: float = 0.0


@dataclass
class Reporter:
    """Shows stages as they end and downloads as they run; keeps them for ``--json``."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    quiet: bool = False
    steps: list[Step] = field(default_factory=list[Step])
    broken: Step | None = None
    """The step that the last error came from."""

    @contextmanager
    def step(self, name: str) -> Generator[Step, None, None]:
        """Time a stage and show one line when it ends."""
        step = Step(name)
        start = time.perf_counter()
        self.broken = None
        try:
            with self._spinner(name):
                yield step
        except BaseException:
            self.broken = self.broken or step  # of steps within each other, the innermost
            raise
        finally:
            step.seconds = time.perf_counter() - start
        self.steps.append(step)
        self._line(step)

    def note(self, text: str) -> None:
        """A line that a person should see, such as a warning."""
        if not self.quiet:
            self.console.print(f"[yellow]![/] {_plain(text)}", soft_wrap=True)

    @contextmanager
    def download(self, name: str, total: int | None, start: int) -> Generator[_Advance, None, None]:
        """A progress bar over bytes; without a terminal, a line for every tenth."""
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn())
            with Progress(*columns, TransferSpeedColumn(), console=self.console) as progress:
                task = progress.add_task(name, total=total, completed=start)
                yield lambda count: progress.advance(task, count)
        else:
            yield _PlainBar(name, total, start, self).advance

    @contextmanager
    def _spinner(self, name: str) -> Generator[None, None, None]:
        # A live spinner and a download's bar cannot share the terminal.
        if self.console.is_terminal and not self.quiet and name != "weights":
            with self.console.status(f"{name} …"):
                yield
        else:
            yield

    def _line(self, step: Step) -> None:
        if self.quiet:
            return
        state = "cached" if step.cached else f"{step.seconds:.1f} s"
        mark = "[dim]=[/]" if step.cached else "[green]✓[/]"
        name = f"{step.name:<28}"
        self.console.print(f"{mark} {name} {state:>8}  {_plain(step.detail)}", soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


@dataclass
class _PlainBar:
    name: str
    total: int | None
    done: int
    reporter: Reporter
    shown: int = 0

    def advance(self, count: int) -> None:
        """Count bytes; print at every tenth of the whole."""
        self.done += count
        tenth = self.done * 10 // self.total if self.total else 0
        if tenth > self.shown and not self.reporter.quiet:
            self.shown = tenth
            self.reporter.console.print(f"  {_plain(self.name)}: {tenth * 10} %", soft_wrap=True)
