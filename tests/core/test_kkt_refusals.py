"""An explanation promises nothing that the run refuses, and says what it would do with the options given."""

from __future__ import annotations

import itertools
from typing import Any

import cvxpy as cp
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.choose import build_solver
from bilevel_core.problems.base import as_problem

from .models import bard_511, quadratic_follower


def conic() -> bl.CvxpyProblem:
    x, y, p = cp.Variable(name="x"), cp.Variable(2, name="y"), cp.Parameter(name="p")
    lower = cp.Problem(cp.Minimize(cp.norm(y, 2)), [y[0] + y[1] >= p])
    return bl.CvxpyProblem(cp.Problem(cp.Minimize((x - 1) ** 2), [x >= 0, x <= 2]), lower, {p: x})


def cubic_dual() -> Any:
    """The follower's row is quadratic in x."""
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(bounds=(0, 2)), pyo.Var()
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x**2)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.o = pyo.Objective(expr=m.f.y - m.x)
    return m


OPTIONS: list[dict[str, Any]] = [
    *({"complementarity": c, "response": r} for c, r in itertools.product(
        ("sos1", "indicator", "bigm", "strong-duality", "relaxed", "penalised"), ("optimistic", "pessimistic"))),
    {"modes": {"follower": "strong-duality"}},
    {"modes": {"f": "strong-duality"}},
    {"complementarity": "bigm", "backend": "highs"},
    {"complementarity": "strong-duality", "backend": "highs"},
    {"complementarity": "bigm", "backend": "ipopt"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("build", [conic, cubic_dual, bard_511, quadratic_follower], ids=lambda b: b.__name__)
def test_a_promise_is_kept(build: Any, options: dict[str, Any]) -> None:
    problem = as_problem(build())
    try:
        build_solver(problem, "kkt", options)
    except (bl.RefusedError, bl.UsageError) as error:
        told = str(error)
        assert "These take it: kkt" not in told
        assert "take it: kkt," not in told
        return
    r = bl.solve(problem, "kkt", options, time_limit=0.5, verify=False)  # raises no refusal
    assert r.message or r.claim == "global"


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (conic, {"complementarity": "bigm"}, "second-order cones.*sos1 or indicator.*default options kkt takes it"),
        (conic, {"complementarity": "relaxed"}, "no derivative at their apex"),
        (conic, {"response": "pessimistic"}, "pessimistic"),
        (cubic_dual, {"modes": {"f": "strong-duality"}}, "not linear.*complementarity=sos1"),
        (cubic_dual, {"complementarity": "strong-duality"}, "not linear|constant coefficients"),
        (bard_511, {"complementarity": "bigm", "backend": "ipopt"}, "Ipopt takes no integer"),
    ],
)
def test_refusals_name_the_option_and_the_remedy(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(bl.RefusedError, match=f"(?s){message}"):
        build_solver(as_problem(build()), "kkt", options)


def test_the_explanation_says_what_the_options_say() -> None:
    problem = as_problem(bard_511())
    how = build_solver(problem, "kkt", {"complementarity": "bigm"})[2].how
    assert "complementarity by bigm" in how
    assert "HiGHS where it can" in how
    how = build_solver(problem, "kkt", {"complementarity": "bigm", "modes": {"follower.y": "sos1"}})[2].how
    assert "bigm and sos1, solved by SCIP" in how
    assert "adversary" in build_solver(problem, "kkt", {"response": "pessimistic"})[2].how
