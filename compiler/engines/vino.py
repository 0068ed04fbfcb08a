"""OpenVINO: writes its intermediate representation (IR), ``model.xml`` and ``model.bin``."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# OpenVINO's own stubs are typed in part.
from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compiler.cache import versions
from compiler.engines._base import BuildTarget, Built, EngineBuilder, Job
from runtime.engines._signature import Signature
from runtime.engines.vino import SIGNATURE, VinoEngine, reason, require_library, reshape
from specs.errors import EngineError

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["VinoBuilder"]

FILE = "model.xml"
UNCONVERTED = re.compile(
    r"^-- .*operations?: (.+)$|^-- Conversion is failed for: (.+)$", re.MULTILINE
)
"""The lines in which the ONNX reader names operators: ``Det-18, my.domain.Op``."""


class VinoBuilder(EngineBuilder):
    """Converts the graph as it is: the types of the IR are those of the graph."""

    name: ClassVar[str] = "openvino"

    @classmethod
    def fingerprint(cls, target: BuildTarget) -> dict[str, str]:
        """OpenVINO's version: an IR is the same on every machine."""
        return versions("openvino")

    @classmethod
    def build(cls, job: Job) -> Built:
        """Write the IR with the spec's axes and their ranges, and open it once."""
        import openvino as ov

        require_library()
        spec = job.spec
        signature = Signature(
            inputs=spec.inputs,
            outputs=spec.outputs,
            axes=spec.dynamic_axes,
            precision=job.target.precision,
        )
        model = _convert(job.graph)
        _check_names(model, signature, job.graph.name)
        given = {op.get_friendly_name() for op in _nodes(model) if _is_given(op)}
        reshape(model, signature)
        _name_others(model, given)
        model.set_rt_info(signature.model_dump_json(), SIGNATURE)
        file = job.folder / FILE
        # The default would store fp32 weights as fp16.
        ov.save_model(model, file, compress_to_fp16=False)
        VinoEngine.open(file, job.target.device, job.target.options).close()
        return Built(FILE)

    @classmethod
    def unsupported(cls, graph: Path, target: BuildTarget) -> tuple[str, ...] | None:
        """Op types that the ONNX reader or the CPU plug-in does not know."""
        if importlib.util.find_spec("openvino") is None:
            return None
        import openvino as ov

        core = ov.Core()
        try:
            model = core.read_model(graph)
            known = core.query_model(model, "CPU")
        except RuntimeError as error:
            types = sorted(set(_unconverted(str(error))))
            if types:
                return tuple(types)
            raise _refused(graph, error) from error
        nodes = model.get_ordered_ops()
        lacking = {op.get_type_name() for op in nodes if op.get_friendly_name() not in known}
        return tuple(sorted(lacking))


def _convert(graph: Path) -> ov.Model:
    """The graph as OpenVINO reads it.

    Not ``openvino.convert_model``, which reads it in the same way, but sends telemetry and writes
    its own arguments into the IR.
    """
    import openvino as ov

    try:
        return ov.Core().read_model(graph)
    except RuntimeError as error:
        raise _refused(graph, error) from error


def _refused(graph: Path, error: RuntimeError) -> EngineError:
    types = sorted(set(_unconverted(str(error))))
    told = f"it has no {', '.join(types)}" if types else reason(error)
    message = f"OpenVINO cannot take {graph.name}: {told}"
    hint = "take another opset, or the engine onnxruntime"
    return EngineError(message, hint=hint, code="engine_build")


def _unconverted(text: str) -> Iterator[str]:
    """The op types in OpenVINO's message, without the opset that it adds."""
    for first, second in UNCONVERTED.findall(text):
        for name in (first or second).split(","):
            yield name.strip().rsplit("-", maxsplit=1)[0]


def _check_names(model: ov.Model, signature: Signature, file: str) -> None:
    found = {name for port in (*model.inputs, *model.outputs) for name in port.get_names()}
    missing = [name for name in (*signature.inputs, *signature.outputs) if name not in found]
    if missing:
        message = f"OpenVINO lost {', '.join(missing)} of {file}; it has {', '.join(sorted(found))}"
        raise EngineError(message, code="engine_build")


def _is_given(op: ov.Node) -> bool:
    """Whether the graph named the node; the reader takes its own name for it where not."""
    return bool(op.get_friendly_name() != op.get_name())


def _name_others(model: ov.Model, given: set[str]) -> None:
    """Number the nodes that the graph did not name: OpenVINO counts them over the whole process."""
    numbers = (number for number in itertools.count() if f"node_{number}" not in given)
    for op in _nodes(model):
        if op.get_friendly_name() not in given:
            op.set_friendly_name(f"node_{next(numbers)}")


def _nodes(model: ov.Model) -> Iterator[ov.Node]:
    """The nodes of a model, and of the bodies of its loops and branches."""
    for op in model.get_ordered_ops():
        yield op
        bodies = ("get_then_body", "get_else_body") if op.get_type_name() == "If" else _BODY
        for body in bodies:
            if hasattr(op, body):
                yield from _nodes(getattr(op, body)())


_BODY = ("get_function",)
