"""Lower levels of differentiable problems with bounds or constraints.

A library's method brings the point near, then Newton steps on the active constraints make it exact: hypergradients
need answers that are much more accurate than first-order stopping tests give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bilevel_core.linear import cg
from bilevel_core.lower.base import HurriedError, LowerFailedError, LowerSettings, Response, own_bounds
from bilevel_core.lower.multipliers import multipliers
from bilevel_core.lower.newton import UNBOUNDED
from bilevel_core.lower.polish import polish, strongly_active
from bilevel_core.oracles import NonFiniteError, Rows, norm
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.result import Termination

LARGEST = 500
"""Variables up to which general constraints are handled: the linear algebra is dense."""
NEWTON_STEPS = 50
INFEASIBLE = 1e-5


class _Latest:
    """Where a solve stands, to answer with when time is up: the best of a library's points, or the newest of ours.

    Attributes:
        y, value, gradient: the point, f there and its gradient by y.
    """

    def __init__(self, y: torch.Tensor, value: float, gradient: torch.Tensor) -> None:
        self.y, self.value, self.gradient = y, value, gradient
        self.iterations = 0

    def take(self, y: torch.Tensor, value: float, gradient: torch.Tensor) -> None:
        """Go to another point."""
        self.y, self.value, self.gradient = y, value, gradient


def bounded(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor, settings: LowerSettings) -> Response:
    """Bounds only, any size: L-BFGS-B (SciPy), then projected Newton-CG on the variables off their bounds.

    Source of the second phase: Bertsekas (1982), projected Newton methods.
    """
    low, high = oracle.from_numpy(oracle.y_lower), oracle.from_numpy(oracle.y_upper)
    y = torch.clamp(start, low, high)
    latest = _Latest(y, *oracle.lower_gradient(x, y))
    message = ""
    try:
        if _projected(oracle, y, latest.gradient, low, high) > settings.tolerance:
            _approach(oracle, x, settings, latest)
        message = _newton(oracle, x, settings, latest)
    except HurriedError as error:
        message = str(error)
    y, gradient = latest.y, latest.gradient
    residual = _projected(oracle, y, gradient, low, high)
    push = oracle.to_numpy(gradient)
    at_low, at_high = (y <= low).cpu().numpy(), (y >= high).cpu().numpy()
    converged = residual <= settings.tolerance
    stopped = f"The lower level stopped with projected gradient {residual:.2g}."
    return Response(
        y=y.detach(),
        value=latest.value,
        inequality=np.zeros(0),
        equality=np.zeros(0),
        at_lower=np.where(at_low, np.maximum(push, 0.0), 0.0),
        at_upper=np.where(at_high, np.maximum(-push, 0.0), 0.0),
        residual=residual,
        converged=converged,
        iterations=latest.iterations,
        message="" if converged else f"{message} {stopped}".strip(),
    )


def _newton(oracle: TorchOracle, x: np.ndarray, settings: LowerSettings, latest: _Latest) -> str:
    """Projected Newton steps from ``latest``, which is kept up to date; why they ended early, if they did.

    Raises:
        HurriedError: time is up.
    """
    low, high = oracle.from_numpy(oracle.y_lower), oracle.from_numpy(oracle.y_upper)
    for _ in range(min(NEWTON_STEPS, settings.max_iterations)):
        y, gradient = latest.y, latest.gradient
        if _projected(oracle, y, gradient, low, high) <= settings.tolerance:
            break
        settings.ask()
        curvature = oracle.curvature(x, y)
        free = ~((y <= low) & (gradient > 0.0) | (y >= high) & (gradient < 0.0))
        mask = free.to(y.dtype)

        def product(v: torch.Tensor, c: Any = curvature, m: torch.Tensor = mask) -> torch.Tensor:
            settings.ask()
            return m * c.product(m * v)

        solved = cg(product, -mask * gradient, tolerance=1e-3, max_iterations=250)
        step = mask * solved.value
        if solved.direction is not None and not bool(step.any()):
            step = mask * solved.direction * norm(gradient)
        if not float(gradient @ step) < 0.0:
            step = -mask * gradient
        before = y
        if not _search(oracle, x, step, low, high, settings, latest):
            return "The lower level cannot be improved further in this precision."
        latest.iterations += 1
        if solved.negative_curvature:
            _extend(oracle, x, before, step, low, high, settings, latest)
    return ""


def _projected(
    oracle: TorchOracle, y: torch.Tensor, gradient: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> float:
    """Norm of the gradient without the parts that push against a bound."""
    pushes = (y <= low) & (gradient > 0.0) | (y >= high) & (gradient < 0.0)
    return norm(torch.where(pushes, torch.zeros_like(gradient), gradient))


def _approach(oracle: TorchOracle, x: np.ndarray, settings: LowerSettings, latest: _Latest) -> None:
    import scipy.optimize

    low, high = own_bounds(oracle)

    def both(values: np.ndarray) -> tuple[float, np.ndarray]:
        settings.ask()
        y = oracle.from_numpy(np.clip(values, low, high))
        value, gradient = oracle.lower_gradient(x, y)
        if value < latest.value:
            latest.take(y, value, gradient)
        return value, oracle.to_numpy(gradient)

    found: Any = scipy.optimize.minimize(
        both,
        oracle.to_numpy(latest.y),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([low, high], axis=1),
        options={"maxiter": settings.max_iterations, "maxcor": 20, "ftol": 1e-15, "gtol": settings.tolerance},
    )
    y = oracle.from_numpy(np.clip(found.x, low, high))
    latest.iterations += int(found.nit)
    latest.take(y, *oracle.lower_gradient(x, y))


def _search(
    oracle: TorchOracle,
    x: np.ndarray,
    step: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    settings: LowerSettings,
    latest: _Latest,
) -> bool:
    """Take the first projected step of length 1, 1/2, ... that decreases f, or the projected gradient where f drowns;
    False where there is none.
    """
    y, value, gradient = latest.y, latest.value, latest.gradient
    noise = 10.0 * float(torch.finfo(oracle.dtype).eps) * max(1.0, abs(value))
    size = _projected(oracle, y, gradient, low, high)
    length = 1.0
    while length >= 2.0**-30:
        settings.ask()
        trial = torch.clamp(y + length * step, low, high)
        predicted = float(gradient @ (trial - y))
        try:
            new, after = oracle.lower_gradient(x, trial)
        except NonFiniteError:
            length *= 0.25
            continue
        smaller = _projected(oracle, trial, after, low, high) < size
        if new <= value + 1e-4 * min(0.0, predicted) and bool((trial != y).any()):
            if -predicted > noise or smaller:
                latest.take(trial, new, after)
                return True
        elif new <= value + noise and -predicted <= noise:
            if smaller:
                latest.take(trial, new, after)
            return smaller
        length *= 0.5
    return False


def _extend(
    oracle: TorchOracle,
    x: np.ndarray,
    y: torch.Tensor,
    step: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    settings: LowerSettings,
    latest: _Latest,
) -> None:
    """Take the farthest of 2, 4, ... steps up to which f keeps falling: no model bounds a step of negative
    curvature.
    """
    length = 2.0
    while latest.value >= UNBOUNDED and length < 2.0**100:
        settings.ask()
        trial = torch.clamp(y + length * step, low, high)
        try:
            new, after = oracle.lower_gradient(x, trial)
        except NonFiniteError:
            break
        if not new < latest.value:
            break
        latest.take(trial, new, after)
        length *= 2.0


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
    y = oracle.from_numpy(np.clip(oracle.to_numpy(start), *own_bounds(oracle)))
    latest = _Latest(y, *oracle.lower_gradient(x, y))
    first = oracle.lower_rows(x, y)
    try:
        values = _sequential(oracle, x, settings, latest, first)
        settings.ask()
        found = multipliers(oracle, x, oracle.from_numpy(values))
        latest.take(oracle.from_numpy(values), *oracle.lower_gradient(x, oracle.from_numpy(values)))
        settings.ask()
    except HurriedError as error:
        return _cut_short(oracle, latest, first, str(error))
    active = strongly_active(found, norm(latest.gradient))
    values, found = polish(oracle, x, values, found, active, 0.1 * settings.tolerance)
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
        iterations=latest.iterations,
        message="" if converged else f"The lower level stopped with KKT residual {found.residual:.2g}.",
    )


def _cut_short(oracle: TorchOracle, latest: _Latest, first: Rows, message: str) -> Response:
    """The newest point as it is, which may violate the constraints: multipliers would take evaluations."""
    return Response(
        y=latest.y,
        value=latest.value,
        inequality=np.zeros(len(first.g)),
        equality=np.zeros(len(first.h)),
        at_lower=np.zeros(oracle.ny),
        at_upper=np.zeros(oracle.ny),
        residual=norm(latest.gradient),
        converged=False,
        iterations=latest.iterations,
        message=f"{message} The point need not satisfy the lower constraints.",
    )


def _sequential(
    oracle: TorchOracle, x: np.ndarray, settings: LowerSettings, latest: _Latest, first: Rows
) -> np.ndarray:
    import scipy.optimize

    low, high = own_bounds(oracle)

    def both(values: np.ndarray) -> tuple[float, np.ndarray]:
        settings.ask()
        y = oracle.from_numpy(values)
        latest.take(y, *oracle.lower_gradient(x, y))
        return latest.value, oracle.to_numpy(latest.gradient)

    def rows(values: np.ndarray, *, jacobian: bool = False) -> Any:
        settings.ask()
        return oracle.lower_rows(x, oracle.from_numpy(values), jacobian=jacobian)

    def slopes(values: np.ndarray, which: str, sign: float) -> np.ndarray:
        return sign * getattr(rows(values, jacobian=True), which)

    constraints: list[dict[str, Any]] = []
    if first.g.size:
        constraints.append({"type": "ineq", "fun": lambda v: -rows(v).g, "jac": lambda v: slopes(v, "g_y", -1.0)})
    if first.h.size:
        constraints.append({"type": "eq", "fun": lambda v: rows(v).h, "jac": lambda v: slopes(v, "h_y", 1.0)})
    found: Any = scipy.optimize.minimize(
        both,
        oracle.to_numpy(latest.y),
        jac=True,
        method="SLSQP",
        bounds=np.stack([low, high], axis=1),
        constraints=constraints,
        options={"maxiter": min(settings.max_iterations, 500), "ftol": 1e-14},
    )
    latest.iterations += int(found.nit)
    return np.clip(np.asarray(found.x, dtype=float), low, high)
