"""Multipliers of a point: signs, residuals, and points at which they are not unique."""

from __future__ import annotations

import numpy as np
import pyomo.environ as pyo
import pytest

from bilevel_core.lower import respond
from bilevel_core.lower.multipliers import multipliers

from .models import bard_511
from .test_algebraic_response import assert_optimality_conditions, model, oracle_of


def test_multipliers_where_they_are_not_unique() -> None:
    m = model()
    m.follower.y = pyo.Var([0, 1], bounds=(0, 5))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=2 * y[0] + y[1])
    m.follower.rows = pyo.ConstraintList()
    for row in (y[0] >= 1, 3 * y[0] >= 3, y[0] + y[1] == 1, 2 * y[0] + 2 * y[1] == 2):
        m.follower.rows.add(row)
    oracle = oracle_of(m)
    x = np.array([0.0])
    found = multipliers(oracle, x, np.array([1.0, 0.0]))
    assert found.residual <= 1e-12
    r = respond(oracle, x)
    assert_optimality_conditions(oracle, x, r)


def test_multipliers_of_a_point_that_is_not_optimal_leave_a_residual() -> None:
    oracle = oracle_of(bard_511())
    found = multipliers(oracle, np.array([3.0]), np.array([6.0]))  # the upper end: no sign of a multiplier helps
    assert found.residual == pytest.approx(1.0)
    assert not found.inequality.any()


def test_multipliers_of_a_fixed_variable_take_either_sign() -> None:
    m = model()
    m.follower.y = pyo.Var([0, 1], bounds=(1, 1))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=2 * y[0] - 3 * y[1])
    r = respond(oracle_of(m), np.array([0.0]))
    assert r.residual <= 1e-12
    np.testing.assert_allclose(r.at_lower, [2.0, 0.0])
    np.testing.assert_allclose(r.at_upper, [0.0, 3.0])
    assert r.unique is True
