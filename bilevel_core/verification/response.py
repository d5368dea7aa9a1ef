"""What a follower would really answer at a fixed x: its optimal value, whether other optimal answers exist, and which
of them the leader would like best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.face import natural_scale as natural_scale  # verify.py takes it from here
from bilevel_core.backends.face import optimal_face
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError
from bilevel_core.program import BilevelProgram, Function, Program, Row, linear

TIE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Answer:
    """A follower's re-solved problem.

    Attributes:
        status: how the re-solve ended.
        value: optimal value (minimised sense).
        values: an optimal answer over the follower's columns; None where there is none.
        scope: ``global`` or ``local``.
        response: ``unique``, ``ties`` or ``unknown``.
        message: what the backend said when it failed.
    """

    status: SolveStatus
    value: float = np.nan
    values: np.ndarray | None = None
    scope: str = "global"
    response: str = "unknown"
    message: str = ""


@dataclass(frozen=True)
class Task:
    """One follower's problem at fixed x; picklable, so that many can be solved through an executor."""

    program: Program
    time_limit: float | None


def answer(task: Task) -> Answer:
    """Solve one follower's problem from scratch, and look for other optimal answers."""
    solution, scope = _solve(task.program, task.time_limit)
    if solution.values is None or not solution.solved:
        return Answer(solution.status, scope=scope, message=solution.message)
    found = Answer(solution.status, solution.objective, solution.values, scope)
    return found if scope == "local" else replace(found, response=_ties(task, solution))


def _solve(program: Program, time_limit: float | None) -> tuple[Solution, str]:
    """The first backend that takes the program and ends with an answer, and whether that answer holds globally."""
    last = Solution(SolveStatus.ERROR, message="no backend takes the follower's problem")
    for backend in _backends():
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        options = {"numerics/feastol": tight_feastol(program, degree=2)} if backend.name == "scip" else {}
        try:
            solution = backend.solve(program, SolveSettings(time_limit=time_limit, options=options))
        except BackendError as error:
            last = Solution(SolveStatus.ERROR, message=str(error))
            continue
        if solution.status is not SolveStatus.ERROR:
            return solution, backend.scope
        last = solution
    return last, "global"


def _backends() -> Sequence[Backend]:
    return (Highs(), Scip(), Ipopt())


def _ties(task: Task, solution: Solution) -> str:
    """Whether the optimal answer is the only one: the extent of the optimal face along one random direction."""
    program = task.program
    assert solution.values is not None
    if not program.columns:
        return "unique"
    if _strictly_convex(program):
        return "unique"
    face = replace(program, rows=(*program.rows, *optimal_face(program, solution.objective, solution.values)))
    direction = np.random.default_rng(20_240_607).uniform(0.5, 1.5, len(program.columns))
    along = linear({i: float(d) for i, d in enumerate(direction)})
    ends: list[float] = []
    for sign in (1.0, -1.0):
        end, _ = _solve(replace(face, objective=along.scaled(sign)), task.time_limit)
        if end.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
            return "ties"
        if end.values is None or not end.solved:
            return "unknown"
        ends.append(along.evaluate(end.values))
    extent = abs(ends[1] - ends[0])
    return "ties" if extent > TIE_TOLERANCE * max(1.0, *(abs(e) for e in ends)) else "unique"


def _strictly_convex(program: Program) -> bool:
    f = program.objective
    free = [i for i, c in enumerate(program.columns) if not c.fixed]
    if f.degree != 2 or program.has_integers or program.row_degree > 1:
        return False
    hessian = f.hessian(free)
    return bool(np.linalg.eigvalsh(hessian)[0] > 1e-7 * max(1.0, float(np.abs(hessian).max())))


def hinges_on_tolerance(task: Task, found: Answer, value: float, tolerance: float) -> bool:
    """Whether a follower's optimal value lies below ``value`` only because the re-solve bends its constraints.

    Without a constraint qualification (y^2 <= 0) the optimal value is infinitely sensitive, and no solver with
    tolerances can tell. The rows that the answer bends are tightened by twice as much, and solved again.
    """
    if found.values is None:
        return False
    rows: list[Row] = []
    bent = False
    for row in task.program.rows:
        excess = row.violation(found.values)
        if excess > 0.0 and not row.equality:
            bent = True
            row = replace(row, lower=row.lower + 2.0 * excess, upper=row.upper - 2.0 * excess)
        rows.append(row)
    if not bent:
        return False
    tight, _ = _solve(replace(task.program, rows=tuple(rows)), task.time_limit)
    return tight.values is None or value - tight.objective <= tolerance


def best_for_leader(
    program: BilevelProgram,
    values: np.ndarray,
    answers: Sequence[Answer],
    time_limit: float | None,
    loosened: float = 1.0,
) -> float | None:
    """The leader's best objective (minimised sense) over the followers' optimal answers at this x.

    ``loosened`` widens the tolerance on the followers' optimality, to tell what of the value is owed to it.

    None where it cannot be had: a Nash game among followers, a local re-solve, or no backend that ends in time.
    """
    if program.is_game or any(a.values is None or a.scope == "local" for a in answers):
        return None
    if _separable(program):
        return _sum_of_bests(program, values, answers, time_limit, loosened)
    lower = program.lower_columns
    position = {c: k for k, c in enumerate(lower)}
    rows: list[Row] = []
    for k, found in enumerate(answers):
        alone, columns = program.follower_at(k, values)
        assert found.values is not None
        to = {own: position[c] for own, c in enumerate(columns)}
        face = optimal_face(alone, found.value, found.values, loosened)
        rows += [replace(r, function=r.function.renumbered(to)) for r in (*alone.rows, *face)]

    def at_x(f: Function) -> Function:
        return f.fix({i: float(values[i]) for i in f.columns if i not in position}).renumbered(position)

    for row in program.leader.rows:
        if not row.function.columns.isdisjoint(position):
            rows.append(replace(row, function=at_x(row.function)))
    goal = Program(tuple(program.columns[i] for i in lower), at_x(program.leader.objective), tuple(rows))
    solution, scope = _solve(goal, time_limit)
    if solution.values is None or not solution.solved or scope == "local":
        return None
    return solution.objective


def _separable(program: BilevelProgram) -> bool:
    """Whether the leader's objective is a sum over followers, and no constraint of the leader's ties them together."""
    owner = {i: k for k, follower in enumerate(program.followers) for i in follower.columns}
    f = program.leader.objective
    if len(program.followers) < 2 or f.nonlinear is not None:
        return False
    if any(i in owner and j in owner and owner[i] != owner[j] for i, j in f.quadratic):
        return False
    return all(r.function.columns.isdisjoint(owner) for r in program.leader.rows)


def _sum_of_bests(
    program: BilevelProgram, values: np.ndarray, answers: Sequence[Answer], time_limit: float | None, loosened: float
) -> float | None:
    """`best_for_leader` follower by follower. Those with a unique answer have nothing to choose."""
    objective = program.leader.objective
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
        solution, scope = _solve(replace(alone, objective=share, rows=(*alone.rows, *face)), time_limit)
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
