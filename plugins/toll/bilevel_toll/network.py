"""Road networks and the trips on them, checked when they are made. Shortest routes live in `routes`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bilevel_core.errors import ModelError, UsageError, unknown

FORBIDDEN = ",#"
"""Characters that a node's name may not hold: they separate arcs, and number parallel ones."""


@dataclass(frozen=True)
class Arc:
    """A directed road.

    Attributes:
        tail: node where it starts.
        head: node where it ends.
        cost: what a user pays for it without toll: travel time in units of money, at least 0.
        capacity: vehicles per period; None where unknown. Not used by pricing without congestion.
        length: in the network's unit of distance; None where unknown.
        b: share by which the time has grown when the flow is the capacity; 0 for a road without congestion.
        power: of flow over capacity in the travel time cost (1 + b (flow / capacity)^power), at least 1.
        toll: what it costs already, in money.
        kind: its type, as the network's makers number or name it.
    """

    tail: str
    head: str
    cost: float
    capacity: float | None = None
    length: float | None = None
    b: float = 0.0
    power: float = 4.0
    toll: float = 0.0
    kind: str = ""


@dataclass(frozen=True)
class Demand:
    """Trips from one node to another, per period; all of them take the same decision.

    Attributes:
        origin, destination: names of nodes.
        trips: how many.
        source: where they were read, as FILE:LINE, for messages about them; empty for demand that is of no file.
    """

    origin: str
    destination: str
    trips: float
    source: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """How results name the pair: ``origin->destination``."""
        return f"{self.origin}->{self.destination}"


class Network:
    """Nodes and arcs. Arcs have labels ``tail-head``; a second arc that reads the same is ``tail-head#2``, and so on.

    Args:
        arcs: the roads, in any order.
        nodes: names of all nodes; those at the ends of arcs, in order of appearance, when left out.
        no_through: nodes where routes may start and end but which they may not pass through (zone centroids).

    Raises:
        ModelError: an unknown node, a self-loop, a cost or capacity that is negative or not finite, a node given
            twice, or no arc at all.
    """

    def __init__(self, arcs: Iterable[Arc], nodes: Iterable[str] | None = None, no_through: Iterable[str] = ()) -> None:
        self.arcs: tuple[Arc, ...] = tuple(arcs)
        if not self.arcs:
            raise ModelError("The network has no arcs.")
        ends = dict.fromkeys(n for a in self.arcs for n in (a.tail, a.head))
        self.nodes: tuple[str, ...] = tuple(ends) if nodes is None else tuple(nodes)
        self.position: dict[str, int] = {name: k for k, name in enumerate(self.nodes)}
        if len(self.position) < len(self.nodes):
            twice = next(n for k, n in enumerate(self.nodes) if self.position[n] != k)
            raise ModelError(f"Node {twice!r} is given twice.")
        for name in self.nodes:
            if not name or any(c in name for c in FORBIDDEN) or name != name.strip():
                raise ModelError(f"Expected a node's name without blanks at its ends, ',' and '#', got {name!r}.")
        for arc in self.arcs:
            self._check(arc)
        self.no_through: frozenset[int] = frozenset(self.index(n) for n in no_through)
        self.labels: tuple[str, ...] = self._labels()

    def _check(self, arc: Arc) -> None:
        label = f"{arc.tail}-{arc.head}"
        for end in (arc.tail, arc.head):
            if end not in self.position:
                raise ModelError(f"Arc {label} uses node {end!r}, which is not a node of the network.")
        if arc.tail == arc.head:
            raise ModelError(f"Arc {label} is a self-loop: leave it out, no route uses it.")
        if not (math.isfinite(arc.cost) and arc.cost >= 0.0):
            raise ModelError(f"Arc {label}: expected a cost of at least 0, got {arc.cost!r}.")
        for what, value in (("capacity", arc.capacity), ("length", arc.length)):
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise ModelError(f"Arc {label}: expected a {what} of at least 0, got {value!r}.")
        for what, value, least in (("b", arc.b, 0.0), ("power", arc.power, 1.0), ("toll", arc.toll, 0.0)):
            if not (math.isfinite(value) and value >= least):
                raise ModelError(f"Arc {label}: expected a {what} of at least {least:g}, got {value!r}.")

    def _labels(self) -> tuple[str, ...]:
        seen: dict[str, int] = {}
        labels: list[str] = []
        for arc in self.arcs:
            label = f"{arc.tail}-{arc.head}"
            seen[label] = seen.get(label, 0) + 1
            labels.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
        return tuple(labels)

    def index(self, node: str) -> int:
        """The number of a node.

        Raises:
            UsageError: there is none of that name.
        """
        if node not in self.position:
            raise unknown("node", node, self.nodes)
        return self.position[node]

    def arc_index(self, label: str) -> int:
        """The number of an arc by its label.

        Raises:
            UsageError: there is none of that label, with the nearest.
        """
        if label not in self.arc_position:
            raise unknown("arc", label, self.labels)
        return self.arc_position[label]

    @cached_property
    def arc_position(self) -> dict[str, int]:
        """Number by label."""
        return {label: k for k, label in enumerate(self.labels)}

    @cached_property
    def tails(self) -> np.ndarray:
        """Node numbers of the arcs' tails, shape (arcs,)."""
        return np.array([self.position[a.tail] for a in self.arcs], dtype=int)

    @cached_property
    def heads(self) -> np.ndarray:
        """Node numbers of the arcs' heads, shape (arcs,)."""
        return np.array([self.position[a.head] for a in self.arcs], dtype=int)

    @cached_property
    def costs(self) -> np.ndarray:
        """Costs of the arcs without tolls, shape (arcs,)."""
        return np.array([a.cost for a in self.arcs], dtype=float)

    @cached_property
    def scale(self) -> float:
        """The power of ten at or below the mean of the costs that are not zero (1 if all are): tolerances are
        relative to it, so that answers do not depend on the unit of cost.
        """
        positive = self.costs[self.costs > 0.0]
        return power_of_ten(float(positive.mean())) if len(positive) else 1.0

    @cached_property
    def outgoing(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each node, the arcs that leave it with their heads."""
        return self._star(self.tails, self.heads)

    @cached_property
    def incoming(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each node, the arcs that enter it with their tails."""
        return self._star(self.heads, self.tails)

    def _star(self, at: np.ndarray, other: np.ndarray) -> tuple[tuple[tuple[int, int], ...], ...]:
        star: list[list[tuple[int, int]]] = [[] for _ in self.nodes]
        for a in range(len(self.arcs)):
            star[at[a]].append((a, int(other[a])))
        return tuple(tuple(s) for s in star)

    def open_to(self, origin: int, destination: int) -> np.ndarray:
        """Which arcs routes of a pair may use under the rule of `no_through`, a boolean array of shape (arcs,)."""
        closed_tail = np.array(sorted(self.no_through - {origin}), dtype=int)
        closed_head = np.array(sorted(self.no_through - {destination}), dtype=int)
        return ~(np.isin(self.tails, closed_tail) | np.isin(self.heads, closed_head))

    def route_text(self, route: Sequence[int]) -> str:
        """A route as its nodes: ``1-3-4``, with spaces around the dashes where a name is longer than three letters."""
        if not route:
            return ""
        names = [self.arcs[route[0]].tail, *(self.arcs[a].head for a in route)]
        return (" - " if any(len(n) > 3 for n in names) else "-").join(names)


def power_of_ten(value: float) -> float:
    """The power of ten at or below a positive number."""
    return 10.0 ** math.floor(math.log10(value))


def merged(demands: Iterable[Demand], network: Network) -> tuple[Demand, ...]:
    """Demands with trips of one pair added up; pairs without trips, and trips that stay at their node, left out.

    Raises:
        ModelError: trips that are negative or not finite, or no trips at all.
        UsageError: a node that is not in the network.
    """
    trips: dict[tuple[str, str], float] = {}
    sources: dict[tuple[str, str], str] = {}
    for d in demands:
        try:
            network.index(d.origin)
            network.index(d.destination)
        except UsageError as error:
            raise UsageError(f"Demand {d.label}: {error}") from error
        if not (math.isfinite(d.trips) and d.trips >= 0.0):
            raise ModelError(f"Demand {d.label}: expected trips of at least 0, got {d.trips!r}.")
        if d.trips > 0.0 and d.origin != d.destination:
            pair = (d.origin, d.destination)
            trips[pair] = trips.get(pair, 0.0) + d.trips
            sources.setdefault(pair, d.source)
    if not trips:
        raise ModelError("There are no trips: every demand is zero, or ends where it starts.")
    return tuple(Demand(o, d, n, sources[o, d]) for (o, d), n in trips.items())


def sourced(demand: Demand) -> str:
    """What a message about a demand begins with: ``FILE:LINE: ``, or nothing."""
    return f"{demand.source}: " if demand.source else ""


def largest(demands: Iterable[Demand], pairs: int | None) -> list[Demand]:
    """The demands with the most trips, largest first, equal ones in the order given; all, in order, for None.

    Raises:
        UsageError: fewer than one pair is asked for.
    """
    everything = list(demands)
    if pairs is None:
        return everything
    if pairs < 1:
        raise UsageError(f"Expected at least 1 for pairs, got {pairs}.")
    return sorted(everything, key=lambda d: -d.trips)[:pairs]
