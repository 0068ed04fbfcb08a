"""PyTorch itself: stores the model as an ExportedProgram, ``model.pt2``; TorchScript stays it."""

from __future__ import annotations

from typing import ClassVar

from compiler.cache import versions
from compiler.engines._base import BuildTarget, Built, EngineBuilder, Job
from runtime.engines._pytorch import TorchSignature, require_library
from runtime.engines.pytorch import TorchEngine
from specs.errors import EngineError

__all__ = ["TorchBuilder"]


class TorchBuilder(EngineBuilder):
    """Exports the model, not the graph: what the other engines are compared with."""

    name: ClassVar[str] = "torch"
    from_source: ClassVar[bool] = True

    @classmethod
    def fingerprint(cls, target: BuildTarget) -> dict[str, str]:
        """PyTorch's version: the file is the same on every machine."""
        return versions("torch")

    @classmethod
    def build(cls, job: Job) -> Built:
        """Write the model in the target's precision, and open it once."""
        require_library()
        model = job.model()
        from compiler.engines._program import write
        from compiler.sources import TorchModel

        if not isinstance(model, TorchModel):
            source = job.spec.model.name
            message = f"a model from '{source}' has no PyTorch model for the engine torch to run"
            hint = "use the source torchvision, python, torchscript or exported_program"
            raise EngineError(message, hint=hint, code="engine_source")
        spec, target = job.spec, job.target
        signature = TorchSignature(
            inputs=spec.inputs,
            outputs=spec.outputs,
            axes=spec.dynamic_axes,
            precision=target.precision,
            kwargs=spec.export.forward_kwargs,
        )
        file = write(model, spec, signature, job.folder)
        TorchEngine.open(job.folder / file, target.device, target.options).close()
        return Built(file)
