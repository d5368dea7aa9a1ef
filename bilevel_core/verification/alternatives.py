"""The followers' other optimal answers at a fixed x: which of them suits the leader best, and which worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.face import natural_scale, optimal_face
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.errors import BackendError
from bilevel_core.program import INF, BilevelProgram, Function, Program, Row, Variable, linear
from bilevel_core.verification.multipliers import multiplier_system
from bilevel_core.verification.response import Answer, solve

DESCENT_SECONDS, DESCENT_TOLERANCE = 5.0, 1e-6
_UNBOUNDED = (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED)


def best_for_leader(
    program: BilevelProgram,
    values: np.ndarray,
    answers: Sequence[Answer],
    time_limit: float | None,
    loosened: float = 1.0,
    *,
    settle: bool = False,
) -> float | None:
    """The leader's best objective (minimised sense) over the followers' optimal answers at this x, and over their
    multipliers where the leader uses those.

    ``loosened`` widens the tolerance on the followers' optimality, to tell what of the value is owed to it. With
    ``settle`` the answer found is what the followers go on to from it, where they are nonlinear; see `_settled`.

    None where it cannot be had: a Nash game among followers, a local re-solve, or no backend that ends in time.
    """
    lower = {*program.lower_columns, *(d.column for d in program.duals)}
    rows = [r for r in program.leader.rows if not r.function.columns.isdisjoint(lower)]
    found = _least(program, program.leader.objective, rows, values, answers, time_limit, loosened, settle=settle)
    return found if found is not None and math.isfinite(found) else None


def worst_for_leader(
    program: BilevelProgram,
    values: np.ndarray,
    answers: Sequence[Answer],
    time_limit: float | None,
    objective: Function | None = None,
    *,
    settle: bool = False,
) -> float | None:
    """The largest value of the leader's objective (minimised sense), or of another function, over the followers'
    optimal answers at this x, whether or not they satisfy the leader's constraints. Infinite where it has no limit.

    None where it cannot be had, as for `best_for_leader`, or where the leader uses multipliers. ``settle`` as there.
    """
    if program.duals:
        return None
    goal = -(program.leader.objective if objective is None else objective)
    found = _least(program, goal, (), values, answers, time_limit, 1.0, settle=settle)
    if found is None or not math.isfinite(found):
        return None if found is None else -found
    if settle:
        return -found
    wider = _least(program, goal, (), values, answers, time_limit, 10.0)
    # What is owed to the tolerance grows with it; the rest does not. Tenfold: a ninth of the growth is the share.
    owed = 0.0 if wider is None or not math.isfinite(wider) else (found - wider) / 9.0
    return -(found + owed)


def _least(
    program: BilevelProgram,
    objective: Function,
    rows: Sequence[Row],
    values: np.ndarray,
    answers: Sequence[Answer],
    time_limit: float | None,
    loosened: float,
    *,
    settle: bool = False,
) -> float | None:
    """The least value of a function over the followers' optimal answers subject to some rows of the leader's."""
    if program.is_game or any(a.values is None or a.scope == "local" for a in answers):
        return None
    if not rows and not settle and _separable(program, objective):
        return _sum_of_least(program, objective, values, answers, time_limit, loosened)
    free = (*program.lower_columns, *(d.column for d in program.duals))
    position = {c: k for k, c in enumerate(free)}
    columns: list[Variable] = [program.columns[i] for i in free]
    joint: list[Row] = []
    for k, found in enumerate(answers):
        alone, own = program.follower_at(k, values)
        assert found.values is not None
        to = {mine: position[c] for mine, c in enumerate(own)}
        face = optimal_face(alone, found.value, found.values, loosened)
        joint += [replace(r, function=r.function.renumbered(to)) for r in (*alone.rows, *face)]
        if any(d.follower == k for d in program.duals):
            if Highs().accepts(alone) is not None:
                return None  # multipliers may differ from answer to answer
            more, tied = _with_duals(program, k, alone, found.values, position, len(columns))
            columns += more
            joint += tied

    def at_x(f: Function) -> Function:
        return f.fix({i: float(values[i]) for i in f.columns if i not in position}).renumbered(position)

    joint += [replace(r, function=at_x(r.function)) for r in rows]
    solution, scope = solve(Program(tuple(columns), at_x(objective), tuple(joint)), time_limit)
    if solution.status in _UNBOUNDED:
        return -math.inf  # the followers' answers are in it, so it is not empty
    if solution.values is None or not solution.solved or scope == "local":
        return None
    if not settle:
        return solution.objective
    at = values.copy()
    at[list(free)] = solution.values
    return objective.evaluate(_settled(program, at))


def _settled(program: BilevelProgram, at: np.ndarray) -> np.ndarray:
    """The point with each nonlinear follower's answer replaced by the local optimum that a descent from it ends at.

    Where an objective is flat, answers that are optimal up to a tolerance e lie as far as sqrt(e) from those that are
    optimal, and the leader's value differs as much: more than any tolerance on e would suggest. What a follower would
    leave by going downhill is no answer of its. Integers stay as they are.
    """
    out = at.copy()
    for k, follower in enumerate(program.followers):
        alone, columns = program.follower_at(k, at)
        here = at[list(columns)]
        fixed = alone.fix({i: float(round(here[i])) for i, c in enumerate(alone.columns) if c.integer})
        if Highs().accepts(fixed) is None or Ipopt().refusal(fixed) is not None or all(c.fixed for c in fixed.columns):
            continue
        try:
            found = Ipopt().solve(fixed, SolveSettings(start=here, time_limit=DESCENT_SECONDS, options={"tol": 1e-11}))
        except BackendError:
            continue
        # Where it started it may have been better by violating constraints within a backend's tolerance.
        allowed = DESCENT_TOLERANCE * natural_scale(alone.objective, here)
        if found.values is not None and found.solved and found.objective <= alone.objective.evaluate(here) + allowed:
            out[list(follower.columns)] = found.values
    return out


def _with_duals(
    program: BilevelProgram, k: int, alone: Program, at: np.ndarray, position: dict[int, int], first: int
) -> tuple[list[Variable], list[Row]]:
    """The multipliers of a follower as columns, their conditions, and the dual values that they add up to."""
    system = multiplier_system(alone, at, maximise=program.followers[k].maximise, first=first)
    ties = [
        Row("dual", linear({position[d.column]: -1.0} | system.worth[d.row]), 0.0, 0.0)
        for d in program.duals
        if d.follower == k
    ]
    return system.columns, [*system.rows, *ties]


def _separable(program: BilevelProgram, f: Function) -> bool:
    """Whether a function is a sum over several followers."""
    owner = {i: k for k, follower in enumerate(program.followers) for i in follower.columns}
    if len(program.followers) < 2 or f.nonlinear is not None or program.duals:
        return False
    return not any(i in owner and j in owner and owner[i] != owner[j] for i, j in f.quadratic)


def _sum_of_least(
    program: BilevelProgram,
    objective: Function,
    values: np.ndarray,
    answers: Sequence[Answer],
    time_limit: float | None,
    loosened: float,
) -> float | None:
    """`_least` follower by follower. Those with a unique answer have nothing to choose."""
    at = values.copy()
    for k, found in enumerate(answers):
        at[list(program.followers[k].columns)] = found.values
    total = objective.evaluate(at)
    for k, found in enumerate(answers):
        if found.response == "unique":
            continue
        alone, columns = program.follower_at(k, values)
        assert found.values is not None
        position = {c: n for n, c in enumerate(columns)}
        share = _share(objective, at, position)
        face = optimal_face(alone, found.value, found.values, loosened)
        solution, scope = solve(replace(alone, objective=share, rows=(*alone.rows, *face)), time_limit)
        if solution.status in _UNBOUNDED:
            return -INF
        if solution.values is None or not solution.solved or scope == "local":
            return None
        total += solution.objective - share.evaluate(found.values)
    return total


def _share(objective: Function, at: np.ndarray, position: dict[int, int]) -> Function:
    """The part of a separable objective that one follower's columns decide, the leader's columns fixed."""
    own = Function(
        0.0,
        {i: c for i, c in objective.linear.items() if i in position},
        {p: c for p, c in objective.quadratic.items() if p[0] in position or p[1] in position},
    )
    return own.fix({i: float(at[i]) for i in own.columns if i not in position}).renumbered(position)
