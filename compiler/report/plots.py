"""Draws a profile: latency, throughput and memory over the batch size.

The colours of the light theme stand in the drawing; in the page's SVG each becomes a CSS variable,
so that the page's theme colours it.
"""

# matplotlib types its functions' keyword arguments as nothing that a checker knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.plot import plot_hint
from specs.errors import DeploycError
from specs.profile import Form, Point, Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORS", "compare", "draw_file", "latency", "memory", "throughput"]

COLORS = {
    "ink": "#1f2329",
    "faint": "#59636f",
    "grid": "#dfe3e8",
    "dynamic": "#0a69da",
    "fixed": "#bc4c01",
    "bound": "#d1242f",
    "advice": "#1a7f38",
    "third": "#8250df",
    "fourth": "#9a6700",
    "fifth": "#116329",
}
"""By role, in the light theme: the CSS variables of the same names give both themes' colours."""
SERIES = ("dynamic", "fixed", "third", "fourth", "fifth")
MARKS: dict[Form, str] = {"dynamic": "o", "fixed": "s"}
SIZE = (5.4, 3.5)
"""Of one drawing, in inches."""
WIDE = 12
"""Where the largest value is so many times the smallest, the axis is logarithmic."""
TICKS = 9
"""More batch sizes than these are not all written at the axis."""
MEGABYTE = 1e6
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it is read aloud, found and copied
    "svg.hashsalt": "deployc",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLORS["faint"],
    "axes.labelcolor": COLORS["faint"],
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["faint"],
    "ytick.color": COLORS["faint"],
    "grid.color": COLORS["grid"],
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


def latency(profile: Profile) -> str:
    """SVG of p50 as a line and the band up to p99, per form, with the SLO."""
    return _svg(lambda axes: _latency(axes, profile))


def throughput(profile: Profile) -> str:
    """SVG of items per second per form, with the sizes to serve with."""
    return _svg(lambda axes: _throughput(axes, profile))


def memory(profile: Profile) -> str:
    """SVG of the process' peak memory per form; of the GPU's where it was measured."""
    return _svg(lambda axes: _memory(axes, profile))


def compare(profiles: Mapping[str, Profile]) -> str:
    """SVG of the variants' throughput, each in the form that serving opens."""
    return _svg(lambda axes: _compare(axes, profiles))


def draw_file(profile: Profile, file: Path) -> None:
    """Latency, throughput and memory side by side, in the format that the suffix names.

    Raises:
        DeploycError: the file cannot be written (``plot_failed``).
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):
        figure = Figure((3 * SIZE[0], SIZE[1] + 0.4), layout="constrained", dpi=150)
        for axes, draw in zip(figure.subplots(1, 3), (_latency, _throughput, _memory), strict=True):
            draw(axes, profile)
        figure.suptitle(f"{profile.variant} on {profile.machine.gpu or profile.machine.cpu}")
        try:
            figure.savefig(file)
        except (OSError, ValueError) as error:
            message = f"the drawing cannot be written to {file}: {error}"
            hint = plot_hint(error, "name a .png, .svg or .pdf file")
            raise DeploycError(message, hint=hint, code="plot_failed") from error


def _latency(axes: Axes, profile: Profile) -> None:
    for form in profile.forms:
        points, color = profile.of(form), COLORS[form]
        sizes = [point.batch for point in points]
        low, high = [p.p50_ms for p in points], [p.p99_ms for p in points]
        axes.fill_between(sizes, low, high, color=color, alpha=0.1, linewidth=0)
        axes.plot(sizes, high, color=color, linewidth=0.9, linestyle=(0, (1, 1.5)))
        axes.plot(sizes, low, marker=MARKS[form], color=color, label=f"{form}: p50, band to p99")
        _mark_odd(axes, points, low)
    slo = profile.advice.slo_ms
    if slo is not None:
        _bound(axes, slo, f"SLO {slo:g} ms")
        _bound(axes, slo / 2, "half of it: a batch's share")
    values = [value for point in profile.points for value in (point.p50_ms, point.p99_ms)]
    _finish(axes, profile, "one batch, ms", [*values, *([slo] if slo else [])])


def _throughput(axes: Axes, profile: Profile) -> None:
    for form in profile.forms:
        points = profile.of(form)
        rates = [point.rate for point in points]
        sizes = [point.batch for point in points]
        axes.plot(sizes, rates, marker=MARKS[form], color=COLORS[form], label=form)
        _mark_odd(axes, points, rates)
    _finish(axes, profile, "items per second", [point.rate for point in profile.points])
    _advise(axes, profile)


def _memory(axes: Axes, profile: Profile) -> None:
    values: list[float] = []
    for form in profile.forms:
        points = profile.of(form)
        sizes = [point.batch for point in points]
        host = [point.peak_memory_bytes / MEGABYTE for point in points]
        axes.plot(sizes, host, marker=MARKS[form], color=COLORS[form], label=f"{form}: process")
        taken = [(p.batch, p.gpu_memory_bytes / MEGABYTE) for p in points if p.gpu_memory_bytes]
        if taken:
            gpu_sizes, gpu = zip(*taken, strict=True)
            axes.plot(gpu_sizes, gpu, ":", marker="^", color=COLORS[form], label=f"{form}: GPU")
        values += [*host, *(value for _, value in taken)]
    _finish(axes, profile, "peak memory, MB", values)


def _compare(axes: Axes, profiles: Mapping[str, Profile]) -> None:
    sizes: set[int] = set()
    for number, (name, profile) in enumerate(profiles.items()):
        points = profile.of(profile.advice.form)
        color = COLORS[SERIES[number % len(SERIES)]]
        line = "-" if number < len(SERIES) else "--"
        batches = [point.batch for point in points]
        rates = [point.rate for point in points]
        axes.plot(batches, rates, line, marker="o", color=color, label=name)
        sizes.update(batches)
    rates = [point.rate for p in profiles.values() for point in p.of(p.advice.form)]
    _axes(axes, sorted(sizes), "items per second", rates)


def _mark_odd(axes: Axes, points: Sequence[Point], values: Sequence[float]) -> None:
    """A ring around sizes that stand out."""
    odd = [
        (point.batch, value)
        for point, value in zip(points, values, strict=True)
        if any(flag.startswith("slower_") for flag in point.flags)
    ]
    if odd:
        x, y = zip(*odd, strict=True)
        axes.plot(x, y, "o", markersize=11, fillstyle="none", color=COLORS["bound"])


def _bound(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=COLORS["bound"], linewidth=1, linestyle=(0, (4, 3)))
    place = axes.get_yaxis_transform()
    axes.text(0.01, value, label, transform=place, va="bottom", size=8, color=COLORS["bound"])


def _advise(axes: Axes, profile: Profile) -> None:
    """Lines at the sizes to serve with."""
    advice = profile.advice
    named = {advice.throughput: "throughput"}
    if advice.slo is not None:
        both = advice.slo == advice.throughput
        named[advice.slo] = "throughput and SLO" if both else "SLO"
    for size, why in named.items():
        axes.axvline(size, color=COLORS["advice"], linewidth=1, linestyle=(0, (1, 2)))
        place = axes.get_xaxis_transform()
        text = f" {size}: {why}"
        axes.text(
            size,
            0.02,
            text,
            transform=place,
            rotation=90,
            ha="right",
            size=8,
            color=COLORS["advice"],
        )


def _finish(axes: Axes, profile: Profile, label: str, values: Sequence[float]) -> None:
    _axes(axes, sorted({point.batch for point in profile.points}), label, values)


def _axes(axes: Axes, sizes: Sequence[int], label: str, values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log", base=2)
    shown = sizes if len(sizes) <= TICKS else [s for s in sizes if s & (s - 1) == 0]
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("batch size")
    axes.set_ylabel(label)
    if max(values) > WIDE * min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.12 * max(values))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.grid(axis="y", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.legend(loc="best", fontsize=8)


def _svg(draw: Callable[[Axes], None]) -> str:
    """The drawing as an ``svg`` element that takes the page's colours and width."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(SETTINGS):
        figure: Figure = Figure(SIZE, layout="constrained")
        draw(figure.subplots())
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _embedded(buffer.getvalue())


def _embedded(document: str) -> str:
    """The ``svg`` element, without what ties it to one size, theme or font."""
    element = document[document.index("<svg") :].strip()
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    head, body = element.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    element = re.sub(
        r"<style\b.*?</style>|font-family: [^;]*; ", "", f"{head}>{body}", flags=re.DOTALL
    )
    used = set(re.findall(r"#([A-Za-z][\w.]*)", element))
    # Several drawings share a page: an id that nothing refers to would stand there several times.
    element = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", element)
    for role, color in COLORS.items():
        element = element.replace(color, f"var(--{role})")
    return element
