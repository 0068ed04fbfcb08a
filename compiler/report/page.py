"""Fills the template of ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from compiler.profile.advice import explain
from compiler.report import REPORT, plots
from compiler.report.facts import bar, bytes_text, files_by_part, odd, runs, shares
from specs.audit import Audit, LayerDrift
from specs.manifest import Manifest, Variant
from specs.profile import Point, Profile
from specs.values import show_shape

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["page"]

WORST = 12
"""Layers of the drift table."""


@dataclass(frozen=True)
class Section:
    """One variant with all that is known of it; drawings are SVG elements."""

    variant: Variant
    profile: Profile | None
    audit: Audit | None
    drawings: tuple[tuple[str, str], ...]
    """Caption and SVG."""
    best: Point | None
    """What is advised for throughput."""
    advice: tuple[str, ...]
    drift: tuple[LayerDrift, ...]
    """The layers farthest from the reference, in the graph's order."""


def page(manifest: Manifest, profiles: Mapping[str, Profile], audits: Mapping[str, Audit]) -> str:
    """The page's text; see ``compiler.report.render``."""
    sections = [
        _section(variant, profiles.get(variant.name), audits.get(variant.name))
        for variant in manifest.variants
    ]
    parts = files_by_part(manifest, REPORT)
    nodes = {op: float(count) for op, count in manifest.graph.nodes.items()}
    return _template().render(
        manifest=manifest,
        sections=sections,
        sides=runs(manifest, profiles, audits),
        compared=_compared(profiles),
        parts=shares(parts, {name: bytes_text(size) for name, size in parts.items()}),
        nodes=shares(nodes, {op: f"{count:g}" for op, count in nodes.items()}),
        entries={name: e for name, e in manifest.files.items() if name != REPORT},
        style=_read("style.css"),
    )


def _section(variant: Variant, profile: Profile | None, audit: Audit | None) -> Section:
    return Section(
        variant=variant,
        profile=profile,
        audit=audit,
        drawings=tuple(_drawings(profile)) if profile else (),
        best=_best(profile) if profile else None,
        advice=explain(profile) if profile else (),
        drift=_farthest(audit),
    )


def _best(profile: Profile) -> Point:
    advice = profile.advice
    return next(point for point in profile.of(advice.form) if point.batch == advice.throughput)


def _drawings(profile: Profile) -> list[tuple[str, str]]:
    return [
        ("Latency of one batch", plots.latency(profile)),
        ("Throughput", plots.throughput(profile)),
        ("Peak memory", plots.memory(profile)),
    ]


def _compared(profiles: Mapping[str, Profile]) -> str:
    return plots.compare(profiles) if len(profiles) > 1 else ""


def _farthest(audit: Audit | None) -> tuple[LayerDrift, ...]:
    """The layers with the largest excess; one that is not finite is the farthest of all."""
    if audit is None or audit.drift is None:
        return ()
    layers = audit.drift.layers
    order = sorted(range(len(layers)), key=lambda at: -_excess(layers[at]))
    return tuple(layers[at] for at in sorted(order[:WORST]))


def _excess(layer: LayerDrift) -> float:
    return float("inf") if layer.excess is None else layer.excess


def _read(name: str) -> str:
    return files("compiler.report").joinpath(name).read_text("utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Any] = {
        "bytes": bytes_text,
        "number": _number,
        "odd": odd,
        "bar": bar,
        "shape": show_shape,
    }
    environment.filters.update(filters)  # pyright: ignore[reportUnknownMemberType] - jinja2 has no type
    return environment.from_string(_read("report.html.j2"))


def _number(value: float | None) -> str:
    """Three digits, without an exponent where a person would not write one."""
    if value is None:
        return "not finite"
    if value != 0 and abs(value) < 1e-3:  # noqa: PLR2004 - three digits fit
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - as above
