"""A solver for problems with one leader's variable: values on a grid, the follower solved at each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevel_core import Accepted, Claim, Refused, Result, RunContext, Solver, Termination, Traits
from bilevel_core.backends.highs import Highs
from bilevel_core.errors import UsageError
from bilevel_core.solvers.assemble import with_point, without_point


@dataclass(frozen=True)
class Grid(Solver):
    """Tries values of a single leader's variable. Good for a look at a problem; bad for anything larger.

    Raises:
        UsageError: an option is out of its range.
    """

    points: int = field(default=101, metadata={"help": "how many values to try, ends of the range included"})

    def __post_init__(self) -> None:
        if self.points < 2:
            raise UsageError(f"Expected at least 2 points, got {self.points}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """One leader's variable, and one follower with a linear or convex quadratic program."""
        if traits.form != "algebraic" or traits.upper_variables != 1 or len(traits.followers) != 1:
            return Refused("it takes one leader's variable and one follower", "kkt")
        if traits.followers[0].label not in ("LP", "convex QP"):
            return Refused("its follower must have a linear or convex quadratic program", "global")
        return Accepted(f"{self.points} values of the leader's variable, the follower solved at each", "feasible")

    def refuses(self, problem: Any) -> Refused | None:
        """The grid needs two ends."""
        program = problem.program()
        column = program.columns[program.leader.columns[0]]
        if math.isfinite(column.lower) and math.isfinite(column.upper):
            return None
        return Refused(f"the leader's variable {column.name} needs bounds on both sides", "kkt")

    def run(self, problem: Any, context: RunContext) -> Result:
        """Try every value; keep the best point. See `bilevel_core.Solver.run`."""
        program = problem.program()
        (x,) = program.leader.columns
        column = program.columns[x]
        best: np.ndarray | None = None
        least = math.inf
        end = Termination.CONVERGED
        solves = 0
        for value in np.linspace(column.lower, column.upper, self.points):
            if context.stopped or context.expired:
                end = Termination.STOPPED_BY_USER if context.stopped else Termination.TIME_LIMIT
                break
            values = np.zeros(len(program.columns))
            values[x] = round(value) if column.integer else value
            follower, columns = program.follower_at(0, values)
            answer = Highs().solve(follower)
            solves += 1
            if answer.values is None:
                continue
            values[list(columns)] = answer.values
            worth = program.leader.objective.evaluate(values)
            if worth < least and program.high_point().violation(values) <= 1e-7:
                best, least = values, worth
                context.report("incumbent", objective=program.leader.in_users_sense(worth), lower_solves=solves)
        counts = {"lower_solves": solves}
        if best is None:
            return without_point(end, context, "No value tried satisfies both levels.", counts=counts)
        return with_point(problem, best, context, termination=end, claim=Claim.FEASIBLE, counts=counts)
