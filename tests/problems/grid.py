"""Checks of a statement without the core: arithmetic on arrays, grids that close in on the follower's answer, SciPy.

The tables' optima are shown right from two sides: the declared point is feasible and the follower's best answer, and no
point of a grid, with the follower's answer there, is better for the leader.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize

from bilevel_problems.statement import Level, Row, Statement

FUNCTIONS = {"exp": np.exp, "log": np.log}
REACH = 6.0
"""How far from the declared point a variable without a bound is looked at."""


def violation(level: Level, values: Mapping[str, object]) -> np.ndarray:
    """The largest violation of a level's rows, nowhere negative; 0 without rows."""
    worst = np.array(0.0)
    for row in level.rows:
        difference = np.asarray(row.left(values, FUNCTIONS) - row.right(values, FUNCTIONS), float)
        sign = {"<=": difference, ">=": -difference, "==": np.abs(difference)}[row.relation]
        worst = np.maximum(worst, sign)
    return worst


def objective(level: Level, values: Mapping[str, object]) -> np.ndarray:
    """A level's objective, for minimisation."""
    value = np.asarray(level.objective(values, FUNCTIONS), float)
    return -value if level.maximise else value


def at_point(s: Statement) -> dict[str, float]:
    """The declared point's values by variable."""
    upper, lower = s.levels
    return dict(zip([*upper.bounds, *lower.bounds], s.point, strict=True))


def bound_violation(s: Statement) -> float:
    """The largest violation of a bound at the declared point."""
    values = at_point(s)
    return max(max(low - values[n], values[n] - high) for side in s.levels for n, (low, high) in side.bounds.items())


def _box(level: Level, values: Mapping[str, float], reach: float = REACH) -> tuple[np.ndarray, np.ndarray]:
    lows = [max(low, values[n] - reach) for n, (low, _) in level.bounds.items()]
    highs = [min(high, values[n] + reach) for n, (_, high) in level.bounds.items()]
    return np.array(lows), np.array(highs)


def answer_near(
    s: Statement, x: Mapping[str, float], starts: Sequence[np.ndarray], allowed: float = 1e-9
) -> tuple[float, np.ndarray] | None:
    """The follower's best answer at x that a local solver finds from the starts, and its value; None if it finds none.

    ``allowed`` is how far a row may be violated.
    """
    _, lower = s.levels
    names = list(lower.bounds)

    def put(y: np.ndarray) -> dict[str, object]:
        return {**x, **dict(zip(names, y, strict=True))}

    def row_value(row: Row, y: np.ndarray) -> float:
        difference = row.left(put(y), FUNCTIONS) - row.right(put(y), FUNCTIONS)
        return -difference if row.relation == "<=" else difference

    constraints = [
        {"type": "eq" if r.relation == "==" else "ineq", "fun": functools.partial(row_value, r)} for r in lower.rows
    ]
    found: list[tuple[float, np.ndarray]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the local solver warns of points outside bounds that it then clips
        for start in starts:
            end = minimize(
                lambda y: float(objective(lower, put(y))),
                start,
                bounds=list(lower.bounds.values()),
                constraints=constraints,
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 200},
            )
            if violation(lower, put(end.x)) <= allowed:
                found.append((float(end.fun), end.x))
    return min(found, key=lambda pair: pair[0], default=None)


def best_answer(s: Statement, starts: int = 12) -> float:
    """The follower's smallest objective at the declared x, from the declared y and from random points."""
    upper, lower = s.levels
    values = at_point(s)
    low, high = _box(lower, values, 3.0)
    rng = np.random.default_rng(0)
    points = [np.array([values[n] for n in lower.bounds]), *(rng.uniform(low, high) for _ in range(starts))]
    found = answer_near(s, {n: values[n] for n in upper.bounds}, points)
    here = float(objective(lower, values))
    return here if found is None else min(here, found[0])


def better_points(s: Statement, tolerance: float) -> list[tuple[float, ...]]:
    """Points of a grid of x, with the follower's answers there, that the leader likes better than the declared one.

    What the grid says of the follower is checked by a local solver, wherever it would make a point better.
    """
    upper, lower = s.levels
    x, y, gained = leader_on_grid(s, *counts(s.sizes))
    assert s.optimum is not None
    wanted = (-s.optimum if upper.maximise else s.optimum) - tolerance
    rng = np.random.default_rng(0)
    out: list[tuple[float, ...]] = []
    for k in np.flatnonzero(gained < wanted):
        low, high = _box(lower, at_point(s), 3.0)
        at = dict(zip(upper.bounds, map(float, x[k]), strict=True))
        found = answer_near(s, at, [y[k], *(rng.uniform(low, high) for _ in range(4))])
        here = {**at, **dict(zip(lower.bounds, map(float, y[k]), strict=True))}
        if found is None or found[0] > float(objective(lower, here)) - 1e-9:
            out.append(tuple(here.values()))
            continue
        there = {**at, **dict(zip(lower.bounds, map(float, found[1]), strict=True))}
        if violation(upper, there) <= 1e-9 and float(objective(upper, there)) < wanted:
            out.append(tuple(there.values()))
    return out


def leader_on_grid(s: Statement, x_count: int, y_count: int, rounds: int = 30) -> tuple[np.ndarray, ...]:
    """A grid of x, the follower's answers there, and the leader's objective, for at most two variables a level.

    The answer is the best point of a grid of y, then of ever smaller ones around it; equal ones are told apart in the
    leader's favour. Where there is none, or it lies on the edge of a window that was cut for want of a bound, or the
    leader forbids it, the value is infinite.
    """
    upper, lower = s.levels
    values = at_point(s)
    axes = [np.linspace(a, b, x_count) for a, b in zip(*_box(upper, values, 5.0), strict=True)]
    x = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1) if axes else np.zeros((1, 0))
    x_values = {n: x[:, k, None] for k, n in enumerate(upper.bounds)}
    low, high = _box(lower, values)
    cut = [(low[k] > b[0], high[k] < b[1]) for k, b in enumerate(lower.bounds.values())]
    centre = np.broadcast_to((low + high) / 2, (len(x), len(low)))
    half = np.broadcast_to((high - low) / 2, centre.shape)
    count = y_count
    for _ in range(rounds):
        steps = np.stack([g.ravel() for g in np.meshgrid(*[np.linspace(-1, 1, count)] * len(low))], axis=1)
        y = np.clip(centre[:, None, :] + steps[None] * half[:, None, :], low, high)
        y = np.concatenate([y, centre[:, None, :]], axis=1)
        at = {**x_values, **{n: y[:, :, k] for k, n in enumerate(lower.bounds)}}
        f = np.where(violation(lower, at) <= 1e-9, np.broadcast_to(objective(lower, at), y.shape[:2]), np.inf)
        tied = f <= f.min(axis=1, keepdims=True)
        leaders = np.where(violation(upper, at) <= 1e-9, np.broadcast_to(objective(upper, at), f.shape), np.inf)
        pick = np.where(tied, np.minimum(leaders, 1e300), np.inf).argmin(axis=1)
        rows = np.arange(len(x))
        centre, answered, gained = y[rows, pick], np.isfinite(f[rows, pick]), leaders[rows, pick]
        # A window whose edge holds the best point is moved, not made smaller.
        at_edge = np.abs(np.vstack([steps, 0 * steps[:1]])[pick]).max(axis=1) > 0.99
        shrink = 0.1 if count == y_count else np.where(at_edge, 1.0, 0.45)[:, None]
        half = half * shrink
        count = 13 if len(low) == 1 else 9
    for k, (below, above) in enumerate(cut):
        answered &= ~(below & (centre[:, k] < low[k] + 1e-3)) & ~(above & (centre[:, k] > high[k] - 1e-3))
    return x, centre, np.where(answered, gained, np.inf)


def counts(sizes: Sequence[int]) -> tuple[int, int]:
    """Points a coordinate for the grids of x and y, so that no array gets large."""
    nx, ny = sizes
    return {0: 1, 1: 101 if ny == 1 else 41, 2: 21 if ny == 1 else 15}[nx], 1601 if ny == 1 else 61
