"""Brute force for small problems, written without the core: a grid over the leader, the follower by closed form,
enumeration or a fine grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.optimize import linprog

Point = tuple[float, ...]
Bound = tuple[float | None, float | None]


def best(points: Iterator[tuple[float, Point]] | Sequence[tuple[float, Point]]) -> tuple[float, Point]:
    """The point with the smallest leader's objective."""
    return min(points, key=lambda item: item[0])


def optimistic_lp(
    upper_y: np.ndarray,
    lower_y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    bounds: Sequence[Bound],
) -> np.ndarray | None:
    """Of the optimal answers of ``min lower_y . y, a y <= b`` the one that minimises ``upper_y . y``; None if none."""
    first = linprog(lower_y, A_ub=a, b_ub=b, bounds=bounds)
    if first.status != 0:
        return None
    face_a = np.vstack([a, lower_y])
    face_b = np.append(b, first.fun + 1e-9 * max(1.0, abs(first.fun)))
    second = linprog(upper_y, A_ub=face_a, b_ub=face_b, bounds=bounds)
    return second.x if second.status == 0 else None


def linear_over_lp(
    grid: Sequence[Sequence[float]],
    upper: tuple[Sequence[float], Sequence[float]],
    lower: Callable[[np.ndarray], Sequence[float]],
    rows: Sequence[tuple[Sequence[float], Sequence[float], float]],
    bounds: Sequence[Bound],
) -> tuple[float, Point]:
    """min upper over a grid of x; rows (x part, y part, right-hand side) mean x.p + y.q <= r and are the follower's."""
    p, q = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    r = np.array([row[2] for row in rows], float)
    found: list[tuple[float, Point]] = []
    for point in itertools.product(*grid):
        x = np.array(point)
        y = optimistic_lp(np.array(upper[1], float), np.array(lower(x), float), q, r - p @ x, bounds)
        if y is not None:
            found.append((float(np.dot(upper[0], x) + np.dot(upper[1], y)), (*point, *y)))
    return best(found)


def over_grid(
    xs: Sequence[Point],
    answers: Callable[[Point], Sequence[Point]],
    upper: Callable[[Point, Point], float],
    allowed: Callable[[Point, Point], bool] = lambda x, y: True,
) -> tuple[float, Point]:
    """min upper over x and the follower's optimal answers at x that the leader allows."""
    found = [(upper(x, y), (*x, *y)) for x in xs for y in answers(x) if allowed(x, y)]
    return best(found)


def line(start: float, stop: float, count: int) -> list[Point]:
    """A grid on an interval, as points of one coordinate."""
    return [(float(v),) for v in np.linspace(start, stop, count)]


def argmin(candidates: Sequence[Point], value: Callable[[Point], float], tolerance: float = 1e-12) -> list[Point]:
    """All candidates whose value is the smallest, up to a tolerance."""
    values = [value(c) for c in candidates]
    smallest = min(values, default=np.inf)
    return [c for c, v in zip(candidates, values, strict=True) if v <= smallest + tolerance]
