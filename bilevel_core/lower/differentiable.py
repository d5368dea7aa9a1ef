"""The lower level of a differentiable problem: which method, and the answer with its multipliers.

Unconstrained: Newton-CG (`newton_cg`), L-BFGS (torch's, with a strong Wolfe search), or an optimiser of torch.optim,
on minibatches where there are any. With bounds: SciPy's L-BFGS-B, then Newton steps on the free variables. With other
constraints: SciPy's SLSQP, then Newton steps on the active constraints; dense, for up to a few hundred variables.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from bilevel_core.errors import UsageError
from bilevel_core.lower.base import LowerFailedError, LowerSettings, Response
from bilevel_core.lower.constrained import bounded, constrained
from bilevel_core.lower.newton import UNBOUNDED, newton_cg
from bilevel_core.lower.optimiser import OPTIMISERS, lbfgs, optimise
from bilevel_core.oracles import Oracle, Vector
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.problems.torch import TorchProblem
from bilevel_core.result import Termination


def respond_differentiable(oracle: Oracle, x: np.ndarray, start: Vector, settings: LowerSettings) -> Response:
    """Solve the lower level of a `TorchProblem` at ``x``; see `respond`."""
    torch_oracle = cast("TorchOracle", oracle)
    # In small units a tolerance made for units of 1 would be met without moving.
    tolerance = settings.tolerance * torch_oracle.lower_scale
    settings = replace(settings, tolerance=max(tolerance, attainable(torch_oracle) * torch_oracle.lower_scale))
    if oracle.has_lower_rows:
        _only_auto(settings, "constraints")
        found = constrained(torch_oracle, x, start, settings)
    elif oracle.has_lower_bounds:
        _only_auto(settings, "bounds")
        found = bounded(torch_oracle, x, start, settings)
    else:
        found = _unconstrained(torch_oracle, x, start, settings)
    if not math.isfinite(found.value) or found.value < UNBOUNDED:
        raise LowerFailedError(
            f"The lower objective falls to {found.value:.3g} at this x: it seems to have no minimum.",
            Termination.LOWER_UNBOUNDED,
        )
    torch_oracle.terms.refresh(torch_oracle.x_tensor(x), found.y)
    return found


def attainable(oracle: TorchOracle) -> float:
    """A gradient norm below which rounding in the problem's precision decides; 0 in double precision."""
    return 0.0 if oracle.dtype == torch.float64 else 20.0 * float(torch.finfo(oracle.dtype).eps)


def _only_auto(settings: LowerSettings, what: str) -> None:
    if settings.method != "auto":
        raise UsageError(
            f"Lower-level method {settings.method!r} takes no {what}: use method 'auto', or put the {what} into the "
            "functions."
        )


def _by_formula(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor) -> torch.Tensor:
    """The problem's own answer, where it has a formula for it; the start given where not, or where it breaks down."""
    problem = oracle.problem
    if type(problem).closed_form is TorchProblem.closed_form:
        return start
    with torch.no_grad():
        found = problem.closed_form(problem.x_layout.unflatten(oracle.x_tensor(x)))
    if found is None:
        return start
    flat = problem.y_layout.flatten(found).to(start)
    return flat if bool(torch.isfinite(flat).all()) else start


def _unconstrained(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor, settings: LowerSettings) -> Response:
    method = settings.method
    if method == "auto":
        own = _by_formula(oracle, x, start)
        return newton_cg(oracle, x, own, settings, fresh=own is not start, convex=oracle.problem.lower_convex)
    if method == "newton-cg":
        return newton_cg(oracle, x, start, settings)
    if method == "lbfgs":
        return lbfgs(oracle, x, start, settings)
    if method in OPTIMISERS:
        return optimise(oracle, x, start, settings, OPTIMISERS[method])
    known = ", ".join(["auto", "newton-cg", "lbfgs", *sorted(OPTIMISERS)])
    raise UsageError(f"There is no lower-level method {method!r}. Known: {known}.")
