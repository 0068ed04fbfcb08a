"""The tree of errors: drawn as it is, and whole after a trip between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from specs import errors
from specs.errors import DeploycError, Problem, SpecError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]
ERRORS = [kind for kind in CLASSES if issubclass(kind, DeploycError)]
PROBLEM = Problem("a.yaml", 2, 3, "inputs", "missing", "'inputs' is missing", "add inputs")


def test_the_tree_at_the_modules_head_is_the_tree() -> None:
    drawn = re.findall(r"^    [├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    # Other modules may refine a class; this one holds the two levels that it draws.
    assert drawn == [kind.__name__ for kind in ERRORS if kind.__base__ is DeploycError]
    assert len(drawn) + 1 == len(ERRORS)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.default_code for kind in ERRORS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", code) for code in codes)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_survives_pickling(kind: type[DeploycError]) -> None:
    error = kind("found a", hint="do b", code="c")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), again.to_dict()) == (kind, error.to_dict())


def test_a_spec_error_keeps_its_problems() -> None:
    again = pickle.loads(pickle.dumps(SpecError.of(PROBLEM)))  # noqa: S301 - our own bytes
    assert again.problems == (PROBLEM,)


def test_an_error_reads_as_a_message_and_a_hint() -> None:
    assert str(DeploycError("found a", hint="do b")) == "found a\n  hint: do b"
    assert str(DeploycError("found a")) == "found a"


def test_a_problem_without_a_place_names_the_file_alone() -> None:
    assert str(Problem("a.yaml", 0, 0, "", "file_size", "too large")) == (
        "a.yaml: too large [file_size]"
    )


def test_a_spec_errors_text_is_its_problems() -> None:
    assert SpecError.of(PROBLEM, PROBLEM).message == f"{PROBLEM}\n{PROBLEM}"
