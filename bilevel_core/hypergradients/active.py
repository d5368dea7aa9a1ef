"""Which lower constraints are active at an answer, and which of them the follower really pushes against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_core.lower import Response
from bilevel_core.lower.base import own_bounds
from bilevel_core.oracles import Curvature, Oracle, Rows

WEAK = 1e-7
"""A constraint that pushes with up to this share of the gradient's terms counts as weakly active."""
ROUNDING = 1e-15
"""So does one with up to this share of the largest of all terms: least squares leave as much."""
ACTIVE = 1e-6
"""A constraint this near to its bound is active, relative to y (at least 1)."""


@dataclass(frozen=True)
class ActiveSet:
    """Which lower constraints are active at an answer.

    Attributes:
        strong, weak: masks over the inequality rows: active with a positive, with a zero multiplier.
        fixed: mask over y: at a bound with a positive multiplier.
        weak_bounds: mask over y: at a bound with a zero multiplier.
    """

    strong: np.ndarray
    weak: np.ndarray
    fixed: np.ndarray
    weak_bounds: np.ndarray

    @property
    def strict(self) -> bool:
        """Whether every active constraint has a positive multiplier."""
        return not (self.weak.any() or self.weak_bounds.any())


def active_set(oracle: Oracle, x: np.ndarray, response: Response, rows: Rows | None, curvature: Curvature) -> ActiveSet:
    """Classify the lower constraints at an answer by slack and multiplier.

    A multiplier is positive or not by the force that it stands for, multiplier times row gradient, against the terms
    of the lower gradient in the variables that it acts on: rows and followers may be scaled by any factors.
    """
    ny = oracle.ny
    point = oracle.to_numpy(response.y)
    strong = weak = np.zeros(0, dtype=bool)
    candidates = False
    near, loosely = strong, strong
    if rows is not None and rows.g.size:
        assert rows.g_y is not None
        sizes = distances_scale(rows.g_y, point)
        near = rows.g >= -ACTIVE * sizes
        # Whoever found the multipliers may have judged rows with small gradients by a coarser measure.
        loosely = rows.g >= -ACTIVE * np.maximum(1.0, sizes)
        candidates = bool((near | (loosely & (response.inequality > 0.0))).any())
    fixed = weak_bounds = at = np.zeros(ny, dtype=bool)
    low, high = oracle.y_lower, oracle.y_upper
    if oracle.has_lower_bounds:
        low, high = own_bounds(oracle)
        room = ACTIVE * np.maximum(1.0, np.abs(point))
        at = (point - low <= room) | (high - point <= room)
        candidates = candidates or bool(at.any())
    least = _least_force(oracle, x, response, rows, curvature, point) if candidates else np.zeros(ny)
    if rows is not None and rows.g.size:
        assert rows.g_y is not None
        force = response.inequality[:, None] * np.abs(rows.g_y)
        strong = loosely & (force > least).any(axis=1)
        weak = near & ~strong
    if oracle.has_lower_bounds:
        # A variable that its bounds leave no room moves in no case.
        fixed = at & ((np.maximum(*_at_bounds(response, ny)) > least) | (low == high))
        weak_bounds = at & ~fixed
    return ActiveSet(strong, weak, fixed, weak_bounds)


def distances_scale(jacobian: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What turns a row's value into a distance relative to y (at least 1): shape (m,) from (m, ny)."""
    return (np.abs(jacobian) * np.maximum(1.0, np.abs(y))).max(axis=1, initial=0.0)


def _at_bounds(response: Response, ny: int) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.zeros(ny) if response.at_lower is None else response.at_lower,
        np.zeros(ny) if response.at_upper is None else response.at_upper,
    )


def _least_force(
    oracle: Oracle, x: np.ndarray, response: Response, rows: Rows | None, curvature: Curvature, point: np.ndarray
) -> np.ndarray:
    """The force from which on a constraint pushes beyond doubt, by component of y.

    The terms that cancel in the gradient at the answer: the objective's part, the constraints' parts, and what a move
    of y or x by its own size (at least 1) changes, from one product each along a random direction.
    """
    rng = np.random.default_rng(0)
    along_y = rng.normal(size=oracle.ny) * np.maximum(1.0, np.abs(point))
    along_x = rng.normal(size=oracle.nx) * np.maximum(1.0, np.abs(x))
    parts = [
        oracle.to_numpy(oracle.lower_gradient(x, response.y)[1]),
        oracle.to_numpy(curvature.product(oracle.from_numpy(along_y))),
        oracle.to_numpy(curvature.mixed_y(along_x)),
        *_at_bounds(response, oracle.ny),
    ]
    if rows is not None:
        assert rows.g_y is not None
        assert rows.h_y is not None
        parts += [*(response.inequality[:, None] * rows.g_y), *(response.equality[:, None] * rows.h_y)]
    terms = np.abs(np.stack(parts)).max(axis=0)
    share = max(WEAK, 100.0 * oracle.precision)
    return np.maximum(share * terms, ROUNDING * float(terms.max(initial=0.0)))
