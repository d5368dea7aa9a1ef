"""Followers whose objective has no finite slope at an edge: conditions lose their answers, and it is said."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.program import Variable, collect
from bilevel_core.program import expression as ex
from bilevel_core.traits.slopes import finite_slopes

X, Y = ex.Column(0), ex.Column(1)
ROOT, LOG, INVERSE = ex.call("sqrt", Y), ex.call("log", Y), ex.power(Y, ex.Constant(-1.0))


@pytest.mark.parametrize(
    ("node", "low", "finite"),
    [
        (ROOT, 0.0, False),
        (ROOT, 0.1, True),
        (ex.power(Y, ex.Constant(0.5)), 0.0, False),
        (ex.power(Y, ex.Constant(1.5)), 0.0, True),
        (ex.power(Y, ex.Constant(4.0)), -1.0, True),
        (ex.call("exp", Y), float("-inf"), True),
        (LOG, 0.0, True),  # infinite itself at 0
        (INVERSE, 0.0, True),
        (ex.multiply(Y, LOG), 0.0, False),  # the entropy: 0 at 0, with an infinite slope
        (ex.multiply(Y, LOG), 0.1, True),
        (ex.multiply(X, LOG), 0.0, False),  # x may be 0
        (ex.multiply(ex.add(X, ex.Constant(1.0)), LOG), 0.0, True),
        (ex.call("exp", ex.multiply(ex.Constant(0.5), LOG)), 0.0, False),  # sqrt in disguise
        (ex.multiply(ex.call("sqrt", X), ex.power(Y, ex.Constant(3.0))), 0.0, True),  # no derivative by x is taken
        (ex.call("sqrt", ex.add(X, ex.multiply(Y, Y))), 0.0, False),
        (ex.call("sqrt", ex.add(ex.Constant(1.0), ex.multiply(Y, Y))), 0.0, True),
        (ex.call("abs", Y), -1.0, False),
    ],
    ids=str,
)
def test_where_slopes_are_finite(node: ex.Expression, low: float, finite: bool) -> None:
    columns = (Variable("x", 0.0, 1.0), Variable("y", low))
    assert finite_slopes(collect(node), columns, frozenset({1})) is finite


def pyomo_root(kind: str) -> Any:
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(domain=pyo.Binary), pyo.Var(bounds=(0, 2))
    m.f.c = pyo.Constraint(expr=m.f.y <= m.x)
    value = pyo.sqrt(m.f.y) if kind == "sqrt" else m.f.y**0.5
    m.f.o = pyo.Objective(expr=value, sense=pyo.maximize)
    m.o = pyo.Objective(expr=m.x + 0.5 * m.f.y)
    return m


def cvxpy_root(kind: str) -> bl.CvxpyProblem:
    x, y = cp.Variable(name="x", boolean=True), cp.Variable(name="y", nonneg=True)
    p = cp.Parameter(name="p")
    value = {"sqrt": cp.sqrt(y), "entr": cp.entr(y) + y}[kind]
    return bl.CvxpyProblem(cp.Problem(cp.Minimize(x + 0.5 * y)), cp.Problem(cp.Maximize(value), [y <= p]), {p: x})


@pytest.mark.parametrize("mode", ["sos1", "indicator", "bigm"])
@pytest.mark.parametrize(
    ("build", "kind"), [(pyomo_root, "sqrt"), (pyomo_root, "power"), (cvxpy_root, "sqrt"), (cvxpy_root, "entr")]
)
def test_no_global_claim_where_answers_have_no_slope(build: Any, kind: str, mode: str) -> None:
    """x = 0 forces y = 0, where the slope is infinite: the optimum 0 satisfies no optimality conditions."""
    problem = build(kind)
    how = bl.classify(problem).verdicts["kkt"]
    assert isinstance(how, bl.Refused) or how.claim == "stationary"
    r = bl.solve(problem, solver="kkt", options={"complementarity": mode}, time_limit=20)
    assert r.claim <= bl.Claim.STATIONARY
    assert r.status != "optimal"
    assert "slope" in r.message or "multipliers" in r.message


def test_a_smooth_follower_keeps_its_claim() -> None:
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(bounds=(0.5, 2)), pyo.Var(bounds=(-3, 3))
    m.f.o = pyo.Objective(expr=pyo.exp(m.f.y) - m.x * m.f.y)
    m.o = pyo.Objective(expr=m.x**2 - 2 * m.f.y)
    r = bl.solve(m, solver="kkt")
    assert r.claim == "global"
    assert r.upper_objective == pytest.approx(1.0, abs=1e-4)
