"""The auxiliary program with lower constraints or leader's rows: a direction in (x, y, multipliers), by HiGHS.

    min   F_x . d_x + F_y . d_y + w . s          (+ d_x' B d_x / 2 when a curvature estimate B is given)
    s.t.  L_yx d_x + L_yy d_y + A' d_lambda = 0                       A: active lower rows and bounds
          A_x d_x + A_y d_y = 0                                       strongly active rows, equalities
          0 <= d_lambda_i  complementary to  A_i . d <= 0             weakly active ones
          G_j + G_j' . d <= s_j,  |H + H' . d| <= s                   leader's rows, elastic with weight w
          x + d_x within its bounds,  |d_x| <= radius

The weakly active pairs make branches: each either held (A_i . d = 0) or released (d_lambda_i = 0). Up to `BRANCHES` of
them every combination is solved, beyond that special ordered sets go to SCIP. No constant bounds a multiplier.

Source: Savard and Gauvin (1994), The steepest descent direction for the nonlinear bilevel programming problem.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bilevel_core.backends import Backend, SolveSettings, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.hypergradients import OptimalitySystem
from bilevel_core.oracles import Oracle, Rows
from bilevel_core.program import INF, Function, Program, Row, Variable

BRANCHES = 6
"""Pairs up to which all 2^k branches are solved one by one."""
LARGEST = 2000
"""Variables of both levels up to which the program is built; it is dense."""
PATIENCE = 10.0
"""Seconds after which a backend that does not come back counts as failing."""
SMALL = 1e-12
"""Coefficients up to this, relative to the largest of their row, are left out."""


@dataclass(frozen=True)
class Direction:
    """A solution of the auxiliary program.

    Attributes:
        x, y: the direction, shapes (nx,), (ny,).
        slope: F_x . d_x + F_y . d_y, the change of F to first order.
        relief: by how much the leader's rows are less violated after a full step, to first order (sum).
        value: objective of the program, at most 0 up to rounding; 0 at a stationary point.
        pairs: number of weakly active pairs.
        released: how many of them the direction releases.
        exact: whether every branch was solved, so that ``value`` = 0 proves that there is no descent.
        rates: how the multipliers of the rows held change, inequalities first, shape (m,).
        bound_rates: the same for bounds of y, shape (ny,); zero where no bound is strongly active.
    """

    x: np.ndarray
    y: np.ndarray
    slope: float
    relief: float
    value: float
    pairs: int
    released: int = 0
    exact: bool = True
    rates: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bound_rates: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Pair:
    """A weakly active constraint: its gradient by x and y, and the sign of its multiplier in the stationarity rows."""

    by_x: np.ndarray
    by_y: np.ndarray


class AuxiliaryProgram:
    """The program at one answer of the lower level.

    Args:
        oracle: the problem.
        x: upper variables.
        system: the lower level's optimality system there.
        y: the answer, as an array.
        gradients: (F_x, F_y) as arrays.
        weight: of the leader's violations.
    """

    def __init__(
        self,
        oracle: Oracle,
        x: np.ndarray,
        y: np.ndarray,
        system: OptimalitySystem,
        gradients: tuple[np.ndarray, np.ndarray],
        upper: Rows,
        weight: float,
    ) -> None:
        self.oracle = oracle
        self.nx, self.ny = oracle.nx, oracle.ny
        self.x, self.y = x, y
        self.system = system
        self.f_x, self.f_y = gradients
        self.upper = upper
        self.weight = weight
        active = system.active
        self.fixed = active.fixed
        self.pairs = self._pairs()
        self._hessian = system.curvature.dense()
        self._mixed = system.curvature.dense_mixed()

    def _pairs(self) -> list[Pair]:
        pairs: list[Pair] = []
        active, rows = self.system.active, self.system.rows
        if rows is not None and active.weak.any():
            assert rows.g_x is not None
            assert rows.g_y is not None
            pairs += [Pair(rows.g_x[i], rows.g_y[i]) for i in np.flatnonzero(active.weak)]
        nothing = np.zeros(self.nx)
        for i in np.flatnonzero(active.weak_bounds):
            sign = -1.0 if self.y[i] - self.oracle.y_lower[i] <= self.oracle.y_upper[i] - self.y[i] else 1.0
            unit = np.zeros(self.ny)
            unit[i] = sign
            pairs.append(Pair(nothing, unit))
        return pairs

    def regular(self) -> bool:
        """Whether the gradients by y of all active lower constraints are independent (LICQ)."""
        rows = [*self.system.row_y, *(p.by_y for p in self.pairs)]
        if not rows:
            return True
        free = np.array(rows)[:, ~self.fixed]
        return int(np.linalg.matrix_rank(free, tol=1e-9 * max(1.0, float(np.abs(free).max(initial=0.0))))) == len(rows)

    def solve(self, radius: float, curvature: np.ndarray | None = None) -> Direction | None:
        """The best direction with ``|d_x| <= radius``; None when no backend solves the program.

        Args:
            radius: bound on every component of d_x.
            curvature: symmetric positive definite B over x, shape (nx, nx), or None for the linear program. With it,
                the follower's move is eliminated first; None comes back also where that system is singular.
        """
        count = len(self.pairs)
        if count > BRANCHES:
            return None if curvature is not None else self._by_sets(radius)
        best: Direction | None = None
        failed = False
        for held in itertools.product((True, False), repeat=count):
            found = self._branch(radius, curvature, held)
            if found is None:
                failed = True
            elif best is None or found.value < best.value:
                best = found
        if best is not None and failed and count:
            return replace(best, exact=False)
        return best

    # Building. Columns: d_x, d_y, multipliers of the rows held, of the pairs, elastic slacks.

    def _branch(self, radius: float, curvature: np.ndarray | None, held: tuple[bool, ...]) -> Direction | None:
        if curvature is not None:
            return self._eliminated(radius, curvature, held)
        program = self._program(radius, held)
        return self._solved(program, Highs(), sum(not h for h in held))

    def _by_sets(self, radius: float) -> Direction | None:
        program = self._program(radius, None)
        return self._solved(program, Scip(), 0)

    def _values(self, program: Program, backend: Backend) -> tuple[np.ndarray, float] | None:
        if backend.accepts(program) is not None:
            return None
        try:
            solution = backend.solve(program, SolveSettings(time_limit=PATIENCE))
        except BackendError:
            return None
        if solution.values is None or solution.status not in (SolveStatus.OPTIMAL, SolveStatus.LOCALLY_OPTIMAL):
            return None
        return solution.values, solution.objective

    def _solved(self, program: Program, backend: Backend, released: int) -> Direction | None:
        solution = self._values(program, backend)
        if solution is None:
            return None
        values, objective = solution
        rates = values[self.nx + self.ny : self.nx + self.ny + len(self.system.row_y)]
        d_x, d_y = values[: self.nx], values[self.nx : self.nx + self.ny]
        over = float(values[self._slack_from :].sum())
        return self._as_direction(d_x, d_y, rates, over, objective, released)

    def _as_direction(
        self, d_x: np.ndarray, d_y: np.ndarray, rates: np.ndarray, over: float, objective: float, released: int
    ) -> Direction:
        rest = self._mixed @ d_x + self._hessian @ d_y + self.system.row_y.T @ rates
        return Direction(
            d_x,
            d_y,
            slope=float(self.f_x @ d_x + self.f_y @ d_y),
            relief=self._violated() - over,
            value=objective - self.weight * self._violated(),
            pairs=len(self.pairs),
            released=released,
            rates=rates,
            bound_rates=np.where(self.fixed, rest, 0.0),
        )

    def _violated(self) -> float:
        return float(np.maximum(self.upper.g, 0.0).sum() + np.abs(self.upper.h).sum())

    def _program(self, radius: float, held: tuple[bool, ...] | None) -> Program:
        nx, ny = self.nx, self.ny
        row_x, row_y = self.system.row_x, self.system.row_y
        m, k = len(row_y), len(self.pairs)
        low = np.maximum(self.oracle.x_lower - self.x, -radius)
        high = np.minimum(self.oracle.x_upper - self.x, radius)
        columns = [Variable(f"dx{i}", min(0.0, float(low[i])), max(0.0, float(high[i]))) for i in range(nx)]
        columns += [Variable(f"dy{i}", *((0.0, 0.0) if self.fixed[i] else (-INF, INF))) for i in range(ny)]
        columns += [Variable(f"dl{i}") for i in range(m)]
        multipliers = nx + ny + m
        for i in range(k):
            released = held is not None and not held[i]
            columns.append(Variable(f"dw{i}", 0.0, 0.0 if released else INF))
        rows: list[Row] = []
        for i in np.flatnonzero(~self.fixed):
            entries = np.concatenate([self._mixed[i], self._hessian[i], row_y[:, i], [p.by_y[i] for p in self.pairs]])
            rows.append(Row(f"stationary{i}", _linear(entries), 0.0, 0.0))
        for i in range(m):
            rows.append(Row(f"held{i}", _linear(np.concatenate([row_x[i], row_y[i]])), 0.0, 0.0))
        sets: list[tuple[int, ...]] = []
        for i, pair in enumerate(self.pairs):
            entries = np.concatenate([pair.by_x, pair.by_y])
            if held is not None:
                rows.append(Row(f"pair{i}", _linear(entries), 0.0 if held[i] else -INF, 0.0))
                continue
            slack = len(columns)
            columns.append(Variable(f"slack{i}", 0.0, INF))
            rows.append(Row(f"pair{i}", _linear(entries, {slack: 1.0}), 0.0, 0.0))
            sets.append((multipliers + i, slack))
        self._slack_from = len(columns)
        costs = self._leader_rows(columns, rows, lambda by_x, by_y: np.concatenate([by_x, by_y]))
        objective = _linear(np.concatenate([self.f_x, self.f_y]), costs)
        return Program(tuple(columns), objective, tuple(rows), sos1=tuple(sets))

    def _leader_rows(
        self, columns: list[Variable], rows: list[Row], entries_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> dict[int, float]:
        """Add the leader's rows with their elastic slacks; returns the slacks' costs."""
        upper, costs = self.upper, dict[int, float]()
        if not (upper.g.size or upper.h.size):
            return costs
        assert upper.g_x is not None
        assert upper.g_y is not None
        assert upper.h_x is not None
        assert upper.h_y is not None
        for j in range(len(upper.g)):
            slack = len(columns)
            columns.append(Variable(f"over{j}", 0.0, INF))
            costs[slack] = self.weight
            entries = entries_of(upper.g_x[j], upper.g_y[j])
            rows.append(Row(f"leader{j}", _linear(entries, {slack: -1.0}), -INF, -float(upper.g[j])))
        for j in range(len(upper.h)):
            over, under = len(columns), len(columns) + 1
            columns += [Variable(f"more{j}", 0.0, INF), Variable(f"less{j}", 0.0, INF)]
            costs |= {over: self.weight, under: self.weight}
            entries = entries_of(upper.h_x[j], upper.h_y[j])
            value = -float(upper.h[j])
            rows.append(Row(f"equal{j}", _linear(entries, {over: -1.0, under: 1.0}), value, value))
        return costs

    # With a curvature estimate: a small quadratic program in d_x alone.

    def _eliminated(self, radius: float, curvature: np.ndarray, held: tuple[bool, ...]) -> Direction | None:
        """One branch with d_y and the multipliers as linear functions of d_x.

        HiGHS's quadratic solver wants a positive definite Hessian: with free columns beside it may go on for ever.
        """
        inner = [p for p, h in zip(self.pairs, held, strict=True) if h]
        row_x = np.vstack([self.system.row_x, *(p.by_x for p in inner)])
        row_y = np.vstack([self.system.row_y, *(p.by_y for p in inner)])
        free = np.flatnonzero(~self.fixed)
        m = len(row_y)
        matrix = np.block([[self._hessian[np.ix_(free, free)], row_y[:, free].T], [row_y[:, free], np.zeros((m, m))]])
        right = -np.vstack([self._mixed[free], row_x])
        try:
            moves = np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:
            return None
        error = np.abs(matrix @ moves - right).max(initial=0.0)
        if not error <= 1e-8 * max(1.0, float(np.abs(right).max(initial=0.0))):
            return None
        d_y = np.zeros((self.ny, self.nx))
        d_y[free] = moves[: free.size]
        multipliers = moves[free.size :]
        return self._reduced(radius, curvature, held, d_y, multipliers)

    def _reduced(
        self,
        radius: float,
        curvature: np.ndarray,
        held: tuple[bool, ...],
        d_y: np.ndarray,
        multipliers: np.ndarray,
    ) -> Direction | None:
        low = np.maximum(self.oracle.x_lower - self.x, -radius)
        high = np.minimum(self.oracle.x_upper - self.x, radius)
        columns = [Variable(f"dx{i}", min(0.0, float(low[i])), max(0.0, float(high[i]))) for i in range(self.nx)]
        rows: list[Row] = []
        own = len(self.system.row_y)
        rank = own
        for i, (pair, h) in enumerate(zip(self.pairs, held, strict=True)):
            if h:
                rows.append(Row(f"multiplier{i}", _linear(multipliers[rank]), 0.0))
                rank += 1
            else:
                rows.append(Row(f"pair{i}", _linear(pair.by_x + pair.by_y @ d_y), -INF, 0.0))
        costs = self._leader_rows(columns, rows, lambda by_x, by_y: by_x + by_y @ d_y)
        gradient = _linear(self.f_x + self.f_y @ d_y, costs)
        quadratic = {
            (i, j): float(curvature[i, j]) * (0.5 if i == j else 1.0)
            for i in range(self.nx)
            for j in range(i, self.nx)
            if curvature[i, j] != 0.0
        }
        kept = tuple(r for r in rows if r.function.columns)
        program = Program(tuple(columns), Function(0.0, gradient.linear, quadratic), kept)
        solution = self._values(program, Highs())
        if solution is None:
            return None
        values, objective = solution
        d_x = values[: self.nx]
        over = float(values[self.nx :].sum())
        return self._as_direction(d_x, d_y @ d_x, multipliers[:own] @ d_x, over, objective, sum(not h for h in held))


def _linear(entries: np.ndarray, extra: dict[int, float] | None = None) -> Function:
    size = SMALL * float(np.abs(entries).max(initial=0.0))
    coefficients = {int(i): float(entries[i]) for i in np.flatnonzero(np.abs(entries) > size)}
    return Function(0.0, coefficients | (extra or {}))
