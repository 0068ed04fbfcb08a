"""``resize`` as torchvision, PyTorch and, for areas, integrals do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from specs.ops._base import Libraries
    from specs.ops.resize import Resize

__all__ = ["resize_reference"]


def resize_reference(op: Resize, x: Any, lib: Libraries) -> Any:
    """The step on an image [height, width, channels], uint8 or float32."""
    if not op.letterbox:
        return _resize(op, x, _goal(op, x), lib)
    # As in the YOLO families' own code.
    high, wide = op.letterbox
    ratio = min(high / x.shape[0], wide / x.shape[1])
    size = [max(1, round(side * ratio)) for side in x.shape[:2]]
    inner = lib.torch.tensor(_resize(op, x, {"size": size}, lib)).permute(2, 0, 1)
    spare = (high - size[0], wide - size[1])
    top, left = (n // 2 if op.placement == "center" else 0 for n in spare)
    frame = [left, top, spare[1] - left, spare[0] - top]
    fill = op.fill if isinstance(op.fill, tuple) else (op.fill,) * x.shape[2]
    planes = [lib.vision.pad(inner[n : n + 1], frame, color) for n, color in enumerate(fill)]
    return lib.torch.cat(planes).permute(1, 2, 0).numpy()


def _goal(op: Resize, x: Any) -> dict[str, Any]:
    """What torchvision is told; a side that it would make 0 pixels long, and fail, has 1."""
    if op.size:
        return {"size": list(op.size)}
    shape, limit = x.shape[:2], op.longer_side or op.max_size
    if limit and limit * min(shape) < max(shape):
        return {"size": [limit if side == max(shape) else 1 for side in shape]}
    if op.shorter_side:
        return {"size": [op.shorter_side], "max_size": op.max_size}
    return {"size": None, "max_size": op.longer_side}


def _resize(op: Resize, x: Any, goal: dict[str, Any], lib: Libraries) -> Any:
    if op.interpolation == "area" or not (op.antialias or op.interpolation == "nearest"):
        image = Image.new("L", (x.shape[1], x.shape[0]))
        width, height = lib.vision.resize(image, **goal).size
        function = _area if op.interpolation == "area" else _interpolate
        return function(op, x, (height, width), lib)
    mode = lib.vision.InterpolationMode(op.interpolation)
    if x.dtype == np.uint8:
        image = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
        result = np.asarray(lib.vision.resize(image, interpolation=mode, **goal))
        return result.reshape(*result.shape[:2], x.shape[2])
    planes = [Image.fromarray(x[..., n]) for n in range(x.shape[2])]
    resized = [lib.vision.resize(plane, interpolation=mode, **goal) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=2)


def _interpolate(op: Resize, x: Any, size: tuple[int, int], lib: Libraries) -> Any:
    tensor = lib.torch.from_numpy(x).permute(2, 0, 1)[None].float()
    result = lib.torch.nn.functional.interpolate(
        tensor, size, mode=op.interpolation, align_corners=False
    )
    return _levels(result[0].permute(1, 2, 0), x)


def _area(op: Resize, x: Any, size: tuple[int, int], lib: Libraries) -> Any:
    """Differences of the integral of the image, which is linear between pixels."""
    del op
    torch, result = lib.torch, lib.torch.from_numpy(x).double()
    for axis, target in enumerate(size):
        length = x.shape[axis]
        sums = torch.cat([torch.zeros_like(result.narrow(axis, 0, 1)), result.cumsum(axis)], axis)
        edges = torch.arange(target + 1, dtype=torch.float64) * length / target
        whole = edges.floor().long().clamp(max=length - 1)
        part = (edges - whole).reshape([-1 if n == axis else 1 for n in range(3)])
        low, high = sums.index_select(axis, whole), sums.index_select(axis, whole + 1)
        result = (low + (high - low) * part).diff(dim=axis) * (target / length)
    return _levels(result, x)


def _levels(result: Any, x: Any) -> Any:
    if x.dtype == np.uint8:
        return result.round().clamp(0, 255).byte().numpy()
    return result.float().numpy()
