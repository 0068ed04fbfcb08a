"""Feeds what takes bytes from strangers with mutated ones, guided by coverage, until time is up.

``python tests/fuzz/fuzz.py KIND CORPUS -max_total_time=60``: libFuzzer's own options follow the
folder. Kinds are

- ``image``: the generated pre-processing of images, and the head of a JPEG as ``runtime.jpeg``
  reads it beside what Pillow makes of it;
- ``sound``: the generated pre-processing of WAV files;
- ``request``: bodies of HTTP requests as ``runtime.body`` reads them, and their items' generated
  pre-processing. The first byte chooses what the model takes, the second the content type;
- ``infer``: requests of the Open Inference Protocol. The first byte chooses JSON or gRPC's
  message, the next two say where JSON ends and raw tensors begin.

Whatever is neither taken nor refused by name ends it with a traceback and a file ``crash-…`` in
the working directory (``-artifact_prefix`` moves it): put that into ``tests/fuzz/corpus/KIND``,
where ``test_fuzz.py`` replays it for ever after.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

KINDS = ("image", "sound", "request", "infer")
SPECS = Path(__file__).parents[2] / "specs"
BASE: dict[str, Any] = {
    "version": 1,
    "name": "fuzzed",
    "model": {"torchvision": "resnet18"},
    "weights": {"random": {"seed": 0}},
    "outputs": {"output": {"shape": ["batch", 5]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    # Small, so that a mutation reaches them and none takes long.
    "limits": {"bytes": 200_000, "pixels": 1_000_000, "side": 5000, "frames": 50, "seconds": 2},
}
MEAN, STD = [0.4, 0.4, 0.5], [0.2, 0.2, 0.3]
IMAGES: tuple[dict[str, Any], ...] = (
    {"mode": "RGB", "exif": True},
    {"mode": "L"},
    {"mode": "RGB", "alpha": "white", "icc": "srgb"},
    {"mode": "RGB", "scaled": True},
)
"""Options of ``decode_image``: each takes other paths through the decoders."""
SOUNDS: tuple[dict[str, Any], ...] = (
    {"rate": 8000, "mode": "mono"},
    {"rate": 44_100, "mode": "stereo"},
)
"""Options of ``decode_audio``."""
TYPES = (
    "",
    "application/json",
    "application/x-npy",
    "multipart/form-data; boundary=x",
    "image/jpeg",
    "audio/wav",
    "text/plain",
)
"""Content types of requests."""

FOLLOWED = (
    "PIL",
    "email",
    "runtime.jpeg",
    "runtime.arrays",
    "runtime.multipart",
    "runtime.body",
    "serve.oip_tensors",
    "serve.oip_json",
    "serve.oip_messages",
)
"""Packages whose branches guide the fuzzer, beside the generated code."""


def images() -> list[ModuleType]:
    """The generated processing of every kind of image decoding, loaded."""
    return [_load(_image(options)) for options in IMAGES]


def sounds() -> list[ModuleType]:
    """The generated processing of every kind of sound decoding, loaded."""
    return [_load(_sound(options)) for options in SOUNDS]


def takers() -> list[tuple[Any, ModuleType]]:
    """For an image, a sound, a text and tensors: what a model says that it takes, and the code."""
    from runtime.body import Form
    from specs.loader import load_spec

    loaded = load_spec(SPECS / "sentence_embedding.yaml")
    specs = {
        "image": _spec(_image(IMAGES[0])),
        "audio": _spec(_sound(SOUNDS[0])),
        "text": loaded.spec,
        "tensors": _spec({"inputs": {"x": {"shape": ["batch", 3]}, "y": {"shape": ["batch"]}}}),
    }
    return [(Form(kind, spec.inputs), _module(spec, loaded.folder)) for kind, spec in specs.items()]


def _image(options: dict[str, Any]) -> dict[str, Any]:
    grey = options["mode"] == "L"
    channels = slice(1 if grey else 3)
    steps = [
        {"decode_image": options},
        {"resize": {"shorter_side": 20}},
        {"center_crop": 16},
        {"normalize": {"scale": 255, "mean": MEAN[channels], "std": STD[channels]}},
        {"layout": "CHW"},
    ]
    return {
        "inputs": {"input": {"shape": ["batch", 1 if grey else 3, 16, 16]}},
        "preprocess": steps,
    }


def _sound(options: dict[str, Any]) -> dict[str, Any]:
    mels = {"n_fft": 256, "hop_length": 100, "n_mels": 32, "log": "db", "floor": 1e-6}
    steps = [{"decode_audio": options}, {"pad_or_trim": 4000}, {"mel_spectrogram": mels}]
    shape = [32, 41] if options["mode"] == "mono" else [2, 32, 41]
    return {"inputs": {"input": {"shape": ["batch", *shape]}}, "preprocess": steps}


def _spec(parts: Mapping[str, Any]) -> Any:
    # Imported late: `main` must see Pillow imported first, to follow its branches.
    from specs.schema import Spec

    return Spec.model_validate({**BASE, **parts})


def _load(parts: Mapping[str, Any]) -> ModuleType:
    return _module(_spec(parts), SPECS)


def _module(spec: Any, folder: Path) -> ModuleType:
    from compiler.processing import generate

    module = ModuleType("processing")
    generated = generate(spec, {})
    beside = tempfile.TemporaryDirectory()  # gone with the module
    for name, source in generated.copies.items():
        shutil.copy(folder / source, Path(beside.name) / name)
    vars(module).update(__file__=f"{beside.name}/processing.py", _beside=beside)
    exec(compile(generated.text, "processing.py", "exec"), vars(module))  # noqa: S102 - our own
    return module


def told(error: Any) -> None:
    """A refusal has a code and says what was found."""
    if not (error.code and error.message):
        raise AssertionError(repr(error)) from error


def check(module: ModuleType, data: object) -> None:
    """Take an item or refuse it; anything else is a finding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of much that is odd and decodes it
        try:
            tensors = module.preprocess(data)
        except module.BadInput as error:
            told(error)
            return
    if "input" in tensors:
        last = tensors["input"].shape[-2:]
        assert last in {(16, 16), (32, 41)}


def check_head(data: bytes) -> None:
    """What the head of a JPEG is read as, is what Pillow reads, too."""
    from PIL import Image

    from runtime.jpeg import baseline_size

    size = baseline_size(data)
    if size is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return
    assert (image.height, image.width) == size
    assert not image.info.get("progressive")


def check_request(models: list[tuple[Any, ModuleType]], data: bytes) -> None:
    """Read a body and prepare its items, or refuse them; anything else is a finding."""
    from runtime.body import read_items
    from serve.messages import Call
    from specs.errors import InputError

    form, module = models[data[0] % len(models)]
    kind, body = data[1] % (len(TYPES) + 1), data[2:]
    if kind < len(TYPES):
        said = TYPES[kind]
    else:  # parameters that are mutated, too
        parameters, _, body = body.partition(b"\n")
        said = "multipart/form-data;" + parameters.decode("latin-1")
    try:
        items = read_items(Call(body, said), form)
    except InputError as error:
        told(error)
        return
    for item in items.values[:4]:
        check(module, item)


def check_infer(data: bytes) -> None:
    """Read a request of the Open Inference Protocol, or refuse it; the rest is a finding."""
    from serve import oip_json, oip_messages
    from serve.oip_tensors import DATATYPES
    from specs.errors import InputError

    length, body = int.from_bytes(data[1:3], "big"), data[3:]
    try:
        found = oip_messages.decode(body) if data[0] % 2 else oip_json.decode(body, length or None)
    except InputError as error:
        told(error)
        return
    for tensor in found.inputs:
        assert tensor.array.dtype == DATATYPES[tensor.datatype]


def checks(kind: str) -> tuple[Callable[[bytes], None], list[ModuleType]]:
    """What a kind does with bytes, and the generated code under it."""
    if kind == "request":
        models = takers()
        return lambda data: check_request(models, data.ljust(2, b"\0")), [m for _, m in models]
    if kind == "infer":
        return lambda data: check_infer(data.ljust(3, b"\0")), []
    loaded = images() if kind == "image" else sounds()

    def one(data: bytes) -> None:
        if kind == "image":
            check_head(data)
        for module in loaded:
            check(module, data)

    return one, loaded


def main() -> None:
    """Run until libFuzzer's options say stop; it ends the process itself."""
    if len(sys.argv) < 3 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: fuzz.py {'|'.join(KINDS)} CORPUS [options of libFuzzer]")
    import atheris

    kind = sys.argv.pop(1)
    with atheris.instrument_imports(include=list(FOLLOWED)):
        for name in FOLLOWED:
            import_module(name)
        import PIL.Image

        PIL.Image.init()  # imports the decoders of all formats
    one, loaded = checks(kind)
    for module in loaded:
        for name, value in vars(module).copy().items():
            if isinstance(value, FunctionType) and value.__globals__ is vars(module):
                setattr(module, name, atheris.instrument_func(value))
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
