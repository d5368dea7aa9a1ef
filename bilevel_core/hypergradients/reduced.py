"""The gradient of the reduced objective Phi(x) = F(x, y(x)) at an answer of the lower level."""

from __future__ import annotations

import numpy as np

from bilevel_core.hypergradients.base import EXPLICIT, Hypergradient, HypergradientSettings
from bilevel_core.hypergradients.doubts import KINK, doubts
from bilevel_core.hypergradients.explicit import explicit
from bilevel_core.hypergradients.system import OptimalitySystem
from bilevel_core.lower import Response
from bilevel_core.oracles import Oracle, Vector, norm


def reduced_gradient(
    oracle: Oracle,
    x: np.ndarray,
    response: Response,
    settings: HypergradientSettings | None = None,
    warm: Vector | None = None,
) -> Hypergradient:
    """d/dx F(x, y(x)) at the lower level's answer, by the implicit function theorem or one of the other modes.

    With lower constraints the active ones are held: the derivative of the piece that the answer lies on.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        response: the lower level's answer at x.
        settings: mode and accuracy.
        warm: the adjoint of a point near by, to start the linear solve from.

    Raises:
        NonFiniteError: a value or derivative is not finite.
        UsageError: the mode does not take lower constraints.
    """
    settings = settings or HypergradientSettings()
    if settings.mode in EXPLICIT:
        return explicit(oracle, x, response, settings)
    before = oracle.counts.copy()
    upper, f_x, f_y = oracle.upper_gradients(x, response.y)
    system = OptimalitySystem(oracle, x, response, settings)
    found = system.solve(f_y, start=warm)
    if not system.consistent(found) and not system.active.strict:
        # On a face of the follower's answers only the weakly active constraints say where the leader's choice lies.
        held = OptimalitySystem(oracle, x, response, settings, hold_weak=True)
        again = held.solve(f_y)
        if held.consistent(again):
            system, found = held, again
    value = system.total(f_x, found)
    bias = system.bias(response, found)
    size = norm(found.v)
    met = norm(f_y) / size if size > 0.0 else 0.0
    doubt = ""
    if settings.examine:
        product = system.curvature.product
        doubt = doubts(oracle, x, response, product, met=met, upper_y=f_y, rows=system.rows, bias=bias)
    message = " ".join(m for m in (found.message, "" if system.active.strict else KINK, doubt) if m)
    counts = {k: n - before[k] for k, n in oracle.counts.items() if n > before[k]}
    return Hypergradient(
        value=value,
        residual=found.residual,
        counts=counts,
        upper=upper,
        stationarity=response.residual,
        bias=bias,
        adjoint=found.v,
        negative_curvature=found.negative_curvature,
        strict=system.active.strict,
        message=message,
    )
