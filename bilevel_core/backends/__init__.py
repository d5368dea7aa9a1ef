"""Backends: what solves a single-level `Program`. One file each; the third-party package is imported when used."""

from bilevel_core.backends.base import Availability, Backend, Solution, SolveSettings, SolveStatus

__all__ = ["Availability", "Backend", "Solution", "SolveSettings", "SolveStatus"]
