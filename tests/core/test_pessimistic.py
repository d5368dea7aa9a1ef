"""Pessimistic solutions: the worst of a linear follower's optimal answers, against enumeration of vertices."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable
from bilevel_core.reductions import Chain
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.pessimistic import Pessimistic, unique
from bilevel_core.verification import check

from .models import bard_511, quadratic_follower, tied_follower

PESSIMISTIC = {"response": "pessimistic"}


def example() -> BilevelProgram:
    """The leader: min x + 2 y over x in [0, 2], 1 <= x + y <= 4; the follower: min -z over y + z <= x + 1, z <= 1."""
    return BilevelProgram(
        columns=(Variable("x", 0.0, 2.0), Variable("y", 0.0), Variable("z", 0.0)),
        leader=Level(
            "leader", Function(0.0, {0: 1.0, 1: 2.0}), (Row("both", Function(0.0, {0: 1.0, 1: 1.0}), 1.0, 4.0),), (0,)
        ),
        followers=(
            Level(
                "f",
                Function(0.0, {2: -1.0}),
                (
                    Row("sum", Function(0.0, {0: -1.0, 1: 1.0, 2: 1.0}), upper=1.0),
                    Row("top", Function(0.0, {2: 1.0}), upper=1.0),
                ),
                (1, 2),
            ),
        ),
    )


ADVERSARIES = """\
leader: minimise x + 2 y (worst)
  both: x + y (worst for both) <= 4
  both:lower: x + y (worst for both:lower) >= 1
  sum: -x + y + z <= 1
  top: z <= 1
  y:not unbounded: -multiplier of sum >= 0
  z:not unbounded: -multiplier of sum - multiplier of top >= 1
  x in [0, 2] real
  y in [0, inf] real
  z in [0, inf] real
  multiplier of sum in [-inf, 0] real
  multiplier of top in [-inf, 0] real
worst: minimise -x - 2 y (worst)
  sum: -x + y (worst) + z (worst) <= 1
  top: z (worst) <= 1
  optimal for f: z - z (worst) <= 0
  y (worst) in [0, inf] real
  z (worst) in [0, inf] real
worst for both: minimise -x - y (worst for both)
  sum: -x + y (worst for both) + z (worst for both) <= 1
  top: z (worst for both) <= 1
  optimal for f: z - z (worst for both) <= 0
  y (worst for both) in [0, inf] real
  z (worst for both) in [0, inf] real
worst for both:lower: minimise x + y (worst for both:lower)
  sum: -x + y (worst for both:lower) + z (worst for both:lower) <= 1
  top: z (worst for both:lower) <= 1
  optimal for f: z - z (worst for both:lower) <= 0
  y (worst for both:lower) in [0, inf] real
  z (worst for both:lower) in [0, inf] real"""


def test_adversaries_as_text() -> None:
    reduction = Pessimistic()
    assert reduction.accepts(example()) is None
    reduced = reduction.apply(example())
    assert reduced.text() == ADVERSARIES
    assert not reduced.is_game
    values = np.arange(float(len(reduced.columns)))
    np.testing.assert_array_equal(reduction.invert(values), [0.0, 3.0, 4.0])
    assert OptimalityConditions().accepts(reduced) is None


def test_the_chain_says_what_is_not_taken() -> None:
    program = bl.PyomoProblem(flat_quadratic()).program()
    with pytest.raises(ValueError, match=r"Pessimistic: the objective of follower 'follower' is not linear"):
        Chain(program).then(Pessimistic())


@pytest.mark.parametrize("mode", ["sos1", "bigm"])
def test_the_classic_tie(mode: str) -> None:
    """Optimistic -1 at (0, 1); pessimistic 0 at (0, 0)."""
    optimistic = bl.solve(tied_follower(), solver="kkt", options={"complementarity": mode})
    assert optimistic.upper_objective == pytest.approx(-1.0)
    assert optimistic.certificate is not None
    assert optimistic.certificate.worst_response == pytest.approx(0.0, abs=1e-9)
    r = bl.solve(tied_follower(), solver="kkt", options=PESSIMISTIC | {"complementarity": mode})
    assert r.status == "optimal" or mode == "bigm"
    assert r.upper_objective == pytest.approx(0.0, abs=1e-8)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert r.certificate.worst_response == pytest.approx(0.0, abs=1e-8)


def test_a_unique_answer_makes_no_difference() -> None:
    r = bl.solve(bard_511(), solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(-12.0)


def trade_off() -> pyo.ConcreteModel:
    """The follower shares x + 1 among y and z at equal cost; the leader pays for y and gains by x.

    At x the worst share is y = x + 1: min -3 x + 2 y gives -3 x + 2 x + 2, at x = 2: 0; optimistic -6.
    """
    m = pyo.ConcreteModel(name="trade-off")
    m.x = pyo.Var(bounds=(0, 2))
    m.follower = f = bl.Follower()
    f.y = pyo.Var(domain=pyo.NonNegativeReals)
    f.z = pyo.Var(domain=pyo.NonNegativeReals)
    f.row = pyo.Constraint(expr=f.y + f.z >= m.x + 1)
    f.objective = pyo.Objective(expr=f.y + f.z)
    m.objective = pyo.Objective(expr=-3 * m.x + 2 * f.y)
    return m


def test_the_worst_share() -> None:
    r = bl.solve(trade_off(), solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.0, abs=1e-8)
    assert float(r.x["x"]) == pytest.approx(2.0)
    assert float(r.y["y"]) == pytest.approx(3.0)
    assert bl.solve(trade_off(), solver="kkt").upper_objective == pytest.approx(-6.0)


def test_leaders_constraints_must_hold_for_every_answer() -> None:
    m = trade_off()
    m.limit = pyo.Constraint(expr=m.follower.z <= 2)
    # z may be x + 1, so x <= 1.
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert float(r.x["x"]) == pytest.approx(1.0)
    assert r.upper_objective == pytest.approx(1.0)
    problem = bl.PyomoProblem(m)
    c = check(problem, problem.vector({"x": 2.0}, {"y": 3.0, "z": 0.0}), response="pessimistic")
    assert c.verdict == "refuted"
    assert "limit" in c.reason
    m.limit.deactivate()
    m.never = pyo.Constraint(expr=m.follower.z <= 0.5)
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "infeasible"
    assert "every optimal answer" in r.message


def test_optimistic_points_are_refuted_for_a_pessimist() -> None:
    problem = bl.PyomoProblem(tied_follower())
    for y, verdict in ((0.0, "verified"), (0.5, "refuted"), (1.0, "refuted")):
        c = check(problem, problem.vector({"x": 0.0}, {"y": y}), response="pessimistic")
        assert c.verdict == verdict
    assert c.worst_response == pytest.approx(0.0, abs=1e-9)
    assert "pessimistic leader must expect" in c.reason
    with pytest.raises(bl.UsageError, match="optimistic or pessimistic"):
        check(problem, problem.vector({"x": 0.0}, {"y": 0.0}), response="gloomy")


def test_results_are_checked_as_what_they_are() -> None:
    r = bl.solve(tied_follower(), solver="kkt", options=PESSIMISTIC)
    problem = bl.PyomoProblem(tied_follower())
    assert bl.verify(problem, r).verdict == "verified"
    c = bl.verify(problem, bl.solve(tied_follower(), solver="kkt"))
    assert c.verdict == "verified"
    assert c.worst_response == pytest.approx(0.0, abs=1e-9)


def jump() -> pyo.ConcreteModel:
    """In the manner of Mitsos and Barton: at x = 0 all y in [0, 1] are optimal, for x > 0 only y = 0.

    min x + y: the infimum 0 of the worst value is not attained, since at x = 0 it is 1.
    """
    m = pyo.ConcreteModel(name="jump")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 1))
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y)
    m.objective = pyo.Objective(expr=m.x + m.follower.y)
    return m


def test_an_infimum_that_is_not_attained_is_not_called_optimal() -> None:
    r = bl.solve(jump(), solver="kkt", options=PESSIMISTIC)
    assert r.claim <= bl.Claim.FEASIBLE
    assert r.status != "optimal"
    assert "not be attained" in r.message
    assert r.bound is None or r.bound <= 1e-6


def test_a_worst_value_that_is_attained_although_it_jumps() -> None:
    m = jump()
    m.objective.expr = (m.x - 1) ** 2 + m.follower.y
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.0, abs=1e-6)


def flat_quadratic() -> pyo.ConcreteModel:
    """A convex quadratic follower with many optimal answers."""
    m = trade_off()
    m.follower.objective.expr = (m.follower.y + m.follower.z) ** 2
    return m


def test_quadratic_followers_with_several_answers_are_refused_and_their_risk_is_reported() -> None:
    m = flat_quadratic()
    with pytest.raises(bl.RefusedError, match="not linear"):
        bl.solve(m, solver="kkt", options=PESSIMISTIC)
    r = bl.solve(m, solver="kkt")
    assert r.status == "optimal"
    assert r.certificate is not None
    assert r.certificate.worst_response == pytest.approx(0.0, abs=1e-4)
    problem = bl.PyomoProblem(m)
    c = check(problem, problem.vector({"x": 2.0}, {"y": 3.0, "z": 0.0}), response="pessimistic")
    assert c.verdict == "verified"


def test_strictly_convex_followers_have_one_answer() -> None:
    """Shimizu, Ishizuka and Bard: the follower's Hessian is 2; F* = 17 at (1, 0) is that of the optimistic problem."""
    optimistic = bl.solve(quadratic_follower(), solver="kkt")
    r = bl.solve(quadratic_follower(), solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(optimistic.upper_objective)
    assert "unique" in r.message


def test_what_the_leader_sees_must_be_unique() -> None:
    m = trade_off()
    # y is unique, z is anything from x + 1 - y on.
    m.follower.objective.expr = (m.follower.y - m.x) ** 2
    assert unique(bl.PyomoProblem(m).program())
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(-2.0, abs=1e-5)
    m.objective.expr += m.follower.z
    assert not unique(bl.PyomoProblem(m).program())
    with pytest.raises(bl.RefusedError, match="not linear"):
        bl.solve(m, solver="kkt", options=PESSIMISTIC)


def test_a_follower_that_is_unbounded_at_some_x() -> None:
    """At x = 1 the follower is unbounded, at x = 0 its only answer is z = 0: -x + z is 0."""
    m = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.Binary)
    m.f = bl.Follower()
    m.f.y, m.f.z = pyo.Var(bounds=(0, None)), pyo.Var(bounds=(0, 1))
    m.f.objective = pyo.Objective(expr=-m.x * m.f.y + m.f.z)
    m.objective = pyo.Objective(expr=-m.x + m.f.z)
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.0, abs=1e-8)
    m.x.setlb(1)
    assert bl.solve(m, solver="kkt", options=PESSIMISTIC).termination == "lower-unbounded"


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_follower_is_indifferent_in_whatever_unit_it_counts(unit: float) -> None:
    m = jump()
    m.follower.objective.expr = unit * m.x * m.follower.y
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "feasible"
    assert "not be attained" in r.message


def absolute(*, own: bool) -> bl.CvxpyProblem:
    """min |y1| + |y2| - 1.5 x over x in [0, 1], where all y >= 0 with y1 + y2 = x are optimal: -x / 2, at x = 1."""
    x, y = cp.Variable(name="x", bounds=[0, 1]), cp.Variable(2, nonneg=True, name="y")
    t, p = cp.Variable(name="t"), cp.Parameter(nonneg=True, name="p")
    pieces = [a * y[0] + b * y[1] <= t for a in (1, -1) for b in (1, -1)]
    upper = (
        cp.Problem(cp.Minimize(t - 1.5 * x), pieces)
        if own
        else cp.Problem(cp.Minimize(cp.abs(y[0]) + cp.abs(y[1]) - 1.5 * x))
    )
    return bl.CvxpyProblem(upper, cp.Problem(cp.Minimize(0 * y[0]), [y[0] + y[1] == p]), leader={p: x})


def test_the_largest_sum_is_not_the_sum_of_the_largest() -> None:
    problem = absolute(own=False)
    hidden = problem.hidden_columns()
    assert Pessimistic(hidden).accepts(problem.program()) == (
        "in the leader's problem an atom with a kink is applied to followers' variables (row 'leader:abs_2'), and the "
        "worst value of a convex function is no linear program. Write it with a variable of the leader's own that is "
        "at least every linear piece of the whole expression (t >= y + z, t >= y - z, ... for abs(y) + abs(z)), and "
        "use that variable in its place"
    )
    with pytest.raises(bl.RefusedError, match="an atom with a kink"):
        bl.solve(problem, solver="kkt", options=PESSIMISTIC)
    assert bl.solve(problem, solver="kkt").upper_objective == pytest.approx(-0.5)


def test_the_remedy_for_an_absolute_value() -> None:
    r = bl.solve(absolute(own=True), solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(-0.5, abs=1e-7)
    assert float(r.x["x"]) == pytest.approx(1.0)


def test_atoms_of_the_leaders_variables_alone_stay_with_it() -> None:
    x, y = cp.Variable(name="x", bounds=[0, 1]), cp.Variable(2, nonneg=True, name="y")
    p = cp.Parameter(nonneg=True, name="p")
    upper = cp.Problem(cp.Minimize(cp.abs(x - 0.25) + 0.5 * y[0]))
    problem = bl.CvxpyProblem(upper, cp.Problem(cp.Minimize(0 * y[0]), [y[0] + y[1] == p]), leader={p: x})
    r = bl.solve(problem, solver="kkt", options=PESSIMISTIC)
    # |x - 1/4| + x / 2: least at x = 1/4.
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.125, abs=1e-7)


def test_games_and_multipliers_are_refused_by_name() -> None:
    m = trade_off()
    m.objective.expr += m.follower.dual[m.follower.row]
    with pytest.raises(bl.RefusedError, match="multipliers"):
        bl.solve(m, solver="kkt", options=PESSIMISTIC)
    m = trade_off()
    m.other = bl.Follower()
    m.other.w = pyo.Var(bounds=(0, 1))
    m.other.objective = pyo.Objective(expr=m.other.w * m.follower.y)
    with pytest.raises(bl.RefusedError, match="Nash"):
        bl.solve(m, solver="kkt", options=PESSIMISTIC)


def test_where_the_leader_does_not_depend_on_the_answer() -> None:
    m = trade_off()
    m.objective.expr = m.x
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.0, abs=1e-9)


def test_endless_harm_and_endless_followers_are_told_apart() -> None:
    m = trade_off()
    m.follower.objective.expr = m.follower.z
    # y is free to grow, at no cost to the follower: the leader's worst value has no limit.
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.termination == "infeasible"
    assert "worse without end" in r.message
    m.follower.objective.expr = -m.follower.z
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    assert r.termination == "lower-unbounded"


def test_the_worst_answer_and_multipliers_are_told() -> None:
    assert "0 for the leader" in str(bl.solve(trade_off(), solver="kkt"))
    assert "for the leader" not in str(bl.solve(bard_511(), solver="kkt")).split("follower's answer")[1]
    m = trade_off()
    m.objective.expr += m.follower.dual[m.follower.row]
    assert "with followers' multipliers" in bl.classify(m).traits.label


def test_the_worst_response_has_no_limit() -> None:
    m = trade_off()
    m.follower.objective.expr = m.follower.z
    r = bl.solve(m, solver="kkt")
    assert r.certificate is not None
    assert r.certificate.worst_response == np.inf
    assert bl.Result.from_json(r.to_json()) == r
