"""Descent on a function that is smooth in pieces: Newton steps within a radius, kinks met by keeping pieces.

The model at a point is the largest of several quadratics: that of the piece the point is on, and those of pieces met at
points nearby. So a step across a kink that fails is not repeated half as long over and over: the piece behind the kink
becomes part of the model, whose minimum lies on the kink.

Good at: a few dozen variables with bounds, where values are dear and second derivatives come with them. Bad at: kinks
where the function is the smaller of two pieces, of which it sees one; further starts are the remedy.

Source: Luksan and Vlcek (1998), A bundle-Newton method for nonsmooth unconstrained minimization, Mathematical
Programming 83; with a radius in place of their line search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

FIRST, LAST = 0.1, 1e-5
"""Radius at first and at the end, as shares of the variables' ranges."""
NEAR = 4.0
"""Pieces met at points up to so many radii away are part of the model."""
PIECES = 12
"""At most so many of them, the latest."""
LONGER, SHORTER = 0.75, 0.1
"""The radius grows when so much of the decrease foreseen came true, and falls when no more than this."""


@dataclass(frozen=True)
class Piece:
    """The function around a point: its value, gradient (n,) and Hessian (n, n) there."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def descend(
    around: Callable[[np.ndarray], Piece],
    x: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    tolerance: float = 1e-10,
    steps: int = 100,
) -> Piece:
    """Go downhill from a point.

    Args:
        around: the function; its value may be infinite where there is none.
        x: start, shape (n,), within the bounds.
        lower, upper: bounds, shape (n,).
        tolerance: ends when no more than this share of the value can be gained by the model.
        steps: most evaluations after the first.

    Returns:
        The piece around the best point.
    """
    size = upper - lower
    here, pieces, radius = around(x), list[Piece](), FIRST
    if not np.isfinite(here.value):
        return here
    taken = 0
    while taken < steps and radius >= LAST:
        near = [p for p in pieces if np.abs((p.x - here.x) / size).max() <= NEAR * radius][-PIECES:]
        move, gain = _step(here, near, lower, upper, radius * size)
        if gain <= tolerance * abs(here.value):
            # A minimum of the model. With the piece of this point alone it may lead further, in a smaller circle.
            if not near:
                break
            pieces, radius = [], 0.25 * radius
            continue
        there = around(here.x + move)
        taken += 1
        share = (here.value - there.value) / gain
        length = float(np.abs(move / size).max())
        if share > LONGER and length > 0.9 * radius:
            radius *= 2.0
        elif not share > SHORTER:
            radius = min(radius, length) * (0.5 if share > -1.0 else 0.25)
        if there.value < here.value:
            pieces.append(here)
            here = there
        elif np.isfinite(there.value):
            pieces.append(there)
    return here


def _step(
    here: Piece, near: list[Piece], lower: np.ndarray, upper: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, float]:
    """The model's minimum within the radius, by sequential quadratic programming, and the decrease it foresees."""
    n = len(here.x)
    models = [(0.0, here.gradient, here.hessian)]
    for p in near:
        gap = here.x - p.x
        value = p.value + p.gradient @ gap + 0.5 * gap @ p.hessian @ gap - here.value
        # A piece that is above the function here is no part of a maximum: lowered to touch it, it bounds the step only.
        models.append((min(float(value), 0.0), p.gradient + p.hessian @ gap, p.hessian))
    scale = max(float(np.abs(here.gradient * radius).max()), 1e-300)
    scaled = [(c / scale, g * radius / scale, h * np.outer(radius, radius) / scale) for c, g, h in models]
    last = np.zeros(n + 1)
    last[-1] = 1.0

    def slack(z: np.ndarray) -> np.ndarray:
        return np.array([z[-1] - (c + g @ z[:-1] + 0.5 * z[:-1] @ h @ z[:-1]) for c, g, h in scaled])

    def slopes(z: np.ndarray) -> np.ndarray:
        return np.array([np.append(-(g + h @ z[:-1]), 1.0) for _, g, h in scaled])

    low = np.maximum((lower - here.x) / radius, -1.0)
    high = np.minimum((upper - here.x) / radius, 1.0)
    found: Any = minimize(
        lambda z: (z[-1], last),
        np.zeros(n + 1),
        jac=True,
        method="SLSQP",
        bounds=[*zip(low, high, strict=True), (None, None)],
        constraints=[{"type": "ineq", "fun": slack, "jac": slopes}],
        options={"maxiter": 100, "ftol": 1e-10},
    )
    move = np.clip(np.nan_to_num(found.x[:-1]), low, high)
    value = max(float(c + g @ move + 0.5 * move @ h @ move) for c, g, h in scaled)
    return move * radius, -value * scale


def positive(matrix: np.ndarray) -> np.ndarray:
    """A symmetric matrix with its eigenvalues made positive."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    least = max(1e-8 * float(np.abs(values).max()), 1e-300)
    return (vectors * np.maximum(np.abs(values), least)) @ vectors.T
