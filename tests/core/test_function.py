"""Functions and expressions: algebra, derivatives, fixing, printing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevel_core.program import Function, collect, linear, total
from bilevel_core.program import expression as ex

WIDTH = 3
numbers = st.floats(-3, 3).map(lambda v: round(v, 3))
points = st.lists(st.floats(0.2, 2.0), min_size=WIDTH, max_size=WIDTH).map(np.array)


@st.composite
def functions(draw: st.DrawFn) -> Function:
    lin = draw(st.dictionaries(st.integers(0, WIDTH - 1), numbers, max_size=WIDTH))
    pairs = st.tuples(st.integers(0, WIDTH - 1), st.integers(0, WIDTH - 1)).map(lambda p: (min(p), max(p)))
    quad = draw(st.dictionaries(pairs, numbers, max_size=4))
    return Function(draw(numbers), {k: v for k, v in lin.items() if v}, {k: v for k, v in quad.items() if v})


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> ex.Expression:
    if depth == 0:
        return draw(st.one_of(st.integers(0, WIDTH - 1).map(ex.Column), numbers.map(ex.Constant)))
    below = expressions(depth=depth - 1)
    kind = draw(st.sampled_from(["sum", "product", "power", "exp", "log", "sin", "cos", "sqrt", "atan", "tanh"]))
    if kind == "sum":
        return ex.add(draw(below), draw(below))
    if kind == "product":
        return ex.multiply(draw(below), draw(below))
    if kind == "power":
        return ex.power(draw(below), ex.Constant(float(draw(st.integers(-2, 3)))))
    return ex.Call(kind, draw(below))


def finite_difference(f, at: np.ndarray, i: int, h: float = 1e-6) -> float:
    up, down = at.copy(), at.copy()
    up[i] += h
    down[i] -= h
    return (f(up) - f(down)) / (2 * h)


@given(functions(), functions(), points)
def test_sums_and_products_are_exact(f: Function, g: Function, at: np.ndarray) -> None:
    assert (f + g).evaluate(at) == pytest.approx(f.evaluate(at) + g.evaluate(at), abs=1e-9)
    assert (f - g).evaluate(at) == pytest.approx(f.evaluate(at) - g.evaluate(at), abs=1e-9)
    assert f.times(g).evaluate(at) == pytest.approx(f.evaluate(at) * g.evaluate(at), rel=1e-9, abs=1e-9)
    assert total([f, g, f]).evaluate(at) == pytest.approx(2 * f.evaluate(at) + g.evaluate(at), abs=1e-9)


@given(functions(), points, st.integers(0, WIDTH - 1))
def test_partial_derivatives_of_polynomials(f: Function, at: np.ndarray, i: int) -> None:
    assert f.partial(i).evaluate(at) == pytest.approx(finite_difference(f.evaluate, at, i), abs=1e-5)


@settings(max_examples=300)
@given(expressions(), points, st.integers(0, WIDTH - 1))
def test_derivatives_of_expressions(node: ex.Expression, at: np.ndarray, i: int) -> None:
    def value(p: np.ndarray) -> float:
        return ex.evaluate(node, p)

    near = [value(at + s) for s in (-1e-3, 0.0, 1e-3)]
    if not all(math.isfinite(v) and abs(v) < 1e3 for v in near):
        return
    slope = ex.evaluate(ex.differentiate(node, i), at)
    numeric = finite_difference(value, at, i, 1e-5)
    if math.isfinite(slope) and abs(slope) < 1e3 and math.isfinite(numeric):
        again = finite_difference(value, at, i, 5e-6)
        if abs(again - numeric) < 1e-3 * max(1.0, abs(numeric)):  # smooth enough here to tell
            assert slope == pytest.approx(again, rel=2e-3, abs=2e-3)


@given(expressions(), points)
def test_collecting_keeps_the_value(node: ex.Expression, at: np.ndarray) -> None:
    value = ex.evaluate(node, at)
    if math.isfinite(value) and abs(value) < 1e6:
        try:
            collected = collect(node)
        except (ValueError, ZeroDivisionError, OverflowError):
            return  # a constant part without a value
        assert collected.evaluate(at) == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)


@given(functions(), points, st.integers(0, WIDTH - 1))
def test_fixing_a_column(f: Function, at: np.ndarray, i: int) -> None:
    fixed = f.fix({i: float(at[i])})
    assert i not in fixed.columns
    assert fixed.evaluate(at) == pytest.approx(f.evaluate(at), abs=1e-9)


def test_a_cubic_becomes_quadratic_when_a_factor_is_fixed() -> None:
    # 0.5 x y^2 - x^3 y, the follower of Mitsos and Barton 3.13
    x, y = ex.Column(0), ex.Column(1)
    f = collect(
        ex.add(
            ex.multiply(ex.Constant(0.5), x, ex.power(y, ex.TWO)),
            ex.multiply(ex.MINUS_ONE, ex.power(x, ex.Constant(3.0)), y),
        )
    )
    assert f.degree == math.inf
    at_x = f.fix({0: 0.5})
    assert at_x.degree == 2
    assert at_x.quadratic == {(1, 1): 0.25}
    assert at_x.linear == {1: pytest.approx(-0.125)}


def test_undefined_values_are_nan_not_an_exception() -> None:
    assert math.isnan(ex.evaluate(ex.Call("log", ex.Column(0)), [-1.0]))
    assert math.isnan(ex.evaluate(ex.Power(ex.Column(0), ex.MINUS_ONE), [0.0]))
    root = ex.Power(ex.Column(0), ex.Constant(0.5))
    assert math.isnan(ex.evaluate(root, [-1.0]))
    # also inside: Python's power of a negative number is complex, which sums and functions do not take
    for node in (ex.add(root, ex.Call("exp", ex.Column(0))), ex.Call("exp", root), ex.multiply(root, root)):
        assert math.isnan(ex.evaluate(node, [-1.0]))


def test_text() -> None:
    f = Function(-1.0, {0: 2.0, 1: -1.0}, {(0, 1): 3.0, (1, 1): -1.0})
    assert f.text(["x", "y"]) == "2 x - y + 3 x*y - y^2 - 1"
    assert Function().text([]) == "0"
    assert linear({0: 1.0, 1: 0.0}).linear == {0: 1.0}


def test_abs_has_no_derivative() -> None:
    with pytest.raises(ValueError, match="abs"):
        ex.differentiate(ex.Call("abs", ex.Column(0)), 0)


def test_fractional_powers_of_negative_numbers_are_undefined_inside_other_terms() -> None:
    root = ex.Power(ex.Column(0), ex.Constant(1.5))
    for node in (root, ex.Sum((root, ex.Call("exp", ex.Column(0)))), ex.Call("exp", root), ex.Product((root, root))):
        assert math.isnan(ex.evaluate(node, [-1.0]))
        assert not math.isnan(ex.evaluate(node, [1.0]))
