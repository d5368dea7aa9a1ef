"""Four solvers that are wrong in ways that have been seen in published software. The kit must catch each of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bilevel_core import Accepted, Claim, Refused, RunContext, Solver, Termination, Traits
from bilevel_core.backends.highs import Highs
from bilevel_core.solvers.assemble import with_point, without_point


@dataclass(frozen=True)
class _Grid(Solver):
    """Tries values of a single leader variable; the faulty ones below get everything else from it."""

    points: int = field(default=21, metadata={"help": "how many values to try"})

    def accepts(self, traits: Traits) -> Accepted | Refused:
        if traits.form != "algebraic" or traits.upper_variables != 1 or len(traits.followers) != 1:
            return Refused("it needs one leader variable and one follower")
        if traits.followers[0].label not in ("LP", "MILP"):
            return Refused("it needs a linear follower")
        return Accepted("values on a grid", "global")

    def values(self, low: float, high: float) -> Any:
        return np.linspace(low, high, self.points)

    def cut(self, context: RunContext) -> Termination | None:
        if context.stopped:
            return Termination.STOPPED_BY_USER
        return Termination.TIME_LIMIT if context.expired else None

    def run(self, problem: Any, context: RunContext) -> Any:
        program = problem.program()
        (x,) = program.leader.columns
        column = program.columns[x]
        best: tuple[float, np.ndarray] | None = None
        cut = self.cut(context)
        for value in self.values(max(column.lower, -10.0), min(column.upper, 10.0)):
            cut = self.cut(context)
            if cut is not None:
                break
            values = np.zeros(len(program.columns))
            values[x] = round(value) if column.integer else value
            follower, columns = program.follower_at(0, values)
            answer = Highs().solve(follower)
            if answer.values is None:
                continue
            values[list(columns)] = answer.values
            worth = program.leader.objective.evaluate(values)
            if program.high_point().violation(values) < 1e-7 and (best is None or worth < best[0]):
                best = worth, values
        if best is None:
            return without_point(cut or Termination.CONVERGED, context, "No value tried was feasible.")
        return with_point(problem, best[1], context, termination=cut or Termination.CONVERGED, claim=Claim.FEASIBLE)


@dataclass(frozen=True)
class Wishful(_Grid):
    """Solves the relaxation without "the answer is optimal", and calls its point globally optimal."""

    def run(self, problem: Any, context: RunContext) -> Any:
        cut = self.cut(context)
        if cut is not None:
            return without_point(cut, context, "cut short")
        answer = Highs().solve(problem.program().high_point())
        if answer.values is None:
            return without_point(Termination.INFEASIBLE, context, "The relaxation is infeasible.")
        return with_point(
            problem,
            np.asarray(answer.values),
            context,
            termination=Termination.CONVERGED,
            claim=Claim.GLOBAL,
            bound=problem.program().leader.objective.evaluate(np.asarray(answer.values)),
        )


@dataclass(frozen=True)
class Minimised(_Grid):
    """Reports both objectives as it minimised them, whatever the user's sense."""

    def run(self, problem: Any, context: RunContext) -> Any:
        result = super().run(problem, context)
        if not result.has_point:
            return result
        program = problem.program()
        values = problem.vector(result.x, result.y)
        return replace(
            result,
            upper_objective=program.leader.objective.evaluate(values),
            lower_objective=program.followers[0].objective.evaluate(values),
        )


@dataclass(frozen=True)
class Deaf(_Grid):
    """Hears neither the clock nor a request to stop, and says that its search was complete."""

    def cut(self, context: RunContext) -> Termination | None:
        return None

    def run(self, problem: Any, context: RunContext) -> Any:
        result = super().run(problem, context)
        return replace(result, claim=Claim.LOCAL) if result.has_point else result


@dataclass(frozen=True, init=False)
class Careless(_Grid):
    """Draws from a global generator, leaves the user's model fixed, and swallows options that it does not have."""

    points: int = field(default=21, metadata={"help": "how many values to try"})

    def __init__(self, **options: Any) -> None:
        object.__setattr__(self, "points", int(options.get("points", 21)))

    def values(self, low: float, high: float) -> Any:
        return [random.uniform(low, high) for _ in range(self.points)]

    def run(self, problem: Any, context: RunContext) -> Any:
        result = super().run(problem, context)
        if result.has_point:
            problem.model.x.fix(float(result.x["x"]))
        return result
