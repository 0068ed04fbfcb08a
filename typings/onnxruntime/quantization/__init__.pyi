# The part of ONNX Runtime's quantizer that deployc uses; the wheel ships no types.
from collections.abc import Sequence
from enum import Enum

from onnx import ModelProto

class QuantType(Enum):
    QInt8 = 0
    QUInt8 = 1

class CalibrationMethod(Enum):
    MinMax = 0

def quantize_dynamic(
    model_input: ModelProto,
    model_output: str,
    op_types_to_quantize: Sequence[str] | None = None,
    per_channel: bool = False,
    reduce_range: bool = False,
    weight_type: QuantType = ...,
    nodes_to_quantize: Sequence[str] | None = None,
    nodes_to_exclude: Sequence[str] | None = None,
) -> None: ...
