"""Solving the lower level at a fixed x: `respond`. The oracle's form and constraints decide which method."""

from bilevel_core.lower.base import LowerFailedError, LowerSettings, Response
from bilevel_core.lower.respond import respond

__all__ = ["LowerFailedError", "LowerSettings", "Response", "respond"]
