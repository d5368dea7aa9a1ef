"""A good start for the search: one toll after the other moved to its best value, all others held.

Good at: a first start in a second, where some ten to forty arcs are tollable. Bad at: more arcs, whose tolls would have
to move together; and at proving anything. Source: of the kind in Brotcorne, Labbé, Marcotte, Savard (2000), A bilevel
model and solution algorithm for a freight tariff-setting problem, Transportation Science 34.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import INF, distances

FAVOUR = 1e-7
"""Share of tolls that users are taken not to feel while sweeping: it makes ties go to the leader."""
ROUNDS = 30


def sweep_starts(problem: TollProblem, starts: int, seed: int, stop: Callable[[], bool]) -> list[np.ndarray]:
    """Tolls from several starts, best first, each of shape (tollable arcs,).

    Args:
        problem: the problem.
        starts: how many: from all tolls at their caps, then at a third of them, then at random.
        seed: of the random ones.
        stop: asked before every step; True ends the sweeping.
    """
    rng = np.random.default_rng(seed)
    cap = problem.limits.cap
    found: list[tuple[float, np.ndarray]] = []
    for k in range(starts):
        if stop():
            break
        share = (1.0, 1.0 / 3.0)[k] if k < 2 else rng.uniform(0.0, 1.0, len(cap))
        tolls = cap * share
        for _ in range(ROUNDS):
            changed = False
            for i in rng.permutation(len(cap)):
                if stop():
                    break
                best = best_single(problem, tolls, int(i))
                changed = changed or abs(best - tolls[i]) > 1e-9 * cap[i]
                tolls[i] = best
            if not changed or stop():
                break
        found.append((problem.revenue(tolls), tolls))
    return [tolls for _, tolls in sorted(found, key=lambda item: -item[0])]


def best_single(problem: TollProblem, tolls: np.ndarray, index: int) -> float:
    """The best toll of one arc while the others stay: revenue is piecewise linear in it, with jumps down.

    A pair uses the arc as long as its toll does not exceed the pair's saving by it, so one of these savings is best
    (or the present toll, where none is better).
    """
    network, cap = problem.network, float(problem.limits.cap[index])
    if cap == 0.0:
        return 0.0
    arc = problem.tollable[index]
    everywhere = problem.spread(tolls)
    everywhere[arc] = 0.0
    felt = network.costs + (1.0 - FAVOUR) * everywhere
    closed = felt.copy()
    closed[arc] = INF
    tail, head = int(network.tails[arc]), int(network.heads[arc])
    before = _with_tolls(problem, tail, closed, everywhere, backward=True)
    after = _with_tolls(problem, head, closed, everywhere, backward=False)
    count = len(problem.demands)
    with_arc, paid_with, without, paid_without = (np.zeros(count) for _ in range(4))
    around: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for k, demand in enumerate(problem.demands):
        o, d = network.index(demand.origin), network.index(demand.destination)
        if o not in around:
            around[o] = _with_tolls(problem, o, closed, everywhere, backward=False)
        with_arc[k] = before[0][o] + felt[arc] + after[0][d] if _may_use(problem, o, d, tail, head) else INF
        paid_with[k] = before[1][o] + after[1][d]
        without[k], paid_without[k] = around[o][0][d], around[o][1][d]
    saving = (without - with_arc) / (1.0 - FAVOUR)
    tries = np.unique(np.clip(np.append(saving[saving > 0.0], tolls[index]), 0.0, cap))
    uses = saving[:, None] >= tries[None, :] - 1e-9 * cap
    trips = problem.trips
    earned = np.where(uses, paid_with[:, None] + tries[None, :], paid_without[:, None])
    revenue = trips @ np.where(np.isfinite(earned), earned, 0.0)
    best = int(np.argmax(revenue))
    now = int(np.argmin(np.abs(tries - tolls[index])))
    return float(tries[best] if revenue[best] > revenue[now] * (1.0 + 1e-9) else tolls[index])


def _may_use(problem: TollProblem, origin: int, destination: int, tail: int, head: int) -> bool:
    """Whether the rule of nodes that are not passed through lets a pair use an arc."""
    closed = problem.network.no_through
    return (tail not in closed or tail == origin) and (head not in closed or head == destination)


def _with_tolls(
    problem: TollProblem, node: int, felt: np.ndarray, tolls: np.ndarray, *, backward: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from (to) a node, and the toll on the routes found; infinite distances come with toll 0."""
    network = problem.network
    distance, via, order = distances(network, node, felt.tolist(), backward=backward)
    toll = np.zeros(len(distance))
    other = network.heads if backward else network.tails
    for v in order:
        if v != node:
            toll[v] = toll[other[via[v]]] + tolls[via[v]]
    return np.array(distance), toll
