"""Nonlinear expressions over numbered columns: a small closed tree that can be evaluated, differentiated and printed.

Only what exceeds degree two lives here; linear and quadratic parts are kept as coefficients in `Function`.
Backends translate the tree into their own terms, so nothing in it depends on a modelling layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Vector = Sequence[float] | np.ndarray


class Expression:
    """A node of the tree. Nodes are immutable and compare by value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Constant(Expression):
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Column(Expression):
    """The variable in column ``index`` of the program."""

    index: int


@dataclass(frozen=True, slots=True)
class Sum(Expression):
    """The sum of its terms."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Product(Expression):
    """The product of its factors."""

    factors: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Power(Expression):
    """``base ** exponent``; a quotient is a power of -1."""

    base: Expression
    exponent: Expression


@dataclass(frozen=True, slots=True)
class Call(Expression):
    """A named function of one argument; the names are the keys of `FUNCTIONS`."""

    function: str
    argument: Expression


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "abs": abs,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
}

ZERO, ONE, MINUS_ONE, TWO = Constant(0.0), Constant(1.0), Constant(-1.0), Constant(2.0)


def add(*terms: Expression) -> Expression:
    """Sum with nested sums flattened and constants folded."""
    flat: list[Expression] = []
    constant = 0.0
    for term in terms:
        for part in term.terms if isinstance(term, Sum) else (term,):
            if isinstance(part, Constant):
                constant += part.value
            else:
                flat.append(part)
    if constant != 0.0 or not flat:
        flat.append(Constant(constant))
    return flat[0] if len(flat) == 1 else Sum(tuple(flat))


def multiply(*factors: Expression) -> Expression:
    """Product with nested products flattened and constants folded."""
    flat: list[Expression] = []
    constant = 1.0
    for factor in factors:
        for part in factor.factors if isinstance(factor, Product) else (factor,):
            if isinstance(part, Constant):
                constant *= part.value
            else:
                flat.append(part)
    if constant == 0.0 or not flat:
        return Constant(constant)
    if constant != 1.0:
        flat.insert(0, Constant(constant))
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def power(base: Expression, exponent: Expression) -> Expression:
    """Power with the trivial cases folded; what has no value (a division by zero) is kept as it is."""
    if isinstance(exponent, Constant):
        if exponent.value == 0.0:
            return ONE
        if exponent.value == 1.0:
            return base
        if isinstance(base, Constant) and not math.isnan(value := evaluate(Power(base, exponent), ())):
            return Constant(value)
    return Power(base, exponent)


def call(function: str, argument: Expression) -> Expression:
    """Apply a named function; a constant argument is evaluated where the function is defined."""
    node = Call(function, argument)
    if isinstance(argument, Constant) and not math.isnan(value := evaluate(node, ())):
        return Constant(value)
    return node


def children(node: Expression) -> tuple[Expression, ...]:
    """The direct parts of a node."""
    match node:
        case Sum(terms):
            return terms
        case Product(factors):
            return factors
        case Power(base, exponent):
            return (base, exponent)
        case Call(_, argument):
            return (argument,)
        case _:
            return ()


def walk(node: Expression) -> Iterator[Expression]:
    """Every node of the tree, the root first."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(children(top))


def columns(node: Expression) -> frozenset[int]:
    """The columns that occur in the tree."""
    return frozenset(n.index for n in walk(node) if isinstance(n, Column))


def evaluate(node: Expression, values: Vector) -> float:
    """The value at a point; NaN where the expression is not defined there (log of a negative number, ...)."""
    try:
        return _evaluate(node, values)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan


def _evaluate(node: Expression, values: Vector) -> float:
    match node:
        case Constant(value):
            return value
        case Column(index):
            return float(values[index])
        case Sum(terms):
            return math.fsum(_evaluate(t, values) for t in terms)
        case Product(factors):
            return math.prod(_evaluate(f, values) for f in factors)
        case Power(base, exponent):
            value = _evaluate(base, values) ** _evaluate(exponent, values)
            if isinstance(value, complex):
                raise ValueError("A fractional power of a negative number.")
            return value
        case Call(function, argument):
            return FUNCTIONS[function](_evaluate(argument, values))
        case _:
            raise TypeError(f"Not an expression: {node!r}")


def rebuild(node: Expression, parts: Sequence[Expression]) -> Expression:
    """The same kind of node with other parts, simplified."""
    match node:
        case Sum():
            return add(*parts)
        case Product():
            return multiply(*parts)
        case Power():
            return power(*parts)
        case Call(function, _):
            return call(function, *parts)
        case _:
            return node


def substitute(node: Expression, replacement: Mapping[int, Expression]) -> Expression:
    """Put expressions in the place of columns."""
    if isinstance(node, Column):
        return replacement.get(node.index, node)
    parts = children(node)
    return rebuild(node, [substitute(p, replacement) for p in parts]) if parts else node


def differentiate(node: Expression, index: int) -> Expression:
    """The partial derivative with respect to one column.

    Raises:
        ValueError: for ``abs``, which has no derivative at zero.
    """
    match node:
        case Constant():
            return ZERO
        case Column(i):
            return ONE if i == index else ZERO
        case Sum(terms):
            return add(*(differentiate(t, index) for t in terms))
        case Product(factors):
            parts = [
                multiply(*factors[:i], d, *factors[i + 1 :])
                for i, f in enumerate(factors)
                if (d := differentiate(f, index)) != ZERO
            ]
            return add(*parts)
        case Power(base, exponent):
            parts = list[Expression]()
            db, de = differentiate(base, index), differentiate(exponent, index)
            if db != ZERO:
                parts.append(multiply(exponent, power(base, add(exponent, MINUS_ONE)), db))
            if de != ZERO:
                parts.append(multiply(node, call("log", base), de))
            return add(*parts)
        case Call(function, argument):
            da = differentiate(argument, index)
            return ZERO if da == ZERO else multiply(_derivative(function, argument), da)
        case _:
            raise TypeError(f"Not an expression: {node!r}")


def _derivative(function: str, u: Expression) -> Expression:
    one_minus_square = add(ONE, multiply(MINUS_ONE, power(u, TWO)))
    match function:
        case "exp":
            return call("exp", u)
        case "log":
            return power(u, MINUS_ONE)
        case "sqrt":
            return multiply(Constant(0.5), power(call("sqrt", u), MINUS_ONE))
        case "sin":
            return call("cos", u)
        case "cos":
            return multiply(MINUS_ONE, call("sin", u))
        case "tan":
            return power(call("cos", u), Constant(-2.0))
        case "asin":
            return power(one_minus_square, Constant(-0.5))
        case "acos":
            return multiply(MINUS_ONE, power(one_minus_square, Constant(-0.5)))
        case "atan":
            return power(add(ONE, power(u, TWO)), MINUS_ONE)
        case "sinh":
            return call("cosh", u)
        case "cosh":
            return call("sinh", u)
        case "tanh":
            return power(call("cosh", u), Constant(-2.0))
        case _:
            raise ValueError(f"{function}() has no derivative everywhere; rewrite it with a bound or an extra variable")


def text(node: Expression, names: Sequence[str]) -> str:
    """A readable rendering with the columns' names."""
    match node:
        case Constant(value):
            return f"{value:g}"
        case Column(index):
            return names[index]
        case Sum(terms):
            return "(" + " + ".join(text(t, names) for t in terms) + ")"
        case Product(factors):
            return "*".join(text(f, names) for f in factors)
        case Power(base, exponent):
            return f"{text(base, names)}^{text(exponent, names)}"
        case Call(function, argument):
            return f"{function}({text(argument, names)})"
        case _:
            raise TypeError(f"Not an expression: {node!r}")
