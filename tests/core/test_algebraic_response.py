"""Answers of algebraic followers at a fixed x: optimal by the independent check, with the right multipliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest
from scipy.optimize import linprog

import bilevel_core as bl
from bilevel_core.lower import LowerFailedError, Response, respond
from bilevel_core.oracles import Oracle, make_oracle
from bilevel_core.oracles.algebraic import AlgebraicOracle
from bilevel_core.plugins.registry import get_registry
from bilevel_core.result import Termination

from .models import bard_511, tied_follower

CLASSIC = [
    "classic/candler-townsley",
    "classic/bard-1991-1",
    "classic/bialas-karwan-1",
    "classic/lucchetti",
    "classic/wang-jiao-li",
    "classic/savard",
    "classic/outrata-1b",
    "classic/bard-1988-3",
    "classic/hatz",
    "classic/aiyoshi-shimizu-2",
    "smd/smd1",
    "smd/smd2",
    "smd/smd6",
]


def model() -> Any:
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 4))
    m.follower = bl.Follower()
    m.objective = pyo.Objective(expr=m.x)
    return m


def oracle_of(m: Any) -> AlgebraicOracle:
    return AlgebraicOracle(bl.PyomoProblem(m))


def assert_optimality_conditions(oracle: Oracle, x: np.ndarray, r: Response, tolerance: float = 1e-7) -> None:
    """Signs, complementarity, stationarity and feasibility, from the oracle's derivatives."""
    rows = oracle.lower_rows(x, r.y, jacobian=True)
    size = max(1.0, float(np.abs(r.y).max()))
    at_lower = np.zeros(oracle.ny) if r.at_lower is None else r.at_lower
    at_upper = np.zeros(oracle.ny) if r.at_upper is None else r.at_upper
    for m in (r.inequality, at_lower, at_upper):
        assert (m >= 0.0).all()
    assert rows.violation <= tolerance * size
    assert (r.y >= oracle.y_lower).all()
    assert (r.y <= oracle.y_upper).all()
    gradient = oracle.lower_gradient(x, r.y)[1]
    rest = gradient + rows.g_y.T @ r.inequality + rows.h_y.T @ r.equality - at_lower + at_upper
    assert np.linalg.norm(rest) <= tolerance * max(1.0, float(np.abs(gradient).max()))
    assert np.abs(r.inequality * rows.g).max(initial=0.0) <= tolerance * size
    assert not at_lower[r.y - oracle.y_lower > 1e-6 * size].any()
    assert not at_upper[oracle.y_upper - r.y > 1e-6 * size].any()


def random_problem(seed: int) -> bl.PyomoProblem:
    """A follower with a linear (even seeds) or convex quadratic objective over a box cut by random rows.

    The quadratic's rank is random, so some have flat directions; small integers make degeneracy and ties common.
    """
    rng = np.random.default_rng([7, seed])
    n, m = int(rng.integers(1, 6)), int(rng.integers(0, 6))
    model: Any = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], bounds=(0, 2))
    model.follower = bl.Follower()
    model.follower.y = pyo.Var(range(n), bounds=(-3, 5))
    x, y = model.x, model.follower.y
    model.objective = pyo.Objective(expr=sum(float(rng.integers(-3, 4)) * y[i] for i in range(n)) + x[0])
    cost = sum((float(rng.integers(-3, 4)) + float(rng.integers(-1, 2)) * x[0]) * y[i] for i in range(n))
    if seed % 2:
        root = rng.integers(-2, 3, (int(rng.integers(1, n + 1)), n)).astype(float)
        cost += sum(0.5 * (sum(c * y[i] for i, c in enumerate(line)) - x[1]) ** 2 for line in root)
    model.follower.objective = pyo.Objective(expr=cost + 0 * y[0])
    model.follower.rows = pyo.ConstraintList()
    for k in range(m):
        body = sum(float(c) * y[i] for i, c in enumerate(rng.integers(-3, 4, n))) + float(rng.integers(-1, 2)) * x[1]
        if body is None or not any(v is y[i] for i in range(n) for v in pyo_vars(body)):
            continue
        if k == 0 and rng.random() < 0.4:
            model.follower.rows.add(body == float(rng.integers(0, 2)))
        elif rng.random() < 0.3:
            model.follower.rows.add(pyo.inequality(-4.0, body, float(rng.integers(1, 5))))
        else:
            model.follower.rows.add(body <= float(rng.integers(1, 6)))
    return bl.PyomoProblem(model)


def pyo_vars(expression: Any) -> list[Any]:
    from pyomo.core.expr.visitor import identify_variables

    return list(identify_variables(expression))


@pytest.mark.parametrize("seed", range(100))
def test_random_linear_and_quadratic_followers(seed: int) -> None:
    problem = random_problem(seed)
    oracle = AlgebraicOracle(problem)
    x = np.random.default_rng(seed).uniform(0.0, 2.0, 2)
    rows = oracle.lower_rows(x, oracle.zeros(), jacobian=True)  # linear, so that its values at 0 say all
    feasible = linprog(
        np.zeros(oracle.ny), rows.g_y, -rows.g, rows.h_y, -rows.h, np.stack([oracle.y_lower, oracle.y_upper], axis=1)
    )
    if feasible.status == 2:
        with pytest.raises(LowerFailedError, match="no feasible answer") as caught:
            respond(oracle, x)
        assert caught.value.termination is Termination.LOWER_INFEASIBLE
        return
    r = respond(oracle, x)
    assert r.converged, r.message
    assert_optimality_conditions(oracle, x, r)
    certificate = bl.verify(problem, *oracle.point(x, r.y))
    assert certificate.verdict is bl.Verdict.VERIFIED, certificate.reason
    assert abs(certificate.lower_gap) <= 1e-7
    assert certificate.better_response is None
    if seed % 2 == 0 or r.unique is False:  # the check's tolerance shows ties of quadratic followers that are none
        assert {True: "unique", False: "ties"}[r.unique] == certificate.response


@pytest.mark.parametrize("name", CLASSIC)
def test_library_followers_answer_optimally(name: str) -> None:
    problem = get_registry().problems[name].load()()
    oracle = make_oracle(problem)
    for seed in range(3):
        x = oracle.x_start if seed == 0 else oracle.random_start(np.random.default_rng(seed))
        r = respond(oracle, x)
        assert r.converged, r.message
        assert_optimality_conditions(oracle, x, r)
        certificate = bl.verify(problem, *oracle.point(x, r.y))
        # The leader's constraints are not the followers' to satisfy.
        assert certificate.verdict is bl.Verdict.VERIFIED or certificate.upper_violation > 1e-3, certificate.reason
        assert certificate.lower_violation <= 1e-9
        assert certificate.lower_gap <= 1e-7
        assert certificate.better_response is None


def test_ties_are_settled_for_the_leader() -> None:
    oracle = oracle_of(tied_follower())
    r = respond(oracle, np.array([0.25]))
    assert r.unique is False
    assert r.details["choice"] == "best"
    assert r.y == pytest.approx([1.0])
    m = tied_follower()
    m.objective.expr = m.x + 2 * m.follower.y
    assert respond(oracle_of(m), np.array([0.25])).y == pytest.approx([0.0])


def test_the_choice_honours_the_leaders_constraints() -> None:
    m = tied_follower()
    m.cap = pyo.Constraint(expr=m.follower.y <= 0.25 + m.x)
    r = respond(oracle_of(m), np.array([0.5]))
    assert r.y == pytest.approx([0.75])
    assert r.details["choice"] == "best"


def test_the_choice_violates_the_leaders_constraints_least_where_it_must() -> None:
    m = tied_follower()
    m.floor = pyo.Constraint(expr=m.follower.y >= 1.5 + m.x)
    m.objective.expr = m.x + m.follower.y
    r = respond(oracle_of(m), np.array([0.0]))
    assert r.y == pytest.approx([1.0])
    assert r.details["choice"] == "least violation"


def test_a_quadratic_follower_with_a_flat_direction() -> None:
    m = model()
    m.follower.y = pyo.Var([0, 1], bounds=(0, 3))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=(y[0] + y[1] - m.x) ** 2)
    m.objective.expr = m.x + (y[0] - 0.75) ** 2 - y[1]
    oracle = oracle_of(m)
    r = respond(oracle, np.array([2.0]))
    # On y0 + y1 = 2 the leader minimises (y0 - 0.75)^2 + y0: at y0 = 0.25.
    assert r.y == pytest.approx([0.25, 1.75], abs=1e-6)
    assert r.unique is False
    assert r.value == pytest.approx(0.0, abs=1e-9)
    assert_optimality_conditions(oracle, np.array([2.0]), r)


def test_ties_of_two_followers_are_settled_together() -> None:
    m = model()
    m.other = bl.Follower()
    m.follower.y, m.other.z = pyo.Var(bounds=(0, 1)), pyo.Var(bounds=(0, 1))
    m.follower.objective = pyo.Objective(expr=0 * m.follower.y + m.x)
    m.other.objective = pyo.Objective(expr=0 * m.other.z)
    m.objective.expr = m.follower.y + 2 * m.other.z
    m.both = pyo.Constraint(expr=m.follower.y + m.other.z >= 1.5)
    r = respond(oracle_of(m), np.array([0.0]))
    assert r.y == pytest.approx([1.0, 0.5])


def test_several_vertices_of_a_degenerate_but_unique_answer_are_not_ties() -> None:
    m = model()
    m.follower.y = pyo.Var([0, 1], bounds=(0, 10))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=-y[0] - y[1])
    m.follower.rows = pyo.ConstraintList()
    for row in (y[0] + y[1] <= 2, y[0] <= 1, y[1] <= 1):  # the sum alone leaves a face; the other two cut it to a point
        m.follower.rows.add(row)
    r = respond(oracle_of(m), np.array([0.0]))
    assert r.unique is True
    assert r.y == pytest.approx([1.0, 1.0])


def test_followers_of_very_different_scales_keep_their_optima() -> None:
    """What a small follower wants is not lost beside a large one, though the leader would like it otherwise."""
    m = model()
    m.other = bl.Follower()
    m.follower.y, m.other.z = pyo.Var(bounds=(0, 1)), pyo.Var([0, 1], bounds=(0, 1))
    m.follower.objective = pyo.Objective(expr=1e8 * m.follower.y)
    m.other.objective = pyo.Objective(expr=1e-6 * m.other.z[0])
    m.objective.expr = -m.follower.y - m.other.z[0] - m.other.z[1]
    r = respond(oracle_of(m), np.array([0.0]))
    assert r.y == pytest.approx([0.0, 0.0, 1.0], abs=1e-9)
    assert r.unique is False
    np.testing.assert_allclose(r.at_lower, [1e8, 1e-6, 0.0])


def test_an_empty_follower_is_named() -> None:
    m = bard_511()
    with pytest.raises(LowerFailedError, match="'follower' has no feasible answer") as caught:
        respond(oracle_of(m), np.array([10.0]))
    assert caught.value.termination is Termination.LOWER_INFEASIBLE


def test_an_unbounded_follower_is_named() -> None:
    m = model()
    m.other = bl.Follower()
    m.follower.y, m.other.z = pyo.Var(bounds=(0, 1)), pyo.Var()
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.other.objective = pyo.Objective(expr=m.other.z * (m.x - 1))
    oracle = oracle_of(m)
    with pytest.raises(LowerFailedError, match="'other' is unbounded") as caught:
        respond(oracle, np.array([2.0]))
    assert caught.value.termination is Termination.LOWER_UNBOUNDED
    assert respond(oracle, np.array([1.0])).unique is False
