"""Branching on a bilevel-free set: one child for each of its inequalities, in which that one fails.

The child of an inequality also has those before it hold, so that children do not overlap. Where a set has too many
inequalities, or there is none, the children split one linking column around its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_core.program import INF
from bilevel_core.solvers.branch_cut.free_sets import Family


@dataclass(frozen=True)
class Child:
    """A part of a node: rows ``low <= coefficients v <= up``, and how soon to look at it (larger is sooner)."""

    rows: tuple[tuple[np.ndarray, float, float], ...]
    priority: float = 0.0


def by_set(family: Family, limits: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[Child]:
    """The children of a set; inequalities that cannot fail within the bounds have none.

    Args:
        family, limits: the set.
        lower, upper: the node's bounds.
    """
    matrix = family.matrix if isinstance(family.matrix, np.ndarray) else family.matrix.toarray()
    finite = np.flatnonzero(np.isfinite(limits))
    most = _most(matrix[finite], lower, upper)
    may_fail = finite[most >= limits[finite] - 1e-9 * np.maximum(1.0, np.abs(limits[finite]))]
    children: list[Child] = []
    before: list[tuple[np.ndarray, float, float]] = []
    for i in may_fail:
        fails = (matrix[i], float(limits[i]), INF)
        # The last inequality, the follower's value, is the child most likely to hold the optimum.
        children.append(Child((fails, *before), 1.0 if i == len(limits) - 1 else 0.0))
        before.append((matrix[i], -INF, float(limits[i] - family.step[i])))
    return children


def _most(matrix: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        parts = np.where(matrix > 0.0, matrix * upper, 0.0) + np.where(matrix < 0.0, matrix * lower, 0.0)
    return parts.sum(axis=1)


def around(
    linking: np.ndarray, values: np.ndarray, lower: np.ndarray, upper: np.ndarray, here: Child | None
) -> list[Child]:
    """The values of the linking columns taken apart: these very ones (``here``, None where nothing is there), and
    for each column those below and above it with the columns before it as they are.
    """
    children = [] if here is None else [here]
    before: list[tuple[np.ndarray, float, float]] = []
    for i in linking:
        if upper[i] - lower[i] < 0.5:
            continue
        unit = np.zeros(len(values))
        unit[i] = 1.0
        value = float(np.rint(values[i]))
        for low, up in ((-INF, value - 1.0), (value + 1.0, INF)):
            if max(low, lower[i]) <= min(up, upper[i]):
                children.append(Child(((unit, low, up), *before)))
        before.append((unit, value, value))
    if here is not None:
        children[0] = Child((*before, *here.rows), 1.0)
    return children


def one_column(linking: np.ndarray, values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[Child]:
    """Three children: the linking column with most room at its value, below and above. Empty where all are fixed."""
    room = upper[linking] - lower[linking]
    if not len(room) or room.max() < 0.5:
        return []
    i = int(linking[int(np.argmax(room))])
    unit = np.zeros(len(values))
    unit[i] = 1.0
    value = float(np.rint(values[i]))
    parts = ((-INF, value - 1.0, 0.0), (value, value, 1.0), (value + 1.0, INF, 0.0))
    return [Child(((unit, a, b),), p) for a, b, p in parts if max(a, lower[i]) <= min(b, upper[i])]
