"""Hypergradients without a linear system: unrolled lower steps, one finite difference, none at all."""

from __future__ import annotations

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients.base import Hypergradient, HypergradientSettings
from bilevel_core.hypergradients.doubts import difference_product, doubts
from bilevel_core.linear import largest_eigenvalue
from bilevel_core.lower import Response
from bilevel_core.oracles import Oracle, Vector, norm

UNFINISHED = 1e-2
"""Unrolled steps after which more than this share of the adjoint is left have not reached the implicit derivative."""


def explicit(oracle: Oracle, x: np.ndarray, response: Response, settings: HypergradientSettings) -> Hypergradient:
    """The modes ``unroll``, ``finite-difference`` and ``first-order``.

    Raises:
        UsageError: the lower level has constraints.
    """
    if oracle.lower_constrained and settings.mode != "first-order":
        raise UsageError(
            f"Mode {settings.mode!r} takes no lower constraints or bounds: use 'cg', which follows the active set."
        )
    before = oracle.counts.copy()
    at = response
    if settings.mode == "unroll":
        value, upper, message, at = _unroll(oracle, x, response.y, settings)
    else:
        if settings.mode == "finite-difference":
            value, upper, message, met = _difference(oracle, x, response.y, settings)
        else:
            upper, value, _ = oracle.upper_gradients(x, response.y)
            met = 0.0
            message = "The follower's reaction is left out (first order)."
        if settings.examine:
            rows = oracle.lower_rows(x, response.y, jacobian=True) if oracle.has_lower_rows else None
            product = difference_product(oracle, x, response.y)
            message = " ".join(m for m in (message, doubts(oracle, x, response, product, met=met, rows=rows)) if m)
    counts = {k: n - before[k] for k, n in oracle.counts.items() if n > before[k]}
    return Hypergradient(value, np.nan, counts, upper, at.residual, message=message)


def step_length(oracle: Oracle, x: np.ndarray, y: Vector, settings: HypergradientSettings) -> float:
    """The step asked for, or 1 over the largest eigenvalue of the lower Hessian, estimated."""
    if settings.step is not None:
        return settings.step
    largest = largest_eigenvalue(oracle.curvature(x, y).product, y, settings.seed)
    return 1.0 / largest if largest > 0.0 else 1.0


def _met(step: float, settings: HypergradientSettings) -> float:
    """The curvature that a step length was made from; 0 where it was given."""
    return 1.0 / step if settings.step is None else 0.0


def _unroll(
    oracle: Oracle, x: np.ndarray, y: Vector, settings: HypergradientSettings
) -> tuple[np.ndarray, float, str, Response]:
    """Reverse mode through ``steps`` gradient steps from y, the last ``truncate`` of them.

    The steps' points are kept, their graphs are not: each is built again on the way back, so that memory is one vector
    a step. The last point but one, whose gradient is at hand, is looked at for how far the steps have come.

    Source: Maclaurin, Duvenaud, Adams (2015); truncated: Shaban et al. (2019).
    """
    step = step_length(oracle, x, y, settings)
    points, lower, gradient = [y], 0.0, y
    for _ in range(settings.steps):
        lower, gradient = oracle.lower_gradient(x, points[-1])
        points.append(points[-1] - step * gradient)
    upper, value, f_y = oracle.upper_gradients(x, points[-1])
    p = f_y
    back = settings.steps if settings.truncate is None else settings.truncate
    for k in range(settings.steps - 1, settings.steps - 1 - back, -1):
        curvature = oracle.curvature(x, points[k])
        value = value - step * curvature.mixed_x(p)
        p = p - step * curvature.product(p)
    none = np.zeros(0)
    last = Response(points[-2], lower, none, none, residual=norm(gradient), details={"gradient": gradient})
    message = ""
    if settings.examine:
        product = difference_product(oracle, x, last.y)
        message = doubts(oracle, x, last, product, met=_met(step, settings))
    if norm(p) > UNFINISHED * norm(f_y):
        message = (
            f"The steps hold the follower's reaction to a relative residual of {norm(p) / norm(f_y):.2g} only: take "
            f"more, or use cg. {message}"
        ).strip()
    return value, upper, message, last


def _difference(
    oracle: Oracle, x: np.ndarray, y: Vector, settings: HypergradientSettings
) -> tuple[np.ndarray, float, str, float]:
    """One unrolled step and a central difference of f_x around y along F_y at the step's end; last the curvature met.

    Source: Liu, Simonyan, Yang (2019), DARTS, equations 7 and 8. The difference is taken around y itself, not around
    the step's end.
    """
    step = step_length(oracle, x, y, settings)
    ahead = y - step * oracle.lower_gradient(x, y)[1]
    upper, value, p = oracle.upper_gradients(x, ahead)
    size, met = norm(p), _met(step, settings)
    if size == 0.0:
        return value, upper, "", met
    epsilon = 0.01 / size
    slope = (oracle.lower_gradient_x(x, y + epsilon * p) - oracle.lower_gradient_x(x, y - epsilon * p)) / (2 * epsilon)
    message = (
        "One step stands for the follower's reaction: where the lower Hessian is ill-conditioned the error is large."
    )
    return value - step * slope, upper, message, met
