"""The single-level form of a toll problem: strong duality, node potentials, and products of toll and use linearised.

Source: Labbé, Marcotte, Savard (1998), A bilevel model of taxation and its application to optimal highway pricing,
Management Science 44; bounds by Dewez et al. (2008), see `limits` and `tighten`. It is the form STD of Bui, Gendron and
Carvalho (2022), A catalog of formulations for the network pricing problem, INFORMS Journal on Computing 34.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bilevel_core.program import INF, Program, Row, Variable, linear
from bilevel_core.reductions.base import Reduction
from bilevel_toll.limits import Limits
from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import cheapest_to, distances
from bilevel_toll.tighten import tighten


@dataclass(frozen=True)
class _Block:
    """Columns of one pair in the target: by arc, by tolled arc, by node."""

    pair: int
    use: dict[int, int]
    paid: dict[int, int]
    potential: dict[int, int]


class StrongDuality(Reduction[TollProblem, Program]):
    """For each pair that can save anything: x_a (use of an arc, binary where tolled), w_a = t_a x_a, potentials.

        max  sum_k n_k sum_a w_ka
        s.t. x_k is a unit of flow
             potential_i - potential_j <= c_a + t_a                     each arc (i, j), potential of the end 0
             potential of the origin >= sum_a (c_a x_a + w_a)           strong duality: the flow is a cheapest one
             w <= M x,  w <= t,  t - w <= N (1 - x)                     exact for binary x

    Arcs that can lie on no cheapest route of a pair are left out of its block, and so are pairs that save nothing;
    `invert` puts those on their toll-free routes, which stay cheapest whatever the tolls.
    """

    def __init__(self) -> None:
        self._problem: TollProblem | None = None
        self._limits: Limits | None = None
        self._blocks: list[_Block] = []
        self._size = 0

    def accepts(self, source: TollProblem) -> str | None:
        """Toll problems only."""
        return None if isinstance(source, TollProblem) else "expected a toll problem, whose network is known"  # pyright: ignore[reportUnnecessaryIsInstance]

    def apply(self, source: TollProblem) -> Program:
        """See `Reduction.apply`. Columns: tolls, then block after block."""
        self._problem = source
        self._limits = tighten(source)
        self._blocks = []
        limits, network = self._limits, source.network
        tolled = {a: i for i, a in enumerate(source.tollable)}
        columns = [
            Variable(f"toll[{network.labels[a]}]", 0.0, float(limits.cap[i])) for i, a in enumerate(source.tollable)
        ]
        rows: list[Row] = []
        objective: dict[int, float] = {}
        for k, demand in enumerate(source.demands):
            arcs = [int(a) for a in np.flatnonzero(limits.useful[k])]
            if not any(a in tolled for a in arcs):
                continue
            block = self._columns(columns, k, arcs, tolled)
            self._blocks.append(block)
            objective.update(dict.fromkeys(block.paid.values(), -demand.trips))
            rows += self._flow_rows(block)
            rows += self._price_rows(block, tolled)
        self._size = len(columns)
        return Program(tuple(columns), linear(objective), tuple(rows))

    def _columns(self, columns: list[Variable], k: int, arcs: Sequence[int], tolled: dict[int, int]) -> _Block:
        problem = self._source
        network, limits, demand = problem.network, self.limits, problem.demands[k]
        end = network.index(demand.destination)
        use: dict[int, int] = {}
        paid: dict[int, int] = {}
        potential: dict[int, int] = {}
        for a in arcs:
            use[a] = len(columns)
            columns.append(Variable(f"use[{demand.label},{network.labels[a]}]", 0.0, 1.0, integer=a in tolled))
        for a in arcs:
            if a in tolled:
                paid[a] = len(columns)
                most = float(limits.by_pair[k, tolled[a]])
                columns.append(Variable(f"paid[{demand.label},{network.labels[a]}]", 0.0, most))
        # Distances to the end, cut off at the cost of the toll-free route, satisfy every row, so these bounds lose
        # nothing: cutting potentials off at a constant keeps differences below costs that are not negative.
        for v in dict.fromkeys(int(n) for a in arcs for n in (network.tails[a], network.heads[a])):
            if v != end:
                potential[v] = len(columns)
                columns.append(Variable(f"potential[{demand.label},{network.nodes[v]}]", 0.0, float(limits.free[k])))
        return _Block(k, use, paid, potential)

    def _flow_rows(self, block: _Block) -> list[Row]:
        network, demand = self._source.network, self._source.demands[block.pair]
        rows: list[Row] = []
        for v in block.potential:
            out = {block.use[a]: 1.0 for a, _ in network.outgoing[v] if a in block.use}
            out |= {block.use[a]: -1.0 for a, _ in network.incoming[v] if a in block.use}
            sent = 1.0 if network.nodes[v] == demand.origin else 0.0
            rows.append(Row(f"node[{demand.label},{network.nodes[v]}]", linear(out), sent, sent))
        return rows

    def _price_rows(self, block: _Block, tolled: dict[int, int]) -> list[Row]:
        problem = self._source
        network, limits, demand = problem.network, self.limits, problem.demands[block.pair]
        rows: list[Row] = []
        duality: dict[int, float] = {block.potential[network.index(demand.origin)]: 1.0}
        for a, x in block.use.items():
            name, cost = f"{demand.label},{network.labels[a]}", float(network.costs[a])
            rise: dict[int, float] = {}
            for v, sign in ((int(network.tails[a]), 1.0), (int(network.heads[a]), -1.0)):
                if v in block.potential:
                    rise[block.potential[v]] = sign
            duality[x] = -cost
            if a in tolled:
                toll, w = tolled[a], block.paid[a]
                most, cap = float(limits.by_pair[block.pair, toll]), float(limits.cap[toll])
                rise[toll] = -1.0
                duality[w] = -1.0
                rows.append(Row(f"paid if used[{name}]", linear({w: 1.0, x: -most}), -INF, 0.0))
                rows.append(Row(f"paid at most[{name}]", linear({w: 1.0, toll: -1.0}), -INF, 0.0))
                rows.append(Row(f"paid in full[{name}]", linear({toll: 1.0, w: -1.0, x: cap}), -INF, cap))
            rows.append(Row(f"rise[{name}]", linear(rise), -INF, cost))
        rows.append(Row(f"strong duality[{demand.label}]", linear(duality), 0.0, INF))
        return rows

    def invert(self, values: np.ndarray) -> np.ndarray:
        """See `Reduction.invert`: the tolls, and each pair's flow as the target has it."""
        problem = self._source
        count, arcs = len(problem.tollable), len(problem.network.arcs)
        tolls = np.clip(values[:count], 0.0, problem.limits.cap)
        flow = np.zeros((len(problem.demands), arcs))
        away = np.full(count, INF)
        idle = set(range(len(problem.demands))) - {b.pair for b in self._blocks}
        if idle:
            free = problem.routes(away)
            for k in idle:
                flow[k, list(free[k])] = 1.0
        for block in self._blocks:
            for a, x in block.use.items():
                flow[block.pair, a] = min(1.0, max(0.0, float(values[x])))
        return np.concatenate([tolls, flow.reshape(-1)])

    def point(self, tolls: np.ndarray) -> np.ndarray:
        """A feasible point of the target from tolls of shape (tollable arcs,): users answer, ties for the leader.

        Tolls beyond the target's bounds are brought down to them, which earns no less.
        """
        problem = self._source
        tolls = np.minimum(tolls, self.limits.cap)
        network = problem.network
        everywhere = problem.spread(tolls)
        weights = (network.costs + everywhere).tolist()
        out = np.zeros(self._size)
        out[: len(tolls)] = tolls
        to_end: dict[int, list[float]] = {}
        for block in self._blocks:
            demand = problem.demands[block.pair]
            end = network.index(demand.destination)
            if end not in to_end:
                to_end[end] = distances(network, end, weights, backward=True).distance
            for v, column in block.potential.items():
                out[column] = min(to_end[end][v], float(self.limits.free[block.pair]))
            within = np.where(self.limits.useful[block.pair], everywhere, INF)
            for a in cheapest_to(network, end, within).route(network.index(demand.origin)):
                out[block.use[a]] = 1.0
                if a in block.paid:
                    out[block.paid[a]] = everywhere[a]
        return out

    @property
    def limits(self) -> Limits:
        """The limits that the target uses; never looser than the problem's own."""
        if self._limits is None:
            raise ValueError("apply comes first")
        return self._limits

    @property
    def _source(self) -> TollProblem:
        if self._problem is None:
            raise ValueError("apply comes first")
        return self._problem
