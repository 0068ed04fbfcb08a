"""The options of a target of ONNX Runtime, and what ONNX Runtime calls them."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from specs.base import Frozen
from specs.engines import Device, EngineOptions
from specs.faults import Fault, raise_faults

__all__ = ["LEVELS", "RESERVED", "CudaOptions", "OrtOptions", "TensorrtOptions", "as_strings"]

Level = Literal["disabled", "basic", "extended", "layout", "all"]
LEVELS: dict[Level, int] = {"disabled": 0, "basic": 1, "extended": 2, "layout": 3, "all": 99}
"""Values of ONNX Runtime's ``GraphOptimizationLevel``."""

RESERVED: dict[str, str] = {
    "session.disable_cpu_ep_fallback": "allow_cpu_nodes",
    "session.set_denormal_as_zero": "flush_denormals",
    "session.intra_op.allow_spinning": "spinning",
    "session.inter_op.allow_spinning": "spinning",
    "session.record_ep_graph_assignment_info": "",
    "session.optimized_model_external_initializers_file_name": "offline",
    "session.optimized_model_external_initializers_min_size_in_bytes": "offline",
}
"""Session configuration entries that deployc sets itself, and the option to use in their place."""

ONLY_FOR: dict[Device, tuple[str, ...]] = {
    "cpu": ("parallel", "inter_op_threads"),  # ONNX Runtime goes back to sequential with CUDA
    "cuda": ("allow_cpu_nodes", "device_id", "io_binding", "kept_shapes", "cuda", "tensorrt"),
}
Bytes = Annotated[int, Field(ge=1)]
ConfigKey = Annotated[str, Field(min_length=1, max_length=1024)]
ConfigValue = Annotated[str, Field(max_length=2048)]


class CudaOptions(Frozen):
    """Options of the CUDA execution provider, by its own names.

    What is left out has ONNX Runtime's default, but for ``use_tf32``.
    """

    gpu_mem_limit: Bytes | None = None
    """Bytes that the provider's memory arena may grow to; weights and activations lie in it."""
    arena_extend_strategy: Literal["kNextPowerOfTwo", "kSameAsRequested"] | None = None
    """How the arena grows; kSameAsRequested wastes less memory."""
    cudnn_conv_algo_search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] | None = None
    """How convolution algorithms are found; EXHAUSTIVE, the default, times them for each new
    shape, which makes its first run slow."""
    cudnn_conv_use_max_workspace: bool | None = None
    """Let cuDNN take as much scratch memory as its fastest algorithm wants."""
    cudnn_conv1d_pad_to_nc1d: bool | None = None
    """Pad one-dimensional convolutions to [N, C, 1, D] in place of [N, C, D, 1]."""
    enable_cudnn: bool | None = None
    """False runs without cuDNN, where ONNX Runtime has kernels of its own."""
    fuse_conv_bias: bool | None = None
    """Let cuDNN fuse a convolution with its bias; compiles kernels at the first run."""
    prefer_nhwc: bool | None = None
    """Compute convolutions channels-last, which suits tensor cores."""
    use_tf32: bool = False
    """Let fp32 products be rounded to TF32, 10 bits of mantissa. ONNX Runtime's own default is
    true; here fp32 means fp32 unless this says otherwise."""
    do_copy_in_default_stream: bool | None = None
    """Copy on the compute stream; false overlaps copies at the risk of a race."""
    enable_skip_layer_norm_strict_mode: bool | None = None
    """Compute SkipLayerNormalization with fp32 sums."""
    use_ep_level_unified_stream: bool | None = None
    """Run everything on one stream."""
    tunable_op_enable: bool | None = None
    """Use kernels that can be tuned."""
    tunable_op_tuning_enable: bool | None = None
    """Tune them while running."""
    enable_cuda_graph: bool = False
    """Record the whole run as one CUDA graph for each input shape and replay it: fast for small
    batches. Every node must run on the GPU, and output sizes must follow from input sizes."""


class TensorrtOptions(Frozen):
    """Options of the TensorRT execution provider, by its own names without ``trt_``.

    Precision flags follow from the target's precision, profile shapes from ``dynamic_axes``, and
    both caches are kept by the build.
    """

    max_workspace_size: Bytes | None = None
    """Bytes of scratch memory; TensorRT takes what it wants by default."""
    min_subgraph_size: int | None = Field(default=None, ge=1)
    """Leave smaller groups of nodes to CUDA."""
    max_partition_iterations: int | None = Field(default=None, ge=1)
    """How often to try to split the graph."""
    builder_optimization_level: int | None = Field(default=None, ge=0, le=5)
    """How long to look for fast kernels; 3 by default."""
    auxiliary_streams: int | None = Field(default=None, ge=-1)
    """Streams beside the main one; 0 takes the least memory, -1 lets TensorRT decide."""
    context_memory_sharing_enable: bool | None = None
    """Let subgraphs share their scratch memory."""
    layer_norm_fp32_fallback: bool | None = None
    """Keep layer normalisation in fp32 where the rest is fp16."""
    sparsity_enable: bool | None = None
    """Use structured sparsity of weights."""
    engine_hw_compatible: bool | None = None
    """Build engines that run on every GPU from Ampere on."""
    cuda_graph_enable: bool | None = None
    """Record and replay TensorRT's part as a CUDA graph."""
    force_timing_cache: bool | None = None
    """Use timings of another GPU of the same compute capability."""
    op_types_to_exclude: tuple[str, ...] = ()
    """Op types to leave to CUDA."""


class OrtOptions(EngineOptions):
    """Session options."""

    optimization: Level = "all"
    """How far the graph is optimised."""
    offline: bool = False
    """Optimise when building, and load the result as it is: a shorter start. With layout or all on
    the CPU the file fits this kind of CPU alone, and any other refuses it."""
    intra_op_threads: int = Field(default=0, ge=0)
    """Threads within an operator; 0 lets ONNX Runtime take one per core."""
    inter_op_threads: int = Field(default=0, ge=0)
    """For cpu: threads across operators, where ``parallel`` is true."""
    parallel: bool = False
    """For cpu: run independent operators at the same time."""
    spinning: bool = False
    """Let idle threads spin between operators, as ONNX Runtime does by itself: faster on cores that
    nothing else uses, and slower where decoding, HTTP or another process wants them, since the
    thread that has work waits for those that spin."""
    memory_arena: bool = True
    """Keep freed memory of the CPU for the next run."""
    memory_pattern: bool = True
    """Plan memory once for each input shape."""
    flush_denormals: bool = False
    """Treat denormal numbers as zero, which is faster where there are many."""
    deterministic: bool = False
    """Use kernels whose results do not vary from run to run, where there are any."""
    session_config: dict[ConfigKey, ConfigValue] = Field(default_factory=dict)
    """ONNX Runtime's session configuration entries, as they are. ONNX Runtime ignores the ones
    that it does not know, so a misspelt key has no effect and cannot be told."""
    allow_cpu_nodes: bool = False
    """For cuda: let nodes without a kernel there run on the CPU. The build counts them against
    ``verify.max_nodes_off_device``; without this, one such node refuses to load."""
    device_id: int = Field(default=0, ge=0)
    """Which GPU, of those that are visible."""
    io_binding: bool = True
    """For cuda: keep the buffers of inputs and outputs on the GPU from run to run."""
    kept_shapes: int = Field(default=32, ge=1)
    """For cuda: how many input shapes keep their buffers, and their CUDA graphs."""
    cuda: CudaOptions = CudaOptions()
    """For cuda: options of the CUDA execution provider."""
    tensorrt: TensorrtOptions | None = None
    """For cuda: run what TensorRT can take with it, and the rest with CUDA; {} for its defaults."""

    @model_validator(mode="after")
    def _check(self) -> OrtOptions:
        raise_faults(_faults(self))
        return self

    def without_effect(self, device: Device) -> list[str]:
        """Names of the options that are set and do nothing on that device."""
        plain = OrtOptions.model_construct()
        names = ONLY_FOR["cuda" if device == "cpu" else "cpu"]
        return [name for name in names if getattr(self, name) != getattr(plain, name)]


def _faults(options: OrtOptions) -> list[Fault]:
    faults: list[Fault] = []
    for key in sorted(options.session_config.keys() & RESERVED.keys()):
        hint = f"use {RESERVED[key]}" if RESERVED[key] else "remove it"
        message = f"deployc sets {key} itself"
        faults.append(Fault(("session_config", key), "option_reserved", message, hint))
    if options.tensorrt is not None and options.offline:
        message = "TensorRT optimises the graph itself"
        faults.append(Fault(("offline",), "option_conflict", message, "remove offline"))
    if options.cuda.enable_cuda_graph and not options.io_binding:
        message = "CUDA graphs need buffers that stay where they are"
        faults.append(Fault(("io_binding",), "option_conflict", message, "remove io_binding"))
    if options.cuda.enable_cuda_graph and options.tensorrt is not None:
        message = "with TensorRT, CUDA graphs are TensorRT's"
        hint = "use tensorrt: {cuda_graph_enable: true}"
        faults.append(Fault(("cuda", "enable_cuda_graph"), "option_conflict", message, hint))
    return faults


def as_strings(
    options: Frozen, prefix: str = "", *, true: str = "1", false: str = "0"
) -> dict[str, str]:
    """The options that are set, as ONNX Runtime's providers take them: all text.

    Args:
        options: the provider's options.
        prefix: stands before each name.
        true: the word for it: TensorRT's provider wants Python's, CUDA's takes digits.
        false: likewise.
    """
    found: dict[str, str] = {}
    for name, value in options.model_dump(exclude_none=True).items():
        if isinstance(value, bool):
            found[prefix + name] = true if value else false
        elif isinstance(value, (list, tuple)):
            texts = [str(item) for item in cast("list[object]", value)]
            found |= {prefix + name: ",".join(texts)} if texts else {}
        else:
            found[prefix + name] = str(value)
    return found
