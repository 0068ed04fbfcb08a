"""Precision: from the portable fp32 graph to one that computes in fp16, bf16 or int8."""

from __future__ import annotations

from compiler.precision._base import Converted, Request
from compiler.precision.convert import convert

__all__ = ["Converted", "Request", "convert"]
