# The part of ONNX Runtime's Python interface that deployc uses; the wheel ships no types.
from collections.abc import Mapping, Sequence

from numpy import generic
from numpy.typing import NDArray

__version__: str
__file__: str

class NodeArg:
    name: str
    type: str
    shape: list[int | str | None]

class GraphOptimizationLevel:
    def __init__(self, value: int) -> None: ...

class ExecutionMode:
    ORT_SEQUENTIAL: ExecutionMode
    ORT_PARALLEL: ExecutionMode

class SessionOptions:
    log_severity_level: int
    optimized_model_filepath: str
    graph_optimization_level: GraphOptimizationLevel
    intra_op_num_threads: int
    inter_op_num_threads: int
    execution_mode: ExecutionMode
    def add_session_config_entry(self, key: str, value: str) -> None: ...

class InferenceSession:
    def __init__(
        self,
        path_or_bytes: str | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, str]]] | None = None,
    ) -> None: ...
    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[generic]]
    ) -> list[NDArray[generic]]: ...
    def get_inputs(self) -> list[NodeArg]: ...
    def get_outputs(self) -> list[NodeArg]: ...
    def get_providers(self) -> list[str]: ...
    def disable_fallback(self) -> None: ...

def get_available_providers() -> list[str]: ...
def preload_dlls(
    cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None
) -> None: ...
def set_default_logger_severity(severity: int) -> None: ...
