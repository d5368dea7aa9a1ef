"""The independent check: what it must catch, and what it must let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.solvers.base import Refused
from bilevel_core.solvers.kkt.solver import KKT
from bilevel_core.verification import check

from .models import bard_511, quadratic_follower, tied_follower


def test_the_optimum_is_verified() -> None:
    c = bl.verify(bl.PyomoProblem(bard_511()), {"x": 4.0}, {"y": 4.0})
    assert c.verdict == "verified"
    assert c.upper_violation == c.lower_violation == 0.0
    assert c.lower_gap == pytest.approx(0.0, abs=1e-9)
    assert c.lower_value == pytest.approx(4.0)
    assert c.lower_scope == "global"
    assert c.response == "unique"


def test_a_suboptimal_follower_is_refuted_with_the_numbers() -> None:
    # at x = 4 the follower's constraints allow y = 4 only; at x = 2 they allow [1, 4], and 1 is optimal
    c = bl.verify(bl.PyomoProblem(bard_511()), {"x": 2.0}, {"y": 3.0})
    assert c.verdict == "refuted"
    assert c.lower_gap == pytest.approx(2.0)
    assert "2 worse than its optimal value 1" in c.reason


def test_violations_name_the_row() -> None:
    lower = bl.verify(bl.PyomoProblem(bard_511()), {"x": 4.0}, {"y": 3.0})
    assert lower.verdict == "refuted"
    assert "follower.rows[4]" in lower.reason
    upper = bl.verify(bl.PyomoProblem(bard_511()), {"x": -1.0}, {"y": 4.0})
    assert upper.verdict == "refuted"
    assert "leader's x" in upper.reason


def test_an_integer_variable_must_be_integer() -> None:
    m = bard_511()
    m.x.domain = pyo.NonNegativeIntegers
    c = bl.verify(bl.PyomoProblem(m), {"x": 3.5}, {"y": 3.25})
    assert c.verdict == "refuted"
    assert c.upper_violation == pytest.approx(0.5)


def test_a_follower_without_an_answer() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var()
    m.follower.objective = pyo.Objective(expr=m.follower.y, sense=pyo.maximize)
    m.follower.row = pyo.Constraint(expr=m.follower.y >= m.x)
    m.objective = pyo.Objective(expr=m.x)
    c = bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 7.0})
    assert c.verdict == "refuted"
    assert "unbounded" in c.reason


def test_ties_and_the_leaders_alternative() -> None:
    problem = bl.PyomoProblem(tied_follower())
    best = bl.verify(problem, {"x": 0.0}, {"y": 1.0})
    assert best.verdict == "verified"
    assert best.response == "ties"
    assert best.better_response is None
    worse = bl.verify(problem, {"x": 0.0}, {"y": 0.25})
    assert worse.verdict == "verified", "it is bilevel feasible all the same"
    assert worse.better_response == pytest.approx(-1.0)


def test_a_global_claim_is_refuted_by_a_better_answer_at_the_same_x() -> None:
    problem = bl.PyomoProblem(tied_follower())
    result = bl.solve(problem)
    lie = bl.Result.from_dict(result.to_dict() | {"y": {"follower.y": 0.25}, "upper_objective": -0.25})
    c = bl.verify(problem, lie)
    assert c.verdict == "refuted"
    assert c.better_response == pytest.approx(-1.0)


def test_leader_constraints_limit_the_alternatives() -> None:
    m = tied_follower()
    m.cap = pyo.Constraint(expr=m.follower.y <= 0.5)
    c = bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 0.5})
    assert c.verdict == "verified"
    assert c.better_response is None


def test_a_flat_quadratic_follower_is_held_to_its_exact_answer() -> None:
    # f = (y - 1)^2 - 1.5 x y at x = 1: the optimum over y <= 0 is y = 0. A gap of 1e-7 can hide a wrong y where f is
    # flat: f = (y - 0.5)^2, y = 0.5003 has a gap of 9e-8, and the leader's objective there is off by 3e-4 * 10.
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    m.follower.objective = pyo.Objective(expr=(m.follower.y - 0.5) ** 2)
    m.objective = pyo.Objective(expr=m.x - 10 * m.follower.y)
    c = bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 0.5003})
    assert c.lower_gap < 1e-6
    assert c.verdict == "refuted"
    assert "unique" in c.reason


def test_a_nonconvex_follower_is_resolved_globally() -> None:
    # Mitsos and Barton 3.13: at x = 0 every y is optimal; at x = -1 the follower's optimum is y = -1, not 1
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    x, y = m.x, m.follower.y
    m.follower.objective = pyo.Objective(expr=0.5 * x * y**2 - x**3 * y)
    m.objective = pyo.Objective(expr=x - y)
    problem = bl.PyomoProblem(m)
    assert bl.verify(problem, {"x": 0.0}, {"y": 1.0}).verdict == "verified"
    wrong = bl.verify(problem, {"x": -1.0}, {"y": 1.0})
    assert wrong.verdict == "refuted"
    assert wrong.lower_scope == "global"
    assert bl.verify(problem, {"x": -1.0}, {"y": -1.0}).verdict == "verified"


def test_an_integer_follower_is_resolved_over_integers() -> None:
    # MibS example: optimum -41 at (6, 5)
    m = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 10))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 5))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=-x - 7 * y)
    m.follower.objective = pyo.Objective(expr=y)
    m.rows = pyo.ConstraintList()
    m.rows.add(-3 * x + 2 * y <= 12)
    m.rows.add(x + 2 * y <= 20)
    m.follower.rows = pyo.ConstraintList()
    m.follower.rows.add(2 * x - y <= 7)
    m.follower.rows.add(-2 * x + 4 * y <= 16)
    problem = bl.PyomoProblem(m)
    assert bl.verify(problem, {"x": 6.0}, {"y": 5.0}).verdict == "verified"
    assert bl.verify(problem, {"x": 4.0}, {"y": 5.0}).verdict == "refuted"


def test_a_value_that_hinges_on_rounding_is_unverifiable_not_refuted() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.NonNegativeReals)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var()
    m.objective = pyo.Objective(expr=(m.x - 3.5) ** 2 + (m.follower.y + 4) ** 2)
    m.follower.objective = pyo.Objective(expr=(m.follower.y - 3) ** 2)
    m.follower.row = pyo.Constraint(expr=m.follower.y**2 <= m.x)
    problem = bl.PyomoProblem(m)
    c = bl.verify(problem, {"x": 0.0}, {"y": 0.0})
    assert c.verdict in ("verified", "unverifiable")
    assert bl.verify(problem, {"x": 1.0}, {"y": 1.0}).verdict == "verified"
    assert bl.verify(problem, {"x": 1.0}, {"y": 0.9}).verdict == "refuted"


def test_a_row_that_pins_the_answer_is_read_exactly() -> None:
    # y^2 <= 0: a solver with tolerances takes y = -3e-5; x^2 y would then be 3e-5 below its optimal value 0
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-10, 10))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-10, 10))
    m.objective = pyo.Objective(expr=(m.x - 1) ** 2 + m.follower.y**2)
    m.follower.objective = pyo.Objective(expr=m.x**2 * m.follower.y)
    m.follower.row = pyo.Constraint(expr=m.follower.y**2 <= 0)
    c = bl.verify(bl.PyomoProblem(m), {"x": 1.0}, {"y": 0.0})
    assert c.verdict == "verified"
    assert c.lower_value == 0.0


def test_flat_objectives_do_not_make_better_answers() -> None:
    # Mitsos and Barton (2006), example 3.14: beside y = 1/2 the follower loses 1e-7 and the leader gains 3e-4
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    m.objective = pyo.Objective(expr=(m.x - 0.25) ** 2 + m.follower.y**2)
    m.follower.objective = pyo.Objective(expr=m.follower.y**3 / 3 - m.x * m.follower.y)
    problem = bl.PyomoProblem(m)
    c = check(problem, problem.vector({"x": 0.25}, {"y": 0.5}), claim=bl.Claim.GLOBAL)
    assert c.verdict == "verified", c.reason
    assert c.better_response is None


def test_undefined_functions_are_refuted_by_name() -> None:
    m = bard_511()
    m.row = pyo.Constraint(expr=pyo.log(m.x - 1) <= 5)
    c = bl.verify(bl.PyomoProblem(m), {"x": 0.5}, {"y": 1.0})
    assert c.verdict == "refuted"
    assert "row" in c.reason


def test_a_model_changed_after_reading_is_noticed() -> None:
    m = quadratic_follower()
    m.weight = pyo.Param(initialize=1.0, mutable=True)
    m.objective.expr = m.weight * m.x
    problem = bl.PyomoProblem(m)
    assert bl.verify(problem, {"x": 1.0}, {"y": 0.0}).verdict == "verified"
    m.weight.set_value(2.0)
    c = bl.verify(problem, {"x": 1.0}, {"y": 0.0})
    assert c.verdict == "unverifiable"
    assert "changed" in c.reason


def test_each_follower_is_checked() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.f = bl.Follower([1, 2])
    for i in (1, 2):
        m.f[i].y = pyo.Var(bounds=(0, 1))
        m.f[i].objective = pyo.Objective(expr=m.f[i].y, sense=pyo.maximize)
    m.objective = pyo.Objective(expr=m.x)
    problem = bl.PyomoProblem(m)
    good = bl.verify(problem, {"x": 0.0}, {"f[1].y": 1.0, "f[2].y": 1.0})
    assert good.verdict == "verified"
    assert good.lower_value == (1.0, 1.0)
    bad = bl.verify(problem, {"x": 0.0}, {"f[1].y": 1.0, "f[2].y": 0.0})
    assert bad.verdict == "refuted"
    assert "'f[2]'" in bad.reason


def test_many_followers_are_looked_at_one_by_one_with_the_same_outcome() -> None:
    """The leader's best among the followers' ties: by the joint problem and follower by follower."""

    def tied(coupled: bool) -> pyo.ConcreteModel:
        m = pyo.ConcreteModel()
        m.x = pyo.Var(bounds=(0, 2))
        m.f = bl.Follower([1, 2, 3])
        for i in (1, 2, 3):
            m.f[i].y = pyo.Var([0, 1], bounds=(0, 4))
            m.f[i].row = pyo.Constraint(expr=m.f[i].y[0] + m.f[i].y[1] >= i)
            m.f[i].objective = pyo.Objective(expr=m.f[i].y[0] + m.f[i].y[1])
        m.objective = pyo.Objective(expr=m.x + sum((1 + m.x) * m.f[i].y[0] - m.f[i].y[1] for i in (1, 2, 3)))
        if coupled:  # a constraint that never binds, so that the joint problem is solved
            m.row = pyo.Constraint(expr=m.f[1].y[0] + m.f[2].y[0] <= 100)
        return m

    y = {f"f[{i}].y": [float(i), 0.0] for i in (1, 2, 3)}
    for coupled in (False, True):
        c = bl.verify(bl.PyomoProblem(tied(coupled)), {"x": 1.0}, y)
        assert c.verdict == "verified"
        assert c.better_response == pytest.approx(1.0 - 6.0)
        r = bl.solve(tied(coupled))
        assert r.status == "optimal"
        assert r.upper_objective == pytest.approx(-6.0)


MODES = get_args(get_type_hints(KKT)["complementarity"])


@pytest.mark.parametrize("mode", MODES)
def test_without_multipliers_at_the_optimum_no_more_than_stationary_is_claimed(mode: str) -> None:
    """Dempe (1992): the optimum is 28.25 at (0, 0), where the follower has no multipliers."""
    problem = get_registry().problems["trap/no-multipliers"].load()()
    accepted = KKT(complementarity=mode).accepts(bl.classify(problem).traits)  # type: ignore[arg-type]
    if isinstance(accepted, Refused):
        assert "follower" in accepted.reason
        return
    assert accepted.claim <= bl.Claim.STATIONARY
    r = bl.solve(problem, solver="kkt", options={"complementarity": mode}, time_limit=30)
    assert r.claim <= bl.Claim.STATIONARY
    assert r.status not in ("optimal", "locally-optimal")
    if r.has_point:
        assert r.upper_objective is not None
        assert r.upper_objective >= 28.25 - 1e-4
        assert r.bound is None


@pytest.mark.parametrize("mode", MODES)
def test_no_constraint_qualification_at_any_x(mode: str) -> None:
    """y^2 <= 0 has no multipliers for min y: the conditions have no solution, which proves nothing of the problem."""
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    m.follower.row = pyo.Constraint(expr=m.follower.y**2 <= 0)
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.objective = pyo.Objective(expr=m.x - m.follower.y)
    traits = bl.classify(bl.PyomoProblem(m)).traits
    if isinstance(KKT(complementarity=mode).accepts(traits), Refused):  # type: ignore[arg-type]
        assert mode == "strong-duality"
        return
    r = bl.solve(m, solver="kkt", options={"complementarity": mode}, time_limit=2)
    assert r.claim <= bl.Claim.STATIONARY
    assert r.status not in ("optimal", "locally-optimal", "infeasible", "unbounded")


def test_the_leaders_worst_value_is_reported_where_the_follower_has_ties() -> None:
    problem = bl.PyomoProblem(tied_follower())
    c = bl.verify(problem, {"x": 0.0}, {"y": 1.0})
    assert c.verdict == "verified"
    assert c.better_response is None
    assert c.worst_response == pytest.approx(0.0, abs=1e-9)
    unique = bl.verify(bl.PyomoProblem(bard_511()), {"x": 4.0}, {"y": 4.0})
    assert unique.worst_response is None


def test_the_worst_value_is_in_the_leaders_sense() -> None:
    m = tied_follower()
    m.objective.expr = 5 * m.follower.y - m.x
    m.objective.sense = pyo.maximize
    c = bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 1.0})
    assert c.verdict == "verified"
    assert c.worst_response == pytest.approx(0.0, abs=1e-8)
    risky = bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 0.25})
    assert risky.better_response == pytest.approx(5.0)
    assert risky.worst_response == pytest.approx(0.0, abs=1e-8)


class WithHidden(bl.PyomoProblem):
    """A problem one of whose follower's columns is nobody's: the follower does not care about it."""

    def groups(self):  # type: ignore[no-untyped-def]
        upper, lower = super().groups()
        return upper, tuple(replace(g, hidden=g.name.endswith("spare")) for g in lower)

    def complete(self, values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(values)


def test_hidden_columns_make_no_ties() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 1))
    m.follower.spare = pyo.Var(bounds=(0, 1))
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.objective = pyo.Objective(expr=m.x - m.follower.y)
    assert bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 0.0, "spare": 0.0}).response == "ties"
    problem = WithHidden(m)
    assert check(problem, problem.vector({"x": 0.0}, {"y": 0.0})).response == "unique"


@pytest.mark.parametrize(
    ("x", "verdict"), [(0.0, "verified"), (3e-17, "verified"), (-3e-17, "verified"), (1e-6, "refuted")]
)
def test_what_is_optimal_only_for_x_rounded_otherwise_is_not_refuted(x: float, verdict: str) -> None:
    """The follower's x y is 0 at x = 0 for every y, and 3e-17 y beside it."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y)
    m.objective = pyo.Objective(expr=-m.follower.y - m.x)
    assert bl.verify(bl.PyomoProblem(m), {"x": x}, {"follower.y": 1.0}).verdict == verdict
    assert bl.verify(bl.PyomoProblem(m), {"x": x}, {"follower.y": 0.5}).verdict == (
        "refuted" if verdict == "refuted" else "verified"
    )


def test_cancelled_coefficients_are_zero() -> None:
    """x + exp(x) vanishes at -0.567..., up to its last digit, and there only may the leader have y = 0."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y + m.follower.y * pyo.exp(m.x))
    m.objective = pyo.Objective(expr=m.follower.y**2)
    m.c = pyo.Constraint(expr=(-0.1, m.follower.y, 0.1))
    for digit in (-2e-16, -1e-16, 0.0, 1e-16, 2e-16):
        found = bl.verify(bl.PyomoProblem(m), {"x": -0.5671432904097838 + digit}, {"follower.y": 0.0})
        assert found.verdict == "verified", found.reason
