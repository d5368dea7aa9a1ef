"""A mixed-integer linear bilevel program as matrices, in the shape that cuts and branching need.

Everything is minimised. Columns are numbered as in the `BilevelProgram`; one more may stand behind them (see
`LinearModel.worth`). Holds no search and calls no solver.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse

from bilevel_core.program import INF, BilevelProgram, Level, Row

sp: Any = scipy.sparse
"""Untyped: what the stubs say of sparse matrices does not hold."""
Matrix: TypeAlias = Any
"""A sparse matrix by rows, `scipy.sparse.csr_matrix`."""
MULTIPLIERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 50, 100, 1000, 10_000, 100_000, 1_000_000)
"""Factors tried in turn to make the coefficients of a row whole."""


def spacing(coefficients: np.ndarray) -> tuple[float, float]:
    """The spacing of the values that a function with these coefficients takes at integers, and the factor by which
    it becomes 1. ``(0, 1)`` where none of `MULTIPLIERS` makes the coefficients whole.
    """
    if not coefficients.size:
        return 0.0, 1.0
    for factor in MULTIPLIERS:
        scaled = coefficients * factor
        near = np.round(scaled)
        if np.abs(near).max() < 2**40 and (np.abs(scaled - near) <= 1e-9 * np.maximum(1.0, np.abs(near))).all():
            common = int(np.gcd.reduce(np.abs(near).astype(np.int64)))
            return (common / factor, factor / common) if common else (0.0, 1.0)
    return 0.0, 1.0


@dataclass(frozen=True)
class Follower:
    """One follower's problem: ``min cost y`` over ``matrix (x, y)`` within rows' limits, bounds and integrality of y.

    Attributes:
        name: for messages.
        columns: numbers of its columns, shape (k,).
        cost: shape (k,), in a unit in which the largest is not small.
        lower, upper: bounds of its columns.
        integer: which of its columns are integer.
        matrix: its rows over all columns, shape (m, n).
        row_lower, row_upper: limits of its rows.
        linking: numbers of the columns of others in rows with its own: what decides its optimal value, but for
            columns that are fixed.
    """

    name: str
    columns: np.ndarray
    cost: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    integer: np.ndarray
    matrix: Matrix
    row_lower: np.ndarray
    row_upper: np.ndarray
    linking: np.ndarray
    linking_integer: np.ndarray

    @cached_property
    def own(self) -> Matrix:
        """Its rows in its own columns, shape (m, k)."""
        return self.matrix[:, self.columns].tocsr()

    @cached_property
    def others(self) -> Matrix:
        """Its rows without its own columns, shape (m, n)."""
        keep = np.ones(self.matrix.shape[1])
        keep[self.columns] = 0.0
        return (self.matrix @ sp.diags(keep)).tocsr()

    @cached_property
    def sides(self) -> Sides:
        """Its rows one side at a time."""
        return _sides(self)

    @cached_property
    def step(self) -> float:
        """The spacing of its objective's values; 0 where they are not spaced."""
        return spacing(self.cost[self.cost != 0.0])[0] if self.integer[self.cost != 0.0].all() else 0.0

    def tolerance(self, value: float) -> float:
        """How far above its optimal value an answer may be and count as optimal in the search."""
        plain = 1e-6 * max(1.0, abs(value))
        return min(plain, 0.4 * self.step) if self.step else plain


@dataclass(frozen=True)
class Sides:
    """One-sided rows of a follower: ``others x + own y <= limit``.

    Attributes:
        others: in everybody else's columns, shape (r, n), dense.
        own: in its own, shape (r, k), dense.
        limit: shape (r,).
        step: spacing of the values of ``others x``; 0 where unknown or where x is not integer.
        links: which of the rows contain others' columns.
    """

    others: np.ndarray
    own: np.ndarray
    limit: np.ndarray
    step: np.ndarray
    links: np.ndarray


def _sides(f: Follower) -> Sides:
    n, k = f.matrix.shape[1], len(f.columns)
    others, own = f.others.toarray(), f.own.toarray()
    rows = [(s, i) for i in range(len(f.row_lower)) for s in (1.0, -1.0)]
    rows = [(s, i) for s, i in rows if math.isfinite(f.row_upper[i] if s > 0 else f.row_lower[i])]
    a = np.array([s * others[i] for s, i in rows]).reshape(-1, n)
    b = np.array([s * own[i] for s, i in rows]).reshape(-1, k)
    limit = np.array([f.row_upper[i] if s > 0 else -f.row_lower[i] for s, i in rows], dtype=float)
    step = np.array([spacing(r[r != 0.0])[0] for r in a], dtype=float)
    return Sides(a, b, limit, step, np.array([r.any() for r in a], dtype=bool))


@dataclass(frozen=True)
class LinearModel:
    """The whole problem.

    Attributes:
        names: of the columns.
        cost, constant: the leader's objective. The search leaves the constant out.
        matrix, row_lower, row_upper: the rows of all levels (the high-point relaxation), shape (m, n).
        leader_rows: how many of them are the leader's; they come first. A follower's row without its own columns is
            one of these: where it fails there is no answer, whatever the follower does.
        lower, upper, integer: of the columns, shape (n,).
        followers: one entry each; they are independent of each other.
        linking: all followers' linking columns.
        worth: None, or the number of a column that stands for the leader's objective (pessimistic responses).
    """

    names: tuple[str, ...]
    cost: np.ndarray
    constant: float
    matrix: Matrix
    row_lower: np.ndarray
    row_upper: np.ndarray
    leader_rows: int
    lower: np.ndarray
    upper: np.ndarray
    integer: np.ndarray
    followers: tuple[Follower, ...]
    linking: np.ndarray
    worth: int | None = None

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.cost)

    def objective(self, values: np.ndarray) -> float:
        """The leader's objective at a point, minimised."""
        return float(self.cost @ values) + self.constant


def matrix_of(rows: Sequence[Row], size: int) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Linear rows as a sparse matrix and two limits, their constants moved to the limits."""
    data: list[float] = []
    where: list[int] = []
    starts = [0]
    for row in rows:
        where += list(row.function.linear)
        data += list(row.function.linear.values())
        starts.append(len(where))
    matrix = sp.csr_matrix((np.array(data, dtype=float), np.array(where, dtype=np.int64), starts), (len(rows), size))
    low = np.array([r.lower - r.function.constant for r in rows], dtype=float)
    up = np.array([r.upper - r.function.constant for r in rows], dtype=float)
    return matrix, low, up


def build(program: BilevelProgram) -> LinearModel:
    """The matrices of a program whose functions are linear, apart from leader's terms in a follower's objective."""
    n = len(program.columns)
    lower = np.array([c.lower for c in program.columns], dtype=float)
    upper = np.array([c.upper for c in program.columns], dtype=float)
    integer = np.array([c.integer for c in program.columns], dtype=bool)
    lower[integer], upper[integer] = np.ceil(lower[integer] - 1e-9), np.floor(upper[integer] + 1e-9)
    cost = np.zeros(n)
    for i, c in program.leader.objective.linear.items():
        cost[i] = c
    owned = [(r, set(f.columns)) for f in program.followers for r in f.rows]
    leaders = [*program.leader.rows, *(r for r, own in owned if own.isdisjoint(r.function.columns))]
    followers_rows = [r for r, own in owned if not own.isdisjoint(r.function.columns)]
    matrix, low, up = matrix_of([*leaders, *followers_rows], n)
    followers = tuple(_follower(f, lower, upper, integer) for f in program.followers)
    linking = np.array(sorted({int(i) for f in followers for i in f.linking}), dtype=np.int64)
    # What columns that cannot change contribute is a constant, and plays no part in tolerances.
    settled = lower == upper
    constant = program.leader.objective.constant + float(cost[settled] @ lower[settled])
    cost[settled] = 0.0
    names = tuple(program.names)
    return LinearModel(names, cost, constant, matrix, low, up, len(leaders), lower, upper, integer, followers, linking)


def _follower(level: Level, lower: np.ndarray, upper: np.ndarray, integer: np.ndarray) -> Follower:
    n = len(lower)
    columns = np.array(level.columns, dtype=np.int64)
    own = set(level.columns)
    rows = [r for r in level.rows if not own.isdisjoint(r.function.columns)]
    linking = sorted({i for r in rows for i in r.function.columns - own if lower[i] != upper[i]})
    matrix, low, up = matrix_of(rows, n)
    fixed = lower == upper
    fixed[columns] = False
    settled = matrix @ np.where(fixed, lower, 0.0)  # what columns that cannot change contribute belongs to the limits
    matrix = (matrix @ sp.diags(np.where(fixed, 0.0, 1.0))).tocsr()
    matrix.eliminate_zeros()
    low, up = low - settled, up - settled
    return Follower(
        level.name,
        columns,
        _lifted(np.array([level.objective.linear.get(i, 0.0) for i in level.columns], dtype=float)),
        lower[columns],
        upper[columns],
        integer[columns],
        matrix,
        low,
        up,
        np.array(linking, dtype=np.int64),
        integer[linking],
    )


def _lifted(cost: np.ndarray) -> np.ndarray:
    """Costs times the power of ten that brings the largest to between 1 and 10, where it is below: what is optimal does
    not depend on it, and tolerances of backends do.
    """
    largest = float(np.abs(cost).max(initial=0.0))
    return cost if largest == 0.0 or largest >= 1.0 else cost * 10.0 ** math.ceil(-math.log10(largest))


def with_worth(model: LinearModel) -> LinearModel:
    """The same model with one more column: at least the leader's objective, and minimised in its place."""
    n = model.size
    objective = sp.csr_matrix(np.append(model.cost, -1.0)[None, :])
    wider = sp.hstack([model.matrix, sp.csr_matrix((model.matrix.shape[0], 1))])

    def widened(f: Follower) -> Follower:
        more = sp.hstack([f.matrix, sp.csr_matrix((f.matrix.shape[0], 1))]).tocsr()
        return replace(f, matrix=more)

    return LinearModel(
        (*model.names, "worst value of the leader's objective"),
        np.append(np.zeros(n), 1.0),
        model.constant,
        sp.vstack([objective, wider]).tocsr(),
        np.append(-INF, model.row_lower),
        np.append(0.0, model.row_upper),
        model.leader_rows + 1,
        np.append(model.lower, -INF),
        np.append(model.upper, INF),
        np.append(model.integer, False),
        tuple(widened(f) for f in model.followers),
        model.linking,
        worth=n,
    )
