"""Complementarity by special ordered sets of type 1: of each pair {multiplier, slack} at most one is nonzero.

Exact, with no constant to guess; needs a backend that branches on such sets (SCIP).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from bilevel_core.program import Program
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.pairs import Chosen, Pair


class Sos1(Reduction[Program, Program]):
    """Pairs become sets; columns and rows stay. ``pairs`` are those to express, all by default."""

    def __init__(self, pairs: Collection[Pair] | None = None) -> None:
        self._chosen = Chosen(pairs)

    def accepts(self, source: Program) -> str | None:
        """Takes every program with nonnegative pairs."""
        return self._chosen.refuses(source)

    def apply(self, source: Program) -> Program:
        """The same program with its pairs as sets."""
        sets = self._chosen.of(source)
        return replace(source, complementarities=self._chosen.rest(source), sos1=source.sos1 + sets)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Nothing was added."""
        return values
