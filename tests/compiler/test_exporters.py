"""Both exporters, every batch, and every option of ``torch.onnx.export``."""

# pyright: reportUnknownMemberType=false
# torch's and onnx's functions are typed in part.
from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch

import runtime
from compiler.exporters import PLACES, export
from compiler.sources import load_model
from compiler.weights import FoundWeights
from specs.errors import DeploycError, ExportError, SpecError
from specs.manifest import WeightsOrigin
from specs.schema import Export, Spec, StateDict

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]

SOURCE = FoundWeights(WeightsOrigin(origin="source"), None, StateDict())


def _exported(data: dict[str, Any], folder: Path) -> onnx.ModelProto:
    """The graph as the exporter writes it, before anything is done to it."""
    spec = Spec.model_validate(data)
    return export(load_model(spec.model, folder, SOURCE), spec, folder, folder / "logs")


def _ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def test_every_parameter_of_torchs_export_has_its_place_in_the_spec() -> None:
    function = cast("Callable[..., Any]", torch.onnx.export)
    assert set(PLACES) == set(inspect.signature(function).parameters)
    for place in PLACES.values():
        part, _, field = place.partition(".")
        assert not part or part in Spec.model_fields
        assert not field or field in Export.model_fields


def test_every_export_option_of_the_spec_is_one_of_torchs_or_our_own() -> None:
    own = {"ir_version"}
    assert {f"export.{name}" for name in Export.model_fields.keys() - own} <= set(PLACES.values())


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("batch", [1, 128, "batch"])
def test_a_fixed_batch_of_1_or_128_and_a_dynamic_one_are_built(
    conv_spec: Make, build_spec: Build, exporter: str, batch: int | str
) -> None:
    parts = {} if batch == "batch" else {"dynamic_axes": None}
    data = conv_spec(
        inputs={"x": {"shape": [batch, 1, 8, 8]}},
        outputs={"y": {"shape": [batch, 3]}},
        export={"exporter": exporter},
        **parts,
    )
    result = build_spec(data)
    with runtime.load(result.folder) as predictor:
        items = list(np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32))
        together = [answer["outputs"]["y"] for answer in predictor.predict(items)]
        alone = [predictor.predict([item])[0]["outputs"]["y"] for item in items]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("exporter", "opset"),
    [("torchscript", 11), ("torchscript", 13), ("torchscript", 20), ("dynamo", 18), ("dynamo", 22)],
)
def test_the_opset_that_is_asked_for_is_the_one_that_is_written(
    conv_spec: Make, build_spec: Build, exporter: str, opset: int
) -> None:
    result = build_spec(conv_spec(export={"exporter": exporter, "opset": opset}))
    assert result.manifest.graph.opset == opset


def test_an_opset_that_the_exporter_cannot_write_is_a_fault_of_the_spec(
    conv_spec: Make, refused: Refused
) -> None:
    error = refused(conv_spec(export={"exporter": "dynamo", "opset": 13}))
    assert isinstance(error, SpecError)
    assert error.problems[0].path == "export.opset"
    assert "use exporter: torchscript" in error.problems[0].hint


def test_a_silently_raised_opset_fails_the_build(
    conv_spec: Make, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specs.checks.OPSETS", {"dynamo": (9, 26), "torchscript": (9, 20)})
    error = refused(conv_spec(export={"exporter": "dynamo", "opset": 13}))
    assert error.code == "contract"
    assert "opset: asked 13, found 18" in error.message
    assert "exporter: torchscript" in error.hint


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_ir_version_that_is_asked_for_is_written(
    spec: Make, build_spec: Build, exporter: str
) -> None:
    result = build_spec(spec(export={"exporter": exporter, "ir_version": 9}))
    assert result.manifest.graph.ir_version == 9


def test_an_ir_version_below_what_the_opset_needs_is_refused(spec: Make, refused: Refused) -> None:
    error = refused(spec(export={"exporter": "torchscript", "ir_version": 6}))
    assert "IR version: asked 6, found 8" in error.message
    assert "opset 18 needs IR version 8" in error.hint


# --- options of both


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_initializers_listed_as_inputs_are_listed_and_the_graph_still_runs(
    spec: Make, build_spec: Build, exporter: str
) -> None:
    export = {"exporter": exporter, "keep_initializers_as_inputs": True}
    result = build_spec(spec(export=export))
    proto = onnx.load(str(result.folder / "model.onnx"))
    names = {value.name for value in proto.graph.input}
    assert {tensor.name for tensor in proto.graph.initializer} == names - {"x"}
    with runtime.load(result.folder) as predictor:
        assert len(predictor.predict([np.ones(4, np.float32)])) == 1


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_constant_arguments_of_the_forward_are_built_into_the_graph(
    spec: Make, build_spec: Build, net: Path, exporter: str
) -> None:
    data = spec(
        model={"python": {"file": "net.py", "object": "Scaled"}},
        export={"exporter": exporter, "forward_kwargs": {"factor": 3.0, "negate": True}},
    )
    with net.open("a") as file:
        file.write(
            "\nclass Scaled(nn.Module):\n"
            "    def forward(self, x, factor: float = 1.0, negate: bool = False):\n"
            "        y = x[:, :3] * factor\n        return -y if negate else y\n"
        )
    result = build_spec(data)
    with runtime.load(result.folder) as predictor:
        answer = predictor.predict([np.ones(4, np.float32)])[0]
    assert answer["outputs"]["y"].tolist() == [-3, -3, -3]


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_arguments_left_at_their_defaults_do_not_become_inputs(
    spec: Make, build_spec: Build, net: Path, exporter: str
) -> None:
    data = spec(export={"exporter": exporter})
    net.write_text(net.read_text().replace("forward(self, x):", "forward(self, x, by=2.0):", 1))
    assert build_spec(data).written


def test_verbose_lets_torch_talk_on_stderr_alone(
    spec: Make, net: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _exported(spec(export={"exporter": "dynamo", "verbose": True}), net.parent)
    loud = capfd.readouterr()
    _exported(spec(export={"exporter": "dynamo"}), net.parent)
    quiet = capfd.readouterr()
    assert "Translate the graph into ONNX" in loud.err
    assert (loud.out, quiet.out, quiet.err) == ("", "", "")


# --- options of the TorchScript-based exporter


def test_constant_folding_can_be_turned_off(spec: Make, net: Path) -> None:
    net.write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.ones(3, 4))\n"
        "    def forward(self, x):\n        return x @ self.weight.t()\n"
    )
    base = {"exporter": "torchscript"}
    folded = _exported(spec(export=base), net.parent)
    kept = _exported(spec(export=base | {"do_constant_folding": False}), net.parent)
    assert ("Transpose" in _ops(folded), "Transpose" in _ops(kept)) == (False, True)


DROPOUT = (
    "import torch\nclass Net(torch.nn.Module):\n"
    "    def __init__(self):\n        super().__init__()\n"
    "        self.drop = torch.nn.Dropout(0.5)\n"
    "    def forward(self, x):\n        return self.drop(x)[:, :3]\n"
)


def test_the_training_mode_reaches_the_exporter(spec: Make, net: Path) -> None:
    data = spec(export={"exporter": "torchscript", "training": "train"})
    net.write_text(DROPOUT)
    assert "Dropout" in _ops(_exported(data, net.parent))
    data["export"]["training"] = "eval"
    assert "Dropout" not in _ops(_exported(data, net.parent))


def test_a_graph_exported_in_training_mode_does_not_pass_as_the_model(
    spec: Make, refused: Refused, net: Path
) -> None:
    data = spec(export={"exporter": "torchscript", "training": "train"})
    net.write_text(DROPOUT)
    assert refused(data).code == "parity"


CUSTOM = (
    "import torch\nfrom torch.onnx import register_custom_op_symbolic\n"
    "class Net(torch.nn.Module):\n"
    "    def forward(self, x):\n        return torch.special.erfcx(x)[:, :3]\n"
    "register_custom_op_symbolic(\n"
    "    'aten::special_erfcx', lambda g, x: g.op('own.domain::Erfcx', x), 11)\n"
)


@pytest.fixture
def custom(net: Path) -> Generator[Path, None, None]:
    """``net.py`` with an operator of its own; torch keeps it registered unless it is taken back."""
    net.write_text(CUSTOM)
    yield net
    onnx_of_torch = cast("Any", torch.onnx)  # this name is not in its __all__
    onnx_of_torch.unregister_custom_op_symbolic("aten::special_erfcx", 11)


def test_versions_of_custom_operator_sets_reach_the_file(spec: Make, custom: Path) -> None:
    data = spec(export={"exporter": "torchscript", "custom_opsets": {"own.domain": 3}})
    custom.write_text(CUSTOM)
    proto = _exported(data, custom.parent)
    assert {entry.domain: entry.version for entry in proto.opset_import}["own.domain"] == 3


def test_an_operator_that_the_engine_does_not_know_is_one_clear_error(
    spec: Make, refused: Refused, custom: Path
) -> None:
    data = spec(export={"exporter": "torchscript", "custom_opsets": {"own.domain": 3}})
    custom.write_text(CUSTOM)
    error = refused(data)
    assert error.code == "engine_load"
    assert "Erfcx" in error.message


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        (
            "operator_export_type",
            "onnx_fallthrough",
            torch.onnx.OperatorExportTypes.ONNX_FALLTHROUGH,
        ),
        ("training", "preserve", torch.onnx.TrainingMode.PRESERVE),
        ("export_modules_as_functions", True, True),
        ("autograd_inlining", False, False),
        ("do_constant_folding", False, False),
        ("custom_opsets", {"own": 2}, {"own": 2}),
        ("verbose", True, True),
        ("keep_initializers_as_inputs", True, True),
    ],
)
def test_every_torchscript_option_is_passed_on(  # noqa: PLR0913, PLR0917 - one per column
    spec: Make,
    net: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    given: object,
    expected: object,
) -> None:
    assert _passed(spec, net, monkeypatch, "torchscript", option, given) == expected


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("optimize", False),
        ("report", True),
        ("verify", True),
        ("profile", True),
        ("dump_exported_program", True),
        ("verbose", True),
    ],
)
def test_every_dynamo_option_is_passed_on(
    spec: Make, net: Path, monkeypatch: pytest.MonkeyPatch, option: str, given: object
) -> None:
    assert _passed(spec, net, monkeypatch, "dynamo", option, given) == given


def _passed(  # noqa: PLR0913, PLR0917 - see the two tests
    spec: Make,
    net: Path,
    monkeypatch: pytest.MonkeyPatch,
    exporter: str,
    option: str,
    given: object,
) -> object:
    seen: dict[str, Any] = {}

    def stand_in(*_args: object, **kwargs: Any) -> None:
        seen.update(kwargs)
        raise ExportError("enough")

    monkeypatch.setattr(torch.onnx, "export", stand_in)
    with pytest.raises(ExportError, match="enough"):
        _exported(spec(export={"exporter": exporter, option: given}), net.parent)
    return seen[option]


# --- options of the Dynamo-based exporter


def test_a_graph_that_reads_shapes_loads_with_its_weights_beside_it(
    spec: Make, build_spec: Build, net: Path
) -> None:
    net.write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.linear = torch.nn.Linear(2, 3)\n"
        "    def forward(self, x):\n        return self.linear(x.reshape(-1, 2, 2)).mean(1)\n"
    )
    assert build_spec(spec(export={"exporter": "dynamo", "external_data": True})).written


def test_external_data_lies_beside_the_graph_is_hashed_and_loads(
    spec: Make, build_spec: Build
) -> None:
    result = build_spec(spec(export={"exporter": "dynamo", "external_data": True}))
    data = result.folder / "model.onnx.data"
    weight = 4 * 4 * 3  # bytes; vectors, such as the bias, stay in the graph
    assert data.stat().st_size == result.manifest.files["model.onnx.data"].bytes == weight
    with runtime.load(result.folder) as predictor:
        assert len(predictor.predict([np.ones(4, np.float32)])) == 1
    data.write_bytes(bytes(weight))
    with pytest.raises(DeploycError, match=r"model\.onnx\.data is not the file that was built"):
        runtime.load(result.folder)


def test_optimize_can_be_turned_off(spec: Make, net: Path) -> None:
    text = net.read_text().replace("self.linear(x)", "torch.zeros(3) + self.linear(x.clone())")
    net.write_text(text)
    base = {"exporter": "dynamo"}
    data = spec()
    net.write_text(text)
    plain = _exported(data | {"export": base | {"optimize": False}}, net.parent)
    optimised = _exported(data | {"export": base}, net.parent)
    assert len(plain.graph.node) > len(optimised.graph.node)


def test_reports_are_kept_in_a_log_folder_and_the_build_says_where(
    spec: Make, build_spec: Build
) -> None:
    import io

    from rich.console import Console

    from compiler.progress import Reporter

    told = io.StringIO()
    wanted = {"report": True, "dump_exported_program": True}
    reporter = Reporter(Console(file=told, width=200))
    result = build_spec(spec(export={"exporter": "dynamo", **wanted}), reporter=reporter)
    place = Path(told.getvalue().split("what the exporter wrote: ")[1].split("\n")[0])
    assert {path.suffix for path in place.iterdir()} >= {".md", ".pt2"}
    assert not any("logs" in name for name in result.manifest.files)


def test_a_profile_without_its_package_is_one_error_with_the_line_to_install_it(
    spec: Make, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    error = refused(spec(export={"exporter": "dynamo", "profile": True}))
    assert (error.code, error.hint) == ("export_package", "pip install pyinstrument")


TRANSLATED = (
    "import onnxscript, torch\nfrom onnxscript import opset18 as op\n"
    "def relu(x):\n    return op.Max(x, op.CastLike(op.Constant(value_float=0.0), x))\n"
    "TABLE = {torch.ops.aten.relu.default: relu}\n"
)


def test_a_translation_of_ones_own_is_used(conv_spec: Make, net: Path) -> None:
    (net.parent / "table.py").write_text(TRANSLATED)
    export = {"exporter": "dynamo", "custom_translations": "table.py:TABLE"}
    ops = _ops(_exported(conv_spec(export=export), net.parent))
    assert "Max" in ops
    assert "Relu" not in ops


def test_translations_that_are_no_dict_are_one_clear_error(
    spec: Make, refused: Refused, net: Path
) -> None:
    (net.parent / "table.py").write_text("TABLE = 3\n")
    export = {"exporter": "dynamo", "custom_translations": "table.py:TABLE"}
    error = refused(spec(export=export))
    assert error.message == "export.custom_translations: table.py has no dict 'TABLE'"


# --- what does not go together


@pytest.mark.parametrize(
    ("exporter", "option", "value"),
    [
        ("dynamo", "training", "eval"),
        ("dynamo", "do_constant_folding", True),
        ("dynamo", "custom_opsets", {"a": 1}),
        ("dynamo", "operator_export_type", "onnx"),
        ("dynamo", "export_modules_as_functions", True),
        ("dynamo", "autograd_inlining", True),
        ("torchscript", "external_data", True),
        ("torchscript", "optimize", True),
        ("torchscript", "verify", True),
        ("torchscript", "report", True),
        ("torchscript", "profile", True),
        ("torchscript", "dump_exported_program", True),
    ],
)
def test_an_option_that_the_exporter_ignores_is_a_fault_of_the_spec(
    spec: Make, refused: Refused, exporter: str, option: str, value: object
) -> None:
    error = refused(spec(export={"exporter": exporter, option: value}))
    assert isinstance(error, SpecError)
    assert error.problems[0].code == "option_exporter"
    assert error.problems[0].path == f"export.{option}"


def test_a_graph_without_its_weights_is_a_fault_of_the_spec(spec: Make, refused: Refused) -> None:
    error = refused(spec(export={"exporter": "dynamo", "export_params": False}))
    assert isinstance(error, SpecError)
    assert error.problems[0].code == "export_params"


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_torchs_own_reason_is_told_where_it_cannot_export(
    spec: Make, refused: Refused, net: Path, exporter: str
) -> None:
    data = spec(export={"exporter": exporter})
    net.write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return torch.special.bessel_j0(x)[:, :3]\n"
    )
    error = refused(data)
    assert isinstance(error, ExportError)
    assert error.message.startswith(f"{exporter} export failed: ")
    assert "bessel_j0" in error.message
    assert len(error.message.splitlines()) < 20


def test_torchs_reason_is_cut_where_torch_writes_a_line_of_thousands(
    spec: Make, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(f"could not guard on {'u0 + ' * 2000}\nCaused by: boxes.py:86")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ExportError, match="Caused by: boxes") as caught:
        _exported(spec(), net.parent)
    assert len(caught.value.message) < 400


def test_a_missing_package_of_the_exporter_is_left_to_the_command_line(
    spec: Make, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("export") from ModuleNotFoundError("onnxscript", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", missing)
    with pytest.raises(ModuleNotFoundError):
        _exported(spec(export={"exporter": "dynamo"}), net.parent)
