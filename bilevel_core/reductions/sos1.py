"""Complementarity by special ordered sets of type 1: of each pair {multiplier, slack} at most one is nonzero.

Exact, with no constant to guess; needs a backend that branches on such sets (SCIP).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevel_core.program import Program
from bilevel_core.reductions.base import Reduction


class Sos1(Reduction[Program, Program]):
    """Pairs become sets; columns and rows stay."""

    def accepts(self, source: Program) -> str | None:
        """Takes every program with nonnegative pairs."""
        for i, j in source.complementarities:
            for k in (i, j):
                if source.columns[k].lower < 0.0:
                    return f"column {source.columns[k].name!r} of a complementarity pair may be negative"
        return None

    def apply(self, source: Program) -> Program:
        """The same program with its pairs as sets."""
        return replace(source, complementarities=(), sos1=source.sos1 + source.complementarities)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Nothing was added."""
        return values
