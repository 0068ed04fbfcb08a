"""``audit.json``: where, in which type and how exactly a variant really computes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specs.base import Frozen
from specs.engines import Device, Precision

__all__ = ["NAMES", "Audit", "Drift", "LayerDrift", "Placement", "PrecisionShare"]

NAMES = 20
"""How many nodes are named at most; the rest is counted."""


class Placement(Frozen):
    """On which device every node of a variant runs."""

    asked: Device
    source: str
    """How it was found: ``told by onnxruntime``, or why it was not."""
    devices: dict[str, int] = Field(default_factory=dict)
    """Nodes by device; {} where the engine does not tell."""
    places: dict[str, int] = Field(default_factory=dict)
    """Nodes by the engine's own word for the place: ``CUDAExecutionProvider``."""
    off_device: int = 0
    """Nodes that compute on data elsewhere than on the device that was asked for."""
    off_device_names: tuple[str, ...] = ()
    """The first of them, ``/head/NonZero (NonZero)``."""
    shape_nodes: int = 0
    """Nodes elsewhere whose values depend on sizes alone. Engines keep these few integers in the
    host's memory on purpose, so they do not count as off the device."""
    allowed: int = 0
    """``verify.max_nodes_off_device``."""

    @property
    def passed(self) -> bool:
        """Whether no more nodes than allowed run elsewhere."""
        return self.off_device <= self.allowed


class PrecisionShare(Frozen):
    """Which share of a variant's computation is in which type."""

    asked: Precision
    source: str
    """How it was found: ``told by tensorrt, …``, or ``from the graph; openvino does not tell``."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Share of the multiply-accumulates by type, which sum to 1; ``unknown`` where the engine does
    not tell of a layer. {} where nothing is computed, or nothing is known."""
    floor: float
    """``verify.min_precision_share``."""
    in_model: float = 1.0
    """Share that the model's own graph has in the type, where nothing was converted: a quantized
    model has less than 1 in fp32. The floor is of this share."""
    kept: tuple[str, ...] = ()
    """Nodes that stay in fp32 because they would be wrong in the type that was asked for."""

    @property
    def share(self) -> float | None:
        """The share in the type that was asked for; None where nothing is known."""
        return self.shares.get(self.asked, 0.0) if self.shares else None

    @property
    def passed(self) -> bool:
        """Whether the share reaches the floor."""
        return self.share is None or self.share >= self.floor * self.in_model


class LayerDrift(Frozen):
    """How far one intermediate tensor lies from the reference's.

    None stands for a number that is not finite: a NaN or an infinity on one side alone, or two
    shapes.
    """

    name: str
    """The tensor's name; a module's where the reference is PyTorch."""
    node: str
    """What gives it: ``node_conv2d_3 (Conv)``."""
    dtype: str
    """The type that it has in the variant's graph."""
    max_abs: float | None
    """Largest ``|found - reference|``."""
    relative: float | None
    """RMS of the difference divided by the RMS of the reference."""
    excess: float | None
    """The difference as a multiple of what the rule allows; beyond it above 1."""

    @property
    def beyond(self) -> bool:
        """Whether it is further away than the rule allows."""
        return self.excess is None or self.excess > 1


class Drift(Frozen):
    """Every intermediate tensor against the reference's, in the order of the graph."""

    reference: Literal["the fp32 graph", "PyTorch", "ONNX's evaluator"]
    graph: str
    """The file that was run, relative to the artifact."""
    case: str
    """The golden case that was run, with its batch."""
    how: str
    """How the graph was run, in words."""
    rule: str
    """What a layer may differ by, in words."""
    layers: tuple[LayerDrift, ...]
    not_compared: int = 0
    """Layers of the reference that the graph does not have: fused, folded, or of another name."""
    first: str | None = None
    """The first layer beyond the rule none of whose inputs is; None where none is."""
    worst: str | None = None
    """The layer with the largest excess."""

    @property
    def divergence(self) -> str:
        """The first divergence for a person: ``conv1 (Conv), tensor relu_3``; "" without one."""
        layer = next((layer for layer in self.layers if layer.name == self.first), None)
        if layer is None:
            return ""
        if self.reference == "the fp32 graph":
            return f"{layer.node}, tensor {layer.name}"
        return f"{layer.name}, node {layer.node}" if layer.node else layer.name


class Audit(Frozen):
    """What was found on one variant, as it was built."""

    variant: str
    placement: Placement
    precision: PrecisionShare
    drift: Drift | None = None
    """None where it was not measured; it says where the variant differs, and refuses nothing."""
    not_run: tuple[str, ...] = ()
    """What could not be audited, in words; never counted as passed."""

    @property
    def passed(self) -> bool:
        """Whether everything that could be audited is as asked."""
        return self.placement.passed and self.precision.passed

    @property
    def complete(self) -> bool:
        """Whether there was nothing that could not be audited."""
        return not self.not_run
