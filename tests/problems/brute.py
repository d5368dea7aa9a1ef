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
LinearRow = tuple[Sequence[float], Sequence[float], float]


def best(points: Iterator[tuple[float, Point]] | Sequence[tuple[float, Point]]) -> tuple[float, Point]:
    """The point with the smallest leader's objective."""
    return min(points, key=lambda item: item[0])


def optimistic_lp(
    upper_y: np.ndarray,
    lower_y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    bounds: Sequence[Bound],
    own_a: np.ndarray,
    own_b: np.ndarray,
) -> np.ndarray | None:
    """The answer of ``min lower_y . y, a y <= b`` that minimises ``upper_y . y`` among those with ``own_a y <= own_b``.

    None if there is none.
    """
    first = linprog(lower_y, A_ub=a, b_ub=b, bounds=bounds)
    if first.status != 0:
        return None
    face_a = np.vstack([a, lower_y, own_a])
    face_b = np.concatenate([b, [first.fun + 1e-9 * max(1.0, abs(first.fun))], own_b])
    second = linprog(upper_y, A_ub=face_a, b_ub=face_b, bounds=bounds)
    return second.x if second.status == 0 else None


def _arrays(rows: Sequence[LinearRow], nx: int, ny: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p = np.array([row[0] for row in rows], float).reshape(len(rows), nx)
    q = np.array([row[1] for row in rows], float).reshape(len(rows), ny)
    return p, q, np.array([row[2] for row in rows], float)


def linear_over_lp(
    grid: Sequence[Sequence[float]],
    upper: tuple[Sequence[float], Sequence[float]],
    lower: Callable[[np.ndarray], Sequence[float]],
    rows: Sequence[LinearRow],
    bounds: Sequence[Bound],
    own: Sequence[LinearRow] = (),
) -> tuple[float, Point]:
    """min upper over a grid of x; rows (x part, y part, right-hand side) mean x.p + y.q <= r and are the follower's.

    Those in ``own`` are the leader's.
    """
    p, q, r = _arrays(rows, len(upper[0]), len(upper[1]))
    own_p, own_q, own_r = _arrays(own, len(upper[0]), len(upper[1]))
    found: list[tuple[float, Point]] = []
    for point in itertools.product(*grid):
        x = np.array(point)
        y = optimistic_lp(
            np.array(upper[1], float), np.array(lower(x), float), q, r - p @ x, bounds, own_q, own_r - own_p @ x
        )
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


def interval(low: float, high: float, wanted: float) -> list[Point]:
    """The point of [low, high] nearest to the one wanted: the answer of a follower that minimises a distance."""
    return [] if low > high + 1e-12 else [(min(max(wanted, low), high),)]


def scalar_lp(rows: Sequence[tuple[float, float, float]], slope: float, x: float, low: float = -np.inf) -> list[Point]:
    """The answer of ``min slope * y`` over rows ``p x + q y <= r`` and ``y >= low``: an end of an interval."""
    high = np.inf
    for p, q, r in rows:
        if q > 0:
            high = min(high, (r - p * x) / q)
        else:
            low = max(low, (r - p * x) / q)
    return interval(low, high, -np.sign(slope) * np.inf)


def strictly_convex(h: np.ndarray, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[Point]:
    """The answer of ``min 0.5 y'hy + c'y, a y <= b``: the best feasible minimiser over all sets of active rows."""
    n = len(c)
    found: list[tuple[float, Point]] = []
    for size in range(n + 1):
        for active in itertools.combinations(range(len(b)), size):
            rows = a[list(active)]
            system = np.block([[h, rows.T], [rows, np.zeros((size, size))]])
            try:
                y = np.linalg.solve(system, np.concatenate([-c, b[list(active)]]))[:n]
            except np.linalg.LinAlgError:
                continue
            if (a @ y <= b + 1e-9).all():
                found.append((float(0.5 * y @ h @ y + c @ y), tuple(map(float, y))))
    return [best(found)[1]] if found else []


def zoom(
    value: Callable[[Point], float], box: Sequence[tuple[float, float]], count: int, rounds: int = 14
) -> tuple[float, Point]:
    """The smallest value over a grid of ``count`` points a coordinate, then over ever finer ones around the best."""
    found: tuple[float, Point] = (np.inf, ())
    for _ in range(rounds):
        grid = itertools.product(*(np.linspace(low, high, count) for low, high in box))
        found = min(found, best([(value(x), tuple(map(float, x))) for x in grid]))
        steps = [2 * (high - low) / (count - 1) for low, high in box]
        box = [(v - s, v + s) for v, s in zip(found[1], steps, strict=True)]
        count = min(count, 13)
    return found


def optimistic(
    answers: Callable[[Point], Sequence[Point]], upper: Callable[[Point, Point], float]
) -> Callable[[Point], float]:
    """The leader's value at x: the best over the follower's answers, infinite where there is none."""
    return lambda x: min((upper(x, y) for y in answers(x)), default=np.inf)
