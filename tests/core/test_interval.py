"""Proofs of convexity over a box: what is proven is convex, and intervals contain what they bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.program import Variable, collect
from bilevel_core.program import expression as ex
from bilevel_core.program.ranges import multiply
from bilevel_core.traits.interval import Box, call_range, power_range
from bilevel_core.traits.proof import convex_over, smallest_eigenvalue


def kind(objective: Any, *, x: tuple[float, float] = (1, 2), y: tuple[Any, Any] = (-1, 2), row: Any = None) -> str:
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=x)
    m.f = bl.Follower()
    m.f.y, m.f.z = pyo.Var(bounds=y), pyo.Var(bounds=y)
    m.o = pyo.Objective(expr=m.x)
    m.f.o = pyo.Objective(expr=objective(m.x, m.f.y, m.f.z))
    if row is not None:
        m.f.r = pyo.Constraint(expr=row(m.x, m.f.y, m.f.z))
    f = bl.classify(m).traits.followers[0]
    return f.objective if row is None else f.constraints


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y, z: pyo.exp(y + z - x) - x * y,
        lambda x, y, z: x**3 * (y - z) ** 2 + y**4,
        lambda x, y, z: -pyo.log(y + 3) + pyo.sqrt(x) * z**2,
        lambda x, y, z: 1 / (y + 2) + pyo.exp((y - z) ** 2),
        lambda x, y, z: (y**2 + z**2 + 1) ** 1.5,
        lambda x, y, z: -pyo.sqrt(y + 3) + x**y,
        lambda x, y, z: pyo.exp(y) - 0.005 * y**4 + z**2,  # by the Hessian only
        lambda x, y, z: 3 * y**2 + 3 * z**2 + pyo.sin(y) * z / 4,  # by the Hessian only
    ],
)
def test_convex(f: Any) -> None:
    assert kind(f) == "convex"


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y, z: pyo.log(y + 3),
        lambda x, y, z: y**3,
        lambda x, y, z: 1 / y + z,
        lambda x, y, z: pyo.sin(y) + z,
        lambda x, y, z: pyo.exp(y) * z,
        lambda x, y, z: (x - 1.5) * pyo.exp(y) + z,
        lambda x, y, z: pyo.exp(-(y**2)) + z,
        lambda x, y, z: pyo.exp(y) - y**4,
    ],
)
def test_not_proven(f: Any) -> None:
    assert kind(f) == "nonlinear"


def test_bounds_of_the_leader_decide() -> None:
    assert kind(lambda x, y, z: x**3 * pyo.exp(y) + z, x=(0, 1)) == "convex"
    assert kind(lambda x, y, z: x**3 * pyo.exp(y) + z, x=(-1, 1)) == "nonlinear"
    assert kind(lambda x, y, z: pyo.exp(y) + z, y=(None, None)) == "convex"


def test_sides_of_rows() -> None:
    linear: Any = lambda x, y, z: y  # noqa: E731
    assert kind(linear, row=lambda x, y, z: pyo.log(y + 2) >= z) == "convex"
    assert kind(linear, row=lambda x, y, z: pyo.log(y + 2) <= z) == "nonlinear"
    assert kind(linear, row=lambda x, y, z: pyo.exp(y) == x + 0 * z) == "nonlinear"


@pytest.mark.parametrize("p", [-3.0, -2.0, -1.0, -0.5, 0.5, 1.5, 2.0, 3.0, 4.0])
def test_ranges_of_powers_contain_their_values(p: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        low, high = sorted(rng.uniform(-3, 3, 2))
        found = power_range((low, high), p)
        for u in np.linspace(low, high, 31):
            if (u < 0 and p != math.floor(p)) or u == 0:
                continue
            assert found[0] - 1e-9 * abs(u**p) <= u**p <= found[1] + 1e-9 * abs(u**p)


@pytest.mark.parametrize("name", sorted(ex.FUNCTIONS))
def test_ranges_of_functions_contain_their_values(name: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(200):
        low, high = sorted(rng.uniform(-3, 3, 2))
        found = call_range(name, (low, high))
        for u in np.linspace(low, high, 31):
            value = ex.evaluate(ex.Call(name, ex.Constant(float(u))), ())
            assert math.isnan(value) or found[0] - 1e-12 <= value <= found[1] + 1e-12


def test_products_with_zero_and_infinity() -> None:
    assert multiply((0.0, 1.0), (-math.inf, 2.0)) == (-math.inf, 2.0)
    assert multiply((0.0, 0.0), (-math.inf, math.inf)) == (0.0, 0.0)
    box = Box([Variable("x"), Variable("y", 0.0)], frozenset({1}))
    assert box.shape(ex.Call("exp", ex.Column(0)))[1] == (0.0, math.inf)


def test_eigenvalue_bounds_hold_for_every_matrix_between() -> None:
    rng = np.random.default_rng(9)
    for _ in range(50):
        a = rng.normal(size=(4, 4))
        radius = rng.uniform(0, 0.5, (4, 4))
        a, radius = a @ a.T, radius + radius.T
        bound = smallest_eigenvalue(a - radius, a + radius)
        for _ in range(20):
            t = rng.uniform(-1, 1, (4, 4))
            t = np.tril(t) + np.tril(t, -1).T
            assert np.linalg.eigvalsh(a + t * radius)[0] >= bound - 1e-9
    assert smallest_eigenvalue(np.array([[0.0]]), np.array([[math.inf]])) == 0.0
    assert smallest_eigenvalue(np.full((2, 2), 0.0), np.full((2, 2), math.inf)) == -math.inf


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y, z: y * pyo.log(y) + z * pyo.log(z) + y,  # its second derivative is 1 / y
        lambda x, y, z: y**1.5 * pyo.sqrt(y) * y**0.5 + z,  # y^2.5
        lambda x, y, z: x * y * pyo.log(y) + z * x,
    ],
)
def test_second_derivatives_are_simplified(f: Any) -> None:
    assert kind(f, y=(1e-3, 5)) == "convex"
    assert kind(f, y=(0, 5)) == "convex"
    assert kind(lambda x, y, z: -f(x, y, z), y=(1e-3, 5)) == "nonlinear"


def test_boxes_are_halved_until_there_is_a_proof() -> None:
    # 12 y^2 - 6 y + 2 is at least 5/4.
    assert kind(lambda x, y, z: y**4 - y**3 + y**2 + z, y=(-1, 5)) == "convex"
    assert kind(lambda x, y, z: y**4 - 2 * y**3 + y**2 + z, y=(-1, 5)) == "nonlinear"


@pytest.mark.parametrize(
    ("f", "outside"),
    [
        (lambda x, y, z: (y - 1) ** (-2) + z, (2, 5)),
        (lambda x, y, z: 1 / (y - 1) ** 2 + z, None),
        (lambda x, y, z: 1 / (y**2 - 1) + z, (2, 5)),
        (lambda x, y, z: -pyo.log(pyo.sqrt((y - 1) ** 2)) + z, None),
        (lambda x, y, z: pyo.tan(y) + z, (0.1, 1)),
    ],
)
def test_nothing_is_proven_across_a_pole(f: Any, outside: tuple[float, float] | None) -> None:
    assert kind(f, y=(-1, 5)) == "nonlinear"
    assert outside is None or kind(f, y=outside) == "convex"


def _random(rng: np.random.Generator, depth: int) -> ex.Expression:
    if depth == 0:
        return ex.Column(int(rng.integers(3))) if rng.random() < 0.75 else ex.Constant(float(rng.choice([-1, 0.5, 2])))
    at = rng.random()
    if at < 0.3:
        return ex.add(_random(rng, depth - 1), _random(rng, depth - 1))
    if at < 0.55:
        return ex.multiply(_random(rng, depth - 1), _random(rng, depth - 1))
    if at < 0.8:
        p = float(rng.choice([2.0, 3.0, 4.0, -1.0, -2.0, 0.5, 1.5, -0.5]))
        return ex.power(_random(rng, depth - 1), ex.Constant(p))
    name = str(rng.choice(["exp", "log", "sqrt", "sin", "tan", "tanh", "atan", "sinh", "cosh"]))
    return ex.call(name, _random(rng, depth - 1))


def test_what_is_proven_is_convex_on_random_lines() -> None:
    rng = np.random.default_rng(12)
    proven = 0
    for _ in range(300):
        f = collect(_random(rng, int(rng.integers(2, 4))))
        low = rng.choice([-2.0, -1.0, 0.0, 0.5, 1.0], 3)
        high = low + rng.choice([0.5, 1.0, 2.0, 4.0], 3)
        columns = [Variable(f"v{k}", float(a), float(b)) for k, (a, b) in enumerate(zip(low, high, strict=True))]
        if f.columns.isdisjoint({0, 1}) or f.degree <= 1 or not convex_over(f, columns, frozenset({0, 1})):
            continue
        proven += 1
        for _ in range(30):
            u, v = rng.uniform(low, high), rng.uniform(low, high)
            v[2] = u[2]
            # The second difference; where a function has no value is the outside of its domain, which is convex.
            ends, middle = (f.evaluate(u), f.evaluate(v)), f.evaluate(0.5 * (u + v))
            if not any(map(math.isnan, ends)):
                assert sum(ends) - 2.0 * middle >= -1e-9 * max(1.0, *map(abs, ends)), f.text("abp")
    assert proven >= 20
