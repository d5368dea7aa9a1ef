"""Looking for evidence that a follower with nonlinear terms is nonconvex: negative curvature at sampled points.

What is found refutes convexity; what is not found proves nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_core.errors import RefusedError
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.program import positive_semidefinite

SAMPLES = 32
ROWS = 20
"""Most inequality rows whose curvature is looked at."""


def refuse_nonconvex(oracle: Oracle, seed: int) -> None:
    """Refuse a lower level whose objective, or one of whose inequalities, is seen to be nonconvex in y.

    Points are drawn uniformly in the bounds, where both are finite, else around the starting points.

    Raises:
        RefusedError: negative curvature at a point.
    """
    rng = np.random.default_rng([seed, 1992])
    start = oracle.to_numpy(oracle.y_start())
    rows = 0 if not oracle.has_lower_rows else len(oracle.lower_rows(oracle.x_start, oracle.y_start()).g)
    for _ in range(SAMPLES):
        x = _draw(rng, oracle.x_start, oracle.x_lower, oracle.x_upper)
        y = oracle.from_numpy(_draw(rng, start, oracle.y_lower, oracle.y_upper))
        objective = _hessian(oracle, x, y)
        if objective is None:
            continue
        if not positive_semidefinite(objective):
            _refuse("the objective", x, y)
        for k in range(min(rows, ROWS)):
            with_row = _hessian(oracle, x, y, np.eye(rows)[k])
            if with_row is not None and not positive_semidefinite(_difference(with_row, objective)):
                _refuse(f"the constraint {_name(oracle, x, y, k)}", x, y)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b without the rounding of their sum."""
    out = a - b
    return np.where(np.abs(out) <= 1e-12 * max(1.0, float(np.abs(b).max(initial=0.0))), 0.0, out)


def _hessian(oracle: Oracle, x: np.ndarray, y: Any, inequality: np.ndarray | None = None) -> np.ndarray | None:
    try:
        return oracle.curvature(x, y, inequality).dense()
    except NonFiniteError:
        return None  # outside the domain of a logarithm, say


def _draw(rng: np.random.Generator, start: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    reach = np.maximum(1.0, np.abs(start))
    low = np.where(np.isfinite(lower) & np.isfinite(upper), lower, np.maximum(lower, start - reach))
    high = np.where(np.isfinite(lower) & np.isfinite(upper), upper, np.minimum(upper, start + reach))
    return rng.uniform(low, np.maximum(low, high))


def _name(oracle: Oracle, x: np.ndarray, y: Any, k: int) -> str:
    names = oracle.lower_rows(x, y).g_names
    return repr(names[k]) if names else f"number {k + 1}"


def _refuse(what: str, x: np.ndarray, y: Any) -> None:
    raise RefusedError(
        f"The lower level is nonconvex: {what} has negative curvature at x = {np.round(x, 4).tolist()}, "
        f"y = {np.round(np.asarray(y), 4).tolist()}, so that the penalty solver's conditions do not make an answer "
        "optimal. Use a global solver for nonconvex followers."
    )
