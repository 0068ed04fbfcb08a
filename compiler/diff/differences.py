"""Everything in which two sides differ, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from compiler.diff.side import Side, pairs
from specs.faults import Path
from specs.loader import field_path
from specs.manifest import AccuracyResult, Manifest, Variant
from specs.profile import Machine, Profile

__all__ = ["ABSENT", "Difference", "comparable", "differences", "points", "sizes"]

ABSENT = None
"""Stands for what one side does not have."""


RECORDS = frozenset({"audit.json", "profile.json", "report.html"})
"""Files about the artifact: nothing is answered with them, so that their size says nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same.

    Args:
        section: ``spec``, ``graph``, ``nodes``, ``variants``, ``parity``, ``accuracy``, ``size``,
            ``latency``, ``toolchain`` or ``machine``.
        name: what it is.
        old, new: plain data of A and of B; None where that side has none.
        unit: of both, where they are numbers: ``bytes``, ``ms``.
    """

    section: str
    name: str
    old: Any
    new: Any
    unit: str = ""

    @property
    def growth(self) -> float | None:
        """By which share of the old value the new one is larger; None where that means nothing."""
        numbers = all(
            isinstance(each, int | float) and not isinstance(each, bool)
            for each in (self.old, self.new)
        )
        return (self.new - self.old) / self.old if numbers and self.old else None


def differences(a: Side, b: Side) -> list[Difference]:
    """What differs between two artifacts, or between two specs."""
    found = list(_mapping("spec", _flat(a.spec_data()), _flat(b.spec_data())))
    if a.manifest and b.manifest:
        found += _graphs(a.manifest, b.manifest)
        found += _variants(a, b)
        found += _mapping("size", sizes(a.manifest), sizes(b.manifest), "bytes")
        found += _latency(a, b)
        found += _mapping("toolchain", a.manifest.toolchain, b.manifest.toolchain)
    return found


def _mapping(
    section: str, old: Mapping[str, Any], new: Mapping[str, Any], unit: str = ""
) -> Iterator[Difference]:
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name) or (name in old) != (name in new):
            yield Difference(section, name, old.get(name), new.get(name), unit)


def _flat(value: object, path: Path = ()) -> dict[str, object]:
    """Dotted paths to the leaves; an empty mapping or list is a leaf, too."""
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(cast("dict[str | int, object]", value).items())
    elif isinstance(value, list):
        items = list(enumerate(cast("list[object]", value)))
    if not items:
        return {field_path(path): value}
    flat: dict[str, object] = {}
    for key, item in items:
        flat |= _flat(item, (*path, key))
    return flat


def _graphs(a: Manifest, b: Manifest) -> Iterator[Difference]:
    fields = ("opset", "ir_version", "exporter", "parameters")
    for name in fields:
        old, new = getattr(a.graph, name), getattr(b.graph, name)
        if old != new:
            yield Difference("graph", name, old, new)
    if a.weights != b.weights:
        yield Difference("graph", "weights", str(a.weights), str(b.weights))
    nodes = sorted(a.graph.nodes.keys() | b.graph.nodes.keys())
    for op in nodes:
        old, new = a.graph.nodes.get(op, 0), b.graph.nodes.get(op, 0)
        if old != new:
            yield Difference("nodes", op, old, new)


def _variants(a: Side, b: Side) -> Iterator[Difference]:
    paired = list(pairs(a, b))
    taken = {new.name for _, new in paired if new}
    for old, new in paired:
        if new is None:
            yield Difference("variants", old.name, old.precision, ABSENT)
        else:
            yield from _variant(old, new)
    for variant in b.variants:
        if variant.name not in taken:
            yield Difference("variants", variant.name, ABSENT, variant.precision)


def _variant(old: Variant, new: Variant) -> Iterator[Difference]:
    name = old.name if old.name == new.name else f"{old.name} / {new.name}"
    for what in ("engine", "device", "precision", "kept", "options", "details"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            yield Difference("variants", f"{name}: {what}", _plain(before), _plain(after))
    if old.largest_difference != new.largest_difference:
        told = f"{name}: largest difference"
        yield Difference("parity", told, old.largest_difference, new.largest_difference)
    if old.accuracy != new.accuracy:
        told = (_accuracy(old.accuracy), _accuracy(new.accuracy))
        yield Difference("accuracy", name, *told)


def _plain(value: object) -> object:
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def _accuracy(found: AccuracyResult | None) -> str | None:
    return None if found is None else f"{found.metric} {found.variant}/{found.count}"


def sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of the graph, of each variant's own files, and of all files; without records."""
    every = {
        name: entry.bytes
        for name, entry in manifest.files.items()
        if name.rpartition("/")[2] not in RECORDS
    }
    found = {"graph": sum(size for name, size in every.items() if name.startswith("model.onnx"))}
    for variant in manifest.variants:
        folder = f"variants/{variant.name}/"
        found[variant.name] = sum(size for name, size in every.items() if name.startswith(folder))
    return {**found, "artifact": sum(every.values())}


def points(profile: Profile) -> dict[tuple[str, int], tuple[float, float]]:
    """p50 and p99 in milliseconds, by form and batch size."""
    return {(point.form, point.batch): (point.p50_ms, point.p99_ms) for point in profile.points}


def comparable(a: Machine, b: Machine) -> bool:
    """Whether latencies of two machines may be compared: same processor, and same GPU."""
    fields = ("cpu", "cores", "threads", "gpu")
    return all(getattr(a, name) == getattr(b, name) for name in fields)


def _latency(a: Side, b: Side) -> Iterator[Difference]:
    for old, new in pairs(a, b):
        before = a.profiles.get(old.name)
        after = b.profiles.get(new.name) if new else None
        if before and after:
            yield from _timed(old.name, before, after)


def _timed(name: str, before: Profile, after: Profile) -> Iterator[Difference]:
    old, new = points(before), points(after)
    for form, batch in sorted(old.keys() & new.keys()):
        for index, quantile in enumerate(("p50", "p99")):
            was, now = old[form, batch][index], new[form, batch][index]
            if was != now:
                told = f"{name}: batch {batch} {form}: {quantile}"
                yield Difference("latency", told, was, now, "ms")
    if not comparable(before.machine, after.machine):
        yield Difference("machine", name, str(before.machine), str(after.machine))
