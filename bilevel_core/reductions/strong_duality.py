"""Complementarity by strong duality: all pairs of a follower replaced by "primal objective = dual objective".

Source: Fortuny-Amat and McCarl (1981) for the pairs; Zare, Borrero, Zeng and Prokopyev (2019), A note on linearized
reformulations for a class of bilevel linear integer problems, Annals of Operations Research 272, for this form and its
linearisation; McCormick (1976) for products with a binary.

Under stationarity and feasibility of both sides the difference of the two objectives is ``sum multiplier * slack``, a
sum of nonnegative terms: a single row says that it is at most zero, and it is zero then. Adding the stationarity rows,
each times its column, cancels the products of multipliers with the follower's own columns; what is left are products
of multipliers with other people's columns, and the follower's quadratic terms, which are convex.

One row in the place of many pairs means that a tolerance on it is shared out among them: check each pair afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from bilevel_core.program import BilevelProgram, Function, Program, Row, Variable, append_columns, linear, total
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.kkt import OptimalityConditions

WHOLE = 1e-9
"""A bound of an integer column this close to an integer means that integer."""
MAX_BITS = 16
"""Integer columns with a range beyond 2 to this power are not expanded into binaries."""


class StrongDuality(Reduction[Program, Program]):
    """One row a follower. Takes linear and convex quadratic followers with linear, constant rows.

    Products of a bounded integer column that is not the follower's with a bounded column become linear and exact:
    the integer is written in binaries, and each product with a binary as its four inequalities. Others stay as they
    are, for a backend that takes nonconvex quadratic rows.

    Args:
        program: the bilevel program.
        conditions: the reduction that made the source from it.
        followers: the numbers of those to treat so; all by default.
        bounds: proven bounds (lowest, highest) of multiplier columns, by column; they become bounds of those columns.
            They may cut off multipliers as long as every answer keeps some. Products with columns without bounds stay
            as they are.
    """

    def __init__(
        self,
        program: BilevelProgram,
        conditions: OptimalityConditions,
        followers: Collection[int] | None = None,
        bounds: Mapping[int, tuple[float, float]] | None = None,
    ) -> None:
        self.program = program
        self.conditions = conditions
        self.followers = tuple(range(len(program.followers))) if followers is None else tuple(sorted(set(followers)))
        self.bounds = dict(bounds or {})
        self._linear: _Linear | None = None
        self._width = 0

    def accepts(self, source: Program) -> str | None:
        """Refuses followers whose rows are not linear, or whose coefficients vary with other people's columns."""
        for k in self.followers:
            name = self.program.followers[k].name
            for m in self.conditions.multipliers:
                if m.follower == k and m.slack.degree > 1:
                    return f"a constraint of follower {name!r} is not linear (or its coefficients vary)"
            for _, row in self._stationarity(k):
                if row.function.degree > 1:
                    return f"coefficients of follower {name!r} vary with other columns, or it is not quadratic"
        return None

    def apply(self, source: Program) -> Program:
        """The program with a row for each follower's pairs."""
        gone = {m.column for m in self.conditions.multipliers if m.follower in self.followers}
        products = _Linear(source, self.bounds)
        rows: list[Row] = []
        for k in self.followers:
            own = {i for i, _ in self._stationarity(k)}
            gap = products.function(self.gap(k, source), own)
            rows.append(Row(f"strong-duality[{self.program.followers[k].name}]", gap, upper=0.0))
        self._linear, self._width = products, len(source.columns)
        columns = list(source.columns)
        for c, (low, high) in self.bounds.items():
            columns[c] = replace(columns[c], lower=max(columns[c].lower, low), upper=min(columns[c].upper, high))
        return replace(
            source,
            columns=append_columns(columns, products.columns),
            rows=source.rows + tuple(rows) + tuple(products.rows),
            complementarities=tuple(p for p in source.complementarities if p[0] not in gone),
        )

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop binaries and products."""
        return values[: self._width]

    def extend(self, values: np.ndarray) -> np.ndarray:
        """A point of the source with the binaries and products that go with it."""
        assert self._linear is not None
        return self._linear.extend(values)

    @property
    def largest(self) -> float:
        """The largest bound that stands beside a binary; 0 where there is none."""
        return 0.0 if self._linear is None else self._linear.largest

    def gap(self, k: int, source: Program) -> Function:
        """Primal minus dual objective of follower k: its ``sum multiplier * slack`` wherever stationarity holds.

        The products of multipliers with the follower's own columns cancel when the stationarity rows are added, each
        times its column. They are never formed: what rounding would leave of them cannot be told from small terms.
        """
        stationarity = self._stationarity(k)
        own = frozenset(i for i, _ in stationarity)
        equalities = {
            e.column: e.row for e in self.conditions.equalities if e.follower == k and e.row.function.degree <= 1
        }
        terms: list[Function] = []
        gone: set[int] = set(equalities)
        for m in self.conditions.multipliers:
            if m.follower == k:
                gone.add(m.column)
                terms.append(_without(m.slack, own).times(linear({m.column: 1.0})))
        terms += [_without(row.function, gone).times(linear({i: 1.0})) for i, row in stationarity]
        for column, row in equalities.items():
            terms.append((_without(row.function, own) + (-row.upper)).times(linear({column: -1.0})))
        return total(terms)

    def _stationarity(self, k: int) -> list[tuple[int, Row]]:
        """Follower k's free columns, each with its stationarity row."""
        columns = self.program.columns
        owner = [(f, i) for f, level in enumerate(self.program.followers) for i in level.columns]
        owner = [(f, i) for f, i in owner if not columns[i].fixed]
        return [(i, row) for (f, i), row in zip(owner, self.conditions.stationarity, strict=True) if f == k]


def _without(f: Function, columns: Collection[int]) -> Function:
    """A linear function without some of its columns."""
    return replace(f, linear={i: c for i, c in f.linear.items() if i not in columns})


class _Linear:
    """Makes products with integers linear: columns and rows behind those of a program."""

    def __init__(self, source: Program, bounds: Mapping[int, tuple[float, float]]) -> None:
        self.source = source
        self.bounds = bounds
        self.columns: list[Variable] = []
        self.rows: list[Row] = []
        self.largest = 0.0
        self._recipes: list[tuple[int, int, float]] = []
        """How to compute each new column: (integer column, bit, 0) or (binary column, other column, 1)."""
        self._bits: dict[int, list[tuple[int, float]]] = {}
        self._products: dict[tuple[int, int], int] = {}

    def function(self, f: Function, own: set[int]) -> Function:
        """The function with every product of a bounded integer (not in ``own``) and a bounded column replaced."""
        parts = [replace(f, quadratic={})]
        for (i, j), c in f.quadratic.items():
            made = self._product(i, j, own)
            parts.append(Function(quadratic={(i, j): c}) if made is None else made.scaled(c))
        return total(parts)

    def _product(self, i: int, j: int, own: set[int]) -> Function | None:
        for x, v in ((i, j), (j, i)):
            if self.source.columns[x].fixed:
                return linear({v: self.source.columns[x].lower})
        for x, v in ((i, j), (j, i)):
            low, high = self._range(v)
            if x in own or x == v or not (math.isfinite(low) and math.isfinite(high)) or not self._expandable(x):
                continue
            lower, _ = self._whole(x)
            return linear({v: float(lower)} | {self._times(b, v, low, high): weight for b, weight in self._expanded(x)})
        return None

    def _range(self, v: int) -> tuple[float, float]:
        c = self.source.columns[v]
        low, high = self.bounds.get(v, (-math.inf, math.inf))
        return max(c.lower, low), min(c.upper, high)

    def _expandable(self, x: int) -> bool:
        c = self.source.columns[x]
        return c.integer and math.isfinite(c.lower) and math.isfinite(c.upper) and c.upper - c.lower < 2.0**MAX_BITS

    def _whole(self, x: int) -> tuple[int, int]:
        """The integers between an integer column's bounds: the lowest and the highest."""
        c = self.source.columns[x]
        return math.ceil(c.lower - WHOLE), math.floor(c.upper + WHOLE)

    def _expanded(self, x: int) -> list[tuple[int, float]]:
        """Binaries and weights with ``x = lower + sum weight * binary``."""
        c = self.source.columns[x]
        lower, upper = self._whole(x)
        if (lower, upper) == (0, 1):
            return [(x, 1.0)]
        if x not in self._bits:
            span = max(0, upper - lower)
            bits = [
                (self._new(Variable(f"bit{b}[{c.name}]", 0.0, 1.0, integer=True), (x, b, 0.0)), 2.0**b)
                for b in range(max(1, span.bit_length()))
            ]
            f = linear({x: 1.0} | {z: -w for z, w in bits})
            self.rows.append(Row(f"bits[{c.name}]", f, float(lower), float(lower)))
            self._bits[x] = bits
        return self._bits[x]

    def _times(self, z: int, v: int, low: float, high: float) -> int:
        """The column that equals ``z * v`` for a binary z and v in [low, high]."""
        if (z, v) not in self._products:
            name = f"{self._name(z)}*{self._name(v)}"
            w = self._new(Variable(name, min(0.0, low), max(0.0, high)), (z, v, 1.0))
            self.rows.append(Row(f"{name}<=high z", linear({w: 1.0, z: -high}), upper=0.0))
            self.rows.append(Row(f"{name}>=low z", linear({w: 1.0, z: -low}), lower=0.0))
            self.rows.append(Row(f"{name}<=v-low(1-z)", linear({w: 1.0, v: -1.0, z: -low}), upper=-low))
            self.rows.append(Row(f"{name}>=v-high(1-z)", linear({w: 1.0, v: -1.0, z: -high}), lower=-high))
            self._products[z, v] = w
            self.largest = max(self.largest, abs(low), abs(high))
        return self._products[z, v]

    def _name(self, k: int) -> str:
        width = len(self.source.columns)
        return (self.source.columns[k] if k < width else self.columns[k - width]).name

    def _new(self, column: Variable, recipe: tuple[int, int, float]) -> int:
        self.columns.append(column)
        self._recipes.append(recipe)
        return len(self.source.columns) + len(self.columns) - 1

    def extend(self, values: np.ndarray) -> np.ndarray:
        out = [float(v) for v in values]
        for a, b, product in self._recipes:
            if product:
                out.append(round(out[a]) * out[b])
            else:
                out.append(float((round(out[a]) - self._whole(a)[0]) >> b & 1))
        return np.array(out)
