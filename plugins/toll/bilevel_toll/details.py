"""What a toll problem reports of a point: tolls by arc, who pays on which route, revenue under other rules for ties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bilevel_toll.problem import TollProblem

DISCOUNT = 1e-4
"""Optimal tolls sit exactly on ties; this much off all of them makes users choose the leader's routes for sure."""
SHARE = 1e-6
"""Parts of a pair's trips, and tolls relative to the scale of costs, up to this size are rounding."""


def describe(problem: TollProblem, tolls: np.ndarray, flow: np.ndarray) -> dict[str, Any]:
    """The report of a point.

    Args:
        problem: the problem.
        tolls: shape (tollable arcs,).
        flow: shape (pairs, arcs).

    Returns:
        Figures, then two tables:
        ``revenue`` at the point itself, where ties are for the leader; ``revenue_if_ties_go_against`` when users with
        several cheapest routes take the one that pays least; ``safe_revenue`` under tolls that are 0.01% lower, with
        ties against the leader: what can be counted on; ``revenue_limit``: every pair pays all that it saves.
        ``tolls``: a row for each tollable arc. ``payers``: a row for each route on which a toll is paid.
    """
    trips, everywhere = problem.trips, problem.spread(tolls)
    on_arc = trips @ flow
    least = SHARE * problem.network.scale
    rows = [_toll_row(problem, a, float(t), float(on_arc[a])) for a, t in zip(problem.tollable, tolls, strict=True)]
    paid = flow @ everywhere
    report: dict[str, Any] = {
        "revenue": _tidy(float(trips @ paid)),
        "revenue_if_ties_go_against": _tidy(problem.revenue(tolls, dearest=False)),
        "safe_revenue": _tidy(problem.revenue(tolls * (1.0 - DISCOUNT), dearest=False)),
        "revenue_limit": _tidy(problem.bound),
        "pairs": len(problem.demands),
        "paying_pairs": int(np.count_nonzero(paid > least)),
        "trips": _tidy(float(trips.sum())),
        "paying_trips": _tidy(float(trips[paid > least].sum())),
    }
    if problem.unit:
        report["unit"] = problem.unit
    report["tolls"] = rows
    payers = [row for k in np.flatnonzero(paid > least) for row in _payer_rows(problem, int(k), flow[k], everywhere)]
    if payers:
        report["payers"] = sorted(payers, key=lambda r: -r["revenue"])
    return report


def _toll_row(problem: TollProblem, arc: int, toll: float, trips: float) -> dict[str, Any]:
    road = problem.network.arcs[arc]
    trips = trips if trips > SHARE * problem.trips.max() else 0.0
    return {
        "from": road.tail,
        "to": road.head,
        "toll": _tidy(toll),
        "trips": _tidy(trips),
        "revenue": _tidy(toll * trips),
    }


def _payer_rows(problem: TollProblem, pair: int, flow: np.ndarray, tolls: np.ndarray) -> list[dict[str, Any]]:
    demand = problem.demands[pair]
    rows: list[dict[str, Any]] = []
    for route, share in paths(problem, pair, flow):
        toll = float(tolls[list(route)].sum())
        if toll > SHARE * problem.network.scale:
            trips = demand.trips * share
            rows.append(
                {
                    "from": demand.origin,
                    "to": demand.destination,
                    "trips": _tidy(trips),
                    "toll": _tidy(toll),
                    "revenue": _tidy(toll * trips),
                    "cost_with_toll": _tidy(float(problem.network.costs[list(route)].sum()) + toll),
                    "route": problem.network.route_text(route),
                }
            )
    return rows


def paths(problem: TollProblem, pair: int, flow: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Take a pair's flow apart into routes and their shares, widest first; circles and rounding are left over."""
    network = problem.network
    origin = network.index(problem.demands[pair].origin)
    end = network.index(problem.demands[pair].destination)
    left = flow.copy()
    found: list[tuple[tuple[int, ...], float]] = []
    while (route := _through(network.outgoing, origin, end, left)) is not None:
        share = float(left[list(route)].min())
        left[list(route)] -= share
        found.append((route, share))
    return sorted(found, key=lambda item: -item[1])


def _through(
    outgoing: tuple[tuple[tuple[int, int], ...], ...], origin: int, end: int, left: np.ndarray
) -> tuple[int, ...] | None:
    """A route over arcs that still carry flow, by depth-first search along the largest; None where none is left."""
    came_by: dict[int, int] = {origin: -1}
    came_from: dict[int, int] = {}
    stack = [origin]
    while stack:
        v = stack.pop()
        if v == end:
            route: list[int] = []
            while v != origin:
                route.append(came_by[v])
                v = came_from[v]
            return tuple(reversed(route))
        for arc, w in sorted(outgoing[v], key=lambda item: left[item[0]]):
            if left[arc] > SHARE and w not in came_by:
                came_by[w], came_from[w] = arc, v
                stack.append(w)
    return None


def _tidy(value: float) -> float:
    """Without the noise of floating point, at ten digits."""
    return float(f"{value:.10g}")
