"""Telling apart why there is no solution: the leader's doing, the follower's, or no bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bilevel_core.backends import Solution, SolveSettings, SolveStatus
from bilevel_core.program import BilevelProgram, Function, Program
from bilevel_core.result import Termination
from bilevel_core.solvers.single_level import pick

_TOGETHER = "The followers' optimality conditions have no solution together with the leader's constraints."


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
