"""The rows and hidden columns that CVXPY expressions of one level turn into, cones among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bilevel_core.problems import cvxpy_atoms as atoms
from bilevel_core.problems.cvxpy_hidden import Defined, Hidden, Valued
from bilevel_core.program import INF, Function, Row, Variable, function_range, linear

Functions = list[Function]
MARGIN = 0.01
"""How far, relatively and absolutely, bounds of hidden columns are from the values that these can take."""


class Rows:
    """Collects rows and hidden columns.

    Args:
        level: the level's name, with which names of hidden columns begin.
        columns: all columns so far; hidden ones are appended.
        functions: what each variable and each of the leader's parameters stands for, by id.
        own: the follower's columns, to which hidden ones are added; None for the leader.
    """

    def __init__(
        self, level: str, columns: list[Variable], functions: dict[int, Functions], own: set[int] | None
    ) -> None:
        self.level = level
        self.columns = columns
        self.functions = functions
        self.own = own
        self.rows: list[Row] = []
        self.hidden: list[Hidden] = []
        self.made: list[int] = []
        """The hidden columns in order."""
        self.choices: list[tuple[int, int, Functions]] = []
        """Hidden columns that are the largest (1) or smallest (-1) of some functions."""
        self._count = 0

    def called(self, label: str) -> str:
        """A new name for something that the user did not name."""
        self._count += 1
        return f"{self.level}:{label}_{self._count}"

    def new(self, label: str, count: int, lower: float = -INF) -> list[int]:
        """New hidden columns."""
        first, name = len(self.columns), self.called(label)
        self.columns += [Variable(entry(name, k, count), lower) for k in range(count)]
        made = list(range(first, first + count))
        self.made += made
        if self.own is not None:
            self.own.update(made)
        return made

    def epigraph(self, expression: Any, label: str) -> Functions:
        """A hidden column for each entry of an expression, whose tightest value is the entry's."""
        columns = self.new(label, int(expression.size))
        self.hidden.append(Valued(label, tuple(columns), expression))
        return [linear({i: 1.0}) for i in columns]

    def bound_hidden(self) -> None:
        """Give hidden columns of a follower's that are the largest of some functions the bounds that follow from them.

        The tightest value lies strictly between them, so they never bind; to have them at all is what makes a slack
        beside such a column bounded.
        """
        if self.own is None:
            return
        for column, sign, functions in self.choices:
            ranges = [function_range(f.scaled(float(sign)), self.columns) for f in functions]
            low, high = max(r[0] for r in ranges), max(r[1] for r in ranges)
            old = self.columns[column]
            ends = (low - MARGIN * (1.0 + abs(low)), high + MARGIN * (1.0 + abs(high)))
            low, high = ends if sign > 0 else (-ends[1], -ends[0])
            if not math.isfinite(high if sign > 0 else low):
                continue
            self.columns[column] = replace(
                old,
                lower=old.lower if sign > 0 else max(old.lower, low),
                upper=min(old.upper, high) if sign > 0 else old.upper,
            )

    def at_most(self, name: str, f: Function) -> None:
        """The row ``f <= 0``; nothing where that is true of a number."""
        if f.degree == 0 and f.constant <= 0.0:
            return
        self.rows.append(Row(name, f - f.constant, upper=0.0 - f.constant))

    def equal(self, functions: Functions, name: str) -> None:
        """The rows ``f = 0``."""
        for k, f in enumerate(functions):
            bare = f - f.constant
            self.rows.append(Row(entry(name, k, len(functions)), bare, 0.0 - f.constant, 0.0 - f.constant))

    def cone(self, name: str, bound: Function, parts: Sequence[Function]) -> None:
        """``|parts| <= bound``.

        As a quadratic row where that row is convex in the follower's columns, else as ``sqrt(u.u) - t <= 0`` over
        columns of their own, which is how `bilevel_core.reductions.conic_duality` recognises a second-order cone.
        """
        parts = [p for p in parts if p.columns or p.constant]
        if len(parts) < 2:
            for sign in (1.0, -1.0) if parts else (0.0,):
                side = parts[0].scaled(sign) if parts else Function()
                self.at_most(f"{name}{'' if sign >= 0.0 else ':lower'}", side - bound)
            return
        if self.own is None or bound.columns.isdisjoint(self.own):
            self.at_most(name, atoms.square_sum(parts) - bound.times(bound))
            self.at_most(f"{name}:bound", -bound)
            return
        for k, part in enumerate(parts):
            rest = atoms.square_sum([p for i, p in enumerate(parts) if i != k])
            for one, other in ((bound - part, bound + part), (bound + part, bound - part)):
                if one.columns.isdisjoint(self.own):
                    self.at_most(name, rest - one.times(other))
                    if one.degree or one.constant <= 0.0:
                        self.at_most(f"{name}:one", -one)
                        self.at_most(f"{name}:other", -other)
                    return
        t, *u = (self.own_column(f, f"{name}:{k}") for k, f in enumerate((bound, *parts)))
        size = atoms.power(atoms.square_sum([linear({i: 1.0}) for i in u]), 0.5)
        self.at_most(name, size - linear({t: 1.0}))

    def semidefinite(self, entries: Functions, name: str) -> None:
        """A matrix of at most 2 x 2: ``[[a, b], [b, c]]`` is positive semidefinite when ``|(2 b, a - c)| <= a + c``."""
        if len(entries) == 1:
            self.at_most(name, -entries[0])
            return
        a, below, above, c = entries
        self.cone(name, a + c, [below + above, a - c])

    def own_column(self, f: Function, name: str) -> int:
        """A column of the follower's that is equal to a function."""
        if not f.constant and f.nonlinear is None and not f.quadratic and list(f.linear.values()) == [1.0]:
            (column,) = f.linear
            if self.own is not None and column in self.own:
                return column
        (column,) = self.new("cone", 1)
        self.hidden.append(Defined("cone", (column,), (f,)))
        self.equal([f - linear({column: 1.0})], name)
        return column


def entry(name: str, k: int, count: int) -> str:
    """The name of the k-th of several entries; a single one needs no number."""
    return name if count == 1 else f"{name}[{k}]"
