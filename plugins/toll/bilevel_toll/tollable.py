"""Which arcs are tolled, where the user names a type or a file, or says only how many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bilevel_core.errors import ModelError, UsageError
from bilevel_toll.network import Demand, Network
from bilevel_toll.routes import INF, distances
from bilevel_toll.tollfile import read_links

TYPE = "type:"


def named(network: Network, texts: Sequence[str]) -> list[str]:
    """Labels of arcs from texts: a label, ``type:NAME`` for all arcs of a type, or a CSV file with a column ``link``.

    Raises:
        UsageError: no arc has the type; a file that cannot be read, has no such column or no arc, or names one that
            does not exist, by line.
    """
    found: list[str] = []
    for text in texts:
        if text.startswith(TYPE):
            kind = text.removeprefix(TYPE).strip()
            mine = [label for label, a in zip(network.labels, network.arcs, strict=True) if a.kind == kind]
            if not mine:
                kinds = ", ".join(sorted({a.kind for a in network.arcs if a.kind})) or "none"
                raise UsageError(f"No arc has the type {kind!r}; types are: {kinds}.")
            found += mine
        elif text.lower().endswith(".csv"):
            found += read_links(Path(text), network)
        else:
            found.append(text)
    return found


def choose(network: Network, demands: Sequence[Demand], tollable: int | Sequence[str]) -> list[str]:
    """Labels of the tollable arcs: those given, or so many of the busiest.

    Raises:
        UsageError: fewer than one is asked for.
        ModelError: there are not so many that leave every pair a toll-free route.
    """
    if not isinstance(tollable, int):
        return named(network, tollable)
    if tollable < 1:
        raise UsageError(f"Expected at least 1 tollable arc, got {tollable}.")
    chosen = busiest(network, demands, tollable)
    if len(chosen) < tollable:
        raise ModelError(
            f"Only {len(chosen)} arcs can be tolled with a toll-free route left for every pair; "
            f"{tollable} were asked for."
        )
    return [network.labels[a] for a in chosen]


def load(network: Network, demands: Sequence[Demand]) -> np.ndarray:
    """Trips on each arc when every pair takes one cheapest route at zero toll, shape (arcs,).

    Of equally cheap routes the one that Dijkstra's algorithm finds first counts, arcs being in the network's order.
    """
    weights = network.costs.tolist()
    on_arc = np.zeros(len(network.arcs))
    trees = {o: distances(network, network.index(o), weights) for o in dict.fromkeys(d.origin for d in demands)}
    for d in demands:
        tree = trees[d.origin]
        v, origin = network.index(d.destination), network.index(d.origin)
        while v != origin and tree.via[v] >= 0:
            on_arc[tree.via[v]] += d.trips
            v = int(network.tails[tree.via[v]])
    return on_arc


def busiest(network: Network, demands: Sequence[Demand], count: int) -> list[int]:
    """Up to so many arcs, busiest first (see `load`), each of which leaves every pair a route without any of them.

    An arc that would take the last toll-free route from a pair, given those before it, is passed over; so is one
    without trips. Equally busy arcs come in the network's order.
    """
    traffic = load(network, demands)
    weights = network.costs.tolist()
    ends: dict[int, list[int]] = {}
    for d in demands:
        ends.setdefault(network.index(d.origin), []).append(network.index(d.destination))
    chosen: list[int] = []
    for a in sorted(range(len(traffic)), key=lambda a: (-traffic[a], a)):
        if len(chosen) == count or traffic[a] <= 0.0:
            break
        weights[a] = INF
        if all(
            tree.distance[d] < INF
            for o, targets in ends.items()
            for tree in (distances(network, o, weights),)
            for d in targets
        ):
            chosen.append(a)
        else:
            weights[a] = float(network.costs[a])
    return chosen
