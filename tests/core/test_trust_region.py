"""`trust-region` with a bilevel model: what it reaches, what it claims, how it treats the leader's constraints."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.errors import RefusedError, UsageError
from bilevel_core.lower import LowerSettings, respond
from bilevel_core.oracles import make_oracle
from bilevel_core.plugins.registry import get_registry
from bilevel_core.problems.base import as_problem
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.trust_region.bilevel import BilevelState
from bilevel_core.solvers.trust_region.model import Region, build, convex_part, exact_lower, solve
from bilevel_core.solvers.trust_region.solver import TrustRegion
from bilevel_core.traits import derive_traits

from .models import bard_511, tied_follower

LIBRARY = {
    name: spec
    for name, spec in get_registry().problems.items()
    if name.startswith(("classic/", "trap/"))
    and spec.known is not None
    and spec.known.upper_objective is not None
    and "nonconvex" not in spec.tags
}
OPTIONS: dict[str, dict[str, Any]] = {"trap/no-multipliers": {"tolerance": 1e-4}}
"""There the first start creeps towards an inflection at x = 1; a start on its other side finds the optimum."""


def iterate(solver: TrustRegion, problem: Any, x0: list[float]) -> tuple[Any, list[Any]]:
    """All states of one start."""
    oracle = make_oracle(as_problem(problem))
    context = RunContext()
    states = [solver.init(oracle, np.array(x0), context)]
    while solver.done(states[-1]) is None and len(states) < 200:
        states.append(solver.step(oracle, states[-1], context))
    return oracle, states


def exponential_follower() -> pyo.ConcreteModel:
    """The follower answers y = log(x): min (x - 4)^2 + 6 y over [0.5, 6] is at x = 3 or 1, where it is 1 + 6 log 3."""
    m = pyo.ConcreteModel(name="exponential")
    m.x = pyo.Var(bounds=(0.5, 6), initialize=2)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-5, 5))
    m.follower.objective = pyo.Objective(expr=pyo.exp(m.follower.y) - m.x * m.follower.y)
    m.objective = pyo.Objective(expr=(m.x - 4) ** 2 + 6 * m.follower.y)
    return m


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_reaches_the_known_optimum(name: str) -> None:
    problem = LIBRARY[name].load()()
    traits = derive_traits(problem)
    if not hasattr(TrustRegion().accepts(traits), "claim"):
        pytest.skip("refused, with integers")
    known = LIBRARY[name].known
    r = bl.solve(problem, "trust-region", {"starts": 2, **OPTIONS.get(name, {})})
    assert r.termination is Termination.CONVERGED
    assert r.upper_objective == pytest.approx(known.upper_objective, abs=max(1e-5, known.tolerance), rel=1e-6)
    assert r.certificate is None or r.certificate.verdict != "refuted"
    assert r.claim <= Claim.LOCAL


def test_crosses_a_kink_out_of_a_local_optimum_when_the_region_allows() -> None:
    _, states = iterate(TrustRegion(radius=4.0), bard_511(), [1.0])
    assert states[0].candidate.objective == pytest.approx(-7.0)
    assert states[-1].candidate.objective == pytest.approx(-12.0)
    assert states[-1].candidate.claim is Claim.LOCAL


def test_a_small_largest_radius_keeps_it_in_the_local_optimum_and_says_how_far_it_looked() -> None:
    solver = TrustRegion(radius=0.5, max_radius=0.5)
    _, states = iterate(solver, bard_511(), [1.0])
    stop = solver.done(states[-1])
    assert states[-1].candidate.objective == pytest.approx(-7.0)
    assert states[-1].candidate.claim is Claim.LOCAL
    assert stop is not None
    assert "0.5" in stop.message


def test_one_radius_that_stops_short_of_the_better_piece_grows_until_it_reaches_it() -> None:
    _, states = iterate(TrustRegion(radius=0.5, max_radius=100.0), bard_511(), [1.0])
    assert states[-1].candidate.objective == pytest.approx(-12.0)
    assert max(s.radius for s in states) == 100.0


@pytest.mark.parametrize("options", [{"complementarity": "bigm"}, {"upper_model": "linear"}])
@pytest.mark.parametrize("name", ["classic/bard-1988-1", "classic/candler-townsley", "trap/two-followers"])
def test_other_ways_to_write_and_solve_the_model(name: str, options: dict[str, Any]) -> None:
    if options.get("complementarity") == "bigm":
        options = {**options, "upper_model": "linear"}  # HiGHS takes no quadratic objective with binaries
    r = bl.solve(LIBRARY[name].load()(), "trust-region", {"starts": 4, **options})
    assert r.upper_objective == pytest.approx(LIBRARY[name].known.upper_objective, abs=1e-4)


def test_a_linear_model_of_a_quadratic_leader_claims_no_exactness() -> None:
    solver = TrustRegion(upper_model="linear", max_radius=0.5, radius=0.5)
    _, states = iterate(solver, LIBRARY["classic/falk-liu"].load()(), [1.0, 1.0])
    stop = solver.done(states[-1])
    assert stop is not None
    assert "exact" not in stop.message


def test_an_infeasible_start_is_repaired_by_the_merit_function() -> None:
    problem = LIBRARY["classic/shimizu-aiyoshi-1"].load()()
    _, states = iterate(TrustRegion(radius=1.0), problem, [1.0])
    assert states[0].candidate.violation > 0.5  # relative to the row's largest term
    assert states[1].candidate.violation < states[0].candidate.violation
    assert states[-1].candidate.violation <= 1e-6
    assert states[-1].candidate.objective == pytest.approx(100.0, abs=1e-5)
    assert states[-1].weight > states[0].weight


def test_rows_that_no_answer_meets_leave_no_point() -> None:
    m = pyo.ConcreteModel(name="wish")
    m.x = pyo.Var(bounds=(0, 5))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 2))
    m.follower.objective = pyo.Objective(expr=m.follower.y, sense=pyo.maximize)
    m.objective = pyo.Objective(expr=-m.x)
    m.row = pyo.Constraint(expr=m.follower.y <= 0)
    r = bl.solve(m, "trust-region")
    assert not r.has_point
    assert "leader's constraints" in r.message


def test_a_nonlinear_follower_is_modelled_and_its_optimum_found() -> None:
    oracle, states = iterate(TrustRegion(), exponential_follower(), [2.9])
    assert not exact_lower(oracle.program)
    x = states[-1].candidate.x
    # Phi(x) = (x - 4)^2 + 6 log x has its slope 2 (x - 4) + 6 / x = 0 at x = 1 (a maximum) and x = 3.
    best = min(0.25 * 49 + 6 * np.log(0.5), 1 + 6 * np.log(3))
    assert states[-1].candidate.objective == pytest.approx(best, abs=1e-5)
    assert x[0] == pytest.approx(0.5 if best < 7 else 3.0, abs=1e-3)
    assert states[-1].candidate.claim is Claim.LOCAL


def test_the_model_of_a_nonlinear_follower_moves_as_its_answer_does() -> None:
    oracle: Any = make_oracle(as_problem(exponential_follower()))
    x = np.array([2.0])
    response = respond(oracle, x, None, LowerSettings())
    region = Region(x, response.y, response.inequality, response.equality, 0.1)
    model = build(oracle, region, "quadratic")
    for moved in (1.95, 2.05):
        lower, _ = model.follower_at(0, np.array([moved, 0.0]))
        f = lower.objective
        answer = -f.linear[0] / (2.0 * f.quadratic[0, 0])
        assert answer == pytest.approx(np.log(2.0) + (moved - 2.0) / 2.0, abs=1e-7)
    assert (model.columns[0].lower, model.columns[0].upper) == pytest.approx((1.9, 2.1))


def test_a_model_solved_exactly_is_proven_and_has_the_leaders_choice_among_ties() -> None:
    oracle: Any = make_oracle(as_problem(tied_follower()))
    region = Region(np.array([0.5]), np.array([0.0]), np.zeros(0), np.zeros(0), 1.0)
    answer = solve(oracle, build(oracle, region, "quadratic"), RunContext(), "auto", 1e-8)
    assert answer.proven
    assert answer.objective == pytest.approx(-1.0)
    assert answer.y == pytest.approx([1.0])


def test_priced_rows_may_be_violated_on_both_sides() -> None:
    m = tied_follower()
    m.row = pyo.Constraint(expr=(3, m.x, 4))
    oracle: Any = make_oracle(as_problem(m))
    region = Region(np.array([0.5]), np.array([0.0]), np.zeros(0), np.zeros(0), 1.0, weight=10.0)
    answer = solve(oracle, build(oracle, region, "quadratic"), RunContext(), "auto", 1e-8)
    assert answer.violation == pytest.approx(2.0)
    assert answer.objective == pytest.approx(0.0)  # x = 1, y = 1, without the price of 20


def test_convex_part_keeps_what_is_convex_and_lifts_the_rest() -> None:
    definite = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert convex_part(definite) == pytest.approx(definite)
    lifted = convex_part(np.diag([4.0, -3.0]))
    assert np.linalg.eigvalsh(lifted)[0] > 0.0
    assert lifted[0, 0] == pytest.approx(4.0)


def test_a_step_depends_on_the_state_only_and_leaves_it_alone() -> None:
    solver = TrustRegion()
    problem = as_problem(exponential_follower())
    oracle, context = make_oracle(problem), RunContext()
    state = solver.init(oracle, np.array([2.0]), context)
    kept = dataclasses.replace(state)
    first = solver.step(oracle, state, context)
    solver.step(oracle, first, context)
    again = solver.step(make_oracle(problem), kept, RunContext())
    assert isinstance(first, BilevelState)
    assert np.array_equal(first.candidate.x, again.candidate.x)
    assert np.array_equal(first.candidate.y, again.candidate.y)
    assert first.candidate.objective == again.candidate.objective
    assert state.candidate.x == pytest.approx([2.0])


def test_figures_are_plain_numbers() -> None:
    _, states = iterate(TrustRegion(), exponential_follower(), [2.0])
    assert {"predicted", "radius", "violation"} <= set(states[-1].figures)
    assert all(type(v) is float for s in states for v in s.figures.values())


def test_refuses_what_it_cannot_solve_and_says_why() -> None:
    integer = get_registry().problems["classic/moore-bard"].load()()
    with pytest.raises(RefusedError, match="integer"):
        bl.solve(integer, "trust-region")
    with pytest.raises(RefusedError, match="besides bounds"):
        bl.solve(LIBRARY["classic/shimizu-aiyoshi-1"].load()(), "trust-region", {"model": "reduced"})


@pytest.mark.parametrize(
    "options", [{"radius": 0.0}, {"radius": 5.0, "max_radius": 1.0}, {"tolerance": float("nan")}, {"memory": 0}]
)
def test_options_out_of_range_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrustRegion(**options)


def test_rows_that_only_one_x_allows_are_met_by_corrections() -> None:
    """The follower jumps from y = 1 to y = -1 where x + exp(x) = 0: there alone it leaves the leader |y| <= 0.1."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y + m.follower.y * pyo.exp(m.x))
    m.objective = pyo.Objective(expr=m.follower.y**2)
    m.c = pyo.Constraint(expr=(-0.1, m.follower.y, 0.1))
    result = bl.solve(bl.PyomoProblem(m), solver="trust-region")
    assert result.has_point, result.message
    assert result.x["x"] == pytest.approx(-0.5671432904097838, abs=1e-9)
    assert result.upper_objective == pytest.approx(0.0, abs=1e-9)


def test_a_flat_follower_is_not_bent_in_the_leaders_favour() -> None:
    """(x + 2 y - 15)^4 changes by 1e-9 only where y is off by 3e-3; the leader would like y to be larger."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 15))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 20))
    y = m.follower.y
    m.follower.objective = pyo.Objective(expr=(m.x + 2 * y - 15) ** 4)
    m.objective = pyo.Objective(expr=(m.x - 3) ** 2 - y)
    result = bl.solve(bl.PyomoProblem(m), solver="trust-region")
    # y = (15 - x) / 2, so F' = 2 (x - 3) + 1/2.
    assert result.x["x"] == pytest.approx(2.75, abs=1e-4)
    assert result.y["follower.y"] == pytest.approx((15 - result.x["x"]) / 2, abs=1e-7)
    assert result.upper_objective == pytest.approx(0.0625 - 6.125, abs=1e-6)


def test_nothing_is_looked_for_beyond_the_bounds() -> None:
    """With all of the leader's box in the region one model settles it: y = max(2 - x, x - 1), least at x = 1.5."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 4))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var()
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.follower.c = pyo.Constraint(expr=m.follower.y >= 2 - m.x)
    m.follower.d = pyo.Constraint(expr=m.follower.y >= m.x - 1)
    m.objective = pyo.Objective(expr=m.follower.y)
    result = bl.solve(bl.PyomoProblem(m), solver="trust-region", options={"radius": 10.0})
    assert result.upper_objective == pytest.approx(0.5)
    assert result.claim is Claim.LOCAL
    # One step to the optimum, or none where the search starts there, and one model that finds nothing better.
    assert result.counts["iterations"] <= 2
