"""Cheapest routes: distances, and among (nearly) equally cheap routes the one that pays the most or the least toll."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bilevel_toll.network import Network

INF = float("inf")
TIE = 1e-8
"""Reduced cost of an arc up to which it lies on a cheapest route; relative to the cost of the route, which counts as at
least the scale of costs."""
GAIN = 1e-12


class Tree(NamedTuple):
    """Cheapest routes from a node, or to it.

    Attributes:
        distance: of each node; infinite where there is no route.
        via: the arc next to each node on its route: the last one, or the first one on the way to the node; -1 where
            there is none.
        order: the nodes that can be reached, nearest first; each comes after the node at the other end of its arc.
    """

    distance: list[float]
    via: list[int]
    order: list[int]


def distances(network: Network, node: int, weights: Sequence[float], *, backward: bool = False) -> Tree:
    """Dijkstra (1959) from a node, or to it.

    Args:
        network: nodes in ``network.no_through`` are reached but not passed through.
        node: where routes start; where they end with ``backward``.
        weights: cost of each arc, at least 0; infinite closes the arc.
        backward: distances from every node to ``node``.
    """
    star = network.incoming if backward else network.outgoing
    closed = network.no_through
    distance = [INF] * len(network.nodes)
    via = [-1] * len(network.nodes)
    done = [False] * len(network.nodes)
    order: list[int] = []
    distance[node] = 0.0
    heap: list[tuple[float, int]] = [(0.0, node)]
    while heap:
        d, v = heapq.heappop(heap)
        if done[v]:
            continue
        done[v] = True
        order.append(v)
        if v in closed and v != node:
            continue
        for arc, other in star[v]:
            through = d + weights[arc]
            if through < distance[other]:
                distance[other] = through
                via[other] = arc
                heapq.heappush(heap, (through, other))
    return Tree(distance, via, order)


@dataclass(frozen=True)
class Destination:
    """Cheapest routes to one node, ties resolved by the toll that they pay.

    Attributes:
        network: the network.
        node: the destination.
        cost: cost with tolls from every node; infinite where there is no route.
        toll: toll paid on the chosen route from every node.
        first: first arc of the chosen route from every node, -1 where there is none.
    """

    network: Network
    node: int
    cost: tuple[float, ...]
    toll: tuple[float, ...]
    first: tuple[int, ...]

    def route(self, origin: int) -> tuple[int, ...]:
        """The arcs of the chosen route.

        Raises:
            ValueError: there is no route.
        """
        route: list[int] = []
        v = origin
        while v != self.node:
            if self.first[v] < 0 or len(route) > len(self.network.nodes):
                raise ValueError(f"no route from {self.network.nodes[origin]} to {self.network.nodes[self.node]}")
            route.append(self.first[v])
            v = int(self.network.heads[self.first[v]])
        return tuple(route)


def cheapest_to(
    network: Network, node: int, tolls: np.ndarray, *, dearest: bool = True, tie: float = TIE
) -> Destination:
    """Cheapest routes to a node under costs plus tolls; of equally cheap ones those that pay the most toll.

    With potentials pi (distance to the node) an arc (i, j) lies on a cheapest route if its reduced cost
    c + t + pi(j) - pi(i) is zero. Over the arcs where it is zero up to a tolerance, labels are improved until none
    can be; a route that would close a circle is not taken.

    Args:
        network: the network.
        node: the destination.
        tolls: toll of each arc, shape (arcs,), at least 0.
        dearest: whether ties go to the most toll (the leader's wish) or to the least (the worst case).
        tie: which reduced cost of an arc counts as zero, relative to the cost (at least ``network.scale``).
    """
    weights = (network.costs + tolls).tolist()
    cost = distances(network, node, weights, backward=True).distance
    sign = 1.0 if dearest else -1.0
    toll = [-INF] * len(network.nodes)
    first = [-1] * len(network.nodes)
    toll[node] = 0.0
    queue = deque([node])
    closed = network.no_through
    while queue:
        v = queue.popleft()
        if v in closed and v != node:
            continue
        for arc, u in network.incoming[v]:
            slack = weights[arc] + cost[v] - cost[u]
            if u == node or not slack <= tie * max(network.scale, cost[u]):
                continue
            label = sign * tolls[arc] + toll[v]
            if label > toll[u] + GAIN * max(network.scale, cost[u]) and not _on_route(network, first, v, u):
                toll[u] = label
                first[u] = arc
                queue.append(u)
    return Destination(network, node, tuple(cost), tuple(sign * t for t in toll), tuple(first))


def _on_route(network: Network, first: Sequence[int], start: int, node: int) -> bool:
    """Whether the present route from ``start`` passes a node."""
    v = start
    while v != node and first[v] >= 0:
        v = int(network.heads[first[v]])
    return v == node
