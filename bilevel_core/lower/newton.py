"""Newton-CG for unconstrained lower levels: truncated Newton steps with a backtracking search, matrix-free."""

from __future__ import annotations

import math

import numpy as np
import torch

from bilevel_core.linear import cg
from bilevel_core.lower.answer import answer
from bilevel_core.lower.base import LowerSettings, Response
from bilevel_core.oracles import NonFiniteError, norm
from bilevel_core.oracles.torch import TorchOracle

SUFFICIENT = 1e-4
"""Armijo's constant: the share of the predicted decrease that a step must bring."""
SHORTEST = 2.0**-30
UNBOUNDED = -1e20
"""A lower objective below this has no minimum, as far as can be told."""


def newton_cg(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor, settings: LowerSettings) -> Response:
    """Minimise f(x, .) by truncated Newton steps (Dembo and Steihaug 1983).

    Each step solves ``H s = -g`` by conjugate gradients to a relative accuracy of min(0.01, sqrt(|g|)), so that
    convergence is superlinear, or loosely where that is enough for the tolerance; a direction of negative curvature is
    followed downhill. Good at: smooth full-batch objectives, ill-conditioned ones among them. Bad at: objectives that
    are noisy or have kinks.
    """
    y = start
    message = ""
    iteration = 0
    curvature = oracle.curvature(x, y)
    while True:
        g, size = curvature.gradient, norm(curvature.gradient)
        if size <= settings.tolerance or curvature.value < UNBOUNDED:
            break
        if iteration >= settings.max_iterations or settings.hurry():
            message = f"The lower level stopped after {iteration} Newton steps with gradient norm {size:.2g}."
            break
        iteration += 1
        forcing = _forcing(size, settings.tolerance)
        solved = cg(curvature.product, -g, tolerance=forcing, max_iterations=250)
        step = solved.value
        if solved.negative_curvature and not bool(step.any()):
            step = -g if solved.direction is None else solved.direction * size
        slope = float(g @ step)
        if slope >= 0.0:
            step, slope = -g, -size * size
        length = _search(oracle, x, y, step, curvature.value, slope)
        if length == 0.0:
            message = (
                f"The lower level cannot be improved further in {oracle.dtype} (gradient norm {size:.2g}): its values "
                "no longer tell steps apart."
            )
            break
        if solved.negative_curvature and length == 1.0:
            length = _extended(oracle, x, y, step, curvature.value)
        y = y + length * step
        curvature = oracle.curvature(x, y)
    return answer(y, curvature.value, curvature.gradient, settings, iteration, message)


def _forcing(size: float, tolerance: float) -> float:
    """Relative accuracy of a Newton step: superlinear, but no more than leaves a tenth of the tolerance."""
    return min(0.5, max(min(0.01, math.sqrt(size)), 0.1 * tolerance / size))


def _extended(oracle: TorchOracle, x: np.ndarray, y: torch.Tensor, step: torch.Tensor, value: float) -> float:
    """The longest of 1, 2, 4, ... up to which f keeps falling: no model bounds a step of negative curvature."""
    length = 1.0
    while value >= UNBOUNDED and length < 2.0**100:
        try:
            new = oracle.lower(x, y + 2.0 * length * step)
        except NonFiniteError:
            break
        if not new < value:
            break
        value, length = new, 2.0 * length
    return length


def _search(
    oracle: TorchOracle, x: np.ndarray, y: torch.Tensor, step: torch.Tensor, value: float, slope: float
) -> float:
    """The first of 1, 1/2, 1/4, ... that decreases f enough; 0 when none does.

    Where the decrease drowns in rounding, a step is taken when it does not raise f beyond rounding and makes the
    gradient smaller: near the minimum only the gradient can tell.
    """
    noise = 10.0 * float(torch.finfo(oracle.dtype).eps) * max(1.0, abs(value))
    length = 1.0
    while length >= SHORTEST:
        try:
            new = oracle.lower(x, y + length * step)
        except NonFiniteError:
            length *= 0.25
            continue
        if new <= value + SUFFICIENT * length * slope:
            return length
        if -SUFFICIENT * length * slope <= noise and new <= value + noise:
            before, after = (oracle.lower_gradient(x, p)[1] for p in (y, y + length * step))
            return length if norm(after) < norm(before) else 0.0
        length *= 0.5
    return 0.0
