"""A minimiser of smooth functions of flat vectors of any kind: limited-memory BFGS with a backtracking line search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bilevel_core.oracles import Vector, norm

ARMIJO = 1e-4
HALVINGS = 40
ROUNDING = 8.0


@dataclass(frozen=True)
class Minimum:
    """Where the minimiser ended.

    Attributes:
        point: the last point.
        value: the function there.
        residual: norm of the gradient there.
        converged: whether the residual met the tolerance, or rounding left nothing to gain.
        iterations: steps taken.
    """

    point: Vector
    value: float
    residual: float
    converged: bool
    iterations: int


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    *,
    tolerance: float,
    max_iterations: int,
    precision: float,
    memory: int = 10,
) -> Minimum:
    """Minimise a smooth function of a flat vector.

    Uses ``+ - * @`` on vectors only. Source: Nocedal (1980), Updating quasi-Newton matrices with limited storage;
    pairs without positive curvature are left out, so nonconvex functions are taken too. Near the minimum a change of
    the value drowns in rounding; there a step counts as a descent when it shortens the gradient.

    Args:
        function: value and gradient at a vector.
        start: where to start.
        tolerance: of the gradient's norm.
        max_iterations: most steps.
        precision: rounding error of one number, such as 2.2e-16.
        memory: pairs kept.
    """
    point = start
    value, gradient = function(point)
    residual = norm(gradient)
    pairs: list[tuple[Vector, Vector, float]] = []
    for k in range(max_iterations):
        if residual <= tolerance:
            return Minimum(point, value, residual, True, k)
        direction = _two_loop(gradient, pairs)
        slope = float(gradient @ direction)
        if slope >= 0.0:
            pairs, direction, slope = [], gradient * -1.0, -(residual**2)
        step = 1.0 if pairs else min(1.0, 1.0 / residual)
        noise = ROUNDING * precision * max(1.0, abs(value))
        for _ in range(HALVINGS):
            trial = point + direction * step
            trial_value, trial_gradient = function(trial)
            if trial_value <= value + ARMIJO * step * slope:
                break
            if trial_value <= value + noise and norm(trial_gradient) < residual:
                break
            step *= 0.5
        else:
            if not pairs:
                return Minimum(point, value, residual, residual <= 1e3 * tolerance, k)
            pairs = []  # a poor model: once more along the gradient
            continue
        moved, turned = trial - point, trial_gradient - gradient  # pyright: ignore[reportPossiblyUnboundVariable]
        bend = float(moved @ turned)
        if bend > precision * norm(moved) * norm(turned):
            pairs = [*pairs[-(memory - 1) :], (moved, turned, bend)]
        point, value, gradient = trial, trial_value, trial_gradient  # pyright: ignore[reportPossiblyUnboundVariable]
        residual = norm(gradient)
    return Minimum(point, value, residual, residual <= tolerance, max_iterations)


def _two_loop(gradient: Vector, pairs: list[tuple[Vector, Vector, float]]) -> Vector:
    """Minus the approximate inverse Hessian times the gradient."""
    q = gradient * 1.0
    weights: list[float] = []
    for moved, turned, bend in reversed(pairs):
        weights.append(float(moved @ q) / bend)
        q = q - turned * weights[-1]
    if pairs:
        _, turned, bend = pairs[-1]
        q = q * (bend / float(turned @ turned))
    for (moved, turned, bend), weight in zip(pairs, reversed(weights), strict=True):
        q = q + moved * (weight - float(turned @ q) / bend)
    return q * -1.0
