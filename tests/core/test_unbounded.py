"""Objectives without end are told apart from optima, in every exact mode, also where one hidden piece has a ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.program import Function, Program, Row, Variable
from bilevel_core.solvers.unbounded import floor, improving, ray

EXACT = ("sos1", "indicator", "bigm", "strong-duality")


def model(x: dict[str, Any], y: dict[str, Any]) -> Any:
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(**x), pyo.Var(**y)
    return m


def indifferent() -> Any:
    """At x = 3 the follower does not care for y, which has no lower bound: the leader's x + 2 y falls without end."""
    m = model({"bounds": (0, 4)}, {"bounds": (None, 5)})
    m.f.c = pyo.Constraint(expr=m.x + 2 * m.f.y <= 3)
    m.f.o = pyo.Objective(expr=(m.x - 3) * m.f.y)
    m.o = pyo.Objective(expr=m.x + 2 * m.f.y)
    return m


def free_integer() -> Any:
    m = model({"domain": pyo.Integers}, {})
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.o = pyo.Objective(expr=m.f.y)
    return m


def concave_leader() -> Any:
    m = model({}, {})
    m.f.o = pyo.Objective(expr=(m.f.y - m.x) ** 2)
    m.o = pyo.Objective(expr=-m.f.y * m.x)
    return m


def product() -> Any:
    m = model({"bounds": (0, None)}, {"bounds": (0, None)})
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.o = pyo.Objective(expr=-m.x * m.f.y)
    return m


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("build", [indifferent, free_integer, concave_leader, product])
def test_no_lower_bound_is_told(build: Any, mode: str) -> None:
    r = bl.solve(build(), solver="kkt", options={"complementarity": mode}, time_limit=20)
    assert r.status == "unbounded", (r.status, r.upper_objective, r.message)


@pytest.mark.parametrize("mode", EXACT)
def test_an_optimum_beyond_every_probe_is_found(mode: str) -> None:
    """Leader min 2 y - x over y >= x - 1e10, y <= 2 x, follower min y: at x = 1e10, y = 0 the optimum -1e10."""
    m = model({"bounds": (0, None)}, {"bounds": (0, None)})
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x - 1e10)
    m.f.d = pyo.Constraint(expr=m.f.y <= 2 * m.x)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.o = pyo.Objective(expr=2 * m.f.y - m.x)
    r = bl.solve(m, solver="kkt", options={"complementarity": mode}, time_limit=20)
    assert r.upper_objective == pytest.approx(-1e10, rel=1e-6)


def tiny(seed: int) -> tuple[Any, bool]:
    """A random problem with a free y and a bilinear follower, and whether brute force over its pieces finds a ray.

    The follower min (x + d) y s.t. a_i x + b_i y <= c_i has y free: its pieces are those of its multipliers' supports.
    """
    rng = np.random.default_rng(seed)
    a, b, c = rng.integers(-2, 3, 2), rng.choice([-2, -1, 1, 2], 2), rng.integers(-2, 5, 2)
    d, u, v = int(rng.integers(-4, 1)), int(rng.integers(-4, 5)), int(rng.choice([-3, -2, -1, 1, 2, 3]))
    m = model({"bounds": (0, 4)}, {})
    m.f.c = pyo.ConstraintList()
    for i in range(2):
        m.f.c.add(int(a[i]) * m.x + int(b[i]) * m.f.y <= int(c[i]))
    m.f.o = pyo.Objective(expr=(m.x + d) * m.f.y)
    m.o = pyo.Objective(expr=u * m.x + v * m.f.y)
    # x + d + sum b_i l_i = 0. A ray needs y to run away at a fixed x (x is bounded): all its rows loosen on the way,
    # so no multiplier is positive, and x = -d, where the rows leave y free in the direction that the leader likes.
    y = -np.sign(v)
    endless = 0 <= -d <= 4 and all(b[i] * y < 0 for i in range(2))
    return m, bool(endless)


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("seed", range(16))
def test_random_followers_with_a_free_column(seed: int, mode: str) -> None:
    m, endless = tiny(seed)
    r = bl.solve(m, solver="kkt", options={"complementarity": mode}, time_limit=20)
    assert (r.status == "unbounded") == endless, (r.status, r.termination, r.upper_objective, r.message)


def test_floors_are_proven_by_intervals_and_programs() -> None:
    free, some = Variable("x"), Variable("y", 0.0, 3.0)
    row = Row("r", Function(linear={0: 1.0, 1: 1.0}), lower=1.0, upper=5.0)

    def of(f: Function, *rows: Row) -> float:
        return floor(Program((free, some), f, rows), lambda: None)

    assert of(Function(linear={0: 1.0})) == -np.inf
    assert of(Function(2.0, linear={1: -2.0})) == -4.0
    assert of(Function(linear={0: 1.0}), row) == pytest.approx(-2.0)
    assert of(Function(quadratic={(0, 1): 1.0}), row) == pytest.approx(-6.0)  # x in [-2, 5] times y in [0, 3]


def test_rays_of_pieces() -> None:
    x, y = Variable("x", 0.0, integer=True), Variable("y", 0.0)
    tied = Row("tied", Function(linear={0: 1.0, 1: -1.0}), 0.0, 0.0)
    falls, rises = Function(linear={0: 1.0, 1: -2.0}), Function(linear={0: 2.0, 1: -1.0})
    assert ray(Program((x, y), falls, (tied,)), np.array([3.0, 3.0]))
    assert not ray(Program((x, y), rises, (tied,)), np.array([3.0, 3.0]))
    assert not ray(Program((x, y), falls, (tied,), ((0, 1),)), np.zeros(2))  # of the pair one stays at zero
    assert improving(Program((x, y), Function(quadratic={(0, 1): -1.0}), (tied,)))
    assert not improving(Program((x, y), Function(quadratic={(0, 1): 1.0}), (tied,)))
