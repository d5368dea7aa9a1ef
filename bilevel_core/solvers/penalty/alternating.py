"""The penalty alternating direction method: (x, y) and the dual variables by turns.

Source: Kleinert and Schmidt (2021), Computing feasible points of bilevel problems with a penalty alternating direction
method. The dual of a convex quadratic follower (Dorn) has a copy w of its variables; where the dual's stationarity
holds, the duality gap is ``(y - w)' Q (y - w) / 2 + sum of multiplier times slack``. Both blocks are then convex for
a leader that is: solved exactly, each lowers the same penalised objective. Stationarity rows in which the leader's
variables occur couple the blocks as well, and are penalised by their absolute value.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevel_core.program import Function, Program, Row, Variable, append_columns, linear, total
from bilevel_core.solvers.penalty.system import UNBOUNDED, System, restricted, solve

TURNS = 100
SETTLED = 1e-9
BOX = 1e3
"""How far, relative to its value, a variable may move in one block whose program is unbounded."""


def alternate(system: System, values: np.ndarray, weight: float, seconds: float | None) -> np.ndarray | None:
    """A partial minimum of the penalised objective: neither block alone can lower it.

    Args:
        system: the optimality system.
        values: the point to start from, over the system's columns.
        weight: of the duality gap, and of each penalised stationarity row.
        seconds: the time left, or None.

    Returns:
        The partial minimum, over the system's columns; None when a block could not be solved.
    """
    program, point, dual = _dorn(system, values, weight)
    elastic = set(range(len(point)))
    elastic -= set(range(len(system.target.columns) + _copies(system)))
    primal = set(range(len(system.target.columns))) - set(system.dual_columns)
    value = np.inf
    for _ in range(TURNS):
        for block in (primal, dual):
            found = _turn(program, block | elastic, point, seconds)
            if found is None:
                return None
            point = found
        now = program.objective.evaluate(point)
        if now >= value - SETTLED * max(1.0, abs(value)):
            break
        value = now
    return point[: len(system.target.columns)]


def _turn(program: Program, free: set[int], point: np.ndarray, seconds: float | None) -> np.ndarray | None:
    """Minimise over one block."""
    fixed = {i: float(v) for i, v in enumerate(point) if i not in free}
    block = restricted(program.fix(fixed), fixed, program.objective, program.rows)
    found = solve(block, point, seconds)
    if found is not None and found.values is None and found.status in UNBOUNDED:
        found = solve(_boxed(block, free, point), point, seconds)
    return None if found is None else found.values


def _boxed(program: Program, free: set[int], point: np.ndarray) -> Program:
    columns = list(program.columns)
    for i in free:
        reach = BOX * max(1.0, abs(point[i]))
        c = columns[i]
        columns[i] = replace(c, lower=max(c.lower, point[i] - reach), upper=min(c.upper, point[i] + reach))
    return replace(program, columns=tuple(columns))


def _curved(system: System) -> tuple[tuple[int, ...], ...]:
    """Of each follower the columns with a term of their own in the stationarity conditions."""
    seen = {i for row in system.stationarity for i in row.function.columns}
    fixed = {i for i, c in enumerate(system.target.columns) if c.fixed}
    return tuple(tuple(i for i in f.columns if i in seen - fixed) for f in system.program.followers)


def _copies(system: System) -> int:
    return sum(len(columns) for columns in _curved(system))


def _dorn(system: System, values: np.ndarray, weight: float) -> tuple[Program, np.ndarray, set[int]]:
    """The penalised program over the system's columns, the copies w and the excesses of penalised rows; a point of
    it; and the columns of the dual block.
    """
    width = len(system.target.columns)
    copy_of = {i: width + k for k, i in enumerate(i for columns in _curved(system) for i in columns)}
    position = {i: copy_of.get(i, i) for i in range(width)}
    own = {row.name for row in system.stationarity}
    rows = [r for r in system.target.rows if r.name not in own]
    leader = set(system.x_columns)
    added: list[Variable] = [Variable(f"w[{system.target.columns[i].name}]") for i in copy_of]
    excess: list[int] = []
    point = np.concatenate([values, values[list(copy_of)]])
    for row in system.stationarity:
        function = row.function.renumbered(position)
        if not function.columns.isdisjoint(leader):
            wrong = function.evaluate(point) - row.upper
            for sign in (-1.0, 1.0):
                excess.append(width + len(added))
                added.append(Variable(f"excess{len(excess)}", 0.0))
                function = function + linear({excess[-1]: sign})
                point = np.append(point, max(0.0, -sign * wrong))
        rows.append(Row(row.name, function, row.lower, row.upper))
    gap = system.gap + total(_distance(system, copy_of))
    cost = gap.scaled(weight) + linear(dict.fromkeys(excess, weight))
    columns = append_columns(system.target.columns, added)
    dual = {*system.dual_columns, *copy_of.values()}
    return Program(columns, system.target.objective + cost, tuple(rows)), point, dual


def _distance(system: System, copy_of: dict[int, int]) -> list[Function]:
    """``(y - w)' Q (y - w) / 2``, with Q read off the stationarity conditions, which may be scaled."""
    row_of = {row.name: row for row in system.stationarity}
    terms: list[Function] = []
    for j in copy_of:
        row = row_of.get(f"stationarity[{system.target.columns[j].name}]")
        if row is None:
            continue
        for i, c in row.function.linear.items():
            if i in copy_of:
                away = linear({j: 1.0, copy_of[j]: -1.0}).times(linear({i: 1.0, copy_of[i]: -1.0}))
                terms.append(away.scaled(0.5 * c))
    return terms
