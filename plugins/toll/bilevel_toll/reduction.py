"""The single-level forms of a toll problem: products of toll and use linearised, choices made whole.

| form | the pair's choice | what is cheapest | tied by |
|---|---|---|---|
| std | flow on arcs | node potentials | strong duality |
| pastd | listed routes | node potentials | strong duality |
| vf | flow on arcs | the cheapest listed route | strong duality |
| pvf | listed routes | the cheapest listed route | strong duality |
| pcs | listed routes | the cheapest listed route | complementary slackness |

Sources: Labbé, Marcotte, Savard (1998), A bilevel model of taxation and its application to optimal highway pricing,
Management Science 44; Bui, Gendron, Carvalho (2022), A catalog of formulations for the network pricing problem, INFORMS
Journal on Computing 34, for the names; bounds by Dewez et al. (2008), see `limits` and `tighten`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from bilevel_core.program import INF, Program, linear
from bilevel_core.reductions.base import Reduction
from bilevel_toll.blocks import Block, Blocks
from bilevel_toll.limits import Limits
from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import cheapest_to, distances
from bilevel_toll.tighten import Enumeration, enumerate_routes

Form = Literal["std", "pastd", "vf", "pvf", "pcs"]
FORMS: tuple[Form, ...] = ("std", "pastd", "vf", "pvf", "pcs")
BigM = Literal["routes", "distances"]
CLOSE = 1e-9
"""Routes whose costs with tolls differ by less than this share of the pair's cost are equally cheap."""


class SingleLevel(Reduction[TollProblem, Program]):
    """One of the forms; a pair whose routes could not be listed gets the form ``std`` whatever was asked for.

        max  sum_k n_k sum_a w_ka                                 (w_ka: what pair k pays on arc a)
        s.t. the pair's choice x_k is a route
             no route is cheaper than the potential, or the cost of the cheapest
             which is at least sum_a (c_a x_a + w_a)              strong duality: the choice is a cheapest one
             w <= M x,  w <= t,  t - w <= N (1 - x)               exact for binary x

    Arcs that can lie on no cheapest route of a pair are left out of its block, and so are pairs that save nothing;
    `invert` puts those on their toll-free routes, which stay cheapest whatever the tolls.

    Args:
        form: which one.
        big_m: bounds M from listed routes where they are, or from distances alone.
        listed: routes of this problem, where they are known already.
    """

    def __init__(self, form: Form = "std", big_m: BigM = "routes", listed: Enumeration | None = None) -> None:
        self.form, self.big_m = form, big_m
        self._listed = listed
        self._problem: TollProblem | None = None
        self._limits: Limits | None = None
        self._blocks: list[Block] = []
        self._size = 0

    def accepts(self, source: TollProblem) -> str | None:
        """Toll problems only."""
        return None if isinstance(source, TollProblem) else "expected a toll problem, whose network is known"  # pyright: ignore[reportUnnecessaryIsInstance]

    def apply(self, source: TollProblem) -> Program:
        """See `Reduction.apply`. Columns: tolls, then block after block."""
        needs_routes = self.form != "std" or self.big_m == "routes"
        listed = (self._listed or enumerate_routes(source)) if needs_routes else None
        self._problem = source
        self._limits = listed.limits if listed is not None and self.big_m == "routes" else source.limits
        self._blocks = []
        make = Blocks(source, self._limits)
        for k in range(len(source.demands)):
            # Without routes' limits a listed route may use an arc that they would have ruled out: take all of them.
            useful = self._limits.useful[k]
            routes = listed.routes[k] if listed is not None else None
            arcs = [int(a) for a in np.flatnonzero(useful)]
            if not any(a in make.tolled for a in arcs):
                continue
            block = Block(k, arcs, routes)
            if self.form == "std" or routes is None:
                self._arc_block(make, block, routes=False)
            elif self.form == "vf":
                self._arc_block(make, block, routes=True)
            else:
                self._route_block(make, block)
            self._blocks.append(block)
        self._size = len(make.columns)
        return Program(tuple(make.columns), linear(make.objective), tuple(make.rows))

    @staticmethod
    def _arc_block(make: Blocks, block: Block, *, routes: bool) -> None:
        """Forms std and vf."""
        make.flow(block)
        make.payments(block)
        if routes:
            make.least(block)
        else:
            make.potentials(block)
        make.flow_rows(block)
        for a in block.use:
            if a in make.tolled:
                make.paid_rows(block, a)
            if not routes:
                make.rise_row(block, a)
        if routes:
            make.least_rows(block)
        make.duality(block)

    def _route_block(self, make: Blocks, block: Block) -> None:
        """Forms pastd, pvf and pcs."""
        make.choice(block, integer=self.form == "pcs")
        if self.form == "pastd":
            make.payments(block)
            make.potentials(block)
            make.choice_rows(block)
            for a in block.arcs:
                make.rise_row(block, a)
        else:
            if self.form == "pvf":
                make.payments(block)
            make.least(block)
            make.choice_rows(block)
            make.least_rows(block)
        if self.form == "pcs":
            make.slackness(block)
            return
        for a in block.use:
            make.paid_rows(block, a)
        make.duality(block)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """See `Reduction.invert`: the tolls, and each pair's flow as the target has it."""
        problem = self._source
        count, arcs = len(problem.tollable), len(problem.network.arcs)
        tolls = np.clip(values[:count], 0.0, problem.limits.cap)
        flow = np.zeros((len(problem.demands), arcs))
        idle = set(range(len(problem.demands))) - {b.pair for b in self._blocks}
        if idle:
            free = problem.routes(np.full(count, INF))
            for k in idle:
                flow[k, list(free[k])] = 1.0
        for block in self._blocks:
            if block.take and block.routes is not None:
                for r, column in block.take.items():
                    flow[block.pair, list(block.routes[r].arcs)] += min(1.0, max(0.0, float(values[column])))
                continue
            for a, x in block.use.items():
                flow[block.pair, a] = min(1.0, max(0.0, float(values[x])))
        return np.concatenate([tolls, flow.reshape(-1)])

    def point(self, tolls: np.ndarray) -> np.ndarray:
        """A feasible point of the target from tolls of shape (tollable arcs,): users answer, ties for the leader.

        Tolls beyond the target's bounds are brought down to them, which earns no less.
        """
        problem = self._source
        tolls = np.minimum(tolls, self.limits.cap)
        everywhere = problem.spread(tolls)
        out = np.zeros(self._size)
        out[: len(tolls)] = tolls
        to_end: dict[int, list[float]] = {}
        weights = (problem.network.costs + everywhere).tolist()
        for block in self._blocks:
            end = problem.network.index(problem.demands[block.pair].destination)
            if block.potential and end not in to_end:
                to_end[end] = distances(problem.network, end, weights, backward=True).distance
            for v, column in block.potential.items():
                out[column] = min(to_end[end][v], float(self.limits.free[block.pair]))
            self._choose(block, everywhere, out)
        return out

    def _choose(self, block: Block, everywhere: np.ndarray, out: np.ndarray) -> None:
        """The pair's answer as columns: of its cheapest routes the one that pays the most."""
        problem = self._source
        demand, network = problem.demands[block.pair], problem.network
        if block.routes is not None and (block.take or block.least >= 0):
            paid = np.array([everywhere[list(r.arcs)].sum() for r in block.routes])
            costs = np.array([r.cost for r in block.routes]) + paid
            near = np.flatnonzero(costs <= costs.min() + CLOSE * max(network.scale, float(costs.min())))
            chosen = int(near[np.argmax(paid[near])])
            arcs = block.routes[chosen].arcs
            if block.take:
                out[block.take[chosen]] = 1.0
            if block.least >= 0:
                out[block.least] = min(costs.min(), float(self.limits.free[block.pair]))
        else:
            within = np.where(self.limits.useful[block.pair], everywhere, INF)
            arcs = cheapest_to(network, network.index(demand.destination), within).route(network.index(demand.origin))
        for a in arcs:
            if a in block.use:
                out[block.use[a]] = 1.0
            if a in block.paid:
                out[block.paid[a]] = everywhere[a]

    @property
    def limits(self) -> Limits:
        """The limits that the target uses; never looser than the problem's own."""
        if self._limits is None:
            raise ValueError("apply comes first")
        return self._limits

    @property
    def by_routes(self) -> int:
        """Pairs whose routes are listed in the target."""
        return sum(block.routes is not None for block in self._blocks)

    @property
    def _source(self) -> TollProblem:
        if self._problem is None:
            raise ValueError("apply comes first")
        return self._problem


class StrongDuality(SingleLevel):
    """The form ``std`` of Labbé, Marcotte and Savard."""
