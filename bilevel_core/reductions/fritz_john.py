"""Necessary conditions of optimality for followers of any kind, to sharpen a relaxation: Fritz John's.

Source: John (1948); Mangasarian and Fromovitz (1967) for equations. At every optimal answer of a differentiable
follower there are multipliers, not all zero, of its objective and its constraints under which the gradients cancel. No
convexity and no constraint qualification is asked for, which the Karush-Kuhn-Tucker system needs; and since the
multipliers can be taken to sum up to one, they are bounded, whatever the follower. The conditions hold at more than the
optimal answers (at every stationary one), so they replace no value-function cut; with them the relaxation no longer has
a continuum of answers that are merely close to optimal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
from bilevel_core.program import expression as ex
from bilevel_core.reductions.value_function import undefined_parts
from bilevel_core.traits.interval import Box, function_range

RANK = 1e-9
"""A singular value of equations' coefficients below this, relative to the largest, counts as zero."""

INACTIVE = 1e-9
"""A constraint that holds by more than this (relative to its largest coefficient) all over the bounds is never active:
ranges are computed without directed rounding, and one that comes out a little above zero may well contain it.
"""


@dataclass(frozen=True)
class Inequality:
    """``slack >= 0``, and its derivatives by the follower's continuous columns."""

    name: str
    slack: Function
    slopes: Mapping[int, Function]


@dataclass(frozen=True)
class Equation:
    """An equation's derivatives by the follower's continuous columns."""

    name: str
    slopes: Mapping[int, Function]


@dataclass(frozen=True)
class System:
    """What a follower's conditions are made of.

    Attributes:
        name: the follower's.
        own: its continuous columns that are not fixed. Its integers are taken as given: with those of an optimal answer
            the others are optimal.
        slopes: derivatives of its objective.
        inequalities: its constraints that contain such columns, bounds among them.
        equations: its equations that contain such columns.
        regular: whether the equations' gradients are the same everywhere, and independent. Then they need no share of
            the multipliers' sum, which the others have to themselves.
    """

    name: str
    own: tuple[int, ...]
    slopes: Mapping[int, Function]
    inequalities: tuple[Inequality, ...]
    equations: tuple[Equation, ...]
    regular: bool


class FritzJohn:
    """The conditions of those followers that have them: whose functions have derivatives all over the columns' bounds.

    Args:
        source: the bilevel program.
    """

    def __init__(self, source: BilevelProgram) -> None:
        found = [system_of(source, k) for k in range(len(source.followers))]
        self.systems = tuple(s for s in found if s is not None)

    def added_to(self, relaxed: Program) -> Program:
        """A relaxation with the conditions. Its first columns are those of the bilevel program, perhaps with narrower
        bounds: constraints that cannot be active within them get no multiplier.
        """
        build = _Builder(relaxed)
        for system in self.systems:
            build.add(system)
        return build.program()


def system_of(source: BilevelProgram, k: int) -> System | None:
    """A follower's system; None where it has none, or needs none because nothing of it is continuous."""
    level = source.followers[k]
    own = tuple(i for i in level.columns if not source.columns[i].fixed and not source.columns[i].integer)
    if not own:
        return None
    box = Box(source.columns, frozenset())
    slopes = _slopes(level.objective, own, box)
    constraints = _constraints(source, level, own, box)
    if slopes is None or constraints is None:
        return None
    inequalities, equations = constraints
    return System(level.name, own, slopes, tuple(inequalities), tuple(equations), regular=_independent(equations, own))


def _slopes(f: Function, own: tuple[int, ...], box: Box) -> dict[int, Function] | None:
    out: dict[int, Function] = {}
    for i in own:
        if i in f.columns:
            try:
                out[i] = f.partial(i)
            except ValueError:  # abs()
                return None
            if not _as_defined(out[i], f, box):
                return None
    return out


def _as_defined(slope: Function, f: Function, box: Box) -> bool:
    """Whether a derivative is certain to exist wherever the function does: a quotient has its poles in common with its
    derivatives, a root has a value where it has no slope.
    """
    bad = undefined_parts(slope, box)
    if not bad:
        return True
    nodes = () if f.nonlinear is None else tuple(ex.walk(f.nonlinear))
    poles = {n.base for n in nodes if isinstance(n, ex.Power) and _negative(n)}
    poles |= {n.argument for n in nodes if isinstance(n, ex.Call) and n.function == "log"}
    return all(isinstance(n, ex.Power) and _negative(n) and n.base in poles for n in bad)


def _negative(power: ex.Power) -> bool:
    return isinstance(power.exponent, ex.Constant) and power.exponent.value < 0.0


def _constraints(
    source: BilevelProgram, level: Level, own: tuple[int, ...], box: Box
) -> tuple[list[Inequality], list[Equation]] | None:
    mine = frozenset(own)
    inequalities: list[Inequality] = []
    equations: list[Equation] = []
    for row in level.rows:
        if row.function.columns.isdisjoint(mine):
            continue
        slopes = _slopes(row.function, own, box)
        if slopes is None:
            return None
        if row.equality:
            equations.append(Equation(row.name, slopes))
            continue
        for side, bound, sign in (("", row.upper, -1.0), (":lower", row.lower, 1.0)):
            if math.isfinite(bound):
                slack = (row.function - bound).scaled(sign)
                down = {i: s.scaled(sign) for i, s in slopes.items()}
                inequalities.append(Inequality(f"{row.name}{side}", slack, down))
    for i in own:
        c = source.columns[i]
        for side, bound, sign in (("lower", c.lower, 1.0), ("upper", c.upper, -1.0)):
            if math.isfinite(bound):
                slack = linear({i: sign}, -sign * bound)
                inequalities.append(Inequality(f"{c.name}:{side}", slack, {i: Function(sign)}))
    return inequalities, equations


def _independent(equations: Sequence[Equation], own: tuple[int, ...]) -> bool:
    if any(f.columns or f.nonlinear is not None for e in equations for f in e.slopes.values()):
        return False
    if not equations:
        return True
    matrix = np.array([[e.slopes[i].constant if i in e.slopes else 0.0 for i in own] for e in equations])
    values = np.linalg.svd(matrix, compute_uv=False)
    return len(values) == len(equations) and bool(values[-1] > RANK * values[0])


class _Builder:
    """Collects columns, rows and pairs."""

    def __init__(self, relaxed: Program) -> None:
        self.relaxed = relaxed
        self.box = Box(relaxed.columns, frozenset())
        self.columns: list[Variable] = []
        self.rows: list[Row] = []
        self.pairs: list[tuple[int, ...]] = []

    def program(self) -> Program:
        relaxed = self.relaxed
        return replace(
            relaxed,
            columns=append_columns(relaxed.columns, self.columns),
            rows=relaxed.rows + tuple(self.rows),
            sos1=relaxed.sos1 + tuple(self.pairs),
        )

    def add(self, system: System) -> None:
        terms: dict[int, list[Function]] = {i: [] for i in system.own}
        first = self._new(Variable(f"weight[{system.name}]", 0.0, 1.0))
        weights = [first]
        self._weigh(terms, first, system.slopes, 1.0)
        for inequality in system.inequalities:
            low, high = function_range(inequality.slack, self.box)
            if low > INACTIVE * max(1.0, inequality.slack.size, abs(inequality.slack.constant)):
                continue
            weight = self._new(Variable(f"weight[{inequality.name}]", 0.0, 1.0))
            weights.append(weight)
            self._weigh(terms, weight, inequality.slopes, -1.0)
            if high > 0.0:
                slack = self._new(Variable(f"slack[{inequality.name}]", 0.0, high))
                self.rows.append(Row(f"slack[{inequality.name}]", inequality.slack - linear({slack: 1.0}), 0.0, 0.0))
                self.pairs.append((weight, slack))
        for equation in system.equations:
            if system.regular:
                free = self._new(Variable(f"mu[{equation.name}]", -INF))
                self._weigh(terms, free, equation.slopes, 1.0)
                continue
            both = tuple(self._new(Variable(f"weight[{equation.name}:{side}]", 0.0, 1.0)) for side in "+-")
            for weight, sign in zip(both, (1.0, -1.0), strict=True):
                self._weigh(terms, weight, equation.slopes, sign)
            weights += both
            self.pairs.append(both)  # else they could cancel, and sum up to one for nothing
        self.rows += [
            Row(f"stationary[{self.relaxed.columns[i].name}]", total(parts), 0.0, 0.0) for i, parts in terms.items()
        ]
        self.rows.append(Row(f"weights[{system.name}]", linear(dict.fromkeys(weights, 1.0)), 1.0, 1.0))

    def _weigh(
        self, terms: dict[int, list[Function]], weight: int, slopes: Mapping[int, Function], sign: float
    ) -> None:
        for i, slope in slopes.items():
            terms[i].append(slope.times(linear({weight: sign})))

    def _new(self, column: Variable) -> int:
        self.columns.append(column)
        return len(self.relaxed.columns) + len(self.columns) - 1
