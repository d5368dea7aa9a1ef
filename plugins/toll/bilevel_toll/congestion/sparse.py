"""Few tolls under which the system optimum is nearly what users choose: linear programs, first tolls for `booths`.

At given flows, what users could save by cheaper routes is linear in tolls and in what each destination costs from each
origin. With a price on tolls in addition, the higher the fewer of them are left, as in the lasso; tolls that are low
get a higher price in a second and third program.

Sources: Hearn and Ramana (1998), Solving congestion toll pricing models, for the conditions; Candes, Wakin and Boyd
(2008), Enhancing sparsity by reweighted l1 minimization, for the prices.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevel_core.backends import SolveSettings
from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, Program, Row, Variable, linear
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.tolls import CongestedTolls

PRICES = tuple(2.0 * 0.5**k for k in range(14))
"""Of tolls, as shares of the largest flow on an arc."""
REWEIGHTED, FLOOR = 2, 0.05
"""How often prices are adapted, and to no toll lower than this share of the highest."""
ZERO = 1e-6
"""Tolls up to this share of the upper bound are none."""


def sparse_tolls(problem: CongestedTolls, optimum: Flows) -> list[np.ndarray]:
    """Tolls from few to many, shape (groups,) each; none where users have several values of time.

    Args:
        problem: bounds, and which arcs are tolled alike.
        optimum: the system optimum.
    """
    if len(problem.traffic.classes) > 1:
        return []
    program, gap, unit = _program(problem, optimum)
    groups = len(problem.groups)
    flow = float(optimum.flow.max()) / float(problem.traffic.trips.sum())
    backend, found = Highs(), list[np.ndarray]()
    for price in PRICES:
        weights = np.ones(groups)
        tolls: np.ndarray | None = None
        for _ in range(1 + REWEIGHTED):
            objective = dict(gap)
            for g in range(groups):
                objective[g] = objective.get(g, 0.0) + price * flow * float(weights[g] * problem.sizes[g])
            solution = backend.solve(replace(program, objective=linear(objective)), SolveSettings())
            if solution.values is None:
                break
            tolls = np.maximum(solution.values[:groups], 0.0)
            if not tolls.any():
                break
            share = tolls / tolls.max()
            weights = (1.0 + FLOOR) * FLOOR / (share + FLOOR)
        if tolls is not None:
            point = np.minimum(tolls * unit / problem.unit, problem.bounds[1])
            found.append(np.where(point > ZERO * problem.bounds[1], point, 0.0))
    return found


def _program(problem: CongestedTolls, optimum: Flows) -> tuple[Program, dict[int, float], float]:
    """Columns: tolls of groups, then costs by origin and node; what users could save, for each trip, as coefficients;
    and the money that a toll of 1 is.
    """
    traffic = problem.traffic
    network, graph, worth = traffic.network, traffic.graph, float(traffic.values_of_time[0])
    times = optimum.time + traffic.fixed
    mean = float(times[times > 0.0].mean())
    trips = float(traffic.trips.sum())
    columns = [Variable(n, 0.0, problem.upper / (worth * mean)) for n in problem.names]
    owner = {a: g for g, arcs in enumerate(problem.groups) for a in arcs}
    gap = {g: float(optimum.flow[list(arcs)].sum()) / trips for g, arcs in enumerate(problem.groups)}
    rows: list[Row] = []
    reach = graph.trees(times, traffic.origins).distance
    for k, origin in enumerate(traffic.origins):
        at = {int(v): len(columns) + i for i, v in enumerate(np.flatnonzero(np.isfinite(reach[k])))}
        columns += [Variable(f"cost[{origin},{v}]", 0.0, 0.0 if v == origin else INF) for v in at]
        for j in np.flatnonzero(traffic.origin_row == k):
            column = at[int(traffic.ends[j])]
            gap[column] = gap.get(column, 0.0) - float(traffic.trips[j]) / trips
        for a, label in enumerate(network.labels):
            tail, head = graph.start(int(network.tails[a])), int(network.heads[a])
            if tail not in at or head not in at:
                continue
            rise = {at[head]: 1.0, at[tail]: -1.0}
            if a in owner:
                rise[owner[a]] = -1.0
            rows.append(Row(f"rise[{origin},{label}]", linear(rise), -INF, float(times[a]) / mean))
    return Program(tuple(columns), linear(gap), tuple(rows)), gap, mean * worth
