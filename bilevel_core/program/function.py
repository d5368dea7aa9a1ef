"""Functions of numbered columns: constant + linear + quadratic + (rarely) a nonlinear expression.

Everything the core does with algebra (stationarity conditions, fixing the leader's variables, passing rows to a
backend) is a short operation on this one type.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from bilevel_core.program import expression as ex
from bilevel_core.program.expression import Expression, Vector

Pair = tuple[int, int]
K = TypeVar("K")
RESIDUE = 4.0 * np.finfo(float).eps
"""What is left of two terms of one monomial, relative to them, when they cancel but for rounding."""

MERGED = 1e-13
"""The same where coefficients come out of a linear system."""


@dataclass(frozen=True)
class Function:
    """``constant + sum linear[i] v_i + sum quadratic[i, j] v_i v_j + nonlinear(v)``.

    ``quadratic`` has keys with i <= j and holds the coefficient of the monomial itself (not half the Hessian).
    The mappings are never changed after construction, and hold no zeros.
    """

    constant: float = 0.0
    linear: Mapping[int, float] = field(default_factory=dict[int, float])
    quadratic: Mapping[Pair, float] = field(default_factory=dict[Pair, float])
    nonlinear: Expression | None = None

    @property
    def degree(self) -> float:
        """0, 1 or 2 for polynomials of that degree, infinity for anything else."""
        if self.nonlinear is not None:
            return math.inf
        return 2 if self.quadratic else 1 if self.linear else 0

    @cached_property
    def columns(self) -> frozenset[int]:
        """The columns that the function depends on."""
        found = set(self.linear)
        for pair in self.quadratic:
            found.update(pair)
        if self.nonlinear is not None:
            found |= ex.columns(self.nonlinear)
        return frozenset(found)

    def __add__(self, other: Function | float) -> Function:
        return total([self, other if isinstance(other, Function) else Function(other)])

    def __neg__(self) -> Function:
        return self.scaled(-1.0)

    def __sub__(self, other: Function | float) -> Function:
        return self + (-other)

    def scaled(self, factor: float) -> Function:
        """The function times a number."""
        if factor == 1.0:
            return self
        if factor == 0.0:
            return Function()
        return Function(
            self.constant * factor,
            {i: c * factor for i, c in self.linear.items()},
            {p: c * factor for p, c in self.quadratic.items()},
            None if self.nonlinear is None else ex.multiply(ex.Constant(factor), self.nonlinear),
        )

    def times(self, other: Function) -> Function:
        """The product: exact coefficients up to degree two, an expression above."""
        if not self.columns and self.nonlinear is None:
            return other.scaled(self.constant)
        if not other.columns and other.nonlinear is None:
            return self.scaled(other.constant)
        if self.degree <= 1 and other.degree <= 1:
            linear: dict[int, float] = {}
            for a, b in ((self, other), (other, self)):
                for i, c in a.linear.items():
                    linear[i] = linear.get(i, 0.0) + c * b.constant
            quadratic: dict[Pair, float] = {}
            for i, c in self.linear.items():
                for j, d in other.linear.items():
                    pair = (i, j) if i <= j else (j, i)
                    quadratic[pair] = quadratic.get(pair, 0.0) + c * d
            return Function(self.constant * other.constant, _clean(linear), _clean(quadratic))
        return Function(nonlinear=ex.multiply(self.expression(), other.expression()))

    def expression(self) -> Expression:
        """The whole function as one expression tree."""
        terms: list[Expression] = [] if self.nonlinear is None else [self.nonlinear]
        terms += [ex.multiply(ex.Constant(c), ex.Column(i)) for i, c in self.linear.items()]
        for (i, j), c in self.quadratic.items():
            square = ex.power(ex.Column(i), ex.TWO) if i == j else ex.multiply(ex.Column(i), ex.Column(j))
            terms.append(ex.multiply(ex.Constant(c), square))
        return ex.add(*terms, ex.Constant(self.constant))

    def evaluate(self, values: Vector) -> float:
        """The value at a point (one number per column); NaN where undefined."""
        result = self.constant + math.fsum(c * values[i] for i, c in self.linear.items())
        result += math.fsum(c * values[i] * values[j] for (i, j), c in self.quadratic.items())
        if self.nonlinear is not None:
            result += ex.evaluate(self.nonlinear, values)
        return float(result)

    @property
    def size(self) -> float:
        """The largest coefficient of the linear and quadratic part; 0 where there is none."""
        return max((abs(c) for c in (*self.linear.values(), *self.quadratic.values())), default=0.0)

    def scale(self, values: Vector) -> float:
        """The largest term of the linear and quadratic part at a point, at least 1: what a residual is relative to."""
        terms = [abs(self.constant), 1.0]
        terms += [abs(c * values[i]) for i, c in self.linear.items()]
        terms += [abs(c * values[i] * values[j]) for (i, j), c in self.quadratic.items()]
        return max(terms)

    def partial(self, index: int) -> Function:
        """The partial derivative with respect to one column."""
        linear: dict[int, float] = {}
        for (i, j), c in self.quadratic.items():
            if i == index:
                linear[j] = linear.get(j, 0.0) + c
            if j == index:
                linear[i] = linear.get(i, 0.0) + c
        polynomial = Function(self.linear.get(index, 0.0), _clean(linear))
        if self.nonlinear is None:
            return polynomial
        return polynomial + collect(ex.differentiate(self.nonlinear, index))

    def fix(self, values: Mapping[int, float]) -> Function:
        """Put numbers in the place of some columns; what becomes linear or quadratic is collected as such."""
        if self.columns.isdisjoint(values):
            return self
        constant = self.constant
        linear: dict[int, float] = {}
        quadratic: dict[Pair, float] = {}
        for i, c in self.linear.items():
            if i in values:
                constant += c * values[i]
            else:
                linear[i] = linear.get(i, 0.0) + c
        for (i, j), c in self.quadratic.items():
            if i in values and j in values:
                constant += c * values[i] * values[j]
            elif i in values or j in values:
                kept, gone = (j, i) if i in values else (i, j)
                linear[kept] = linear.get(kept, 0.0) + c * values[gone]
            else:
                quadratic[i, j] = c
        polynomial = Function(constant, _clean(linear), quadratic)
        if self.nonlinear is None:
            return polynomial
        constants: dict[int, Expression] = {i: ex.Constant(float(v)) for i, v in values.items()}
        return polynomial + collect(ex.substitute(self.nonlinear, constants))

    def renumbered(self, position: Mapping[int, int]) -> Function:
        """The same function over other column numbers. ``position`` covers every column in it."""
        return Function(
            self.constant,
            {position[i]: c for i, c in self.linear.items()},
            {_ordered(position[i], position[j]): c for (i, j), c in self.quadratic.items()},
            None
            if self.nonlinear is None
            else ex.substitute(self.nonlinear, {i: ex.Column(position[i]) for i in ex.columns(self.nonlinear)}),
        )

    def compose(self, replacement: Mapping[int, Function]) -> Function:
        """Put functions in the place of some columns; what becomes linear or quadratic is collected as such."""
        if self.columns.isdisjoint(replacement):
            return self

        def column(i: int) -> Function:
            return replacement.get(i) or Function(linear={i: 1.0})

        parts = [Function(self.constant), *(column(i).scaled(c) for i, c in self.linear.items())]
        parts += [column(i).times(column(j)).scaled(c) for (i, j), c in self.quadratic.items()]
        if self.nonlinear is not None:
            trees = {i: f.expression() for i, f in replacement.items()}
            parts.append(collect(ex.substitute(self.nonlinear, trees)))
        return total(parts)

    def share(self, own: Collection[int]) -> Function:
        """The function without the terms that depend on none of the columns ``own``."""
        rest: Expression | None = None
        if self.nonlinear is not None:
            terms = self.nonlinear.terms if isinstance(self.nonlinear, ex.Sum) else (self.nonlinear,)
            kept = [t for t in terms if not ex.columns(t).isdisjoint(own)]
            rest = ex.add(*kept) if kept else None
        return Function(
            0.0,
            {i: c for i, c in self.linear.items() if i in own},
            {p: c for p, c in self.quadratic.items() if p[0] in own or p[1] in own},
            rest,
        )

    def merged(self) -> Function:
        """The function with like terms of its nonlinear part put together: those that cancel but for rounding go."""
        if not isinstance(self.nonlinear, ex.Sum):
            return self
        constant = self.constant
        weights: dict[Expression, float] = {}
        sizes: dict[Expression, float] = {}
        for term in self.nonlinear.terms:
            factors = term.factors if isinstance(term, ex.Product) else (term,)
            head = factors[0].value if isinstance(factors[0], ex.Constant) else 1.0
            rest = ex.multiply(*(factors[1:] if isinstance(factors[0], ex.Constant) else factors))
            if isinstance(rest, ex.Constant):
                constant += head * rest.value
                continue
            weights[rest] = weights.get(rest, 0.0) + head
            sizes[rest] = max(sizes.get(rest, 0.0), abs(head))
        kept = [
            ex.multiply(ex.Constant(weight), rest)
            for rest, weight in weights.items()
            if abs(weight) > MERGED * sizes[rest]
        ]
        return Function(constant, self.linear, self.quadratic, ex.add(*kept) if kept else None)

    def hessian(self, order: Sequence[int]) -> np.ndarray:
        """The constant Hessian of the quadratic part over the given columns, shape (n, n)."""
        position = {c: k for k, c in enumerate(order)}
        matrix = np.zeros((len(order), len(order)))
        for (i, j), c in self.quadratic.items():
            if i in position and j in position:
                matrix[position[i], position[j]] += c
                matrix[position[j], position[i]] += c
        return matrix

    def text(self, names: Sequence[str]) -> str:
        """A readable rendering, terms in column order: ``2 x - 3 x*y + 1``."""
        parts: list[tuple[float, str]] = [(c, names[i]) for i, c in sorted(self.linear.items())]
        for (i, j), c in sorted(self.quadratic.items()):
            parts.append((c, f"{names[i]}^2" if i == j else f"{names[i]}*{names[j]}"))
        if self.nonlinear is not None:
            parts.append((1.0, ex.text(self.nonlinear, names)))
        if self.constant or not parts:
            parts.append((self.constant, ""))
        out = ""
        for c, name in parts:
            size = f"{abs(c):g}"
            body = size if not name else name if abs(c) == 1.0 else f"{size} {name}"
            sign = ("-" if c < 0 else "") if not out else (" - " if c < 0 else " + ")
            out += sign + body
        return out


def _ordered(i: int, j: int) -> Pair:
    return (i, j) if i <= j else (j, i)


def _clean(coefficients: dict[K, float]) -> dict[K, float]:
    return {k: c for k, c in coefficients.items() if c != 0.0}


def linear(coefficients: Mapping[int, float], constant: float = 0.0) -> Function:
    """A linear function from a mapping column -> coefficient."""
    return Function(constant, _clean(dict(coefficients)))


def _added(a: float, b: float) -> float:
    """The sum; zero where two terms cancel up to their own rounding, which would pass for curvature."""
    out = a + b
    return 0.0 if abs(out) <= RESIDUE * abs(b) else out


def total(functions: Iterable[Function]) -> Function:
    """The sum of many functions in one pass."""
    constant = 0.0
    lin: dict[int, float] = {}
    quad: dict[Pair, float] = {}
    rest: list[Expression] = []
    for f in functions:
        constant += f.constant
        for i, c in f.linear.items():
            lin[i] = lin.get(i, 0.0) + c
        for p, c in f.quadratic.items():
            if p in quad:
                quad[p] = _added(quad[p], c)
            else:
                quad[p] = c
        if f.nonlinear is not None:
            rest.append(f.nonlinear)
    return Function(constant, _clean(lin), _clean(quad), ex.add(*rest) if rest else None)


def collect(node: Expression) -> Function:
    """Sort an expression into coefficients as far as it is a polynomial of degree two, the rest stays a tree."""
    match node:
        case ex.Constant(value):
            return Function(value)
        case ex.Column(index):
            return Function(linear={index: 1.0})
        case ex.Sum(terms):
            return total(collect(t) for t in terms)
        case ex.Product(factors):
            result = Function(1.0)
            rest: list[Function] = []
            for factor in factors:
                part = collect(factor)
                if part.degree <= 2 and result.degree + part.degree <= 2:
                    result = result.times(part)
                else:
                    rest.append(part)
            if not rest:
                return result
            return Function(nonlinear=ex.multiply(result.expression(), *(r.expression() for r in rest)))
        case ex.Power(base, exponent):
            inner = collect(base)
            if isinstance(exponent, ex.Constant):
                if inner.degree == 0:
                    return Function(ex.evaluate(ex.Power(ex.Constant(inner.constant), exponent), ()))
                if exponent.value == 2.0 and inner.degree <= 1:
                    return inner.times(inner)
            return Function(nonlinear=ex.power(inner.expression(), collect(exponent).expression()))
        case ex.Call(function, argument):
            inner = collect(argument)
            if inner.degree == 0:
                return Function(ex.evaluate(ex.Call(function, ex.Constant(inner.constant)), ()))
            return Function(nonlinear=ex.call(function, inner.expression()))
        case _:
            raise TypeError(f"Not an expression: {node!r}")
