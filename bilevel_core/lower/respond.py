"""One entry for all: which lower-level method is used for which problem."""

from __future__ import annotations

import numpy as np

from bilevel_core.lower.base import LowerSettings, Response
from bilevel_core.oracles import Oracle, Vector


def respond(
    oracle: Oracle, x: np.ndarray, start: Vector | None = None, settings: LowerSettings | None = None
) -> Response:
    """Solve the lower level at ``x``.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        start: a point to start from (the last answer); the oracle's own start by default.
        settings: method and accuracy.

    Raises:
        LowerFailedError: the lower level is infeasible or unbounded at this x, or the method broke down.
        NonFiniteError: a value or derivative is not finite.
    """
    settings = settings or LowerSettings()
    oracle.counts["lower_solves"] += 1
    if oracle.form == "algebraic":
        from bilevel_core.lower.algebraic import respond_algebraic

        return respond_algebraic(oracle, x, start, settings)
    from bilevel_core.lower.differentiable import respond_differentiable

    return respond_differentiable(oracle, x, oracle.y_start() if start is None else start, settings)
