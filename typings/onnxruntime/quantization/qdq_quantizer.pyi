from collections.abc import Mapping, Sequence

from onnx import ModelProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData

class _Model:
    model: ModelProto
    def topological_sort(self) -> None: ...

class QDQQuantizer:
    model: _Model
    def __init__(
        self,
        model: ModelProto,
        per_channel: bool,
        reduce_range: bool,
        weight_qType: QuantType,
        activation_qType: QuantType,
        tensors_range: TensorsData,
        nodes_to_quantize: Sequence[str],
        nodes_to_exclude: Sequence[str],
        op_types_to_quantize: Sequence[str],
        extra_options: Mapping[str, object] | None = None,
    ) -> None: ...
    def quantize_model(self) -> ModelProto: ...
