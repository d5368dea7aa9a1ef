"""The region in which the leader of an algebraic problem is sampled: its bounds, narrowed by the linear rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bilevel_core.backends import SolveSettings
from bilevel_core.backends.highs import Highs
from bilevel_core.errors import BackendError
from bilevel_core.program import BilevelProgram, Program, linear

MANY = 200
"""Bounds of more leader's variables than this are not narrowed, as each takes two linear programs."""
WIDER = 1e-6
"""How far beyond what a linear program says an integer's range goes, relative: its answers have tolerances. Ranges of
continuous variables end where it says: optima are often there, and a hair beyond no follower has an answer."""


def leader_box(program: BilevelProgram, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of every column's range, of which those of the leader's columns are narrowed.

    No bilevel feasible point lies outside, up to rounding: the rows are the linear ones of the high-point relaxation.
    Where that leaves a column without an end and ``half`` is positive, the range is cut to ``half`` around 0, or around
    its finite end.
    """
    lower = np.array([c.lower for c in program.columns], dtype=float)
    upper = np.array([c.upper for c in program.columns], dtype=float)
    point = program.high_point()
    rows = tuple(r for r in point.rows if r.function.degree <= 1)
    relaxed = tuple(replace(c, integer=False) for c in point.columns)
    wanted = [
        i for i in program.leader.columns if not program.columns[i].fixed and any(i in r.function.columns for r in rows)
    ]
    if rows and len(wanted) <= MANY and Highs().available().available:
        for i in wanted:
            for sign in (1.0, -1.0):
                end = _end(Program(relaxed, linear({i: sign}), rows))
                if end is None:
                    continue
                slack = WIDER * max(1.0, abs(end)) if program.columns[i].integer else 0.0
                if sign > 0.0:
                    lower[i] = max(lower[i], end - slack)
                else:
                    upper[i] = min(upper[i], -end + slack)
    if half > 0.0:
        for i in program.leader.columns:
            centre = 0.0
            if math.isfinite(lower[i]) or math.isfinite(upper[i]):
                centre = lower[i] if math.isfinite(lower[i]) else upper[i]
            lower[i] = lower[i] if math.isfinite(lower[i]) else centre - half
            upper[i] = upper[i] if math.isfinite(upper[i]) else centre + half
    return lower, upper


def _end(program: Program) -> float | None:
    try:
        solution = Highs().solve(program, SolveSettings(time_limit=5.0))
    except BackendError:
        return None  # the range stays as wide as it was
    return solution.objective if solution.solved and math.isfinite(solution.objective) else None


def box(lower: np.ndarray, upper: np.ndarray, centre: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds with a region around ``centre`` in place of missing ones; unchanged where ``half`` is 0."""
    if half == 0.0:
        return lower, upper
    middle = np.clip(np.where(np.isfinite(centre), centre, 0.0), lower, upper)
    return np.where(np.isfinite(lower), lower, middle - half), np.where(np.isfinite(upper), upper, middle + half)


def no_bounds(name: str) -> str:
    """What to say of a variable that cannot be sampled."""
    return (
        f"The leader's variable {name!r} has no finite bounds, and sampling needs a region: bound it, or give box, "
        "the half-width of a region around the starting point."
    )
