"""Multipliers of a lower-level answer, from the point alone: bounded least squares on the Lagrangian's gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bilevel_core.oracles import Oracle, Rows, Vector

ACTIVE = 1e-7
"""How near to its bound a row counts as active, in units of its scale (see `row_scales`)."""


class Multipliers(NamedTuple):
    """Multipliers of the lower level at a point.

    Attributes:
        inequality, equality: of ``g <= 0`` (nonnegative), shape (m,), and of ``h = 0``, shape (p,).
        at_lower, at_upper: of the bounds on y (nonnegative), shape (ny,).
        residual: Euclidean norm of the Lagrangian's gradient by y with these multipliers.
    """

    inequality: np.ndarray
    equality: np.ndarray
    at_lower: np.ndarray
    at_upper: np.ndarray
    residual: float


def multipliers(oracle: Oracle, x: np.ndarray, y: Vector, tolerance: float = ACTIVE) -> Multipliers:
    """Multipliers that make the Lagrangian's gradient by y as small as possible; zero for constraints not active.

    Where they are not unique (dependent active constraints) some are returned. Works for any oracle; dense linear
    algebra, so for up to a few hundred active rows.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        y: lower variables, a vector of the oracle's kind.
        tolerance: how near to its bound a constraint counts as active, relative to its scale.

    Raises:
        NonFiniteError: a value or derivative is not finite.
    """
    point = oracle.to_numpy(y)
    gradient = oracle.to_numpy(oracle.lower_gradient(x, y)[1])
    if not oracle.lower_constrained:
        return Multipliers(
            np.zeros(0), np.zeros(0), np.zeros(oracle.ny), np.zeros(oracle.ny), float(np.linalg.norm(gradient))
        )
    rows = oracle.lower_rows(x, y, jacobian=True)
    active = rows.g >= -tolerance * row_scales(rows.g_y, point)
    near = tolerance * np.maximum(1.0, np.abs(point))
    at_lower, at_upper = point - oracle.y_lower <= near, oracle.y_upper - point <= near
    return fit(gradient, rows, active, at_lower, at_upper)


def row_scales(jacobian: np.ndarray | None, y: np.ndarray) -> np.ndarray:
    """What a row's value is relative to: its largest first-order term, or its change over a unit step, at least 1."""
    assert jacobian is not None
    if jacobian.size == 0:
        return np.ones(jacobian.shape[0])
    return np.maximum(1.0, (np.abs(jacobian) * np.maximum(1.0, np.abs(y))).max(axis=1))


def fit(
    gradient: np.ndarray, rows: Rows, active: np.ndarray, at_lower: np.ndarray, at_upper: np.ndarray
) -> Multipliers:
    """The least-squares multipliers for a given active set: masks over g, and over y at its two bounds."""
    assert rows.g_y is not None
    assert rows.h_y is not None
    inequality = np.zeros(len(rows.g))
    free = ~(at_lower | at_upper)
    # First with the components of y that are off their bounds: cheap, and decides where nothing is degenerate. The
    # multipliers of bounds then are what is left of the gradient.
    lam, equality = _signed(gradient[free], rows.g_y[active][:, free], rows.h_y[:, free])
    inequality[active] = lam
    rest = gradient + rows.g_y.T @ inequality + rows.h_y.T @ equality
    if ((rest[at_lower & ~at_upper] < 0.0).any() or (rest[at_upper & ~at_lower] > 0.0).any()) and (
        active.any() or len(rows.h)
    ):
        low, up = np.flatnonzero(at_lower), np.flatnonzero(at_upper)
        unit = np.eye(len(gradient))
        all_rows = np.vstack([rows.g_y[active], -unit[low], unit[up]])
        lam, equality = _signed(gradient, all_rows, rows.h_y)
        inequality[active] = lam[: int(active.sum())]
        rest = gradient + rows.g_y.T @ inequality + rows.h_y.T @ equality
    lower, upper = np.where(at_lower, np.maximum(rest, 0.0), 0.0), np.where(at_upper, np.maximum(-rest, 0.0), 0.0)
    return Multipliers(inequality, equality, lower, upper, float(np.linalg.norm(rest - lower + upper)))


def _signed(gradient: np.ndarray, g: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimise ``|gradient + g' lam + h' mu|`` over lam >= 0 and free mu. The rows are scaled to unit length."""
    lam, mu = np.zeros(len(g)), np.zeros(len(h))
    g_size, h_size = _lengths(g), _lengths(h)
    g, h = g / g_size[:, None], h / h_size[:, None]
    if len(h):
        # mu is eliminated: what matters is the part of gradient and rows outside the span of h.
        _, s, vt = np.linalg.svd(h, full_matrices=False)
        basis = vt[s > 1e-12 * max(1.0, float(s.max(initial=0.0)))]
        outside, g_outside = gradient - basis.T @ (basis @ gradient), g - (g @ basis.T) @ basis
    else:
        outside, g_outside = gradient, g
    if len(g) and len(gradient):
        lam = _nonnegative(g_outside.T, -outside)
    if len(h) and len(gradient):
        mu = np.linalg.lstsq(h.T, -(gradient + g.T @ lam), rcond=None)[0]
    return lam / g_size, mu / h_size


def _nonnegative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    from scipy.optimize import lsq_linear, nnls

    try:
        found: np.ndarray = nnls(matrix, target)[0]
    except RuntimeError:  # its iteration limit
        found = lsq_linear(matrix, target, bounds=(0.0, np.inf), tol=1e-12).x
    return found


def _lengths(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1)
    return np.where(length > 0.0, length, 1.0)
