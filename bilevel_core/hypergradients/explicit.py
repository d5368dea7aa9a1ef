"""Hypergradients without a linear system: unrolled lower steps, one finite difference, none at all."""

from __future__ import annotations

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients.base import Hypergradient, HypergradientSettings
from bilevel_core.linear import largest_eigenvalue
from bilevel_core.lower import Response
from bilevel_core.oracles import Oracle, Vector, norm


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
    if settings.mode == "unroll":
        value, upper, message = _unroll(oracle, x, response.y, settings)
    elif settings.mode == "finite-difference":
        value, upper, message = _difference(oracle, x, response.y, settings)
    else:
        upper, value, _ = oracle.upper_gradients(x, response.y)
        message = "The follower's reaction is left out (first order)."
    counts = {k: n - before[k] for k, n in oracle.counts.items() if n > before[k]}
    return Hypergradient(value, np.nan, counts, upper, response.residual, message=message)


def step_length(oracle: Oracle, x: np.ndarray, y: Vector, settings: HypergradientSettings) -> float:
    """The step asked for, or 1 over the largest eigenvalue of the lower Hessian, estimated."""
    if settings.step is not None:
        return settings.step
    largest = largest_eigenvalue(oracle.curvature(x, y).product, y, settings.seed)
    return 1.0 / largest if largest > 0.0 else 1.0


def _unroll(oracle: Oracle, x: np.ndarray, y: Vector, settings: HypergradientSettings) -> tuple[np.ndarray, float, str]:
    """Reverse mode through ``steps`` gradient steps from y, the last ``truncate`` of them.

    The steps' points are kept, their graphs are not: each is built again on the way back, so that memory is one vector
    a step. Source: Maclaurin, Duvenaud, Adams (2015); truncated: Shaban et al. (2019).
    """
    step = step_length(oracle, x, y, settings)
    points = [y]
    for _ in range(settings.steps):
        points.append(points[-1] - step * oracle.lower_gradient(x, points[-1])[1])
    upper, value, p = oracle.upper_gradients(x, points[-1])
    back = settings.steps if settings.truncate is None else settings.truncate
    for k in range(settings.steps - 1, settings.steps - 1 - back, -1):
        curvature = oracle.curvature(x, points[k])
        value = value - step * curvature.mixed_x(p)
        p = p - step * curvature.product(p)
    return value, upper, ""


def _difference(
    oracle: Oracle, x: np.ndarray, y: Vector, settings: HypergradientSettings
) -> tuple[np.ndarray, float, str]:
    """One unrolled step and a central difference of f_x around y along F_y at the step's end.

    Source: Liu, Simonyan, Yang (2019), DARTS, equations 7 and 8. The difference is taken around y itself, not around
    the step's end.
    """
    step = step_length(oracle, x, y, settings)
    ahead = y - step * oracle.lower_gradient(x, y)[1]
    upper, value, p = oracle.upper_gradients(x, ahead)
    size = norm(p)
    if size == 0.0:
        return value, upper, ""
    epsilon = 0.01 / size
    slope = (oracle.lower_gradient_x(x, y + epsilon * p) - oracle.lower_gradient_x(x, y - epsilon * p)) / (2 * epsilon)
    message = (
        "One step stands for the follower's reaction: where the lower Hessian is ill-conditioned the error is large."
    )
    return value - step * slope, upper, message
