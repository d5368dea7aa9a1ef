"""Tolls and capacities against user equilibrium: gradients, known optima, and what is claimed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.result import Claim, Status
from bilevel_toll.congestion import solver
from bilevel_toll.congestion.design import NetworkDesign
from bilevel_toll.congestion.equilibrium import user_equilibrium
from bilevel_toll.congestion.library import braess, congested_tolls, network_design, sioux_falls
from bilevel_toll.congestion.objectives import AIMS, Units
from bilevel_toll.congestion.pieces import Piece, descend
from bilevel_toll.congestion.problem import TrafficProblem
from bilevel_toll.congestion.tolls import CongestedTolls, cordon, worst_arcs
from bilevel_toll.congestion.traffic import Traffic
from bilevel_toll.network import Arc, Demand, Network

from .conftest import Call


def two_links(a1: float, b1: float, a2: float, b2: float, trips: float) -> Traffic:
    """Two roads with times a + b v between the same nodes."""
    arcs = [Arc("o", "d", a, capacity=a, b=b, power=1.0) for a, b in ((a1, b1), (a2, b2))]
    return Traffic(Network(arcs), [Demand("o", "d", trips)])


def slopes(problem: TrafficProblem, point: np.ndarray, step: float) -> np.ndarray:
    """Central differences of the first objective."""
    out = np.zeros(len(point))
    for k in range(len(point)):
        moved = [point.copy(), point.copy()]
        moved[0][k] += step
        moved[1][k] -= step
        up, down = (problem.value(x, problem.flows(x, problem.untouched), problem.aims[0]) for x in moved)
        out[k] = (up - down) / (2.0 * step)
    return out


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("classes", [(), ("car:1:0.8", "truck:3:0.2")])
def test_gradients_against_differences(aim: Any, classes: tuple[str, ...]) -> None:
    traffic = sioux_falls(classes=classes, pairs=200)
    groups = ["10-16", ["16-10", "15-10"], "6-8"]
    problem = CongestedTolls(traffic, groups, (aim,), upper=20.0, units=Units(0.6, 1.0, 60.0))
    point = np.array([1.3, 0.4, 2.1])
    gradient, residual = problem.gradient(point, problem.flows(point))
    assert residual < 1e-8
    assert gradient == pytest.approx(slopes(problem, point, 1e-4), rel=2e-3, abs=1e-6 * float(np.abs(gradient).max()))


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("classes", [(), ("car:1:0.8", "truck:3:0.2")])
def test_hessians_against_differences_of_gradients(aim: Any, classes: tuple[str, ...]) -> None:
    traffic = sioux_falls(classes=classes, pairs=60)
    problem = CongestedTolls(traffic, ["10-16", ["16-10", "15-10"]], (aim,), upper=20.0, units=Units(0.6, 1.0, 60.0))
    point, step = np.array([1.3, 0.4]), 1e-4
    here = problem.flows(point)
    hessian = problem.hessian(point, here)
    assert hessian is not None
    rows = np.zeros((2, 2))
    for k in range(2):
        ends = [point + step * sign * np.eye(2)[k] for sign in (1.0, -1.0)]
        up, down = (problem.gradient(x, problem.flows(x, here))[0] for x in ends)
        rows[k] = (up - down) / (2.0 * step)
    assert hessian == pytest.approx(rows, rel=2e-3, abs=2e-3 * float(np.abs(rows).max()))


@pytest.mark.parametrize("aim", ["time", "welfare"])
def test_gradients_of_network_design(aim: Any) -> None:
    problem = NetworkDesign(sioux_falls(), {"6-8": 3.0, "8-6": 2.0, "10-16": 0.5}, (aim,), upper=5000.0, power=2.0)
    point = np.array([300.0, 500.0, 900.0])
    gradient, _ = problem.gradient(point, problem.flows(point))
    assert gradient == pytest.approx(slopes(problem, point, 0.1), rel=1e-3)


def test_revenue_with_congestion() -> None:
    """All stay up to lo = a2 - a1 - b1 d, none from hi = a2 - a1 + b2 d; best is max(lo, hi / 2) = 2, revenue 4."""
    problem = CongestedTolls(two_links(1.0, 0.5, 3.0, 0.5, 4.0), ["o-d"], ("revenue",), upper=10.0)
    result = bl.solve(problem, options={"global_solves": 0, "starts": 2})
    assert result.solver == "toll-design"
    assert -float(np.asarray(result.upper_objective)) == pytest.approx(4.0, abs=1e-6)
    assert float(result.x["toll[o-d]"]) == pytest.approx(2.0, abs=1e-3)
    for toll, revenue in ((1.0, 3.0), (3.0, 3.0), (4.0, 0.0)):
        assert problem.flows(np.array([toll])).revenue == pytest.approx(revenue, abs=1e-9)


@pytest.mark.parametrize(
    ("count", "known", "start"), [(5, 7462474.4, 0.25), (10, 7417109.8, 0.0), (20, 7363173.0, 0.5)]
)
def test_second_best_on_sioux_falls(count: int, known: float, start: float) -> None:
    """The best values known, from one start each with fewer equilibria than a gradient method takes for ten arcs."""
    problem = congested_tolls(arcs=(str(count),))
    assert isinstance(problem, CongestedTolls)
    asked = 0

    def around(x: np.ndarray) -> Piece:
        nonlocal asked
        asked += 1
        flows = problem.flows(x, problem.untouched)
        hessian = problem.hessian(x, flows)
        assert hessian is not None
        return Piece(x, problem.value(x, flows, "time"), problem.gradient(x, flows)[0], hessian)

    marginal = problem.marginal(user_equilibrium(problem.traffic, system=True))
    bounds = np.full(count, problem.lower), np.full(count, problem.upper)
    found = descend(around, np.clip(start * marginal, *bounds), *bounds)
    assert found.value <= known
    assert asked <= (10 if count < 20 else 40)


def test_second_best_and_what_is_claimed() -> None:
    result = bl.solve(congested_tolls(arcs=("10",)), options={"starts": 1, "random": 0})
    assert result.upper_objective <= 7417109.8
    assert result.claim is Claim.STATIONARY
    assert result.counts["lower_solves"] <= 17
    assert result.certificate is not None
    assert (result.certificate.verdict, result.certificate.lower_scope) == ("verified", "global")
    assert result.bound == pytest.approx(7194256.053, abs=1e-3)
    assert result.details["total_travel_time_before"] == pytest.approx(7480225.345, abs=1e-3)
    assert "not excluded" in result.message


def test_tolls_everywhere_reach_the_system_optimum_and_say_so() -> None:
    result = bl.solve(congested_tolls(arcs=("all",)))
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(7194256.053, abs=1e-2)
    assert "the least there can be" in result.message


def test_steps_groups_and_cordons() -> None:
    traffic = sioux_falls()
    inside = ["10", "16", "17"]
    arcs = cordon(traffic.network, inside)
    assert arcs == ["8-16", "9-10", "11-10", "15-10", "18-16", "19-17"]
    problem = CongestedTolls(traffic, {"cordon": arcs}, upper=5.0, step=0.5)
    result = bl.solve(problem, options={"random": 0, "starts": 1})
    best = min((problem.value(np.array([k]), problem.flows(np.array([k])), "time"), k) for k in range(11))
    assert result.upper_objective == pytest.approx(best[0], rel=1e-9)
    assert float(result.x["toll[cordon]"]) == best[1]
    assert {row["toll"] for row in result.details["tolls"]} == {0.5 * best[1]}


def test_the_check_sees_flows_that_are_no_equilibrium() -> None:
    problem = CongestedTolls(braess(), ["a-b"], upper=20.0)
    x = {"toll[a-b]": 5.0}
    flows = problem.flows(np.array([5.0]))
    assert bl.verify(problem, x, {"flow": problem.split(flows)}).verdict == "verified"
    other = problem.split(user_equilibrium(braess()))
    assert bl.verify(problem, x, {"flow": other}).verdict == "refuted"  # the answer to no toll
    lost = problem.split(flows) * 0.9
    assert bl.verify(problem, x, {"flow": lost}).verdict == "refuted"


def test_network_design_against_a_grid() -> None:
    traffic = two_links(1.0, 0.5, 3.0, 0.5, 4.0)
    problem = NetworkDesign(traffic, {"o-d": 1.0, "o-d#2": 1.5}, upper=6.0)
    result = bl.solve(problem, options={"polish": 40})
    points = [np.array([a, b]) for a in np.linspace(0.0, 6.0, 25) for b in np.linspace(0.0, 6.0, 13)]
    grid = min(problem.value(p, problem.flows(p), "time") for p in points)
    assert result.upper_objective <= grid + 1e-9
    assert result.upper_objective == pytest.approx(grid, rel=1e-3)
    assert result.details["cost_of_building"] == pytest.approx(
        float(result.x["add[o-d]"]) + 1.5 * float(result.x["add[o-d#2]"])
    )


def test_network_design_from_the_library() -> None:
    problem = network_design(arcs=("3",), price=5.0, pairs=200)
    assert problem.space.names[0].startswith("add[")
    result = bl.solve(problem, options={"starts": 1, "random": 0, "polish": 0})
    assert result.upper_objective < problem.untouched.total_time


def test_pareto_front_by_the_sampling_solver() -> None:
    pytest.importorskip("pymoo")
    problem = congested_tolls(
        arcs=("3",), objective=("time", "revenue", "emissions"), pairs=60, free_speed=60.0, minutes=0.6, upper=10.0
    )
    result = bl.solve(problem, solver="sample.nsga2", options={"lower_solves": 40})
    front = result.details["pareto"]
    assert {"total_travel_time", "minus_revenue", "emissions"} <= set(front[0])
    values = np.array([[r["total_travel_time"], r["minus_revenue"], r["emissions"]] for r in front])
    assert not any((a <= b).all() and (a < b).any() for a in values for b in values)
    with pytest.raises(bl.UsageError, match="3 objectives"):
        bl.solve(problem, solver="toll-design")


def test_budget_and_limits_are_kept() -> None:
    problem = congested_tolls(arcs=("5",), pairs=60)
    result = bl.solve(problem, options={"solves": 7})
    assert result.termination == "iteration-limit"
    assert result.counts["lower_solves"] <= 8
    assert result.has_point
    stopped = bl.solve(problem, callbacks=[lambda event: event.kind == "incumbent"])
    assert stopped.termination == "stopped-by-user"
    limited = bl.solve(problem, time_limit=0.0)
    assert limited.termination == "time-limit"
    assert limited.has_point
    spent = NetworkDesign(braess(), {"s-b": 1.0}, upper=5.0, budget=2.0)
    assert bl.solve(spent, options={"starts": 1, "random": 0}).details["cost_of_building"] <= 2.0
    cheap = bl.solve(spent, solver="sample.random", options={"lower_solves": 10})
    assert float(cheap.x["add[s-b]"]) <= 2.0 + 1e-6


def test_faults() -> None:
    traffic = sioux_falls()
    with pytest.raises(bl.ModelError, match="given twice"):
        CongestedTolls(traffic, ["10-16", ["10-16", "16-10"]])
    with pytest.raises(bl.UsageError, match="no arc named '1-9'"):
        CongestedTolls(traffic, ["1-9"])
    with pytest.raises(bl.ModelError, match="lower < upper"):
        CongestedTolls(traffic, ["10-16"], lower=5.0, upper=2.0)
    with pytest.raises(bl.ModelError, match="a step between"):
        CongestedTolls(traffic, ["10-16"], upper=2.0, step=3.0)
    with pytest.raises(bl.ModelError, match="free_speed"):
        CongestedTolls(traffic, ["10-16"], ("emissions",))
    with pytest.raises(bl.ModelError, match="Expected objectives among"):
        congested_tolls(objective=("profit",))
    with pytest.raises(bl.ModelError, match="No arc enters"):
        cordon(traffic.network, list(traffic.network.nodes))
    with pytest.raises(bl.ModelError, match="between 1 and 76"):
        worst_arcs(traffic, 77)
    with pytest.raises(bl.UsageError, match="not a toll problem on a network"):
        bl.solve(congested_tolls(), solver="toll-pricing")


def test_from_the_command_line(cli: Call) -> None:
    done = cli(
        "solve", "toll/congested", "-p", "arcs=all", "-p", "network=braess", "-p", "upper=20", "-f", "json",
        "-o", "random=0",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["upper_objective"] == pytest.approx(498.0, rel=1e-5)
    done = cli("solve", "toll/congested", "-p", "network=braess", "-p", "pairs=3")
    assert done.code == 2
    assert "pairs" in done.err


def test_fixed_costs_do_not_move_the_bound_of_total_time() -> None:
    """Times 1 + v and 2 + v, 4 users, 3 to pay on the first road already: 9/4 and 7/4 take least time, 13.875."""
    roads = Network(
        [
            Arc("o", "d", 1.0, capacity=1.0, b=1.0, power=1.0),
            Arc("o", "m", 2.0, capacity=2.0, b=1.0, power=1.0),
            Arc("m", "d", 0.0),
        ]
    )
    traffic = Traffic(roads, [Demand("o", "d", 4.0)], fixed=np.array([3.0, 0.0, 0.0]))
    result = bl.solve(CongestedTolls(traffic, ["o-m", "o-d"], upper=10.0))
    assert result.upper_objective == pytest.approx(13.875, rel=1e-9)  # v (1 + v) + (4 - v) (6 - v) at v = 9/4
    assert result.bound == pytest.approx(13.875, rel=1e-9)
    assert result.claim == "global"


@pytest.mark.parametrize(("given", "arcs", "solves"), [({}, 1, 12), ({"most_booths": 2}, 5, 40)])
def test_steps_are_kept_when_the_budget_ends_a_run(given: dict[str, Any], arcs: int, solves: int) -> None:
    problem = CongestedTolls(braess(), braess().network.labels[:arcs], upper=60.0, step=0.7, **given)
    result = bl.solve(problem, options={"solves": solves})
    assert result.termination == "iteration-limit"
    assert result.counts["lower_solves"] <= solves
    assert float(np.asarray(result.upper_objective)) < 552.0  # without tolls
    assert all(float(v) == round(float(v)) for v in result.x.values())


def test_an_equilibrium_that_did_not_converge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The point reported is computed from the beginning; here its equilibrium gets one round only."""
    problem = CongestedTolls(sioux_falls(pairs=40), ["10-16", "16-10"], upper=10.0)
    flows, searched = problem.flows, solver.Search

    class Spent(searched):  # type: ignore[misc,valid-type]
        def run(self) -> None:
            super().run()
            monkeypatch.setattr(problem, "flows", lambda x, start=None: replace(flows(x, start), converged=False))

    monkeypatch.setattr(solver, "Search", Spent)
    result = bl.solve(problem, options={"starts": 1, "random": 0}, verify=False)
    assert result.claim is Claim.NONE
    assert "did not converge" in result.message
