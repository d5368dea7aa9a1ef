"""Tighter limits by listing the routes that a pair could ever take, where there are few enough.

Sources: Bouhtou, van Hoesel, van der Kraaij, Lutton (2007), Tariff optimization in networks, INFORMS Journal on
Computing 19, for the dominance of routes; Bui, Gendron, Carvalho (2022) for the limits from routes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from bilevel_toll.limits import NOTHING, Limits
from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import distances

MAX_ROUTES = 1000
"""A pair with more undominated routes keeps the limits from distances."""
MAX_LABELS = 20_000
"""So does one whose listing takes more labels,"""
TOTAL_LABELS = 300_000
"""and every pair after so many labels in all: a few seconds."""


@dataclass(frozen=True)
class Route:
    """A route of one pair.

    Attributes:
        cost: without tolls.
        tolled: the tollable arcs on it, as bits by their position among the tollable arcs.
        arcs: numbers of its arcs in order.
    """

    cost: float
    tolled: int
    arcs: tuple[int, ...]


def undominated(
    problem: TollProblem, pair: int, to_end: list[float], max_labels: int = MAX_LABELS
) -> tuple[list[Route] | None, int]:
    """The routes of a pair that can be its choice under some tolls, cheapest first; the last one is toll-free.

    A route is dominated by one that costs no more and has no other tollable arcs: under every toll it is no better,
    and where it is as good it pays no more. Labels are settled in the order of their cost, so a label is compared
    with earlier ones at its node only.

    Args:
        problem: the problem.
        pair: number of the pair.
        to_end: distance from each node to the pair's destination at zero toll.
        max_labels: when to give up.

    Returns:
        The routes, or None where there are too many; and the number of labels settled.
    """
    network, demand = problem.network, problem.demands[pair]
    origin, end = network.index(demand.origin), network.index(demand.destination)
    most = float(problem.limits.free[pair])
    little = NOTHING * max(network.scale, most)
    bit = {a: 1 << i for i, a in enumerate(problem.tollable)}
    settled: list[list[int]] = [[] for _ in network.nodes]
    costs: list[float] = network.costs.tolist()
    routes: list[Route] = []
    heap: list[tuple[float, int, int, int, tuple[int, ...]]] = [(0.0, 0, origin, 0, ())]
    pushed = labels = 0
    while heap:
        cost, _, v, tolled, arcs = heapq.heappop(heap)
        if any(seen & tolled == seen for seen in settled[v]):
            continue
        settled[v].append(tolled)
        labels += 1
        if labels > max_labels:
            return None, labels
        if v == end:
            routes.append(Route(cost, tolled, arcs))
            if tolled == 0:
                return routes, labels
            if len(routes) == MAX_ROUTES:
                return None, labels
            continue
        if v in network.no_through and v != origin:
            continue
        for a, w in network.outgoing[v]:
            longer, more = cost + costs[a], tolled | bit.get(a, 0)
            # A tolled route that saves nothing is dominated by the toll-free one.
            if longer + to_end[w] > most + (-little if more else little):
                continue
            if any(seen & more == seen for seen in settled[w]):
                continue
            pushed += 1
            heapq.heappush(heap, (longer, pushed, w, more, (*arcs, a)))
    return None, labels


def limits_of_routes(routes: list[Route], tollable: int) -> np.ndarray:
    """The most that a pair with these routes can pay for each arc, shape (tollable,).

    On route p it pays for arc a no more than the extra cost of any route whose tollable arcs are among p's without a.
    """
    limits = np.zeros(tollable)
    for route in routes:
        for i in range(tollable):
            if route.tolled >> i & 1:
                others = route.tolled & ~(1 << i)
                # Routes come cheapest first, and the last one is toll-free, so there always is one.
                around = next(r.cost for r in routes if r.tolled & others == r.tolled)
                limits[i] = max(limits[i], around - route.cost)
    return limits


@dataclass(frozen=True)
class Enumeration:
    """The routes of every pair that can pay, where they could be listed, and the limits that follow.

    Attributes:
        limits: never looser than the problem's, still lossless.
        routes: of each pair, cheapest first; None where there are too many, or the pair never pays.
    """

    limits: Limits
    routes: tuple[tuple[Route, ...] | None, ...]


def enumerate_routes(problem: TollProblem) -> Enumeration:
    """List routes pair by pair, within the limits of labels above."""
    limits, network = problem.limits, problem.network
    by_pair, useful = limits.by_pair.copy(), limits.useful.copy()
    to_end: dict[str, list[float]] = {}
    found: list[tuple[Route, ...] | None] = [None] * len(problem.demands)
    left = TOTAL_LABELS
    for k in np.flatnonzero(limits.by_pair.any(axis=1)):
        end = problem.demands[k].destination
        if end not in to_end:
            weights = network.costs.tolist()
            to_end[end] = distances(network, network.index(end), weights, backward=True).distance
        routes, labels = undominated(problem, int(k), to_end[end], min(MAX_LABELS, left))
        left -= labels
        if routes is not None:
            found[k] = tuple(routes)
            by_pair[k] = np.minimum(by_pair[k], limits_of_routes(routes, len(problem.tollable)))
            used = np.zeros(len(network.arcs), dtype=bool)
            used[[a for route in routes for a in route.arcs]] = True
            # Both restrictions together still leave a cheapest route under all tolls: a route over an arc that the
            # distances rule out costs no less than one around it with fewer tollable arcs, and that one is listed too.
            useful[k] &= used
        if left <= 0:
            break
    cap = by_pair.max(axis=0, initial=0.0)
    return Enumeration(Limits(limits.free, limits.zero, by_pair, cap, useful), tuple(found))


def tighten(problem: TollProblem) -> Limits:
    """The problem's limits, made tighter for every pair whose routes could be listed."""
    return enumerate_routes(problem).limits
