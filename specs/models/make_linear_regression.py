"""Build ``linear_regression.onnx``, the graph of the ONNX documentation's linear regression.

Run ``python specs/models/make_linear_regression.py``. The graph is ``Y = MatMul(X, A) + B`` with

* ``X``: float32, two dimensions of unknown, unnamed size (two columns at run time);
* ``A``: float32 [2, 1] and ``B``: float32 [1], initializers;
* ``Y``: float32, two dimensions of unknown, unnamed size (one column at run time).

``A`` and ``B`` are the ordinary least-squares fit of ``POINTS``. Two runs write the same bytes.
Source of the graph: https://onnx.ai/onnx/intro/python.html ("a linear regression").
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parent

# Eight flats made up for this example: floor area in units of 10 square metres, age in years,
# rent in units of 100 a month.
POINTS = (
    (3.0, 40.0, 4.1),
    (4.5, 12.0, 6.7),
    (5.0, 30.0, 6.2),
    (6.0, 5.0, 8.6),
    (7.0, 22.0, 8.5),
    (8.0, 60.0, 7.7),
    (9.5, 8.0, 12.1),
    (11.0, 35.0, 12.3),
)


def fit() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the least-squares coefficients A float32 [2, 1] and intercept B float32 [1]."""
    points = np.array(POINTS, dtype=np.float64)
    design = np.column_stack([points[:, :2], np.ones(len(points))])
    solution = np.linalg.lstsq(design, points[:, 2], rcond=None)[0].astype(np.float32)
    return solution[:2].reshape(2, 1), solution[2:]


def build() -> onnx.ModelProto:
    """Return the checked model: opset 18, IR version 8."""
    coefficients, intercept = fit()
    graph = helper.make_graph(
        nodes=[
            helper.make_node("MatMul", ["X", "A"], ["XA"]),
            helper.make_node("Add", ["XA", "B"], ["Y"]),
        ],
        name="linear_regression",
        inputs=[helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, None])],
        outputs=[helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, None])],
        initializer=[
            numpy_helper.from_array(coefficients, name="A"),
            numpy_helper.from_array(intercept, name="B"),
        ],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model, full_check=True)  # pyright: ignore[reportUnknownMemberType] - its path type is partly unknown
    return model


def main() -> None:
    """Write the model next to this script and print its coefficients."""
    model = build()
    path = MODELS / "linear_regression.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    coefficients, intercept = fit()
    print(f"{path.name}: A = {coefficients.ravel().tolist()}, B = {intercept.tolist()}")


if __name__ == "__main__":
    main()
