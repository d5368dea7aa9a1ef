"""Variants that are network pricing on another network: elastic demand, and tolls by entry and exit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from bilevel_core.errors import ModelError, UsageError
from bilevel_toll.network import Arc, Demand, Network, merged
from bilevel_toll.routes import INF, distances


def elastic(
    network: Network, demands: Iterable[Demand], choke: float, steps: int = 5
) -> tuple[Network, tuple[Demand, ...]]:
    """Trips that are given up as they become dearer: linear demand curves, cut into steps.

    At the cost without tolls all of a pair's trips are made, at ``choke`` times this cost none.
    The k-th of ``steps`` equal parts of the trips is given up beyond the cost in the middle of its step, so that
    revenue comes out too high by a share of the order of 1 / ``steps``. Each part starts at a node of its own,
    ``ORIGIN~DESTINATION~k``, which has a toll-free arc of that cost to the destination: to stay at home. So no pair can
    be charged without bound, and none needs a toll-free road.

    Args:
        network: the roads.
        demands: trips at no toll.
        choke: above 1.
        steps: how fine the curves are cut.

    Returns:
        The network with the additional nodes and arcs, and the demands on it.

    Raises:
        UsageError: a choke of at most 1, no step, a node that does not exist.
        ModelError: a pair without a route, or one that costs nothing.
    """
    if not (math.isfinite(choke) and choke > 1.0):
        raise UsageError(f"Expected a choke above 1 (times the cost without tolls), got {choke!r}.")
    if steps < 1:
        raise UsageError(f"Expected at least 1 step, got {steps}.")
    weights: list[float] = network.costs.tolist()
    nodes, arcs = list(network.nodes), list(network.arcs)
    found: list[Demand] = []
    trees: dict[str, list[float]] = {}
    for d in merged(demands, network):
        if d.origin not in trees:
            trees[d.origin] = distances(network, network.index(d.origin), weights).distance
        cost = trees[d.origin][network.index(d.destination)]
        if not 0.0 < cost < INF:
            raise ModelError(f"Pair {d.label}: expected a route that costs something, got a cost of {cost:g}.")
        for k in range(steps):
            start = f"{d.origin}~{d.destination}~{k + 1}"
            home = cost * (1.0 + (choke - 1.0) * (k + 0.5) / steps)
            nodes.append(start)
            arcs += [Arc(start, d.origin, 0.0), Arc(start, d.destination, home)]
            found.append(Demand(start, d.destination, d.trips / steps))
    closed = [network.nodes[v] for v in sorted(network.no_through)]
    starts = {d.origin.split("~")[0] for d in found} & set(closed)
    if starts:
        raise ModelError(
            f"Node {min(starts)} is a zone that may not be passed through; elastic demand passes through origins: give "
            "the network without that rule."
        )
    return Network(arcs, nodes, closed), tuple(found)


def by_entry_and_exit(network: Network, highway: Sequence[str]) -> tuple[Network, tuple[str, ...]]:
    """A highway whose tolls depend on where one enters and leaves it: a tollable arc from every stop to each later one.

    The highway's own arcs are replaced by arcs between all ordered pairs of its stops, as costly as the way between
    them; every one may have its own toll. Source: Heilporn, Labbé, Marcotte, Savard (2010), A parallel between two
    classes of pricing problems in transportation and marketing, Journal of Revenue and Pricing Management 9 (they call
    it clique pricing).

    Args:
        network: the roads.
        highway: labels of its arcs, in the order in which they are driven, each beginning where the one before ends.

    Returns:
        The new network, and the labels of the arcs that replace the highway.

    Raises:
        UsageError: an arc that does not exist.
        ModelError: no arc, arcs that do not form a way, or a way that comes back to a stop.
    """
    chosen = [network.arc_index(label) for label in highway]
    if not chosen:
        raise ModelError("The highway has no arcs: name them in the order in which they are driven.")
    for a, b in itertools.pairwise(chosen):
        if network.heads[a] != network.tails[b]:
            raise ModelError(
                f"The highway breaks off: {network.labels[b]} does not begin where {network.labels[a]} ends."
            )
    stops = [network.arcs[chosen[0]].tail, *(network.arcs[a].head for a in chosen)]
    if len(set(stops)) < len(stops):
        raise ModelError("The highway comes back to one of its stops: give it in pieces.")
    kept = [arc for k, arc in enumerate(network.arcs) if k not in chosen]
    added: list[Arc] = []
    for i in range(len(stops)):
        cost = 0.0
        for j in range(i + 1, len(stops)):
            cost += network.arcs[chosen[j - 1]].cost
            added.append(Arc(stops[i], stops[j], cost))
    closed = [network.nodes[v] for v in sorted(network.no_through)]
    changed = Network([*kept, *added], network.nodes, closed)
    return changed, changed.labels[len(kept) :]
