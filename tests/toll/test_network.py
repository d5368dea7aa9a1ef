"""Networks, demands, routes and limits: what is refused, and what is computed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_toll.network import Arc, Demand, Network, largest, merged
from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import INF, cheapest_to, distances
from bilevel_toll.tighten import tighten, undominated
from bilevel_toll.tollable import busiest, choose, load

from .networks import random_problem, simple_routes

TRIANGLE = [Arc("a", "b", 1.0), Arc("b", "c", 1.0), Arc("a", "c", 5.0)]


@pytest.mark.parametrize(
    ("arcs", "nodes", "words"),
    [
        ([], None, "no arcs"),
        ([Arc("a", "a", 1.0)], None, "self-loop"),
        ([Arc("a", "b", -1.0)], None, "cost of at least 0, got -1.0"),
        ([Arc("a", "b", float("nan"))], None, "cost of at least 0, got nan"),
        ([Arc("a", "b", 1.0, capacity=-2.0)], None, "capacity of at least 0"),
        ([Arc("a", "b", 1.0)], ["a"], "uses node 'b'"),
        ([Arc("a", "b", 1.0)], ["a", "b", "a"], "'a' is given twice"),
        ([Arc("a,x", "b", 1.0)], None, "got 'a,x'"),
    ],
)
def test_bad_networks_are_refused(arcs: list[Arc], nodes: list[str] | None, words: str) -> None:
    with pytest.raises(bl.ModelError, match=words):
        Network(arcs, nodes)


def test_parallel_arcs_have_labels_of_their_own() -> None:
    network = Network([Arc("a", "b", 1.0), Arc("a", "b", 2.0), Arc("b", "a", 1.0)])
    assert network.labels == ("a-b", "a-b#2", "b-a")
    assert network.arc_index("a-b#2") == 1
    dashes = Network([Arc("a-b", "c", 1.0), Arc("a", "b-c", 1.0)])  # not parallel, but they read the same
    assert dashes.labels == ("a-b-c", "a-b-c#2")


@pytest.mark.parametrize(
    ("demands", "tollable", "kind", "words"),
    [
        ([Demand("a", "x", 1.0)], ["b-c"], bl.UsageError, "Demand a->x: There is no node named 'x'"),
        ([Demand("a", "c", -1.0)], ["b-c"], bl.ModelError, "trips of at least 0, got -1.0"),
        ([Demand("a", "a", 3.0)], ["b-c"], bl.ModelError, "no trips"),
        ([Demand("a", "c", 1.0)], [], bl.ModelError, "No arc is tollable"),
        ([Demand("a", "c", 1.0)], ["b-d"], bl.UsageError, "no arc named 'b-d'. Did you mean 'b-c'"),
        ([Demand("a", "c", 1.0)], ["b-c", "b-c"], bl.ModelError, "b-c is given twice"),
        ([Demand("c", "a", 1.0)], ["b-c"], bl.ModelError, "no route for c->a"),
        ([Demand("a", "c", 1.0), Demand("a", "b", 1.0)], ["a-b"], bl.ModelError, "a->b must use a tollable arc"),
    ],
)
def test_bad_problems_are_refused(demands: list[Demand], tollable: list[str], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        TollProblem(Network(TRIANGLE), demands, tollable)


def test_demands_of_one_pair_are_added_up() -> None:
    found = merged([Demand("a", "c", 1.0), Demand("b", "c", 0.0), Demand("a", "c", 2.5)], Network(TRIANGLE))
    assert found == (Demand("a", "c", 3.5),)


def test_largest_pairs() -> None:
    demands = [Demand("a", "c", 1.0), Demand("a", "b", 3.0), Demand("b", "c", 3.0)]
    assert largest(demands, 2) == demands[1:]
    assert largest(demands, None) == demands
    with pytest.raises(bl.UsageError, match="at least 1"):
        largest(demands, 0)


def test_closed_nodes_are_not_passed_through() -> None:
    network = Network(TRIANGLE, no_through=["b"])
    tree = distances(network, network.index("a"), network.costs.tolist())
    assert tree.distance == [0.0, 1.0, 5.0]
    back = distances(network, network.index("c"), network.costs.tolist(), backward=True)
    assert back.distance == [5.0, 1.0, 0.0]
    assert network.open_to(network.index("a"), network.index("c")).tolist() == [False, False, True]


def test_ties_go_to_the_most_or_the_least_toll() -> None:
    network = Network(TRIANGLE)
    tolls = np.array([0.0, 3.0, 0.0])
    assert cheapest_to(network, network.index("c"), tolls).route(network.index("a")) == (0, 1)
    assert cheapest_to(network, network.index("c"), tolls, dearest=False).route(network.index("a")) == (2,)


def test_circles_of_cost_zero_do_no_harm() -> None:
    network = Network(
        [Arc("a", "b", 0.0), Arc("b", "a", 0.0), Arc("b", "c", 0.0), Arc("c", "b", 0.0), Arc("a", "c", 0.0)]
    )
    for dearest in (True, False):
        to = cheapest_to(network, network.index("c"), np.zeros(5), dearest=dearest)
        assert len(set(to.route(network.index("a")))) <= 2
        assert to.cost == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(30))
def test_routes_against_enumeration(seed: int) -> None:
    problem = random_problem(seed, no_through=seed % 2 == 0)
    rng = np.random.default_rng(seed)
    tolls = rng.integers(0, 6, len(problem.tollable)).astype(float)
    everywhere = problem.spread(tolls)
    costs = problem.network.costs
    expected = {True: 0.0, False: 0.0}
    for k, demand in enumerate(problem.demands):
        every = [list(r) for r in simple_routes(problem, demand)]
        lowest = min(costs[r].sum() + everywhere[r].sum() for r in every)
        cheapest = [r for r in every if costs[r].sum() + everywhere[r].sum() <= lowest + 1e-9]
        paid = [everywhere[r].sum() for r in cheapest]
        for dearest, choice in ((True, max(paid)), (False, min(paid))):
            expected[dearest] += demand.trips * choice
            assert list(problem.routes(tolls, dearest=dearest)[k]) in cheapest
    for dearest in (True, False):
        assert problem.revenue(tolls, dearest=dearest) == pytest.approx(expected[dearest])


@pytest.mark.parametrize("seed", range(30))
def test_limits_lose_no_route_that_pays(seed: int) -> None:
    """At no toll vector on a grid does a pair pay more for an arc than its limit, up to ties with free routes."""
    problem = random_problem(seed)
    limits = problem.limits
    free = [
        min(
            problem.network.costs[list(r)].sum()
            for r in simple_routes(problem, d)
            if not set(r) & set(problem.tollable)
        )
        for d in problem.demands
    ]
    assert limits.free == pytest.approx(free)
    for grid in itertools.product(np.linspace(0.0, 12.0, 7), repeat=len(problem.tollable)):
        tolls = np.array(grid)
        for k, route in enumerate(problem.routes(tolls, dearest=False)):
            for i, arc in enumerate(problem.tollable):
                if arc in route and tolls[i] > 0.0:
                    assert tolls[i] <= limits.by_pair[k, i] + 1e-9
                    assert limits.useful[k, arc]
    assert (limits.cap == limits.by_pair.max(axis=0)).all()
    assert problem.bound == pytest.approx(float(problem.trips @ (limits.free - limits.zero)))


@pytest.mark.parametrize("seed", range(20))
def test_listed_routes_are_enough(seed: int) -> None:
    """Under every toll of a grid a listed route is cheapest and pays the most of the cheapest, within the limits."""
    problem = random_problem(seed, no_through=seed % 2 == 0)
    tight = tighten(problem)
    assert (tight.by_pair <= problem.limits.by_pair).all()
    network = problem.network
    for k, demand in enumerate(problem.demands):
        if not problem.limits.by_pair[k].any():
            continue
        end = network.index(demand.destination)
        to_end = distances(network, end, network.costs.tolist(), backward=True).distance
        listed, labels = undominated(problem, k, to_end)
        assert listed is not None
        assert labels >= len(listed)
        assert (listed[-1].tolled, listed[-1].cost) == (0, problem.limits.free[k])
        every = [list(r) for r in simple_routes(problem, demand)]
        for grid in itertools.product(np.linspace(0.0, 12.0, 7), repeat=len(problem.tollable)):
            everywhere = problem.spread(np.array(grid))

            def best(routes: list[list[int]], tolls: np.ndarray = everywhere) -> tuple[float, float]:
                return min((network.costs[r].sum() + tolls[r].sum(), -tolls[r].sum()) for r in routes)

            cost, paid = best([list(r.arcs) for r in listed])
            assert (cost, paid) == best(every)
            for i, arc in enumerate(problem.tollable):
                if arc in problem.routes(np.array(grid), dearest=False)[k]:
                    assert grid[i] <= tight.by_pair[k, i] + 1e-9
        assert undominated(problem, k, to_end, max_labels=0) == (None, 1)


def test_pairs_with_too_many_routes_keep_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = next(p for p in map(random_problem, range(50)) if (tighten(p).by_pair < p.limits.by_pair).any())
    monkeypatch.setattr("bilevel_toll.tighten.MAX_LABELS", 1)
    same = tighten(problem)
    assert (same.by_pair == problem.limits.by_pair).all()
    assert (same.useful == problem.limits.useful).all()


def test_busiest_arcs_leave_every_pair_a_free_route() -> None:
    network = Network(TRIANGLE)
    demands = [Demand("a", "c", 2.0), Demand("b", "c", 1.0)]
    assert load(network, demands).tolist() == [2.0, 3.0, 0.0]
    assert busiest(network, demands, 3) == [0]  # b-c is the only way from b; a-c carries nobody
    assert choose(network, demands, 1) == ["a-b"]
    assert choose(network, demands, ("b-c",)) == ["b-c"]
    with pytest.raises(bl.ModelError, match="Only 1 arcs"):
        choose(network, demands, 2)
    with pytest.raises(bl.UsageError, match="at least 1"):
        choose(network, demands, 0)
    weights = network.costs.copy()
    weights[0] = INF
    assert distances(network, network.index("a"), weights.tolist()).distance[network.index("c")] == 5.0
