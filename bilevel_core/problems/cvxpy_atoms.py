"""CVXPY's smooth atoms as `Function`s: exact wherever they stand, convex or not.

Piecewise linear atoms and norms need columns of their own; see `cvxpy_translate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bilevel_core.program import Function, collect, total
from bilevel_core.program import expression as ex

Functions = list[Function]


def _call(name: str, f: Function) -> Function:
    return collect(ex.call(name, f.expression()))


def power(f: Function, exponent: float) -> Function:
    """``f ** exponent``, with coefficients where that is a polynomial of degree two."""
    return collect(ex.power(f.expression(), ex.Constant(exponent)))


def inverse(f: Function) -> Function:
    """``1 / f``."""
    return power(f, -1.0)


def square_sum(functions: Sequence[Function]) -> Function:
    """The sum of squares."""
    return total(f.times(f) if f.degree <= 1 else power(f, 2.0) for f in functions)


def _logarithm_ratio(x: Function, y: Function) -> Function:
    """``x log(x / y)``, written as a product with one logarithm."""
    ratio = x.scaled(1.0 / y.constant) if y.degree == 0 else x.times(inverse(y))
    return x.times(_call("log", ratio))


UNARY: dict[str, Callable[[Function], Function]] = {
    "exp": lambda f: _call("exp", f),
    "log": lambda f: _call("log", f),
    "log1p": lambda f: _call("log", f + 1.0),
    "logistic": lambda f: _call("log", _call("exp", f) + 1.0),
    "entr": lambda f: -f.times(_call("log", f)),
    "xexp": lambda f: f.times(_call("exp", f)),
}
LEAST = {"log": 0.0, "log1p": -1.0, "entr": 0.0, "xexp": 0.0}
"""Where an atom's argument must not be below this."""
OPEN = ("log", "log1p")
"""Those of them that have no value at that end."""
BINARY: dict[str, Callable[[Function, Function], Function]] = {
    "kl_div": lambda x, y: total([_logarithm_ratio(x, y), -x, y]),
    "rel_entr": _logarithm_ratio,
}
POWERS = ("Power", "PowerApprox", "power")


def lanes(shape: tuple[int, ...], axis: Any) -> list[list[int]]:
    """Which entries (column-major numbers) of an argument go into each entry of an atom that reduces along ``axis``."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape, order="F")
    if axis is None:
        return [numbers.flatten(order="F").tolist()]
    axes = axis if isinstance(axis, tuple) else (axis,)
    count = len(axes)
    front = np.moveaxis(numbers, axes, range(count))
    block = front.reshape((int(np.prod(front.shape[:count])), -1), order="F")
    return [block[:, k].tolist() for k in range(block.shape[1])]


def reduced(expression: Any, of: Callable[[Functions], Function], argument: Functions) -> Functions:
    """Apply a reduction lane by lane."""
    groups = lanes(expression.args[0].shape, getattr(expression, "axis", None))
    return [of([argument[i] for i in group]) for group in groups]


def log_sum_exp(functions: Functions) -> Function:
    """``log(sum exp f)``."""
    return _call("log", total(_call("exp", f) for f in functions))


def quad_form(x: Functions, matrix: np.ndarray) -> Function:
    """``x' P x`` for a constant matrix."""
    rows, columns = np.nonzero(matrix)
    return total(x[i].times(x[j]).scaled(float(matrix[i, j])) for i, j in zip(rows, columns, strict=True))


def geometric_mean(functions: Functions, weights: Sequence[float]) -> Function:
    """The product of powers."""
    factors = [power(f, float(w)).expression() for f, w in zip(functions, weights, strict=True) if w]
    return collect(ex.multiply(*factors))


def absolute(f: Function) -> Function:
    """``|f|`` as an expression."""
    return _call("abs", f)


def broadcast(a: Functions, b: Functions, shapes: Sequence[tuple[int, ...]]) -> tuple[Functions, Functions]:
    """Two arrays stretched to one shape, as NumPy does it."""
    out = np.broadcast_arrays(*(_array(f, s) for f, s in zip((a, b), shapes, strict=True)))
    return list(out[0].flatten(order="F")), list(out[1].flatten(order="F"))


def matrix_product(a: Functions, b: Functions, shapes: Sequence[tuple[int, ...]]) -> Functions:
    """``a @ b`` for vectors and matrices."""
    left, right = (_array(f, s) for f, s in zip((a, b), shapes, strict=True))
    left = left.reshape(1, -1) if left.ndim == 1 else left
    right = right.reshape(-1, 1) if right.ndim == 1 else right
    return [
        total(u.times(v) for u, v in zip(left[i, :], right[:, j], strict=True))
        for j in range(right.shape[1])
        for i in range(left.shape[0])
    ]


def _array(functions: Functions, shape: tuple[int, ...]) -> Any:
    out = np.empty(len(functions), dtype=object)
    out[:] = functions
    return out.reshape(shape, order="F")
