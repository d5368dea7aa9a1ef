"""The followers' optimality as cuts: no answer may be worse for a follower than one that is known to be open to it.

Source: Mitsos, Lemonidis and Barton (2008), Global solution of bilevel programs with a nonconvex inner program, Journal
of Global Optimization 42; Mitsos (2010) for integers; Djelassi, Glass and Mitsos (2019) for variables that equations
determine. The high-point relaxation gets, for every known answer y^k, the disjunction "y^k is not feasible for the
follower at x, or f(x, y) <= f(x, y^k)". Each alternative is closed, so every bilevel feasible point stays: what comes
out is a relaxation, whatever the answers are.

An answer may move with the leader's variables (y^k is a function of x): then it stays optimal, or feasible, over a
larger region than a constant one. Within a box of the leader's variables intervals decide, where they can, which
alternatives are possible; where none but the last is, the cut is a plain row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.program import INF, BilevelProgram, Function, Level, Program, Row, Variable, append_columns, linear
from bilevel_core.program import expression as ex
from bilevel_core.reductions.base import Reduction
from bilevel_core.traits.interval import Box, function_range

TOLERANCE = 1e-7
"""A constraint that an answer violates nowhere by more than this, relative to its scale, counts as satisfied: backends
find answers up to such a tolerance only.
"""
ROUNDING = 1e-9
SHARP = 100.0
"""Cuts are multiplied by this, since backends hold rows to an absolute tolerance only."""

Bounds = Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Answer:
    """An answer that may be open to a follower: for each of its columns, a function of other levels' columns."""

    follower: int
    values: Mapping[int, Function]

    @classmethod
    def constant(cls, follower: int, level: Level, values: np.ndarray) -> Answer:
        """The same answer whatever the others do. ``values`` has one number per column of the program."""
        return cls(follower, {i: Function(float(values[i])) for i in level.columns})


class ValueFunction(Reduction[BilevelProgram, Program]):
    """The high-point relaxation with a cut for each answer.

    Args:
        answers: what is known of the followers' possible answers.
        box: narrower bounds of some columns; what comes out is a relaxation of the problem within them.
    """

    def __init__(self, answers: Sequence[Answer] = (), box: Bounds | None = None) -> None:
        self.answers = tuple(answers)
        self.box: Bounds = dict(box or {})
        self._width = 0

    def accepts(self, source: BilevelProgram) -> str | None:
        """Takes everything but problems whose leader uses multipliers, and Nash games."""
        if source.duals:
            return "the leader uses the followers' multipliers"
        if source.is_game:
            return "the followers play a Nash game"
        return None

    def apply(self, source: BilevelProgram) -> Program:
        """The relaxation; see the module."""
        self._width = len(source.columns)
        columns = boxed(source.columns, self.box)
        cuts = Cuts(source, columns)
        for answer in self.answers:
            cuts.optimality(answer)
        return cuts.program(source.high_point())

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop what the disjunctions added."""
        return values[: self._width]


def boxed(columns: Sequence[Variable], box: Bounds) -> tuple[Variable, ...]:
    """The columns with narrower bounds."""
    return tuple(
        replace(c, lower=max(c.lower, box[i][0]), upper=min(c.upper, box[i][1])) if i in box else c
        for i, c in enumerate(columns)
    )


class Cuts:
    """Collects the rows and columns of disjunctions over a program's columns, within their bounds."""

    def __init__(self, source: BilevelProgram, columns: Sequence[Variable]) -> None:
        self.source = source
        self.columns = tuple(columns)
        self.box = Box(self.columns, frozenset())
        self.more: list[Variable] = []
        self.rows: list[Row] = []
        self.indicators: list[tuple[int, int, int]] = []
        self.count = 0

    def program(self, relaxed: Program) -> Program:
        """A relaxation with everything that was collected; its columns come first."""
        return replace(
            relaxed,
            columns=append_columns(self.columns, self.more),
            rows=relaxed.rows + tuple(self.rows),
            indicators=tuple(self.indicators),
        )

    def optimality(self, answer: Answer) -> None:
        """``f(x, y) <= f(x, y^k)``, or y^k is not feasible for the follower at x."""
        follower = self.source.followers[answer.follower]
        own = frozenset(follower.columns)
        theirs = follower.objective.compose(answer.values)
        if not defined_over(theirs, self.box):
            return
        others = self.infeasible(answer)
        if others is not None:
            worse = follower.objective.share(own) - follower.objective.share(own).compose(answer.values)
            self.disjunction(f"no worse than {follower.name}", [[worse.scaled(SHARP)], *([a] for a in others)])

    def infeasible(self, answer: Answer) -> list[Function] | None:
        """The ways in which an answer may be infeasible for its follower within the box: functions of which one is at
        most zero wherever it is. None where it may be so at every point of the box, so that nothing follows.
        """
        follower = self.source.followers[answer.follower]
        ways: list[Function] = []
        for row in follower.rows:
            if row.function.columns.isdisjoint(follower.columns):
                continue  # the relaxation has the same row
            # What an equation determines has its other terms in it, which cancel here; intervals do not see that.
            there = row.function.compose(answer.values).merged()
            if not defined_over(there, self.box):
                return None
            for way in self._ways(there, row.lower, row.upper):
                if way is None:
                    return None
                ways.append(way)
        for i in follower.columns:
            c = self.source.columns[i]
            for way in self._ways(answer.values[i], c.lower, c.upper):
                if way is None:
                    return None
                ways.append(way)
        return ways

    def _ways(self, f: Function, lower: float, upper: float) -> list[Function | None]:
        """How ``lower <= f <= upper`` may fail: no way, some, or (None) perhaps everywhere."""
        low, high = function_range(f, self.box)
        found: list[Function | None] = []
        for bound, sign, least, most in ((upper, 1.0, low, high), (lower, -1.0, -high, -low)):
            if not math.isfinite(bound):
                continue
            allowed = TOLERANCE * max(1.0, abs(bound), f.size)
            if most - sign * bound <= allowed:
                continue
            # An equation that does not hold everywhere fails almost everywhere: its closed complement is everything.
            if lower == upper or least - sign * bound >= 0.0:
                return [None]
            found.append((Function(bound) - f).scaled(sign))
        return found

    def disjunction(self, name: str, alternatives: Sequence[Sequence[Function]]) -> None:
        """One of the alternatives holds: all its functions are at most zero."""
        possible: list[list[Function]] = []
        for alternative in alternatives:
            ranges = [function_range(f, self.box) for f in alternative]
            if all(high <= 0.0 for _, high in ranges):
                return
            if not any(low > ROUNDING for low, _ in ranges):
                possible.append([f for f, (_, high) in zip(alternative, ranges, strict=True) if high > 0.0])
        self.count += 1
        label = f"{name} {self.count}"
        if len(possible) == 1:
            self.rows += [Row(label, f, upper=0.0) for f in possible[0]]
            return
        binaries: list[int] = []
        for a, alternative in enumerate(possible):
            z = self._new(Variable(f"z[{label}.{a}]", 0.0, 1.0, integer=True))
            binaries.append(z)
            for f in alternative:
                _, high = function_range(f, self.box)
                excess = self._new(Variable(f"excess[{label}.{a}]", 0.0, high))
                self.rows.append(Row(f"{label}.{a}", f - linear({excess: 1.0}), upper=0.0))
                self.indicators.append((z, 1, excess))
        self.rows.append(Row(label, linear(dict.fromkeys(binaries, 1.0)), lower=1.0, upper=INF))

    def _new(self, column: Variable) -> int:
        self.more.append(column)
        return len(self.columns) + len(self.more) - 1


def defined_over(f: Function, box: Box) -> bool:
    """Whether a function is certain to have a value everywhere in a box: backends take an undefined row as violated."""
    return not undefined_parts(f, box)


def undefined_parts(f: Function, box: Box) -> list[ex.Expression]:
    """The operations in a function that may have no value, though their arguments have, somewhere in a box."""
    return [] if f.nonlinear is None else [node for node in ex.walk(f.nonlinear) if not _defined(node, box)]


def _defined(node: ex.Expression, box: Box) -> bool:
    """Whether the outermost operation has a value wherever its arguments do."""
    match node:
        case ex.Call("log", argument):
            return box.shape(argument)[1][0] > 0.0
        case ex.Call("sqrt", argument):
            return box.shape(argument)[1][0] >= 0.0
        case ex.Power(base, ex.Constant(exponent)):
            low, high = box.shape(base)[1]
            root = exponent != math.floor(exponent)
            return not (exponent < 0.0 and low <= 0.0 <= high) and not (root and low < 0.0)
        case ex.Power(base, _):
            return box.shape(base)[1][0] > 0.0
        case _:
            return True
