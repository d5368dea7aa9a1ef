"""What a follower would really answer at a fixed x: its optimal value, and whether other optimal answers exist."""

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
from bilevel_core.program import Program, Row, linear, positive_semidefinite

TIE_TOLERANCE = 1e-5
PINCHED = 1e-12
GAP = 1e-7
"""Gap, absolute and relative, up to which nonconvex programs are solved."""
BENT = 1e-6
"""An answer that violates the follower's problem by more (relative) is no evidence against another."""


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
    """One follower's problem at fixed x; picklable, so that many can be solved through an executor.

    Answers that differ in the columns ``ignored`` only are one and the same.
    """

    program: Program
    time_limit: float | None
    ignored: frozenset[int] = frozenset()


def answer(task: Task) -> Answer:
    """Solve one follower's problem from scratch, and look for other optimal answers."""
    task = replace(task, program=unpinched(task.program))
    solution, scope = solve(task.program, task.time_limit)
    if task.program.has_integers and scope == "global":
        solution = _second_opinion(task, solution)
    if solution.values is None or not solution.solved:
        return Answer(solution.status, scope=scope, message=solution.message)
    found = Answer(solution.status, solution.objective, solution.values, scope)
    return found if scope == "local" else replace(found, response=_ties(task, solution))


def _second_opinion(task: Task, first: Solution) -> Solution:
    """An integer follower's answer by HiGHS put to SCIP as well: the better of two feasible answers is a fact, whatever
    either of them says of the other.
    """
    program, scip = task.program, Scip()
    if Highs().accepts(program) is not None or not scip.available().available:
        return first  # SCIP has solved it already, or cannot
    try:
        second = scip.solve(program, SolveSettings(time_limit=task.time_limit))
    except BackendError:
        return first
    if second.values is None or not second.solved or program.violation(second.values) > BENT:
        return first
    if first.values is None or not first.solved:
        return first if first.status is SolveStatus.UNBOUNDED else second
    worth = natural_scale(program.objective, second.values)
    return second if second.objective < first.objective - 1e-7 * worth else first


def solve(program: Program, time_limit: float | None) -> tuple[Solution, str]:
    """The first backend that takes the program and ends with an answer, and whether that answer holds globally."""
    last = Solution(SolveStatus.ERROR, message="no backend takes the follower's problem")
    for backend in _backends():
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        options: dict[str, float] = {}
        if backend.name == "scip":
            # Down to a gap of zero a flat objective takes branch-and-bound minutes; no tolerance here is as small.
            gap = GAP * (min(1.0, program.objective.size) or 1.0)
            options = {"numerics/feastol": tight_feastol(program, degree=2), "limits/absgap": gap, "limits/gap": GAP}
        try:
            solution = backend.solve(program, SolveSettings(time_limit=time_limit, options=options))
        except BackendError as error:
            last = Solution(SolveStatus.ERROR, message=str(error))
            continue
        if solution.status is not SolveStatus.ERROR:
            return solution, backend.scope
        last = solution
    return last, "global"


def unpinched(program: Program) -> Program:
    """The same program with rows that hold only where a convex quadratic function is least written as linear ones.

    Solvers with tolerances bend a row such as y^2 <= 0, which has no interior, and the optimal value with it: by the
    square root of the tolerance. Where the gradient vanishes is the same set, and exact.
    """
    rows: list[Row] = []
    for row in program.rows:
        gradient = _vanishing_gradient(row)
        rows += [row] if gradient is None else gradient
    return replace(program, rows=tuple(rows))


def _vanishing_gradient(row: Row) -> list[Row] | None:
    for f, bound in ((row.function, row.upper), (-row.function, -row.lower)):
        order = sorted({i for pair in f.quadratic for i in pair})
        if f.degree != 2 or not np.isfinite(bound) or row.equality or not set(f.linear) <= set(order):
            continue
        hessian, slope = f.hessian(order), np.array([f.linear.get(i, 0.0) for i in order])
        if not positive_semidefinite(hessian):
            continue
        least = np.linalg.lstsq(hessian, -slope, rcond=None)[0]
        if np.abs(hessian @ least + slope).max() > PINCHED * max(1.0, np.abs(slope).max()):
            continue
        if abs(f.constant + 0.5 * float(slope @ least) - bound) <= PINCHED * max(1.0, abs(bound), abs(f.constant)):
            return [Row(f"{row.name}:{i}", f.partial(i), 0.0, 0.0) for i in order]
    return None


def _backends() -> Sequence[Backend]:
    return (Highs(), Scip(), Ipopt())


def _ties(task: Task, solution: Solution) -> str:
    """Whether the optimal answer is the only one: the extent of the optimal face along one random direction."""
    program = task.program
    assert solution.values is not None
    if len(task.ignored) == len(program.columns):
        return "unique"
    if _strictly_convex(program):
        return "unique"
    face = replace(program, rows=(*program.rows, *optimal_face(program, solution.objective, solution.values)))
    direction = np.random.default_rng(20_240_607).uniform(0.5, 1.5, len(program.columns))
    along = linear({i: float(d) for i, d in enumerate(direction) if i not in task.ignored})
    ends: list[float] = []
    for sign in (1.0, -1.0):
        end, _ = solve(replace(face, objective=along.scaled(sign)), task.time_limit)
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
    tight, _ = solve(replace(task.program, rows=tuple(rows)), task.time_limit)
    return tight.values is None or value - tight.objective <= tolerance
