"""Draws the drift of one or several variants over the depth of the graph."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# matplotlib is typed in part.
from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.plot import plot_hint
from specs.audit import Drift, LayerDrift
from specs.errors import DeploycError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_drift"]

INK, FAINT = "#1f2328", "#656d76"
COLORS = ("#0969da", "#bf8700", "#8250df", "#1a7f37", "#cf222e", "#0550ae")
STYLES = ("-", "--", ":")
"""Lines that lie on each other are told apart by their style."""
INCHES, DPI = (9.0, 4.6), 150
SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#eaeef2",
}


def plot_drift(drifts: Mapping[str, Drift], title: str, out: Path) -> None:
    """Write a line per variant: relative RMS error by layer, the first divergence marked.

    Args:
        drifts: the drift by the variant's name; at least one.
        title: what stands above it.
        out: the file to write; its suffix names the format. The same drifts give the same bytes.

    Raises:
        DeploycError: matplotlib is not installed (``plot_library``), or the file cannot be written
            (``plot_failed``).
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        message = "a plot needs matplotlib, which is not installed"
        hint = 'pip install "deployc[build]", or leave --plot out'
        raise DeploycError(message, hint=hint, code="plot_library") from error
    with rc_context(SETTINGS):
        figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        marked = 0
        for number, (name, drift) in enumerate(drifts.items()):
            color = COLORS[number % len(COLORS)]
            _draw(axes, name, drift, color, STYLES[number % len(STYLES)])
            if drift.first is not None:
                _mark(axes, drift, color, marked)
                marked += 1
        _label(axes, title, next(iter(drifts.values())))
        try:
            figure.savefig(out, metadata={"Software": None} if out.suffix == ".png" else None)
        except (OSError, ValueError) as error:
            message = f"the plot cannot be written to {out}: {error}"
            hint = plot_hint(error, "name a .png file")
            raise DeploycError(message, hint=hint, code="plot_failed") from error


def _draw(axes: Axes, name: str, drift: Drift, color: str, style: str) -> None:
    """One line; equal layers are circles at the bottom, those that are not finite x at the top."""
    errors = [layer.relative for layer in drift.layers]
    numbers = range(1, len(errors) + 1)
    heights = [error or math.nan for error in errors]
    axes.plot(numbers, heights, marker=".", ls=style, c=color, label=_plain(name), ms=4)
    for height, wanted, marker in ((0.015, 0.0, "o"), (0.985, None, "x")):
        places = [number for number, error in zip(numbers, errors, strict=True) if error == wanted]
        axes.plot(
            places,
            [height] * len(places),
            marker,
            color=color,
            fillstyle="none",
            ms=4,
            transform=axes.get_xaxis_transform(),
        )


def _mark(axes: Axes, drift: Drift, color: str, line: int) -> None:
    """A line through the first divergence, with its name, each variant's on a line of its own."""
    number, layer = next((n, x) for n, x in enumerate(drift.layers, 1) if x.name == drift.first)
    axes.axvline(number, color=color, lw=1, ls="--")
    left = number <= len(drift.layers) / 2
    axes.annotate(
        f"first divergence: {_shown(layer)}",
        (number, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(6 if left else -6, -12 - 12 * line),
        textcoords="offset points",
        ha="left" if left else "right",
        va="top",
        color=color,
    )


def _shown(layer: LayerDrift, longest: int = 40) -> str:
    text = layer.node or layer.name
    return _plain(text if len(text) <= longest else f"{text[: longest - 3]}...")


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _label(axes: Axes, title: str, drift: Drift) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale("log")
    axes.set_title(_plain(title), loc="left", color=INK)
    axes.set_xlabel(
        _plain(f"layer, in the order of the graph ({drift.case}); circles: no difference")
    )
    axes.set_ylabel(f"RMS of the difference / RMS of {drift.reference}")
    axes.margins(y=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False)
