"""`global`: which answers of a follower make good cuts: those that stay open to it, and nearly optimal, around an x.

Sources: Mitsos, Lemonidis and Barton (2008) for answers in the interior of what x allows (the auxiliary problem that
enlarges the region over which a cut holds); answers that move with x as the follower's optimality conditions do, and
variables that equations determine, are put to the same use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, optimize

from bilevel_core.program import INF, BilevelProgram, Function, Level, Program, Row, Variable, linear, total
from bilevel_core.reductions.value_function import Answer

ACTIVE = 1e-6
"""A constraint within this of its bound, relative to its scale, is active."""
SHARES = (0.1, 0.5)
"""How much of what a follower could gain is given up for answers that stay feasible over a larger region."""
STEEP = 1e4
"""Answers that move faster than this with x are not used."""


def is_tied(row: Row, level: Level) -> bool:
    """Whether a row ties a follower's columns to others'."""
    own = frozenset(level.columns)
    return not row.function.columns.isdisjoint(own) and not row.function.columns <= own


def loose_equation(program: BilevelProgram) -> tuple[Row, Level] | None:
    """A follower's equation with others' columns that is not linear in its own with constant coefficients: no variable
    can be made to satisfy it at every x.
    """
    for level in program.followers:
        own = frozenset(level.columns)
        for row in level.rows:
            if row.equality and is_tied(row, level) and _coefficients(row.function, own) is None:
                return row, level
    return None


def _coefficients(f: Function, own: frozenset[int]) -> dict[int, float] | None:
    """The constant coefficients of a function's own columns; None where it is not linear in them with such."""
    share = f.share(own)
    return dict(share.linear) if share.degree <= 1 else None


@dataclass(frozen=True)
class Equations:
    """A follower's equations that contain others' columns, solved for as many of its own columns: ``dependent``.

    ``matrix`` has a row per equation and a column per own column of the follower; ``rest`` the parts without those.
    """

    columns: tuple[int, ...]
    dependent: tuple[int, ...]
    matrix: np.ndarray
    rest: tuple[Function, ...]

    @classmethod
    def of(cls, program: BilevelProgram, level: Level, values: np.ndarray) -> Equations | None:
        """Choose the dependent columns at a point, preferably away from their bounds. None where there are no such
        equations, or they contradict or repeat each other.
        """
        own = frozenset(level.columns)
        rows = [r for r in level.rows if r.equality and is_tied(r, level)]
        if not rows:
            return None
        free = [i for i in level.columns if not program.columns[i].integer]
        matrix = np.array([[r.function.linear.get(i, 0.0) for i in level.columns] for r in rows])
        room = {
            i: 1e-3
            + min(1.0, max(0.0, values[i] - program.columns[i].lower, 0.0), program.columns[i].upper - values[i])
            for i in free
        }
        weighed = np.array([[r.function.linear.get(i, 0.0) * room[i] for i in free] for r in rows])
        if np.linalg.matrix_rank(weighed) < len(rows):
            return None
        decomposed: Any = linalg.qr(weighed, pivoting=True, mode="economic")
        order = decomposed[2]
        dependent = tuple(free[k] for k in order[: len(rows)])
        rest = tuple(
            r.function - linear({i: r.function.linear[i] for i in r.function.linear if i in own}) for r in rows
        )
        rest = tuple(f - r.upper for f, r in zip(rest, rows, strict=True))
        return cls(level.columns, dependent, matrix, rest)

    def complete(self, values: dict[int, Function]) -> dict[int, Function]:
        """The answer with its dependent columns such that the equations hold at every x."""
        place = {c: k for k, c in enumerate(self.columns)}
        inverse = np.linalg.inv(self.matrix[:, [place[i] for i in self.dependent]])
        others = [i for i in self.columns if i not in self.dependent]
        sides = [
            total([-f, *(values[i].scaled(-float(self.matrix[r, place[i]])) for i in others)])
            for r, f in enumerate(self.rest)
        ]
        out = dict(values)
        for k, i in enumerate(self.dependent):
            out[i] = total(side.scaled(float(inverse[k, r])) for r, side in enumerate(sides))
        return out


def answers_at(
    program: BilevelProgram, k: int, best: np.ndarray, inner: Sequence[np.ndarray] = (), *, moving: bool = True
) -> list[Answer]:
    """The answers from which cuts are made.

    Args:
        program: the problem.
        k: number of the follower.
        best: a point with the follower's optimal answer.
        inner: the same with answers that stay feasible over larger regions; none where the best one does.
        moving: whether answers that move with x are wanted too.
    """
    level = program.followers[k]
    equations = Equations.of(program, level, best)
    out: list[Answer] = []
    for values in inner or (best,):
        constant = Answer.constant(k, level, values)
        out.append(constant if equations is None else Answer(k, equations.complete(dict(constant.values))))
    slopes = moves_with(program, k, best) if moving else None
    if slopes is not None:
        moving_values = {
            i: linear(slope, float(best[i]) - math.fsum(s * float(best[j]) for j, s in slope.items()))
            for i, slope in slopes.items()
        }
        out.append(Answer(k, moving_values if equations is None else equations.complete(moving_values)))
    return out


def inner_program(program: BilevelProgram, k: int, values: np.ndarray, limit: float) -> Program | None:
    """The auxiliary problem: the answer that stays furthest inside the constraints which x moves, and is no worse for
    the follower than ``limit``. Over the follower's columns and one more.

    None where x moves no inequality.
    """
    level = program.followers[k]
    alone, columns = program.follower_at(k, values)
    depth = len(columns)
    rows: list[Row] = []
    moved = False
    for original, row in zip(level.rows, alone.rows, strict=True):
        if row.equality or not is_tied(original, level):
            rows.append(row)
            continue
        moved = True
        scale = max(1.0, original.function.size)
        for bound, sign in ((row.upper, 1.0), (row.lower, -1.0)):
            if math.isfinite(bound):
                inside = row.function.scaled(sign) + linear({depth: scale})
                rows.append(Row(row.name, inside, upper=sign * bound))
    if not moved:
        return None
    rows.append(Row("nearly optimal", alone.objective, upper=limit))
    return Program((*alone.columns, Variable("depth", 0.0, 1.0)), linear({depth: -1.0}), tuple(rows))


def moves_with(program: BilevelProgram, k: int, values: np.ndarray) -> dict[int, dict[int, float]] | None:
    """The derivative of a follower's answer with respect to the leader's columns that it sees, by column.

    From the optimality conditions with the active constraints that have multipliers; zero for integers. None where the
    functions have no derivatives, the conditions do not hold, or nothing moves.
    """
    level = program.followers[k]
    own = [i for i in level.columns if not program.columns[i].integer and not program.columns[i].fixed]
    seen = sorted(
        {i for f in (level.objective, *(r.function for r in level.rows)) for i in f.columns} - set(level.columns)
    )
    seen = [i for i in seen if not program.columns[i].fixed]
    if not own or not seen:
        return None
    try:
        slopes = _System(program, level, own, seen, values).slopes()
    except ValueError:  # a function without a derivative, by the follower's columns or by others'
        return None
    if slopes is None or not np.isfinite(slopes).all() or np.abs(slopes).max() > STEEP or np.abs(slopes).max() < 1e-9:
        return None
    out: dict[int, dict[int, float]] = {i: {} for i in level.columns}
    for a, i in enumerate(own):
        out[i] = {j: float(slopes[a, b]) for b, j in enumerate(seen) if abs(slopes[a, b]) > 1e-12}
    return out


class _System:
    """The optimality conditions of a follower at a point, differentiated."""

    def __init__(
        self, program: BilevelProgram, level: Level, own: Sequence[int], seen: Sequence[int], values: np.ndarray
    ) -> None:
        self.own, self.seen, self.values = own, seen, values
        self.slope = self._gradient(level.objective, own)
        rows: list[tuple[Function, float]] = []
        for row in level.rows:
            if row.function.columns.isdisjoint(own):
                continue
            at, scale = row.function.evaluate(values), row.function.scale(values)
            for bound, sign in ((row.upper, 1.0), (row.lower, -1.0)):
                if math.isfinite(bound) and abs(at - bound) <= ACTIVE * scale:
                    rows.append((row.function.scaled(sign), math.inf if row.equality else 0.0))
                    if row.equality:
                        break
        for i in own:
            c = program.columns[i]
            for bound, sign in ((c.upper, 1.0), (c.lower, -1.0)):
                if math.isfinite(bound) and abs(values[i] - bound) <= ACTIVE * max(1.0, abs(bound)):
                    rows.append((linear({i: sign}), 0.0))
        self.rows = rows
        self.objective = level.objective

    def _gradient(self, f: Function, by: Sequence[int]) -> np.ndarray:
        return np.array([f.partial(i).evaluate(self.values) if i in f.columns else 0.0 for i in by])

    def _second(self, f: Function, by: Sequence[int]) -> np.ndarray:
        out = np.zeros((len(self.own), len(by)))
        for a, i in enumerate(self.own):
            if i not in f.columns:
                continue
            first = f.partial(i)
            for b, j in enumerate(by):
                if j in first.columns:
                    out[a, b] = first.partial(j).evaluate(self.values)
        return out

    def slopes(self) -> np.ndarray | None:
        """Shape (own, seen)."""
        jacobian = np.array([self._gradient(f, self.own) for f, _ in self.rows]).reshape(len(self.rows), len(self.own))
        weights = np.zeros(len(self.rows))
        if self.rows:
            if not np.isfinite(jacobian).all() or not np.isfinite(self.slope).all():
                return None
            free = [kind for _, kind in self.rows]
            bounds = optimize.lsq_linear(
                jacobian.T, -self.slope, bounds=([-INF if kind else 0.0 for kind in free], [INF] * len(free))
            )
            weights = np.asarray(bounds.x, dtype=float)
        residual = self.slope + jacobian.T @ weights
        if np.abs(residual).max(initial=0.0) > 1e-3 * max(1.0, float(np.abs(self.slope).max(initial=0.0))):
            return None
        strong = [r for r, (_, kind) in enumerate(self.rows) if kind or weights[r] > 1e-6]
        inner = self._second(self.objective, self.own)
        cross = self._second(self.objective, self.seen)
        for r in strong:
            inner += weights[r] * self._second(self.rows[r][0], self.own)
            cross += weights[r] * self._second(self.rows[r][0], self.seen)
        active = jacobian[strong]
        moving = np.array([self._gradient(self.rows[r][0], self.seen) for r in strong]).reshape(
            len(strong), len(self.seen)
        )
        size = len(strong)
        system = np.block([[inner, active.T], [active, np.zeros((size, size))]])
        right = -np.vstack([cross, moving])
        if not (np.isfinite(system).all() and np.isfinite(right).all()):
            return None
        found = np.linalg.lstsq(system, right, rcond=1e-10)[0]
        if np.abs(system @ found - right).max(initial=0.0) > 1e-6 * max(1.0, float(np.abs(right).max(initial=0.0))):
            return None
        return found[: len(self.own)]
