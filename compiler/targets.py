"""From the targets of a spec to what is built: ``auto`` stands for several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from compiler.engines import BuildTarget
from specs.engines import AUTO, Device, EngineLanguage, Precision, engine_languages
from specs.errors import SpecError
from specs.faults import nearest
from specs.schema import Spec, Target

__all__ = ["LADDER", "Ladder", "chosen", "int8_possible", "ladders"]

LADDER: tuple[Precision, ...] = ("int8", "fp16", "bf16", "fp32")
"""The order in which ``precision: auto`` tries."""


@dataclass(frozen=True)
class Ladder:
    """One engine on one device, and the precisions to try on it: the first that holds is taken."""

    target: Target
    rungs: tuple[BuildTarget, ...]


def chosen(spec: Spec, names: Sequence[str]) -> tuple[Target, ...]:
    """The targets of those names, in the spec's order; all of them where none is named."""
    known = {target.variant: target for target in spec.targets}
    for name in names:
        if name not in known:
            message = f"the spec has no target '{name}'"
            raise SpecError(message, hint=nearest(name, known), code="target_unknown")
    return tuple(target for target in spec.targets if not names or target.variant in names)


def ladders(target: Target, spec: Spec) -> list[Ladder]:
    """What a target comes to: one ladder with one rung, unless it says ``auto``."""
    engines = engine_languages()
    names = list(engines) if target.engine == AUTO else [target.engine]
    return [
        Ladder(target, tuple(_rung(target, engine, device, p, spec) for p in rungs))
        for engine in (engines[name] for name in names)
        for device in _devices(target, engine)
        if (rungs := _precisions(target, engine.precisions_on(device), spec))
    ]


def _devices(target: Target, engine: type[EngineLanguage]) -> list[Device]:
    return [device for device in target.devices if device in engine.devices]


def _precisions(target: Target, possible: tuple[Precision, ...], spec: Spec) -> list[Precision]:
    if target.precision == AUTO:
        tried = int8_possible(target, spec)
        return [p for p in LADDER if p in possible and (p != "int8" or tried)]
    asked = [p for p in get_args(Precision) if p == target.precision]
    return [p for p in asked if p in possible]


def int8_possible(target: Target, spec: Spec) -> bool:
    """Whether ``auto`` may try int8: it needs a judge, and items to calibrate with."""
    judged = spec.verify.accuracy is not None or spec.verify.tolerance.int8 is not None
    items = spec.calibration is not None or bool(spec.verify.samples)
    return judged and (items or target.quantize.mode == "dynamic")


def _rung(
    target: Target,
    engine: type[EngineLanguage],
    device: Device,
    precision: Precision,
    spec: Spec,
) -> BuildTarget:
    single = AUTO not in (target.engine, target.precision)
    name = target.variant if single else f"{engine.name}-{device}-{precision}"
    return BuildTarget(
        name,
        engine.name,
        device,
        precision,
        target.options,
        target.quantize,
        target.placement or spec.placement,
    )
