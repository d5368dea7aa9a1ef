"""Iterative solvers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from bilevel_core.errors import unknown
from bilevel_core.linear.base import Product, Solution, Vector
from bilevel_core.linear.cg import cg
from bilevel_core.linear.minres import minres
from bilevel_core.linear.nystrom import nystrom
from bilevel_core.linear.stationary import fixed_point, neumann

METHODS: dict[str, Callable[..., Solution]] = {
    "cg": cg,
    "minres": minres,
    "neumann": neumann,
    "nystrom": nystrom,
    "fixed-point": fixed_point,
}


def solve(product: Product, b: Vector, method: str = "cg", **options: Any) -> Solution:
    """Solve ``A v = b`` with the method of this name.

    Args:
        product: v -> A v.
        b: right-hand side, shape (n,).
        method: ``cg``, ``minres``, ``neumann``, ``nystrom`` or ``fixed-point``.
        options: of the function of that name.

    Raises:
        UsageError: there is no such method, or it has no such option.
        NonFiniteProductError: a product or b is NaN or infinite.
    """
    if method not in METHODS:
        raise unknown("linear solver", method, METHODS)
    function = METHODS[method]
    known = [name for name in inspect.signature(function).parameters if name not in ("product", "b")]
    for name in options:
        if name not in known:
            raise unknown(f"option of the linear solver {method!r}", name, known)
    return function(product, b, **options)
