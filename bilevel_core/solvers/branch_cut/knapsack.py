"""Followers that are 0-1 knapsacks, some of whose items the leader forbids: answered by dynamic programming."""

from __future__ import annotations

import numpy as np

from bilevel_core.solvers.branch_cut.model import Follower, spacing

LARGEST = 4_000_000
"""The largest table (items times capacity) that is worth building."""


class Knapsack:
    """``max profit y`` over ``weight y <= capacity``, y binary.

    Args:
        follower: what it stands for.
        weight: shape (k,), whole and nonnegative.
        capacity: whole.
        row: number of the follower's row that is the knapsack.
        barred: which items rows of the follower's own forbid whatever the others do, shape (k,).
    """

    def __init__(self, follower: Follower, weight: np.ndarray, capacity: int, row: int, barred: np.ndarray) -> None:
        self.follower = follower
        self.weight = weight.astype(np.int64)
        self.capacity = capacity
        self.row = row
        self.barred = barred

    def answer(self, shift: np.ndarray) -> np.ndarray | None:
        """The best items where the other columns contribute ``shift`` to the rows; None where that is not a question
        of forbidden items.
        """
        f = self.follower
        if abs(shift[self.row]) > 1e-9:
            return None
        low, up = f.lower.copy(), f.upper.copy()
        for i in range(len(f.row_upper)):
            if i != self.row:
                j, a = f.own.indices[f.own.indptr[i]], f.own.data[f.own.indptr[i]]
                up[j] = min(up[j], (f.row_upper[i] - shift[i]) / a)
        if (up < low - 1e-9).any():
            return None
        allowed = up >= 1.0 - 1e-9
        return self.best(np.where(allowed, -f.cost, 0.0))

    def best(self, profit: np.ndarray) -> np.ndarray:
        """The items of highest total profit, shape (k,); items without profit, and barred ones, are left out."""
        items = np.flatnonzero((profit > 0.0) & (self.weight <= self.capacity) & ~self.barred)
        value = np.zeros(self.capacity + 1)
        taken = np.zeros((len(items), self.capacity + 1), dtype=bool)
        for n, j in enumerate(items):
            w = int(self.weight[j])
            with_item = value[: self.capacity + 1 - w] + profit[j]
            better = with_item > value[w:] + 1e-12
            taken[n, w:] = better
            value[w:] = np.where(better, with_item, value[w:])
        y = np.zeros(len(self.weight))
        room = self.capacity
        for n in range(len(items) - 1, -1, -1):
            if taken[n, room]:
                y[items[n]] = 1.0
                room -= int(self.weight[items[n]])
        return y


def as_knapsack(f: Follower) -> Knapsack | None:
    """The knapsack that a follower is, or None: all binary, one row of its own with nonnegative weights, and every
    other row an upper limit on one of its columns.
    """
    if not (f.integer.all() and (f.lower == 0.0).all() and (f.upper == 1.0).all()):
        return None
    counts = np.diff(f.own.indptr)
    several = np.flatnonzero(counts != 1)
    if len(several) != 1 or np.isfinite(f.row_lower).any() or not np.isfinite(f.row_upper).all():
        return None
    row = int(several[0])
    if (f.own.data <= 0.0).any() or f.others[row].nnz:
        return None
    weight = f.own[row].toarray()[0]
    factor = spacing(weight[weight != 0.0])[1]
    scaled = weight * factor
    capacity = int(np.floor(f.row_upper[row] * factor + 1e-9))
    whole = np.abs(scaled - np.rint(scaled)).max(initial=0.0) <= 1e-6
    if not whole or capacity < 0 or capacity * len(weight) > LARGEST:
        return None
    barred = np.zeros(len(weight), dtype=bool)
    for i in np.flatnonzero((counts == 1) & (np.diff(f.others.indptr) == 0)):
        most = f.row_upper[i] / f.own.data[f.own.indptr[i]]
        if most < -1e-9:
            return None  # no answer at all
        barred[f.own.indices[f.own.indptr[i]]] |= most < 1.0 - 1e-9
    return Knapsack(f, np.rint(scaled), capacity, row, barred)
