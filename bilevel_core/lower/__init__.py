"""Solving the lower level at a fixed x: `respond`. Which method suits is decided by the oracle's form and constraints."""

from bilevel_core.lower.base import LowerFailedError, LowerSettings, Response
from bilevel_core.lower.respond import respond

__all__ = ["LowerFailedError", "LowerSettings", "Response", "respond"]
