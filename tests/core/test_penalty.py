"""The penalty solver's algebraic methods: known optima, the pieces of the method, claims, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.oracles import make_oracle
from bilevel_core.plugins.registry import get_registry
from bilevel_core.result import Claim, Termination, Verdict
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.penalty.alternating import alternate
from bilevel_core.solvers.penalty.solver import Penalty
from bilevel_core.solvers.penalty.system import product, search_around, system_of
from bilevel_core.solvers.violation import leader_violation
from bilevel_core.traits import derive_traits

from .models import bard_511, quadratic_follower

STARTS = 8


def library() -> list[str]:
    return [n for n in get_registry().problems if n.startswith(("classic/", "trap/"))]


def taken(name: str, method: str) -> bool:
    problem = get_registry().problems[name].load()()
    return isinstance(Penalty(method=method).accepts(derive_traits(problem)), Accepted)


def check_known(name: str, method: str) -> None:
    spec = get_registry().problems[name]
    assert spec.known is not None
    result = bl.solve(spec.load()(), "penalty", {"method": method, "starts": STARTS})
    if spec.known.upper_objective is None:
        assert not result.has_point
        assert result.termination == spec.known.termination
        return
    assert result.termination is Termination.CONVERGED
    assert result.upper_objective == pytest.approx(spec.known.upper_objective, rel=1e-6, abs=1e-6)
    assert result.claim <= Claim.LOCAL
    assert result.certificate is not None
    assert result.certificate.verdict is not Verdict.REFUTED


@pytest.mark.parametrize("name", library())
def test_known_optimum(name: str) -> None:
    if not taken(name, "auto"):
        with pytest.raises(bl.RefusedError, match="penalty"):
            bl.solve(get_registry().problems[name].load()(), "penalty")
    elif name == "classic/mitsos-barton-313":
        with pytest.raises(bl.RefusedError, match="negative curvature"):
            bl.solve(get_registry().problems[name].load()(), "penalty")
    else:
        check_known(name, "auto")


@pytest.mark.parametrize(
    "name",
    [
        "classic/bard-511",
        "classic/candler-townsley",
        "classic/bard-1991-1",
        "classic/bard-1991-2",
        "classic/bard-1988-1",
        "classic/aiyoshi-shimizu-2",
        "classic/falk-liu",
        "trap/two-followers",
        "trap/small-bound",
        "trap/follower-unbounded",
        "trap/follower-infeasible",
    ],
)
@pytest.mark.parametrize("method", ["alternating", "double"])
def test_known_optimum_by_the_other_methods(name: str, method: str) -> None:
    check_known(name, method)


def test_the_smallest_penalty_of_a_point_is_its_duality_gap() -> None:
    oracle = make_oracle(bl.PyomoProblem(bard_511()))
    system = system_of(oracle)
    for y in (2.5, 3.0, 4.5, 6.0):  # at x = 3 the follower's optimal value is 2.5
        values = system.lift(np.array([3.0]), np.array([y]))
        assert system.gap.evaluate(values) == pytest.approx(y - 2.5, abs=1e-7)


def test_search_around_leaves_a_poor_piece_and_stays_at_a_local_optimum() -> None:
    oracle = make_oracle(bl.PyomoProblem(bard_511()))
    system = system_of(oracle)
    local = search_around(system, system.lift(np.array([1.0]), np.array([2.0])), lambda: None)
    assert local.values is None
    assert local.checked
    other = search_around(system, system.lift(np.array([3.0]), np.array([2.5])), lambda: None)
    assert other.values is not None
    assert other.values[:2] == pytest.approx([4.0, 4.0])  # the optimum of the piece 3x - 2y = 4


def test_search_around_keeps_stationarity_whose_columns_are_all_fixed() -> None:
    problem = get_registry().problems["trap/two-limits"].load()()
    system = system_of(make_oracle(problem))
    around = search_around(system, system.lift(np.array([2.0]), np.array([5.0])), lambda: None)
    assert around.values is None
    assert around.checked


def test_alternating_ends_at_a_point_that_neither_block_improves() -> None:
    oracle = make_oracle(bl.PyomoProblem(bard_511()))
    system = system_of(oracle)
    start = system.lift(np.array([2.0]), np.array([4.0]))
    once = alternate(system, start, 10.0, None)
    assert once is not None
    again = alternate(system, once, 10.0, None)
    assert again is not None

    def penalised(v: np.ndarray) -> float:
        return system.target.objective.evaluate(v) + 10.0 * system.gap.evaluate(v)

    assert penalised(once) < penalised(start) - 1.0
    assert penalised(again) == pytest.approx(penalised(once), abs=1e-7)


def test_pairs_hold_exactly_at_the_end() -> None:
    solver = Penalty(method="duality-gap")
    context = RunContext()
    oracle = make_oracle(bl.PyomoProblem(quadratic_follower()))
    state = solver.init(oracle, np.array([3.0]), context)
    for _ in range(40):
        if solver.done(state) is not None:
            break
        state = solver.step(oracle, state, context)
    assert solver.done(state) is not None
    system = system_of(oracle)
    assert max(product(m).evaluate(state.values) for m in system.multipliers) == pytest.approx(0.0, abs=1e-12)


def test_steps_depend_on_the_state_only() -> None:
    solver = Penalty(method="duality-gap")
    context = RunContext()
    first = make_oracle(bl.PyomoProblem(bard_511()))
    state = solver.init(first, np.array([2.0]), context)
    state = solver.step(first, state, context)
    kept = replace(state, values=state.values.copy())
    one = solver.step(first, state, context)
    two = solver.step(make_oracle(bl.PyomoProblem(bard_511())), kept, context)
    assert np.array_equal(one.values, two.values)
    assert np.array_equal(one.candidate.x, two.candidate.x)
    assert one.candidate.objective == two.candidate.objective


def log_follower() -> pyo.ConcreteModel:
    """The follower minimises exp(y) - x y, so that y = log(x)."""
    m = pyo.ConcreteModel(name="log")
    m.x = pyo.Var(bounds=(0.5, 5.0), initialize=1.0)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-3.0, 3.0))
    m.follower.objective = pyo.Objective(expr=pyo.exp(m.follower.y) - m.x * m.follower.y)
    m.objective = pyo.Objective(expr=(m.x - 2.0) ** 2 + (m.follower.y - 1.5) ** 2)
    return m


def test_double_reaches_the_optimum_over_a_nonlinear_follower() -> None:
    result = bl.solve(log_follower(), "penalty")
    grid = np.linspace(0.5, 5.0, 450_001)
    best = float(((grid - 2.0) ** 2 + (np.log(grid) - 1.5) ** 2).min())
    assert result.upper_objective == pytest.approx(best, abs=1e-8)
    assert float(result.y["follower.y"]) == pytest.approx(float(np.log(result.x["x"])), abs=1e-7)
    assert result.claim is Claim.LOCAL


def test_double_meets_a_coupling_constraint_exactly() -> None:
    m = log_follower()
    m.coupling = pyo.Constraint(expr=m.follower.y <= 0.5)
    result = bl.solve(m, "penalty")
    assert float(result.x["x"]) == pytest.approx(np.exp(0.5), abs=1e-6)
    assert result.certificate is not None
    assert result.certificate.upper_violation <= 1e-8


def test_points_that_owe_their_objective_to_a_tolerance_are_not_reported() -> None:
    result = bl.solve(get_registry().problems["classic/savard"].load()(), "penalty", {"method": "double"})
    assert result.certificate is not None
    assert result.certificate.upper_violation <= 1e-9


def test_an_inflection_is_not_called_a_local_optimum() -> None:
    """At (1, 1) the slope along the follower's answers is zero, and better points lie on one side."""
    problem = get_registry().problems["trap/no-multipliers"].load()()
    result = bl.solve(problem, "penalty")
    assert result.upper_objective == pytest.approx(31.25, abs=1e-6)
    assert result.claim <= Claim.STATIONARY


def nonconvex(*, in_rows: bool) -> pyo.ConcreteModel:
    m = log_follower()
    y = m.follower.y
    if in_rows:
        m.follower.row = pyo.Constraint(expr=pyo.sin(3.0 * y) <= 0.5)
    else:
        m.follower.del_component("objective")
        m.follower.objective = pyo.Objective(expr=pyo.sin(3.0 * y) + m.x * y)
    return m


@pytest.mark.parametrize("in_rows", [False, True])
def test_nonlinear_followers_seen_to_be_nonconvex_are_refused(in_rows: bool) -> None:
    with pytest.raises(bl.RefusedError, match="constraint" if in_rows else "objective"):
        bl.solve(nonconvex(in_rows=in_rows), "penalty")


@pytest.mark.parametrize("in_rows", [False, True])
def test_what_is_refused_is_refused_when_the_problem_is_classified(in_rows: bool) -> None:
    found = bl.classify(bl.PyomoProblem(nonconvex(in_rows=in_rows)))
    verdict = found.verdicts["penalty"]
    assert isinstance(verdict, Refused)
    assert verdict.reason.startswith("the lower level is nonconvex")
    assert "- penalty: the lower level is nonconvex" in str(found)
    assert found.chosen != "penalty"


def test_curvature_of_a_convex_follower_is_no_reason_to_refuse() -> None:
    problem = bl.PyomoProblem(log_follower())
    assert Penalty().refuses(problem) is None
    assert isinstance(bl.classify(problem).verdicts["penalty"], Accepted)


def test_functions_that_are_not_defined_everywhere_are_looked_at_where_they_are() -> None:
    m = log_follower()
    m.follower.del_component("objective")
    # At the start, y = 0, the logarithm is not finite; for y > 0 it is concave.
    m.follower.objective = pyo.Objective(expr=pyo.log(m.follower.y) + m.x)
    verdict = bl.classify(bl.PyomoProblem(m)).verdicts["penalty"]
    assert isinstance(verdict, Refused)
    assert "negative curvature" in verdict.reason


def test_violations_are_measured_as_the_check_does() -> None:
    """A row whose terms are of the order 1e6 is violated by 1e-3 in its own units, which is 1e-9 of its scale."""
    m = bard_511()
    m.row = pyo.Constraint(expr=1e6 * m.x + 0.0 * m.follower.y <= 1e6 - 1e-3)
    problem = bl.PyomoProblem(m)
    oracle = make_oracle(problem)
    found = leader_violation(oracle, np.array([1.0]), np.array([2.0]))
    assert found == pytest.approx(1e-9, rel=1e-3)
    scaled = {name: v / s for name, v, s in problem.evaluate(np.array([1.0, 2.0])).upper}
    assert found == pytest.approx(max(scaled.values()), rel=1e-2)
    assert leader_violation(oracle, np.array([-1.0]), np.array([2.0])) == pytest.approx(1.0)  # below its bound


def test_refusals_say_why() -> None:
    integer = bard_511()
    integer.x.domain = pyo.NonNegativeIntegers
    with pytest.raises(bl.RefusedError, match="integer"):
        bl.solve(integer, "penalty")
    below = bard_511()
    below.follower.y.domain = pyo.NonNegativeIntegers
    with pytest.raises(bl.RefusedError, match="integer"):
        bl.solve(below, "penalty")
    with pytest.raises(bl.RefusedError, match="callables"):
        bl.solve(bard_511(), "penalty", {"method": "value-function"})
    varies = bard_511()
    varies.follower.rows.add(varies.x * varies.follower.y <= 100)
    for method in ("duality-gap", "alternating"):
        with pytest.raises(bl.RefusedError, match="vary with the leader"):
            bl.solve(varies, "penalty", {"method": method})
    assert bl.solve(varies, "penalty", {"starts": STARTS}).upper_objective == pytest.approx(-12.0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weight": 0.0}, "weight"),
        ({"growth": 1.0}, "growth"),
        ({"max_weight": 0.5}, "max_weight"),
        ({"gap_tolerance": -1.0}, "gap_tolerance"),
        ({"lower_iterations": 0}, "lower_iterations"),
        ({"method": "newton"}, "method"),
    ],
)
def test_options_out_of_range(options: dict[str, object], match: str) -> None:
    with pytest.raises(bl.UsageError, match=match):
        bl.solve(bard_511(), "penalty", options)


def test_a_ray_of_bilevel_points_is_not_called_an_optimum() -> None:
    m = bard_511()
    m.follower.del_component("rows")
    m.follower.rows = pyo.ConstraintList()
    m.follower.rows.add(m.follower.y >= m.x)
    m.del_component("objective")
    m.objective = pyo.Objective(expr=-m.follower.y)
    result = bl.solve(m, "penalty")
    assert result.termination is not Termination.CONVERGED
    assert "without end" in result.message


def test_a_device_for_expressions_is_refused() -> None:
    with pytest.raises(bl.UsageError, match="CPU only"):
        bl.solve(bard_511(), "penalty", device="cuda")


def test_no_time_keeps_no_half_step() -> None:
    result = bl.solve(bard_511(), "penalty", time_limit=0.0)
    assert result.termination is Termination.TIME_LIMIT


def test_a_resumed_run_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    problem = bl.PyomoProblem(bard_511())
    whole = bl.solve(problem, "penalty", {"starts": 2})
    bl.solve(problem, "penalty", {"starts": 2, "max_iterations": 2, "checkpoint_every": 0}, out=tmp_path / "run")
    resumed = bl.resume(problem, tmp_path / "run", max_iterations=1000)
    assert resumed.upper_objective == whole.upper_objective
    assert all(np.array_equal(resumed.x[n], whole.x[n]) for n in whole.x)
    assert all(np.array_equal(resumed.y[n], whole.y[n]) for n in whole.y)
    assert resumed.counts == whole.counts
    assert (resumed.claim, resumed.message) == (whole.claim, whole.message)
