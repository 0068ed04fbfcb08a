"""Refusals that several ops share."""

from __future__ import annotations

from specs.values import Dim, FlowError, Value, show_shape

__all__ = [
    "FLOATS",
    "check_fill",
    "need_classes",
    "need_float_tensor",
    "need_image",
    "need_scores",
    "need_sound",
    "need_values",
]

FLOATS = ("float16", "float32", "float64")


def need_values(op: str, value: Value) -> None:
    """``value`` is an array: an image or a tensor."""
    if value.kind not in ("image", "tensor"):
        raise FlowError(f"{op} takes an image or a tensor, found {value}", _before(op, value))


def need_image(op: str, value: Value) -> tuple[Dim, Dim, int]:
    """Height, width and channels of a ``value`` that is an image [height, width, channels]."""
    if value.kind != "image":
        message = f"{op} takes an image [height, width, channels], found {value}"
        raise FlowError(message, "put - decode_image: RGB first")
    if value.layout != "HWC":
        message = f"{op} takes an image [height, width, channels], found layout {value.layout}"
        raise FlowError(message, f"put {op} before - layout: {value.layout}")
    if len(value.shape) != 3:  # noqa: PLR2004 - height, width, channels
        message = f"{op} takes one image, found {value.shape[0]} crops"
        raise FlowError(message, f"put {op} before - five_crop")
    height, width, channels = value.shape
    assert isinstance(channels, int)  # noqa: S101 - decode_image fixes it, no op frees it
    return height, width, channels


def check_fill(op: str, value: Value, fill: float | tuple[float, ...]) -> Value:
    """``value`` with ``fill`` among its pixels: one number, or one for each channel."""
    fills = fill if isinstance(fill, tuple) else (fill,)
    if len(fills) not in (1, value.shape[-1]):
        message = f"{op} has {len(fills)} fill values, the image has {value.shape[-1]} channels"
        raise FlowError(message, f"give one value, or {value.shape[-1]}")
    if value.dtype == "uint8" and not all(v % 1 == 0 and 0 <= v <= 255 for v in fills):  # noqa: PLR2004
        message = f"{op} fills a uint8 image with {fill}"
        raise FlowError(message, "use whole numbers from 0 to 255")
    _check_near(op, value, fills)
    low = None if value.low is None else min(value.low, *fills)
    high = None if value.high is None else max(value.high, *fills)
    return value.but(low=low, high=high)


def _check_near(op: str, value: Value, fills: tuple[float, ...]) -> None:
    """Refuse a fill in other units than the pixels: 114 among values from -2 to 3."""
    if value.low is None or value.high is None:
        return
    span = value.high - value.low
    if any(not value.low - span <= fill <= value.high + span for fill in fills):
        found = f"{op} fills with {', '.join(f'{fill:g}' for fill in fills)}"
        message = f"{found}, the image's values run from {value.low:.3g} to {value.high:.3g}"
        hint = f"put {op} before the step that scales them, or give fill in their units"
        raise FlowError(message, hint)


def need_float_tensor(op: str, value: Value) -> None:
    """``value`` is a floating point tensor."""
    if value.kind != "tensor":
        raise FlowError(f"{op} takes a tensor, found {value}", _before(op, value))
    if value.dtype not in FLOATS:
        message = f"{op} takes a floating point tensor, found {value.dtype}"
        raise FlowError(message, f"put - cast: float32 before {op}")


def need_sound(op: str, value: Value) -> tuple[tuple[Dim, ...], Dim, int]:
    """Leading dims, samples and rate of a ``value`` that is a sound [..., samples], float32."""
    if value.kind != "tensor" or value.rate is None:
        message = f"{op} takes a sound [samples], found {value}"
        raise FlowError(message, "put - decode_audio: 16000 first")
    if value.dtype != "float32":
        message = f"{op} takes a sound in float32, found {value.dtype}"
        raise FlowError(message, f"put {op} before - cast: {value.dtype}")
    return value.shape[:-1], value.shape[-1], value.rate


def need_scores(op: str, value: Value) -> None:
    """``value`` is a floating point tensor that no softmax or sigmoid went through yet."""
    need_float_tensor(op, value)
    if value.probability:
        message = f"{op} takes scores, found the probabilities of a softmax or sigmoid before it"
        hint = f"remove {op}, or the step that made them; after - scale they count as scores"
        raise FlowError(message, hint)


def need_classes(op: str, value: Value) -> Dim:
    """Number of classes of a ``value`` [batch, classes]."""
    if value.kind != "tensor":
        raise FlowError(f"{op} takes a tensor [batch, classes], found {value}", _before(op, value))
    if len(value.shape) != 2:  # noqa: PLR2004 - batch and classes
        message = f"{op} takes a tensor [batch, classes], found shape {show_shape(value.shape)}"
        raise FlowError(message, f"give {op} an output with one number per class")
    return value.shape[1]


def _before(op: str, value: Value) -> str:
    hints = {
        "encoded": "put - decode_image: RGB first",
        "audio": "put - decode_audio: 16000 first",
        "tensors": f"put - select: {{output: NAME}} before {op}",
        "classes": f"put {op} before the step that ranks the classes",
        "answer_image": f"put {op} before - to_image",
    }
    return hints.get(value.kind, "")
