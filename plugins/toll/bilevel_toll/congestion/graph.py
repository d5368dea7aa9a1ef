"""Cheapest routes of many pairs at once by SciPy's compiled Dijkstra; parallel arcs and closed nodes taken care of."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from bilevel_toll.network import Network


class Graph:
    """The network as SciPy wants it.

    A node that may not be passed through gets a twin from which its arcs leave: routes start at the twin and end at the
    node itself. Of parallel arcs the cheapest at the moment stands for all.

    Args:
        network: the network.
    """

    def __init__(self, network: Network) -> None:
        count = len(network.nodes)
        self._twin = {v: count + k for k, v in enumerate(sorted(network.no_through))}
        self.size = count + len(self._twin)
        self.arcs = len(network.arcs)
        tails = np.array([self._twin.get(int(v), int(v)) for v in network.tails], dtype=np.int64)
        keys = tails * self.size + network.heads
        self._order = np.argsort(keys, kind="stable")
        self._keys, self._first = np.unique(keys[self._order], return_index=True)
        self._indices = (self._keys % self.size).astype(np.int32)
        self._pointers = np.searchsorted(self._keys // self.size, np.arange(self.size + 1)).astype(np.int32)
        self._parallel = len(self._keys) < self.arcs

    def start(self, node: int) -> int:
        """Where routes from a node start in this graph."""
        return self._twin.get(node, node)

    def trees(self, costs: np.ndarray, origins: np.ndarray) -> Trees:
        """Cheapest routes from some origins.

        Args:
            costs: of each arc, shape (arcs,), at least 0.
            origins: starts, as `start` gives them, shape (n,).
        """
        sorted_costs = costs[self._order]
        cheapest = self._order
        if self._parallel:
            ranked = np.lexsort((sorted_costs, np.repeat(np.arange(len(self._first)), self._counts())))
            cheapest = self._order[ranked[self._first]]
        weights = costs[cheapest]
        matrix = sparse.csr_matrix((weights, self._indices, self._pointers), shape=(self.size, self.size))
        distance, before = dijkstra(matrix, indices=origins, return_predecessors=True)
        return Trees(self, distance, before, cheapest)

    def _counts(self) -> np.ndarray:
        return np.diff(np.append(self._first, self.arcs))

    def arc_between(self, tails: np.ndarray, heads: np.ndarray, cheapest: np.ndarray) -> np.ndarray:
        """The arcs that stand for pairs of nodes, shape (n,)."""
        return cheapest[np.searchsorted(self._keys, tails * self.size + heads)]


class Trees:
    """Cheapest routes from some origins.

    Attributes:
        distance: shape (origins, nodes of the graph); infinite where there is no route.
    """

    def __init__(self, graph: Graph, distance: np.ndarray, before: np.ndarray, cheapest: np.ndarray) -> None:
        self._graph, self.distance, self._before, self._cheapest = graph, distance, before.astype(np.int64), cheapest

    def routes(self, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Any:
        """Routes as the columns of a sparse matrix of shape (arcs, n), 1 where the route uses the arc.

        Args:
            rows: which of the origins, shape (n,).
            starts: the same as nodes of the graph.
            ends: where the routes end; there must be a route.
        """
        now = ends.astype(np.int64)
        active = np.arange(len(ends))
        arcs: list[np.ndarray] = []
        columns: list[np.ndarray] = []
        while len(active):
            heads = now[active]
            tails = self._before[rows[active], heads]
            arcs.append(self._graph.arc_between(tails, heads, self._cheapest))
            columns.append(active)
            now[active] = tails
            active = active[tails != starts[active]]
        data = (np.ones(sum(map(len, arcs))), (np.concatenate(arcs), np.concatenate(columns)))
        return sparse.csc_matrix(data, shape=(self._graph.arcs, len(ends)))
