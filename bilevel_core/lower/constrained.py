"""Lower levels of differentiable problems with bounds or constraints.

A library's method brings the point near, then Newton steps on the active constraints make it exact: hypergradients
need answers that are much more accurate than first-order stopping tests give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bilevel_core.linear import cg
from bilevel_core.lower.base import LowerFailedError, LowerSettings, Response
from bilevel_core.lower.multipliers import multipliers
from bilevel_core.lower.newton import UNBOUNDED
from bilevel_core.lower.polish import polish, strongly_active
from bilevel_core.oracles import NonFiniteError, norm
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.result import Termination

LARGEST = 500
"""Variables up to which general constraints are handled: the linear algebra is dense."""
NEWTON_STEPS = 50
INFEASIBLE = 1e-5


def bounded(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor, settings: LowerSettings) -> Response:
    """Bounds only, any size: L-BFGS-B (SciPy), then projected Newton-CG on the variables off their bounds.

    Source of the second phase: Bertsekas (1982), projected Newton methods.
    """
    low, high = oracle.from_numpy(oracle.y_lower), oracle.from_numpy(oracle.y_upper)
    y = torch.clamp(start, low, high)
    iterations = 0
    if _projected(oracle, y, oracle.lower_gradient(x, y)[1], low, high) > settings.tolerance:
        y, iterations = _approach(oracle, x, y, settings)
        y = torch.clamp(y, low, high)
    message = ""
    for _ in range(min(NEWTON_STEPS, settings.max_iterations)):
        curvature = oracle.curvature(x, y)
        gradient, value = curvature.gradient, curvature.value
        if _projected(oracle, y, gradient, low, high) <= settings.tolerance or settings.hurry():
            break
        free = ~((y <= low) & (gradient > 0.0) | (y >= high) & (gradient < 0.0))
        mask = free.to(y.dtype)

        def product(v: torch.Tensor, c: Any = curvature, m: torch.Tensor = mask) -> torch.Tensor:
            return m * c.product(m * v)

        solved = cg(product, -mask * gradient, tolerance=1e-3, max_iterations=250)
        step = mask * solved.value
        if solved.direction is not None and not bool(step.any()):
            step = mask * solved.direction * norm(gradient)
        if not float(gradient @ step) < 0.0:
            step = -mask * gradient
        moved = _search(oracle, x, y, step, value, gradient, low, high)
        if moved is None:
            message = "The lower level cannot be improved further in this precision."
            break
        y = _extended(oracle, x, y, step, moved, low, high) if solved.negative_curvature else moved
        iterations += 1
    value, gradient = oracle.lower_gradient(x, y)
    residual = _projected(oracle, y, gradient, low, high)
    at_low, at_high = oracle.to_numpy(gradient), oracle.to_numpy(-gradient)
    point = oracle.to_numpy(y)
    converged = residual <= settings.tolerance
    return Response(
        y=y.detach(),
        value=value,
        inequality=np.zeros(0),
        equality=np.zeros(0),
        at_lower=np.where(point <= oracle.y_lower, np.maximum(at_low, 0.0), 0.0),
        at_upper=np.where(point >= oracle.y_upper, np.maximum(at_high, 0.0), 0.0),
        residual=residual,
        converged=converged,
        iterations=iterations,
        message="" if converged else message or f"The lower level stopped with projected gradient {residual:.2g}.",
    )


def _projected(
    oracle: TorchOracle, y: torch.Tensor, gradient: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> float:
    """Norm of the gradient without the parts that push against a bound."""
    pushes = (y <= low) & (gradient > 0.0) | (y >= high) & (gradient < 0.0)
    return norm(torch.where(pushes, torch.zeros_like(gradient), gradient))


def _approach(oracle: TorchOracle, x: np.ndarray, y: torch.Tensor, settings: LowerSettings) -> tuple[torch.Tensor, int]:
    import scipy.optimize

    def both(values: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = oracle.lower_gradient(x, oracle.from_numpy(values))
        return value, oracle.to_numpy(gradient)

    found: Any = scipy.optimize.minimize(
        both,
        oracle.to_numpy(y),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([oracle.y_lower, oracle.y_upper], axis=1),
        options={"maxiter": settings.max_iterations, "maxcor": 20, "ftol": 1e-15, "gtol": settings.tolerance},
    )
    return oracle.from_numpy(found.x), int(found.nit)


def _search(
    oracle: TorchOracle,
    x: np.ndarray,
    y: torch.Tensor,
    step: torch.Tensor,
    value: float,
    gradient: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
) -> torch.Tensor | None:
    """The first projected step of length 1, 1/2, ... that decreases f, or the projected gradient where f drowns."""
    noise = 10.0 * float(torch.finfo(oracle.dtype).eps) * max(1.0, abs(value))
    length = 1.0
    while length >= 2.0**-30:
        trial = torch.clamp(y + length * step, low, high)
        predicted = float(gradient @ (trial - y))
        try:
            new, after = oracle.lower_gradient(x, trial)
        except NonFiniteError:
            length *= 0.25
            continue
        if new <= value + 1e-4 * min(0.0, predicted) and bool((trial != y).any()):
            smaller = _projected(oracle, trial, after, low, high) < _projected(oracle, y, gradient, low, high)
            if -predicted > noise or smaller:
                return trial
        elif new <= value + noise and -predicted <= noise:
            better = _projected(oracle, trial, after, low, high) < _projected(oracle, y, gradient, low, high)
            return trial if better else None
        length *= 0.5
    return None


def _extended(
    oracle: TorchOracle,
    x: np.ndarray,
    y: torch.Tensor,
    step: torch.Tensor,
    moved: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
) -> torch.Tensor:
    """The farthest of 2, 4, ... steps up to which f keeps falling: no model bounds a step of negative curvature."""
    value, length = oracle.lower(x, moved), 2.0
    while value >= UNBOUNDED and length < 2.0**100:
        trial = torch.clamp(y + length * step, low, high)
        try:
            new = oracle.lower(x, trial)
        except NonFiniteError:
            break
        if not new < value:
            break
        moved, value, length = trial, new, 2.0 * length
    return moved


def constrained(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor, settings: LowerSettings) -> Response:
    """General constraints: SLSQP (SciPy; Kraft 1988), then Newton's method on the active ones.

    Raises:
        LowerFailedError: more than `LARGEST` variables, or no point that satisfies the constraints was found (which
            proves nothing: the method is local).
    """
    if oracle.ny > LARGEST:
        raise LowerFailedError(
            f"The lower level has constraints and {oracle.ny} variables; with constraints up to {LARGEST} are handled. "
            "Bounds alone (y_bounds) have no such limit."
        )
    values, iterations = _sequential(oracle, x, oracle.to_numpy(start), settings)
    found = multipliers(oracle, x, oracle.from_numpy(values))
    scale = norm(oracle.lower_gradient(x, oracle.from_numpy(values))[1])
    values, found = polish(oracle, x, values, found, strongly_active(found, scale), 0.1 * settings.tolerance)
    y = oracle.from_numpy(values)
    rows = oracle.lower_rows(x, y)
    if rows.violation > INFEASIBLE:
        raise LowerFailedError(
            f"No y was found that satisfies the lower constraints at this x (violated by {rows.violation:.2g}).",
            Termination.LOWER_INFEASIBLE,
        )
    converged = found.residual <= 10.0 * settings.tolerance
    return Response(
        y=y,
        value=oracle.lower(x, y),
        inequality=found.inequality,
        equality=found.equality,
        at_lower=found.at_lower,
        at_upper=found.at_upper,
        residual=found.residual,
        converged=converged,
        iterations=iterations,
        message="" if converged else f"The lower level stopped with KKT residual {found.residual:.2g}.",
    )


def _sequential(
    oracle: TorchOracle, x: np.ndarray, start: np.ndarray, settings: LowerSettings
) -> tuple[np.ndarray, int]:
    import scipy.optimize

    def both(values: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = oracle.lower_gradient(x, oracle.from_numpy(values))
        return value, oracle.to_numpy(gradient)

    def rows(values: np.ndarray, *, jacobian: bool = False) -> Any:
        return oracle.lower_rows(x, oracle.from_numpy(values), jacobian=jacobian)

    def slopes(values: np.ndarray, which: str, sign: float) -> np.ndarray:
        return sign * getattr(rows(values, jacobian=True), which)

    first = rows(start)
    constraints: list[dict[str, Any]] = []
    if first.g.size:
        constraints.append({"type": "ineq", "fun": lambda v: -rows(v).g, "jac": lambda v: slopes(v, "g_y", -1.0)})
    if first.h.size:
        constraints.append({"type": "eq", "fun": lambda v: rows(v).h, "jac": lambda v: slopes(v, "h_y", 1.0)})
    found: Any = scipy.optimize.minimize(
        both,
        np.clip(start, oracle.y_lower, oracle.y_upper),
        jac=True,
        method="SLSQP",
        bounds=np.stack([oracle.y_lower, oracle.y_upper], axis=1),
        constraints=constraints,
        options={"maxiter": min(settings.max_iterations, 500), "ftol": 1e-14},
    )
    return np.clip(np.asarray(found.x, dtype=float), oracle.y_lower, oracle.y_upper), int(found.nit)
