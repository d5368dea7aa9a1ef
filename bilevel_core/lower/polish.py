"""Making a lower-level answer exact: Newton's method on the optimality conditions with the active set held fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_core.lower.multipliers import ACTIVE, Multipliers, multipliers, row_scales
from bilevel_core.oracles import NonFiniteError, Oracle

STEPS = 6
SHARP, LINEAR = 1e-9, 60
"""Newton steps up to the first, relative to y (at least 1), end `sharpen`; as do so many of them."""


@dataclass(frozen=True)
class ActiveSet:
    """Masks: inequality rows that hold with equality, and components of y at their bounds."""

    rows: np.ndarray
    at_lower: np.ndarray
    at_upper: np.ndarray


def strongly_active(found: Multipliers, gradient_scale: float) -> ActiveSet:
    """The constraints whose multipliers are certainly positive, where one scale serves for all."""
    small = 1e-8 * max(1.0, gradient_scale)
    return ActiveSet(found.inequality > small, found.at_lower > small, found.at_upper > small)


def polish(
    oracle: Oracle, x: np.ndarray, y: np.ndarray, found: Multipliers, active: ActiveSet, tolerance: float
) -> tuple[np.ndarray, Multipliers]:
    """Newton steps from ``y`` with ``active`` held at equality; the better of the two points, with its multipliers.

    Better is judged by `fault`, so a wrong active set costs a few small linear solves and does no harm. Source: the
    last phase of active-set methods (Nocedal and Wright 2006, chapter 18).

    Args:
        oracle: the problem, of any kind: y is handed over and back as a NumPy array.
        x: upper variables, shape (nx,).
        y: the answer so far, shape (ny,).
        found: its multipliers.
        active: what to hold at equality.
        tolerance: stop when the `fault` is at most this.
    """
    best, best_found, best_fault = y, found, fault(oracle, x, y, found)
    lam, mu = found.inequality, found.equality
    current = y
    for _ in range(STEPS):
        if best_fault <= tolerance:
            break
        try:
            current, lam, mu = _newton(oracle, x, current, lam, mu, active)
            trial = np.clip(current, oracle.y_lower, oracle.y_upper)
            trial_found = multipliers(oracle, x, oracle.from_numpy(trial), ACTIVE)
            trial_fault = fault(oracle, x, trial, trial_found)
        except (NonFiniteError, np.linalg.LinAlgError):
            break
        if trial_fault < best_fault:
            best, best_found, best_fault = trial, trial_found, trial_fault
    return best, best_found


def sharpen(
    oracle: Oracle, x: np.ndarray, y: np.ndarray, found: Multipliers, active: ActiveSet
) -> tuple[np.ndarray, Multipliers]:
    """Newton steps from ``y`` for as long as they are longer than rounding, however small the gradient is already.

    Where curvature vanishes at the answer, as in ``(y - x)^4``, a gradient of 1e-10 leaves an error of 1e-3 in y. There
    Newton's steps shrink by a constant factor, and their sum is that of a geometric series. Source: Ortega and
    Rheinboldt (1970), chapter 10, for roots of higher order.

    Args:
        oracle, x, y, found, active: see `polish`.

    Returns:
        The last point whose optimality conditions hold no worse than those of the point before, with its multipliers.
    """
    lam, mu = found.inequality, found.equality
    size, worst = SHARP * max(1.0, float(np.abs(y).max(initial=0.0))), fault(oracle, x, y, found)
    before: np.ndarray | None = None
    for _ in range(LINEAR):
        try:
            there, lam, mu = _newton(oracle, x, y, lam, mu, active)
            step = there - y
            if not size < float(np.abs(step).max(initial=0.0)) < np.inf:
                break
            ratio = 0.0 if before is None else float(step @ before) / float(before @ before)
            if (
                before is not None
                and 0.3 < ratio < 0.9
                and np.linalg.norm(step - ratio * before) < 0.05 * np.linalg.norm(step)
            ):
                step = step / (1.0 - ratio)
            trial = np.clip(y + step, oracle.y_lower, oracle.y_upper)
            trial_found = multipliers(oracle, x, oracle.from_numpy(trial), ACTIVE)
            trial_fault = fault(oracle, x, trial, trial_found)
        except (NonFiniteError, np.linalg.LinAlgError):
            break
        if not trial_fault < worst:
            break
        y, found, worst, before = trial, trial_found, trial_fault, there - y
    return y, found


def fault(oracle: Oracle, x: np.ndarray, y: np.ndarray, found: Multipliers) -> float:
    """How far a point is from satisfying the optimality conditions: the largest of the Lagrangian gradient's norm, the
    rows' relative violation, and the products of multipliers and slacks.
    """
    worst = found.residual
    if not oracle.has_lower_rows:
        return worst
    rows = oracle.lower_rows(x, oracle.from_numpy(y), jacobian=True)
    g_excess = np.maximum(rows.g, 0.0) / row_scales(rows.g_y, y)
    h_excess = np.abs(rows.h) / row_scales(rows.h_y, y)
    products = np.abs(found.inequality * rows.g)
    return max(
        worst, float(g_excess.max(initial=0.0)), float(h_excess.max(initial=0.0)), float(products.max(initial=0))
    )


def _newton(
    oracle: Oracle, x: np.ndarray, y: np.ndarray, lam: np.ndarray, mu: np.ndarray, active: ActiveSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    point = oracle.from_numpy(y)
    rows = oracle.lower_rows(x, point, jacobian=True)
    assert rows.g_y is not None
    assert rows.h_y is not None
    gradient = oracle.to_numpy(oracle.lower_gradient(x, point)[1])
    hessian = oracle.curvature(x, point, lam, mu).dense()
    unit = np.eye(len(y))
    low, up = np.flatnonzero(active.at_lower), np.flatnonzero(active.at_upper)
    jacobian = np.vstack([rows.g_y[active.rows], rows.h_y, unit[low], unit[up]])
    values = np.concatenate([rows.g[active.rows], rows.h, y[low] - oracle.y_lower[low], y[up] - oracle.y_upper[up]])
    n, m = len(y), len(values)
    system = np.block([[hessian, jacobian.T], [jacobian, np.zeros((m, m))]])
    # Least squares, since dependent active constraints and flat directions make the system singular.
    step = np.linalg.lstsq(system, -np.concatenate([gradient, values]), rcond=1e-13)[0]
    new_lam = np.zeros(len(lam))
    count = int(active.rows.sum())
    new_lam[active.rows] = step[n : n + count]
    return y + step[:n], new_lam, step[n + count : n + count + len(mu)]
