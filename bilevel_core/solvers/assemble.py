"""Putting a result together from a vector of column values: shared by all solvers of algebraic problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext


def with_point(
    problem: AlgebraicProblem,
    values: np.ndarray,
    context: RunContext,
    *,
    termination: Termination,
    claim: Claim,
    bound: float | None = None,
    counts: Mapping[str, int] | None = None,
    versions: Mapping[str, str] | None = None,
    message: str = "",
) -> Result:
    """A result with a point. Objectives are those of the user's own model; ``bound`` is in the minimised sense."""
    program = problem.program()
    values = values.copy()
    for i, column in enumerate(program.columns):
        if column.integer:
            values[i] = round(values[i])
    residuals = problem.evaluate(values)
    x, y = problem.point(values)
    lower = residuals.lower_objectives
    return Result(
        termination=termination,
        claim=claim,
        x=x,
        y=y,
        upper_objective=residuals.upper_objective,
        lower_objective=lower[0] if len(lower) == 1 else lower,
        bound=None if bound is None or not np.isfinite(bound) else program.leader.in_users_sense(bound),
        trace=tuple(context.trace),
        counts=dict(counts or {}),
        versions=dict(versions or {}),
        message=message,
    )


def without_point(
    termination: Termination,
    context: RunContext,
    message: str,
    *,
    counts: Mapping[str, int] | None = None,
    **more: Any,
) -> Result:
    """A result without a point."""
    return Result(termination, trace=tuple(context.trace), message=message, counts=dict(counts or {}), **more)
