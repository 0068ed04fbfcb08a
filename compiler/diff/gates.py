"""Bounds on what may differ. What cannot be judged breaks its gate: it is never passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from compiler.diff.differences import comparable, sizes
from compiler.diff.side import Side, pairs
from specs.manifest import Variant
from specs.profile import Point, Profile, Quantile

__all__ = ["SAME", "Gates", "broken"]

ROUNDING = 1e-6
"""Differences below this are rounding: float32 has a relative precision of 2**-24, 6e-8, and a sum
of some hundreds of products loses a digit of it. A parity gate does not ask for less."""


@dataclass(frozen=True)
class Gates:
    """What is asked; None is not asked.

    Args:
        latency: largest growth of a batch's latency, as a share.
        quantile: of which quantile.
        any_machine: compare latencies although the machines differ.
        size: largest growth in bytes of the graph and of each variant's files, as a share.
        accuracy: largest drop of the share of right answers.
        parity: largest factor by which the largest difference from the reference may grow.
        same: names of ``SAME`` that must not differ.
    """

    latency: float | None = None
    quantile: Quantile = "p50"
    any_machine: bool = False
    size: float | None = None
    accuracy: float | None = None
    parity: float | None = None
    same: tuple[str, ...] = ()


def broken(a: Side, b: Side, gates: Gates) -> list[str]:
    """Why the gates are broken, one text for each thing; empty where they hold."""
    found = [text for name in gates.same for text in _same(a, b, name)]
    checks: tuple[tuple[float | None, str, Callable[[Side, Side, Gates], Iterator[str]]], ...] = (
        (gates.size, "sizes", _size),
        (gates.accuracy, "accuracy", _accuracy),
        (gates.parity, "parity", _parity),
        (gates.latency, "latency", _latency),
    )
    for bound, name, check in checks:
        if bound is None:
            continue
        if a.manifest is None or b.manifest is None:
            found.append(f"{name}: a spec has none; build both, and compare the artifacts")
        else:
            found += check(a, b, gates)
    return found


def _opset(side: Side) -> object:
    return side.manifest.graph.opset if side.manifest else side.spec.export.opset


def _exporter(side: Side) -> object:
    if side.manifest:
        return side.manifest.graph.exporter
    return side.spec.export.exporter if side.spec.model.exporters else "none"


def _precision(side: Side) -> object:
    if side.manifest:
        return {variant.name: variant.precision for variant in side.manifest.variants}
    return {target.variant: target.precision for target in side.spec.targets}


def _nodes(side: Side) -> object:
    return dict(side.manifest.graph.nodes) if side.manifest else None


def _parameters(side: Side) -> object:
    return side.manifest.graph.parameters if side.manifest else None


def _weights(side: Side) -> object:
    if side.manifest:
        return side.manifest.weights.sha256 or str(side.manifest.weights)
    return side.spec.weights.model_dump(mode="json") if side.spec.weights else {}


def _inputs(side: Side) -> object:
    return _part(side, "inputs")


def _outputs(side: Side) -> object:
    return _part(side, "outputs")


def _part(side: Side, name: str) -> Any:  # noqa: ANN401 - plain data
    axes = {k: v.model_dump() for k, v in side.spec.dynamic_axes.items()}
    tensors = {k: v.model_dump(mode="json") for k, v in getattr(side.spec, name).items()}
    used = {dim for tensor in tensors.values() for dim in tensor["shape"]}
    return [list(tensors.items()), {dim: axes[dim] for dim in sorted(axes.keys() & used)}]


def _toolchain(side: Side) -> object:
    return dict(side.manifest.toolchain) if side.manifest else None


def _spec(side: Side) -> object:
    return side.spec_data()


SAME: dict[str, Callable[[Side], object]] = {
    "opset": _opset,
    "exporter": _exporter,
    "precision": _precision,
    "nodes": _nodes,
    "parameters": _parameters,
    "weights": _weights,
    "inputs": _inputs,
    "outputs": _outputs,
    "toolchain": _toolchain,
    "spec": _spec,
}
"""What ``--same`` may name; None is what a side does not know."""


def _same(a: Side, b: Side, name: str) -> Iterator[str]:
    old, new = SAME[name](a), SAME[name](b)
    if old is None or new is None:
        yield f"same {name}: a spec does not tell; build both, and compare the artifacts"
    elif old != new:
        short = name in ("opset", "exporter", "precision", "parameters")
        yield f"same {name}: {f'{old} in A, {new} in B' if short else 'they differ, see the table'}"


def _missing(variant: Variant) -> str:
    return f"A's variant {variant.name} is not in B"


def _size(a: Side, b: Side, gates: Gates) -> Iterator[str]:
    if a.manifest is None or b.manifest is None or gates.size is None:
        return
    old, new = sizes(a.manifest), sizes(b.manifest)
    yield from _grown("graph", old["graph"], new["graph"], gates.size)
    for before, after in pairs(a, b):
        if after is None:
            yield f"size: {_missing(before)}"
        else:
            yield from _grown(before.name, old[before.name], new[after.name], gates.size)


def _grown(name: str, old: int, new: int, most: float) -> Iterator[str]:
    if new > old * (1 + most):
        growth = f"+{(new - old) / old:.1%}" if old else "from nothing"
        told = f"{old:,} -> {new:,} bytes ({growth}), allowed are +{100 * most:.4g} %"
        yield f"size of {name}: {told}"


def _accuracy(a: Side, b: Side, gates: Gates) -> Iterator[str]:
    most = gates.accuracy or 0.0
    for before, after in pairs(a, b):
        if after is None:
            yield f"accuracy: {_missing(before)}"
            continue
        old, new = before.accuracy, after.accuracy
        if old is None or new is None:
            where = "A" if old is None else "B"
            yield f"accuracy of {before.name}: not measured in {where}; set verify.accuracy"
        elif (old.metric, old.count) != (new.metric, new.count):
            yield (
                f"accuracy of {before.name}: {old} in A and {new} in B are not comparable: "
                "another metric, or other samples"
            )
        elif (drop := (old.variant - new.variant) / old.count) > most:
            yield (
                f"accuracy of {before.name}: {old.variant}/{old.count} -> "
                f"{new.variant}/{new.count}, a drop of {drop:.4f}, allowed are {most:.4g}"
            )


def _parity(a: Side, b: Side, gates: Gates) -> Iterator[str]:
    most = gates.parity or 0.0
    for before, after in pairs(a, b):
        if after is None:
            yield f"parity: {_missing(before)}"
            continue
        old, new = before.largest_difference, after.largest_difference
        if new > max(old, ROUNDING) * most:
            times = f"{new / max(old, ROUNDING):.3g} times"
            yield (
                f"parity of {before.name}: largest difference {old:.3g} -> {new:.3g} "
                f"({times}), allowed are {most:.4g} times"
            )


def _latency(a: Side, b: Side, gates: Gates) -> Iterator[str]:
    for before, after in pairs(a, b):
        if after is None:
            yield f"latency: {_missing(before)}"
            continue
        old, new = a.profiles.get(before.name), b.profiles.get(after.name)
        if old is None or new is None:
            side = a if old is None else b
            told = f"not measured in {side.path}: run `deployc profile {side.path}`"
            yield f"latency of {before.name}: {told}"
        else:
            yield from _slower(before.name, old, new, gates)


def _slower(name: str, old: Profile, new: Profile, gates: Gates) -> Iterator[str]:
    if not gates.any_machine and not comparable(old.machine, new.machine):
        told = f"measured on different machines: {old.machine} and {new.machine}"
        yield f"latency of {name}: {told}; profile both on one, or give --any-machine"
        return
    was = {(point.form, point.batch): point for point in old.points}
    now = {(point.form, point.batch): point for point in new.points}
    if not was.keys() & now.keys():
        yield f"latency of {name}: no batch size was measured in both"
    bound = gates.latency or 0.0
    for form, batch in sorted(was.keys() & now.keys()):
        text = _longer(was[form, batch], now[form, batch], gates.quantile, bound)
        if text:
            yield f"latency of {name}, batch {batch} {form}, {gates.quantile}: {text}"
    for failure in new.failures:
        if (failure.form, failure.batch) in was:
            told = f"batch {failure.batch} {failure.form} failed in B: {failure.message}"
            yield f"latency of {name}: {told}"


def _longer(old: Point, new: Point, quantile: Quantile, bound: float) -> str:
    before, after = old.at(quantile), new.at(quantile)
    if after <= before * (1 + bound):
        return ""
    growth = f"+{(after - before) / before:.1%}" if before else "from nothing"
    odd = sorted({*old.flags, *new.flags})
    flagged = f"; the profile calls it {', '.join(odd)}" if odd else ""
    return f"{before:.4g} -> {after:.4g} ms ({growth}), allowed are +{100 * bound:.4g} %{flagged}"
