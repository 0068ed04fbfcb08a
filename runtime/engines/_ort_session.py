"""Opens ONNX Runtime sessions with exactly what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runtime.engines._ort_built import BuiltFile, profile_of
from runtime.engines._ort_options import LEVELS, OrtOptions, as_strings
from runtime.engines._ort_providers import CPU, CUDA, providers_for, require
from specs.engines import Device
from specs.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = [
    "Opening",
    "assigned_nodes",
    "check_options",
    "off_device",
    "open_session",
    "read_options",
    "tensorrt_options",
    "told",
]

DYNAMIC_BLOCKS, BLOCKS = "session.dynamic_block_base", "4"
"""An operator's work is cut into smaller pieces that threads take as they come, so that a core that
somebody else uses does not hold up the others; on idle cores it makes no difference."""
ASSIGNMENT = "session.record_ep_graph_assignment_info"
OFF_DEVICE = "assigned to the default CPU EP"
"""What ONNX Runtime's message says where ``session.disable_cpu_ep_fallback`` refuses."""
NO_GPU = re.compile(r"CUDA failure (?:3|35|100|101|803|804)\b|Invalid device ID")
"""``cudaError`` of a driver that does not start, is too old, or shows no such GPU
(``driver_types.h`` of CUDA 13)."""
DRIVER = "run `nvidia-smi`: it must show the GPU, and a driver of 580 or newer for CUDA 13"
TOLD_NODES = 5
TOLD_CHARACTERS = 400
WORDS = {"true": "1", "false": "0"}
EXTERNAL_BYTES = "1024"
"""Weights from this size on go into the file beside a saved graph, where there is one."""


@dataclass(frozen=True)
class Opening:
    """What to open, and how.

    Args:
        graph: an ONNX file, or its bytes.
        device: where every node must run.
        options: the target's options.
        sizes: axes held at one size.
        built: what the builder knew of the file.
        record: note which node goes to which provider.
        save: where to write the optimised graph; its weights go into ``<save>.data`` where
            ``external`` says so.
        timing_cache: folder of TensorRT's timing cache, while building.
    """

    graph: Path | bytes
    device: Device
    options: OrtOptions
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    built: BuiltFile | None = None
    record: bool = False
    save: Path | None = None
    external: bool = False
    timing_cache: Path | None = None

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return "the graph" if isinstance(self.graph, bytes) else self.graph.name


def read_options(options: dict[str, Any], device: Device) -> OrtOptions:
    """A target's options, held to its device.

    Raises:
        EngineError: they are none, or have no effect on this device.
    """
    try:
        found = OrtOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        message = f"options of onnxruntime: {where}: {first['msg']}"
        raise EngineError(
            message, hint="docs/engines.md lists them", code="engine_options"
        ) from error
    unused, other = found.without_effect(device), "cuda" if device == "cpu" else "cpu"
    if unused:
        message = f"{', '.join(unused)} has no effect on {device}"
        raise EngineError(message, hint=f"remove it, or use device: {other}", code="engine_options")
    return found


def open_session(opening: Opening) -> ort.InferenceSession:
    """The session, whose providers, options and sizes are those that were asked for.

    Raises:
        EngineError: a provider is missing, nodes would run elsewhere, or the graph cannot be
            loaded.
    """
    import onnxruntime as ort

    require(opening.device, opening.options)
    source = opening.graph if isinstance(opening.graph, bytes) else str(opening.graph)
    try:
        # Without the last one a failure builds a CPU session, says so on stdout and goes on.
        session = ort.InferenceSession(
            source, _settings(opening), providers=_providers(opening), enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise _refusal(opening, error) from error
    _check_providers(session, opening)
    check_options(session, opening)
    _check_sizes(session, opening.sizes)
    return session


def assigned_nodes(session: ort.InferenceSession) -> list[tuple[str, ort.AssignedNode]]:
    """Every node with its provider, as ONNX Runtime shared them out before it fused any."""
    return [
        (group.ep_name, node)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]


def told(error: Exception) -> str:
    """ONNX Runtime's message on one line, without source lines and codes before it."""
    text = " ".join(str(error).split()) or type(error).__name__
    _, marked, last = text.rpartition("[ONNXRuntimeError] : ")
    text = last.split(" : ", maxsplit=2)[-1] if marked else text
    return text if len(text) <= TOLD_CHARACTERS else f"{text[:TOLD_CHARACTERS]}…"


# --- what ONNX Runtime is given


def _settings(opening: Opening) -> ort.SessionOptions:
    import onnxruntime as ort

    options = opening.options
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # failures are raised, and told once
    optimized = opening.built is not None and opening.built.optimized
    level = LEVELS["disabled" if optimized else options.optimization]
    settings.graph_optimization_level = ort.GraphOptimizationLevel(level)
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = options.inter_op_threads
    settings.enable_cpu_mem_arena = options.memory_arena
    settings.enable_mem_pattern = options.memory_pattern
    settings.use_deterministic_compute = options.deterministic
    if options.parallel:
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    if opening.save is not None:
        settings.optimized_model_filepath = str(opening.save)
    for axis, size in opening.sizes.items():
        settings.add_free_dimension_override_by_name(axis, size)
    for key, value in _entries(opening).items():
        settings.add_session_config_entry(key, value)
    return settings


def _entries(opening: Opening) -> dict[str, str]:
    """Session configuration entries, ours and the user's."""
    options = opening.options
    entries = {DYNAMIC_BLOCKS: BLOCKS, **options.session_config}
    if opening.device != "cpu" and not options.allow_cpu_nodes:
        entries["session.disable_cpu_ep_fallback"] = "1"
    if options.flush_denormals:
        entries["session.set_denormal_as_zero"] = "1"
    if not options.spinning:
        entries["session.intra_op.allow_spinning"] = "0"
        entries["session.inter_op.allow_spinning"] = "0"
    if opening.record:
        entries[ASSIGNMENT] = "1"
    if opening.save is not None and opening.external:
        prefix = "session.optimized_model_external_initializers"
        entries[f"{prefix}_file_name"] = f"{opening.save.name}.data"
        entries[f"{prefix}_min_size_in_bytes"] = EXTERNAL_BYTES
    return entries


def _providers(opening: Opening) -> list[tuple[str, dict[str, str]]]:
    """The providers with their options, the preferred one first."""
    wanted = providers_for(opening.device, opening.options)
    return [(provider, _provider_options(provider, opening)) for provider in wanted]


def _provider_options(provider: str, opening: Opening) -> dict[str, str]:
    if provider == CPU:
        return {}
    device = {"device_id": str(opening.options.device_id)}
    if provider == CUDA:
        return {**device, **as_strings(opening.options.cuda)}
    return {**device, **tensorrt_options(opening)}


def tensorrt_options(opening: Opening) -> dict[str, str]:
    """TensorRT's options: the user's, and those that follow from the target and its axes."""
    built = opening.built.tensorrt if opening.built else None
    if built is None or opening.options.tensorrt is None or isinstance(opening.graph, bytes):
        message = f"{opening.name} was not built for TensorRT"
        raise EngineError(message, hint="build it with the option tensorrt", code="engine_load")
    if opening.sizes:
        message = "TensorRT's engines are built for ranges of axes, and hold none at one size"
        raise EngineError(message, hint="fix the size in the spec's shape", code="engine_sizes")
    flags = {
        f"trt_{precision}_enable": str(built.precision == name)
        for precision, name in (("fp16", "fp16"), ("bf16", "bf16"), ("int8", "int8"))
    }
    caches = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(opening.graph.parent)}
    if opening.timing_cache is not None:
        caches["trt_timing_cache_enable"] = "True"
        caches["trt_timing_cache_path"] = str(opening.timing_cache)
    own = as_strings(opening.options.tensorrt, "trt_", true="True", false="False")
    return {**own, **flags, **caches, **profile_of(built)}


# --- what it made of it


def _check_providers(session: ort.InferenceSession, opening: Opening) -> None:
    wanted = list(providers_for(opening.device, opening.options))
    loaded = list(session.get_providers())
    if loaded[: len(wanted)] != wanted:
        message = f"{', '.join(wanted)} was asked for, {', '.join(loaded)} was loaded"
        raise EngineError(message, code="provider_missing")


def check_options(session: ort.InferenceSession, opening: Opening) -> None:
    """Hold the options in use to those asked for: ONNX Runtime has been seen to drop some."""
    in_use = session.get_provider_options()
    for provider, asked in _providers(opening):
        found = in_use.get(provider, {})
        for name in asked.keys() & found.keys():
            if _plain(asked[name]) != _plain(found[name]):
                message = f"{provider} uses {name}={found[name]}, asked was {asked[name]}"
                raise EngineError(message, hint="remove the option", code="option_ignored")


def _plain(value: str) -> str:
    return WORDS.get(value.lower(), value)


def _check_sizes(session: ort.InferenceSession, sizes: Mapping[str, int]) -> None:
    """Refuse an axis that no input has: ONNX Runtime passes over it."""
    held = {dim for item in session.get_inputs() for dim in item.shape}
    for axis, size in sizes.items():
        if size not in held:
            message = f"no input of the graph has the axis '{axis}'"
            raise EngineError(message, code="engine_sizes")


# --- refusals


def _refusal(opening: Opening, error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if OFF_DEVICE in str(error):
        return off_device(opening)
    message = f"ONNX Runtime cannot load {opening.name} on {opening.device}: {told(error)}"
    if NO_GPU.search(str(error)):
        return EngineError(message, hint=DRIVER, code="device_missing")
    return EngineError(message, code="engine_load")


def off_device(opening: Opening) -> EngineError:
    """Name the nodes that would run on the CPU, from a session that lets them."""
    options = opening.options.model_copy(update={"allow_cpu_nodes": True})
    session = open_session(replace(opening, options=options, record=True))
    nodes = [node for provider, node in assigned_nodes(session) if provider == CPU]
    message = f"{len(nodes)} nodes of {opening.name} would run on the CPU: {_some(nodes)}"
    hint = (
        f"allow it: options: {{allow_cpu_nodes: true}} and verify: "
        f"{{max_nodes_off_device: {len(nodes)}}}"
    )
    return EngineError(message, hint=hint, code="nodes_off_device")


def _some(nodes: Iterable[ort.AssignedNode]) -> str:
    names = [f"{node.op_type} {node.name}".strip() for node in nodes]
    more = [f"and {len(names) - TOLD_NODES} more"] if len(names) > TOLD_NODES else []
    return ", ".join([*names[:TOLD_NODES], *more])
