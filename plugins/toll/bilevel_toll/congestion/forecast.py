"""What tolls on further groups of arcs would bring, and what is lost without some: by derivatives at one point.

Source: Hassibi and Stork (1993), Second order derivatives for network pruning, for what is lost by dropping a variable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_toll.congestion.pieces import positive

Support = tuple[int, ...]
"""Which groups of arcs are tolled."""
AHEAD = 0.25
"""A new toll is foreseen up to this share of the upper bound."""


@dataclass(frozen=True)
class Forecast:
    """The objective around a point, for all groups of arcs.

    Attributes:
        support: the groups that are tolled.
        point: tolls, shape (n,).
        gradient: there, shape (n,).
        rows: of the Hessian there, those of the support, shape (len(support), n); None where it is not known.
        diagonal: of the Hessian, shape (n,); None where it is not known.
        lower, upper: bounds of tolls, shape (n,).
    """

    support: Support
    point: np.ndarray
    gradient: np.ndarray
    rows: np.ndarray | None
    diagonal: np.ndarray | None
    lower: np.ndarray
    upper: np.ndarray

    def gains(self) -> tuple[np.ndarray, np.ndarray]:
        """What a toll on each other group would gain, and how high it would be, shape (n,) each."""
        cap = AHEAD * self.upper
        if self.rows is None or self.diagonal is None:
            toll = np.where(self.gradient < 0.0, cap, 0.0)
            gain = -self.gradient * toll
        else:
            bend = self.diagonal.copy()
            at, free = self._free()
            if free:
                inner = positive(self.rows[np.ix_(at, free)])
                mixed = self.rows[at]
                bend -= np.einsum("fn,fn->n", mixed, np.linalg.solve(inner, mixed))
            steep = np.maximum(-self.gradient, 0.0)
            newton = steep / np.where(bend > 0.0, bend, 1.0)
            toll = np.where(bend * cap > steep, newton, np.where(steep > 0.0, cap, 0.0))
            gain = steep * toll - 0.5 * bend * toll**2
        gain[list(self.support)] = -np.inf
        return gain, toll

    def losses(self) -> np.ndarray:
        """What would be lost without each group's toll, the other tolls following, shape (n,)."""
        loss = self.point.copy()
        if self.rows is not None and self.diagonal is not None:
            bend = np.maximum(self.diagonal, 0.0)
            at, free = self._free()
            if free:
                bend[free] = 1.0 / np.diag(np.linalg.inv(positive(self.rows[np.ix_(at, free)])))
            loss = -self.gradient * self.point + 0.5 * bend * self.point**2
        return loss

    def _free(self) -> tuple[list[int], list[int]]:
        """The groups of the support whose tolls are within their bounds: their rows, and their numbers."""
        at = [i for i, k in enumerate(self.support) if self.lower[k] < self.point[k] < self.upper[k]]
        return at, [self.support[i] for i in at]
