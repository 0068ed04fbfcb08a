"""What the zoo builds: every model of torchvision, its smallest input, live weights, its spec.

Random weights as torchvision draws them would prove little: many models then answer the same to
everything (a vision transformer's head starts at zero), and others overflow. So each model gets
weights that are drawn from a seed and then scaled, layer by layer, as Mishkin and Matas do ("All
you need is a good init", 2015): every layer's output has variance 1 on random images, and every
batch norm has the statistics of these images, as a trained network would have.
"""

# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportDeprecated=false
# torch's functions are typed in part, torchvision's not at all; torchvision's int8 models are made
# by torch.ao, which is deprecated and has no successor in torch.
from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.ao import quantization
from torchvision import models
from zoo_detectors import CLASSES, set_threshold, write_images

from compiler.sources import TorchModel, load_model
from compiler.weights import FoundWeights
from specs.manifest import WeightsOrigin
from specs.schema import StateDict
from specs.sources.torchvision import TorchvisionSource

__all__ = ["EXPORTERS", "Entry", "entries", "prepare"]

EXPORTERS = ("torchscript", "dynamo")
KINDS = {
    "segmentation": "segmentation",
    "detection": "detection",
    "video": "video",
    "optical_flow": "optical flow",
    "quantization": "quantised",
}
SEED = 0
OPSET = 18
SIDES = range(64, 257, 8)
"""Sides of a square input, tried in this order: below 64 the last stage of most models is a single
pixel, around which a 3x3 convolution sees nothing but its own padding."""
FRAMES = (8, 16)
BATCH = {"min": 1, "opt": 2, "max": 4}
HUGE, HUGE_BATCH = 800_000, {"min": 1, "opt": 1, "max": 2}
"""Pixels of an item (frames included) from which a batch holds two at most: ONNX Runtime takes
2.5 GB for an item of 16 x 224 x 224 in MViT."""
PIXELS = 32 * 64 * 64
"""Of the random images that weights are scaled on, 4 at least: on fewer, a batch norm of a few
pixels would have chance statistics, and blow up other images."""
LARGE, LARGE_COUNT = 400, 2
"""A detector that enlarges its images to more than 400 pixels gets two: enough of them."""
GAINS = {CLASSES: 2.0, r"flow_head\.conv2$": 0.1}
"""Deviation of a layer's output where it is not 1, by the layer's name: a detector's classes, of
which no one of 91 would stand out, and the step of an optical flow, whose 12 iterations would run
away instead of closing in."""
SHIFT = 0.5
"""Bias of the batch norms. With 0, every ReLU behind one cuts half away, and depth makes a random
network chaotic: ResNet-50 then blows up differences in the last bit to 8e-5 of what answers differ
by, with 0.5 to 7e-6."""
SILENT = 1e-6
"""Deviation below which a layer's output is taken for constant, and its weights are left alone."""
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Layer = nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d


@dataclass(frozen=True)
class Entry:
    """A row of the zoo.

    Args:
        model: torchvision's name.
        kind: classification, segmentation, detection, video, optical flow, quantised (the float
            model that is meant to be) or quantised int8.
        parameters: how many, as torchvision states of its trained weights.
        quantize: whether the builder is asked for int8 weights, not for the float model.
    """

    model: str
    kind: str
    parameters: int
    quantize: bool = False

    @property
    def name(self) -> str:
        """The row's name."""
        return f"{self.model}_int8" if self.quantize else self.model

    def source(self, kwargs: Mapping[str, float]) -> dict[str, Any]:
        """The spec's ``model``, with these arguments of the builder besides its own."""
        own = {"quantize": True} if self.quantize else {}
        return {"torchvision": {"model": self.model, "kwargs": {**own, **kwargs}}}


def entries() -> list[Entry]:
    """Every name of ``list_models()``, and the int8 forms of quantised ones; small ones first."""
    rows = [entry for name in models.list_models() for entry in _entries(name)]
    return sorted(rows, key=lambda entry: (entry.parameters, entry.name))


def _entries(name: str) -> Iterator[Entry]:
    family = models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
    kind = KINDS.get(family.split(".")[0], "classification")
    weights = cast("Any", models.get_model_weights(name))
    parameters = int(weights.DEFAULT.meta["num_params"])
    yield Entry(name, kind, parameters)
    if kind == "quantised":
        yield Entry(name, f"{kind} int8", parameters, quantize=True)


def prepare(entry: Entry, folder: Path) -> dict[str, Any]:
    """Write the model's weights (and a detector's images) into a folder; its spec, less ``export``.

    Raises:
        RuntimeError: no input was found that the model takes.
    """
    torch.manual_seed(SEED)
    module = _load(replace(entry, quantize=False))
    shapes = [(1, 3, 64, 64)] if entry.kind == "detection" else _smallest(entry, module)
    images = _images(entry, module, shapes)
    verify: dict[str, Any] = {"seed": SEED}
    enliven(module, images)
    if entry.quantize:
        _quantize(entry, module, images[0])
    threshold = set_threshold(module, images[0][0]) if entry.kind == "detection" else {}
    inner = module.module if entry.kind == "detection" else module
    torch.save(inner.state_dict(), folder / "weights.pth")
    if entry.kind == "detection":
        write_images(module, shapes[0][1:], folder)
        verify["samples"] = ["image*.npy"]
    return _spec(entry, threshold, shapes, _outputs(module, images), verify)


def _load(entry: Entry) -> Any:  # noqa: ANN401 - a module with attributes of its own
    source = TorchvisionSource.model_validate(entry.source({})["torchvision"])
    weights = FoundWeights(WeightsOrigin(origin="random", seed=SEED), None, StateDict())
    model = load_model(source, Path(), weights)
    assert isinstance(model, TorchModel)  # noqa: S101 - a torchvision source gives nothing else
    return model.call


def _smallest(entry: Entry, module: nn.Module) -> list[tuple[int, ...]]:
    """The first shapes that the forward takes; tried without computing, on torch's meta device."""
    for frames in FRAMES if entry.kind == "video" else (0,):
        for side in SIDES:
            shape = (2, 3, frames, side, side) if frames else (2, 3, side, side)
            shapes = [shape] * (2 if entry.kind == "optical flow" else 1)
            if _takes(module, shapes):
                return [(1, *shape[1:]) for shape in shapes]
    raise RuntimeError(f"{entry.name}: no input of side {SIDES[0]} to {SIDES[-1]} is taken")


def _takes(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> bool:
    inputs = tuple(torch.zeros(shape, device="meta") for shape in shapes)
    pools = [each for each in module.modules() if isinstance(each, nn.AdaptiveAvgPool2d)]
    hooks = [pool.register_forward_pre_hook(_check_pool) for pool in pools]
    state = {key: value.to("meta") for key, value in module.state_dict().items()}
    try:
        with torch.no_grad():
            torch.func.functional_call(module, state, inputs)
    except Exception:  # noqa: BLE001 - each model refuses a size in its own way
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return True


def _check_pool(pool: nn.AdaptiveAvgPool2d, inputs: tuple[torch.Tensor, ...]) -> None:
    """TorchScript's exporter takes an adaptive pooling only where its output divides its input."""
    wanted = pool.output_size if isinstance(pool.output_size, tuple) else (pool.output_size,) * 2
    sizes = zip(inputs[0].shape[-2:], wanted, strict=True)
    if any(want and size % want for size, want in sizes):
        raise ValueError(f"{wanted} does not divide {list(inputs[0].shape)}")


def _images(
    entry: Entry,
    module: Any,  # noqa: ANN401 - see _load
    shapes: Sequence[tuple[int, ...]],
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    draw = torch.rand if entry.kind == "detection" else torch.randn
    count = max(4, PIXELS // math.prod(shapes[0][2:]))
    if entry.kind == "detection" and module.module.transform.min_size[-1] > LARGE:
        count = LARGE_COUNT
    return [draw((count, *shape[1:]), generator=generator) for shape in shapes]


def enliven(module: nn.Module, images: Sequence[torch.Tensor]) -> None:
    """Draw a module's weights anew and scale them, so that every output depends on the input."""
    for layer in module.modules():
        _draw(layer)
    hooks = [layer.register_forward_hook(_scale(name)) for name, layer in _layers(module)]
    norms = [each for each in module.modules() if isinstance(each, Norm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module(*images)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.eval()
        _floor(norm)


def _quantize(entry: Entry, module: Any, images: torch.Tensor) -> None:  # noqa: ANN401 - see _load
    """To int8 in the steps of torchvision's builders, with ranges seen on the images."""
    trained = "mobilenet_v3" in entry.model  # its builder takes the way over training
    module.train(trained)
    module.fuse_model(is_qat=trained)
    module.qconfig = quantization.QConfig(
        activation=quantization.default_observer,
        weight=quantization.default_per_channel_weight_observer,
    )
    if trained:
        module.qconfig = quantization.get_default_qat_qconfig("qnnpack")
    (quantization.prepare_qat if trained else quantization.prepare)(module, inplace=True)
    module.eval()
    with torch.no_grad():
        module(images)
    quantization.convert(module, inplace=True)


def _layers(module: nn.Module) -> list[tuple[str, Layer]]:
    named = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    return [(name, each) for name, each in named if isinstance(each, Layer)]


def _draw(layer: nn.Module) -> None:
    """Weights of unit gain; other tables (positions, scales of a layer) of a visible size."""
    if isinstance(layer, Layer):
        fan_in = math.prod(layer.weight.shape[1:])
        nn.init.normal_(layer.weight, std=1 / math.sqrt(fan_in))
        return
    if isinstance(layer, Norm):
        nn.init.constant_(layer.bias, SHIFT)
    for key, parameter in layer.named_parameters(recurse=False):
        # A logit_scale is an exponent, and norms keep their ones and zeros.
        if parameter.ndim > 1 and key != "logit_scale":
            nn.init.normal_(
                parameter, std=1 / math.sqrt(parameter.shape[-1]) if "proj" in key else 0.5
            )


def _scale(name: str) -> Callable[[Any, Any, Any], torch.Tensor | None]:
    """A hook that scales a layer at its first call, so that its output has its deviation."""
    done: list[bool] = []

    def hook(layer: Layer, _inputs: object, output: torch.Tensor) -> torch.Tensor | None:
        if done:
            return None
        done.append(True)
        bias = torch.zeros(1) if layer.bias is None else layer.bias
        shift = bias.view(-1, *(1 for _ in range(output.ndim - 2)))
        if isinstance(layer, nn.Linear):
            shift = bias
        deviation = float((output - shift).std())
        if deviation < SILENT:  # such as the flow's layer while the flow is still zero
            return None
        factor = _gain(name) / deviation
        layer.weight.mul_(factor)
        return (output - shift) * factor + shift

    return hook


def _gain(name: str) -> float:
    """The deviation that a layer's output is to have."""
    return next((gain for pattern, gain in GAINS.items() if re.search(pattern, name)), 1.0)


def _floor(norm: Norm) -> None:
    """A channel that was silent on a few images would be blown up on others."""
    variance = cast("torch.Tensor", norm.running_var)
    variance.clamp_(min=0.5 * float(variance.mean()))


def _outputs(module: nn.Module, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs by name: torchvision's own for dicts, ``output`` for one, numbered for a list."""
    with torch.no_grad():
        found = module(*(image[:2] for image in images))
    if isinstance(found, dict):
        return cast("dict[str, torch.Tensor]", found)
    if isinstance(found, torch.Tensor):
        return {"output": found}
    return {f"output{number}": each for number, each in enumerate(found)}


def _spec(
    entry: Entry,
    kwargs: dict[str, float],
    shapes: Sequence[tuple[int, ...]],
    outputs: dict[str, torch.Tensor],
    verify: dict[str, Any],
) -> dict[str, Any]:
    batch: str | int = 1 if entry.kind == "detection" else "batch"
    axis = HUGE_BATCH if math.prod(shapes[0][2:]) > HUGE else BATCH
    names = [f"input{number}" for number in range(len(shapes))] if len(shapes) > 1 else ["input"]
    return {
        "version": 1,
        "name": entry.name,
        "model": entry.source(kwargs),
        "weights": {"path": "weights.pth"},
        "inputs": {
            name: {"shape": [batch, *shape[1:]]} for name, shape in zip(names, shapes, strict=True)
        },
        "outputs": {
            name: {
                "shape": [batch, *tensor.shape[1:]],
                "dtype": str(tensor.dtype).removeprefix("torch."),
            }
            for name, tensor in outputs.items()
        },
        "dynamic_axes": {} if batch == 1 else {"batch": axis},
        "targets": [{"engine": "onnxruntime", "options": {"intra_op_threads": 1}}],
        "verify": verify,
    }
