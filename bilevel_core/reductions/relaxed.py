"""Complementarity relaxed: ``multiplier * slack <= eps`` pair by pair, with eps driven to zero by the caller.

Source: Scholtes (2001), Convergence properties of a regularization scheme for mathematical programs with
complementarity constraints, SIAM Journal on Optimization 11. Not exact: every complementary point satisfies the rows,
and points that are not complementary do too, so that only the limit means anything. For local solvers of nonlinear
programs, to which pairs as equations have no interior.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from bilevel_core.program import Function, Program, Row
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.pairs import Chosen, Pair


class Relaxed(Reduction[Program, Program]):
    """One quadratic row a pair. ``pairs`` are those to express, all by default; ``eps`` is positive."""

    def __init__(self, eps: float, pairs: Collection[Pair] | None = None) -> None:
        self.eps = eps
        self._chosen = Chosen(pairs)

    def accepts(self, source: Program) -> str | None:
        """Takes every program with nonnegative pairs."""
        if not self.eps > 0.0:
            return f"eps must be positive, got {self.eps:g}"
        return self._chosen.refuses(source)

    def apply(self, source: Program) -> Program:
        """The program with rows in place of its pairs."""
        names = source.names
        rows = tuple(
            Row(f"{names[i]}*{names[j]}<=eps", Function(quadratic={(min(i, j), max(i, j)): 1.0}), upper=self.eps)
            for i, j in self._chosen.of(source)
        )
        return replace(source, rows=source.rows + rows, complementarities=self._chosen.rest(source))

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Nothing was added."""
        return values
