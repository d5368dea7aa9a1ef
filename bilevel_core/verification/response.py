"""What a follower would really answer at a fixed x: its optimal value, and whether other optimal answers exist."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.face import natural_scale as natural_scale  # verify.py takes it from here
from bilevel_core.backends.face import optimal_face
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.program import INF, Program, Row, linear, positive_semidefinite
from bilevel_core.verification.uniqueness import is_only_answer

TIE_TOLERANCE = 1e-5
"""Optimal answers that differ by less than this in every column, relative to its size, are one and the same."""

PINCHED = 1e-12
GAP = 1e-7
"""Gap, absolute and relative, up to which nonconvex programs are solved."""
BENT = 1e-6
"""An answer that violates the follower's problem by more (relative) is no evidence against another."""

WIDER = 100.0
"""By what factor the tolerance on optimality is widened, to tell what of a set's extent is owed to it."""


@dataclass(frozen=True)
class Deadline:
    """When a check must end, by the system's clock, so that it means the same in other processes.

    Attributes:
        limit: seconds that the whole check may take; None for no limit.
        end: seconds since the epoch.
    """

    limit: float | None = None
    end: float = INF

    @classmethod
    def after(cls, limit: float | None) -> Deadline:
        """The deadline of a check that begins now."""
        return cls(limit, INF if limit is None else time.time() + limit)

    @property
    def over(self) -> bool:
        """Whether the time has run out."""
        return time.time() >= self.end

    def left(self) -> float | None:
        """The seconds that are left, at least 0; None for no limit."""
        return None if self.limit is None else max(0.0, self.end - time.time())


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
    deadline: Deadline
    ignored: frozenset[int] = frozenset()


def answer(task: Task) -> Answer:
    """Solve one follower's problem from scratch, and look for other optimal answers."""
    task = replace(task, program=unpinched(task.program))
    solution, scope = solve(task.program, task.deadline)
    if task.program.has_integers and scope == "global":
        solution = _second_opinion(task, solution)
    if solution.values is None or not solution.solved:
        return Answer(solution.status, scope=scope, message=solution.message)
    if scope == "local":
        return Answer(solution.status, solution.objective, solution.values, scope)
    solution = _exact(task.program, solution, task.deadline)
    assert solution.values is not None
    found = Answer(solution.status, solution.objective, solution.values, scope)
    return replace(found, response=_response(task, solution.objective, solution.values))


def _second_opinion(task: Task, first: Solution) -> Solution:
    """An integer follower's answer by HiGHS put to SCIP as well: the better of two feasible answers is a fact, whatever
    either of them says of the other.
    """
    program, scip = task.program, Scip()
    if Highs().accepts(program) is not None or not scip.available().available:
        return first  # SCIP has solved it already, or cannot
    try:
        second = scip.solve(program, SolveSettings(time_limit=task.deadline.left()))
    except BackendError:
        return first
    if second.values is None or not second.solved or program.violation(second.values) > BENT:
        return first
    if first.values is None or not first.solved:
        return first if first.status is SolveStatus.UNBOUNDED else second
    worth = natural_scale(program.objective, second.values)
    return second if second.objective < first.objective - 1e-7 * worth else first


def solve(program: Program, deadline: Deadline) -> tuple[Solution, str]:
    """The first backend that takes the program and ends with an answer, and whether that answer holds globally."""
    last = Solution(SolveStatus.ERROR, message="no backend takes the follower's problem")
    for backend in _backends():
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        if deadline.over:
            return Solution(SolveStatus.TIME_LIMIT), "global"
        options: dict[str, float] = {}
        if backend.name == "scip":
            # Down to a gap of zero a flat objective takes branch-and-bound minutes; no tolerance here is as small.
            gap = GAP * (min(1.0, program.objective.size) or 1.0)
            options = {"numerics/feastol": tight_feastol(program, degree=2), "limits/absgap": gap, "limits/gap": GAP}
        try:
            solution = backend.solve(program, SolveSettings(time_limit=deadline.left(), options=options))
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


def is_polyhedral(program: Program) -> bool:
    """Whether the optimal answers are cut out by linear rows alone: then what a tolerance on optimality adds to their
    set grows in proportion to it, whereas at a curved optimum it grows like a root.
    """
    return Highs().accepts(program) is None


def loosening(program: Program) -> float:
    """By what the tolerance of `optimal_face` must be widened to lie above those of the backend that works with it."""
    if is_polyhedral(program):
        return 1.0
    return 10.0 if program.objective.degree == 2 else 1e3


def owed(narrow: float, wide: float, *, polyhedral: bool) -> float:
    """How much of an extent is owed to the tolerance, given the extents for it and for `WIDER` times of it.

    In proportion for polyhedral sets. Else the order is not known: no more than the growth itself, which holds for
    growth like the sixth root and faster.
    """
    return max(0.0, wide - narrow) / (WIDER - 1.0 if polyhedral else 1.0)


def _exact(program: Program, solution: Solution, deadline: Deadline) -> Solution:
    """The answer of a global solver with nonlinear tolerances made exact by a local one that starts from it."""
    if is_polyhedral(program) or Ipopt().accepts(program) is not None or not Ipopt().available().available:
        return solution
    assert solution.values is not None
    if deadline.over:
        return solution
    try:
        found = Ipopt().solve(program, SolveSettings(time_limit=deadline.left(), start=solution.values))
    except (BackendError, UsageError):
        return solution
    if found.values is None or not found.solved:
        return solution
    within = np.clip(found.values, [c.lower for c in program.columns], [c.upper for c in program.columns])
    value = program.objective.evaluate(within)
    near = 2e-7 * natural_scale(program.objective, solution.values)
    if program.violation(within) > min(1e-8, program.violation(solution.values) + 1e-9):
        return solution
    return replace(solution, values=within, objective=value) if value <= solution.objective + near else solution


def _response(task: Task, value: float, at: np.ndarray) -> str:
    """Whether the optimal answer is the only one: shown by second-order conditions, or by the extent of the set of
    optimal answers along one random direction.
    """
    program = task.program
    polyhedral = is_polyhedral(program)
    if len(task.ignored) == len(program.columns) or _strictly_convex(program):
        return "unique"
    if not polyhedral and is_only_answer(program, at):
        return "unique"
    ends = _ends(task, value, at, loosening(program))
    if isinstance(ends, str):
        return ends if polyhedral else "unknown"
    spread = np.abs(ends[1] - ends[0])
    allowed = _indistinct(task, np.maximum(np.abs(ends[0]), np.abs(ends[1])), polyhedral=polyhedral)
    if not (spread > allowed).any():
        return "unique"
    wider = _ends(task, value, at, loosening(program) * WIDER)
    if isinstance(wider, str):
        return "unknown"
    wide = np.abs(wider[1] - wider[0])
    shown = [n - owed(n, w, polyhedral=polyhedral) for n, w in zip(spread, wide, strict=True)]
    if (np.array(shown) > allowed).any():
        return "ties"
    return "unique" if polyhedral else "unknown"


def _ends(task: Task, value: float, at: np.ndarray, loosened: float) -> tuple[np.ndarray, np.ndarray] | str:
    """The two ends of the set of optimal answers along a random direction, or what is known without them."""
    program = task.program
    face = replace(program, rows=(*program.rows, *optimal_face(program, value, at, loosened)))
    direction = np.random.default_rng(20_240_607).uniform(0.5, 1.5, len(program.columns))
    along = linear({i: float(d) for i, d in enumerate(direction) if i not in task.ignored})
    ends: list[np.ndarray] = []
    for sign in (1.0, -1.0):
        end, scope = solve(replace(face, objective=along.scaled(sign)), task.deadline)
        if end.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
            return "ties"
        if end.values is None or not end.solved or scope == "local":
            return "unknown"
        ends.append(end.values)
    return ends[0], ends[1]


def _indistinct(task: Task, size: np.ndarray, *, polyhedral: bool) -> np.ndarray:
    """By how much two answers may differ in each column and be one: relative to the column's size; no less than what
    the backends' tolerances make, but less than the column's own range.
    """
    columns = task.program.columns
    reach = np.array([c.upper - c.lower for c in columns])
    noise = np.minimum(1e-8 if polyhedral else 1e-6, np.where(np.isfinite(reach), 1e-3 * reach, INF))
    allowed = np.maximum(TIE_TOLERANCE * size, noise)
    allowed[list(task.ignored)] = INF
    return allowed


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
    tight, _ = solve(replace(task.program, rows=tuple(rows)), task.deadline)
    return tight.values is None or value - tight.objective <= tolerance
