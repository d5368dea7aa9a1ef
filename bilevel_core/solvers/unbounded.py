"""Whether an objective has a lower bound: floors that are proven, rays that disprove them, probes for what is between.

A branch-and-bound lives on bounds of relaxations. Where the relaxation is unbounded SCIP has returned points that are
not optimal as optimal, so no search is started before the objective has a floor: by intervals, by a linear or convex
quadratic program, or else by a row that is put in and shown to cut nothing off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.base import Solution
from bilevel_core.backends.highs import Highs
from bilevel_core.errors import BackendError
from bilevel_core.program import INF, Function, Program, Row, Variable, linear
from bilevel_core.solvers.single_level import PIECES, pick, piece, polish
from bilevel_core.traits.interval import Box, function_range

PROBE, STEP, PROBES = 1e5, 1e2, 4
"""Objective values that are tried in turn for points beyond them: the first, the factor to the next, and how many."""
SOON = 5.0
"""Seconds after which a search for points beyond a probe waits for the search within."""
RAY = 1e-7
"""A direction counts as improving from this on, relative to the objective's largest coefficient."""
MOST_COLUMNS = 20
"""No more than so many columns of a nonconvex objective are bounded one by one."""

Solve = Callable[[Program, float | None], Solution]


def floor(program: Program, remaining: Callable[[], float | None]) -> float:
    """A proven lower bound of the objective over a program without its integrality, sets, pairs and nonlinear rows.

    Returns minus infinity where none is found; that does not mean that there is none.
    """
    f = program.objective
    box = Box(program.columns, frozenset())
    lowest = function_range(f, box)[0]
    if math.isfinite(lowest):
        return lowest
    relaxed = Program(
        tuple(replace(c, integer=False) for c in program.columns),
        f,
        tuple(r for r in program.rows if r.function.degree <= 1),
    )
    try:
        if Highs().accepts(relaxed) is None:
            found = Highs().solve(relaxed, SolveSettings(time_limit=remaining()))
            return found.objective if found.status is SolveStatus.OPTIMAL else -INF
        columns = list(program.columns)
        curved = Function(quadratic=f.quadratic, nonlinear=f.nonlinear).columns
        if len(curved) > MOST_COLUMNS:
            return -INF
        for i in curved:
            c = columns[i]
            ends = [c.lower, c.upper]
            for side, sign in ((0, 1.0), (1, -1.0)):
                if not math.isfinite(ends[side]):
                    goal = replace(relaxed, objective=linear({i: sign}))
                    found = Highs().solve(goal, SolveSettings(time_limit=remaining()))
                    ends[side] = sign * found.objective if found.status is SolveStatus.OPTIMAL else ends[side]
            columns[i] = replace(c, lower=ends[0], upper=max(ends))
    except BackendError:
        return -INF
    return function_range(f, Box(columns, frozenset()))[0]


def ray(program: Program, values: np.ndarray) -> bool:
    """Whether the piece of a program on which a point lies is proven to be unbounded.

    Of each pair, set and indicator one column is zero there, and the rest is linear, where need be with some columns
    left at their values. Integer columns may move: a mixed-integer program with rational data that has a point is
    unbounded when its relaxation is (Meyer 1974).
    """
    for choice in PIECES:
        rest = piece(program, values, choice, integers=False)
        rest = _linearised(rest, values)
        feasible = replace(rest, objective=Function())
        if Highs().accepts(feasible) is None and _has_point(feasible) and improving(rest):
            return True
    return False


def _has_point(program: Program) -> bool:
    try:
        return Highs().solve(program).status is SolveStatus.OPTIMAL
    except BackendError:
        return False


def _linearised(program: Program, values: np.ndarray) -> Program:
    """Columns fixed at a point so that all rows become linear, and the objective at most quadratic."""
    fixed: dict[int, float] = {}
    for f in (r.function for r in program.rows):
        free = {i for i in f.columns if not program.columns[i].fixed}
        if f.nonlinear is not None:
            fixed |= {i: float(values[i]) for i in free}
        for pair in f.quadratic:
            if set(pair) <= free and not any(i in fixed for i in pair):
                fixed[min(pair)] = float(values[min(pair)])
    if program.objective.nonlinear is not None:
        part = Function(nonlinear=program.objective.nonlinear).columns
        fixed |= {i: float(values[i]) for i in part if not program.columns[i].fixed}
    columns = [
        replace(c, lower=fixed[i], upper=fixed[i], integer=False) if i in fixed else replace(c, integer=False)
        for i, c in enumerate(program.columns)
    ]
    at = {i: c.lower for i, c in enumerate(columns) if c.fixed}
    rows = tuple(replace(r, function=r.function.fix(at)) for r in program.rows)
    rows = tuple(r for r in rows if r.function.degree > 0)
    return Program(tuple(columns), program.objective.fix(at), rows)


def improving(program: Program) -> bool:
    """Whether a program with linear rows has a direction that leads on from any point, and makes a linear or quadratic
    objective smaller without end.
    """
    f = program.objective
    cone = Program(tuple(_direction(c) for c in program.columns), Function(), tuple(map(_homogeneous, program.rows)))
    flat = [Row(f"flat{i}", f.partial(i) + (-f.partial(i).constant), 0.0, 0.0) for i in _curved(f)]
    try:
        if f.linear:
            along = Highs().solve(replace(cone, objective=linear(f.linear), rows=(*cone.rows, *flat)))
            if along.status is SolveStatus.OPTIMAL and along.objective < -RAY * f.size:
                return True
        bent = Program(cone.columns, Function(quadratic=f.quadratic), cone.rows)
        if not f.quadratic or Highs().accepts(bent) is None:
            return False  # a convex objective falls without end only where it is flat
        down = pick(bent).solve(bent, SolveSettings(time_limit=10.0))
    except BackendError:
        return False
    return down.values is not None and down.objective < -RAY * f.size


def _curved(f: Function) -> Iterable[int]:
    return sorted({i for pair in f.quadratic for i in pair})


def _direction(c: Variable) -> Variable:
    """The directions in which a column may go on for ever, no longer than 1."""
    low = 0.0 if math.isfinite(c.lower) else -1.0
    high = 0.0 if math.isfinite(c.upper) else 1.0
    return Variable(c.name, low, high)


def _homogeneous(row: Row) -> Row:
    f = row.function
    low = 0.0 if math.isfinite(row.lower) else -INF
    high = 0.0 if math.isfinite(row.upper) else INF
    return Row(row.name, f + (-f.constant), low, high)


@dataclass(frozen=True)
class Probed:
    """What probing came to.

    Attributes:
        solution: the answer within the floor that was put in; where there is none, a point and no more.
        unbounded: whether there is proven to be no lower bound.
        doubt: what speaks against the answer; empty when nothing does.
    """

    solution: Solution
    unbounded: bool = False
    doubt: str = ""


def probed(program: Program, solve: Solve, examine: Callable[[np.ndarray], tuple[bool, float | None]]) -> Probed:
    """Solve a program for whose objective no floor is proven.

    Args:
        program: with everything expressed that a backend needs.
        solve: solves a program, within some seconds where they are given.
        examine: says of a point whether a ray starts from its piece, and which value that piece's optimum has
            (None where the point is not on any piece but for tolerances).

    Where no point lies beyond a probe, that proves a floor, and the search within it is exact. A point beyond whose
    piece has a ray proves that there is none. Where that is not soon decided, the search within comes first.
    """
    objective, probe = program.objective, PROBE
    found = Solution(SolveStatus.ERROR)
    for _ in range(PROBES):
        beyond = replace(program, objective=Function(), rows=(*program.rows, Row("probe", objective, -INF, -probe)))
        within = replace(program, rows=(*program.rows, Row("probe", objective, -probe, INF)))
        known: Solution | None = None
        found = solve(beyond, SOON)
        if found.status is SolveStatus.TIME_LIMIT and found.values is None:
            known = solve(within, None)
            found = solve(beyond, None) if known.status is not SolveStatus.TIME_LIMIT else found
        if found.status is SolveStatus.INFEASIBLE:
            return Probed(known or solve(within, None))
        if found.values is None:
            return Probed(known or found, doubt=f"It is not proven that there is nothing beyond {-probe:.3g}.")
        endless, worth = examine(found.values)
        if endless:
            return Probed(found, unbounded=True)
        if worth is None or worth > -0.5 * probe:
            return Probed(
                known or solve(within, None),
                doubt=f"Points beyond {-probe:.3g} exist within tolerances, and no exact one was found among them.",
            )
        probe = max(STEP * probe, 10.0 * abs(worth))
    worth = objective.evaluate(found.values)  # pyright: ignore[reportArgumentType]
    return Probed(
        replace(found, status=SolveStatus.OTHER_LIMIT, objective=worth, bound=-INF),
        doubt="The leader's objective falls below every value tried, but no ray proves that it has no end.",
    )


def examine(system: Program, values: np.ndarray, remaining: Callable[[], float | None]) -> tuple[bool, float | None]:
    """For `probed`: what the piece of a system with pairs is on which a point lies."""
    if ray(system, values):
        return True, None
    clean = polish(system, values, remaining())
    return False, None if clean is None else clean.objective
