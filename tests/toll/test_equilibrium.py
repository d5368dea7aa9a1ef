"""User equilibrium and system optimum: figures of the literature, the definition itself, and an independent solver."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

import bilevel_core as bl
from bilevel_toll.congestion import newton
from bilevel_toll.congestion.equilibrium import Flows, user_equilibrium
from bilevel_toll.congestion.library import braess, load_traffic, sioux_falls
from bilevel_toll.congestion.traffic import Traffic, UserClass
from bilevel_toll.network import Arc, Demand, Network

from .networks import shared_data

TABLE = [
    ("SiouxFalls/SiouxFalls_net.tntp", 4231335.2871, 7480225.345, 7194256.053),
    ("Anaheim/Anaheim_net.tntp", 1286032.1711, 1419913.851, 1395015.087),
    ("Eastern-Massachusetts/EMA_net.tntp", 26160.3459, 28181.423, 27323.932),
    ("Braess-Example/Braess_net.tntp", 386.0, 552.0, 498.0),
    ("hearn9/hearn9_net.tntp", 1820.4267, 2455.870, 2253.918),
]
"""Best known values of the Transportation Networks collection, to all digits printed; Hearn and Ramana (1998)."""


def random_traffic(seed: int, classes: tuple[UserClass, ...] = (UserClass(),), closed: bool = False) -> Traffic:
    """Five nodes in a ring both ways and six more arcs (some parallel, some without congestion), three pairs."""
    rng = np.random.default_rng(seed)
    ends = [(i, (i + s) % 5) for i in range(5) for s in (1, 4)]
    while len(ends) < 16:
        i, j = (int(k) for k in rng.integers(5, size=2))
        if i != j:
            ends.append((i, j))
    arcs = [
        Arc(
            "abcde"[i], "abcde"[j], float(rng.uniform(1, 8)), capacity=float(rng.uniform(2, 8)),
            b=float(rng.choice([0.0, 0.15, 1.0], p=[0.2, 0.4, 0.4])), power=float(rng.choice([1.0, 2.0, 4.0])),
        )
        for i, j in ends
    ]  # fmt: skip
    pairs = list(itertools.permutations("abcde", 2))
    demands = [Demand(*pairs[int(k)], float(rng.uniform(2, 12))) for k in rng.choice(20, 3, replace=False)]
    return Traffic(Network(arcs, list("abcde"), ["c"] if closed else []), demands, classes)


def routes_of(traffic: Traffic, k: int) -> list[list[int]]:
    """All routes of a commodity that visit no node twice."""
    network, demand = traffic.network, traffic.demands[k][1]
    end, found = network.index(demand.destination), list[list[int]]()

    def extend(v: int, seen: frozenset[int], route: list[int]) -> None:
        if v == end:
            found.append(route)
            return
        if route and v in network.no_through:
            return
        for arc, w in network.outgoing[v]:
            if w not in seen:
                extend(w, seen | {w}, [*route, arc])

    start = network.index(demand.origin)
    extend(start, frozenset({start}), [])
    return found


def check_equilibrium(flows: Flows, tolls: np.ndarray) -> None:
    """The definition: trips are all there, and no used route is dearer than the cheapest of all."""
    traffic = flows.traffic
    cost = traffic.roads.time(flows.flow) + (traffic.roads.external(flows.flow) if flows.system else 0.0)
    sent = np.bincount(flows.owner, flows.route_flow, len(traffic.trips))
    assert sent == pytest.approx(traffic.trips, rel=1e-12)
    assert flows.routes @ flows.route_flow == pytest.approx(flows.flow, rel=1e-12, abs=1e-12)
    for k, (user, _) in enumerate(traffic.demands):
        felt = cost + traffic.fixed + tolls / traffic.classes[user].value_of_time
        least = min(float(felt[r].sum()) for r in routes_of(traffic, k))
        assert flows.cost[k] == pytest.approx(least, rel=1e-9)
        for r in np.flatnonzero(flows.owner == k):
            if flows.route_flow[r] > 1e-6 * traffic.trips[k]:
                assert float((flows.routes[:, [r]].T @ felt)[0]) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(("file", "beckmann", "time", "least"), TABLE)
def test_known_equilibria(file: str, beckmann: float, time: float, least: float) -> None:
    traffic = load_traffic(shared_data("toll", "tntp", file))
    flows = user_equilibrium(traffic)
    assert flows.converged
    assert flows.relative_gap <= 1e-12
    assert flows.beckmann == pytest.approx(beckmann, abs=5.1e-5)
    assert flows.total_time == pytest.approx(time, abs=5.1e-4)
    optimum = user_equilibrium(traffic, system=True)
    assert optimum.converged
    assert optimum.total_time == pytest.approx(least, abs=5.1e-4)
    # Marginal-cost tolls make the users' own choice the best for all.
    tolled = user_equilibrium(traffic, traffic.roads.external(optimum.flow))
    assert tolled.total_time == pytest.approx(optimum.total_time, rel=1e-9)
    assert tolled.flow == pytest.approx(optimum.flow, rel=1e-4, abs=1e-3)


def test_built_in_networks() -> None:
    flows = user_equilibrium(sioux_falls())
    assert flows.total_time == pytest.approx(7480225.345, abs=5.1e-4)
    assert (flows.iterations, flows.newton_steps) <= (12, 45)
    paradox = user_equilibrium(braess())
    assert paradox.cost == pytest.approx([92.0], rel=1e-7)
    assert paradox.flow == pytest.approx([4.0, 4.0, 2.0, 2.0, 2.0], rel=1e-6)
    without = user_equilibrium(braess(), np.array([0.0, 0.0, 0.0, 0.0, 20.0]))
    assert without.cost == pytest.approx([83.0], rel=1e-7)


@pytest.mark.parametrize("seed", range(25))
def test_definition_on_random_networks(seed: int) -> None:
    users = (UserClass("poor", 0.5, 0.3), UserClass("rich", 3.0, 0.7)) if seed % 2 else (UserClass(),)
    traffic = random_traffic(seed, users, closed=seed % 3 == 0)
    rng = np.random.default_rng(seed)
    tolls = np.where(rng.random(16) < 0.4, rng.uniform(0.0, 5.0, 16), 0.0)
    for system in (False, True):
        flows = user_equilibrium(traffic, tolls, system=system)
        assert flows.converged
        check_equilibrium(flows, tolls)
    again = user_equilibrium(traffic, tolls, start=user_equilibrium(traffic))
    assert again.flow == pytest.approx(user_equilibrium(traffic, tolls).flow, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_beckmann_against_another_solver(seed: int) -> None:
    """The same minimum by SciPy's SLSQP over all simple routes."""
    traffic = random_traffic(seed)
    lists = [routes_of(traffic, k) for k in range(3)]
    matrix = np.zeros((16, sum(map(len, lists))))
    owner = np.repeat(np.arange(3), [len(r) for r in lists])
    for column, route in enumerate(itertools.chain(*lists)):
        matrix[route, column] = 1.0
    rows = np.array([owner == k for k in range(3)], dtype=float)
    found = minimize(
        lambda f: float(traffic.roads.integral(matrix @ f).sum()),
        rows.T @ (traffic.trips / rows.sum(axis=1)),
        jac=lambda f: matrix.T @ traffic.roads.time(matrix @ f),
        bounds=[(0.0, None)] * len(owner),
        constraints={"type": "eq", "fun": lambda f: rows @ f - traffic.trips, "jac": lambda f: rows},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    ours = user_equilibrium(traffic).beckmann
    assert ours <= found.fun * (1.0 + 1e-9)
    assert ours == pytest.approx(found.fun, rel=1e-6)


def test_large_systems_are_solved_without_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton, "LARGEST", 5)
    flows = user_equilibrium(sioux_falls())
    assert flows.converged
    assert flows.beckmann == pytest.approx(4231335.2871, abs=5.1e-5)


def test_a_value_of_time_is_a_unit_of_money() -> None:
    """Ten times the tolls for users to whom time is worth ten times as much: the same flows, ten times the revenue."""
    tolls = np.zeros(76)
    tolls[[5, 27, 30]] = 2.0
    one = user_equilibrium(sioux_falls(), tolls)
    ten = user_equilibrium(sioux_falls(classes=("all:10:1",)), 10.0 * tolls)
    assert ten.flow == pytest.approx(one.flow, rel=1e-6)
    assert ten.revenue == pytest.approx(10.0 * one.revenue, rel=1e-6)


def test_few_rounds_are_said() -> None:
    flows = user_equilibrium(sioux_falls(), rounds=2)
    assert not flows.converged
    assert flows.relative_gap > 1e-6


def test_faults() -> None:
    network = Network([Arc("a", "b", 1.0, capacity=2.0, b=1.0), Arc("b", "c", 1.0)])
    with pytest.raises(bl.ModelError, match="no route for c->a"):
        Traffic(network, [Demand("a", "b", 1.0), Demand("c", "a", 1.0)])
    with pytest.raises(bl.ModelError, match=r"a-b is congested \(b = 1\) and needs a positive capacity"):
        Traffic(Network([Arc("a", "b", 1.0, b=1.0)]), [Demand("a", "b", 1.0)])
    with pytest.raises(bl.ModelError, match="add up to"):
        Traffic(network, [Demand("a", "b", 1.0)], [UserClass("x", 1.0, 0.5)])
    with pytest.raises(bl.ModelError, match="value of time"):
        Traffic(network, [Demand("a", "b", 1.0)], [UserClass("x", 0.0)])
    with pytest.raises(bl.ModelError, match="one name"):
        Traffic(network, [Demand("a", "b", 1.0)], [UserClass("x", 1.0, 0.5), UserClass("x", 2.0, 0.5)])
    with pytest.raises(bl.ModelError, match="power of at least 1"):
        Network([Arc("a", "b", 1.0, power=0.5)])
    traffic = Traffic(network, [Demand("a", "b", 1.0)])
    for tolls in (np.zeros(3), np.array([-1.0, 0.0]), np.array([np.nan, 0.0])):
        with pytest.raises(bl.UsageError, match="Expected 2 tolls"):
            user_equilibrium(traffic, tolls)
    with pytest.raises(bl.ModelError, match="fixed costs"):
        Traffic(network, [Demand("a", "b", 1.0)], fixed=np.array([1.0]))


NETWORK = """<NUMBER OF NODES> 3
<END OF METADATA>
1 2 100 1 2 0.15 4 0 0 1 ;
2 3 100 1 2 0.15 4 0 0 1 ;
"""
TRIPS = "<END OF METADATA>\nOrigin 1\n 3 : 5.0;\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("1 2 100 1 2 0.15", "1 2 0 1 2 0.15", "small_net.tntp:3: the arc is congested"),
        ("1 2 100 1 2 0.15 4 0 0 1", "1 2 100 1 2", "small_net.tntp:3: congestion needs b and power"),
        ("1 2 100 1 2 0.15 4 0 0", "1 2 100 1 2 0.15 4 0 3", "small_net.tntp:3: the arc has a toll of 3.*toll_factor="),
        ("1 2 100 1 2 0.15 4", "1 2 100 1 2 0.15 0.5", "small_net.tntp:3: .*power of at least 1"),
        ("1 2 100 1 2", "1 2 100 1 -2", "small_net.tntp:3: expected a free-flow time of at least 0"),
    ],
)
def test_file_faults(tmp_path: Path, old: str, new: str, words: str) -> None:
    (tmp_path / "small_net.tntp").write_text(NETWORK.replace(old, new))
    (tmp_path / "small_trips.tntp").write_text(TRIPS)
    with pytest.raises(bl.UsageError, match=words):
        load_traffic(tmp_path / "small_net.tntp")


def test_factors_of_files(tmp_path: Path) -> None:
    (tmp_path / "small_net.tntp").write_text(NETWORK.replace("0.15 4 0 0 1", "0.15 4 0 3 1"))
    (tmp_path / "small_trips.tntp").write_text(TRIPS)
    traffic = load_traffic(tmp_path / "small_net.tntp", toll_factor=0.5, distance_factor=2.0, demand_factor=20.0)
    assert traffic.fixed.tolist() == [3.5, 3.5]
    assert traffic.trips.tolist() == [100.0]
    assert user_equilibrium(traffic).cost == pytest.approx([2 * (2.0 * 1.15 + 3.5)])
    with pytest.raises(bl.UsageError, match="distance_factor"):
        load_traffic(tmp_path / "small_net.tntp", toll_factor=0.5, distance_factor=-1.0)
