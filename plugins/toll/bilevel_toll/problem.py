"""`TollProblem`: tolls on some arcs, users on cheapest routes, the leader takes what they pay.

Upper level: max over t in [0, N] of sum_k n_k sum_a t_a v_ka. Lower level, one follower for each pair k of n_k trips:
v_k in argmin { sum_a (c_a + t_a) v_a : v a unit of flow from origin to destination, 0 <= v <= 1 }, ties for the leader.
A cheapest route uses no arc twice, so v <= 1 costs nothing; it keeps circles of cost zero and general solvers bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable
from bilevel_core.result import Values
from bilevel_toll.limits import Limits, find_limits
from bilevel_toll.network import Demand, Network, merged
from bilevel_toll.routes import TIE, cheapest_to

STRUCTURE = "network-pricing"


class TollProblem(AlgebraicProblem):
    """Revenue-maximising tolls without congestion (Brotcorne, Labbé, Marcotte, Savard 2001), optimistic.

    In results ``x["toll"]`` has one number for each tollable arc, in the order given, in the unit of the arcs' costs;
    ``y["flow"]`` has shape (pairs, arcs): the part of a pair's trips on each arc, 0 to 1.

    Args:
        network: the roads.
        demands: trips; several entries of one pair are added up.
        tollable: labels of the arcs that may be tolled, ``tail-head``.
        name: shown in results.
        unit: the unit of costs and tolls, shown in results.

    Raises:
        ModelError: no tollable arc or one given twice, no trips, a pair without a route or without a toll-free one.
        UsageError: an arc or a node that does not exist.
    """

    def __init__(
        self,
        network: Network,
        demands: Iterable[Demand],
        tollable: Iterable[str],
        *,
        name: str = "toll",
        unit: str = "",
    ) -> None:
        self.network = network
        self.demands: tuple[Demand, ...] = merged(demands, network)
        self.tollable: tuple[int, ...] = tuple(network.arc_index(label) for label in tollable)
        self.name = name
        self.unit = unit
        if not self.tollable:
            raise ModelError("No arc is tollable: name at least one, as 'tail-head'.")
        if len(set(self.tollable)) < len(self.tollable):
            twice = next(a for k, a in enumerate(self.tollable) if a in self.tollable[:k])
            raise ModelError(f"Arc {network.labels[twice]} is given twice among the tollable arcs.")
        self.limits: Limits = find_limits(network, self.demands, self.tollable)

    @cached_property
    def trips(self) -> np.ndarray:
        """Trips of each pair, shape (pairs,)."""
        return np.array([d.trips for d in self.demands], dtype=float)

    @property
    def bound(self) -> float:
        """No tolls earn more than this: every pair pays its whole saving."""
        return float(self.trips @ self.limits.savings)

    def spread(self, tolls: np.ndarray) -> np.ndarray:
        """Tolls of the tollable arcs as tolls of all arcs, shape (arcs,)."""
        out = np.zeros(len(self.network.arcs))
        out[list(self.tollable)] = tolls
        return out

    def routes(self, tolls: np.ndarray, *, dearest: bool = True, tie: float = TIE) -> list[tuple[int, ...]]:
        """The route that each pair takes under tolls of shape (tollable arcs,); see `cheapest_to` for ties."""
        everywhere = self.spread(tolls)
        by_end: dict[str, list[int]] = {}
        for k, d in enumerate(self.demands):
            by_end.setdefault(d.destination, []).append(k)
        routes: list[tuple[int, ...]] = [()] * len(self.demands)
        for end, pairs in by_end.items():
            to = cheapest_to(self.network, self.network.index(end), everywhere, dearest=dearest, tie=tie)
            for k in pairs:
                routes[k] = to.route(self.network.index(self.demands[k].origin))
        return routes

    def revenue(self, tolls: np.ndarray, *, dearest: bool = True) -> float:
        """What the leader takes when users answer tolls of shape (tollable arcs,) by cheapest routes.

        Args:
            tolls: the tolls.
            dearest: whether users with several cheapest routes take the one that pays the most, or the least.
        """
        everywhere = self.spread(tolls)
        paid = [float(everywhere[list(route)].sum()) for route in self.routes(tolls, dearest=dearest)]
        return float(self.trips @ np.array(paid))

    def values(self, tolls: np.ndarray, routes: Iterable[tuple[int, ...]]) -> np.ndarray:
        """Tolls and one route a pair as a vector over the columns of `program`."""
        flow = np.zeros((len(self.demands), len(self.network.arcs)))
        for k, route in enumerate(routes):
            flow[k, list(route)] = 1.0
        return np.concatenate([tolls, flow.reshape(-1)])

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """``toll`` of shape (tollable arcs,); ``flow`` of shape (pairs, arcs)."""
        count, shape = len(self.tollable), (len(self.demands), len(self.network.arcs))
        toll = Group("toll", (count,), tuple(range(count)))
        return (toll,), (Group("flow", shape, tuple(range(count, count + shape[0] * shape[1]))),)

    def program(self) -> BilevelProgram:
        """One follower a pair; the row of the destination is left out, since it follows from the others."""
        return self._program

    @cached_property
    def _program(self) -> BilevelProgram:
        labels, tolls, arcs = self.network.labels, len(self.tollable), len(self.network.arcs)
        columns = [Variable(f"toll[{labels[a]}]", 0.0, float(self.limits.cap[i])) for i, a in enumerate(self.tollable)]
        revenue: dict[tuple[int, int], float] = {}
        followers: list[Level] = []
        for k, d in enumerate(self.demands):
            first = tolls + k * arcs
            own = tuple(range(first, first + arcs))
            usable = self._usable(d)
            columns += [
                Variable(f"flow[{d.label},{label}]", 0.0, 1.0 if usable[a] else 0.0) for a, label in enumerate(labels)
            ]
            products = {(i, first + a): 1.0 for i, a in enumerate(self.tollable)}
            revenue.update(dict.fromkeys(products, -d.trips))
            cost = {first + a: float(c) for a, c in enumerate(self.network.costs) if c != 0.0}
            followers.append(Level(d.label, Function(0.0, cost, products), self._conservation(d, first), own))
        leader = Level("leader", Function(quadratic=revenue), (), tuple(range(tolls)), maximise=True)
        return BilevelProgram(tuple(columns), leader, tuple(followers), self.name, frozenset({STRUCTURE}))

    def _conservation(self, demand: Demand, first: int) -> tuple[Row, ...]:
        network = self.network
        rows: list[Row] = []
        for v, node in enumerate(network.nodes):
            if node == demand.destination:
                continue
            out = {first + a: 1.0 for a, _ in network.outgoing[v]} | {first + a: -1.0 for a, _ in network.incoming[v]}
            if out:
                sent = 1.0 if node == demand.origin else 0.0
                rows.append(Row(f"node[{demand.label},{node}]", Function(linear=out), sent, sent))
        return tuple(rows)

    def _usable(self, demand: Demand) -> np.ndarray:
        return self.network.open_to(self.network.index(demand.origin), self.network.index(demand.destination))

    def evaluate(self, values: np.ndarray) -> Residuals:
        """From the network's arrays: costs, tolls and flows by arc, and what arrives and leaves at each node."""
        count, network = len(self.tollable), self.network
        tolls = np.asarray(values[:count], dtype=float)
        flow = np.asarray(values[count:], dtype=float).reshape(len(self.demands), len(network.arcs))
        everywhere = self.spread(tolls)
        balance = np.zeros((len(self.demands), len(network.nodes)))
        for a, (tail, head) in enumerate(zip(network.tails, network.heads, strict=True)):
            balance[:, tail] += flow[:, a]
            balance[:, head] -= flow[:, a]
        lower: list[tuple[str, float, float]] = []
        for k, d in enumerate(self.demands):
            balance[k, network.index(d.origin)] -= 1.0
            balance[k, network.index(d.destination)] += 1.0
            lower.append((f"conservation of {d.label}", float(np.abs(balance[k]).max()), 1.0))
            beyond = flow[k] - np.where(self._usable(d), 1.0, 0.0)
            wrong = np.maximum(0.0, np.maximum(-flow[k], beyond))
            lower.append((f"bounds of the flow of {d.label}", float(wrong.max()), 1.0))
        outside = np.maximum(0.0, np.maximum(-tolls, tolls - self.limits.cap))
        upper = [
            (f"toll[{network.labels[a]}]", float(v), max(1.0, float(abs(t))))
            for a, v, t in zip(self.tollable, outside, tolls, strict=True)
        ]
        paid = flow @ everywhere
        costs = flow @ network.costs + paid
        return Residuals(float(self.trips @ paid), tuple(float(c) for c in costs), tuple(upper), tuple(lower))

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """Tolls by arc, who pays them on which route, and how far the revenue leans on ties; see `details`."""
        from bilevel_toll.details import describe

        return describe(self, np.asarray(x["toll"], dtype=float), np.asarray(y["flow"], dtype=float))
