"""Optimality conditions: each follower replaced by its Karush-Kuhn-Tucker system.

Source: Fortuny-Amat and McCarl (1981); Allende and Still (2013); Dempe and Zemkoho (2014). Exact when every follower
is convex for every x and has a constraint qualification (linear constraints suffice). What comes out still has
complementarity pairs; `Sos1`, `BigM`, ... express those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bilevel_core.program import (
    INF,
    BilevelProgram,
    Function,
    Level,
    Program,
    Row,
    Variable,
    append_columns,
    linear,
    total,
)
from bilevel_core.reductions.base import Reduction


@dataclass(frozen=True)
class Multiplier:
    """A multiplier of a follower's inequality: where it stands, and the inequality ``slack(v) >= 0`` it belongs to."""

    column: int
    slack_column: int
    slack: Function
    follower: int


@dataclass(frozen=True)
class Equality:
    """A follower's equality, as it stands in the system, and the column of its multiplier."""

    column: int
    row: Row
    follower: int


class OptimalityConditions(Reduction[BilevelProgram, Program]):
    """Stationarity, primal feasibility, and one complementarity pair (multiplier, slack) per inequality.

    An inequality becomes ``slack = ...`` with a nonnegative slack column. Variable bounds of a follower are
    constraints of its and get multipliers. A slack that is itself a column with lower bound 0 is not introduced anew.
    Rows without the follower's own variables get no multiplier: they are plain constraints. A column fixed by its
    bounds has no stationarity condition. Rows and objectives of followers with very large or very small coefficients
    are scaled, since a multiplier below a backend's tolerance would count as zero.

    The columns in ``source.duals`` are tied to the multipliers by one equation each, with the scaling undone: for a
    minimising follower ``dual = lambda[row:lower] - lambda[row]`` or ``-mu[row]``, for a maximising one the opposite.
    A row that gets no multiplier has the dual 0.

    In a game every follower's conditions take the others' variables as given, and all of them are put together. A row
    that several followers share has a multiplier for each, so the solutions are all generalised Nash equilibria, not
    only those with equal multipliers (Facchinei and Kanzow 2010).
    """

    def __init__(self) -> None:
        self.multipliers: tuple[Multiplier, ...] = ()
        self.stationarity: tuple[Row, ...] = ()
        self.equalities: tuple[Equality, ...] = ()
        self._width = 0

    def accepts(self, source: BilevelProgram) -> str | None:
        """Refuses followers with integer variables: those have no such system."""
        for follower in source.followers:
            for i in follower.columns:
                if source.columns[i].integer and not source.columns[i].fixed:
                    return f"variable {source.columns[i].name!r} of follower {follower.name!r} is integer"
        return None

    def apply(self, source: BilevelProgram) -> Program:
        """The single-level program; see the class."""
        build = _Builder(source)
        for k, follower in enumerate(source.followers):
            build.follower(k, follower)
        self.multipliers = tuple(build.multipliers)
        self.stationarity = tuple(build.stationarity)
        self.equalities = tuple(build.equalities)
        self._width = len(source.columns)
        pairs = tuple((m.column, m.slack_column) for m in self.multipliers)
        return Program(
            append_columns(source.columns, build.columns),
            source.leader.objective,
            source.leader.rows + tuple(build.rows) + self.stationarity,
            complementarities=pairs,
        )

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop multipliers and slacks."""
        return values[: self._width]


LARGE, SMALL = 1e2, 1e-1
"""Coefficients within these are left as they are."""
MOST = 1e9
"""Scaling up stops where the largest coefficient would exceed this."""


def _lift(slopes: Iterable[Function]) -> float:
    """A factor for a follower's objective that brings its smallest slope to 1, as far as the largest one allows."""
    sizes = [max(abs(f.constant), f.size) for f in slopes]
    sizes = [s for s in sizes if s > 0.0]
    if not sizes or min(sizes) >= SMALL:
        return 1.0
    return max(1.0, min(1.0 / min(sizes), MOST / max(sizes)))


def _normalised(row: Row, own: set[int]) -> tuple[Row, float]:
    """A row whose largest coefficient of the follower's own columns is 1, if it was very large or very small; and the
    factor that made it so.
    """
    f = row.function
    sizes = [abs(c) for i, c in f.linear.items() if i in own]
    sizes += [abs(c) for pair, c in f.quadratic.items() if not own.isdisjoint(pair)]
    if f.nonlinear is not None or not sizes or SMALL <= max(sizes) <= LARGE:
        return row, 1.0
    factor = 1.0 / max(sizes)
    return Row(row.name, f.scaled(factor), row.lower * factor, row.upper * factor), factor


class _Builder:
    """Collects the columns and rows that the followers' systems add."""

    def __init__(self, source: BilevelProgram) -> None:
        self.source = source
        self.columns: list[Variable] = []
        self.rows: list[Row] = []
        self.stationarity: list[Row] = []
        self.multipliers: list[Multiplier] = []
        self.equalities: list[Equality] = []

    def _new(self, name: str, lower: float = 0.0) -> int:
        self.columns.append(Variable(name, lower))
        return len(self.source.columns) + len(self.columns) - 1

    def follower(self, index: int, level: Level) -> None:
        columns = self.source.columns
        own = [i for i in level.columns if not columns[i].fixed]
        own_set = set(own)
        # Lagrangian terms by column: d/dy of  f + sum lambda (g - b).
        stationarity: dict[int, list[Function]] = {i: [] for i in own}
        slopes = {i: level.objective.partial(i) for i in own if i in level.objective.columns}
        lift = _lift(slopes.values())
        for i, slope in slopes.items():
            stationarity[i].append(slope.scaled(lift))

        def lagrangian(multiplier: int, f: Function, sign: float) -> None:
            if f.degree <= 1:
                for i, c in f.linear.items():
                    if i in own_set:
                        stationarity[i].append(linear({multiplier: sign * c}))
                return
            for i in sorted(own_set & f.columns):
                stationarity[i].append(f.partial(i).times(linear({multiplier: sign})))

        # By row: the multipliers and how much of the dual value each is worth.
        worth: dict[int, dict[int, float]] = {}
        sense = -1.0 if level.maximise else 1.0
        for number, given in enumerate(level.rows):
            row, factor = _normalised(given, own_set)
            worth[number] = shares = dict[int, float]()
            if row.function.columns.isdisjoint(own_set):
                self.rows.append(row)
                continue
            if row.equality:
                self.rows.append(row)
                multiplier = self._new(f"mu[{row.name}]", -INF)
                self.equalities.append(Equality(multiplier, row, index))
                lagrangian(multiplier, row.function, 1.0)
                shares[multiplier] = -sense * factor / lift
                continue
            for side, bound, sign in (("", row.upper, 1.0), (":lower", row.lower, -1.0)):
                if math.isfinite(bound):
                    multiplier = self._new(f"lambda[{row.name}{side}]")
                    lagrangian(multiplier, row.function, sign)
                    shares[multiplier] = -sense * sign * factor / lift
                    self._pair(multiplier, f"{row.name}{side}", (Function(bound) - row.function).scaled(sign), index)
        for i in own:
            for side, bound, sign in (("lower", columns[i].lower, -1.0), ("upper", columns[i].upper, 1.0)):
                if math.isfinite(bound):
                    multiplier = self._new(f"lambda[{columns[i].name}:{side}]")
                    slack = linear({i: -sign}, sign * bound)
                    stationarity[i].append(linear({multiplier: sign}))
                    existing = i if side == "lower" and bound == 0.0 else None
                    self._pair(multiplier, f"{columns[i].name}:{side}", slack, index, existing)
        for dual in self.source.duals:
            if dual.follower == index:
                tie = {dual.column: 1.0} | {m: -share for m, share in worth[dual.row].items()}
                self.rows.append(Row(columns[dual.column].name, linear(tie), 0.0, 0.0))
        self.stationarity += [Row(f"stationarity[{columns[i].name}]", total(stationarity[i]), 0.0, 0.0) for i in own]

    def _pair(self, multiplier: int, name: str, slack: Function, index: int, existing: int | None = None) -> None:
        if existing is None:
            existing = self._new(f"slack[{name}]")
            self.rows.append(Row(f"slack[{name}]", slack - linear({existing: 1.0}), 0.0, 0.0))
        self.multipliers.append(Multiplier(multiplier, existing, slack, index))
