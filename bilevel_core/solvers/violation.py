"""How far a point is from the leader's constraints: one measure for all iterative solvers, that of the check."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bilevel_core.oracles import Oracle, Vector


def leader_violation(oracle: Oracle, x: np.ndarray, y: Vector) -> float:
    """The largest violation of the leader's rows and bounds.

    Of algebraic problems relative to the scale of each row (its largest term, at least 1), as in the check; callables
    show no terms, and theirs are absolute.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        y: lower variables.

    Returns:
        At least 0; NaN where a row is undefined.

    Raises:
        NonFiniteError: a row of callables is not finite.
    """
    program: Any = getattr(oracle, "program", None)
    outside = np.maximum(np.maximum(oracle.x_lower - x, x - oracle.x_upper), 0.0)
    if program is None:
        worst = float(outside.max(initial=0.0))
        return max(worst, oracle.upper_rows(x, y).violation) if oracle.has_upper_rows else worst
    found = [float(v) for v in outside / np.maximum(1.0, np.abs(x))]
    values = np.zeros(len(program.columns))
    values[list(program.leader.columns)] = x
    values[list(program.lower_columns)] = oracle.to_numpy(y)
    found += [r.violation(values) / r.function.scale(values) for r in program.leader.rows]
    return math.nan if any(math.isnan(v) for v in found) else max(found, default=0.0)
