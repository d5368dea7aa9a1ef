"""The simplex cone at the optimal vertex of SCIP's linear program, and the intersection cuts that it gives.

At a vertex, n constraints are active: bounds of nonbasic columns and sides of nonbasic rows. The cone that they span
holds everything feasible. Where each of its rays leaves a bilevel-free set around the vertex, the cut passes through
(Balas 1971).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.solvers.branch_cut.free_sets import Family

LARGEST_RAY = 1e7
"""Cones with longer rays (unit moves of a nonbasic variable) are not used: their numbers mean nothing."""
TINY = 1e-7
"""Coefficients below this, relative to the largest, are replaced by what they contribute at most."""


@dataclass(frozen=True)
class Cut:
    """``coefficients v >= side``, over all columns; ``depth`` is the distance of the point cut off."""

    coefficients: np.ndarray
    side: float
    depth: float


class RowStore:
    """The coefficients of rows of SCIP's linear program by name, so that they are read once."""

    def __init__(self) -> None:
        self._rows: dict[str, np.ndarray] = {}

    def coefficients(self, row: Any, place: dict[int, int], size: int, *, own: bool) -> np.ndarray:
        """One row over all columns. Only rows that ``own`` says are the search's are kept: SCIP uses names again."""
        name = row.name
        if own and name in self._rows:
            return self._rows[name]
        out = np.zeros(size)
        for column, value in zip(row.getCols(), row.getVals(), strict=True):
            out[place[column.getLPPos()]] = value
        if own:
            self._rows[name] = out
        return out


class Cone:
    """The cone at the current vertex.

    Attributes:
        point: the vertex over all columns, shape (n,).
        lower, upper: the local bounds of the columns.
    """

    def __init__(
        self,
        point: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        nonbasic: np.ndarray,
        sign: np.ndarray,
        rows: np.ndarray,
        row_sign: np.ndarray,
        row_side: np.ndarray,
    ) -> None:
        self.point, self.lower, self.upper = point, lower, upper
        self._nonbasic, self._sign = nonbasic, sign
        self._rows, self._row_sign, self._row_side = rows, row_sign, row_side
        basic = np.ones(len(point), dtype=bool)
        basic[nonbasic] = False
        self._basic = np.flatnonzero(basic)
        self._inverse = np.linalg.inv(rows[:, self._basic])
        self._moved = self._inverse @ rows[:, nonbasic]  # what basic columns do when a nonbasic one moves, negated

    @property
    def usable(self) -> bool:
        """Whether its rays are finite and not too long."""
        longest = max(np.abs(self._inverse).max(initial=0.0), np.abs(self._moved).max(initial=0.0))
        return bool(np.isfinite(longest) and longest <= LARGEST_RAY)

    def rays(self, matrix: Any) -> np.ndarray:
        """A matrix times all rays, shape (r, n): those of nonbasic columns first, then those of nonbasic rows."""
        basic = matrix[:, self._basic]
        along_columns = np.asarray(_dense(matrix[:, self._nonbasic]) - basic @ self._moved) * self._sign
        along_rows = np.asarray(basic @ self._inverse) * self._row_sign
        return np.hstack([along_columns, along_rows])

    def deepest(self, family: Family, slack: np.ndarray) -> Cut | None:
        """Of the cuts of a family's sets that hold the vertex, with these slacks (p, r), the deepest. One without
        coefficients where a set holds the whole cone: then nothing is feasible. None where numbers are unusable.
        """
        rates = np.maximum(self.rays(family.matrix), 0.0)
        rates[rates < 1e-9] = 0.0
        inverse = (rates[None, :, :] / slack[:, :, None]).max(axis=1)  # 1 / the length of each ray inside each set
        n = len(self._nonbasic)
        coefficients = (inverse[:, n:] * self._row_sign) @ self._rows
        coefficients[:, self._nonbasic] += inverse[:, :n] * self._sign
        length = np.sqrt((coefficients**2).sum(axis=1))
        k = int(np.argmin(length))  # at the vertex each cut is violated by 1
        if length[k] == 0.0:
            return Cut(np.zeros(len(self.point)), 1.0, np.inf)
        return self._cut(coefficients[k], inverse[k])

    def _cut(self, coefficients: np.ndarray, inverse: np.ndarray) -> Cut | None:
        """The cut that each ray meets after 1 / ``inverse``, scaled to a largest coefficient of 1."""
        n = len(self._nonbasic)
        bound = np.where(self._sign > 0, self.lower[self._nonbasic], self.upper[self._nonbasic])
        side = 1.0 + float((inverse[:n] * self._sign) @ bound) + float((inverse[n:] * self._row_sign) @ self._row_side)
        largest = np.abs(coefficients).max()
        coefficients, side = coefficients / largest, side / largest
        small = (np.abs(coefficients) < TINY) & (coefficients != 0.0)
        if small.any():
            limit = np.where(coefficients > 0.0, self.upper, self.lower)[small]
            if np.abs(limit).max() > 1e6:
                return None
            side -= float(coefficients[small] @ limit)
            coefficients[small] = 0.0
        length = float(np.sqrt(coefficients @ coefficients))
        return Cut(coefficients, side, (side - float(coefficients @ self.point)) / length)


def read_cone(model: Any, place_of: dict[str, int], size: int, store: RowStore) -> Cone | None:
    """The cone of SCIP's current linear program; None where it has no usable one.

    Args:
        model: a PySCIPOpt model whose linear program is solved.
        place_of: number of each column by the name of SCIP's transformed variable.
        size: number of columns.
        store: rows read before.
    """
    columns: list[Any] = model.getLPColsData()
    if len(columns) != size:
        return None
    point, lower, upper = np.empty(size), np.empty(size), np.empty(size)
    place: dict[int, int] = {}
    nonbasic: list[int] = []
    sign: list[float] = []
    for position, column in enumerate(columns):
        k = place_of[column.getVar().name]
        place[position] = k
        point[k], lower[k], upper[k] = column.getPrimsol(), column.getLb(), column.getUb()
        status = column.getBasisStatus()
        if status == "basic":
            continue
        if status not in ("lower", "upper"):
            return None
        nonbasic.append(k)
        sign.append(1.0 if status == "lower" else -1.0)
    rows: list[np.ndarray] = []
    row_sign: list[float] = []
    side: list[float] = []
    for row in model.getLPRowsData():
        status = row.getBasisStatus()
        if status == "basic":
            continue
        if status not in ("lower", "upper"):
            return None
        own = row.name.startswith(("bilevel", "row"))
        rows.append(store.coefficients(row, place, size, own=own))
        row_sign.append(1.0 if status == "lower" else -1.0)
        side.append((row.getLhs() if status == "lower" else row.getRhs()) - row.getConstant())
    if len(nonbasic) + len(rows) != size:
        return None
    try:
        cone = Cone(
            point,
            lower,
            upper,
            np.array(nonbasic, dtype=np.int64),
            np.array(sign, dtype=float),
            np.array(rows, dtype=float).reshape(-1, size),
            np.array(row_sign, dtype=float),
            np.array(side, dtype=float),
        )
    except np.linalg.LinAlgError:
        return None
    return cone if cone.usable else None


def _dense(matrix: Any) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
