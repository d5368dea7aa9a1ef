"""Newton-CG for unconstrained lower levels: truncated Newton steps with a backtracking search, matrix-free."""

from __future__ import annotations

import math

import numpy as np
import torch

from bilevel_core.linear import NonFiniteProductError, cg
from bilevel_core.linear.spectrum import smallest_eigenvalue
from bilevel_core.lower.answer import answer
from bilevel_core.lower.base import LowerSettings, Response
from bilevel_core.oracles import NonFiniteError, norm
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.oracles.torch_curvature import TorchCurvature

SUFFICIENT = 1e-4
"""Armijo's constant: the share of the predicted decrease that a step must bring."""
SHORTEST = 2.0**-30
UNBOUNDED = -1e20
"""A lower objective below this has no minimum, as far as can be told."""
SMALL = 200
"""Variables up to which each minimum found is examined, and that at the first start exactly."""
FIRST, AGAIN = 30, 8
"""Products spent on looking for negative curvature: where a search begins at the problem's own start, and later."""


def newton_cg(
    oracle: TorchOracle,
    x: np.ndarray,
    start: torch.Tensor,
    settings: LowerSettings,
    *,
    fresh: bool = False,
    convex: bool = False,
) -> Response:
    """Minimise f(x, .) by truncated Newton steps (Dembo and Steihaug 1983).

    Each step solves ``H s = -g`` by conjugate gradients to a relative accuracy of min(0.01, sqrt(|g|)), so that
    convergence is superlinear, or loosely where that is enough for the tolerance; a direction of negative curvature is
    followed downhill. Where the gradient vanishes, negative curvature is looked for by a few products with a random
    vector (at the problem's own start, which symmetry may have put on a saddle; on small problems each time), and
    followed too. Good at: smooth full-batch objectives, ill-conditioned ones among them. Bad at: objectives that
    are noisy or have kinks.

    Args:
        oracle, x, settings: what to minimise, and how.
        start: where to begin.
        fresh: whether no search has led to the start, as with the problem's own: it is examined as that is.
        convex: whether f(x, .) is known to be convex: then nothing is looked for.
    """
    y = start
    message = ""
    iteration = 0
    first = fresh or bool((start == oracle.y_start()).all())
    curvature = oracle.curvature(x, y)
    while True:
        g, size = curvature.gradient, norm(curvature.gradient)
        if curvature.value < UNBOUNDED:
            break
        if size <= settings.tolerance:
            if iteration >= settings.max_iterations or settings.hurry():
                break
            lower = None if convex else _escaped(oracle, x, y, curvature, first)
            if lower is None:
                break
            y, iteration = lower, iteration + 1
            curvature = oracle.curvature(x, y)
            continue
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


def _escaped(
    oracle: TorchOracle, x: np.ndarray, y: torch.Tensor, curvature: TorchCurvature, first: bool
) -> torch.Tensor | None:
    """A lower point along a direction of negative curvature; None where none was found, or f does not fall along it."""
    if not first and oracle.ny > SMALL:
        return None
    try:
        bend, v = _bend(oracle, curvature, first)
    except (NonFiniteError, NonFiniteProductError):
        return None
    if v is None:
        return None
    step = v if float(curvature.gradient @ v) <= 0.0 else -v
    noise = 10.0 * oracle.precision * max(1.0, abs(curvature.value))
    length = max(1.0, norm(y) / math.sqrt(oracle.ny))
    while length >= SHORTEST and SUFFICIENT * length * length * abs(bend) > 0.0:
        try:
            new = oracle.lower(x, y + length * step)
        except NonFiniteError:
            new = math.inf
        if new < curvature.value - max(noise, SUFFICIENT * length * length * abs(bend)):
            return y + length * _extended(oracle, x, y, length * step, curvature.value) * step
        length *= 0.5
    return None


def _bend(oracle: TorchOracle, curvature: TorchCurvature, first: bool) -> tuple[float, torch.Tensor | None]:
    """The most negative curvature found, with its direction; None where it is not told from rounding."""
    rounding = 1e-4 if oracle.finite_differences else 1e3 * oracle.precision
    steps = AGAIN if not first else SMALL if oracle.ny <= SMALL else FIRST
    found = smallest_eigenvalue(curvature.product, curvature.gradient, iterations=steps, slack=rounding)
    return found.value, found.vector


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
