"""Derivatives of the algebraic oracle against finite differences, and what it says of a problem."""

from __future__ import annotations

import math

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.errors import RefusedError
from bilevel_core.oracles import NonFiniteError, make_oracle
from bilevel_core.oracles.algebraic import AlgebraicOracle

from .models import bard_511, quadratic_follower

STEP = 1e-6


def nonlinear_model(seed: int) -> pyo.ConcreteModel:
    """Two independent followers with 2 and 1 variables, every function of the core, ranges, equalities, bounds.

    The followers' variables are declared in turn with the leader's, so columns are not in order.
    """
    rng = np.random.default_rng(seed)
    c = [float(v) for v in rng.uniform(0.5, 1.5, 30)]
    m = pyo.ConcreteModel(name=f"random{seed}")
    m.first = bl.Follower()
    m.first.y = pyo.Var([0, 1], bounds=(-3, 4))
    m.x = pyo.Var([0, 1, 2], bounds=(0.1, 2))
    m.second = bl.Follower()
    m.second.z = pyo.Var(bounds=(None, 5))
    x, y, z = m.x, m.first.y, m.second.z
    m.objective = pyo.Objective(
        expr=c[0] * pyo.exp(0.3 * y[0] * x[0])
        + c[1] * pyo.sin(x[1] * z)
        + x[2] ** 2.5 / (1 + y[1] ** 2)
        - c[2] * z * y[0],
        sense=pyo.maximize,
    )
    m.rows = pyo.ConstraintList()
    m.rows.add(pyo.inequality(-1.0, x[0] * y[0] + pyo.cos(z), 2.0))
    m.rows.add(x[0] + pyo.tanh(x[1]) * y[1] == c[3])
    m.rows.add(pyo.log(x[2]) + c[4] * x[0] >= -5.0)
    m.first.objective = pyo.Objective(
        expr=c[5] * y[0] ** 4
        + (y[1] - x[0]) ** 2
        + c[6] * pyo.sqrt(x[1] + y[0] ** 2)
        + y[0] * y[1] * x[2]
        + pyo.atan(y[1] * x[1])
    )
    m.first.rows = pyo.ConstraintList()
    m.first.rows.add(pyo.inequality(-4.0, y[0] * x[0] + c[7] * y[1] ** 3, 5.0))
    m.first.rows.add(pyo.exp(y[0]) + x[1] * y[1] <= c[8] * 9.0)
    m.first.rows.add(y[0] * x[2] + pyo.sinh(0.2 * y[1]) == 0.5)
    m.second.objective = pyo.Objective(
        expr=c[9] * pyo.cosh(z - x[0]) - z * x[1] ** 2 + abs(x[2] - 5), sense=pyo.minimize
    )
    m.second.row = pyo.Constraint(expr=z / x[0] + pyo.log(x[1]) * z >= -10.0)
    return m


def difference(f, at: np.ndarray) -> np.ndarray:
    """Central differences: the derivative by each entry of ``at`` along the last axis."""
    columns = []
    for k in range(len(at)):
        e = np.zeros(len(at))
        e[k] = STEP
        columns.append((np.asarray(f(at + e)) - np.asarray(f(at - e))) / (2 * STEP))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("seed", range(6))
def test_derivatives_agree_with_finite_differences(seed: int) -> None:
    oracle = AlgebraicOracle(bl.PyomoProblem(nonlinear_model(seed)))
    rng = np.random.default_rng(100 + seed)
    x, y = rng.uniform(0.3, 1.8, oracle.nx), rng.uniform(-1.0, 1.5, oracle.ny)
    close = {"rtol": 1e-6, "atol": 1e-7}

    value, by_x, by_y = oracle.upper_gradients(x, y)
    assert value == oracle.upper(x, y)
    np.testing.assert_allclose(by_x, difference(lambda v: oracle.upper(v, y), x), **close)
    np.testing.assert_allclose(by_y, difference(lambda v: oracle.upper(x, v), y), **close)
    value, by_y = oracle.lower_gradient(x, y)
    assert value == oracle.lower(x, y)
    np.testing.assert_allclose(by_y, difference(lambda v: oracle.lower(x, v), y), **close)
    np.testing.assert_allclose(oracle.lower_gradient_x(x, y), difference(lambda v: oracle.lower(v, y), x), **close)

    for rows_at, sizes in ((oracle.upper_rows, (3, 1)), (oracle.lower_rows, (4, 1))):
        rows = rows_at(x, y, jacobian=True)
        assert (len(rows.g), len(rows.h)) == sizes
        np.testing.assert_allclose(rows.g_x, difference(lambda v, at=rows_at: at(v, y).g, x), **close)
        np.testing.assert_allclose(rows.g_y, difference(lambda v, at=rows_at: at(x, v).g, y), **close)
        np.testing.assert_allclose(rows.h_x, difference(lambda v, at=rows_at: at(v, y).h, x), **close)
        np.testing.assert_allclose(rows.h_y, difference(lambda v, at=rows_at: at(x, v).h, y), **close)

    lam, mu = rng.uniform(0.0, 2.0, 4), rng.normal(size=1)

    def lagrangian_gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        rows = oracle.lower_rows(x, y, jacobian=True)
        return oracle.lower_gradient(x, y)[1] + rows.g_y.T @ lam + rows.h_y.T @ mu

    curvature = oracle.curvature(x, y, lam, mu)
    yy, yx = curvature.dense(), curvature.dense_mixed()
    np.testing.assert_allclose(yy, difference(lambda v: lagrangian_gradient(x, v), y), **close)
    np.testing.assert_allclose(yx, difference(lambda v: lagrangian_gradient(v, y), x), **close)
    v, d = rng.normal(size=oracle.ny), rng.normal(size=oracle.nx)
    np.testing.assert_allclose(curvature.product(v), yy @ v)
    np.testing.assert_allclose(curvature.mixed_x(v), yx.T @ v)
    np.testing.assert_allclose(curvature.mixed_y(d), yx @ d)
    plain = oracle.curvature(x, y).dense()
    np.testing.assert_allclose(plain, difference(lambda v: oracle.lower_gradient(x, v)[1], y), **close)


@pytest.mark.parametrize("seed", range(3))
def test_values_agree_with_the_users_own_model(seed: int) -> None:
    problem = bl.PyomoProblem(nonlinear_model(seed))
    oracle = make_oracle(problem)
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.3, 1.8, 3), rng.uniform(-1.0, 1.5, 3)
    upper, lower = oracle.objectives(x, y)
    assert upper == pytest.approx(-oracle.upper(x, y))  # the leader maximises
    assert isinstance(lower, tuple)
    assert sum(lower) == pytest.approx(oracle.lower(x, y))
    found = problem.evaluate(oracle.values(x, y))
    assert max(v for name, v, _ in found.lower if "rows" in name or "row" in name) == pytest.approx(
        oracle.lower_rows(x, y).violation
    )
    by_name = oracle.point(x, y)
    np.testing.assert_array_equal(by_name[0]["x"], x)
    np.testing.assert_array_equal(by_name[1]["first.y"], y[:2])
    np.testing.assert_array_equal(by_name[1]["second.z"], y[2])


def test_columns_rows_and_bounds_are_told_apart() -> None:
    oracle = AlgebraicOracle(bl.PyomoProblem(nonlinear_model(0)))
    assert (oracle.nx, oracle.ny) == (3, 3)
    names = oracle.program.names
    assert [names[i] for i in oracle.y_columns] == ["first.y[0]", "first.y[1]", "second.z"]
    assert oracle.blocks == (slice(0, 2), slice(2, 3))
    rows = oracle.lower_rows(np.ones(3), np.zeros(3))
    assert rows.g_names == (
        "first.rows[1] (upper side)",
        "first.rows[1] (lower side)",
        "first.rows[2]",
        "second.row",
    )
    assert rows.h_names == ("first.rows[3]",)
    assert [a.tolist() for a in oracle.follower_of_row] == [[0, 0, 0, 1], [0]]
    np.testing.assert_array_equal(oracle.y_upper, [4, 4, 5])
    np.testing.assert_array_equal(oracle.y_lower, [-3, -3, -np.inf])
    assert oracle.has_upper_rows
    assert oracle.has_lower_rows
    assert oracle.has_lower_bounds


def test_a_level_without_rows_has_empty_arrays_of_the_right_shape() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var()
    m.f = bl.Follower()
    m.f.y = pyo.Var([0, 1])
    m.objective = pyo.Objective(expr=m.x**2)
    m.f.objective = pyo.Objective(expr=(m.f.y[0] - m.x) ** 2 + m.f.y[1] ** 2)
    oracle = make_oracle(bl.PyomoProblem(m))
    rows = oracle.lower_rows(np.ones(1), np.ones(2), jacobian=True)
    assert (rows.g_x.shape, rows.g_y.shape, rows.h_x.shape, rows.h_y.shape) == ((0, 1), (0, 2), (0, 1), (0, 2))
    assert not oracle.lower_constrained
    assert not oracle.has_upper_rows
    assert rows.violation == 0.0


def test_evaluations_are_counted_by_kind() -> None:
    oracle = make_oracle(bl.PyomoProblem(quadratic_follower()))
    x, y = np.array([2.0]), np.array([1.0])
    oracle.upper(x, y)
    oracle.lower(x, y)
    oracle.lower_gradient(x, y)
    curvature = oracle.curvature(x, y)
    curvature.product(y)
    curvature.product(y)
    curvature.mixed_x(y)
    assert oracle.counts == {
        "upper_values": 1,
        "lower_values": 1,
        "lower_gradients": 1,
        "hessian_products": 2,
        "mixed_products": 1,
    }


def test_what_is_not_finite_is_named() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.f = bl.Follower()
    m.f.y = pyo.Var(bounds=(-1, 1))
    m.objective = pyo.Objective(expr=pyo.log(m.x) + m.f.y)
    m.f.objective = pyo.Objective(expr=pyo.sqrt(m.f.y) + m.x)
    m.f.cap = pyo.Constraint(expr=pyo.log(m.f.y) <= 1)
    oracle = make_oracle(bl.PyomoProblem(m))
    minus, zero, one = np.array([-1.0]), np.array([0.0]), np.array([1.0])
    with pytest.raises(NonFiniteError, match=r"upper\(x, y\) is not finite"):
        oracle.upper(minus, one)
    with pytest.raises(NonFiniteError) as caught:
        oracle.lower_gradient(one, zero)  # the root has a value at 0, and no slope
    assert caught.value.term == "gradient of lower by y"
    with pytest.raises(NonFiniteError, match=r"constraint 'f.cap'"):
        oracle.lower_rows(one, minus)
    with pytest.raises(NonFiniteError, match="second derivatives"):
        oracle.curvature(one, zero).dense()


def test_starts_lie_in_the_high_point_relaxation() -> None:
    oracle = AlgebraicOracle(bl.PyomoProblem(bard_511()))
    assert oracle.x_start == pytest.approx([3.0])  # min x - 4y over the four rows is at (3, 6)
    assert oracle.y_start() == pytest.approx([6.0])
    starts = [oracle.random_start(np.random.default_rng(seed)) for seed in range(20)]
    assert all(1.0 - 1e-9 <= s[0] <= 4.0 + 1e-9 for s in starts)  # the relaxation's shadow on x
    assert len({round(float(s[0]), 6) for s in starts}) > 5
    again = [oracle.random_start(np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(starts, again)


def test_random_starts_of_an_unbounded_relaxation_stay_near() -> None:
    m = quadratic_follower()
    m.w = pyo.Var()
    m.objective.expr += (m.w - 100) ** 2
    oracle = make_oracle(bl.PyomoProblem(m))
    starts = np.array([oracle.random_start(np.random.default_rng(seed)) for seed in range(10)])
    assert np.isfinite(starts).all()
    assert np.ptp(starts[:, 1]) > 10.0
    assert np.abs(starts[:, 1]).max() < 2000.0


def test_an_empty_relaxation_leaves_starts_in_the_bounds() -> None:
    m = bard_511()
    m.x.setub(10.0)
    m.impossible = pyo.Constraint(expr=m.x >= 9.0)
    oracle = make_oracle(bl.PyomoProblem(m))
    assert oracle.x_start == pytest.approx([5.0])
    assert oracle.y_start() == pytest.approx([0.0])
    starts = [float(oracle.random_start(np.random.default_rng(s))[0]) for s in range(5)]
    assert len(set(starts)) == 5
    assert all(0.0 <= s <= 10.0 for s in starts)


def test_games_and_integer_followers_are_refused() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.a, m.b = bl.Follower(), bl.Follower()
    m.a.y, m.b.y = pyo.Var(bounds=(0, 1)), pyo.Var(bounds=(0, 1))
    m.objective = pyo.Objective(expr=m.x)
    m.a.objective = pyo.Objective(expr=(m.a.y - m.b.y) ** 2)
    m.b.objective = pyo.Objective(expr=(m.b.y - m.x) ** 2)
    with pytest.raises(RefusedError, match="Nash game"):
        make_oracle(bl.PyomoProblem(m))
    n = bard_511()
    n.follower.y.domain = pyo.NonNegativeIntegers
    with pytest.raises(RefusedError, match=r"'follower' has the integer variable 'follower\.y'"):
        make_oracle(bl.PyomoProblem(n))


def test_abs_has_a_derivative_everywhere() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.f = bl.Follower()
    m.f.y = pyo.Var(bounds=(-1, 1))
    m.objective = pyo.Objective(expr=m.x)
    m.f.objective = pyo.Objective(expr=abs(m.f.y))
    oracle = make_oracle(bl.PyomoProblem(m))
    slopes = [float(oracle.lower_gradient(np.zeros(1), np.array([v]))[1][0]) for v in (-0.5, 0.0, 0.5)]
    assert slopes == [-1.0, 0.0, 1.0]
    assert math.isfinite(oracle.curvature(np.zeros(1), np.zeros(1)).dense()[0, 0])


@pytest.mark.parametrize("leader", [pyo.minimize, pyo.maximize])
@pytest.mark.parametrize("follower", [pyo.minimize, pyo.maximize])
@pytest.mark.parametrize("mode", ["cg", "dense", "first-order"])
def test_the_public_hypergradient_is_of_the_objective_as_written(leader: int, follower: int, mode: str) -> None:
    """upper = -(y - 1)^2 + 3 x with y(x) = x: at 0.25 its derivative is 1.5 + 3 in either sense; 3 to first order."""
    sign = 1.0 if follower == pyo.minimize else -1.0
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-10, 10))
    m.f = bl.Follower()
    m.f.y = pyo.Var()
    m.f.o = pyo.Objective(expr=sign * (m.f.y - m.x) ** 2, sense=follower)
    m.o = pyo.Objective(expr=-((m.f.y - 1) ** 2) + 3 * m.x, sense=leader)
    problem = bl.PyomoProblem(m)
    found = bl.hypergradient(problem, {"x": 0.25}, {"f.y": 0.25}, mode)
    assert float(found.value["x"]) == pytest.approx(3.0 if mode == "first-order" else 4.5)
    assert found.upper == pytest.approx(-(0.75**2) + 0.75)
    if mode == "first-order":
        return
    # y.o is 2 (y - x)^2 / 2: the adjoint is F_y / 2, and what it says of a shifted y is in the user's sense too.
    assert float(found.adjoint[0]) == pytest.approx(0.75)
    shifted = bl.hypergradient(problem, {"x": 0.25}, {"f.y": 0.2501}, mode)
    assert shifted.bias == pytest.approx(1.5e-4, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_followers_of_different_scales_keep_their_own_multipliers(scale: float) -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-10, 10))
    m.a, m.b = bl.Follower(), bl.Follower()
    m.a.y, m.b.y = pyo.Var(), pyo.Var()
    m.a.o = pyo.Objective(expr=scale * (m.a.y - 5) ** 2)
    m.b.o = pyo.Objective(expr=(m.b.y - m.x) ** 2)
    m.a.c, m.b.c = pyo.Constraint(expr=m.a.y <= 1), pyo.Constraint(expr=m.b.y <= 1)
    m.o = pyo.Objective(expr=(m.b.y - 5) ** 2 + m.a.y)
    problem = bl.PyomoProblem(m)
    held = bl.hypergradient(problem, {"x": 3.0}, {"a.y": 1.0, "b.y": 1.0})
    assert held.strict
    assert float(held.value["x"]) == pytest.approx(0.0, abs=1e-12)
    kink = bl.hypergradient(problem, {"x": 1.0}, {"a.y": 1.0, "b.y": 1.0})
    assert not kink.strict
    assert "kink" in kink.message
