from collections.abc import Mapping

from numpy import float32
from onnxruntime.quantization import CalibrationMethod

class TensorData:
    def __init__(self, *, lowest: float32, highest: float32) -> None: ...

class TensorsData:
    def __init__(
        self, calibration_method: CalibrationMethod, data: Mapping[str, TensorData]
    ) -> None: ...
