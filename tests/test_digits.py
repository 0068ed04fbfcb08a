"""The embedded model is as accurate as its spec says."""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# scikit-learn ships no types.

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import runtime
from specs.loader import load_spec


def test_the_accuracy_in_the_description_is_that_of_the_artifact_on_the_held_out_split(
    root: Path, digits_artifact: Path
) -> None:
    pictures, labels = load_digits(return_X_y=True)
    _, pictures, _, labels = train_test_split(
        pictures, labels, test_size=0.2, random_state=0, stratify=labels
    )
    greys = np.round(np.asarray(pictures).reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    with runtime.load(digits_artifact) as predictor:
        answers = predictor.predict(list(greys))
    right = sum(
        answer["classes"][0]["index"] == label
        for answer, label in zip(answers, labels, strict=True)
    )
    told = re.search(
        r"(\d+) of the (\d+)", load_spec(root / "specs" / "digits.yaml").spec.description
    )
    assert told is not None
    assert (right, len(labels)) == (int(told[1]), int(told[2]))
