"""Whether a function's slopes are finite wherever the function has a value, over a box.

Where they are not, as with ``sqrt(y)`` at 0, a point may be optimal without satisfying any condition on gradients:
reformulations by optimality conditions lose it, linear constraints or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bilevel_core.program import Function, Variable
from bilevel_core.program import expression as ex
from bilevel_core.program.expression import Expression
from bilevel_core.traits.interval import Box, Interval


def finite_slopes(f: Function, columns: Sequence[Variable], own: frozenset[int]) -> bool:
    """Whether every derivative by a column of ``own`` is proven finite wherever f is, within the columns' bounds.

    A function that is itself infinite at the edge of its domain, as ``-log(y)`` or ``1 / y`` at 0, may have infinite
    slopes there: no answer lies there.
    """
    return f.nonlinear is None or _term(f.nonlinear, Box(columns, own))


def _term(node: Expression, box: Box) -> bool:
    """For an expression or a term of it, whose value is infinite when that of its one singular part is."""
    if ex.columns(node).isdisjoint(box.own):
        return True
    match node:
        case ex.Sum(terms):
            return all(_term(t, box) for t in terms)
        case ex.Product(factors):
            rough = [k for k in factors if not _inner(k, box)]
            if not rough:
                return True
            others = [k for k in factors if k is not rough[0]]
            return (
                len(rough) == 1
                and _repels(rough[0], box)
                and all(not low <= 0.0 <= high and math.isfinite(high - low) for low, high in _ranges(others, box))
            )
        case _:
            return _inner(node, box) or _repels(node, box)


def _ranges(nodes: Sequence[Expression], box: Box) -> list[Interval]:
    return [box.shape(n)[1] for n in nodes]


def _repels(node: Expression, box: Box) -> bool:
    """Whether a function is infinite where its argument leaves its domain, the argument itself being smooth."""
    match node:
        case ex.Call("log", argument):
            return _inner(argument, box)
        case ex.Power(base, ex.Constant(p)):
            return p < 0.0 and _inner(base, box)
        case _:
            return False


def _inner(node: Expression, box: Box) -> bool:
    """Whether an expression's slopes are finite all over the box, its edge included."""
    if ex.columns(node).isdisjoint(box.own):
        return True
    match node:
        case ex.Column(_):
            return True
        case ex.Sum(parts) | ex.Product(parts):
            return all(_inner(p, box) for p in parts)
        case ex.Power(base, ex.Constant(p)):
            low, high = box.shape(base)[1]
            whole = p == math.floor(p)
            fine = p >= 1.0 or low > 0.0 or (whole and (high < 0.0 or p >= 0.0))
            return fine and _inner(base, box)
        case ex.Power(base, exponent):
            return box.shape(base)[1][0] > 0.0 and _inner(base, box) and _inner(exponent, box)
        case ex.Call(function, argument):
            return _inner(argument, box) and _smooth(function, box.shape(argument)[1])
        case _:
            return False


def _smooth(function: str, at: Interval) -> bool:
    low, high = at
    match function:
        case "log" | "sqrt":
            return low > 0.0
        case "asin" | "acos":
            return low > -1.0 and high < 1.0
        case "tan":
            return low > -math.pi / 2 and high < math.pi / 2
        case "abs":
            return low > 0.0 or high < 0.0
        case _:
            return True
