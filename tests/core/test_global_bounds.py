"""`global`: bounds that it derives, followers without an optimal answer at some x, and what stops it that early."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo
import pytest

from bilevel_core.run import Event

from .test_global import EPSILON, leader_and_follower, optimal, solved


def curved() -> Any:
    """A model in which the bounds of w and z have to be derived by a nonlinear search."""
    m = leader_and_follower()
    m.follower.w = pyo.Var()
    m.follower.z = pyo.Var()
    m.follower.tie = pyo.Constraint(expr=m.follower.w == 2 * pyo.exp(m.x) - m.follower.y)
    m.follower.top = pyo.Constraint(expr=m.follower.z**3 <= m.follower.y)
    m.follower.bottom = pyo.Constraint(expr=m.follower.z**3 >= -1 - m.follower.y**2)
    m.follower.objective = pyo.Objective(expr=m.follower.w**2 * m.follower.y + m.follower.z)
    m.objective = pyo.Objective(expr=(m.x - 0.5) ** 2 + m.follower.w)
    return m


def test_a_stop_while_bounds_are_derived() -> None:
    def stop(event: Event) -> bool:
        return event.kind == "phase"

    result = solved(curved(), callbacks=(stop,))
    assert result.termination == "stopped-by-user"
    assert not result.has_point


def test_no_time_for_bounds_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no bounds were found in time does not mean that there are none."""
    from bilevel_core.solvers.global_search import bounds as global_bounds

    original = global_bounds._derived  # pyright: ignore[reportPrivateUsage]

    def late(program: Any, columns: Any, followers: Any) -> Any:
        followers.context.time_limit = 0.0
        return original(program, columns, followers)

    monkeypatch.setattr(global_bounds, "_derived", late)
    result = solved(curved(), time_limit=30.0)
    assert result.termination == "time-limit"
    assert not result.has_point


def test_a_pessimist_derives_bounds_from_worst_values() -> None:
    # Ties at x = 3 only, where the leader's value lies between -20 and 11.25; at 2 and 4 it is 0.1.
    m = leader_and_follower((None, None))
    m.x.domain = pyo.Integers
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=(m.x - 3) ** 2 * (y + 1))
    m.objective = pyo.Objective(expr=0.1 * (m.x - 3) ** 2 - 20 * (y + 1) * (y - 0.5))
    optimal(solved(m), -20.0)
    result = solved(m, options={"response": "pessimistic"})
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(0.1, abs=EPSILON)


def test_a_follower_that_is_unbounded_at_some_x_only() -> None:
    # min -x y over y >= 0 has no optimum for x > 0; at x = 0 every y is optimal, below it y = 0.
    m = leader_and_follower((-1, 1), (0, None))
    m.follower.objective = pyo.Objective(expr=-m.x * m.follower.y)
    m.objective = pyo.Objective(expr=-m.x + m.follower.y)
    result = solved(m)
    assert result.termination == "converged"
    assert result.upper_objective == pytest.approx(0.0, abs=EPSILON)


def test_no_point_where_an_objective_has_no_value() -> None:
    # At x = 1 every y > 0 is optimal, but log(0) is no number, though 0 log(y) is 0 once x is put in.
    m = leader_and_follower((0, 2), (0, 2))
    m.x.domain = pyo.Integers
    m.follower.objective = pyo.Objective(expr=(m.x - 1) * pyo.log(m.follower.y))
    m.objective = pyo.Objective(expr=m.x + m.follower.y)
    result = solved(m, options={"max_iterations": 5})
    assert result.status == "feasible"
    assert float(result.y["y"]) > 0.0
    assert result.bound is not None
    assert result.bound <= 1.0 + EPSILON


def test_where_a_follower_is_unbounded_is_said() -> None:
    m = leader_and_follower((0.5, 1), (None, None))
    m.follower.objective = pyo.Objective(expr=-m.x * m.follower.y**3)
    m.objective = pyo.Objective(expr=m.x)
    result = solved(m)
    assert result.termination == "lower-unbounded"
    assert "'follower' is unbounded at x = " in result.message
