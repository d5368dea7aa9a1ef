"""Proofs of convexity over a box: by the rules of composition, or by intervals that contain every Hessian.

Source: Adjiman, Dallwig, Floudas and Neumaier (1998), A global optimization method, alphaBB, for bounds on the smallest
eigenvalue of an interval matrix (Gerschgorin's circles, and the midpoint's smallest eigenvalue less the radius's norm).
What cannot be proven is not known: neither way ever shows that a function is not convex.

A Hessian says nothing across a pole: it serves only where the function is defined all over the inside of the box. Its
entries are simplified (y times 1/y is 1) before they are bounded, and a box that is too large for a proof is halved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bilevel_core.program import Function, Variable, collect, positive_semidefinite
from bilevel_core.program import expression as ex
from bilevel_core.program.expression import Expression
from bilevel_core.traits.interval import AFFINE, CONSTANT, CONVEX, Box, Interval, function_range

MOST_COLUMNS = 20
"""Hessians of more columns are not written out."""
MOST_HALVED, MOST_PARTS = 6, 128
"""Boxes are halved where their Hessian depends on no more columns than this, into no more parts than this."""


def convex_over(f: Function, columns: Sequence[Variable], own: frozenset[int]) -> bool:
    """Whether a function is proven convex in the columns ``own``, for all values in the bounds of all columns.

    False means that no proof was found. A function with ``abs`` of own columns has no proof either: it has no
    derivative, and nothing here serves conditions that need one.
    """
    box = Box(columns, own)
    if f.nonlinear is not None and any(
        isinstance(n, ex.Call) and n.function == "abs" and ex.columns(n) & own for n in ex.walk(f.nonlinear)
    ):
        return False
    return _by_rules(f, box) or _by_hessian(f, box)


def _by_rules(f: Function, box: Box) -> bool:
    """The quadratic part convex by itself (products with parameters are linear), the nonlinear part by the rules."""
    order = sorted({i for pair in f.quadratic for i in pair if i in box.own})
    if order and not positive_semidefinite(f.hessian(order)):
        return False
    return f.nonlinear is None or box.shape(f.nonlinear)[0] in (CONSTANT, AFFINE, CONVEX)


def _by_hessian(f: Function, box: Box) -> bool:
    """A lower bound of the smallest eigenvalue of all Hessians over the box is not negative, part by part of it."""
    order = sorted(f.columns & box.own)
    if len(order) > MOST_COLUMNS or (f.nonlinear is not None and not defined_inside(f.nonlinear, box)):
        return False
    entries: dict[tuple[int, int], Function] = {}
    try:
        for a, i in enumerate(order):
            slope = f.partial(i)
            for b, j in enumerate(order[: a + 1]):
                if j in slope.columns:
                    entries[a, b] = _simplified(slope.partial(j))
    except ValueError:  # a function without a derivative
        return False
    halved = sorted(frozenset[int]().union(*(e.columns for e in entries.values())))
    most = MOST_PARTS if len(halved) <= MOST_HALVED else 1
    parts = [box.bounds]
    examined = 0
    while parts:
        bounds = parts.pop()
        examined += 1
        if _proven(entries, len(order), box.within(bounds)):
            continue
        widest = max(halved, key=lambda i: _width(bounds[i]), default=None)
        if widest is None or examined + len(parts) >= most or not 0.0 < _width(bounds[widest]) < math.inf:
            return False
        low, high = bounds[widest]
        for piece in ((low, 0.5 * (low + high)), (0.5 * (low + high), high)):
            parts.append([*bounds[:widest], piece, *bounds[widest + 1 :]])
    return True


def _width(at: Interval) -> float:
    return at[1] - at[0]


def _proven(entries: Mapping[tuple[int, int], Function], size: int, box: Box) -> bool:
    low, high = np.zeros((size, size)), np.zeros((size, size))
    for (a, b), entry in entries.items():
        low[a, b], high[a, b] = function_range(entry, box)
        low[b, a], high[b, a] = low[a, b], high[a, b]
    return not (np.isnan(low).any() or np.isnan(high).any()) and smallest_eigenvalue(low, high) >= 0.0


def defined_inside(node: Expression, box: Box) -> bool:
    """Whether an expression and its derivatives are defined at every inner point of the box.

    At the end of a domain (log at 0) an affine argument is on the boundary of the box; any other may be inside.
    """
    for n in ex.walk(node):
        match n:
            case ex.Call("log" | "sqrt", argument):
                domain: Interval = (0.0, math.inf)
            case ex.Call("asin" | "acos", argument):
                domain = (-1.0, 1.0)
            case ex.Call("tan", argument):
                turn = math.floor(box.shape(argument)[1][0] / math.pi + 0.5) if box.shape(argument)[1][0] > -1e9 else 0
                domain = ((turn - 0.5) * math.pi, (turn + 0.5) * math.pi)
            case ex.Power(argument, ex.Constant(p)) if p != math.floor(p):
                domain = (0.0, math.inf)
            case ex.Power(argument, ex.Constant(p)) if p < 0.0:
                at = box.shape(argument)[1]
                domain = (0.0, math.inf) if at[1] > 0.0 else (-math.inf, 0.0)
            case ex.Power(argument, exponent) if not isinstance(exponent, ex.Constant):
                domain = (0.0, math.inf)
            case _:
                continue
        kind, (low, high) = box.shape(argument)
        edge = kind in (AFFINE, CONSTANT)
        if not (low >= domain[0] if edge else low > domain[0] or low == -math.inf == domain[0]):
            return False
        if not (high <= domain[1] if edge else high < domain[1] or high == math.inf == domain[1]):
            return False
    return True


def _simplified(f: Function) -> Function:
    """The same where it is defined: powers of one base in a product become one power, like terms of a sum one term."""
    return f if f.nonlinear is None else replace(f, nonlinear=None) + collect(_merged(f.nonlinear))


def _merged(node: Expression) -> Expression:
    parts = [_merged(p) for p in ex.children(node)]
    node = ex.rebuild(node, parts) if parts else node
    if isinstance(node, ex.Call) and node.function == "sqrt":
        node = ex.power(node.argument, ex.Constant(0.5))
    if isinstance(node, ex.Power) and isinstance(node.base, ex.Power):
        inner, outer = node.base.exponent, node.exponent
        if isinstance(inner, ex.Constant) and isinstance(outer, ex.Constant) and _one_to_one(inner.value):
            return ex.power(node.base.base, ex.Constant(inner.value * outer.value))
    if isinstance(node, ex.Product):
        constant, powers = 1.0, dict[Expression, float]()
        others: list[Expression] = []
        for factor in node.factors:
            match factor:
                case ex.Constant(value):
                    constant *= value
                case ex.Power(base, ex.Constant(p)):
                    powers[base] = powers.get(base, 0.0) + p
                case ex.Power():
                    others.append(factor)
                case _:
                    powers[factor] = powers.get(factor, 0.0) + 1.0
        raised = [ex.power(base, ex.Constant(p)) for base, p in powers.items() if p]
        return ex.multiply(ex.Constant(constant), *raised, *others)
    if isinstance(node, ex.Sum):
        terms: dict[Expression, float] = {}
        for term in node.terms:
            factor, body = _split(term)
            terms[body] = terms.get(body, 0.0) + factor
        return ex.add(*(ex.multiply(ex.Constant(c), body) for body, c in terms.items() if c))
    return node


def _one_to_one(p: float) -> bool:
    """Whether u is found again from u ** p, so that (u ** p) ** q is u ** (p q): p odd or, for u >= 0, not whole."""
    return p % 2.0 == 1.0 or p != math.floor(p)


def _split(term: Expression) -> tuple[float, Expression]:
    if isinstance(term, ex.Constant):
        return term.value, ex.ONE
    if isinstance(term, ex.Product) and isinstance(term.factors[0], ex.Constant):
        return term.factors[0].value, ex.multiply(*term.factors[1:])
    return 1.0, term


def smallest_eigenvalue(low: np.ndarray, high: np.ndarray) -> float:
    """A lower bound of the eigenvalues of all symmetric matrices between two, each of shape (n, n).

    The better of Gerschgorin's circles and the midpoint's smallest eigenvalue less the radius's spectral norm. Entries
    may be infinite. Of a single matrix that is semidefinite up to its own rounding the bound is 0.
    """
    if low.size == 0:
        return 0.0
    reach = np.maximum(np.abs(low), np.abs(high))
    off = np.where(np.eye(len(reach), dtype=bool), 0.0, reach).sum(axis=1)
    bound = -math.inf
    if np.isfinite(off).all():
        bound = float((np.diag(low) - off).min())
    if np.isfinite(reach).all() and reach.max() < 1e100:
        middle, radius = 0.5 * (low + high), 0.5 * (high - low)
        exact = float(np.linalg.eigvalsh(middle)[0] - np.linalg.norm(radius, 2))
        if exact < 0.0 and not radius.any() and positive_semidefinite(middle):
            exact = 0.0
        bound = max(bound, exact)
    return bound
