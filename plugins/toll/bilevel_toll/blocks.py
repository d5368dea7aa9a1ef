"""What a pair becomes in the single-level forms: columns and rows of its choice, and of what makes the choice optimal.

A pair's choice is a flow on arcs or a mixture of listed routes; that it is cheapest is said by node potentials or by
the cost of the cheapest route; and the two are tied by strong duality or by complementary slackness. `reduction` puts
them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bilevel_core.program import INF, Row, Variable, linear
from bilevel_toll.limits import Limits
from bilevel_toll.problem import TollProblem
from bilevel_toll.tighten import Route


def _no_columns() -> dict[int, int]:
    return {}


@dataclass
class Block:
    """One pair's columns in the target, by arc, node or route.

    Attributes:
        pair: number of the pair.
        arcs: that its routes may use.
        routes: listed routes, where they are.
        use: share of the pair on an arc; of all its arcs, or of the tolled ones where routes are chosen.
        paid: toll paid on a tolled arc, times that share.
        take: share of the pair on a route, by the route's number.
        potential: cost from a node to the end, at most the pair's toll-free cost.
        least: cost of the cheapest route, tolls included; -1 where potentials say it.
    """

    pair: int
    arcs: Sequence[int]
    routes: tuple[Route, ...] | None = None
    use: dict[int, int] = field(default_factory=_no_columns)
    paid: dict[int, int] = field(default_factory=_no_columns)
    take: dict[int, int] = field(default_factory=_no_columns)
    potential: dict[int, int] = field(default_factory=_no_columns)
    least: int = -1


class Blocks:
    """Makes blocks for one problem; columns and rows are gathered here.

    Args:
        problem: the problem.
        limits: bounds on tolls.
    """

    def __init__(self, problem: TollProblem, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.tolled = {a: i for i, a in enumerate(problem.tollable)}
        labels = problem.network.labels
        self.columns = [
            Variable(f"toll[{labels[a]}]", 0.0, float(limits.cap[i])) for i, a in enumerate(problem.tollable)
        ]
        self.rows: list[Row] = []
        self.objective: dict[int, float] = {}

    def _name(self, block: Block, arc: int) -> str:
        return f"{self.problem.demands[block.pair].label},{self.problem.network.labels[arc]}"

    def _new(self, name: str, lower: float, upper: float, *, integer: bool = False) -> int:
        self.columns.append(Variable(name, lower, upper, integer=integer))
        return len(self.columns) - 1

    # The pair's choice.

    def flow(self, block: Block) -> None:
        """Columns of a unit of flow, binary on tolled arcs."""
        for a in block.arcs:
            block.use[a] = self._new(f"use[{self._name(block, a)}]", 0.0, 1.0, integer=a in self.tolled)

    def choice(self, block: Block, *, integer: bool) -> None:
        """Columns of a mixture of routes, and where they are not whole themselves, binary use of tolled arcs."""
        assert block.routes is not None
        label = self.problem.demands[block.pair].label
        for r in range(len(block.routes)):
            block.take[r] = self._new(f"take[{label},{r}]", 0.0, 1.0, integer=integer)
        if not integer:
            for a in block.arcs:
                if a in self.tolled:
                    block.use[a] = self._new(f"use[{self._name(block, a)}]", 0.0, 1.0, integer=True)

    def payments(self, block: Block) -> None:
        """Columns of tolls paid; what the leader takes."""
        trips = self.problem.demands[block.pair].trips
        for a in block.use:
            if a in self.tolled:
                most = float(self.limits.by_pair[block.pair, self.tolled[a]])
                block.paid[a] = self._new(f"paid[{self._name(block, a)}]", 0.0, most)
                self.objective[block.paid[a]] = -trips

    def flow_rows(self, block: Block) -> None:
        """The flow is one unit from origin to destination; the destination's row follows from the others."""
        network, demand = self.problem.network, self.problem.demands[block.pair]
        for v in self.nodes(block):
            out = {block.use[a]: 1.0 for a, _ in network.outgoing[v] if a in block.use}
            out |= {block.use[a]: -1.0 for a, _ in network.incoming[v] if a in block.use}
            sent = 1.0 if network.nodes[v] == demand.origin else 0.0
            self.rows.append(Row(f"node[{demand.label},{network.nodes[v]}]", linear(out), sent, sent))

    def choice_rows(self, block: Block) -> None:
        """One route is taken, and tolled arcs are used by the routes over them."""
        assert block.routes is not None
        label = self.problem.demands[block.pair].label
        self.rows.append(Row(f"one route[{label}]", linear(dict.fromkeys(block.take.values(), 1.0)), 1.0, 1.0))
        for a, x in block.use.items():
            over = {block.take[r]: 1.0 for r, route in enumerate(block.routes) if a in route.arcs}
            self.rows.append(Row(f"routes over[{self._name(block, a)}]", linear({**over, x: -1.0}), 0.0, 0.0))

    # That the choice is a cheapest one.

    def nodes(self, block: Block) -> list[int]:
        """Nodes of the block but the destination."""
        network = self.problem.network
        end = network.index(self.problem.demands[block.pair].destination)
        touched = dict.fromkeys(int(n) for a in block.arcs for n in (network.tails[a], network.heads[a]))
        return [v for v in touched if v != end]

    def potentials(self, block: Block) -> None:
        """Columns of potentials.

        Distances to the end, cut off at the cost of the toll-free route, satisfy every row, so these bounds lose
        nothing: cutting potentials off at a constant keeps differences below costs that are not negative.
        """
        label = self.problem.demands[block.pair].label
        for v in self.nodes(block):
            name = f"potential[{label},{self.problem.network.nodes[v]}]"
            block.potential[v] = self._new(name, 0.0, float(self.limits.free[block.pair]))

    def least(self, block: Block) -> None:
        """The column of the cheapest route's cost."""
        limits, label = self.limits, self.problem.demands[block.pair].label
        block.least = self._new(f"least[{label}]", float(limits.zero[block.pair]), float(limits.free[block.pair]))

    def rise(self, block: Block, arc: int) -> dict[int, float]:
        """Potential at the tail less that at the head, less the toll."""
        network = self.problem.network
        found: dict[int, float] = {}
        for v, sign in ((int(network.tails[arc]), 1.0), (int(network.heads[arc]), -1.0)):
            if v in block.potential:
                found[block.potential[v]] = sign
        if arc in self.tolled:
            found[self.tolled[arc]] = -1.0
        return found

    def rise_row(self, block: Block, arc: int) -> None:
        """Potentials rise along an arc by no more than it costs."""
        cost = float(self.problem.network.costs[arc])
        self.rows.append(Row(f"rise[{self._name(block, arc)}]", linear(self.rise(block, arc)), -INF, cost))

    def least_rows(self, block: Block) -> None:
        """No route is cheaper than the cheapest."""
        assert block.routes is not None
        label = self.problem.demands[block.pair].label
        for r, route in enumerate(block.routes):
            row = {block.least: 1.0} | {self.tolled[a]: -1.0 for a in route.arcs if a in self.tolled}
            self.rows.append(Row(f"no cheaper[{label},{r}]", linear(row), -INF, route.cost))

    # Both together.

    def paid_rows(self, block: Block, arc: int) -> None:
        """paid = toll x use, exactly where use is binary."""
        name, toll = self._name(block, arc), self.tolled[arc]
        x, w = block.use[arc], block.paid[arc]
        most, cap = float(self.limits.by_pair[block.pair, toll]), float(self.limits.cap[toll])
        self.rows.append(Row(f"paid if used[{name}]", linear({w: 1.0, x: -most}), -INF, 0.0))
        self.rows.append(Row(f"paid at most[{name}]", linear({w: 1.0, toll: -1.0}), -INF, 0.0))
        self.rows.append(Row(f"paid in full[{name}]", linear({toll: 1.0, w: -1.0, x: cap}), -INF, cap))

    def duality(self, block: Block) -> None:
        """The cheapest route costs at least what the pair's choice costs."""
        problem = self.problem
        demand = problem.demands[block.pair]
        row: dict[int, float] = {}
        if block.least >= 0:
            row[block.least] = 1.0
        else:
            row[block.potential[problem.network.index(demand.origin)]] = 1.0
        if block.routes is not None and block.take:
            row |= {block.take[r]: -route.cost for r, route in enumerate(block.routes)}
        else:
            row |= {x: -float(problem.network.costs[a]) for a, x in block.use.items()}
        row |= dict.fromkeys(block.paid.values(), -1.0)
        self.rows.append(Row(f"strong duality[{demand.label}]", linear(row), 0.0, INF))

    def slackness(self, block: Block) -> None:
        """A route that is taken costs no more than the cheapest; the leader takes the difference to its cost."""
        assert block.routes is not None
        limits, demand = self.limits, self.problem.demands[block.pair]
        self.objective[block.least] = -demand.trips
        for r, route in enumerate(block.routes):
            arcs = [self.tolled[a] for a in route.arcs if a in self.tolled]
            most = route.cost + float(limits.cap[arcs].sum()) - float(limits.zero[block.pair])
            row = dict.fromkeys(arcs, 1.0) | {block.least: -1.0, block.take[r]: most}
            self.rows.append(Row(f"cheapest if taken[{demand.label},{r}]", linear(row), -INF, most - route.cost))
            self.objective[block.take[r]] = demand.trips * route.cost
