"""Looking for evidence that a follower with nonlinear terms is nonconvex: negative curvature at sampled points.

What is found refutes convexity; what is not found proves nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.program import positive_semidefinite

FEWEST, SAMPLES = 4, 32
SEED = 1992
WORK = 2e8
"""Multiplications, about, for each row: with more lower variables fewer points are looked at."""
ROWS = 20
"""Most inequality rows whose curvature is looked at."""


def nonconvexity(oracle: Oracle) -> str:
    """Where the objective of a lower level, or one of its inequalities, is seen to be nonconvex in y; "" where not.

    Points are drawn uniformly in the bounds, where both are finite, else around the starting points; always the same
    ones, so that what is said of a problem does not depend on a run's seed.
    """
    rng = np.random.default_rng(SEED)
    start = oracle.to_numpy(oracle.y_start())
    for _ in range(int(np.clip(WORK / max(1, oracle.ny) ** 3, FEWEST, SAMPLES))):
        x = _draw(rng, oracle.x_start, oracle.x_lower, oracle.x_upper)
        y = oracle.from_numpy(_draw(rng, start, oracle.y_lower, oracle.y_upper))
        try:
            names = _rows(oracle, x, y)
            objective = oracle.curvature(x, y).dense()
        except NonFiniteError:
            continue  # outside the domain of a logarithm, say
        if not positive_semidefinite(objective):
            return _said("the objective", x, y)
        for k, name in enumerate(names[:ROWS]):
            with_row = _hessian(oracle, x, y, np.eye(len(names))[k])
            if with_row is not None and not positive_semidefinite(_difference(with_row, objective)):
                return _said(f"the constraint {name}", x, y)
    return ""


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b without the rounding of their sum."""
    out = a - b
    return np.where(np.abs(out) <= 1e-12 * max(1.0, float(np.abs(b).max(initial=0.0))), 0.0, out)


def _hessian(oracle: Oracle, x: np.ndarray, y: Any, inequality: np.ndarray) -> np.ndarray | None:
    try:
        return oracle.curvature(x, y, inequality).dense()
    except NonFiniteError:
        return None


def _draw(rng: np.random.Generator, start: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    reach = np.maximum(1.0, np.abs(start))
    low = np.where(np.isfinite(lower) & np.isfinite(upper), lower, np.maximum(lower, start - reach))
    high = np.where(np.isfinite(lower) & np.isfinite(upper), upper, np.minimum(upper, start + reach))
    return rng.uniform(low, np.maximum(low, high))


def _rows(oracle: Oracle, x: np.ndarray, y: Any) -> list[str]:
    """What to call each inequality."""
    if not oracle.has_lower_rows:
        return []
    rows = oracle.lower_rows(x, y)
    return [repr(n) for n in rows.g_names] or [f"number {k + 1}" for k in range(len(rows.g))]


def _said(what: str, x: np.ndarray, y: Any) -> str:
    return (
        f"the lower level is nonconvex: {what} has negative curvature at x = {np.round(x, 4).tolist()}, "
        f"y = {np.round(np.asarray(y), 4).tolist()}, so points that satisfy its optimality conditions need not be "
        "optimal for it"
    )
