"""Ranges of polynomials over the bounds of their columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bilevel_core.program.function import Function
from bilevel_core.program.program import Variable

Interval = tuple[float, float]


def multiply(a: Interval, b: Interval) -> Interval:
    """Products of two ranges; zero times infinity is zero."""
    corners = [0.0 if u == 0.0 or v == 0.0 else u * v for u in a for v in b]
    return min(corners), max(corners)


def square(a: Interval) -> Interval:
    """Squares of a range."""
    ends = multiply((a[0], a[0]), (a[0], a[0]))[0], multiply((a[1], a[1]), (a[1], a[1]))[0]
    return (0.0 if a[0] <= 0.0 <= a[1] else min(ends)), max(ends)


def polynomial_range(f: Function, box: Sequence[Interval] | Mapping[int, Interval]) -> Interval:
    """The range of the constant, linear and quadratic part, term by term: exact for linear functions.

    Args:
        f: whose nonlinear part is left out.
        box: (lowest, highest) of each column.
    """
    low = high = f.constant
    for i, c in f.linear.items():
        a, b = multiply((c, c), box[i])
        low, high = low + a, high + b
    for (i, j), c in f.quadratic.items():
        a, b = multiply((c, c), square(box[i]) if i == j else multiply(box[i], box[j]))
        low, high = low + a, high + b
    return low, high


def function_range(f: Function, columns: Sequence[Variable]) -> Interval:
    """The range of a function over the columns' bounds; infinite where it has a nonlinear part."""
    if f.nonlinear is not None:
        return -math.inf, math.inf
    return polynomial_range(f, {i: (columns[i].lower, columns[i].upper) for i in f.columns})
