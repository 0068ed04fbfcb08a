"""Generates ``processing.py``: from a request's item to tensors, and from tensors to an answer."""

from __future__ import annotations

from compiler.processing.generate import PROCESSING, GeneratedProcessing, generate, limits_of, parts
from compiler.processing.labels import read_labels

__all__ = ["PROCESSING", "GeneratedProcessing", "generate", "limits_of", "parts", "read_labels"]
