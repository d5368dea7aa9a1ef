"""Reductions: `BilevelProgram` -> `Program` with pairs -> `Program` that a backend takes. One file a mode."""

from bilevel_core.reductions.base import Chain, Reduction

__all__ = ["Chain", "Reduction"]
