"""`global`: optima by hand or from the literature, both kinds of leader, refusals, limits, and what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run import Event
from bilevel_core.solvers.base import Accepted
from bilevel_core.solvers.global_search.solver import SMALL, Global

from .models import bard_511, quadratic_follower, tied_follower

EPSILON = 1e-3


Bounds = tuple[float | None, float | None]


def leader_and_follower(upper: Bounds = (-1, 1), lower: Bounds = (-1, 1)) -> Any:
    """A model with x and follower.y within bounds."""
    m: Any = pyo.ConcreteModel(name="small")
    m.x = pyo.Var(bounds=upper)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=lower)
    return m


def solved(model: Any, **more: Any) -> bl.Result:
    return bl.solve(model, solver="global", **more)


def optimal(result: bl.Result, value: float) -> bl.Result:
    assert result.status == "optimal", f"{result.message} {result.certificate}"
    assert result.upper_objective == pytest.approx(value, abs=EPSILON)
    assert result.bound is not None
    assert result.bound <= value + 1e-6
    assert "Optimal within epsilon" in result.message
    return result


@pytest.mark.parametrize("model", [bard_511, quadratic_follower, tied_follower])
def test_convex_followers_agree_with_optimality_conditions(model: Any) -> None:
    expected = bl.solve(model(), solver="kkt").upper_objective
    assert expected is not None
    optimal(solved(model()), expected)


def test_both_forms_of_mitsos_and_barton() -> None:
    """Mitsos and Barton (2006), example 3.13: -1 optimistic (in the conformance tests), 0 pessimistic."""
    problem = get_registry().problems["classic/mitsos-barton-313"].load()()
    result = solved(problem, options={"response": "pessimistic"})
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(0.0, abs=EPSILON)
    assert "expects every answer within 1e-05" in result.message


def test_two_nonconvex_followers() -> None:
    # min x y - y^2 over [-1, 1]: y = -1 for x > 0, 1 for x < 0; the other the opposite
    m = leader_and_follower()
    m.other = bl.Follower()
    m.other.z = pyo.Var(bounds=(-1, 1))
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y - m.follower.y**2)
    m.other.objective = pyo.Objective(expr=-m.x * m.other.z - m.other.z**2)
    m.objective = pyo.Objective(expr=(m.x - 0.5) ** 2 - m.follower.y - 2 * m.other.z)
    # x > 0: y = -1, z = 1: at x = 0.5 the value is -1; x = 0: both free: 0.25 - 3
    optimal(solved(m), -2.75)


def test_equations_of_the_follower_that_contain_x() -> None:
    # w = x - y, so f = y^3 - (x - y)^2; y = x - w in [-1, 1] with w in [-1, 1]
    m = leader_and_follower((-0.5, 0.5))
    m.follower.w = pyo.Var(bounds=(-1, 1))
    m.follower.sum = pyo.Constraint(expr=m.follower.y + m.follower.w == m.x)
    m.follower.objective = pyo.Objective(expr=m.follower.y - m.follower.w**2)
    m.objective = pyo.Objective(expr=(m.x - 0.25) ** 2 + m.follower.y)
    # f = y - (x - y)^2 is concave in y, which lies in [x - 1, x + 1] and [-1, 1]: its least value is at an end. At
    # y = max(-1, x - 1) it is x - 2 or -1 - (x + 1)^2, at min(1, x + 1) it is x or 1 - (x - 1)^2: the lower end wins.
    # So y = x - 1 for x >= 0 and -1 below: F = (x - 1/4)^2 + x - 1 for x >= 0, least at x = 0; below, 1/16 - 1 at most.
    optimal(solved(m), 0.0625 - 1.0)


def test_an_equation_of_the_follower_that_is_curved_in_x() -> None:
    # f = w^2 y is not negative for y >= 0; below, w = 2 exp(x) - y > 0 and df/dy = w (w - 2 y) > 0: y = -1
    m = leader_and_follower()
    m.follower.w = pyo.Var()
    m.follower.tie = pyo.Constraint(expr=m.follower.w == 2 * pyo.exp(m.x) - m.follower.y)
    m.follower.objective = pyo.Objective(expr=m.follower.w**2 * m.follower.y)
    m.objective = pyo.Objective(expr=m.follower.w - 2 * m.x)
    # F = 2 exp(x) + 1 - 2 x is least at x = 0
    result = optimal(solved(m, options={"max_iterations": 20}), 3.0)
    assert float(result.y["y"]) == pytest.approx(-1.0, abs=1e-3)


def test_an_equation_that_no_answer_keeps_is_named() -> None:
    m = leader_and_follower((0.5, 1))
    m.follower.z = pyo.Var(bounds=(-2, 2))
    m.follower.circle = pyo.Constraint(expr=m.follower.y**2 + m.follower.z**2 == m.x)
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.objective = pyo.Objective(expr=m.x)
    with pytest.raises(bl.RefusedError, match=r"'follower\.circle'.*eliminated"):
        solved(m)


def test_integers_at_both_levels() -> None:
    # y integer in [-3, 3] minimises (y^2 - x)^2 + 0.1 y, x integer in [0, 9]: y = -round(sqrt(x)) up to ties
    m = leader_and_follower((0, 9), (-3, 3))
    m.x.domain = pyo.Integers
    m.follower.y.domain = pyo.Integers
    m.follower.objective = pyo.Objective(expr=(m.follower.y**2 - m.x) ** 2 + 0.1 * m.follower.y)
    m.objective = pyo.Objective(expr=(m.x - 8) ** 2 + 3 * m.follower.y)
    values = {x: min(range(-3, 4), key=lambda y: (y * y - x) ** 2 + 0.1 * y) for x in range(10)}
    result = optimal(solved(m), min((x - 8) ** 2 + 3 * y for x, y in values.items()))
    assert float(result.x["x"]) == round(float(result.x["x"]))


def test_the_leader_s_variables_are_within_their_bounds_to_the_last_digit() -> None:
    # SCIP gives x as 1 + 1e-8, where the value is better than it can be
    m = leader_and_follower()
    m.follower.objective = pyo.Objective(expr=m.x**2)
    m.objective = pyo.Objective(expr=m.x * m.follower.y)
    result = optimal(solved(m), -1.0)
    assert abs(float(result.x["x"])) <= 1.0
    assert abs(float(result.y["y"])) <= 1.0


def test_bounds_are_derived_from_a_known_point() -> None:
    # x is free: beside the value at a known point only |x - 2| <= 3 or so matters
    m = leader_and_follower((None, None))
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y)
    m.objective = pyo.Objective(expr=(m.x - 2) ** 2 + m.follower.y)
    optimal(solved(m), -1.0)


def test_a_variable_without_bounds_is_named() -> None:
    m = leader_and_follower((0, None))
    m.follower.objective = pyo.Objective(expr=-(m.follower.y**2) * m.x)
    m.objective = pyo.Objective(expr=-m.x)
    with pytest.raises(bl.RefusedError, match=r"Variable 'x' has no finite bounds"):
        solved(m)


def test_a_follower_without_an_optimal_answer() -> None:
    m = leader_and_follower((0, 1), (None, None))
    m.follower.objective = pyo.Objective(expr=-(m.follower.y**3))
    m.objective = pyo.Objective(expr=m.x)
    result = solved(m)
    assert result.termination == "lower-unbounded"
    assert not result.has_point


def test_functions_that_scip_does_not_know_are_named() -> None:
    m = leader_and_follower()
    m.follower.objective = pyo.Objective(expr=pyo.tan(m.follower.y))
    m.objective = pyo.Objective(expr=m.x)
    with pytest.raises(bl.RefusedError, match=r"tan\(\)"):
        solved(m)


def test_functions_that_scip_knows() -> None:
    # f = |y| - x sin(3 y) / 2 on [0, 1]; log, sqrt and exp at the leader's
    m = leader_and_follower((0.5, 1), (0, 1))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=abs(y - 0.25) + pyo.cos(3 * y) * m.x / 10)
    m.objective = pyo.Objective(expr=pyo.exp(m.x) + pyo.log(m.x) + pyo.sqrt(y) + 1 / (1 + y))
    # the kink dominates: the slope of the cosine term is at most 0.3, so y = 1/4 whatever x is
    optimal(solved(m), 2.718281828459045**0.5 - 0.6931471805599453 + 0.5 + 0.8)


def test_a_kink_of_the_leader_s_in_a_constraint_of_the_follower() -> None:
    # y <= |x| - 1/4 has no derivative by x at 0; f = -y^3 wants y as large as that: F = x + |x| - 1/4, least for x <= 0
    m = leader_and_follower()
    m.follower.row = pyo.Constraint(expr=m.follower.y <= abs(m.x) - 0.25)
    m.follower.objective = pyo.Objective(expr=-(m.follower.y**3))
    m.objective = pyo.Objective(expr=2 * m.x + m.follower.y)
    optimal(solved(m), -1.25)


def test_a_pessimist_counts_what_ties() -> None:
    result = solved(tied_follower(), options={"response": "pessimistic"})
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(0.0, abs=EPSILON)


@pytest.mark.parametrize("tied", ["a variable of its own", "a sum"])
def test_a_pessimist_gets_the_worst_of_ties_beside_a_curved_objective(tied: str) -> None:
    # min exp(u) - u has u = 0: with u = y and z free; with u = y + z and y = -z, where z in [0, 1] is free
    m = leader_and_follower()
    m.follower.z = pyo.Var(bounds=(0, 1))
    y, z = m.follower.y, m.follower.z
    u = y if tied == "a variable of its own" else y + z
    m.follower.objective = pyo.Objective(expr=pyo.exp(u) - u)
    m.objective = pyo.Objective(expr=m.x**2 - z)
    optimal(solved(m), -1.0)
    m.objective.expr = m.x**2 + z
    result = solved(m, options={"response": "pessimistic"})
    assert result.status == "optimal", result.certificate
    assert result.upper_objective == pytest.approx(1.0, abs=EPSILON)


def test_a_pessimist_does_not_trust_a_tie_with_a_constraint() -> None:
    # the follower does not care for y in [0, 1]; the leader needs y <= x + 0.25 at every answer: x >= 0.75
    m = leader_and_follower((0, 1), (0, 1))
    m.follower.objective = pyo.Objective(expr=0 * m.follower.y + m.x)
    m.needed = pyo.Constraint(expr=m.follower.y <= m.x + 0.25)
    m.objective = pyo.Objective(expr=m.x)
    optimal(solved(m), 0.0)
    result = solved(m, options={"response": "pessimistic"})
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(0.75, abs=EPSILON)


def test_a_pessimist_expects_answers_within_the_slack() -> None:
    # f = y^2: answers within 0.01 of optimal have |y| <= 0.1, those within half of it |y| <= 0.0707
    m = leader_and_follower((0, 1))
    m.follower.objective = pyo.Objective(expr=m.follower.y**2 + 0 * m.x)
    m.objective = pyo.Objective(expr=m.x + m.follower.y)
    result = solved(m, options={"response": "pessimistic", "lower_absolute": 0.01})
    assert result.bound is not None
    assert 0.07 - EPSILON <= result.bound <= 0.1
    assert result.upper_objective == pytest.approx(0.0, abs=1e-2)


def hard() -> Any:
    """A problem that takes several rounds: Mitsos and Barton (2006), example 3.13."""
    return get_registry().problems["classic/mitsos-barton-313"].load()()


def test_what_the_log_shows_and_stopping_keeps_the_best_point() -> None:
    events: list[Event] = []

    def watch(event: Event) -> bool:
        events.append(event)
        return event.kind == "incumbent"

    result = solved(hard(), callbacks=(watch,))
    assert result.termination == "stopped-by-user"
    assert result.has_point
    assert result.claim == "feasible"
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    shown = [e.data for e in events if e.kind == "iteration"][-1]
    assert {"iteration", "best", "bound", "gap", "cuts", "solves"} <= set(shown)
    (point,) = [e.data for e in events if e.kind == "incumbent"]
    assert point["objective"] == pytest.approx(result.upper_objective)


def test_an_interrupt_keeps_the_best_point_and_the_bound() -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "incumbent":
            raise KeyboardInterrupt

    result = solved(hard(), callbacks=(interrupt,))
    assert result.termination == "stopped-by-user"
    assert result.has_point
    assert result.bound is not None
    assert result.upper_objective is not None
    assert result.bound <= result.upper_objective
    assert "gap" in result.message


def test_limits() -> None:
    result = solved(hard(), options={"max_iterations": 1})
    assert result.termination == "iteration-limit"
    assert result.claim <= bl.Claim.FEASIBLE
    assert result.counts["relaxations"] == 1
    m = leader_and_follower()  # the follower answers 1 or -1, which the leader cannot use: no point, but a bound
    m.follower.objective = pyo.Objective(expr=0.1 * m.x * m.follower.y - m.follower.y**2)
    m.needed = pyo.Constraint(expr=m.follower.y**2 <= 0.5)
    m.objective = pyo.Objective(expr=-m.x, sense=pyo.maximize)
    result = solved(m, options={"max_iterations": 1})
    assert result.termination == "iteration-limit"
    assert not result.has_point
    assert result.bound == pytest.approx(1.0, abs=EPSILON)
    result = solved(hard(), time_limit=0.0)
    assert result.termination == "time-limit"
    assert not result.has_point


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upper_absolute": -1.0}, "Expected upper_absolute >= 0"),
        ({"upper_absolute": 0.0, "upper_relative": 0.0}, "at least 1e-08"),
        ({"lower_absolute": 0.0, "lower_relative": 1e-9}, "at least 1e-06"),
        ({"max_iterations": 0}, "Expected max_iterations >= 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(bl.UsageError, match=message):
        solved(bard_511(), options=options)


def test_the_automatic_choice_is_of_solvers_that_have_the_options_given() -> None:
    problem = get_registry().problems["trap/no-multipliers"].load()()
    found = bl.solve(problem, options={"complementarity": "sos1"}, time_limit=30.0, verify=False)
    assert found.solver == "kkt"  # `global`, which would be chosen otherwise, has no such option
    with pytest.raises(bl.UsageError, match="no option named 'complementary'"):
        bl.solve(problem, options={"complementary": "sos1"})


def test_the_automatic_choice() -> None:
    assert bl.classify(bard_511()).chosen == "kkt"
    assert bl.classify(hard()).chosen == "global"
    assert bl.classify(get_registry().problems["trap/no-multipliers"].load()()).chosen == "global"


def test_larger_problems_get_a_local_method_and_are_told_why() -> None:
    m: Any = pyo.ConcreteModel(name="larger")
    m.x = pyo.Var(range(SMALL), bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(range(SMALL), bounds=(-1, 1))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=sum(m.x[i] * y[i] + y[i] ** 4 - y[i] ** 3 for i in range(SMALL)))
    m.objective = pyo.Objective(expr=sum((m.x[i] - 1) ** 2 + y[i] for i in range(SMALL)))
    found = bl.classify(m)
    assert found.chosen not in (None, "global")
    verdict = found.verdicts[str(found.chosen)]
    assert isinstance(verdict, Accepted)
    assert bl.Claim(verdict.claim) <= bl.Claim.LOCAL
    assert f"not chosen by itself: with {2 * SMALL} variables" in str(found)


def test_every_option_has_a_help_text() -> None:
    assert all(f.metadata["help"] for f in dataclasses.fields(Global))
