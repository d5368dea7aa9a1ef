"""Bilevel-free sets: polyhedra without a bilevel feasible point in their interior.

A point inside one is cut off by an intersection cut (Fischetti, Ljubic, Monaci and Sinnl 2017, 2018), or by branching
on which of the set's inequalities fails. Sets are kept, and asked again before a follower is solved again. Those of
one `Family` have a common matrix, so that a thousand of them are asked by one product.

- `Solutions`: an answer y' of the follower beats y wherever it is feasible: {d y >= d y', G x <= r - B y'}.
- `Policies`: the same with the continuous part of y' an affine function of x, that of its active constraints.
- `Directions`: y + w beats y wherever it is feasible: {A x + B (y + w) <= r}, for integer w with d w < 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from bilevel_core.program import INF
from bilevel_core.solvers.branch_cut.answers import Answer
from bilevel_core.solvers.branch_cut.model import Follower, LinearModel, sp

INSIDE = 1e-6
"""How far (distance) from each inequality of a set a point must be to count as inside."""
DENSE = 2_000_000
"""Matrices with more entries than this are kept sparse."""


class Family:
    """Sets {v: matrix v <= limits}, one for each row of ``limits``; an infinite limit is no inequality.

    Attributes:
        matrix: shape (r, n), dense or sparse.
        step: spacing of the values of each inequality's left side, 0 where there is none, shape (r,).
        norm: length of each row, at least 1, shape (r,).
    """

    def __init__(self, matrix: np.ndarray, step: np.ndarray) -> None:
        self.norm = np.maximum(1.0, np.sqrt((matrix**2).sum(axis=1)))
        self.matrix: Any = matrix if matrix.size <= DENSE else sp.csr_matrix(matrix)
        self.step = step
        self._limits = np.empty((8, matrix.shape[0]))
        self._known: set[bytes] = set()
        self.count = 0

    @property
    def limits(self) -> np.ndarray:
        """One row a set, shape (p, r)."""
        return self._limits[: self.count]

    def add(self, limits: np.ndarray) -> int | None:
        """Keep a set; returns its number, or None where it is there already."""
        name = np.round(limits, 9).tobytes()
        if name in self._known:
            return None
        self._known.add(name)
        if self.count == len(self._limits):
            self._limits = np.concatenate([self._limits, np.empty_like(self._limits)])
        self._limits[self.count] = limits
        self.count += 1
        return self.count - 1

    def holding(self, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sets that hold a point inside, the deepest first, at most ``most``, and their slacks."""
        slack = self.limits - self.matrix @ values
        depth = (slack / self.norm).min(axis=1, initial=INF)
        inside = np.flatnonzero(depth > INSIDE)
        if len(inside) > most:
            inside = inside[np.argsort(-depth[inside], kind="stable")[:most]]
        return inside, slack[inside]


class Solutions:
    """The sets of answers of one follower.

    Args:
        model, follower: whose.
        guard: by how much an answer counts as feasible beyond its rows where these contain continuous columns of x.
    """

    def __init__(self, model: LinearModel, follower: Follower, guard: float = 0.0) -> None:
        sides = follower.sides
        at = np.flatnonzero(sides.links)
        self.follower = follower
        self._own, self._limit, self._step = sides.own[at], sides.limit[at], sides.step[at].copy()
        others = sides.others[at]
        whole = np.array([model.integer[np.flatnonzero(r)].all() for r in others], dtype=bool)
        self._step[~whole] = 0.0
        value = np.zeros(model.size)
        value[follower.columns] = -follower.cost
        with np.errstate(invalid="ignore"):
            most = np.where(others > 0, others * model.upper, 0.0) + np.where(others < 0, others * model.lower, 0.0)
        self._most = most.sum(axis=1)
        self._bends = np.where(whole, 1e-6 * np.maximum(1.0, np.abs(others).max(axis=1, initial=0.0)), guard)
        self.family = Family(np.vstack([others, value]), np.append(self._step, follower.step))

    def add(self, y: np.ndarray) -> int | None:
        """The set of an answer."""
        return self.family.add(self.limits(y))

    def limits(self, y: np.ndarray) -> np.ndarray:
        """The limits of the set of an answer: those of integer rows are the first values at which y is infeasible."""
        room = self._limit - self._own @ y
        steps = np.where(self._step > 0.0, self._step, 1.0)
        first = (np.floor(room / steps + 1e-6) + 1.0) * steps
        limits = np.where(self._step > 0.0, first, room + self._bends)
        limits = np.where(self._most < limits - 1e-9, INF, limits)  # cannot fail, whatever x
        return np.append(limits, -float(self.follower.cost @ y))


class Policies:
    """The sets of answers whose continuous part follows x."""

    def __init__(self, model: LinearModel, follower: Follower) -> None:
        self.follower = follower
        self.model = model
        self.families: dict[tuple[int, ...], tuple[Family, np.ndarray]] = {}
        self._free = np.flatnonzero(~follower.integer)
        f, sides = follower, follower.sides
        k = len(f.columns)
        unit = np.eye(k)
        low, up = self._free[np.isfinite(f.lower[self._free])], self._free[np.isfinite(f.upper[self._free])]
        bounds = len(low) + len(up)
        self._own = np.vstack([sides.own, unit[up], -unit[low]])
        self._others = np.vstack([sides.others, np.zeros((bounds, model.size))])
        self._limit = np.concatenate([sides.limit, f.upper[up], -f.lower[low]])

    @property
    def useful(self) -> bool:
        """Whether the follower has a continuous part."""
        return bool(len(self._free)) and len(self.families) < 200

    def add(self, values: np.ndarray, answer: Answer) -> tuple[Family, int] | None:
        """The set of an answer that is optimal at a point's x for its own integer part."""
        f, free = self.follower, self._free
        slack = self._limit - self._own @ answer.y - self._others @ values
        scale = 1e-7 * np.maximum(1.0, np.abs(self._limit))
        active = np.flatnonzero(slack <= scale)
        active = active[self._own[active][:, free].any(axis=1)]
        if not len(active):
            return None
        qr: Any = scipy.linalg.qr  # whose stubs do not say which of its forms is returned
        _, upper, order = qr(self._own[active][:, free].T, mode="economic", pivoting=True)
        diagonal = np.abs(np.diag(upper))
        rank = int((diagonal > 1e-9 * max(1.0, diagonal.max(initial=0.0))).sum())
        basis = tuple(sorted(int(active[i]) for i in order[:rank]))
        if rank < len(free):
            return None  # no vertex: which answer follows x is not determined
        if basis not in self.families:
            made = self._family(basis)
            if made is None:
                return None
            self.families[basis] = made
        family, inverse = self.families[basis]
        at = list(basis)
        whole = np.where(f.integer, answer.y, 0.0)
        constant = np.zeros(len(f.columns))
        constant[free] = inverse @ (self._limit[at] - self._own[at] @ whole)
        y0 = whole + constant  # the answer at x = 0
        limits = self._limit - self._own @ y0
        fixed = ~family.matrix[:-1].any(axis=1) if isinstance(family.matrix, np.ndarray) else np.zeros(0, dtype=bool)
        if (limits[fixed] < -1e-7 * np.maximum(1.0, np.abs(self._limit[fixed]))).any():
            return None
        limits[fixed] = INF
        number = family.add(np.append(limits, -float(f.cost @ y0)))
        return None if number is None else (family, number)

    def _family(self, basis: tuple[int, ...]) -> tuple[Family, np.ndarray] | None:
        f, free, at = self.follower, self._free, list(basis)
        square = self._own[at][:, free]
        try:
            inverse = np.linalg.inv(square)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(inverse).all() or np.abs(inverse).max() > 1e6:
            return None
        slope = -inverse @ self._others[at]  # of the continuous part in x
        matrix = self._others + self._own[:, free] @ slope
        matrix[np.abs(matrix) < 1e-9] = 0.0
        matrix[at] = 0.0
        value = f.cost[free] @ slope
        value[f.columns] -= f.cost
        matrix = np.vstack([matrix, value])
        if matrix.size > DENSE:
            return None
        return Family(matrix, np.zeros(len(matrix))), inverse
