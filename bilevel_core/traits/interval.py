"""The curvature of expressions by the rules of composition, and their ranges, over a box.

Source: Grant, Boyd and Ye (2006), Disciplined convex programming, for the rules. What cannot be shown is not known.
Intervals are computed in floating point without directed rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bilevel_core.program import Function, Variable, collect, positive_semidefinite
from bilevel_core.program import expression as ex
from bilevel_core.program.expression import Expression
from bilevel_core.program.ranges import Interval, multiply, polynomial_range

ALL: Interval = (-math.inf, math.inf)
CONSTANT, AFFINE, CONVEX, CONCAVE, UNKNOWN = "constant", "affine", "convex", "concave", "unknown"
_MIRRORED = {CONSTANT: CONSTANT, AFFINE: AFFINE, CONVEX: CONCAVE, CONCAVE: CONVEX, UNKNOWN: UNKNOWN}


class Box:
    """The bounds of all columns, and whose columns a function must be convex in (``own``); others are parameters."""

    def __init__(self, columns: Sequence[Variable], own: frozenset[int]) -> None:
        self.bounds: list[Interval] = [(c.lower, c.upper) for c in columns]
        self.own = own
        self._known: dict[Expression, tuple[str, Interval]] = {}

    def within(self, bounds: Sequence[Interval]) -> Box:
        """A box with other bounds for the same columns."""
        out = Box((), self.own)
        out.bounds = list(bounds)
        return out

    def shape(self, node: Expression) -> tuple[str, Interval]:
        """The curvature of an expression in the own columns by the rules of composition, and its range."""
        if node not in self._known:
            self._known[node] = self._shape(node)
        return self._known[node]

    def _shape(self, node: Expression) -> tuple[str, Interval]:
        match node:
            case ex.Constant(value):
                return CONSTANT, (value, value)
            case ex.Column(index):
                return AFFINE if index in self.own else CONSTANT, self.bounds[index]
            case ex.Sum(terms):
                return self._sum(node, terms)
            case ex.Product(factors):
                return self._product(factors)
            case ex.Power(base, exponent):
                return self._power(base, exponent)
            case ex.Call(function, argument):
                inner, at = self.shape(argument)
                outer, monotone = _outer(function, at)
                return _composed(outer, monotone, inner), call_range(function, at)
            case _:
                return UNKNOWN, ALL

    def _sum(self, node: Expression, terms: Sequence[Expression]) -> tuple[str, Interval]:
        """Term by term, but squares and products of own columns together, by their common Hessian."""
        parts = [self.shape(t) for t in terms]
        value = _sum_range([r for _, r in parts])
        curvature = _sum_of([c for c, _ in parts])
        f = collect(node) if curvature == UNKNOWN else Function()
        if not f.quadratic:
            return curvature, value
        order = sorted({i for pair in f.quadratic for i in pair if i in self.own})
        hessian = f.hessian(order)
        square = CONVEX if positive_semidefinite(hessian) else CONCAVE if positive_semidefinite(-hessian) else UNKNOWN
        square = square if hessian.any() else AFFINE
        rest = CONSTANT if f.nonlinear is None else self.shape(f.nonlinear)[0]
        return _sum_of([square, rest]), value

    def _product(self, factors: Sequence[Expression]) -> tuple[str, Interval]:
        """At most one factor with own columns; the others give it their sign."""
        parts = [self.shape(f) for f in factors]
        value: Interval = (1.0, 1.0)
        for _, at in parts:
            value = multiply(value, at)
        active = [k for k, (c, _) in enumerate(parts) if c != CONSTANT]
        if len(active) != 1:
            return UNKNOWN if active else CONSTANT, value
        rest: Interval = (1.0, 1.0)
        for k, (_, at) in enumerate(parts):
            if k != active[0]:
                rest = multiply(rest, at)
        curvature = parts[active[0]][0]
        if curvature == AFFINE or rest[0] >= 0.0:
            return curvature, value
        return (_MIRRORED[curvature] if rest[1] <= 0.0 else UNKNOWN), value

    def _power(self, base: Expression, exponent: Expression) -> tuple[str, Interval]:
        inner, at = self.shape(base)
        other, power = self.shape(exponent)
        if not isinstance(exponent, ex.Constant):
            if other == CONSTANT and inner == CONSTANT:
                return CONSTANT, _general_power(at, power)
            if inner == CONSTANT and at[0] >= 1.0:  # a^u = exp(u log a), rising in u
                return _composed(CONVEX, 1, other), _general_power(at, power)
            return UNKNOWN, _general_power(at, power)
        p = exponent.value
        outer, monotone = _power_outer(p, at)
        return _composed(outer, monotone, inner), power_range(at, p)


def function_range(f: Function, box: Box) -> Interval:
    """The range of a function over the box, not sharp."""
    value = polynomial_range(f, box.bounds)
    return value if f.nonlinear is None else _sum_range([value, box.shape(f.nonlinear)[1]])


def _sum_of(parts: Sequence[str]) -> str:
    kinds = set(parts) - {CONSTANT}
    if not kinds:
        return CONSTANT
    if UNKNOWN in kinds or {CONVEX, CONCAVE} <= kinds:
        return UNKNOWN
    return next((k for k in (CONVEX, CONCAVE) if k in kinds), AFFINE)


def _composed(outer: str, monotone: int, inner: str) -> str:
    """The curvature of ``h(g)`` for h of curvature ``outer``, rising (1), falling (-1) or neither (0)."""
    if inner in (CONSTANT, UNKNOWN):
        return inner
    if inner == AFFINE:
        return outer
    fits = {CONVEX: (1, CONVEX, -1, CONCAVE), CONCAVE: (1, CONCAVE, -1, CONVEX)}.get(outer)
    if fits is None:
        return UNKNOWN
    return outer if (monotone, inner) in (fits[:2], fits[2:]) else UNKNOWN


def _outer(function: str, at: Interval) -> tuple[str, int]:
    """Curvature and monotonicity of a named function over a range of arguments."""
    low, high = at
    match function:
        case "exp":
            return CONVEX, 1
        case "log" | "sqrt":
            return CONCAVE, 1
        case "cosh":
            return CONVEX, 1 if low >= 0.0 else -1 if high <= 0.0 else 0
        case "sinh" | "tan" if low >= 0.0 and (function == "sinh" or high < math.pi / 2):
            return CONVEX, 1
        case "sinh" if high <= 0.0:
            return CONCAVE, 1
        case "tanh" | "atan" if low >= 0.0 or high <= 0.0:
            return (CONCAVE if low >= 0.0 else CONVEX), 1
        case _:
            return UNKNOWN, 0


def _power_outer(p: float, at: Interval) -> tuple[str, int]:
    low, high = at
    even, whole = p % 2.0 == 0.0, p == math.floor(p)
    if p > 0.0 and even:
        return CONVEX, 1 if low >= 0.0 else -1 if high <= 0.0 else 0
    if low >= 0.0:
        if p < 0.0:
            return CONVEX, -1
        return (CONVEX if p >= 1.0 else CONCAVE), 1
    if high <= 0.0 and whole:
        if p > 0.0:
            return CONCAVE, 1
        return (CONVEX, 1) if even else (CONCAVE, -1)
    return (CONCAVE, 1) if 0.0 < p < 1.0 else (UNKNOWN, 0)


def _sum_range(parts: Sequence[Interval]) -> Interval:
    return sum(p[0] for p in parts), sum(p[1] for p in parts)


def power_range(at: Interval, p: float) -> Interval:
    """The range of ``u ** p`` for u in a range, over the arguments for which it is defined."""
    low, high = at
    whole = p == math.floor(p)
    if not whole:
        low = max(0.0, low)
        if high < low:
            return ALL
    if p < 0.0:
        if low < 0.0 < high:
            return (0.0, math.inf) if whole and p % 2.0 == 0.0 else ALL
        inner = power_range((low, high), -p)
        return _reciprocal(inner)
    ends = (_raise(low, p), _raise(high, p))
    if whole and p % 2.0 == 0.0 and low < 0.0 < high:
        return 0.0, max(ends)
    return min(ends), max(ends)


def _reciprocal(at: Interval) -> Interval:
    low, high = at
    if low == high == 0.0:
        return ALL
    if low >= 0.0:
        return (0.0 if high == math.inf else math.inf if high == 0.0 else 1.0 / high), (
            math.inf if low == 0.0 else 1.0 / low
        )
    return (-math.inf if high == 0.0 else 1.0 / high), (0.0 if low == -math.inf else 1.0 / low)


def _raise(u: float, p: float) -> float:
    try:
        return u**p
    except OverflowError:
        return math.copysign(math.inf, u) if p % 2.0 == 1.0 else math.inf


def _general_power(at: Interval, power: Interval) -> Interval:
    if at[0] <= 0.0:
        return (0.0, math.inf) if at[0] >= 0.0 else ALL
    return call_range("exp", multiply(power, call_range("log", at)))


_RISING: Mapping[str, Interval] = {
    "exp": ALL,
    "log": (0.0, math.inf),
    "sqrt": (0.0, math.inf),
    "sinh": ALL,
    "tanh": ALL,
    "atan": ALL,
    "asin": (-1.0, 1.0),
}


def call_range(function: str, at: Interval) -> Interval:
    """The range of a named function over a range of arguments, within its domain."""
    if function in _RISING:
        domain = _RISING[function]
        low, high = max(at[0], domain[0]), min(at[1], domain[1])
        return ALL if low > high else (_value(function, low, -math.inf), _value(function, high, math.inf))
    match function:
        case "sin" | "cos":
            return -1.0, 1.0
        case "cosh":
            ends = (_value("cosh", at[0], math.inf), _value("cosh", at[1], math.inf))
            return (1.0 if at[0] <= 0.0 <= at[1] else min(ends)), max(ends)
        case "abs":
            return (0.0 if at[0] <= 0.0 <= at[1] else min(map(abs, at))), max(map(abs, at))
        case "acos":
            return 0.0, math.pi
        case _:
            return ALL


def _value(function: str, u: float, otherwise: float) -> float:
    if math.isinf(u):
        limits = {("exp", True): 0.0, ("tanh", True): -1.0, ("tanh", False): 1.0}
        limits |= {("atan", True): -math.pi / 2, ("atan", False): math.pi / 2}
        return limits.get((function, u < 0.0), math.copysign(math.inf, u) if function != "cosh" else math.inf)
    try:
        return ex.FUNCTIONS[function](u)
    except (ValueError, OverflowError):
        return otherwise
