"""Every error that deployc raises on purpose, in one tree.

    DeploycError               code, message, hint; exit status 1
    ├── SpecError              the spec is at fault; carries one Problem per fault
    ├── WeightsError           weights cannot be fetched, read or fitted to the model
    ├── SourceError            the model source cannot be loaded
    ├── ExportError            torch.onnx could not export the model
    ├── ContractError          the exported graph is not what the spec asked for
    ├── ParityError            the built variant and PyTorch disagree
    ├── ProcessingError        executions of pre- or post-processing differ
    ├── AuditError             a variant computes elsewhere, or in another type, than was asked
    ├── EngineError            an engine or provider cannot be built or run here
    ├── ArtifactError          the artifact is missing, torn, changed or too new
    ├── InputError             a request's item is at fault (HTTP 400, 413, 415)
    └── ServeError             the Serve config or application is at fault

Foreign exceptions are translated into one of these where they enter, with ``from``. A message
says what was found and what was expected; the hint says what to do next. ``code`` is stable:
programs may match on it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ArtifactError",
    "AuditError",
    "ContractError",
    "DeploycError",
    "EngineError",
    "ExportError",
    "InputError",
    "ParityError",
    "Problem",
    "ProcessingError",
    "ServeError",
    "SourceError",
    "SpecError",
    "WeightsError",
]


class DeploycError(Exception):
    """Base of all errors above.

    Args:
        code: stable, lower_snake_case.
        message: what was found and what was expected.
        hint: what to do next; may be empty.
    """

    default_code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Ray and multiprocessing pickle exceptions; keyword-only arguments need a hand.
        return _rebuild, (type(self), self.message, self.hint, self.code)

    def to_dict(self) -> dict[str, str]:
        """The form every HTTP and ``--json`` answer uses."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


def _rebuild(kind: type[DeploycError], message: str, hint: str, code: str) -> DeploycError:
    return kind(message, hint=hint, code=code)


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a spec, with its place.

    ``line`` and ``column`` count from 1; 0 means that the place is not known.
    """

    file: str
    line: int
    column: int
    path: str
    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f" {self.path}:" if self.path else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{place}:{where} {self.message} [{self.code}]{hint}"


class SpecError(DeploycError):
    """A spec that cannot be used, with all the problems found in it."""

    default_code = "spec_invalid"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str = "",
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.problems = problems

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_spec, (type(self), self.message, self.hint, self.code, self.problems)

    @classmethod
    def of(cls, *problems: Problem) -> SpecError:
        """Raise-ready error whose text is the problems, one after the other."""
        return cls("\n".join(str(problem) for problem in problems), problems=problems)


def _rebuild_spec(
    kind: type[SpecError], message: str, hint: str, code: str, problems: tuple[Problem, ...]
) -> SpecError:
    return kind(message, hint=hint, code=code, problems=problems)


class WeightsError(DeploycError):
    """Weights cannot be fetched, verified, read or fitted to the model."""

    default_code = "weights"


class SourceError(DeploycError):
    """The model source cannot be loaded."""

    default_code = "source"


class ExportError(DeploycError):
    """torch.onnx could not export the model."""

    default_code = "export"


class ContractError(DeploycError):
    """The exported graph differs from what the spec asks for."""

    default_code = "contract"


class ParityError(DeploycError):
    """The built variant's outputs differ from PyTorch's beyond tolerance."""

    default_code = "parity"


class ProcessingError(DeploycError):
    """Two executions of the spec's processing differ, or one cannot be had."""

    default_code = "processing_differs"


class AuditError(DeploycError):
    """A variant computes elsewhere (``placement``) or in another type (``precision``)."""

    default_code = "audit"


class EngineError(DeploycError):
    """An engine, provider or device cannot be used here."""

    default_code = "engine"


class ArtifactError(DeploycError):
    """The artifact cannot be opened as it is."""

    default_code = "artifact"


class InputError(DeploycError):
    """One item of a request is at fault; ``code`` names how.

    Codes: ``empty_item``, ``not_an_image``, ``corrupt_image``, ``too_large``, ``wrong_dtype``,
    ``wrong_shape``, ``wrong_input``, ``not_finite``; every one is in ``docs/serving.md``.
    """

    default_code = "wrong_input"


class ServeError(DeploycError):
    """The Serve config or the application is at fault."""

    default_code = "serve"
