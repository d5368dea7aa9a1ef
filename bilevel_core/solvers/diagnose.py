"""Telling apart why there is no solution: the leader's doing, the follower's, or no bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bilevel_core.backends import Solution, SolveSettings, SolveStatus
from bilevel_core.program import BilevelProgram, Function, Program, Row
from bilevel_core.result import Termination
from bilevel_core.solvers.single_level import pick
from bilevel_core.solvers.unbounded import improving

_TOGETHER = "The followers' optimality conditions have no solution together with the leader's constraints."


def feasible_point(program: Program, time_limit: float | None) -> Solution:
    """Any point of the program."""
    goal = replace(program, objective=Function())
    return pick(goal).solve(goal, SolveSettings(time_limit=time_limit))


def plainly_infeasible(
    program: BilevelProgram, remaining: Callable[[], float | None]
) -> tuple[Termination, str] | None:
    """Proofs that there is no solution that need no optimality conditions, for followers of any kind.

    Args:
        program: the bilevel program.
        remaining: the seconds that are left, or None for no limit.

    Returns:
        None where there is no such proof.
    """
    leader = program.leader
    own = set(leader.columns)
    position = {c: k for k, c in enumerate(leader.columns)}
    rows = [replace(r, function=r.function.renumbered(position)) for r in leader.rows if r.function.columns <= own]
    alone = Program(tuple(program.columns[i] for i in leader.columns), Function(), tuple(rows))
    if alone.columns and feasible_point(alone, remaining()).status is SolveStatus.INFEASIBLE:
        return Termination.INFEASIBLE, (
            "The leader's own bounds, integrality and constraints contradict each other, whatever the followers do."
        )
    if feasible_point(program.high_point(leader_rows=False), remaining()).status is SolveStatus.INFEASIBLE:
        return Termination.LOWER_INFEASIBLE, (
            "The followers' constraints have no common point for any value of the leader's variables."
        )
    if feasible_point(program.high_point(), remaining()).status is SolveStatus.INFEASIBLE:
        return Termination.INFEASIBLE, (
            "No point satisfies the constraints of both levels, even without the followers' optimality."
        )
    for k, follower in enumerate(program.followers):
        if always_unbounded(program, k):
            return Termination.LOWER_UNBOUNDED, _UNBOUNDED.format(follower.name)
    return None


_UNBOUNDED = "Follower {!r} is unbounded: its objective has no optimum over its constraints."


def always_unbounded(program: BilevelProgram, index: int) -> bool:
    """Whether a follower's objective falls for ever along one direction from all its points, whatever others do.

    Such a direction changes no product with other people's variables and no quadratic or nonlinear term.
    """
    follower = program.followers[index]
    own = set(follower.columns)
    position = {c: k for k, c in enumerate(follower.columns)}
    still: set[int] = set()
    for f in (follower.objective, *(r.function for r in follower.rows)):
        if f.nonlinear is not None:
            still |= Function(nonlinear=f.nonlinear).columns & own
        still |= {i for pair in f.quadratic if not own.issuperset(pair) for i in pair if i in own}

    def restricted(f: Function) -> Function:
        return Function(
            linear={position[i]: c for i, c in f.linear.items() if i in own},
            quadratic={(position[i], position[j]): c for (i, j), c in f.quadratic.items() if own.issuperset((i, j))},
        )

    columns = tuple(replace(program.columns[i], integer=False) for i in follower.columns)
    columns = tuple(
        replace(c, lower=0.0, upper=0.0) if i in still else c for i, c in zip(follower.columns, columns, strict=True)
    )
    rows: list[Row] = []
    for row in follower.rows:
        f = restricted(row.function)
        rows += [Row("flat", replace(f.partial(i), constant=0.0), 0.0, 0.0) for i in _curved(f)]
        rows.append(Row(row.name, replace(f, quadratic={}), row.lower, row.upper))
    objective = restricted(follower.objective)
    rows += [Row("flat", replace(objective.partial(i), constant=0.0), 0.0, 0.0) for i in _curved(objective)]
    return bool(columns) and improving(Program(columns, replace(objective, quadratic={}), tuple(rows)))


def _curved(f: Function) -> set[int]:
    return {i for pair in f.quadratic for i in pair}


def why_infeasible(
    program: BilevelProgram, solve_system: Callable[[BilevelProgram], Solution], remaining: Callable[[], float | None]
) -> tuple[Termination, str]:
    """Why the optimality system of a problem with convex, linearly constrained followers has no solution, where
    `plainly_infeasible` finds nothing.

    Args:
        program: the bilevel program.
        solve_system: solves the optimality system of a bilevel program.
        remaining: the seconds that are left, or None for no limit.
    """
    leader = program.leader
    relaxed = feasible_point(program.high_point(), remaining())
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
                return Termination.LOWER_UNBOUNDED, _UNBOUNDED.format(follower.name)
    return Termination.INFEASIBLE, _TOGETHER
