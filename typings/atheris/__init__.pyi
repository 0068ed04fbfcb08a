from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

_T = TypeVar("_T", bound=Callable[..., object])

def instrument_func(func: _T) -> _T: ...
def instrument_imports(
    include: Sequence[str] = ...,
    exclude: Sequence[str] = ...,
    *,
    enable_loader_override: bool = ...,
) -> AbstractContextManager[None]: ...
def Setup(argv: Sequence[str], test_one_input: Callable[[bytes], None]) -> list[str]: ...
def Fuzz() -> None: ...
