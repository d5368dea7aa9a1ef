"""The followers' other optimal answers at a fixed x: which of them suits the leader best, and which worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.backends.face import optimal_face
from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, BilevelProgram, Function, Program, Row, Variable, linear
from bilevel_core.verification.multipliers import multiplier_system
from bilevel_core.verification.response import WIDER, Answer, Deadline, is_polyhedral, loosening, owed, solve

_UNBOUNDED = (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED)


@dataclass(frozen=True)
class Extreme:
    """The least or largest value of a function over the followers' optimal answers.

    Attributes:
        limit: no optimal answer goes beyond it.
        shown: what optimal answers reach beyond doubt; between it and the limit lies what may be owed to the tolerance
            on optimality.
    """

    limit: float
    shown: float


@dataclass(frozen=True)
class Choice:
    """Among what the followers may choose at a fixed x.

    Attributes:
        program: the bilevel program.
        values: the point.
        answers: the followers' answers, re-solved.
        hidden: columns that belong to no variable of the user's. Those of the leader follow from the others.
        deadline: of the whole check.
    """

    program: BilevelProgram
    values: np.ndarray
    answers: Sequence[Answer]
    hidden: frozenset[int]
    deadline: Deadline

    @cached_property
    def follows(self) -> frozenset[int]:
        """The leader's columns whose values follow from the followers' (the epigraph of a norm). Those that follow from
        the leader's own variables only are as fixed as these.
        """
        hidden = self.hidden & frozenset(self.program.leader.columns)
        moving, found = set(self.program.lower_columns), set[int]()
        while True:
            rows = (r.function.columns for r in self.program.leader.rows if not moving.isdisjoint(r.function.columns))
            more = {i for columns in rows for i in columns & hidden} - found
            if not more:
                return frozenset(found)
            found |= more
            moving |= more

    @cached_property
    def alone(self) -> tuple[Program, ...]:
        """The followers' programs at this x."""
        return tuple(self.program.follower_at(k, self.values)[0] for k in range(len(self.program.followers)))

    @cached_property
    def polyhedral(self) -> bool:
        """Whether every follower's optimal answers are cut out by linear rows."""
        return all(is_polyhedral(p) for p in self.alone)


def best_for_leader(choice: Choice, below: float) -> Extreme | None:
    """The leader's best objective (minimised sense) over the followers' optimal answers at this x, and over their
    multipliers where the leader uses those.

    None where it cannot be had: a Nash game among followers, a local re-solve, or no backend that ends in time.

    Args:
        choice: what there is to choose from.
        below: only values below this are of interest; what is owed to tolerances is found out for those only.
    """
    program = choice.program
    own = {*program.lower_columns, *(d.column for d in program.duals), *choice.follows}
    rows = [r for r in program.leader.rows if not r.function.columns.isdisjoint(own)]
    limit = _least(choice, program.leader.objective, rows, 1.0)
    if limit is None or not math.isfinite(limit):
        return None
    if limit >= below:
        return Extreme(limit, limit)
    wider = _least(choice, program.leader.objective, rows, WIDER)
    if wider is None or not math.isfinite(wider):
        return Extreme(limit, math.inf)
    return Extreme(limit, limit + owed(-limit, -wider, polyhedral=choice.polyhedral))


def worst_for_leader(choice: Choice, objective: Function | None = None) -> Extreme | None:
    """The largest value of the leader's objective (minimised sense), or of another function, over the followers'
    optimal answers at this x, whether or not they satisfy the leader's constraints. Infinite where it has no limit.

    None where it cannot be had, as for `best_for_leader`, or where the leader uses multipliers or columns that follow
    from the followers' (the largest value of an epigraph's column has no limit, and is no value of the function).
    """
    goal = -(choice.program.leader.objective if objective is None else objective)
    if choice.program.duals or not goal.columns.isdisjoint(choice.follows):
        return None
    found = _least(choice, goal, (), 1.0)
    if found is None:
        return None
    if not math.isfinite(found):
        return Extreme(-found, -found) if choice.polyhedral else None
    wider = _least(choice, goal, (), WIDER)
    if wider is None or not math.isfinite(wider):
        return Extreme(-found, -found if choice.polyhedral else -math.inf)
    shown = -found - owed(-found, -wider, polyhedral=choice.polyhedral)
    return Extreme(shown if choice.polyhedral else -found, shown)


def _least(choice: Choice, objective: Function, rows: Sequence[Row], loosened: float) -> float | None:
    """The least value of a function over the followers' optimal answers subject to some rows of the leader's, the
    tolerance on optimality widened by a factor.
    """
    program, values, answers = choice.program, choice.values, choice.answers
    if program.is_game or any(a.values is None or a.scope == "local" for a in answers):
        return None
    if not rows and _separable(program, objective) and objective.columns.isdisjoint(choice.follows):
        return _sum_of_least(choice, objective, loosened)
    free = (*program.lower_columns, *(d.column for d in program.duals), *sorted(choice.follows))
    position = {c: k for k, c in enumerate(free)}
    columns: list[Variable] = [program.columns[i] for i in free]
    joint: list[Row] = []
    for k, found in enumerate(answers):
        alone = choice.alone[k]
        assert found.values is not None
        to = {mine: position[c] for mine, c in enumerate(program.followers[k].columns)}
        face = optimal_face(alone, found.value, found.values, loosening(alone) * loosened)
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
    solution, scope = solve(Program(tuple(columns), at_x(objective), tuple(joint)), choice.deadline)
    if solution.status in _UNBOUNDED:
        return -math.inf  # the followers' answers are in it, so it is not empty
    if solution.values is None or not solution.solved or scope == "local":
        return None
    return solution.objective


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


def _sum_of_least(choice: Choice, objective: Function, loosened: float) -> float | None:
    """`_least` follower by follower. Those with a unique answer have nothing to choose."""
    at = choice.values.copy()
    for k, found in enumerate(choice.answers):
        at[list(choice.program.followers[k].columns)] = found.values
    total = objective.evaluate(at)
    for k, found in enumerate(choice.answers):
        if found.response == "unique":
            continue
        alone = choice.alone[k]
        assert found.values is not None
        position = {c: n for n, c in enumerate(choice.program.followers[k].columns)}
        share = _share(objective, at, position)
        face = optimal_face(alone, found.value, found.values, loosening(alone) * loosened)
        solution, scope = solve(replace(alone, objective=share, rows=(*alone.rows, *face)), choice.deadline)
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
