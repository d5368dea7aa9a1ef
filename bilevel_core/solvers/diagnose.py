"""Telling apart why there is no solution: the leader's doing, the follower's, or no bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bilevel_core.backends import Solution, SolveSettings, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, BilevelProgram, Function, Program, Row
from bilevel_core.result import Termination
from bilevel_core.solvers.single_level import pick, piece

PROBES = (1e5, 1e7, 1e9)
"""Objective values that are tried in turn for points beyond them."""

_TOGETHER = "The followers' optimality conditions have no solution together with the leader's constraints."

Solve = Callable[[Program], Solution]


def feasible_point(program: Program, time_limit: float | None) -> Solution:
    """Any point of the program."""
    goal = replace(program, objective=Function())
    return pick(goal).solve(goal, SolveSettings(time_limit=time_limit))


def why_infeasible(
    program: BilevelProgram, solve_system: Callable[[BilevelProgram], Solution], remaining: Callable[[], float | None]
) -> tuple[Termination, str]:
    """Why the optimality system of a problem with convex, linearly constrained followers has no solution.

    Args:
        program: the bilevel program.
        solve_system: solves the optimality system of a bilevel program.
        remaining: the seconds that are left, or None for no limit.
    """
    leader = program.leader
    followers_alone = program.high_point(leader_rows=False)
    if feasible_point(followers_alone, remaining()).status is SolveStatus.INFEASIBLE:
        return Termination.LOWER_INFEASIBLE, (
            "The followers' constraints have no common point for any value of the leader's variables."
        )
    relaxed = feasible_point(program.high_point(), remaining())
    if relaxed.status is SolveStatus.INFEASIBLE:
        return Termination.INFEASIBLE, (
            "No point satisfies the constraints of both levels, even without the followers' optimality."
        )
    lower = set(program.lower_columns)
    own_rows = tuple(r for r in leader.rows if r.function.columns.isdisjoint(lower))
    if len(own_rows) < len(leader.rows):
        uncoupled = replace(program, leader=replace(leader, objective=Function(), rows=own_rows))
        answered = solve_system(uncoupled)
        if answered.values is not None:
            return Termination.INFEASIBLE, (
                "The followers have optimal answers, but none of them satisfies the leader's constraints "
                f"({', '.join(r.name for r in leader.rows if r not in own_rows)}). Such constraints do not restrict "
                "what a follower chooses."
            )
        if answered.status is not SolveStatus.INFEASIBLE:  # cut short: the follower may be bounded elsewhere
            return Termination.INFEASIBLE, _TOGETHER
    if relaxed.values is not None:
        for k, follower in enumerate(program.followers):
            alone, _ = program.follower_at(k, relaxed.values)
            status = pick(alone).solve(alone, SolveSettings(time_limit=remaining())).status
            if status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
                return Termination.LOWER_UNBOUNDED, (
                    f"Follower {follower.name!r} is unbounded: its objective has no optimum over its constraints."
                )
    return Termination.INFEASIBLE, _TOGETHER


def bounded(program: Program, solve: Solve) -> tuple[Solution, bool]:
    """Solve a program whose relaxation is unbounded, by probing.

    Returns the solution, and whether the program is proven unbounded: the piece on which a point beyond a probe lies
    has a ray. Where no point lies beyond a probe, that proves a bound, and the solve within it is exact. Where points
    lie beyond every probe and no ray is found, the last of them is returned as a mere limit.
    """
    objective = program.objective
    for probe in PROBES:
        beyond = replace(program, objective=Function(), rows=(*program.rows, Row("probe", objective, -INF, -probe)))
        found = solve(beyond)
        if found.status is SolveStatus.INFEASIBLE:
            within = replace(program, rows=(*program.rows, Row("probe", objective, -probe, INF)))
            return solve(within), False
        if found.values is None:
            return found, False
        if _has_ray(program, found.values):
            return found, True
    worth = objective.evaluate(found.values)  # pyright: ignore[reportPossiblyUnboundVariable, reportArgumentType]
    return replace(found, status=SolveStatus.OTHER_LIMIT, objective=worth, bound=-INF), False  # pyright: ignore[reportPossiblyUnboundVariable]


def _has_ray(program: Program, values: np.ndarray) -> bool:
    rest = piece(program, values)
    if Highs().accepts(rest) is not None:
        return False
    return Highs().solve(rest).status is SolveStatus.UNBOUNDED
