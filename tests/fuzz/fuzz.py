"""Feeds an image pre-processing with mutated files, guided by coverage, until the time is up.

``python tests/fuzz/fuzz_image.py CORPUS -max_total_time=60``: libFuzzer's own options follow the
folder. Whatever is neither taken nor refused with ``BadInput`` ends it with a traceback and a
file ``crash-…`` in the working directory (``-artifact_prefix`` moves it): put that into
``tests/fuzz/corpus/image``, where ``test_fuzz.py`` replays it for ever after.
"""

from __future__ import annotations

import sys
import warnings
from types import FunctionType, ModuleType
from typing import Any

PREPROCESS: list[Any] = [
    {"decode_image": {"mode": "RGB", "exif": True}},
    {"resize": {"shorter_side": 20}},
    {"center_crop": 16},
    {"normalize": {"scale": 255, "mean": [0.4, 0.4, 0.5], "std": [0.2, 0.2, 0.3]}},
    {"layout": "CHW"},
]
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "fuzzed",
    "model": {"torchvision": "resnet18"},
    "weights": {"random": {"seed": 0}},
    "inputs": {"input": {"shape": ["batch", 3, 16, 16]}},
    "outputs": {"output": {"shape": ["batch", 5]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    "preprocess": PREPROCESS,
    # Small, so that a mutation reaches them and none takes long.
    "limits": {"bytes": 200_000, "pixels": 1_000_000, "side": 5000, "frames": 50},
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {"mode": "RGB", "exif": True},
    {"mode": "L"},
    {"mode": "RGB", "alpha": "white", "icc": "srgb"},
    {"mode": "RGB", "scaled": True},
)
"""Options of ``decode_image``: each takes other paths through the decoders."""


def modules() -> list[ModuleType]:
    """The generated processing of every variant, loaded."""
    return [_load([{"decode_image": options}, *PREPROCESS[1:]], options) for options in VARIANTS]


def _load(steps: list[Any], options: dict[str, Any]) -> ModuleType:
    spec = dict(SPEC, preprocess=steps)
    if options["mode"] == "L":
        spec["inputs"] = {"input": {"shape": ["batch", 1, 16, 16]}}
        steps[3] = {"normalize": {"scale": 255, "mean": [0.4], "std": [0.2]}}
    # Imported late: `main` must see Pillow imported first, to follow its branches.
    from compiler.processing import generate
    from specs.schema import Spec

    module = ModuleType("processing")
    text = generate(Spec.model_validate(spec), {}).text
    exec(compile(text, "processing.py", "exec"), vars(module))  # noqa: S102 - the generated code
    return module


def check(module: ModuleType, data: bytes) -> None:
    """Take ``data`` or refuse it; anything else is a finding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of much that is odd and decodes it
        try:
            tensors = module.preprocess(data)
        except module.BadInput as error:
            if not (error.code and error.message):
                raise AssertionError("a refusal has a code and says what was found") from error
            return
    assert tensors["input"].shape[1:] == (16, 16)


def main() -> None:
    """Run until libFuzzer's options say stop; it ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["PIL"]):
        import PIL.Image

        PIL.Image.init()  # imports the decoders of all formats
    loaded = modules()
    for module in loaded:
        for name, value in vars(module).copy().items():
            if isinstance(value, FunctionType) and value.__globals__ is vars(module):
                setattr(module, name, atheris.instrument_func(value))

    def one(data: bytes) -> None:
        for module in loaded:
            check(module, data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
