"""The solver against brute force, against the general solver, and what it claims when it is cut short."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.backends import SolveSettings
from bilevel_core.backends.highs import Highs
from bilevel_core.plugins.registry import get_registry
from bilevel_core.reductions.base import Chain
from bilevel_core.result import Claim, Status, Termination
from bilevel_toll.library import sioux_falls, three_regimes, toy_a
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.problem import TollProblem
from bilevel_toll.reduction import StrongDuality
from bilevel_toll.settle import best_tolls, settle
from bilevel_toll.solver import TollPricing
from bilevel_toll.sweeps import best_single, sweep_starts

from .networks import brute_force, random_problem, with_odd_costs

BACKENDS = ("scip", "highs")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("make", "tolls", "revenue"), [(toy_a, [5.0, 10.0], 15.0), (three_regimes, [4.0], 16.0)])
def test_toys(make: Any, tolls: list[float], revenue: float, backend: str) -> None:
    result = bl.solve(make(), options={"backend": backend})
    assert result.solver == "toll-pricing"
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(revenue, abs=1e-9)
    assert result.bound == pytest.approx(revenue, abs=1e-6)
    assert result.x["toll"] == pytest.approx(tolls, abs=1e-8)


@pytest.mark.parametrize("make", [toy_a, three_regimes])
def test_general_solver_agrees(make: Any) -> None:
    general = bl.solve(make(), solver="kkt")
    own = bl.solve(make())
    assert general.status is Status.OPTIMAL
    assert general.upper_objective == pytest.approx(own.upper_objective, abs=1e-6)


@pytest.mark.parametrize("seed", [*range(24), 1031])
def test_against_brute_force(seed: int) -> None:
    problem = random_problem(seed, no_through=seed % 3 == 0)
    if seed % 4:
        problem = with_odd_costs(problem, seed)
    expected = brute_force(problem)
    backend = BACKENDS[seed % 2]
    result = bl.solve(problem, options={"backend": backend, "sweeps": seed % 4}, seed=seed)
    assert result.upper_objective == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert result.status is Status.OPTIMAL, result.message
    assert result.certificate is not None
    assert result.certificate.lower_gap <= 1e-7
    assert result.bound is not None
    assert result.bound >= result.upper_objective


@pytest.mark.parametrize("seed", range(8))
def test_general_solver_agrees_on_random_networks(seed: int) -> None:
    problem = random_problem(seed, most_pairs=1)
    general = bl.solve(problem, solver="kkt", time_limit=20.0)
    assert general.status is Status.OPTIMAL
    assert general.upper_objective == pytest.approx(brute_force(problem), rel=1e-5, abs=1e-5)


def test_there_are_networks_that_earn_something() -> None:
    """Guards the tests above: random networks must not all be trivial."""
    revenues = [brute_force(random_problem(seed)) for seed in range(20)]
    assert sum(r > 0.0 for r in revenues) >= 12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("cost", "trips"), [(1e-7, 1.0), (1e6, 1.0), (1.0, 1e-8), (1.0, 1e9), (1e-6, 1e-6), (1e8, 1e8)]
)
@pytest.mark.parametrize("seed", [2, 22])
def test_units_do_not_matter(seed: int, cost: float, trips: float, backend: str) -> None:
    usual = random_problem(seed)
    old = usual.network
    network = Network([Arc(a.tail, a.head, a.cost * cost) for a in old.arcs], old.nodes)
    demands = [Demand(d.origin, d.destination, d.trips * trips) for d in usual.demands]
    problem = TollProblem(network, demands, [old.labels[a] for a in usual.tollable])
    expected = brute_force(usual)
    assert expected > 0.0
    heard: list[float] = []
    result = bl.solve(
        problem,
        options={"backend": backend, "sweeps": 0},
        callbacks=[lambda e: heard.append(e.data["objective"]) if e.kind == "incumbent" else None],
    )
    assert result.upper_objective == pytest.approx(expected * cost * trips, rel=1e-6, abs=0.0)
    assert result.bound == pytest.approx(expected * cost * trips, rel=1e-5, abs=0.0)
    assert result.status is Status.OPTIMAL
    assert result.details["safe_revenue"] == pytest.approx(expected * cost * trips, rel=1.1e-4, abs=0.0)
    if cost * trips > 1e-9:  # the run takes smaller differences for none when it looks for incumbents
        assert max(heard) == pytest.approx(expected * cost * trips, rel=1e-4, abs=0.0)
    assert result.details["paying_pairs"] > 0


def test_a_wide_gap_is_not_called_optimal() -> None:
    result = bl.solve(sioux_falls(arcs=10, pairs=40), options={"gap": 0.9, "sweeps": 0})
    assert result.bound is not None
    assert result.upper_objective is not None
    if result.bound - result.upper_objective > 1e-5 * result.upper_objective:
        assert result.claim is Claim.FEASIBLE
        assert "relative gap" in result.message
    else:
        pytest.fail("the gap closed at once: this test needs a harder problem")


def test_interrupt_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bilevel_toll.solver.pick", interrupted)
    result = bl.solve(sioux_falls(arcs=5, pairs=20))
    assert result.termination is Termination.STOPPED_BY_USER
    assert result.claim is Claim.FEASIBLE
    assert result.upper_objective is not None
    assert result.upper_objective > 0.0


def test_nothing_to_earn() -> None:
    network = Network([Arc("a", "b", 3.0), Arc("a", "b", 3.0)])
    result = bl.solve(TollProblem(network, [Demand("a", "b", 5.0)], ["a-b#2"]))
    assert result.status is Status.OPTIMAL
    assert (result.upper_objective, result.bound) == (0.0, 0.0)


def test_reduction_is_exact_at_points_of_its_own() -> None:
    """Points built from tolls are feasible for the target, have the users' revenue, and invert to a checked point."""
    problem = sioux_falls(arcs=6, pairs=30)
    reduction = StrongDuality()
    chain = Chain(problem).then(reduction)
    target = chain.target
    assert reduction.accepts(problem) is None
    assert sum(c.integer for c in target.columns) > 0
    rng = np.random.default_rng(0)
    for _ in range(5):
        tolls = np.floor(rng.uniform(0.0, 1.0, 6) * reduction.limits.cap)
        point = reduction.point(tolls)
        assert target.violation(point) <= 1e-9
        assert -target.objective.evaluate(point) == pytest.approx(problem.revenue(tolls))
        x, y = problem.point(chain.invert(point))
        assert x["toll"] == pytest.approx(tolls)
        assert bl.verify(problem, x, y).verdict == "verified"
    with pytest.raises(ValueError, match="expected a toll problem"):
        Chain("no problem").then(StrongDuality())


def test_text_of_the_single_level_form() -> None:
    network = Network([Arc("a", "b", 2.0), Arc("a", "b", 6.0)])
    target = StrongDuality().apply(TollProblem(network, [Demand("a", "b", 3.0)], ["a-b"]))
    assert target.text().splitlines() == [
        "minimise -3 paid[a->b,a-b]",
        "node[a->b,a]: use[a->b,a-b] + use[a->b,a-b#2] = 1",
        "paid if used[a->b,a-b]: -4 use[a->b,a-b] + paid[a->b,a-b] <= 0",
        "paid at most[a->b,a-b]: -toll[a-b] + paid[a->b,a-b] <= 0",
        "paid in full[a->b,a-b]: toll[a-b] + 4 use[a->b,a-b] - paid[a->b,a-b] <= 4",
        "rise[a->b,a-b]: -toll[a-b] + potential[a->b,a] <= 2",
        "rise[a->b,a-b#2]: potential[a->b,a] <= 6",
        "strong duality[a->b]: -2 use[a->b,a-b] - 6 use[a->b,a-b#2] - paid[a->b,a-b] + potential[a->b,a] >= 0",
        "toll[a-b] in [0, 4] real",
        "use[a->b,a-b] in [0, 1] integer",
        "use[a->b,a-b#2] in [0, 1] real",
        "paid[a->b,a-b] in [0, 4] real",
        "potential[a->b,a] in [0, 6] real",
    ]
    assert Highs().solve(target, SolveSettings()).objective == pytest.approx(-12.0)


def test_tolls_that_are_slightly_off_are_settled() -> None:
    """Just above a tie users leave: settling finds the tie again."""
    problem = toy_a()
    off = np.array([5.0, 10.0]) + 3e-7
    assert problem.revenue(off) < 15.0
    found = settle(problem, off)
    assert found.revenue == pytest.approx(15.0, abs=1e-9)
    assert problem.revenue(found.tolls) == pytest.approx(15.0, abs=1e-9)


def test_routes_that_no_tolls_make_cheapest() -> None:
    problem = three_regimes()
    bridge, around = problem.routes(np.zeros(1))[0], problem.routes(np.full(1, 20.0))
    assert best_tolls(problem, (bridge, around[1])) is None  # the village has more to gain than the town
    assert best_tolls(problem, tuple(problem.routes(np.zeros(1)))) == pytest.approx([4.0])


def test_best_single_toll() -> None:
    problem = three_regimes()
    assert best_single(problem, np.array([10.0]), 0) == pytest.approx(4.0, abs=1e-6)
    two = toy_a()
    # with 5 on the first arc, 10 more are paid for the second: the way around the first costs 5 more already
    assert best_single(two, np.array([5.0, 0.0]), 1) == pytest.approx(10.0, abs=1e-5)


def test_sweeps_are_repeatable_and_stop() -> None:
    problem = sioux_falls(arcs=5, pairs=20)
    first, again = (sweep_starts(problem, 3, 7, lambda: False) for _ in range(2))
    assert len(first) == 3
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert sweep_starts(problem, 3, 7, lambda: True) == []


def test_sioux_falls_by_highs() -> None:
    """SCIP's answer is among those of the registered problems."""
    result = bl.solve(sioux_falls(), options={"backend": "highs"})
    known = get_registry().problems["toll/sioux-falls"].known
    assert known is not None
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(known.upper_objective, rel=1e-6)
    assert result.claim is Claim.GLOBAL


def test_no_time_left_still_has_a_point() -> None:
    result = bl.solve(sioux_falls(arcs=5, pairs=10), time_limit=0.0)
    assert result.termination is Termination.TIME_LIMIT
    assert result.claim is Claim.FEASIBLE
    assert result.status is Status.FEASIBLE
    assert result.upper_objective == 0.0
    assert result.bound == pytest.approx(sioux_falls(arcs=5, pairs=10).bound)


def test_stopped_by_a_callback_keeps_the_best() -> None:
    result = bl.solve(sioux_falls(arcs=10, pairs=40), callbacks=[lambda event: event.kind == "incumbent"])
    assert result.termination is Termination.STOPPED_BY_USER
    assert result.claim is Claim.FEASIBLE
    assert result.upper_objective is not None
    assert result.upper_objective > 0.0
    assert result.bound is not None
    assert result.bound > result.upper_objective
    assert result.trace


def test_options_are_checked() -> None:
    with pytest.raises(bl.UsageError, match="gap in"):
        TollPricing(gap=1.5)
    with pytest.raises(bl.UsageError, match="sweeps"):
        TollPricing(sweeps=-1)
    with pytest.raises(bl.UsageError, match="backend"):
        bl.solve(toy_a(), options={"backend": "ipopt"})
    with pytest.raises(bl.UsageError, match="no-such"):
        bl.solve(toy_a(), options={"backend_options": {"no-such": 1}})


def test_other_problems_are_refused() -> None:
    spec = get_registry().problems["classic/bard-511"]
    with pytest.raises(bl.RefusedError, match="not a toll problem"):
        bl.solve(spec.load()(), solver="toll-pricing")


def test_auto_prefers_it_for_toll_problems() -> None:
    found = bl.classify(toy_a())
    assert found.chosen == "toll-pricing"
    assert "network-pricing" in found.traits.structure
    assert isinstance(found.verdicts["kkt"], bl.Accepted)
