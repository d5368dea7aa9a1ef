"""Complementarity by indicators: a binary a pair, ``z = 1 => multiplier <= 0`` and ``z = 0 => slack <= 0``.

Exact, with no constant to guess; needs a backend with indicator constraints (SCIP), which derives bounds of its own
where it can and branches where it cannot.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from bilevel_core.program import Program, Variable, append_columns
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.pairs import Chosen, Pair


class Indicator(Reduction[Program, Program]):
    """One binary and two indicators a pair. ``pairs`` are those to express, all by default."""

    def __init__(self, pairs: Collection[Pair] | None = None) -> None:
        self._chosen = Chosen(pairs)
        self._width = 0
        self._done: tuple[Pair, ...] = ()

    def accepts(self, source: Program) -> str | None:
        """Takes every program with nonnegative pairs."""
        return self._chosen.refuses(source)

    def apply(self, source: Program) -> Program:
        """The program with binaries ``z`` and their indicators."""
        self._done, self._width = self._chosen.of(source), len(source.columns)
        binaries = [Variable(f"z[{source.columns[i].name}]", 0.0, 1.0, integer=True) for i, _ in self._done]
        indicators = tuple(
            entry for z, (i, j) in enumerate(self._done, self._width) for entry in ((z, 1, i), (z, 0, j))
        )
        return replace(
            source,
            columns=append_columns(source.columns, binaries),
            complementarities=self._chosen.rest(source),
            indicators=source.indicators + indicators,
        )

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop the binaries."""
        return values[: self._width]

    def extend(self, values: np.ndarray) -> np.ndarray:
        """A point of the source with the binaries that go with it."""
        return np.concatenate([values, [float(values[i] <= values[j]) for i, j in self._done]])
