"""`CongestedTolls`: second-best tolls, on a subset of arcs, in equal-toll groups, with bounds and steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_core.sampling.space import Continuous, Integer, Variable
from bilevel_toll.congestion.equilibrium import Flows, user_equilibrium
from bilevel_toll.congestion.objectives import Aim, Units, curvature, evaluate
from bilevel_toll.congestion.problem import TrafficProblem, tidy
from bilevel_toll.congestion.sensitivity import adjoint, tangents
from bilevel_toll.congestion.traffic import Traffic, UserClass
from bilevel_toll.network import Network

NO_TOLL = 1e-9
"""A toll up to this share of the upper bound takes no booth."""


class CongestedTolls(TrafficProblem):
    """Tolls against user equilibrium.

    Each group of arcs has one toll, and is one of the leader's variables, named ``toll[FIRST ARC]`` or
    ``toll[GROUP]``. With ``step`` a variable counts steps.

    Args:
        traffic: network and trips.
        groups: tollable arcs by their labels: texts for arcs of their own, or lists of labels for equal tolls; a
            mapping gives groups their names.
        aims: ``time``, ``revenue``, ``welfare``, ``emissions``; several for a Pareto front.
        lower, upper: bounds of all tolls in money; the default upper bound is the largest marginal-cost toll at the
            equilibrium without tolls, among the arcs in question; with revenue among the aims at least the toll from
            which nobody drives there if it is asked on all of them.
        step: tolls are multiples of this; 0 for any toll.
        most_booths: at most so many arcs may have a toll: booths are counted as for first-best tolls, and a group with
            a toll has one on each of its arcs. None for no limit.
        units: for emissions.
        name: shown in results.

    Raises:
        ModelError: no arc, one in two groups, bounds that leave nothing or are negative; revenue without an upper
            bound, where a pair must use one of the arcs; a number of booths that is no whole number of at least 1,
            too small for any group, or given with a positive lower bound, or with several aims and no step.
        UsageError: an arc that does not exist.
    """

    def __init__(
        self,
        traffic: Traffic,
        groups: Iterable[str | Sequence[str]] | Mapping[str, Sequence[str]],
        aims: Sequence[Aim] = ("time",),
        *,
        lower: float = 0.0,
        upper: float | None = None,
        step: float = 0.0,
        most_booths: int | None = None,
        units: Units | None = None,
        name: str = "congested-tolls",
    ) -> None:
        network = traffic.network
        self.names, self.groups = _groups(network, groups)
        self.most_booths = most_booths
        if most_booths is not None:
            self._check_booths(most_booths, lower, several=len(aims) > 1 and not step)
        self.step = step
        self.matrix = np.zeros((len(network.arcs), len(self.groups)))
        for k, arcs in enumerate(self.groups):
            self.matrix[list(arcs), k] = 1.0
        most = upper if upper is not None else self._most(traffic, "revenue" in aims)
        if not (math.isfinite(lower) and math.isfinite(most) and 0.0 <= lower < most):
            raise ModelError(f"Expected bounds 0 <= lower < upper for the tolls, got {lower:g} and {most:g}.")
        if not (math.isfinite(step) and step >= 0.0) or step > most:
            raise ModelError(f"Expected a step between 0 and the upper bound {most:g}, got {step!r}.")
        self.lower, self.upper = lower, most
        super().__init__(traffic, self._variables(), aims, units, name)

    def _check_booths(self, most: Any, lower: float, *, several: bool) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ModelError(f"Expected most_booths as a whole number of at least 1, got {most!r}.")
        least = min(range(len(self.groups)), key=lambda k: len(self.groups[k]))
        if len(self.groups[least]) > most:
            raise ModelError(
                f"A toll on group {self.names[least]!r} takes {len(self.groups[least])} booths, one for each of its "
                f"arcs, and no group takes fewer: raise most_booths={most}, or make groups smaller."
            )
        if lower > 0.0:
            raise ModelError(
                f"A least toll of {lower:g} puts a booth on every arc: leave out lower or most_booths={most}."
            )
        if several:
            raise ModelError(
                "Several objectives go to sampling solvers, which hit tolls of exactly 0 only where tolls have steps: "
                f"give step=..., or leave out most_booths={most}."
            )

    @property
    def sizes(self) -> np.ndarray:
        """Booths that a toll on each group takes, shape (variables,)."""
        return np.array([len(arcs) for arcs in self.groups], dtype=np.int64)

    def tolled(self, point: np.ndarray) -> np.ndarray:
        """Which groups have a toll, booleans of shape (variables,); up to a billionth of the upper bound it is none."""
        return np.asarray(point, dtype=float) * self.unit > NO_TOLL * self.upper

    def booths(self, point: np.ndarray) -> int:
        """Arcs with a toll."""
        return int(self.sizes[self.tolled(point)].sum())

    @property
    def limited(self) -> bool:
        """Whether not all groups may have a toll at once."""
        return self.most_booths is not None and int(self.sizes.sum()) > self.most_booths

    def restricted(self, groups: Sequence[int]) -> CongestedTolls:
        """The same with tolls on some groups only, by their numbers, and no limit on booths."""
        labels = self.traffic.network.labels
        chosen = {self.names[k]: [labels[a] for a in self.groups[k]] for k in groups}
        part = CongestedTolls(
            self.traffic, chosen, self.aims, lower=self.lower, upper=self.upper, step=self.step, units=self.units,
            name=self.name,
        )  # fmt: skip
        part.untouched = self.untouched
        return part

    def violation(self, point: np.ndarray) -> float:
        """By how much the number of booths is exceeded, relative to it."""
        return 0.0 if self.most_booths is None else max(0.0, self.booths(point) / self.most_booths - 1.0)

    def _most(self, traffic: Traffic, revenue: bool) -> float:
        flows = user_equilibrium(traffic)
        worth = float(traffic.values_of_time.max())
        external = traffic.roads.external(flows.flow)[self.matrix.any(axis=1)]
        most = worth * max(float(external.max()), 1e-6 * float(flows.cost.max()))
        return max(most, leaving_toll(traffic, np.flatnonzero(self.matrix.any(axis=1)))) if revenue else most

    def _variables(self) -> list[Variable]:
        if not self.step:
            return [Continuous(f"toll[{n}]", self.lower, self.upper) for n in self.names]
        low, high = math.ceil(self.lower / self.step - 1e-9), math.floor(self.upper / self.step + 1e-9)
        return [Integer(f"toll[{n}]", low, high) for n in self.names]

    @property
    def unit(self) -> float:
        """Money for a unit of the variables: the step, or 1."""
        return self.step or 1.0

    def tolls(self, point: np.ndarray) -> np.ndarray:
        """Tolls of all arcs, shape (arcs,)."""
        return self.matrix @ (np.asarray(point, dtype=float) * self.unit)

    def setting(self, point: np.ndarray) -> tuple[Traffic, np.ndarray]:
        """See `TrafficProblem.setting`."""
        return self.traffic, self.tolls(point)

    def flows(self, point: np.ndarray, start: Flows | None = None) -> Flows:
        """See `TrafficProblem.flows`."""
        return user_equilibrium(self.traffic, self.tolls(point), start=start)

    def value(self, point: np.ndarray, flows: Flows, aim: Aim) -> float:
        """See `TrafficProblem.value`."""
        return evaluate(aim, flows, self.units).value

    def gradient(self, point: np.ndarray, flows: Flows) -> tuple[np.ndarray, float]:
        """See `TrafficProblem.gradient`."""
        found = evaluate(self.aims[0], flows, self.units)
        moved = adjoint(flows, found.by_flow)
        by_toll = found.by_toll - (moved.by_class / self.traffic.values_of_time[:, None]).sum(axis=0)
        return self.matrix.T @ by_toll * self.unit, moved.residual

    def hessian(self, point: np.ndarray, flows: Flows) -> np.ndarray | None:
        """See `TrafficProblem.hessian`.

        Differentiating twice that used routes cost the same shows the flows' own second derivatives: they move as if
        the times had risen by t'' times the products of their first derivatives.
        """
        tolls = self.matrix * self.unit
        moved = tangents(flows, tolls / self.traffic.values_of_time[:, None, None])
        if moved is None:
            return None
        found = evaluate(self.aims[0], flows, self.units)
        pull = adjoint(flows, found.by_flow).by_class.sum(axis=0)
        total = moved.sum(axis=0)
        bend = pull * self.traffic.roads.curvature(flows.flow)
        return curvature(self.aims[0], flows, moved, tolls, self.units) - total.T @ (bend[:, None] * total)

    def marginal(self, flows: Flows) -> np.ndarray:
        """Mean marginal-cost toll of each group at given flows, in units of the variables, shape (variables,)."""
        worth = float(flows.by_class.sum(axis=1) @ self.traffic.values_of_time / max(flows.by_class.sum(), 1e-300))
        external = self.traffic.roads.external(flows.flow) * worth
        return (self.matrix.T @ external) / self.matrix.sum(axis=0) / self.unit

    def rows(self, point: np.ndarray, flows: Flows) -> Mapping[str, Any]:
        """A row for each tolled arc: toll, flow before and after, revenue."""
        tolls = self.tolls(point)
        labels, before = self.traffic.network.labels, self.untouched.flow
        return {
            "booths": self.booths(point),
            **({} if self.most_booths is None else {"most_booths": self.most_booths}),
            "tolls": [
                {
                    "link": labels[a],
                    "toll": tidy(tolls[a]),
                    "flow_before": tidy(before[a]),
                    "flow": tidy(flows.flow[a]),
                    "revenue": tidy(tolls[a] * flows.flow[a]),
                }
                for arcs in self.groups
                for a in arcs
            ],
        }


def leaving_toll(traffic: Traffic, arcs: np.ndarray) -> float:
    """A toll in money that leaves nobody on the arcs, if all of them have it.

    With the arcs closed, pair k has an equilibrium cost C_k; no route over arc a = (i, j) costs it less than
    d(o, i) + c_a + d(j, d) on empty roads, so none is cheaper than C_k once the toll is the largest difference.

    Args:
        traffic: roads and trips.
        arcs: numbers of the arcs.

    Raises:
        ModelError: a pair has no route without the arcs.
    """
    network = traffic.network
    open_arcs = np.setdiff1d(np.arange(len(network.arcs)), arcs)
    own = [
        UserClass(c.name, c.value_of_time, demands=tuple(d for m, d in traffic.demands if m == k))
        for k, c in enumerate(traffic.classes)
    ]
    try:
        closed_roads = Network(
            [network.arcs[a] for a in open_arcs], network.nodes, [network.nodes[v] for v in sorted(network.no_through)]
        )
        closed = Traffic(closed_roads, (), own, fixed=traffic.fixed[open_arcs])
    except ModelError as error:
        raise ModelError(
            f"Without the tollable arcs: {error} Revenue has no bound then: give an upper bound for the tolls "
            "(upper=), or take arcs off the tollable ones."
        ) from error
    cost = user_equilibrium(closed).cost
    empty = traffic.roads.free + traffic.fixed
    trees = traffic.graph.trees(empty, traffic.origins)
    # Nodes that are not passed through have two numbers, one to end at and one to start from.
    tails, heads = network.tails[arcs], network.heads[arcs]
    from_tails, from_heads = (
        np.array([traffic.graph.start(int(v)) for v in nodes], dtype=np.int64) for nodes in (tails, heads)
    )
    onward = traffic.graph.trees(empty, from_heads)
    most = 0.0
    for k, worth in enumerate(traffic.values_of_time[traffic.user_class]):
        there = trees.distance[traffic.origin_row[k]]
        through = np.minimum(there[tails], there[from_tails]) + empty[arcs]
        # A head that is the pair's end is reached already.
        rest = np.where(heads == traffic.ends[k], 0.0, onward.distance[:, traffic.ends[k]])
        least = float((through + rest).min())
        most = max(most, float(worth) * (float(cost[k]) - least))
    return most


def _groups(
    network: Network, groups: Iterable[str | Sequence[str]] | Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    entries: list[tuple[str, Sequence[str]]] = []
    if isinstance(groups, Mapping):
        entries = [(str(name), arcs) for name, arcs in groups.items()]
    else:
        for g in groups:
            arcs = [g] if isinstance(g, str) else list(g)
            entries.append((arcs[0] if arcs else "", arcs))
    if not entries or any(not arcs for _, arcs in entries):
        raise ModelError("No arc is tollable: name at least one, as 'tail-head', in every group.")
    found = tuple(tuple(network.arc_index(label) for label in arcs) for _, arcs in entries)
    flat = [a for arcs in found for a in arcs]
    if len(set(flat)) < len(flat):
        twice = next(a for k, a in enumerate(flat) if a in flat[:k])
        raise ModelError(f"Arc {network.labels[twice]} is given twice among the tollable arcs.")
    return tuple(name for name, _ in entries), found


def cordon(network: Network, inside: Iterable[str]) -> list[str]:
    """Labels of the arcs that enter a set of nodes: a cordon, to be one equal-toll group.

    Raises:
        UsageError: a node that does not exist.
        ModelError: no arc enters.
    """
    within = {network.index(n) for n in inside}
    found = [
        label
        for label, tail, head in zip(network.labels, network.tails, network.heads, strict=True)
        if int(tail) not in within and int(head) in within
    ]
    if not found:
        raise ModelError("No arc enters the cordon from outside.")
    return found


def worst_arcs(traffic: Traffic, count: int, flows: Flows | None = None) -> list[str]:
    """The arcs on which users cost each other the most, v^2 t'(v) at the equilibrium without tolls, worst first.

    Raises:
        ModelError: fewer arcs are congested, or less than one is asked for.
    """
    found = flows if flows is not None else user_equilibrium(traffic)
    cost = found.flow * traffic.roads.external(found.flow)
    order = [int(a) for a in np.argsort(-cost, kind="stable") if cost[a] > 0.0]
    if not 1 <= count <= len(order):
        raise ModelError(f"Expected between 1 and {len(order)} congested arcs to toll, got {count}.")
    return [traffic.network.labels[a] for a in order[:count]]
