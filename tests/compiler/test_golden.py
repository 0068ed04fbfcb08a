"""The reference: PyTorch's own outputs, item by item, and items that mind their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from compiler import golden as module
from compiler.cases import Case
from compiler.golden import read_golden, run_model, run_reference, write_golden
from compiler.sources import Model
from runtime.tensors import Array
from specs.errors import ParityError, SourceError
from specs.schema import Spec, Verify

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class _Fake(Model):
    """A model that is one function of numpy."""

    function: Function

    def outputs(self, inputs: Sequence[Array], kwargs: Mapping[str, Any]) -> list[Array]:
        found = self.function(inputs[0])
        return cast("list[Array]", found if isinstance(found, list) else [found])


SPEC = Spec.model_validate(
    {
        "version": 1,
        "name": "net",
        "model": {"onnx": "net.onnx"},
        "inputs": {"x": {"shape": ["batch", 2]}},
        "outputs": {"y": {"shape": ["batch", 2]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}},
    }
)


def _case(count: int, *batches: int) -> Case:
    rng = np.random.default_rng(0)
    return Case("random", {"x": rng.standard_normal((count, 2)).astype(np.float32)}, batches)


def _mean(x: Any) -> Any:
    return x - x.mean(0, keepdims=True)


def _place(x: Any) -> Any:
    return x + np.arange(len(x), dtype=np.float32)[:, None]


def test_the_reference_has_one_row_an_item_in_order() -> None:
    case = _case(5, 1, 2, 8)
    found = run_reference(_Fake(lambda x: x * 2), SPEC, case)
    expected = cast("Any", case.inputs["x"]) * 2
    np.testing.assert_array_equal(found.outputs["y"], expected)


@pytest.mark.parametrize("function", [_mean, _place])
@pytest.mark.parametrize("batches", [(1, 2, 8), (2,), (8,), (16,), (4, 8)])
@pytest.mark.parametrize("count", [2, 8])
def test_an_item_that_depends_on_its_neighbours_or_its_place_is_refused(
    function: Function, batches: tuple[int, ...], count: int
) -> None:
    with pytest.raises(ParityError) as caught:
        run_reference(_Fake(function), SPEC, _case(count, *batches))
    assert caught.value.code == "batch_dependent"
    assert "fixed batch of 1" in caught.value.hint


def _rounded(x: Any) -> Any:
    return np.nextafter(x, np.float32(9)) if len(x) > 1 else x


def _wrong(x: Any) -> Any:
    return x + np.float32(1e-4) if len(x) > 1 else x


def _label(x: Any) -> Any:
    return np.full(x.shape, 10**6 + (len(x) > 1), np.int64)


def test_the_order_of_a_batchs_sums_is_no_dependence_where_nothing_is_tolerated() -> None:
    exact = SPEC.model_copy(update={"verify": Verify(atol=0, rtol=0)})
    assert run_reference(_Fake(_rounded), exact, _case(4, 1, 2)).outputs["y"].shape == (4, 2)
    for function in (_wrong, _label):
        with pytest.raises(ParityError):
            run_reference(_Fake(function), exact, _case(4, 1, 2))


def test_a_batch_of_1_alone_has_no_neighbours_to_mind() -> None:
    assert run_reference(_Fake(_mean), SPEC, _case(4, 1)).outputs["y"].shape == (4, 2)


def test_an_unexpected_number_of_outputs_is_refused() -> None:
    with pytest.raises(SourceError, match="gives 2 outputs, the spec names 1"):
        run_model(_Fake(lambda x: [x, x]), SPEC, _case(2, 1).inputs)


def test_whatever_the_models_own_code_raises_is_told_with_the_shapes() -> None:
    def fail(_x: object) -> object:
        raise KeyError("lost")

    with pytest.raises(SourceError, match=r"fails on inputs of shape \{'x': \[2, 2\]\}: KeyError"):
        run_model(_Fake(fail), SPEC, _case(2, 1).inputs)


def test_fewer_items_are_kept_where_they_would_be_too_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BUDGET", 3 * 16)
    found = run_reference(_Fake(lambda x: x), SPEC, _case(8, 1, 2))
    assert len(found.case.inputs["x"]) == len(found.outputs["y"]) == 3


def test_golden_tensors_are_read_back_as_written_and_the_same_bytes_twice(tmp_path: Path) -> None:
    goldens = [run_reference(_Fake(lambda x: x + 1), SPEC, _case(3, 1, 2)) for _ in range(2)]
    for name in ("a", "b"):
        write_golden(goldens, tmp_path / name)
    read = list(read_golden(tmp_path / "a"))
    assert [golden.case.batches for golden in read] == [(1, 2), (1, 2)]
    np.testing.assert_array_equal(read[1].outputs["y"], goldens[1].outputs["y"])
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
