"""Curvature at answers where it vanishes, as in ``(y + x - 1)^4``: how the answer moves with x is then a limit.

At the answer itself both L_yy and L_yx are zero, and the derivative of the answer, -L_yy^-1 L_yx, is 0/0. A little off
the answer both are positive and of the same size, and their quotient tends to the derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_core.oracles.base import Curvature, NonFiniteError, Vector

DISTANCE = 1e-3
"""How far off the answer curvature is looked for, relative to y (at least 1)."""
VANISHED = 10.0
"""Curvature along a direction that grows by more than this factor over that distance counts as vanished."""
LARGEST = 20
"""Lower variables up to which it is looked for: in each eigenvector's direction."""


def answer_curvature(
    oracle: Any, x: np.ndarray, y: Vector, inequality: np.ndarray | None, equality: np.ndarray | None
) -> Curvature:
    """Second derivatives of the lower level's Lagrangian at an answer; where they vanish along some direction, the mean
    of those at two points a little off to both sides along it.

    The mean of the two keeps what is odd from counting (y^3 has no curvature at 0, and no minimum), and the sign of
    what is even (-y^4).

    Args:
        oracle: an algebraic problem's; others keep their curvature as it is.
        x, y, inequality, equality: the answer and its multipliers.

    Raises:
        NonFiniteError: a derivative is not finite at the answer.
    """
    here: Curvature = oracle.curvature(x, y, inequality, equality)
    if oracle.form != "algebraic" or not 0 < oracle.ny <= LARGEST or not _bends(oracle):
        return here
    yy, point = here.dense(), oracle.to_numpy(y)
    distance = DISTANCE * max(1.0, float(np.abs(point).max()))
    values, vectors = np.linalg.eigh(0.5 * (yy + yy.T))
    off: list[Curvature] = []
    for value, v in zip(values, vectors.T, strict=True):
        try:
            pair = [oracle.curvature(x, point + s * distance * v, inequality, equality) for s in (1.0, -1.0)]
            near = 0.5 * sum(float(v @ c.dense() @ v) for c in pair)
        except NonFiniteError:
            continue
        if np.isfinite(near) and abs(near) > VANISHED * abs(value):
            off += pair
    return _Mean(oracle, off) if off else here


def _bends(oracle: Any) -> bool:
    """Whether curvature depends on y at all."""
    levels = oracle.program.followers
    return any(g.degree > 2 for f in levels for g in (f.objective, *(r.function for r in f.rows)))


class _Mean(Curvature):
    """The mean of several."""

    def __init__(self, oracle: Any, parts: list[Curvature]) -> None:
        self._oracle = oracle
        self._yy = np.mean([c.dense() for c in parts], axis=0)
        self._yx = np.mean([c.dense_mixed() for c in parts], axis=0)

    def product(self, v: Vector) -> np.ndarray:
        """See `Curvature.product`."""
        self._oracle.counts["hessian_products"] += 1
        return self._yy @ v

    def mixed_x(self, q: Vector) -> np.ndarray:
        """See `Curvature.mixed_x`."""
        self._oracle.counts["mixed_products"] += 1
        return self._yx.T @ q

    def mixed_y(self, d: np.ndarray) -> np.ndarray:
        """See `Curvature.mixed_y`."""
        self._oracle.counts["mixed_products"] += 1
        return self._yx @ d

    def dense(self) -> np.ndarray:
        """See `Curvature.dense`."""
        return self._yy.copy()

    def dense_mixed(self) -> np.ndarray:
        """See `Curvature.dense_mixed`."""
        return self._yx.copy()
