"""What the algebraic penalty methods share: the followers' optimality system, and making a point of it exact.

The system is that of `OptimalityConditions`. Where stationarity holds, the followers' duality gap is the sum of all
products multiplier times slack, so the methods penalise or relax these products; none of them keeps the pairs.
A point found that way is finished on its piece: with the active constraints known, the rest is a smooth program, and
the pieces that touch the point are searched for a better one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from bilevel_core.backends import Solution, SolveSettings, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.errors import BackendError, RefusedError
from bilevel_core.oracles import Oracle
from bilevel_core.program import BilevelProgram, Function, Program, Row, linear, total
from bilevel_core.reductions.kkt import Multiplier, OptimalityConditions

Remaining = Callable[[], float | None]
Fixed = dict[int, float]

ACTIVE = 1e-7
"""A slack up to this, relative to its row's largest term, counts as none."""
EXACT = 1e-9
IMPROVES = 1e-7
"""Relative improvement of the leader's objective below which a neighbouring piece counts as no better."""
NODES = 400
"""Most relaxations solved to search the pieces around one point."""
LOOSE = 1e-6
UNBOUNDED = (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED)


@dataclass(frozen=True)
class System:
    """The optimality system of a bilevel program.

    Attributes:
        program: the bilevel program; its columns are the first of the system's.
        target: the system with its complementarity pairs.
        multipliers: multipliers of the followers' inequalities, in the order of the pairs.
        stationarity: the rows of ``target`` that say that the Lagrangians' gradients vanish.
        x_columns, y_columns: where the oracle's x and y stand.
    """

    program: BilevelProgram
    target: Program
    multipliers: tuple[Multiplier, ...]
    stationarity: tuple[Row, ...]
    x_columns: tuple[int, ...]
    y_columns: tuple[int, ...]

    @property
    def relaxed(self) -> Program:
        """The system without its pairs."""
        return replace(self.target, complementarities=())

    @property
    def gap(self) -> Function:
        """The followers' duality gap, where stationarity holds: the sum of multiplier times slack."""
        return total(product(m) for m in self.multipliers)

    @property
    def dual_columns(self) -> tuple[int, ...]:
        """Columns of all multipliers, those of equalities too."""
        slacks = {m.slack_column for m in self.multipliers}
        return tuple(i for i in range(len(self.program.columns), len(self.target.columns)) if i not in slacks)

    def unit(self) -> float:
        """A weight at which gap and leader's objective are of one order: the ratio of their coefficients."""
        upper = self.program.leader.objective.size
        lower = max((f.objective.size for f in self.program.followers), default=0.0)
        return (upper if upper > 0.0 else 1.0) / (lower if lower > 0.0 else 1.0)

    def split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of a point of the system."""
        return values[list(self.x_columns)], values[list(self.y_columns)]

    def lift(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A point of the system at (x, y): slacks as they are, multipliers of the smallest gap.

        Where no multipliers make (x, y) stationary they are zero.
        """
        values = np.zeros(len(self.target.columns))
        values[list(self.x_columns)] = x
        values[list(self.y_columns)] = y
        for m in self.multipliers:
            if m.slack_column >= len(self.program.columns):
                values[m.slack_column] = max(0.0, m.slack.evaluate(values))
        for loose in (0.0, LOOSE):  # an answer of a quadratic program is not stationary to the last digit
            rows = tuple(replace(r, lower=r.lower - loose, upper=r.upper + loose) for r in self.stationarity)
            found = solve(self.block(values, set(self.dual_columns), self.gap, rows), values)
            if found is not None and found.values is not None:
                return found.values
        return values

    def block(self, values: np.ndarray, free: set[int], objective: Function, rows: tuple[Row, ...]) -> Program:
        """The program over some columns only, the others at their values; rows without free columns are dropped."""
        fixed = {i: float(v) for i, v in enumerate(values) if i not in free}
        target = self.target.fix({i: v for i, v in fixed.items() if i < len(self.target.columns)})
        return restricted(target, fixed, objective, rows)


def restricted(program: Program, fixed: Fixed, objective: Function, rows: tuple[Row, ...]) -> Program:
    """A program with other objective and rows, in which the fixed columns are numbers."""
    kept = [replace(r, function=r.function.fix(fixed)) for r in rows]
    return Program(program.columns, objective.fix(fixed), tuple(r for r in kept if r.function.columns))


def product(m: Multiplier) -> Function:
    """Multiplier times slack."""
    return linear({m.column: 1.0}).times(linear({m.slack_column: 1.0}))


_systems: WeakKeyDictionary[Oracle, System] = WeakKeyDictionary()


def system_of(oracle: Oracle) -> System:
    """The system of an algebraic oracle's problem; made once for each oracle.

    Raises:
        RefusedError: a follower has integers or an expression without derivatives.
    """
    found = _systems.get(oracle)
    if found is None:
        program: BilevelProgram = oracle.program  # pyright: ignore[reportAttributeAccessIssue] - algebraic oracles
        conditions = OptimalityConditions()
        reason = conditions.accepts(program)
        if reason is not None:
            raise RefusedError(f"The penalty solver needs optimality conditions, but {reason}.")
        try:
            target = conditions.apply(program)
        except ValueError as error:
            raise RefusedError(f"The penalty solver needs the followers' derivatives: {error}.") from error
        found = System(
            program,
            target,
            conditions.multipliers,
            conditions.stationarity,
            tuple(program.leader.columns),
            tuple(program.lower_columns),
        )
        _systems[oracle] = found
    return found


def solve(program: Program, start: np.ndarray, time_limit: float | None = None) -> Solution | None:
    """Solve by HiGHS where it can, else locally by Ipopt; None when the backend fails or finds nothing."""
    for backend in (Highs(), Ipopt()):
        if backend.accepts(program) is not None:
            continue
        try:
            found = backend.solve(program, SolveSettings(start=start, time_limit=time_limit))
        except BackendError:
            continue
        if found.values is not None or found.status in UNBOUNDED or found.status is SolveStatus.INFEASIBLE:
            return found
    return None


@dataclass(frozen=True)
class Around:
    """What the pieces around a point hold.

    Attributes:
        values: a better point of the system, None where there is none.
        checked: whether the absence of a better point was shown.
        unbounded: whether a piece lets the leader's objective improve without end.
    """

    values: np.ndarray | None = None
    checked: bool = False
    unbounded: bool = False


def search_around(system: System, values: np.ndarray, remaining: Remaining) -> Around:
    """Look for a better point on all pieces that contain ``values``.

    Near a bilevel feasible point only the constraints that are active there can be active, whatever their multipliers
    are. So every bilevel feasible point near it lies on a piece on which the multipliers of its inactive constraints
    are zero; these pieces are searched by branch and bound. Convex ones are solved themselves; of others the
    linearisation within a box, whose optimum is zero exactly at points that are stationary on all pieces.
    """
    open_pairs: list[tuple[int, int]] = []
    fixed: Fixed = {}
    for m in system.multipliers:
        if values[m.slack_column] > ACTIVE * m.slack.scale(values):
            fixed[m.column] = 0.0
        else:
            open_pairs.append((m.column, m.slack_column))
    near = system.relaxed.fix(fixed)
    here = near.objective.evaluate(values)
    step = IMPROVES * max(1.0, abs(here))
    if Highs().accepts(near) is None:
        found = _branch(near, open_pairs, here - step, values, remaining)
        return found if found.values is None else replace(found, values=_clean(near, open_pairs, found.values))
    flat = linearised(near, values)
    found = _branch(flat, open_pairs, flat.objective.evaluate(values) - 10.0 * step, values, remaining)
    if found.values is None:
        return found
    choice = {min(pair, key=lambda k: abs(found.values[k])): 0.0 for pair in open_pairs}  # type: ignore[index]
    moved = _solve_piece(near.fix(choice), values, remaining())
    if moved is None or moved.values is None or not moved.solved or moved.objective > here - step:
        return Around()
    return Around(moved.values) if near.violation(moved.values) <= ACTIVE else Around()


def _branch(
    program: Program, pairs: list[tuple[int, int]], cutoff: float, values: np.ndarray, remaining: Remaining
) -> Around:
    """The best point below ``cutoff`` at which of each pair one column is zero; every relaxation is convex."""
    best: np.ndarray | None = None
    unbounded = False
    stack: list[Fixed] = [{}]
    for _ in range(NODES):
        if not stack:
            return Around(best, checked=best is None and not unbounded, unbounded=unbounded and best is None)
        fixed = stack.pop()
        found = _solve_piece(program.fix(fixed), values, remaining())
        if found is None:
            break
        undecided = [p for p in pairs if p[0] not in fixed and p[1] not in fixed]
        if found.values is None:
            if found.status in UNBOUNDED:
                if not undecided:
                    unbounded = True
                else:
                    stack += _children(fixed, undecided[0])
            elif found.status is not SolveStatus.INFEASIBLE:
                break
            continue
        if found.objective >= cutoff:
            continue
        worst = max(undecided, key=lambda p: min(found.values[p[0]], found.values[p[1]]), default=None)  # type: ignore[index]
        if worst is None or min(found.values[worst[0]], found.values[worst[1]]) <= EXACT:
            best, cutoff = found.values, found.objective
        else:
            stack += _children(fixed, worst)
    return Around(best)


def _children(fixed: Fixed, pair: tuple[int, int]) -> Iterator[Fixed]:
    return ({**fixed, k: 0.0} for k in pair)


def _clean(program: Program, pairs: list[tuple[int, int]], values: np.ndarray) -> np.ndarray:
    """The same point with the smaller column of each pair exactly zero, where that can be had."""
    choice = {min(pair, key=lambda k: abs(values[k])): 0.0 for pair in pairs}
    found = _solve_piece(program.fix(choice), values)
    if found is None or found.values is None or not found.solved:
        return values
    return found.values


def _solve_piece(program: Program, start: np.ndarray, seconds: float | None = None) -> Solution | None:
    """Solve a program with fixed columns; unbounded is told from infeasible.

    Rows whose columns are all fixed hold up to rounding only, which a backend may call infeasible: they are checked
    here.
    """
    at = np.array([c.lower if c.fixed else 0.0 for c in program.columns])
    rows: list[Row] = []
    for row in program.rows:
        if not all(program.columns[i].fixed for i in row.function.columns):
            rows.append(row)
        elif row.violation(at) > ACTIVE * row.function.scale(at):
            return Solution(SolveStatus.INFEASIBLE)
    rest = replace(program, rows=tuple(rows))
    found = solve(rest, start, seconds)
    if found is not None and found.status is SolveStatus.INFEASIBLE_OR_UNBOUNDED:
        anything = solve(replace(rest, objective=Function()), start, seconds)
        if anything is None:
            return None
        return replace(found, status=SolveStatus.INFEASIBLE if anything.values is None else SolveStatus.UNBOUNDED)
    return found


def linearised(program: Program, values: np.ndarray) -> Program:
    """The program's linearisation at a point, within a box around it."""

    def flat(f: Function) -> Function:
        slopes = {i: f.partial(i).evaluate(values) for i in f.columns}
        here = f.evaluate(values)
        return linear(slopes, here - sum(s * values[i] for i, s in slopes.items()))

    rows: list[Row] = []
    for row in program.rows:
        here = row.function.evaluate(values)  # rounding must not cut the point itself off
        rows.append(Row(row.name, flat(row.function), min(row.lower, here), max(row.upper, here)))
    columns = tuple(
        c if c.fixed else replace(c, lower=max(c.lower, v - r), upper=min(c.upper, v + r))
        for c, v in zip(program.columns, (float(v) for v in values), strict=True)
        for r in (0.1 * max(1.0, abs(v)),)
    )
    return Program(columns, flat(program.objective), tuple(rows))
