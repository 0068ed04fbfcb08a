"""A profile as a table on the terminal."""

from __future__ import annotations

from rich.table import Table

from compiler.profile.advice import explain
from specs.profile import Interval, Point, Profile

__all__ = ["lines", "remark", "table"]

MEGABYTE = 1e6
COLUMNS = ("batch", "form", "p50 ms", "±", "p95 ms", "p99 ms", "±", "items/s", "runs")
WORDS = {
    "slower_than_smaller": "slower per item than a smaller size",
    "slower_than_larger": "slower than the next larger size",
    "unstable": "unstable",
    "disturbed": "disturbed",
}
OPEN = "?: fewer runs than the about 600 that bound a p99 from above; more --seconds bring more"


def table(profile: Profile) -> Table:
    """A row per point; failures below."""
    gpu = any(point.gpu_memory_bytes is not None for point in profile.points)
    made = Table(box=None, pad_edge=False)
    for column in (*COLUMNS, "memory MB", *(["GPU MB"] if gpu else []), "load s"):
        made.add_column(column, justify="left" if column == "form" else "right", no_wrap=True)
    made.add_column("remarks")
    for point in profile.points:
        made.add_row(
            *_cells(point, gpu=gpu), ", ".join(WORDS[flag] for flag in point.flags if flag in WORDS)
        )
    for failure in profile.failures:
        empty = [""] * (len(made.columns) - 3)
        made.add_row(str(failure.batch), failure.form, *empty, f"NOT MEASURED: {failure.message}")
    return made


def lines(profile: Profile) -> tuple[str, ...]:
    """Where it was measured, and what it advises."""
    where = f"{profile.variant} on {profile.machine}"
    return (where, *(f"  {text}" for text in explain(profile)))


def remark(profile: Profile) -> str:
    """What a reader of the table must know; "" for nothing."""
    return OPEN if any("few_samples" in point.flags for point in profile.points) else ""


def _cells(point: Point, *, gpu: bool) -> list[str]:
    taken = point.gpu_memory_bytes
    cells = [
        str(point.batch),
        point.form,
        f"{point.p50_ms:.3f}",
        _within(point.p50_ci, point.p50_ms),
        f"{point.p95_ms:.3f}",
        f"{point.p99_ms:.3f}",
        _within(point.p99_ci, point.p99_ms),
        f"{point.rate:,.1f}",
        str(point.samples),
        f"{point.peak_memory_bytes / MEGABYTE:.0f}",
    ]
    if gpu:
        cells.append("not measured" if taken is None else f"{taken / MEGABYTE:.0f}")
    return [*cells, f"{point.load_seconds:.2f}"]


def _within(found: Interval, value: float) -> str:
    """Half of the 95 % interval, as a share of the value."""
    share = found.within(value)
    if share is None:
        return "?"
    return f"{100 * share:.1f} %" if share < 1 else ">100 %"
