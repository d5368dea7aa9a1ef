"""The two shapes that data takes between a user's model and a backend.

`BilevelProgram`: columns, a leader, one or more followers. Everything is stored as minimisation.
`Program`: one level only; what reductions produce and backends solve. Besides rows it may hold complementarity
pairs (no backend takes those: a reduction must express them first), special ordered sets of type 1, and indicators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bilevel_core.program.function import Function
from bilevel_core.program.residuals import Residuals

INF = math.inf


@dataclass(frozen=True)
class Variable:
    """One column: a name, bounds (infinite where absent) and whether it must be integer."""

    name: str
    lower: float = -INF
    upper: float = INF
    integer: bool = False

    @property
    def fixed(self) -> bool:
        """Whether the bounds leave one value only."""
        return self.lower == self.upper


@dataclass(frozen=True)
class Row:
    """``lower <= function <= upper``; equal bounds make an equality."""

    name: str
    function: Function
    lower: float = -INF
    upper: float = INF

    @property
    def equality(self) -> bool:
        """Whether the row is an equality."""
        return self.lower == self.upper

    def violation(self, values: Sequence[float] | np.ndarray) -> float:
        """How far the row is from holding, in its own units; NaN where the function is undefined."""
        value = self.function.evaluate(values)
        return value if math.isnan(value) else max(0.0, self.lower - value, value - self.upper)


@dataclass(frozen=True)
class Level:
    """One decision maker: a name, an objective (minimised), rows, and the columns that it decides.

    ``maximise`` says in which sense the user wrote the objective, so that values can be reported in that sense.
    """

    name: str
    objective: Function
    rows: tuple[Row, ...] = ()
    columns: tuple[int, ...] = ()
    maximise: bool = False

    def in_users_sense(self, value: float) -> float:
        """An objective value as the user wrote it."""
        return -value if self.maximise else value


@dataclass(frozen=True)
class Dual:
    """A column that stands for the multiplier of a follower's row, so that the leader may use it.

    Its value is the derivative of the follower's optimal value, in that follower's own sense, with respect to the
    row's right-hand side (both sides, where there are two). ``row`` numbers the rows of follower ``follower``.
    """

    column: int
    follower: int
    row: int


@dataclass(frozen=True)
class Program:
    """One level: minimise ``objective`` over ``columns`` subject to ``rows``, pairs and sets.

    Attributes:
        complementarities: pairs of columns (i, j), both nonnegative, of which one must be zero.
        sos1: sets of columns of which at most one may differ from zero.
        indicators: (z, value, k): where the binary column z has this value (0 or 1), column k is at most zero.
    """

    columns: tuple[Variable, ...]
    objective: Function
    rows: tuple[Row, ...] = ()
    complementarities: tuple[tuple[int, int], ...] = ()
    sos1: tuple[tuple[int, ...], ...] = ()
    indicators: tuple[tuple[int, int, int], ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns' names in order."""
        return [c.name for c in self.columns]

    @property
    def has_integers(self) -> bool:
        """Whether a column that is not fixed must be integer."""
        return any(c.integer and not c.fixed for c in self.columns)

    @property
    def degree(self) -> float:
        """The highest degree of objective and rows: 1, 2 or infinity."""
        return max([self.objective.degree, *(r.function.degree for r in self.rows)], default=0)

    @property
    def row_degree(self) -> float:
        """The highest degree among the rows."""
        return max((r.function.degree for r in self.rows), default=0)

    def fix(self, values: Mapping[int, float]) -> Program:
        """Fix some columns by their bounds; rows and objective are kept."""
        columns = [
            replace(c, lower=float(values[i]), upper=float(values[i])) if i in values else c
            for i, c in enumerate(self.columns)
        ]
        return replace(self, columns=tuple(columns))

    def violation(self, values: np.ndarray) -> float:
        """The largest violation of bounds, rows, integrality, pairs, sets and indicators; of rows relative to scale."""
        return self._residuals.largest(values)

    @cached_property
    def _residuals(self) -> Residuals:
        return Residuals(self)

    def text(self) -> str:
        """The program written out, for people and for tests."""
        names = self.names
        lines = [f"minimise {self.objective.text(names)}"]
        lines += [_row_text(r, names) for r in self.rows]
        lines += [f"{names[i]} _|_ {names[j]}" for i, j in self.complementarities]
        lines += [f"sos1({', '.join(names[i] for i in group)})" for group in self.sos1]
        lines += [f"{names[z]} = {value} => {names[k]} <= 0" for z, value, k in self.indicators]
        lines += [_bounds_text(c) for c in self.columns]
        return "\n".join(lines)


@dataclass(frozen=True)
class BilevelProgram:
    """Columns, the leader, and the followers; see `Level`.

    Every column belongs to exactly one level, but for those in ``duals``, which belong to none: they are multipliers of
    followers' rows, occur in the leader's objective and rows only, and their bounds are the leader's constraints.
    Bounds and integrality of a follower's column are that follower's constraints.
    """

    columns: tuple[Variable, ...]
    leader: Level
    followers: tuple[Level, ...]
    name: str = "bilevel"
    structure: frozenset[str] = field(default_factory=frozenset[str])
    duals: tuple[Dual, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns' names in order."""
        return [c.name for c in self.columns]

    @cached_property
    def lower_columns(self) -> tuple[int, ...]:
        """The columns of all followers."""
        return tuple(i for follower in self.followers for i in follower.columns)

    @cached_property
    def is_game(self) -> bool:
        """Whether a follower's problem contains another follower's variables (a Nash game among followers)."""
        owner = {i: k for k, follower in enumerate(self.followers) for i in follower.columns}
        return any(
            owner.get(i, k) != k
            for k, follower in enumerate(self.followers)
            for f in (follower.objective, *(r.function for r in follower.rows))
            for i in f.columns
        )

    def high_point(self, *, leader_rows: bool = True) -> Program:
        """The high-point relaxation: all constraints of both levels, the leader's objective, no optimality."""
        rows = (self.leader.rows if leader_rows else ()) + tuple(r for f in self.followers for r in f.rows)
        return Program(self.columns, self.leader.objective, rows)

    def follower_at(self, index: int, values: np.ndarray) -> tuple[Program, tuple[int, ...]]:
        """One follower's problem with every other column fixed.

        Returns the program over that follower's columns only, and those columns' numbers in this program.
        """
        follower = self.followers[index]
        kept = follower.columns
        own = set(kept)
        position = {c: k for k, c in enumerate(kept)}

        def restrict(f: Function) -> Function:
            return f.fix({i: float(values[i]) for i in f.columns if i not in own}).renumbered(position)

        rows = tuple(replace(r, function=restrict(r.function)) for r in follower.rows)
        return Program(tuple(self.columns[i] for i in kept), restrict(follower.objective), rows), kept

    def text(self) -> str:
        """The program written out, for people and for tests."""
        names = self.names
        lines: list[str] = []
        for level in (self.leader, *self.followers):
            sense = "minimise" if not level.maximise else "minimise (user: maximise)"
            lines.append(f"{level.name}: {sense} {level.objective.text(names)}")
            lines += ["  " + _row_text(r, names) for r in level.rows]
            lines += ["  " + _bounds_text(self.columns[i]) for i in level.columns]
        for dual in self.duals:
            row = self.followers[dual.follower].rows[dual.row]
            lines.append(f"{_bounds_text(self.columns[dual.column])}, the multiplier of {row.name}")
        return "\n".join(lines)


def _row_text(row: Row, names: Sequence[str]) -> str:
    body = row.function.text(names)
    if row.equality:
        return f"{row.name}: {body} = {row.upper:g}"
    if row.lower == -INF:
        return f"{row.name}: {body} <= {row.upper:g}"
    if row.upper == INF:
        return f"{row.name}: {body} >= {row.lower:g}"
    return f"{row.name}: {row.lower:g} <= {body} <= {row.upper:g}"


def _bounds_text(column: Variable) -> str:
    kind = "integer" if column.integer else "real"
    return f"{column.name} in [{column.lower:g}, {column.upper:g}] {kind}"


def append_columns(columns: Iterable[Variable], more: Iterable[Variable]) -> tuple[Variable, ...]:
    """Columns with more put behind them, names made unique."""
    out = list(columns)
    taken = {c.name for c in out}
    for column in more:
        name, k = column.name, 2
        while name in taken:
            name, k = f"{column.name}_{k}", k + 1
        taken.add(name)
        out.append(replace(column, name=name))
    return tuple(out)
