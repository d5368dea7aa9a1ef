"""From tolls that are nearly right to tolls that are exactly so.

A branch-and-bound returns tolls with its tolerances in them, and optimal tolls sit on ties, where the least error
changes the users' choice. So the routes are read off with a tolerance, and the best tolls under which exactly these
routes are cheapest come from a linear program (the inverse problem).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, Program, Row, Variable, linear
from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import TIE

TOLERANCES = (1e-5, 1e-6, 1e-7, TIE)
"""Relative differences in cost that are read as ties, coarse to fine."""
CHEAPER = 3e-9
"""How much cheaper (relative) another route must be to cut tolls off."""
STRICT = 1e-12
"""Tie for tolls that did not come from the linear program: a wider one would count revenue from tolls above the tie."""
ROUNDS = 200
DIGITS = 10


@dataclass(frozen=True)
class Settled:
    """Tolls, and what users do under them.

    Attributes:
        tolls: shape (tollable arcs,).
        routes: a cheapest route for each pair, ties for the leader.
        revenue: what the leader takes.
    """

    tolls: np.ndarray
    routes: tuple[tuple[int, ...], ...]
    revenue: float


def settle(problem: TollProblem, tolls: np.ndarray) -> Settled:
    """The best of: the tolls as they are, and the best tolls for the routes that they nearly make cheapest.

    Args:
        problem: the problem.
        tolls: shape (tollable arcs,), brought within [0, cap] first.
    """
    tolls = np.clip(tolls, 0.0, problem.limits.cap)
    best = answered(problem, tolls, STRICT)
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for tie in TOLERANCES:
        routes = tuple(problem.routes(tolls, tie=tie))
        if routes in tried:
            continue
        tried.add(routes)
        exact = best_tolls(problem, routes)
        if exact is not None:
            found = answered(problem, exact)
            if found.revenue > best.revenue:
                best = found
    return best


def answered(problem: TollProblem, tolls: np.ndarray, tie: float = TIE) -> Settled:
    """Users' answer to tolls, and the revenue; ``tie`` as in `cheapest_to`."""
    routes = tuple(problem.routes(tolls, tie=tie))
    everywhere = problem.spread(tolls)
    paid = np.array([float(everywhere[list(route)].sum()) for route in routes])
    return Settled(tolls, routes, float(problem.trips @ paid))


def best_tolls(problem: TollProblem, routes: tuple[tuple[int, ...], ...]) -> np.ndarray | None:
    """The tolls of most revenue under which every pair's given route is a cheapest one; None where there are none.

    A linear program in the tolls alone; the rows "no dearer than another route" are added as they are violated.
    Source: Labbé, Marcotte, Savard (1998), proposition on the inverse problem.
    """
    tolled = {a: i for i, a in enumerate(problem.tollable)}
    costs = problem.network.costs
    objective: dict[int, float] = {}
    for k, route in enumerate(routes):
        for a in route:
            if a in tolled:
                objective[tolled[a]] = objective.get(tolled[a], 0.0) - problem.demands[k].trips
    columns = tuple(
        Variable(problem.network.labels[a], 0.0, float(problem.limits.cap[i])) for i, a in enumerate(problem.tollable)
    )
    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], Row] = {}
    others = problem.routes(np.full(len(columns), INF))
    for _ in range(ROUNDS):
        added = False
        for route, other in zip(routes, others, strict=True):
            if (route, other) in rows or route == other:
                continue
            more: dict[int, float] = {}
            for sign, arcs in ((1.0, route), (-1.0, other)):
                for a in arcs:
                    if a in tolled:
                        more[tolled[a]] = more.get(tolled[a], 0.0) + sign
            room = float(costs[list(other)].sum() - costs[list(route)].sum())
            rows[route, other] = Row("no dearer", linear(more), -INF, room)
            added = True
        if not added:
            return None  # only rows that hold already are violated: numerically stuck
        program = Program(columns, linear(objective), tuple(r for r in rows.values() if r.function.linear))
        if any(r.upper < -CHEAPER for r in rows.values() if not r.function.linear):
            return None
        solution = Highs().solve(program)
        if solution.values is None or not solution.solved:
            return None
        tolls = np.round(np.clip(solution.values, 0.0, problem.limits.cap), DIGITS)
        others = problem.routes(tolls, dearest=False, tie=0.0)
        everywhere = costs + problem.spread(tolls)
        excess = [
            float(everywhere[list(r)].sum() - everywhere[list(o)].sum()) for r, o in zip(routes, others, strict=True)
        ]
        violated = [
            e > CHEAPER * max(problem.network.scale, float(everywhere[list(r)].sum()))
            for e, r in zip(excess, routes, strict=True)
        ]
        if not any(violated):
            return tolls
        others = [o if v else r for o, r, v in zip(others, routes, violated, strict=True)]
    return None
