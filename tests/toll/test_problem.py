"""`TollProblem`: the algebraic form against the network, the report, and the registered problems."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_toll.details import paths
from bilevel_toll.library import sioux_falls, sioux_falls_demands, sioux_falls_network, three_regimes, toy_a
from bilevel_toll.tntp import read_network, read_trips

from .networks import random_problem, shared_data


@pytest.mark.parametrize("seed", range(10))
def test_program_says_what_the_network_says(seed: int) -> None:
    problem = random_problem(seed, no_through=True)
    program = problem.program()
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.0, 2.0, len(program.columns))
    told = problem.evaluate(values)
    assert -program.leader.objective.evaluate(values) == pytest.approx(told.upper_objective)
    mine = [f.objective.evaluate(values) for f in program.followers]
    assert mine == pytest.approx(list(told.lower_objectives))
    assert program.high_point().violation(values) > 0.1
    assert max(v for _, v, _ in told.lower) > 0.1
    routes = problem.routes(np.zeros(len(problem.tollable)))
    good = problem.values(np.zeros(len(problem.tollable)), routes)
    assert program.high_point().violation(good) == 0.0
    assert all(v == 0.0 for _, v, _ in (*problem.evaluate(good).upper, *problem.evaluate(good).lower))


def test_values_and_point_round_trip() -> None:
    problem = toy_a()
    values = problem.values(np.array([5.0, 10.0]), problem.routes(np.array([5.0, 10.0])))
    x, y = problem.point(values)
    assert x["toll"].tolist() == [5.0, 10.0]
    assert y["flow"].shape == (1, 7)
    assert (problem.vector(x, y) == values).all()


@pytest.mark.parametrize(
    ("tolls", "flow", "words"),
    [
        ([5.0, 16.5], [1, 1, 0, 0, 0, 1, 0], "toll"),  # beyond its cap
        ([5.0, 9.0], [0, 0, 0, 0, 0, 0, 1], "can do better"),  # the dear road though the tolled one is cheaper
        ([5.0, 10.0], [1, 1, 1, 0, 0, 0, 0], "conservation of 1->5"),  # ends on the way
        ([5.0, 10.0], [1, 1, 1, 1, 0, 0, -0.5], "1->5"),
    ],
)
def test_wrong_points_are_refuted(tolls: list[float], flow: list[float], words: str) -> None:
    problem = toy_a()
    assert problem.limits.cap.tolist() == [16.0, 16.0]
    certificate = bl.verify(problem, {"toll": tolls}, {"flow": [flow]})
    assert certificate.verdict == "refuted"
    assert words in certificate.reason


def test_a_claim_that_ignores_the_leaders_luck_is_refuted() -> None:
    """At tolls 5 and 10 the free road costs the traveller as much: a point that uses it is optimal for it only."""
    problem = toy_a()
    certificate = bl.verify(problem, {"toll": [5.0, 10.0]}, {"flow": [[1, 0, 0, 1, 1, 0, 0]]})
    assert certificate.verdict == "verified"
    assert certificate.better_response == pytest.approx(15.0)


def test_report() -> None:
    result = bl.solve(three_regimes())
    report = result.details
    assert report["revenue"] == 16.0
    assert report["revenue_if_ties_go_against"] == 4.0  # the town leaves
    assert report["safe_revenue"] == pytest.approx(16.0 * (1 - 1e-4))
    assert report["revenue_limit"] == 22.0
    assert (report["paying_pairs"], report["paying_trips"]) == (2, 4.0)
    assert report["tolls"] == [{"from": "west", "to": "east", "toll": 4.0, "trips": 4.0, "revenue": 16.0}]
    assert [r["revenue"] for r in report["payers"]] == [12.0, 4.0]
    assert report["payers"][0]["route"] == "town - west - east - works"
    assert report["payers"][0]["cost_with_toll"] == 8.0
    text = str(result)
    assert "town - west - east - works" in text
    assert "safe revenue" in text
    assert json.loads(result.to_json())["details"]["tolls"] == report["tolls"]


def test_report_without_payers() -> None:
    problem = three_regimes()
    values = problem.values(np.array([10.0]), problem.routes(np.array([10.0]), dearest=False))
    report = problem.details(*problem.point(values))
    assert report["revenue"] == 0.0
    assert "payers" not in report


def test_flow_is_taken_apart_into_routes() -> None:
    problem = toy_a()
    flow = np.array([0.75, 0.5, 0.5, 0.75, 0.25, 0.0, 0.25])
    found = paths(problem, 0, flow)
    assert sum(share for _, share in found) == pytest.approx(1.0)
    assert found[0] == ((0, 1, 2, 3), 0.5)
    assert {route for route, _ in found[1:]} == {(6,), (0, 4, 3)}


def test_sioux_falls_figures() -> None:
    network, demands = sioux_falls_network(), sioux_falls_demands()
    assert (len(network.nodes), len(network.arcs)) == (24, 76)
    assert len(demands) == 528
    assert sum(d.trips for d in demands) == 360_600
    two_way = {(a.head, a.tail): (a.cost, a.capacity) for a in network.arcs}
    assert all(two_way[a.tail, a.head] == (a.cost, a.capacity) for a in network.arcs)


def test_sioux_falls_against_the_shared_files() -> None:
    network = read_network(shared_data("toll", "tntp", "SiouxFalls", "SiouxFalls_net.tntp"))
    ours = {(a.tail, a.head): (a.cost, a.capacity) for a in sioux_falls_network().arcs}
    assert {(a.tail, a.head): (a.cost, a.capacity) for a in network.arcs} == ours
    demands = read_trips(shared_data("toll", "tntp", "SiouxFalls", "SiouxFalls_trips.tntp"))
    assert sorted((d.origin, d.destination, d.trips) for d in demands) == sorted(
        (d.origin, d.destination, d.trips) for d in sioux_falls_demands()
    )


def test_sioux_falls_parameters() -> None:
    problem = sioux_falls(arcs=("10-16", "16-10"), pairs=3)
    assert [problem.network.labels[a] for a in problem.tollable] == ["10-16", "16-10"]
    assert [d.trips for d in problem.demands] == [4400.0, 4400.0, 4000.0]
    assert len(sioux_falls(pairs=None).demands) == 528
    with pytest.raises(bl.UsageError, match="Did you mean '10-16'"):
        sioux_falls(arcs=("10-166",))


PRICING = ["toll/sioux-falls", "toll/three-regimes", "toll/toy-a"]


def test_pricing_problems_without_files_have_known_optima() -> None:
    """The others need files, or have no proven optimum."""
    known = sorted(n for n, spec in get_registry().problems.items() if n.startswith("toll/") and spec.known)
    assert known == PRICING


@pytest.mark.parametrize("name", PRICING)
def test_every_registered_problem_has_its_optimum(name: str) -> None:
    spec = get_registry().problems[name]
    assert spec.known is not None
    result = bl.solve(spec.load()())
    assert result.problem == name
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(spec.known.upper_objective, rel=1e-6)
