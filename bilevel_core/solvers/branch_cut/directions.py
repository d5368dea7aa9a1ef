"""Directions in which a purely integer follower improves its answer: w with d w < 0, and few rows that it uses up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.program import INF
from bilevel_core.solvers.branch_cut.free_sets import Family
from bilevel_core.solvers.branch_cut.mip import Mip
from bilevel_core.solvers.branch_cut.model import Follower, LinearModel, sp, spacing

LONGEST = 50.0
"""Directions move no variable further than this."""


class Directions:
    """The sets of improving directions of one follower, and the small program that looks for directions.

    Source: Fischetti, Ljubic, Monaci and Sinnl (2018), On the use of intersection cuts for bilevel optimization.

    Attributes:
        solves: how many times a direction was looked for.
        useful: whether the follower and its linking columns are integer, with whole coefficients.
    """

    def __init__(self, model: LinearModel, follower: Follower, hurry: Callable[[], float | None]) -> None:
        self.follower = follower
        self.solves = 0
        rows = self._rows(model)
        self.useful = rows is not None and bool(follower.cost.any()) and follower.step > 0.0
        if rows is None or not self.useful:
            return
        matrix, self._own, self._limit = rows
        self.family = Family(matrix, np.ones(len(matrix)))
        k, m = len(follower.columns), len(matrix)
        width = follower.upper - follower.lower
        reach = np.minimum(np.where(np.isfinite(width), width, LONGEST), LONGEST)
        most = np.abs(self._own) @ reach
        own = sp.csr_matrix(self._own)
        # Columns: w, and whether each row is used up. Rows: B w <= slack; B w <= most used; d w <= -step.
        program = sp.bmat([[own, None], [own, -sp.diags(most)], [sp.csr_matrix(follower.cost[None, :]), None]])
        self._upper = np.concatenate([np.zeros(2 * m), [-follower.step]])
        self._mip = Mip(
            np.concatenate([np.zeros(k), np.ones(m)]),
            program.tocsr(),
            np.full(2 * m + 1, -INF),
            self._upper,
            np.concatenate([-reach, np.zeros(m)]),
            np.concatenate([reach, np.ones(m)]),
            np.ones(k + m, dtype=bool),
            hurry,
        )
        self._mip.options(mip_rel_gap=0.5)

    def _rows(self, model: LinearModel) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """All one-sided rows and bounds of the follower, scaled to whole coefficients and whole limits."""
        f, sides = self.follower, self.follower.sides
        if not f.integer.all() or not model.integer[f.linking].all():
            return None
        full: list[np.ndarray] = []
        own: list[np.ndarray] = []
        limit: list[float] = []
        for a, b, r in zip(sides.others, sides.own, sides.limit, strict=True):
            step, factor = spacing(np.concatenate([a[a != 0.0], b[b != 0.0]]))
            if step == 0.0:
                return None
            row = a.copy()
            row[f.columns] = b
            full.append(np.rint(row * factor))
            own.append(np.rint(b * factor))
            limit.append(float(np.floor(r * factor + 1e-7)))
        for j, column in enumerate(f.columns):
            for sign, bound in ((1.0, f.upper[j]), (-1.0, -f.lower[j])):
                if np.isfinite(bound):
                    row, unit = np.zeros(model.size), np.zeros(len(f.columns))
                    row[column] = unit[j] = sign
                    full.append(row)
                    own.append(unit)
                    limit.append(float(bound))
        return np.array(full).reshape(-1, model.size), np.array(own).reshape(-1, len(f.columns)), np.array(limit)

    def find(self, values: np.ndarray) -> int | None:
        """The number of a set that holds a point inside; None where no short direction improves its answer."""
        self.solves += 1
        slack = np.floor(np.maximum(self._limit - self.family.matrix @ values, 0.0) + 1e-6)
        upper = self._upper.copy()
        upper[: len(slack)] = slack
        self._mip.limits(self._mip.row_lower, upper)
        solution = self._mip.solve()
        if solution.status is not SolveStatus.OPTIMAL or solution.values is None:
            return None
        w = solution.values[: len(self.follower.columns)]
        used = self._own @ w
        if self.follower.cost @ w > -self.follower.step / 2 or (used > slack + 1e-6).any():
            return None
        return self.family.add(np.where(used > 0.5, self._limit + 1.0 - used, INF))
