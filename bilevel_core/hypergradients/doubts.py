"""Whether the point that a hypergradient is taken at is an answer of the lower level, as far as that can be told."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bilevel_core.hypergradients.active import distances_scale
from bilevel_core.lower import Response
from bilevel_core.lower.base import own_bounds
from bilevel_core.oracles import Oracle, Rows, Vector, norm

FAR = 1e-3
"""A distance from the answer above this, relative to y, makes a hypergradient doubtful."""
BIASED = 1e-2
"""So does an estimated error of F above this, relative to what a move of y by its own size changes."""
SURELY_NEAR = 1e-7
"""Where a cheap estimate of the distance is below this, no better one is made."""
ROUNDING = 1e-13
"""Nor where a move of y by its own size would change f by no more than this share."""
VIOLATED = 1e-5
"""A constraint violated by more than this, relative to y (at least 1), is not satisfied."""
KINK = (
    "A lower constraint is active with a zero multiplier: the follower's reaction has a kink there, and this is the "
    "derivative to one side of it only (strict=False)."
)


def doubts(
    oracle: Oracle,
    x: np.ndarray,
    response: Response,
    product: Callable[[Vector], Vector],
    *,
    met: float = 0.0,
    upper_y: Vector | None = None,
    rows: Rows | None = None,
    bias: float = math.nan,
) -> str:
    """What speaks against taking a point for the lower level's answer, in sentences; empty for nothing.

    All is relative to the terms at hand, so that multiplying F, f or a constraint by a factor changes nothing.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        response: the point.
        product: products with the lower Hessian there, or differences that stand for them; used once at most.
        met: a curvature of the lower level in some direction, for a first idea of the distance; 0 for none.
        upper_y: the gradient of F by y.
        rows: the lower rows with Jacobians, where there are any.
        bias: the estimated error of F.
    """
    messages: list[str] = []
    violation, name = _violation(oracle, response, rows)
    if violation > VIOLATED:
        messages.append(
            f"y violates the lower level's {name} (by {violation:.2g}, relative to y): it is no answer of the "
            "follower, and the hypergradient may even have the wrong sign."
        )
    size = max(norm(response.y), oracle.precision**0.25)
    far = _distance(oracle, x, response, product, met, size) > FAR * size
    biased = upper_y is not None and abs(bias) > BIASED * norm(upper_y) * size
    if far or biased:
        off = "" if math.isnan(bias) else f", upper objective off by about {abs(bias):.2g}"
        messages.append(
            f"y is far from the follower's answer (lower gradient norm {response.residual:.2g}{off}): there the "
            "hypergradient may even have the wrong sign. Solve the lower level further."
        )
    return " ".join(messages)


def difference_product(oracle: Oracle, x: np.ndarray, y: Vector) -> Callable[[Vector], Vector]:
    """Products with the Hessian of f by a difference of gradients, for modes that do without second derivatives."""

    def product(v: Vector) -> Vector:
        step = math.sqrt(oracle.precision) * (1.0 + norm(y)) / norm(v)
        # Against the gradient: it is where the follower would go, so f is likely to be defined there.
        return (oracle.lower_gradient(x, y)[1] - oracle.lower_gradient(x, y - step * v)[1]) / step

    return product


def _distance(
    oracle: Oracle, x: np.ndarray, response: Response, product: Callable[[Vector], Vector], met: float, size: float
) -> float:
    """About how far y is from where the Lagrangian's gradient vanishes: a lower estimate, that of steepest descent."""
    residual = response.residual
    if residual <= SURELY_NEAR * met * size or residual * size <= ROUNDING * abs(response.value):
        return 0.0
    terms = 0.0
    if oracle.lower_constrained:
        # Constraints balance the objective's gradient, so that it is one of the terms.
        terms = norm(oracle.lower_gradient(x, response.y)[1])
        if residual <= SURELY_NEAR * terms:
            return 0.0
    gradient = response.details.get("gradient")
    curvature = met or terms / size
    if gradient is not None:
        curvature = norm(product(gradient)) / norm(gradient)
    return residual / curvature if curvature > 0.0 else math.inf


def _violation(oracle: Oracle, response: Response, rows: Rows | None) -> tuple[float, str]:
    """The largest violation of rows and bounds as a distance relative to y (at least 1), and what is violated."""
    worst, name = 0.0, ""
    point = oracle.to_numpy(response.y) if oracle.lower_constrained else np.zeros(0)
    if rows is not None:
        for values, jacobian, names in (
            (np.maximum(rows.g, 0.0), rows.g_y, rows.g_names),
            (np.abs(rows.h), rows.h_y, rows.h_names),
        ):
            assert jacobian is not None
            if values.size:
                scale = distances_scale(jacobian, point)
                relative = values / np.where(scale > 0.0, scale, 1.0)
                k = int(relative.argmax())
                if relative[k] > worst:
                    worst, name = float(relative[k]), f"constraint {names[k]}"
    if oracle.has_lower_bounds:
        low, high = own_bounds(oracle)
        relative = np.maximum(low - point, point - high) / np.maximum(1.0, np.abs(point))
        k = int(relative.argmax())
        if relative[k] > worst:
            worst, name = float(relative[k]), f"bounds in component {k} of y"
    return worst, name
