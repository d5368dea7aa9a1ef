"""First-best tolls: those under which users, each for himself, choose the system optimum.

Marginal costs v t'(v) are one such set. All of them form a polyhedron (Hearn and Ramana 1998, Solving congestion toll
pricing models): with potentials r_i of each origin,

    r_j - r_i <= t_a + toll_a  for every arc a = (i, j),   with equality where the origin's users drive.

So the least revenue is a linear program, and the fewest booths a mixed-integer one. Where arcs have fixed costs beside
time (existing tolls, distance), t_a has them, too, and the system optimum is that of time and fixed costs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.program import INF, Program, Row, Variable, linear
from bilevel_toll.congestion.equilibrium import Flows, user_equilibrium
from bilevel_toll.congestion.traffic import Traffic

Aim = Literal["marginal-cost", "least-revenue", "fewest-booths"]
AIMS: tuple[Aim, ...] = ("marginal-cost", "least-revenue", "fewest-booths")
BOOTH = 1e-7
"""A toll up to this share of the largest travel time on a route is none."""


@dataclass(frozen=True)
class FirstBest:
    """First-best tolls.

    Attributes:
        aim: what they were chosen for.
        tolls: of all arcs, shape (arcs,), in units of time times the value of time.
        optimum: the system optimum that they bring about.
        revenue: at the optimum's flows.
        booths: arcs with a toll.
        proven: whether no first-best tolls do better in the aim's sense.
        bound: what is proven of the aim: the least revenue or fewest booths there can be; None for marginal costs.
    """

    aim: Aim
    tolls: np.ndarray
    optimum: Flows
    revenue: float
    booths: int
    proven: bool
    bound: float | None


def first_best(
    traffic: Traffic,
    aim: Aim = "marginal-cost",
    *,
    optimum: Flows | None = None,
    most: float | None = None,
    time_limit: float | None = None,
) -> FirstBest:
    """Find first-best tolls.

    Args:
        traffic: network and trips, of one class of users.
        aim: marginal costs, the least revenue, or the fewest arcs with a toll.
        optimum: the system optimum, if it is known.
        most: no toll may be higher, in money; only for the last two aims.
        time_limit: seconds for the fewest booths.

    Raises:
        UsageError: several classes, or a bound below what first-best tolls need.
        BackendError: the solver failed.
    """
    if len(traffic.classes) > 1:
        raise UsageError("First-best tolls are for one class of users: classes would need tolls of their own.")
    worth = float(traffic.values_of_time[0])
    best = optimum if optimum is not None else user_equilibrium(traffic, system=True)
    if not best.system:
        raise UsageError("Expected the system optimum, got a user equilibrium.")
    if aim == "marginal-cost":
        if most is not None:
            raise UsageError("Marginal costs have no bound to choose: leave out most=, or take least-revenue.")
        return _result(aim, traffic.roads.external(best.flow) * worth, best, True, None)
    limit = INF if most is None else most / worth
    program, unit = _program(traffic, best, limit, booths=aim == "fewest-booths")
    backend = Scip() if aim == "fewest-booths" else Highs()
    solution = backend.solve(program, SolveSettings(time_limit=time_limit, gap=0.0 if aim == "fewest-booths" else None))
    if solution.status is SolveStatus.INFEASIBLE:
        raise UsageError(f"There are no first-best tolls of at most {most:g} on every arc.")
    if solution.values is None:
        raise BackendError(f"{backend.name} ended {solution.status} without first-best tolls. {solution.message}")
    tolls = np.maximum(solution.values[: len(traffic.network.arcs)], 0.0) * unit
    tolls[tolls < BOOTH * float(best.time.max())] = 0.0
    proven = solution.status is SolveStatus.OPTIMAL
    if aim == "fewest-booths":
        bound = float(np.ceil(solution.bound - 1e-6)) if np.isfinite(solution.bound) else 0.0
    else:
        bound = solution.objective * unit * worth * float(traffic.trips.sum())
    return _result(aim, tolls * worth, best, proven, bound)


def _result(aim: Aim, tolls: np.ndarray, best: Flows, proven: bool, bound: float | None) -> FirstBest:
    return FirstBest(aim, tolls, best, float(tolls @ best.flow), int(np.count_nonzero(tolls)), proven, bound)


def _program(traffic: Traffic, best: Flows, most: float, *, booths: bool) -> tuple[Program, float]:
    """Columns: tolls, then booths (binary), then potentials of each origin. Times are divided by the unit returned."""
    network, graph = traffic.network, traffic.graph
    times = best.time + traffic.fixed
    unit = float(times[times > 0.0].mean()) if (times > 0.0).any() else 1.0
    arcs = len(network.arcs)
    columns = [Variable(f"toll[{label}]", 0.0, most / unit) for label in network.labels]
    indicators: list[tuple[int, int, int]] = []
    if booths:
        indicators = [(arcs + a, 0, a) for a in range(arcs)]
        columns += [Variable(f"booth[{label}]", 0.0, 1.0, integer=True) for label in network.labels]
        objective = {arcs + a: 1.0 for a in range(arcs)}
    else:
        trips = float(traffic.trips.sum())
        objective = {a: float(best.flow[a]) / trips for a in range(arcs) if best.flow[a] > 0.0}
    rows: list[Row] = []
    driven = _arcs_by_origin(traffic, best)
    reach = graph.trees(times, traffic.origins).distance
    for k, origin in enumerate(traffic.origins):
        at = {int(v): len(columns) + i for i, v in enumerate(np.flatnonzero(np.isfinite(reach[k])))}
        # Potentials are differences: the origin's is 0, and no other can be less.
        columns += [Variable(f"cost[{origin},{v}]", 0.0, 0.0 if v == origin else INF) for v in at]
        for a in range(arcs):
            tail, head = graph.start(int(network.tails[a])), int(network.heads[a])
            if tail not in at or head not in at:
                continue
            rise = {at[head]: 1.0, at[tail]: -1.0, a: -1.0}
            time = float(times[a]) / unit
            rows.append(Row(f"rise[{origin},{network.labels[a]}]", linear(rise), time if driven[k, a] else -INF, time))
    return Program(tuple(columns), linear(objective), tuple(rows), indicators=tuple(indicators)), unit


def _arcs_by_origin(traffic: Traffic, best: Flows) -> np.ndarray:
    """Which arcs the users of each origin drive on, boolean, shape (origins, arcs)."""
    driven = np.zeros((len(traffic.origins), len(traffic.network.arcs)), dtype=bool)
    routes = best.routes.tocsc()
    for r, owner in enumerate(best.owner):
        arcs = routes.indices[routes.indptr[r] : routes.indptr[r + 1]]
        driven[traffic.origin_row[owner], arcs] = True
    return driven
