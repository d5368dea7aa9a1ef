"""The check where followers' optimal answers are curved, tiny, or seen through columns that nobody wrote."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cvxpy as cp
import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.problems.base import as_problem
from bilevel_core.program import Function, Program, Row, Variable
from bilevel_core.program import expression as ex
from bilevel_core.result import Claim, Values
from bilevel_core.verification import check
from bilevel_core.verification.uniqueness import is_only_answer

INF = math.inf


def pyomo_model(lower: Any, upper: Any, y_bounds: tuple[float | None, float | None] = (-3, 3)) -> bl.PyomoProblem:
    m = pyo.ConcreteModel(name="curved")
    m.x = pyo.Var(bounds=(0.5, 2))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=y_bounds)
    m.follower.objective = pyo.Objective(expr=lower(m.x, m.follower.y))
    m.objective = pyo.Objective(expr=upper(m.x, m.follower.y))
    return bl.PyomoProblem(m)


SMOOTH = {
    "exp": (lambda x, y: pyo.exp(y) - x * y, 0.0),
    "quartic": (lambda x, y: (y - x) ** 4, 1.0),
    "cosh": (lambda x, y: pyo.exp(y - x) + pyo.exp(x - y), 1.0),
    "softplus": (lambda x, y: pyo.log(1 + pyo.exp(y)) - x * y / 2, 0.0),
    "cubic-root": (lambda x, y: (y**2 + 1) ** 0.5 - 0.6 * x * y, 0.75),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_exact_answer_of_a_smooth_follower_is_verified(name: str) -> None:
    """min x^2 - 2 y at x = 1; the follower's answer solves f'(y) = 0."""
    lower, y = SMOOTH[name]
    problem = pyomo_model(lower, lambda x, y: x**2 - 2 * y)
    c = check(problem, problem.vector({"x": 1.0}, {"y": y}), claim=Claim.GLOBAL)
    assert c.verdict == "verified", c.reason
    assert c.response in ("unique", "unknown")
    assert c.better_response is None
    if name in ("exp", "cosh"):  # elsewhere the curvature vanishes, or no rule of composition shows convexity
        assert c.response == "unique"
    off = check(problem, problem.vector({"x": 1.0}, {"y": y + 0.2}), claim=Claim.GLOBAL)
    assert off.verdict == "refuted"


def test_a_linear_follower_over_a_disc() -> None:
    m = pyo.ConcreteModel(name="disc")
    m.x = pyo.Var(bounds=(0, 2))
    m.follower = bl.Follower()
    m.follower.y, m.follower.z = pyo.Var(), pyo.Var()
    m.follower.row = pyo.Constraint(expr=m.follower.y**2 + m.follower.z**2 <= 1)
    m.follower.objective = pyo.Objective(expr=-m.follower.y - m.x * m.follower.z)
    m.objective = pyo.Objective(expr=(m.x - 1) ** 2 + m.follower.y - 2 * m.follower.z)
    problem = as_problem(m)
    assert isinstance(problem, bl.PyomoProblem)
    half = math.sqrt(0.5)
    c = check(problem, problem.vector({"x": 1.0}, {"y": half, "z": half}), claim=Claim.GLOBAL)
    assert (c.verdict, c.response) == ("verified", "unique"), c.reason


def cvxpy_problem(name: str) -> tuple[bl.CvxpyProblem, dict[str, Any], dict[str, Any]]:
    x, p = cp.Variable(name="x", bounds=[0.5, 2]), cp.Parameter(name="p", nonneg=True)
    if name == "entr":
        y = cp.Variable(name="y", bounds=[0, 3])
        lower = cp.Problem(cp.Maximize(cp.entr(y) + p * y))
        return bl.CvxpyProblem(cp.Problem(cp.Minimize(x**2 - 3 * y)), lower, {p: x}), {"x": 2.0}, {"y": math.e}
    y = cp.Variable(2, name="y")
    if name == "log-sum-exp":
        lower = cp.Problem(cp.Minimize(cp.log_sum_exp(y) - p * cp.sum(y) / 4 + cp.sum_squares(y)))
        at = -0.125  # 1/2 - 1/4 + 2 y = 0
    else:
        lower = cp.Problem(cp.Minimize(cp.quad_over_lin(y[0], y[1]) + y[1] - p * y[0]), [y[1] >= 1])
        at = 0.5  # y1 = 1, y0 = p / 2
    upper = cp.Problem(cp.Minimize((x - 1) ** 2 + y[0] - y[1]))
    second = at if name == "log-sum-exp" else 1.0
    return bl.CvxpyProblem(upper, lower, {p: x}), {"x": 1.0}, {"y": [at, second]}


@pytest.mark.parametrize("name", ["entr", "log-sum-exp", "quad-over-lin"])
def test_the_exact_answer_of_a_convex_atom_is_verified(name: str) -> None:
    problem, x, y = cvxpy_problem(name)
    c = check(problem, problem.vector(x, y), claim=Claim.GLOBAL)
    assert c.verdict == "verified", c.reason
    assert c.response != "ties"
    assert c.better_response is None


def test_true_ties_of_a_nonlinear_follower_are_still_seen() -> None:
    """(y + z - x)^4 leaves y and z free along a line; the leader wants y large."""
    m = pyo.ConcreteModel(name="valley")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y, m.follower.z = pyo.Var(bounds=(0, 1)), pyo.Var(bounds=(0, 1))
    m.follower.objective = pyo.Objective(
        expr=pyo.exp(m.follower.y + m.follower.z - m.x) - (m.follower.y + m.follower.z)
    )
    m.objective = pyo.Objective(expr=-m.follower.y + m.x)
    problem = bl.PyomoProblem(m)
    c = check(problem, problem.vector({"x": 1.0}, {"y": 0.0, "z": 1.0}), claim=Claim.GLOBAL)
    assert (c.verdict, c.response) == ("refuted", "ties")
    assert c.better_response == pytest.approx(0.0, abs=0.02)
    best = check(problem, problem.vector({"x": 1.0}, {"y": 1.0, "z": 0.0}), claim=Claim.GLOBAL)
    assert best.verdict == "verified", best.reason


EXP, SQUARE = ex.Call("exp", ex.Column(0)), Function(0.0, {}, {(0, 0): 1.0, (1, 1): 1.0})


@pytest.mark.parametrize(
    ("program", "at", "shown"),
    [
        (Program((Variable("y"),), Function(0.0, {0: -1.0}, nonlinear=EXP)), [0.0], True),
        # flat in the second column
        (Program((Variable("y"), Variable("z", 0, 1)), Function(0.0, {0: -1.0}, nonlinear=EXP)), [0.0, 0.5], False),
        # a vertex with positive multipliers
        (
            Program((Variable("y", 0.0), Variable("z", 0.0)), Function(0.0, {1: 1.0}, nonlinear=EXP)),
            [0.0, 0.0],
            True,
        ),
        # a face: the multiplier of z vanishes
        (Program((Variable("y", 0.0), Variable("z", 0.0)), Function(nonlinear=EXP)), [0.0, 0.0], False),
        # linear over a disc, and over half of one whose straight side is optimal
        (
            Program((Variable("y"), Variable("z")), Function(0.0, {0: 1.0}), (Row("r", SQUARE, upper=1.0),)),
            [-1.0, 0.0],
            True,
        ),
        (
            Program((Variable("y", 0.0), Variable("z")), Function(0.0, {0: 1.0}), (Row("r", SQUARE, upper=1.0),)),
            [0.0, 0.0],
            False,
        ),
        # not convex: a strict local minimum shows nothing
        (
            Program((Variable("y", -4, 4),), Function(nonlinear=ex.Call("cos", ex.Column(0)))),
            [math.pi],
            False,
        ),
    ],
)
def test_uniqueness_is_claimed_only_where_shown(program: Program, at: list[float], shown: bool) -> None:
    assert is_only_answer(program, np.array(at)) is shown


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e-6, 1e3])
def test_ties_do_not_depend_on_the_unit_of_y(unit: float) -> None:
    m = pyo.ConcreteModel(name="unit")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y, m.follower.z = pyo.Var(bounds=(0, unit)), pyo.Var(bounds=(0, 1))
    m.follower.objective = pyo.Objective(expr=m.follower.z + 0 * m.follower.y)
    m.objective = pyo.Objective(expr=-m.follower.y / unit + 0 * m.x)
    problem = bl.PyomoProblem(m)
    c = check(problem, problem.vector({"x": 0.0}, {"y": 0.0, "z": 0.0}), claim=Claim.GLOBAL)
    assert (c.verdict, c.response) == ("refuted", "ties")
    assert c.better_response == pytest.approx(-1.0)
    r = bl.solve(problem, "kkt")
    assert r.status == "optimal", r.certificate
    assert r.upper_objective == pytest.approx(-1.0)


@pytest.mark.parametrize("unit", [1.0, 1e-4, 3e-6])
def test_ties_on_a_small_row(unit: float) -> None:
    m = pyo.ConcreteModel(name="row")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y, m.follower.z = pyo.Var(bounds=(0, unit)), pyo.Var(bounds=(0, unit))
    m.follower.row = pyo.Constraint(expr=m.follower.y + m.follower.z == unit * m.x)
    m.follower.objective = pyo.Objective(expr=0 * m.follower.y)
    m.objective = pyo.Objective(expr=-m.x - m.follower.y / unit)
    r = bl.solve(m, "kkt")
    assert r.status == "optimal", r.certificate
    assert r.upper_objective == pytest.approx(-2.0, abs=1e-5)


def distance() -> bl.CvxpyProblem:
    """F = |y - 1| with an epigraph that nobody wrote; every y in [0, 1] is optimal for the follower."""
    x, y, p = cp.Variable(name="x"), cp.Variable(name="y"), cp.Parameter(name="p")
    lower = cp.Problem(cp.Minimize(0 * y), [y >= 0, y <= p])
    return bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.abs(y - 1) + 0 * x), [x >= 1, x <= 1]), lower, {p: x})


def test_better_answers_are_seen_through_hidden_columns_of_the_leader() -> None:
    problem = distance()
    worst = problem.vector({"x": 1.0}, {"y": 0.0})
    c = check(problem, worst, claim=Claim.GLOBAL)
    assert (c.verdict, c.response) == ("refuted", "ties")
    assert c.better_response == pytest.approx(0.0, abs=1e-6)
    c = check(problem, problem.vector({"x": 1.0}, {"y": 1.0}), claim=Claim.GLOBAL)
    assert c.verdict == "verified", c.reason
    assert c.worst_response in (None, pytest.approx(1.0))


def test_a_pessimistic_point_is_never_verified_through_hidden_columns() -> None:
    problem = distance()
    best = check(problem, problem.vector({"x": 1.0}, {"y": 1.0}), response="pessimistic")
    assert best.verdict != "verified"
    assert best.worst_response in (None, pytest.approx(1.0))


def test_the_limit_holds_for_the_whole_check() -> None:
    """SCIP needs minutes to prove the answer of this quartic optimal."""
    m = pyo.ConcreteModel(name="slow")
    m.x = pyo.Var(bounds=(0, 9))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 9))
    m.follower.row = pyo.Constraint(expr=m.follower.y >= m.x)
    m.follower.objective = pyo.Objective(expr=(m.follower.y - m.x) ** 4)
    m.objective = pyo.Objective(expr=-m.x + 0.5 * m.follower.y)
    c = bl.verify(m, {"x": 9.0}, {"y": 9.0}, time_limit=0.0)
    assert c.verdict == "unverifiable"
    assert "within the check's 0 s" in c.reason
    with pytest.raises(bl.UsageError, match="time limit"):
        bl.verify(m, {"x": 9.0}, {"y": 9.0}, time_limit=-1.0)


def test_a_better_answer_within_the_claimed_gap_does_not_contradict_the_claim() -> None:
    """Of the answers -1 and 1, which tie, the leader is better off with the first, by 0.004."""
    problem = pyomo_model(lambda x, y: -(y**2) + 0 * x, lambda x, y: x + 0.002 * y, (-1, 1))
    point = problem.vector({"x": 0.5}, {"y": 1.0})
    assert check(problem, point, claim=Claim.GLOBAL).verdict == "refuted"
    assert check(problem, point, claim=Claim.GLOBAL, gap=0.002).verdict == "refuted"
    near = check(problem, point, claim=Claim.GLOBAL, gap=0.006)
    assert near.verdict == "verified"
    assert near.better_response == pytest.approx(0.498, abs=1e-5)
    assert "would give the leader 0.498" in near.reason


def test_a_wide_gap_claims_no_optimum() -> None:
    problem = pyomo_model(lambda x, y: -(y**2) + 0 * x, lambda x, y: x + 0.01 * y, (-1, 1))
    assert check(problem, problem.vector({"x": 0.5}, {"y": 1.0}), claim=Claim.GLOBAL, gap=0.5).verdict == "refuted"


def test_the_gap_of_a_result_is_that_to_its_bound() -> None:
    problem = pyomo_model(lambda x, y: -(y**2) + 0 * x, lambda x, y: x + 0.002 * y, (-1, 1))
    found = bl.solve(problem, solver="global")
    worse = dataclasses.replace(
        found, x=Values(x=np.array(0.5)), y=Values({"follower.y": np.array(1.0)}), upper_objective=0.502
    )
    assert bl.verify(problem, dataclasses.replace(worse, bound=0.5)).verdict == "refuted"
    assert bl.verify(problem, dataclasses.replace(worse, bound=0.495)).verdict == "verified"
