"""Complementarity penalised: ``weight * sum multiplier * slack`` in the objective, the weight raised by the caller.

Source: Anitescu (2005), On using the elastic mode in nonlinear programming approaches to mathematical programs with
complementarity constraints, SIAM Journal on Optimization 15; Leyffer, López-Calva and Nocedal (2006). Exact for a
finite weight near strongly stationary points, otherwise in the limit. For local solvers of nonlinear programs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from bilevel_core.program import Function, Program
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.pairs import Chosen, Pair


class Penalised(Reduction[Program, Program]):
    """Products of pairs in the objective. ``pairs`` are those to express, all by default; ``weight`` is positive."""

    def __init__(self, weight: float, pairs: Collection[Pair] | None = None) -> None:
        self.weight = weight
        self._chosen = Chosen(pairs)

    def accepts(self, source: Program) -> str | None:
        """Takes every program with nonnegative pairs."""
        if not self.weight > 0.0:
            return f"the weight must be positive, got {self.weight:g}"
        return self._chosen.refuses(source)

    def apply(self, source: Program) -> Program:
        """The program with its pairs in the objective."""
        pairs = self._chosen.of(source)
        products = Function(quadratic={(min(i, j), max(i, j)): self.weight for i, j in pairs})
        return replace(source, objective=source.objective + products, complementarities=self._chosen.rest(source))

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Nothing was added."""
        return values
