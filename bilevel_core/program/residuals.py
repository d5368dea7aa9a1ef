"""The largest violation of a program at a point, over all its constraints at once.

Programs are asked for it many times with thousands of rows, so what is linear or quadratic is kept as flat arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.program.function import Function

if TYPE_CHECKING:
    from bilevel_core.program.program import Program, Row


@dataclass(frozen=True)
class Polynomials:
    """Values and scales of many functions of degree two at most.

    Attributes:
        constants: one a function, shape (m,).
        row, column, coefficient: of the linear terms, flat.
        pair_row, first, second, pair_coefficient: of the quadratic terms, flat.
    """

    constants: np.ndarray
    row: np.ndarray
    column: np.ndarray
    coefficient: np.ndarray
    pair_row: np.ndarray
    first: np.ndarray
    second: np.ndarray
    pair_coefficient: np.ndarray

    @classmethod
    def of(cls, functions: Sequence[Function]) -> Polynomials:
        """The flat form of functions without nonlinear terms."""
        terms = [(k, i, c) for k, f in enumerate(functions) for i, c in f.linear.items()]
        pairs = [(k, i, j, c) for k, f in enumerate(functions) for (i, j), c in f.quadratic.items()]

        def whole(position: int, rows: Sequence[tuple[float, ...]]) -> np.ndarray:
            return np.array([r[position] for r in rows], dtype=np.int64)

        return cls(
            np.array([f.constant for f in functions]),
            whole(0, terms),
            whole(1, terms),
            np.array([t[2] for t in terms], dtype=float),
            whole(0, pairs),
            whole(1, pairs),
            whole(2, pairs),
            np.array([p[3] for p in pairs], dtype=float),
        )

    def evaluate(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The functions' values at a point, and the size of their largest term there, at least 1; shapes (m,)."""
        m = len(self.constants)
        linear = self.coefficient * values[self.column]
        pairs = self.pair_coefficient * values[self.first] * values[self.second]
        sums = np.bincount(self.row, linear, m) + np.bincount(self.pair_row, pairs, m)
        scale = np.maximum(1.0, np.abs(self.constants))
        np.maximum.at(scale, self.row, np.abs(linear))
        np.maximum.at(scale, self.pair_row, np.abs(pairs))
        return self.constants + sums, scale


class Residuals:
    """How far a point is from satisfying a program; see `Program.violation`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._lower = np.array([c.lower for c in program.columns], dtype=float)
        self._upper = np.array([c.upper for c in program.columns], dtype=float)
        self._integer = np.array([c.integer for c in program.columns], dtype=bool)
        flat = [r for r in program.rows if r.function.nonlinear is None]
        self._flat = Polynomials.of([r.function for r in flat])
        self._ends = np.array([r.lower for r in flat], dtype=float), np.array([r.upper for r in flat], dtype=float)
        self._curved: list[Row] = [r for r in program.rows if r.function.nonlinear is not None]
        self._pairs = np.array(program.complementarities, dtype=np.int64).reshape(-1, 2)

    def largest(self, values: np.ndarray) -> float:
        """The largest violation of bounds, rows, integrality, pairs, sets and indicators; of rows relative to scale."""
        program, values = self._program, np.asarray(values, dtype=float)
        if np.isnan(values).any():
            return math.inf
        scale = np.maximum(1.0, np.abs(values))
        worst = [(self._lower - values) / scale, (values - self._upper) / scale]
        worst.append(np.abs(values - np.round(values))[self._integer])
        function, terms = self._flat.evaluate(values)
        worst += [(self._ends[0] - function) / terms, (function - self._ends[1]) / terms]
        worst.append(np.minimum(np.abs(values[self._pairs[:, 0]]), np.abs(values[self._pairs[:, 1]])))
        rest = [0.0, *(float(part.max(initial=0.0)) for part in worst)]
        for row in self._curved:
            v = row.violation(values)
            rest.append(math.inf if math.isnan(v) else v / row.function.scale(values))
        for group in program.sos1:
            rest.append(sorted((abs(float(values[i])) for i in group), reverse=True)[1] if len(group) > 1 else 0.0)
        rest += [float(values[k]) for z, value, k in program.indicators if round(float(values[z])) == value]
        largest = max(rest)
        return math.inf if any(math.isnan(r) for r in rest) else largest
