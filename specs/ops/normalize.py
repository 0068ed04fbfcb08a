"""``normalize``: divide, subtract the mean, divide by the standard deviation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_values
from specs.ops.layout import Layout
from specs.values import FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Normalize"]

Numbers = Annotated[tuple[float, ...], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Normalize(Op):
    """Compute ``(x / scale - mean) / std`` in float32, as torchvision does.

    ``scale: 255`` turns pixels into 0..1 first, which is what the usual means are for.
    """

    name: ClassVar[str] = "normalize"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    scale: Positive = 1.0
    """What every value is divided by first."""
    mean: float | Numbers = 0.0
    """What is subtracted then: one number, or one for each channel."""
    std: Positive | Positives = 1.0
    """What is divided by last: one number, or one for each channel."""
    _layout: Layout | None = PrivateAttr(default=None)
    """In generated Python, what puts the channels first."""

    def join(self, after: Op) -> tuple[Op, ...] | None:
        if not isinstance(after, Layout) or after.to != "CHW":
            return None
        step = self.model_copy()
        step._layout = after  # noqa: SLF001 - its own
        return (step,)

    def flow(self, value: Value) -> Value:
        value = self._flow(value)
        return self._layout.flow(value) if self._layout else value

    def _flow(self, value: Value) -> Value:
        need_values("normalize", value)
        self._check_channels(value)
        self._check_range(value)
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        return value.but(
            dtype="float32",
            low=self._bound(value.low, min),
            high=self._bound(value.high, max),
            step=None if value.step is None else value.step / self.scale / min(stds),
        )

    def emit(self, value: Value) -> Emitted:
        if self._layout and value.layout == "HWC":
            return self._emit_planes(self._layout, value)
        mean, std = _constant(self.mean, value), _constant(self.std, value)
        divided = f"Divide by {self.scale:g}, then normalize" if self.scale != 1 else "Normalize"
        return Emitted(
            f"normalize({{x}}, {self.scale!r}, MEAN, STD)",
            f"{divided} with mean and standard deviation.",
            (normalize,),
            {"MEAN": mean, "STD": std},
        )

    def _emit_planes(self, layout: Layout, value: Value) -> Emitted:
        """Channels first, so that every pass is over numbers that lie side by side."""
        planes = self.emit(layout.flow(value))
        expression = planes.expression.replace("normalize(", "normalize_planes(")
        return Emitted(
            expression,
            f"{layout.emit(value).comment} {planes.comment}",
            (normalize_planes,),
            planes.constants,
            into=expression.removesuffix(")") + ", {into})",
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one value
        result = graph.cast(x, "float32")
        for op, numbers in (("Div", self.scale), ("Sub", self.mean), ("Div", self.std)):
            result = graph.add(op, result, graph.constant(_shaped(numbers, value)))
        return Fused(result)

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        torch = lib.torch
        mean, std = (torch.tensor(_shaped(n, value)) for n in (self.mean, self.std))
        return ((torch.from_numpy(x).float() / self.scale).sub(mean).div(std)).numpy()

    def _check_channels(self, value: Value) -> None:
        channels = value.shape[_channel_axis(value)] if value.layout else None
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not isinstance(numbers, tuple) or len(numbers) == channels:
                continue
            found = f"{len(numbers)} numbers in {name}"
            if channels is None:
                message = f"normalize has {found}, the tensor {show_shape(value.shape)} no channels"
                raise FlowError(message, f"give {name} one number, without a list")
            message = f"normalize has {found}, the image has {channels} channels"
            other = "RGB" if len(numbers) == 3 else "L"  # noqa: PLR2004 - red, green, blue
            hint = f"give {name} {channels} numbers, or decode with - decode_image: {other}"
            raise FlowError(message, hint)

    def _check_range(self, value: Value) -> None:
        """Refuse the two classic mistakes: pixels not scaled, or scaled twice."""
        if value.high is None:
            return
        means = self.mean if isinstance(self.mean, tuple) else (self.mean,)
        if value.high / self.scale > 2 and 0 < max(means) <= 1:  # noqa: PLR2004 - far above 1
            message = f"mean {self.mean} is for values up to 1, found values up to {value.high:g}"
            raise FlowError(message, f"add scale: {value.high:g} to normalize")
        if 0 < value.high <= 1 < self.scale:
            message = f"values up to {value.high:g} would be divided by {self.scale:g} again"
            raise FlowError(message, "remove scale from normalize")

    def _bound(self, bound: float | None, pick: Any) -> float | None:
        if bound is None:
            return None
        means = self.mean if isinstance(self.mean, tuple) else (self.mean,)
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        count = max(len(means), len(stds))
        pairs = zip(means * (count // len(means)), stds * (count // len(stds)), strict=True)
        return float(pick((bound / self.scale - mean) / std for mean, std in pairs))


def _channel_axis(value: Value) -> int:
    return -3 if value.layout == "CHW" else -1


def _shaped(numbers: float | tuple[float, ...], value: Value) -> NDArray[Any]:
    """``mean`` or ``std`` in float32, shaped so that it meets the channels."""
    array = np.array(numbers, np.float32)
    first = value.layout == "CHW" and array.ndim == 1
    return array.reshape(-1, 1, 1) if first else array


def _constant(numbers: float | tuple[float, ...], value: Value) -> str:
    """The expression of ``mean`` or ``std``, shaped so that it meets the channels."""
    if not isinstance(numbers, tuple):
        return f"np.array({numbers!r}, np.float32)"
    array = f"np.array([{', '.join(map(repr, numbers))}], np.float32)"
    return f"{array}.reshape(-1, 1, 1)" if value.layout == "CHW" else array


def normalize(
    x: NDArray[Any],
    scale: float,
    mean: NDArray[Any],
    std: NDArray[Any],
) -> NDArray[Any]:
    """Compute (x / scale - mean) / std in float32."""
    return (x.astype(np.float32) / np.float32(scale) - mean) / std


def normalize_planes(
    x: NDArray[Any],
    scale: float,
    mean: NDArray[Any],
    std: NDArray[Any],
    into: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Put the channels first and compute (x / scale - mean) / std, in one copy."""
    x = np.moveaxis(x, -1, -3)
    planes = into
    if planes is None or planes.shape != x.shape:
        planes = np.empty(x.shape, np.float32)
    np.copyto(planes, x)
    planes /= np.float32(scale)
    planes -= mean
    planes /= std
    return planes
