"""Convex quadratic programs whose answers are believed only where the optimality conditions hold.

HiGHS 1.16.0's active-set method ends "optimal" at points that are not, or "unbounded" for strictly convex objectives,
where rows have large coefficients, and now and then without. So programs are equilibrated before they are handed over
(Ruiz 2001, A scaling algorithm to equilibrate both rows and columns norms in matrices); whether one is unbounded is
decided exactly, by a linear program over its recession directions (Eaves 1971, On quadratic programming); and an answer
that fails the conditions is replaced by that of Clarabel (an interior-point method), made exact on its active set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np

from bilevel_core.backends.base import Solution, SolveSettings, SolveStatus
from bilevel_core.errors import BackendError
from bilevel_core.program import INF, Function, Program, Row, Variable, linear

STATIONARITY = 1e-8
"""By how much a column's stationarity may fail, relative to its largest term."""
FEASIBILITY = 1e-8
"""Violation of a row or bound, relative to its largest term or 1, in the equilibrated program."""
COMPLEMENTARITY = 1e-9
"""Sum of the products of multipliers and slacks, relative to the largest term of the objective."""
LARGEST = 1500
"""Columns and active rows up to which a point is made exact by a dense factorisation."""
REPAIRS = 50
"""Most changes of the active set."""

Run = Callable[[Program, SolveSettings], tuple[Solution, np.ndarray, np.ndarray]]
"""Solves a program, linear or quadratic; also gives the multipliers of rows and of bounds (empty without)."""


def solve_convex_qp(program: Program, settings: SolveSettings, run: Run) -> Solution:
    """Solve a convex quadratic program with linear rows.

    Args:
        program: what is solved.
        settings: of the solve; the time limit holds for all of it.
        run: solves linear and quadratic programs by HiGHS.

    Raises:
        BackendError: no point was found that satisfies the optimality conditions.
    """
    deadline = INF if settings.time_limit is None else monotonic() + settings.time_limit

    def left() -> SolveSettings:
        limit = None if deadline == INF else max(1e-3, deadline - monotonic())
        return replace(settings, time_limit=limit, start=None)

    qp = Equilibrated(program)
    feasible = replace(qp.program, objective=Function())
    if qp.has_descent_ray(lambda p: run(p, left())[0]):
        found = run(feasible, left())[0]
        return Solution(SolveStatus.UNBOUNDED if found.status is SolveStatus.OPTIMAL else found.status)
    fault = ""
    for first, x, duals in _candidates(qp, run, left):
        if x is None:
            if first.status in (SolveStatus.TIME_LIMIT, SolveStatus.INTERRUPTED, SolveStatus.OTHER_LIMIT):
                return replace(first, values=None, objective=math.nan)
            if first.status is SolveStatus.INFEASIBLE and run(feasible, left())[0].status is SolveStatus.INFEASIBLE:
                return Solution(SolveStatus.INFEASIBLE)
            fault = fault or first.message or f"it ended {first.status}"
            continue
        wrong = qp.fault(x, duals)
        if wrong:
            x, duals = qp.exact(x, duals)
            fault = fault or wrong
        if not wrong or not qp.fault(x, duals):
            values = qp.original(x)
            worth = program.objective.evaluate(values)
            return Solution(SolveStatus.OPTIMAL, values, worth, worth)
    raise BackendError(f"No answer to a convex quadratic program satisfies its optimality conditions: {fault}.")


def _candidates(
    qp: Equilibrated, run: Run, left: Callable[[], SolveSettings]
) -> Iterator[tuple[Solution, np.ndarray | None, np.ndarray]]:
    """Points to be judged, with multipliers of rows and bounds together; None with the status where there is none."""
    for p, settings in ((qp.program, left()), (qp.program, replace(left(), options={"presolve": "off"}))):
        solution, row, bound = run(p, settings)
        yield solution, solution.values, np.concatenate([row, bound])
    yield qp.by_interior_point(left().time_limit)


@dataclass(frozen=True)
class _Sides:
    lower: np.ndarray
    upper: np.ndarray

    @property
    def equal(self) -> np.ndarray:
        return self.lower == self.upper

    def violation(self, at: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """How far values are beyond the sides, relative to a scale; positive beyond the upper one, negative below."""
        return (np.maximum(at - self.upper, 0.0) - np.maximum(self.lower - at, 0.0)) / scale


class Equilibrated:
    """A convex quadratic program with rows, columns and objective scaled by powers of two.

    Rows and then bounds are numbered together; a multiplier is positive at a lower side and negative at an upper one.
    """

    def __init__(self, program: Program) -> None:
        from scipy import sparse

        n, m = len(program.columns), len(program.rows)
        f = program.objective
        terms = f.quadratic.items()
        hessian = _Entries.of([(i, j, c) for (i, j), c in terms] + [(j, i, c) for (i, j), c in terms])
        rows = _Entries.of([(k, i, c) for k, r in enumerate(program.rows) for i, c in r.function.linear.items()])
        self.columns, row_scale = _equilibrate(hessian, rows, n, m)
        hessian, rows = hessian.scaled(self.columns, self.columns), rows.scaled(row_scale, self.columns)
        cost = np.zeros(n)
        for i, c in f.linear.items():
            cost[i] = c * self.columns[i]
        size = max(float(np.abs(cost).max(initial=0.0)), float(np.abs(hessian.value).max(initial=0.0)))
        self.factor = 2.0 ** round(math.log2(size)) if size > 0.0 else 1.0
        self.cost = cost / self.factor
        self.hessian: Any = sparse.csr_array((hessian.value / self.factor, (hessian.i, hessian.j)), shape=(n, n))
        bounds = np.arange(n)
        self.rows: Any = sparse.csr_array(
            (
                np.concatenate([rows.value, np.ones(n)]),
                (np.concatenate([rows.i, m + bounds]), np.concatenate([rows.j, bounds])),
            ),
            shape=(m + n, n),
        )
        constants = np.array([r.function.constant for r in program.rows])
        self.sides = _Sides(
            *(
                np.concatenate([(np.array(of_rows) - constants) * row_scale, np.array(of_columns) / self.columns])
                for of_rows, of_columns in (
                    ([r.lower for r in program.rows], [c.lower for c in program.columns]),
                    ([r.upper for r in program.rows], [c.upper for c in program.columns]),
                )
            )
        )
        self.program = self._program(program)

    def _program(self, program: Program) -> Program:
        m, sides = len(program.rows), self.sides
        columns = [
            Variable(c.name, float(sides.lower[m + j]), float(sides.upper[m + j]))
            for j, c in enumerate(program.columns)
        ]
        rows: list[Row] = []
        for k, r in enumerate(program.rows):
            part = slice(self.rows.indptr[k], self.rows.indptr[k + 1])
            terms = dict(zip(self.rows.indices[part].tolist(), self.rows.data[part].tolist(), strict=True))
            rows.append(Row(r.name, linear(terms), float(sides.lower[k]), float(sides.upper[k])))
        scale = self.columns
        objective = Function(
            0.0,
            {i: c * float(scale[i]) / self.factor for i, c in program.objective.linear.items()},
            {(i, j): c * float(scale[i] * scale[j]) / self.factor for (i, j), c in program.objective.quadratic.items()},
        )
        return Program(tuple(columns), objective, tuple(rows))

    def original(self, x: np.ndarray) -> np.ndarray:
        """A point in the program's own units, within its bounds."""
        m = len(self.program.rows)
        return np.clip(x, self.sides.lower[m:], self.sides.upper[m:]) * self.columns

    def has_descent_ray(self, solve: Callable[[Program], Solution]) -> bool:
        """Whether some direction leads down without end from every feasible point: no curvature, no bound, and a
        negative slope. Without one a convex quadratic program that is feasible has an optimum.
        """
        n, m = len(self.cost), len(self.program.rows)
        open_columns = np.isinf(self.sides.lower[m:]) | np.isinf(self.sides.upper[m:])
        if not open_columns.any() or not self.cost.any() or self._strictly_convex():
            return False
        columns = tuple(
            Variable(
                f"d{j}",
                -1.0 if math.isinf(self.sides.lower[m + j]) else 0.0,
                1.0 if math.isinf(self.sides.upper[m + j]) else 0.0,
            )
            for j in range(n)
        )
        rows = [
            replace(r, lower=0.0 if math.isfinite(r.lower) else -INF, upper=0.0 if math.isfinite(r.upper) else INF)
            for r in self.program.rows
        ]
        for j in range(n):
            slope = replace(self.program.objective.partial(j), constant=0.0)
            if slope.linear:
                rows.append(Row(f"curvature{j}", slope.scaled(1.0 / slope.size), 0.0, 0.0))
        goal = linear({j: float(c) for j, c in enumerate(self.cost)})
        found = solve(Program(columns, goal, tuple(rows)))
        if found.values is None or not np.abs(found.values).max() > 0.0:
            return False
        d = found.values / np.abs(found.values).max()
        # A ray of the linear program's tolerance has curvature of its square; more is a program that is nearly flat.
        curvature = float(d @ (self.hessian @ d))
        return float(self.cost @ d) < -1e-8 * float(np.abs(self.cost).sum()) and curvature <= 1e-14

    def _strictly_convex(self) -> bool:
        if not (self.hessian.diagonal() > 0.0).all() or len(self.cost) > LARGEST:
            return False
        return bool(np.linalg.eigvalsh(self.hessian.toarray())[0] > 1e-9)

    def fault(self, x: np.ndarray, duals: np.ndarray) -> str:
        """What of the optimality conditions does not hold; empty where all do."""
        if len(duals) != self.rows.shape[0] or not (np.isfinite(x).all() and np.isfinite(duals).all()):
            return "there are no multipliers"
        at = self.rows @ x
        scale = np.maximum(1.0, abs(self.rows) @ np.abs(x))
        beyond = float(np.abs(self.sides.violation(at, scale)).max(initial=0.0))
        if beyond > FEASIBILITY:
            return f"a constraint is violated by {beyond:.2g}"
        slope = self.hessian @ x + self.cost - self.rows.T @ duals
        terms = np.maximum(np.abs(self.cost), abs(self.hessian) @ np.abs(x) + abs(self.rows.T) @ np.abs(duals))
        allowed = np.maximum(terms, 1e-6 * max(1e-300, float(terms.max(initial=0.0))))
        worst = float((np.abs(slope) / allowed).max(initial=0.0))
        if worst > STATIONARITY:
            return f"stationarity fails by {worst:.2g}"
        side = np.where(duals > 0.0, self.sides.lower, self.sides.upper)
        with np.errstate(invalid="ignore"):
            products = np.where(duals == 0.0, 0.0, np.abs(duals * (at - side)))
        worth = max(
            1.0, float(np.abs(self.cost * x).max(initial=0.0)), float(np.abs(x * (self.hessian @ x)).max(initial=0.0))
        )
        if not float(products.sum()) <= COMPLEMENTARITY * worth:
            return f"multipliers and slacks have the product {float(products.sum()):.2g}"
        return ""

    def exact(self, x: np.ndarray, duals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The point and multipliers of the active set that a nearly optimal point shows, repaired where constraints
        turn out violated or multipliers of the wrong sign. The same point where that leads nowhere.
        """
        sides = self.sides
        if len(duals) != self.rows.shape[0]:
            duals = np.zeros(self.rows.shape[0])
        at = self.rows @ x
        low, high = np.abs(at - sides.lower), np.abs(sides.upper - at)
        # 1 at an upper side, -1 at a lower one, 0 inactive.
        active = np.where((duals > low) & (low <= high), -1, np.where((-duals > high) & (high < low), 1, 0))
        active[sides.equal] = 1
        dense = None
        for _ in range(REPAIRS):
            working = np.flatnonzero(active)
            if len(x) + len(working) > LARGEST:
                break
            dense = self.rows.toarray() if dense is None else dense
            kept = dense[working]
            n, k = len(x), len(working)
            target = np.where(active[working] > 0, sides.upper[working], sides.lower[working])
            system = np.block([[self.hessian.toarray(), -kept.T], [kept, np.zeros((k, k))]])
            right = np.concatenate([-(self.hessian @ x + self.cost), target - kept @ x])
            step = np.linalg.lstsq(system, right, rcond=1e-13)[0]
            new, multipliers = x + step[:n], np.zeros(len(active))
            multipliers[working] = step[n:]
            if not self.fault(new, np.where(sides.equal | (active * multipliers <= 0.0), multipliers, 0.0)):
                return new, np.where(sides.equal | (active * multipliers <= 0.0), multipliers, 0.0)
            beyond = sides.violation(self.rows @ new, np.ones(len(active)))
            beyond[working] = 0.0
            wrong = np.where(sides.equal, 0.0, active * multipliers)
            if np.abs(beyond).max(initial=0.0) > 1e-10:
                worst = int(np.abs(beyond).argmax())
                active[worst] = int(np.sign(beyond[worst]))
            elif wrong.max(initial=0.0) > 0.0:
                active[int(wrong.argmax())] = 0
            else:
                break
        return x, duals

    def by_interior_point(self, time_limit: float | None) -> tuple[Solution, np.ndarray | None, np.ndarray]:
        """The point and multipliers that Clarabel finds."""
        import clarabel
        from scipy import sparse

        c: Any = clarabel
        sides = self.sides
        equal = np.flatnonzero(sides.equal)
        upper = np.flatnonzero(np.isfinite(sides.upper) & ~sides.equal)
        lower = np.flatnonzero(np.isfinite(sides.lower) & ~sides.equal)
        matrix = sparse.vstack([self.rows[equal], self.rows[upper], -self.rows[lower]], format="csc")
        right = np.concatenate([sides.upper[equal], sides.upper[upper], -sides.lower[lower]])
        options = c.DefaultSettings()
        options.verbose = False
        options.tol_feas = options.tol_gap_abs = options.tol_gap_rel = 1e-12
        options.reduced_tol_feas = options.reduced_tol_gap_abs = options.reduced_tol_gap_rel = 1e-6
        if time_limit is not None:
            options.time_limit = time_limit
        cones = [c.ZeroConeT(len(equal)), c.NonnegativeConeT(len(upper) + len(lower))]
        found = c.DefaultSolver(
            sparse.triu(self.hessian, format="csc"), self.cost, matrix, right, cones, options
        ).solve()
        told = str(found.status)
        duals = np.zeros(self.rows.shape[0])
        z = np.array(found.z)
        duals[equal] = -z[: len(equal)]
        np.subtract.at(duals, upper, z[len(equal) : len(equal) + len(upper)])
        np.add.at(duals, lower, z[len(equal) + len(upper) :])
        status = {
            "PrimalInfeasible": SolveStatus.INFEASIBLE,
            "AlmostPrimalInfeasible": SolveStatus.INFEASIBLE,
            "MaxTime": SolveStatus.TIME_LIMIT,
        }.get(told, SolveStatus.ERROR)
        usable = told in ("Solved", "AlmostSolved", "InsufficientProgress", "NumericalError", "MaxIterations")
        return Solution(status, message=f"Clarabel: {told}"), np.array(found.x) if usable else None, duals


@dataclass(frozen=True)
class _Entries:
    """A matrix by its entries."""

    i: np.ndarray
    j: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, entries: Sequence[tuple[int, int, float]]) -> _Entries:
        i, j, value = zip(*entries, strict=True) if entries else ((), (), ())
        return cls(np.array(i, dtype=int), np.array(j, dtype=int), np.array(value, dtype=float))

    def scaled(self, left: np.ndarray, right: np.ndarray) -> _Entries:
        return replace(self, value=self.value * left[self.i] * right[self.j])


def _equilibrate(hessian: _Entries, rows: _Entries, n: int, m: int, passes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Scales of columns and rows, powers of two, that bring the largest entries of both near 1."""
    columns, scale = np.ones(n), np.ones(m)
    for _ in range(passes):
        q, a = np.abs(hessian.scaled(columns, columns).value), np.abs(rows.scaled(scale, columns).value)
        largest, of_rows = np.zeros(n), np.zeros(m)
        np.maximum.at(largest, hessian.i, q)
        np.maximum.at(largest, rows.j, a)
        np.maximum.at(of_rows, rows.i, a)
        columns = columns / np.sqrt(np.where(largest > 0.0, largest, 1.0))
        scale = scale / np.sqrt(np.where(of_rows > 0.0, of_rows, 1.0))
    return np.exp2(np.round(np.log2(columns))), np.exp2(np.round(np.log2(scale)))
