"""What the toll tests share: where the shared data is, small random networks, and revenue by brute force."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.problem import TollProblem


def shared_data(*parts: str) -> Path:
    """A file of the shared data; skips the test where the folder is missing."""
    root = os.environ.get("BILEVEL_SHARED_DATA")
    folder = Path(root) if root else Path(__file__).parents[3] / "shared" / "data"
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no shared data: {path} is missing; set BILEVEL_SHARED_DATA to its folder")
    return path


def random_problem(seed: int, *, no_through: bool = False, most_pairs: int = 3) -> TollProblem:
    """Five nodes: a dear toll-free ring both ways, a cheap chain of which two or three arcs are tollable, three more
    arcs anywhere, pairs along the chain. Costs are small integers, so that ties are common.
    """
    rng = np.random.default_rng(seed)
    ring = [Arc("abcde"[i], "abcde"[(i + s) % 5], float(rng.integers(6, 12))) for i in range(5) for s in (1, 4)]
    chain = [str(n) for n in rng.permutation(list("abcde"))]
    cheap = [Arc(chain[i], chain[i + 1], float(rng.integers(0, 4))) for i in range(4)]
    ends = [sorted(rng.choice(5, 2, replace=False).tolist()) for _ in range(3 + int(rng.integers(1, most_pairs + 1)))]
    more = [Arc(chain[j], chain[i], float(rng.integers(2, 9))) for i, j in ends[:3]]
    closed = [chain[int(rng.integers(5))]] if no_through else []
    network = Network(ring + cheap + more, list("abcde"), closed)
    tollable = [network.labels[10 + int(k)] for k in rng.choice(4, int(rng.integers(2, 4)), replace=False)]
    demands = [Demand(chain[i], chain[j], float(rng.integers(1, 6))) for i, j in ends[3:]]
    return TollProblem(network, demands, tollable, name=f"random{seed}")


def with_odd_costs(problem: TollProblem, seed: int) -> TollProblem:
    """The same network with costs that are no round numbers, some only a little off."""
    rng = np.random.default_rng(seed)
    old = problem.network
    arcs = [replace(a, cost=a.cost + rng.uniform(0, 1) * 10.0 ** rng.integers(-3, 1)) for a in old.arcs]
    network = Network(arcs, old.nodes, [old.nodes[v] for v in old.no_through])
    return TollProblem(network, problem.demands, [old.labels[a] for a in problem.tollable], name=f"odd{seed}")


def simple_routes(problem: TollProblem, demand: Demand) -> Iterator[tuple[int, ...]]:
    """Every route of a pair that visits no node twice and passes through no closed node."""
    network = problem.network
    end = network.index(demand.destination)

    def extend(v: int, seen: frozenset[int], route: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if v == end:
            yield route
            return
        if route and v in network.no_through:
            return
        for arc, w in network.outgoing[v]:
            if w not in seen:
                yield from extend(w, seen | {w}, (*route, arc))

    start = network.index(demand.origin)
    return extend(start, frozenset({start}), ())


def brute_force(problem: TollProblem) -> float:
    """The best revenue over every assignment of routes to pairs: for each, the best tolls that make it optimal.

    Of the routes with the same tolled arcs only the cheapest can be used. No bounds on tolls but zero.
    """
    tolled = {a: i for i, a in enumerate(problem.tollable)}
    costs = problem.network.costs
    choices: list[dict[frozenset[int], float]] = []
    for demand in problem.demands:
        cheapest: dict[frozenset[int], float] = {}
        for route in simple_routes(problem, demand):
            key = frozenset(tolled[a] for a in route if a in tolled)
            cheapest[key] = min(cheapest.get(key, np.inf), float(costs[list(route)].sum()))
        choices.append(cheapest)
    best = 0.0
    for assignment in itertools.product(*(list(c.items()) for c in choices)):
        value = np.zeros(len(tolled))
        rows, room = [], []
        for demand, cheapest, (used, cost) in zip(problem.demands, choices, assignment, strict=True):
            value[list(used)] += demand.trips
            for other, price in cheapest.items():
                row = np.zeros(len(tolled))
                row[list(used)] += 1.0
                row[list(other)] -= 1.0
                rows.append(row)
                room.append(price - cost)
        if not value.any():
            continue
        found = linprog(-value, A_ub=np.array(rows), b_ub=np.array(room), bounds=(0, None), method="highs")
        if found.status == 0:
            best = max(best, -found.fun)
    return best
