"""What is found out before the search: bounds of linking columns, and whether the leader's objective has a limit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.errors import RefusedError
from bilevel_core.program import INF, BilevelProgram, Program, Row, linear
from bilevel_core.run import RunContext
from bilevel_core.solvers.branch_cut.model import LinearModel


def relaxation(program: BilevelProgram) -> Program:
    """The linear relaxation of the high-point relaxation."""
    relaxed = program.high_point()
    return replace(relaxed, columns=tuple(replace(c, integer=False) for c in relaxed.columns))


def bounded_linking(model: LinearModel, program: BilevelProgram, context: RunContext) -> LinearModel:
    """The model with bounds on all linking columns, derived by linear programs over the high-point relaxation.

    Raises:
        RefusedError: a linking column is unbounded there.
    """
    open_ends = [
        (int(i), sign)
        for i in model.linking
        for sign, bound in ((1.0, model.lower[i]), (-1.0, model.upper[i]))
        if not math.isfinite(bound)
    ]
    if not open_ends:
        return model
    relaxed = relaxation(program)
    lower, upper = model.lower.copy(), model.upper.copy()
    for i, sign in open_ends:
        solution = Highs().solve(
            replace(relaxed, objective=linear({i: sign})), SolveSettings(time_limit=context.remaining())
        )
        if solution.status is SolveStatus.INFEASIBLE:
            return model  # the search finds that out
        if solution.values is None or not solution.solved:
            raise RefusedError(
                f"The leader's variable {model.names[i]!r} occurs in a follower's problem and has no "
                f"{'lower' if sign > 0 else 'upper'} bound that follows from the constraints: give it one."
            )
        value = sign * solution.objective
        if sign > 0:
            lower[i] = math.ceil(value - 1e-6) if model.integer[i] else value
        else:
            upper[i] = math.floor(value + 1e-6) if model.integer[i] else value
    return replace(model, lower=lower, upper=upper)


def endless(model: LinearModel, program: BilevelProgram, context: RunContext) -> bool:
    """Whether the leader's objective improves without end along its own columns, whatever the followers do.

    Raises:
        RefusedError: it does so along followers' columns, which the followers may or may not prevent.
    """
    relaxed = relaxation(program)
    solution = Highs().solve(relaxed, SolveSettings(time_limit=context.remaining()))
    if solution.status not in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
        return False
    own = set(program.leader.columns) - {int(i) for i in model.linking}
    for allowed in (own, set(range(len(program.columns)))):
        ray = Highs().solve(_rays(relaxed, allowed), SolveSettings(time_limit=context.remaining()))
        if ray.values is None or ray.objective > -1e-7:
            continue
        if allowed is own:
            return True
        along = [c.name for c, v in zip(relaxed.columns, ray.values, strict=True) if abs(v) > 1e-7]
        raise RefusedError(
            "The leader's objective is unbounded over the high-point relaxation (both levels' constraints without the "
            f"follower's optimality), so the search has no bound to start from: bound {', '.join(along[:5])}."
        )
    return False


def _rays(program: Program, allowed: set[int]) -> Program:
    """Directions of length at most 1 in which a linear program's feasible set has no end, in some columns only."""

    def sided(low: float, up: float) -> tuple[float, float]:
        return 0.0 if math.isfinite(low) else -INF, 0.0 if math.isfinite(up) else INF

    columns = list(program.columns)
    for i, c in enumerate(columns):
        low, up = np.clip(sided(c.lower, c.upper), -1.0, 1.0) if i in allowed else (0.0, 0.0)
        columns[i] = replace(c, lower=float(low), upper=float(up))
    rows = tuple(Row(r.name, linear(r.function.linear), *sided(r.lower, r.upper)) for r in program.rows)
    return Program(tuple(columns), linear(program.objective.linear), rows)
