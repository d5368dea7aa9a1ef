"""Followers with second-order cones: conditions as text, and optima against brute force with CVXPY."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.scip import Scip
from bilevel_core.program import INF, BilevelProgram, Function, Level, Row, Variable, linear
from bilevel_core.program import expression as ex
from bilevel_core.reductions import Chain
from bilevel_core.reductions.conic_duality import ConicConditions, cone_of, has_cones
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.sos1 import Sos1


def norm(*columns: int, weight: float = 1.0) -> ex.Expression:
    """The length of some columns."""
    squares = [ex.multiply(ex.Constant(weight), ex.power(ex.Column(i), ex.TWO)) for i in columns]
    return ex.call("sqrt", ex.add(*squares))


def program(*, weight: float = 1.0) -> BilevelProgram:
    """The follower minimises 2 t - y subject to |(y, z)| <= t and y >= x."""
    columns = (Variable("x", 0.0, 4.0), Variable("t"), Variable("y"), Variable("z"))
    rows = (
        Row("cone", Function(0.0, {1: -1.0}, nonlinear=norm(2, 3, weight=weight)), upper=0.0),
        Row("least", linear({0: 1.0, 2: -1.0}), upper=0.0),
    )
    follower = Level("follower", linear({1: 2.0, 2: -1.0}), rows, (1, 2, 3))
    return BilevelProgram(columns, Level("leader", linear({0: -1.0, 1: 1.0}), (), (0,)), (follower,))


def test_text() -> None:
    """The cone's row becomes a quadratic one, with a dual cone beside it."""
    reduction = ConicConditions()
    assert reduction.accepts(program()) is None
    assert reduction.apply(program()).text().splitlines() == [
        "minimise -x + t",
        "slack[least]: -x + y - slack[least] = 0",
        "stationarity[t]: -lambda[cone] + 2 = 0",
        "stationarity[y]: -lambda[least] - z[cone,y] - 1 = 0",
        "stationarity[z]: -z[cone,z] = 0",
        "cone[cone]: -t^2 + y^2 + z^2 <= 0",
        "dual cone[cone]: -lambda[cone]^2 + z[cone,y]^2 + z[cone,z]^2 <= 0",
        "complementarity[cone]: t*lambda[cone] + y*z[cone,y] + z*z[cone,z] = 0",
        "complementarity[cone,0]: t*z[cone,y] + y*lambda[cone] = 0",
        "complementarity[cone,1]: t*z[cone,z] + z*lambda[cone] = 0",
        "lambda[least] _|_ slack[least]",
        "x in [0, 4] real",
        "t in [0, inf] real",
        "y in [-inf, inf] real",
        "z in [-inf, inf] real",
        "lambda[least] in [0, inf] real",
        "slack[least] in [0, inf] real",
        "lambda[cone] in [0, inf] real",
        "z[cone,y] in [-inf, inf] real",
        "z[cone,z] in [-inf, inf] real",
    ]


def test_points_are_inverted() -> None:
    reduction = ConicConditions()
    reduction.apply(program())
    assert reduction.invert(np.arange(9.0)) == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert len(reduction.cones) == 1
    assert [m.follower for m in reduction.multipliers] == [0]


def test_without_cones_the_conditions_are_the_usual_ones() -> None:
    (follower,) = program().followers
    plain = Level("follower", follower.objective, follower.rows[1:], follower.columns)
    source = BilevelProgram(program().columns, program().leader, (plain,))
    assert not has_cones(source)
    assert ConicConditions().apply(source).text() == OptimalityConditions().apply(source).text()


def test_weights_turn_the_dual_cone_round() -> None:
    system = ConicConditions().apply(program(weight=4.0))
    text = system.text()
    assert "cone[cone]: -t^2 + 4 y^2 + 4 z^2 <= 0" in text
    assert "dual cone[cone]: -lambda[cone]^2 + 0.25 z[cone,y]^2 + 0.25 z[cone,z]^2 <= 0" in text
    assert "complementarity[cone,0]: t*z[cone,y] + 4 y*lambda[cone] = 0" in text


@pytest.mark.parametrize(
    "row",
    [
        Row("leader's", Function(0.0, {1: -1.0}, nonlinear=norm(0, 2)), upper=0.0),
        Row("reversed", Function(0.0, {1: 1.0}, nonlinear=norm(2, 3)), upper=0.0),
        Row("below", Function(0.0, {1: -1.0}, nonlinear=norm(2, 3)), lower=0.0),
        Row("two bounds", Function(0.0, {1: -1.0, 2: -1.0}, nonlinear=norm(2, 3)), upper=0.0),
        Row("side", Function(0.0, {1: -1.0}, nonlinear=norm(2, 3)), upper=1.0),
        Row("quadratic", Function(0.0, {1: -1.0}, {(2, 2): 1.0}), upper=0.0),
        Row("bound inside", Function(0.0, {1: -1.0}, nonlinear=norm(1, 2)), upper=0.0),
        Row("exponential", Function(0.0, {1: -1.0}, nonlinear=ex.call("exp", ex.Column(2))), upper=0.0),
    ],
    ids=lambda r: r.name,
)
def test_other_rows_are_no_cones(row: Row) -> None:
    assert cone_of(row, (1, 2, 3)) is None


def test_a_fixed_column_in_a_cone_is_refused() -> None:
    source = program()
    columns = (*source.columns[:3], Variable("z", 1.0, 1.0))
    reason = ConicConditions().accepts(BilevelProgram(columns, source.leader, source.followers))
    assert reason is not None
    assert "'z' of cone 'cone' is fixed" in reason


def test_integers_are_refused_as_ever() -> None:
    source = program()
    columns = (*source.columns[:3], Variable("z", -INF, INF, integer=True))
    reason = ConicConditions().accepts(BilevelProgram(columns, source.leader, source.followers))
    assert reason is not None
    assert "integer" in reason


def solved(problem: bl.CvxpyProblem) -> tuple[float, np.ndarray]:
    """The optimum of the conic conditions with sets, by SCIP."""
    assert has_cones(problem.program())
    chain = Chain(problem.program()).then(ConicConditions()).then(Sos1())
    found = Scip().solve(chain.target, SolveSettings(time_limit=60.0))
    assert found.status is SolveStatus.OPTIMAL
    assert found.values is not None
    return found.objective, chain.invert(found.values)


def test_a_regression_with_a_norm() -> None:
    """|y - (x, 1)| + |y|_1 / 2 within a halfplane: at x = 1.3 the answer (0.9, 0.6) lies on its edge."""
    x, y, p = cp.Variable(name="x", bounds=[-2, 2]), cp.Variable(2, name="y"), cp.Parameter(name="p")
    lower = cp.Problem(cp.Minimize(cp.norm(y - cp.hstack([p, 1.0]), 2) + 0.5 * cp.norm1(y)), [y[0] + y[1] <= 1.5])
    upper = cp.Problem(cp.Minimize(cp.square(x - 1) + cp.square(y[0] - 1) + y[1]))
    problem = bl.CvxpyProblem(upper, lower, leader={p: x})
    value, point = solved(problem)
    assert value == pytest.approx(0.7, abs=1e-4)
    names, answers = problem.point(point)
    assert names["x"] == pytest.approx(1.3, abs=1e-3)
    assert answers["y"] == pytest.approx([0.9, 0.6], abs=1e-3)
    assert bl.verify(problem, names, answers).verdict == "verified"
    assert bl.verify(problem, names, {"y": [0.95, 0.55]}).verdict == "refuted"


def test_the_apex_is_no_obstacle() -> None:
    """The follower shrinks to its centre: |y - c x| + |y| / 2 is least at y = c x, where a norm has no slope."""
    x, y, p = cp.Variable(name="x", bounds=[0, 2]), cp.Variable(2, name="y"), cp.Parameter(name="p")
    centre = np.array([1.0, 2.0])
    lower = cp.Problem(cp.Minimize(cp.norm(y - centre * p, 2) + 0.5 * cp.norm(y, 2)))
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.sum_squares(y - 1.0))), lower, leader={p: x})
    value, point = solved(problem)
    # |(t - 1, 2 t - 1)|^2 is least at t = 0.6
    assert value == pytest.approx(0.2, abs=1e-4)
    assert problem.point(point)[0]["x"] == pytest.approx(0.6, abs=3e-3)


def test_a_robust_portfolio() -> None:
    """The follower weighs return against risk as the leader's price of risk says; brute force over the price."""
    mean, root = np.array([0.08, 0.12, 0.2]), np.diag([0.05, 0.15, 0.4])
    price, w = cp.Variable(name="price", bounds=[0.1, 1.0]), cp.Variable(3, name="w", nonneg=True)
    p = cp.Parameter(nonneg=True, name="p")
    lower: Any = cp.Problem(cp.Maximize(mean @ w - p * cp.norm(root @ w, 2)), [cp.sum(w) == 1])
    upper = cp.Problem(cp.Minimize(cp.sum_squares(w - np.array([0.5, 0.3, 0.2])) + 0.01 * price))
    problem = bl.CvxpyProblem(upper, lower, leader={p: price})
    best = np.inf
    for value in np.linspace(0.1, 1.0, 181):
        p.value = value
        lower.solve(solver=cp.CLARABEL)
        best = min(best, float(np.sum((w.value - [0.5, 0.3, 0.2]) ** 2) + 0.01 * value))
    value, point = solved(problem)
    assert best - 2e-3 < value < best + 1e-5
    assert bl.verify(problem, *problem.point(point)).verdict == "verified"


@pytest.mark.parametrize("name", ["t", "cone"])
def test_rows_are_told_apart_by_their_place_not_by_name(name: str) -> None:
    """Constraints' labels need not be unique, nor differ from those of columns."""
    plain = program()
    follower = plain.followers[0]
    for order in (follower.rows, follower.rows[::-1]):
        rows = tuple(Row(name, r.function, r.lower, r.upper) for r in order)
        named = BilevelProgram(plain.columns, plain.leader, (Level("follower", follower.objective, rows, (1, 2, 3)),))
        text = ConicConditions().apply(named).text()
        assert f"slack[{name}]: -x + y - slack[{name}] = 0" in text
        assert "-t^2 + y^2 + z^2 <= 0" in text
        assert f"stationarity[y]: -lambda[{name}] - z[{name},y] - 1 = 0" in text


def test_a_label_shared_with_a_cone_is_refused() -> None:
    """Options name constraints by their labels, so that two of one name could not be told apart."""
    x, y, t, p = cp.Variable(name="x"), cp.Variable(2, name="y"), cp.Variable(name="t"), cp.Parameter(name="p")
    rows = [cp.norm(y, 2) <= t, y[0] + y[1] >= p + 1]
    for row in rows:
        row.label = "c"
    with pytest.raises(bl.ModelError, match="Two constraints are called 'c'"):
        bl.CvxpyProblem(
            cp.Problem(cp.Minimize(-x + 0.1 * t), [x >= 0, x <= 2]), cp.Problem(cp.Minimize(t), rows), {p: x}
        )
