"""A first bilevel feasible point, so that a search that is cut short has something to show.

The leader's part of the high-point relaxation's optimum is fixed and the followers answer it; the active constraints
of that answer select one piece of the optimality system, over which the leader's objective is then optimised.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bilevel_core.backends import SolveSettings
from bilevel_core.errors import BackendError, RefusedError
from bilevel_core.program import BilevelProgram, Function, Program, Row
from bilevel_core.reductions.kkt import Multiplier
from bilevel_core.solvers.single_level import pick, polish

ACTIVE = 1e-7


def first_point(
    program: BilevelProgram, system: Program, multipliers: tuple[Multiplier, ...], remaining: Callable[[], float | None]
) -> np.ndarray | None:
    """A point of the optimality system, or None where this simple way finds none.

    Args:
        program: the bilevel program.
        system: its optimality system (see `OptimalityConditions`).
        multipliers: the system's multipliers.
        remaining: the seconds that are left, or None for no limit; asked before each of the few solves.
    """
    best: np.ndarray | None = None
    value = np.inf
    relaxed = program.high_point()
    priced = {d.column for d in program.duals}
    for objective in (relaxed.objective, Function()):
        if not priced.isdisjoint(objective.columns):
            continue  # nothing bounds multipliers without the conditions that they satisfy
        found = _try(program, system, multipliers, objective, remaining)
        if found is not None and (worth := system.objective.evaluate(found)) < value:
            best, value = found, worth
    return best


def _try(
    program: BilevelProgram,
    system: Program,
    multipliers: tuple[Multiplier, ...],
    objective: Function,
    remaining: Callable[[], float | None],
) -> np.ndarray | None:
    relaxed = program.high_point()
    try:
        goal = Program(relaxed.columns, objective, relaxed.rows)
        point = pick(goal).solve(goal, SolveSettings(time_limit=remaining())).values
        if point is None:
            return None
        for k in range(len(program.followers)):
            alone, columns = program.follower_at(k, point)
            answer = pick(alone).solve(alone, SolveSettings(time_limit=remaining())).values
            if answer is None:
                return None
            point[list(columns)] = answer
        values = with_multipliers(program, system, multipliers, point)
    except (BackendError, RefusedError):
        return None  # a start is a convenience: the search goes on without one
    if values is None:
        return None
    clean = polish(system, values, remaining())
    return values if clean is None else clean.values


def with_multipliers(
    program: BilevelProgram, system: Program, multipliers: tuple[Multiplier, ...], point: np.ndarray
) -> np.ndarray | None:
    """Slacks as they are, and multipliers that make the point stationary, by a linear program."""
    width = len(program.columns)
    priced = {d.column for d in program.duals}
    fixed = {i: float(v) for i, v in enumerate(point) if i not in priced}
    for m in multipliers:
        slack = max(0.0, m.slack.evaluate(point))
        if m.slack_column >= width:
            fixed[m.slack_column] = slack if slack > ACTIVE else 0.0
        if slack > ACTIVE:
            fixed[m.column] = 0.0
    here = np.zeros(len(system.columns))
    here[list(fixed)] = list(fixed.values())
    rows: list[Row] = []
    for row in system.rows:
        function = row.function.fix({i: fixed[i] for i in row.function.columns if i in fixed})
        if function.degree == 0:
            if row.violation(here) > 1e-6 * row.function.scale(here):
                return None
            continue
        rows.append(Row(row.name, function, row.lower, row.upper))
    goal = Program(system.fix(fixed).columns, Function(), tuple(rows))
    solution = pick(goal).solve(goal)
    return solution.values
