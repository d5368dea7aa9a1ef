"""Monotone interdiction: the leader forbids items, and whatever is left of an answer stays an answer.

Then ``d y <= sum of d_j y'_j (1 - x_j)`` holds for every answer y' of the unrestricted follower: one linear row instead
of a bilevel-free set (Fischetti, Ljubic, Monaci and Sinnl 2019, for knapsack, clique and other interdiction games).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.solvers.branch_cut.answers import Answers
from bilevel_core.solvers.branch_cut.mip import Mip
from bilevel_core.solvers.branch_cut.model import Follower, LinearModel

FEASIBLE = 1e-6


class Interdiction:
    """The cuts of one follower that is interdicted.

    Args:
        model, follower: whose.
        forbids: number of the column that forbids each of the follower's columns, -1 where none does, shape (k,).
        answers: the follower's answers, whose knapsack is used where it is one.
        hurry: as for `Mip`.

    Attributes:
        cheap: whether looking for the deepest row costs next to nothing.
    """

    def __init__(
        self,
        model: LinearModel,
        follower: Follower,
        forbids: np.ndarray,
        answers: Answers,
        hurry: Callable[[], float | None],
    ) -> None:
        self.follower, self._size, self._forbids = follower, model.size, forbids
        self._forbidden = forbids >= 0
        self._knapsack = answers.knapsack
        self.cheap = self._knapsack is not None
        f = follower
        free = np.flatnonzero(np.diff(f.others.indptr) == 0)
        self._mip = Mip(f.cost, f.own[free], f.row_lower[free], f.row_upper[free], f.lower, f.upper, f.integer, hurry)
        self._coefficients = np.empty((16, model.size))
        self._sides: list[float] = []
        self._known: set[bytes] = set()

    def add(self, y: np.ndarray) -> tuple[np.ndarray, float] | None:
        """The row ``coefficients v <= side`` of an answer; None where it is known, or no answer at all."""
        f = self.follower
        if self._mip.violation(y) > FEASIBLE:
            return None
        name = np.rint(y * 1e6).tobytes()
        if name in self._known:
            return None
        self._known.add(name)
        row = np.zeros(self._size)
        row[f.columns] = f.cost
        worth = f.cost * y
        np.add.at(row, self._forbids[self._forbidden], worth[self._forbidden])  # one column may forbid several
        if len(self._sides) == len(self._coefficients):
            self._coefficients = np.concatenate([self._coefficients, np.empty_like(self._coefficients)])
        self._coefficients[len(self._sides)] = row
        self._sides.append(float(worth.sum()))
        return row, self._sides[-1]

    def violated(self, values: np.ndarray) -> tuple[np.ndarray, float] | None:
        """The known row that a point violates most; None where it violates none."""
        if not self._sides:
            return None
        excess = self._coefficients[: len(self._sides)] @ values - np.array(self._sides)
        worst = int(np.argmax(excess))
        f = self.follower
        if excess[worst] <= 1e-5 * max(1.0, abs(float(f.cost @ values[f.columns]))):
            return None
        return self._coefficients[worst], self._sides[worst]

    def find(self, values: np.ndarray) -> np.ndarray | None:
        """The answer whose row cuts off a point furthest: the follower's where each item is worth what the leader has
        left of it.
        """
        f = self.follower
        cost = f.cost.copy()
        cost[self._forbidden] *= np.maximum(0.0, 1.0 - values[self._forbids[self._forbidden]])
        if self._knapsack is not None:
            return self._knapsack.best(-cost)
        self._mip.costs(cost)
        solution = self._mip.solve()
        return solution.values if solution.status is SolveStatus.OPTIMAL else None


def forbidders(model: LinearModel, follower: Follower) -> np.ndarray | None:
    """For each of a follower's columns the column that forbids it, or -1; None where it is no monotone interdiction.

    Needed: costs that reward the follower's columns, all its rows upper limits with nonnegative coefficients, its
    columns at least 0, and each row that others enter of the form ``a y_j + b x_i <= r`` with binary x_i, which leaves
    y_j free where x_i is 0 and forces it to 0 where x_i is 1.
    """
    f = follower
    if (f.cost > 0.0).any() or np.isfinite(f.row_lower).any() or (f.own.data < 0.0).any() or (f.lower != 0.0).any():
        return None
    out = np.full(len(f.columns), -1, dtype=np.int64)
    linked = np.flatnonzero(np.diff(f.others.indptr))
    for i in linked:
        if f.others[i].nnz != 1 or f.own[i].nnz != 1:
            return None
        x, b = int(f.others[i].indices[0]), float(f.others[i].data[0])
        j, a = int(f.own[i].indices[0]), float(f.own[i].data[0])
        binary = model.integer[x] and model.lower[x] >= 0.0 and model.upper[x] <= 1.0
        most = f.row_upper[i]
        if not binary or out[j] >= 0 or b < most - 1e-9 or most / a < f.upper[j] - 1e-9:
            return None
        out[j] = x
    return out if len(linked) else None
