"""Random grid networks for pricing, after the recipe of Brotcorne, Labbé, Marcotte and Savard (2000).

A grid with arcs both ways between neighbours, costs drawn evenly, pairs at random; arcs that carry the most cheapest
routes become tollable, as long as every pair keeps a toll-free route, and their costs are halved so that users want
them.

Source: A bilevel model and solution algorithm for a freight tariff-setting problem, Transportation Science 34; the
published description leaves details open, which are fixed here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.problem import TollProblem
from bilevel_toll.tollable import busiest

COSTS, TRIPS = (5.0, 35.0), (1.0, 100.0)


def random_grid(rows: int, columns: int, pairs: int, tolled: float, seed: int) -> TollProblem:
    """A random instance.

    Args:
        rows, columns: size of the grid.
        pairs: origin-destination pairs.
        tolled: share of the arcs to be tollable; fewer are where pairs would lose their last toll-free route.
        seed: of everything random.

    Raises:
        UsageError: a grid that is too small, more pairs than there are, or a share outside (0, 1).
    """
    nodes = rows * columns
    if rows < 2 or columns < 2:
        raise UsageError(f"Expected a grid of at least 2 x 2 nodes, got {rows} x {columns}.")
    if not 1 <= pairs <= nodes * (nodes - 1):
        raise UsageError(f"Expected between 1 and {nodes * (nodes - 1)} pairs, got {pairs}.")
    if not 0.0 < tolled < 1.0:
        raise UsageError(f"Expected a share of tollable arcs in (0, 1), got {tolled!r}.")
    rng = np.random.default_rng(seed)
    ends: list[tuple[int, int]] = []
    for v in range(nodes):
        if v % columns + 1 < columns:
            ends += [(v, v + 1), (v + 1, v)]
        if v + columns < nodes:
            ends += [(v, v + columns), (v + columns, v)]
    arcs = [Arc(str(i + 1), str(j + 1), float(np.round(rng.uniform(*COSTS), 3))) for i, j in ends]
    chosen = rng.choice(nodes * (nodes - 1), pairs, replace=False)
    demands: list[Demand] = []
    for k in sorted(int(c) for c in chosen):
        origin, other = divmod(k, nodes - 1)
        end = other + (other >= origin)
        demands.append(Demand(str(origin + 1), str(end + 1), float(np.round(rng.uniform(*TRIPS), 3))))
    names = [str(v + 1) for v in range(nodes)]
    tollable = busiest(Network(arcs, names), demands, max(1, round(tolled * len(arcs))))
    for a in tollable:
        arcs[a] = replace(arcs[a], cost=float(np.round(0.5 * arcs[a].cost, 3)))
    network = Network(arcs, names)
    return TollProblem(
        network, demands, [network.labels[a] for a in tollable], name=f"toll/grid-{rows}x{columns}-{seed}"
    )
