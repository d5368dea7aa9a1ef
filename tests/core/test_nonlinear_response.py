"""Answers of nonlinear followers at a fixed x: to rounding, also without curvature; what has no answer is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest
from scipy.optimize import minimize

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import OptimalitySystem
from bilevel_core.lower import LowerFailedError, LowerSettings, respond
from bilevel_core.oracles.vanishing import answer_curvature
from bilevel_core.result import Termination

from .models import bard_511, quadratic_follower
from .test_algebraic_response import assert_optimality_conditions, model, oracle_of


@pytest.mark.parametrize(
    ("body", "said", "termination"),
    [
        (lambda y, x: pyo.exp(y) + x, "no feasible answer", Termination.LOWER_INFEASIBLE),
        (lambda y, x: pyo.cosh(y) + x, "No feasible answer of follower 'follower' was found", Termination.ERROR),
    ],
)
def test_an_empty_nonlinear_follower(body: Any, said: str, termination: Termination) -> None:
    """SCIP proves that exp has no negative value; of cosh it knows nothing, so nothing is claimed."""
    m = model()
    m.follower.y = pyo.Var(bounds=(-2, 2))
    m.follower.objective = pyo.Objective(expr=(m.follower.y - m.x) ** 2)
    m.follower.row = pyo.Constraint(expr=body(m.follower.y, m.x) <= -1)
    with pytest.raises(LowerFailedError, match=said) as caught:
        respond(oracle_of(m), np.array([1.0]))
    assert caught.value.termination is termination


def test_an_unbounded_nonlinear_follower() -> None:
    m = model()
    m.follower.y = pyo.Var()
    m.follower.objective = pyo.Objective(expr=-(m.follower.y**3) * (1 + m.x))
    with pytest.raises(LowerFailedError, match="'follower' is unbounded") as caught:
        respond(oracle_of(m), np.array([1.0]), np.array([2.0]))
    assert caught.value.termination is Termination.LOWER_UNBOUNDED


def convex_nonlinear() -> Any:
    """min exp(y0) + y1^4 - x y0 over a ball, a bound and an equality: three variables."""
    m = model()
    m.follower.y = pyo.Var([0, 1, 2], bounds=(-5, 5))
    m.follower.y[2].setlb(0.5)
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=pyo.exp(y[0]) + (y[1] - 1) ** 4 - m.x * y[0] + y[2] ** 2)
    m.follower.rows = pyo.ConstraintList()
    m.follower.rows.add(y[0] ** 2 + y[1] ** 2 <= 1.5)
    m.follower.rows.add(y[0] + y[1] == 1 + 0.1 * m.x)
    return m


@pytest.mark.parametrize("x", [0.0, 0.5, 1.7, 3.9])
def test_a_nonlinear_follower_is_solved_to_rounding(x: float) -> None:
    oracle = oracle_of(convex_nonlinear())
    at = np.array([x])
    r = respond(oracle, at, np.array([3.0, -4.0, 2.0]))
    assert r.converged
    assert r.residual <= 1e-9
    assert r.iterations > 0
    assert r.unique is None
    assert_optimality_conditions(oracle, at, r, 1e-9)
    assert r.at_lower is not None
    assert r.at_lower[2] == pytest.approx(1.0, abs=1e-9)
    by_scipy = minimize(
        lambda y: np.exp(y[0]) + (y[1] - 1) ** 4 - x * y[0] + y[2] ** 2,
        np.array([0.5, 0.5, 1.0]),
        bounds=[(-5, 5), (-5, 5), (0.5, 5)],
        constraints=[
            {"type": "ineq", "fun": lambda y: 1.5 - y[0] ** 2 - y[1] ** 2},
            {"type": "eq", "fun": lambda y: y[0] + y[1] - 1 - 0.1 * x},
        ],
        options={"ftol": 1e-12},
    )
    assert r.value == pytest.approx(by_scipy.fun, abs=1e-7)


def test_an_inactive_row_at_a_weakly_active_answer_is_met_exactly() -> None:
    """y* = x = 1 touches y <= 1 with multiplier 0: Ipopt alone stays some 1e-5 away."""
    m = model()
    m.follower.y = pyo.Var(bounds=(-3, 3))
    m.follower.objective = pyo.Objective(expr=pyo.cosh(m.follower.y - m.x))
    m.follower.row = pyo.Constraint(expr=m.follower.y <= 1)
    r = respond(oracle_of(m), np.array([1.0]))
    assert r.y == pytest.approx([1.0], abs=1e-9)
    assert r.inequality == pytest.approx([0.0], abs=1e-9)


def test_the_same_question_has_the_same_answer() -> None:
    x, start = np.array([1.3]), np.array([0.1, 0.2, 0.9])
    one, two = oracle_of(convex_nonlinear()), oracle_of(convex_nonlinear())
    respond(two, np.array([3.0]), np.array([-1.0, 2.0, 3.0]))  # what was asked before leaves no trace
    a, b = respond(one, x, start), respond(two, x, start)
    np.testing.assert_array_equal(a.y, b.y)
    np.testing.assert_array_equal(a.inequality, b.inequality)


def test_a_follower_with_absolute_values() -> None:
    m = model()
    m.follower.y = pyo.Var(bounds=(-3, 3))
    m.follower.objective = pyo.Objective(expr=abs(m.follower.y - m.x) + 2 * abs(m.follower.y - 1))
    r = respond(oracle_of(m), np.array([2.5]))
    assert r.y == pytest.approx([1.0], abs=1e-6)


def test_a_nonconvex_follower_gets_a_local_answer() -> None:
    m = model()
    m.follower.y = pyo.Var(bounds=(-1, 2))
    m.follower.objective = pyo.Objective(expr=-(m.follower.y**2) + m.x)
    oracle = oracle_of(m)
    for start, end in ((-0.9, -1.0), (1.9, 2.0)):
        r = respond(oracle, np.array([1.0]), np.array([start]))
        assert r.y == pytest.approx([end], abs=1e-9)
        assert r.unique is None


def test_known_multipliers() -> None:
    oracle = oracle_of(bard_511())
    r = respond(oracle, np.array([3.0]))  # y = 2.5 by 3x - 2y <= 4, whose multiplier is 1/2
    assert r.y == pytest.approx([2.5])
    np.testing.assert_allclose(r.inequality, [0.0, 0.0, 0.0, 0.5], atol=1e-12)
    quadratic = respond(oracle_of(quadratic_follower()), np.array([1.0]))
    assert quadratic.y == pytest.approx([0.0])
    # 2 (y - 1) - 1.5 x = -3.5, held by y <= 3x - 3 = 0
    np.testing.assert_allclose(quadratic.inequality, [3.5, 0.0, 0.0], atol=1e-8)


def test_another_lower_method_is_refused() -> None:
    with pytest.raises(UsageError, match="leave the lower method at 'auto' instead of 'adam'"):
        respond(oracle_of(bard_511()), np.array([3.0]), None, LowerSettings(method="adam"))


def test_few_iterations_end_without_convergence() -> None:
    m = model()
    m.follower.y = pyo.Var()
    m.follower.objective = pyo.Objective(expr=pyo.cosh(m.follower.y - m.x))
    oracle = oracle_of(m)
    few = respond(oracle, np.array([2.0]), np.array([40.0]), LowerSettings(max_iterations=1))
    assert not few.converged
    assert few.residual > 1.0
    assert "'follower': Ipopt ended with maximum iterations exceeded" in few.message
    assert respond(oracle, np.array([2.0]), np.array([40.0])).converged
    assert oracle.counts["lower_solves"] == 2


@pytest.mark.parametrize("x", [0.0, 1.7, 3.0])
@pytest.mark.parametrize("power", [4, 6])
def test_answers_without_curvature_are_exact_and_move_with_x(x: float, power: int) -> None:
    """A gradient of 1e-10 leaves an error of 1e-3 in (x + 2 y - 15)^4; y = (15 - x) / 2, so dy/dx = -1/2."""
    m = model()
    m.follower.y = pyo.Var(bounds=(0, 20))
    m.follower.objective = pyo.Objective(expr=(m.x + 2 * m.follower.y - 15) ** power)
    oracle = oracle_of(m)
    answer = respond(oracle, np.array([x]))
    assert answer.converged
    assert answer.y == pytest.approx([(15 - x) / 2], abs=1e-8)
    moved = OptimalitySystem(oracle, np.array([x]), answer).follow(np.array([1.0]))
    assert moved.v == pytest.approx([-0.5], abs=1e-3)
    assert not moved.negative_curvature


def test_curvature_is_looked_for_beside_the_answer_only_where_it_vanishes() -> None:
    m = model()
    m.follower.y = pyo.Var([1, 2], bounds=(-5, 5))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=(y[1] - m.x) ** 4 + pyo.exp(y[2]) - y[2] * m.x)
    oracle = oracle_of(m)
    x, at = np.array([2.0]), np.array([2.0, np.log(2.0)])
    near = answer_curvature(oracle, x, at, None, None)
    assert near.dense()[0, 0] == pytest.approx(12 * (2e-3) ** 2, rel=1e-6)
    assert near.dense_mixed()[0, 0] == pytest.approx(-12 * (2e-3) ** 2, rel=1e-6)
    assert near.dense()[1, 1] == pytest.approx(2.0, rel=1e-6)
    off = at + np.array([1.0, 0.0])
    assert answer_curvature(oracle, x, off, None, None).dense() == pytest.approx(oracle.curvature(x, off).dense())


@pytest.mark.parametrize("power", [3, 4])
def test_neither_an_inflection_nor_a_maximum_becomes_a_minimum_by_looking_beside_it(power: int) -> None:
    m = model()
    m.follower.y = pyo.Var(bounds=(-5, 5))
    m.follower.objective = pyo.Objective(expr=-((m.follower.y - m.x) ** power))
    near = answer_curvature(oracle_of(m), np.array([2.0]), np.array([2.0]), None, None)
    assert near.dense()[0, 0] <= 1e-12


def test_the_leader_chooses_among_answers_of_a_nonlinear_follower() -> None:
    """Any y with y1 = 0, y3 = 0 and |y2| <= 1 is optimal: the leader gets y2 = 1."""
    m = model()
    m.follower.y = pyo.Var([1, 2, 3])
    y = m.follower.y
    y[3].setlb(0.0)
    m.follower.objective = pyo.Objective(expr=y[3])
    m.follower.c = pyo.Constraint(expr=y[1] ** 2 <= y[3])
    m.follower.d = pyo.Constraint(expr=y[1] ** 2 + y[2] ** 2 <= 1)
    m.objective.set_value(m.x - y[2])
    oracle = oracle_of(m)
    answer = respond(oracle, np.array([1.0]))
    assert answer.unique is False
    assert answer.y == pytest.approx([0.0, 1.0, 0.0], abs=1e-5)
    assert answer.value <= 1e-8
