"""`local_evidence`: yes at strict local minima only, whatever the point looks like to first order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.lower import respond
from bilevel_core.oracles import make_oracle
from bilevel_core.problems.base import as_problem
from bilevel_core.solvers.second_order import local_evidence

Expression = Callable[[Any, Any], Any]


def evidence(
    upper: Expression,
    at: list[float],
    *,
    answer: Expression | None = None,
    bounds: tuple[float | None, float | None] = (None, None),
    y_bounds: tuple[float | None, float | None] = (None, None),
    row: Expression | None = None,
) -> bool:
    """The evidence at a point; the follower answers y_i = x_i within its bounds, or what ``answer`` gives."""
    n = len(at)
    m = pyo.ConcreteModel(name="phi")
    m.x = pyo.Var(range(n), bounds=bounds)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(range(n), bounds=y_bounds)
    x, y = m.x, m.follower.y
    target = [answer(x, i) if answer else x[i] for i in range(n)]
    m.follower.objective = pyo.Objective(expr=sum((y[i] - target[i]) ** 2 for i in range(n)))
    m.objective = pyo.Objective(expr=upper(x, y))
    if row is not None:
        m.row = pyo.Constraint(expr=row(x, y) <= 0)
    oracle = make_oracle(as_problem(m))
    point = np.array(at)
    return local_evidence(oracle, point, respond(oracle, point))


def test_a_minimum() -> None:
    assert evidence(lambda x, y: (x[0] - 1) ** 2 + (y[1] + 2) ** 2 + x[0] * y[0] - x[0] ** 2, [1.0, -2.0])


def test_a_minimum_that_is_one_only_through_the_follower() -> None:
    # By x alone the leader's objective is concave; Phi = x^4 - x^2 has a minimum at sqrt(1/2).
    assert evidence(lambda x, y: y[0] ** 2 - x[0] ** 2, [np.sqrt(0.5)], answer=lambda x, i: x[i] ** 2)


@pytest.mark.parametrize(
    ("name", "upper", "at"),
    [
        ("maximum", lambda x, y: -y[0] * x[0], [0.0]),
        ("saddle", lambda x, y: y[0] ** 2 - y[1] ** 2, [0.0, 0.0]),
        ("saddle off the axes", lambda x, y: y[0] * x[1], [0.0, 0.0]),
        ("flat", lambda x, y: (y[0] - x[0]) * 3 + 5, [0.3]),
        ("flat in one direction", lambda x, y: (y[0] + x[1]) ** 2, [0.5, -0.5]),
        ("quartic maximum", lambda x, y: -(y[0] ** 4), [0.0]),
        ("inflection", lambda x, y: y[0] ** 3, [0.0]),
        ("beside an inflection", lambda x, y: y[0] ** 3 + 0 * x[0], [1e-3]),
        ("not stationary", lambda x, y: (y[0] - 1) ** 2, [0.9]),
        ("shallow saddle", lambda x, y: y[0] ** 2 - 1e-5 * y[1] ** 2, [0.0, 0.0]),
    ],
)
def test_never_elsewhere(name: str, upper: Expression, at: list[float]) -> None:
    assert not evidence(upper, at), name


def test_a_bound_with_a_positive_multiplier_needs_no_curvature() -> None:
    assert evidence(lambda x, y: y[0] - y[0] ** 2, [0.0], bounds=(0, None))


def test_a_bound_without_a_multiplier_does() -> None:
    assert not evidence(lambda x, y: -(y[0] ** 2), [0.0], bounds=(0, None))
    assert evidence(lambda x, y: y[0] ** 2, [0.0], bounds=(0, None))


def test_a_vertex_from_which_the_objective_falls() -> None:
    assert not evidence(lambda x, y: -y[0] + y[1], [0.0, 0.0], bounds=(0, None))


def test_kinks_of_one_variable() -> None:
    # y = max(x, 1): slopes -1 and 1 at the kink; -1 and -0.5; 1 and 3.
    assert evidence(lambda x, y: 2 * y[0] - x[0], [1.0], y_bounds=(1, None))
    assert not evidence(lambda x, y: 0.5 * y[0] - x[0], [1.0], y_bounds=(1, None))
    assert not evidence(lambda x, y: 2 * y[0] + x[0], [1.0], y_bounds=(1, None))
    # A kink that points up.
    assert not evidence(lambda x, y: x[0] - 2 * y[0], [1.0], y_bounds=(1, None))


def test_a_kink_of_several_variables_is_left_open() -> None:
    assert not evidence(lambda x, y: 2 * y[0] - x[0] + x[1] ** 2 + y[1] - 1, [1.0, 0.0], y_bounds=(1, None))


def test_a_kink_close_by_is_not_taken_for_curvature() -> None:
    # At 1 - 5e-5 Phi = -(x - c)^2 + rising kink at 1, a maximum of its own piece with a kink within the differences.
    near = 1.0 - 5e-5
    assert not evidence(lambda x, y: -((x[0] - near) ** 2) + 5 * (y[0] - 1), [near], y_bounds=(1, None))


def test_leaders_rows_must_be_strict() -> None:
    def upper(x: Any, y: Any) -> Any:
        return (y[0] - 1) ** 2

    assert evidence(upper, [1.0], row=lambda x, y: y[0] - 2)
    assert not evidence(upper, [1.0], row=lambda x, y: y[0] - 1)
