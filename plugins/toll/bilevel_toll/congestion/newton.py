"""Flows on known routes: projected Newton steps with Levenberg-Marquardt damping.

Each commodity's route of most flow takes up what the others give off, so that its trips stay constant; the others'
flows are free variables with a bound at zero. Routes that a step along their own curvature would empty are emptied; the
rest take a Newton step in common, whose matrix is Z' diag(t') Z with Z the differences of routes. It is singular where
routes are linearly dependent, hence the damping, which falls when steps succeed.

Sources: Bertsekas (1982), Projected Newton methods for optimization problems with simple constraints, for the two kinds
of routes; Larsson and Patriksson (1992) for generating routes; the damping is Levenberg's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg, sparse

from bilevel_core.linear import cg
from bilevel_toll.congestion.traffic import Traffic

LARGEST = 2500
"""Free routes up to which the Newton system is solved densely; beyond, by conjugate gradients."""
EMPTY = 1e-14
"""Route flows up to this share of the commodity's trips are set to zero."""
USE = 0.02
"""Curvature is taken at no less than this use of capacity: at zero flow it would vanish, and steps be endless."""
FIRST, LEAST, MOST = 1e-4, 1e-8, 10.0
"""Damping, relative to the diagonal: at first, at least, at most."""
BETTER = 0.7
"""A full step is taken when the gap over the known routes shrinks to this share."""
LONG, SHORT = 0.9, 0.3
"""Otherwise so much of it that Beckmann's function is least. Damping falls where that is this much, and rises below."""
HALVINGS = 12


class Master:
    """The restricted problem: routes known so far and the flows on them.

    Args:
        traffic: network and trips.
        extra: costs besides time, by class, shape (classes, arcs).
        system: marginal costs instead of times.
    """

    def __init__(self, traffic: Traffic, extra: np.ndarray, system: bool) -> None:
        self.traffic, self.extra, self.system = traffic, extra, system
        self.routes: Any = sparse.csc_matrix((len(traffic.network.arcs), 0))
        self.owner = np.zeros(0, dtype=np.int64)
        self.route_flow = np.zeros(0)
        self.damping = FIRST
        self._least = traffic.roads.slope(USE * traffic.roads.capacity)
        self._changed()

    def _changed(self) -> None:
        self.by_route: Any = self.routes.T.tocsr()
        self.route_extra = np.zeros(len(self.owner))
        for k in range(len(self.traffic.classes)):
            mine = self.traffic.user_class[self.owner] == k
            if mine.any() and self.extra[k].any():
                self.route_extra[mine] = self.by_route[mine] @ self.extra[k]

    def add(self, routes: Any, owner: np.ndarray, route_flow: np.ndarray) -> None:
        """Add routes, columns of a matrix of shape (arcs, n)."""
        self.routes = sparse.hstack([self.routes, routes], format="csc")
        self.owner = np.concatenate([self.owner, owner])
        self.route_flow = np.concatenate([self.route_flow, route_flow])
        self._changed()

    def drop_unused(self) -> None:
        """Forget routes without flow."""
        keep = self.route_flow > 0.0
        if not keep.all():
            self.routes, self.owner, self.route_flow = self.routes[:, keep], self.owner[keep], self.route_flow[keep]
            self._changed()

    @property
    def flow(self) -> np.ndarray:
        """On arcs, shape (arcs,)."""
        return self.routes @ self.route_flow

    def class_flow(self, k: int) -> np.ndarray:
        """Of one class, shape (arcs,)."""
        return self.routes @ np.where(self.traffic.user_class[self.owner] == k, self.route_flow, 0.0)

    def arc_costs(self, flow: np.ndarray) -> np.ndarray:
        """Costs that depend on flow, shape (arcs,)."""
        roads = self.traffic.roads
        return roads.time(flow) + (roads.external(flow) if self.system else 0.0)

    def curvature(self, flow: np.ndarray) -> np.ndarray:
        """Their derivatives, away from zero, shape (arcs,)."""
        roads = self.traffic.roads
        # Time over capacity is a curvature of the right size where the road's own is zero.
        least = np.maximum(self._least, 1e-12 * roads.time(flow) / np.maximum(roads.capacity, 1.0))
        return np.maximum(roads.system_slope(flow) if self.system else roads.slope(flow), least)

    def route_costs(self, flow: np.ndarray) -> np.ndarray:
        """Of each known route, shape (routes,)."""
        return self.by_route @ self.arc_costs(flow) + self.route_extra

    def cheapest(self, flow: np.ndarray, costs: np.ndarray | None = None) -> np.ndarray:
        """Cost of each commodity's cheapest known route, shape (commodities,)."""
        least = np.full(len(self.traffic.trips), np.inf)
        np.minimum.at(least, self.owner, self.route_costs(flow) if costs is None else costs)
        return least

    def gap(self, flow: np.ndarray, cheapest: np.ndarray) -> float:
        """What users could save, as a share of what they would then pay. Summed over routes, so that no digits are lost
        in a difference of totals.
        """
        saved = float(self.route_flow @ np.maximum(self.route_costs(flow) - cheapest[self.owner], 0.0))
        return saved / max(float(self.traffic.trips @ cheapest), 1e-300)

    def gap_at(self, route_flow: np.ndarray) -> float:
        """The gap over the known routes at other flows."""
        costs = self.route_costs(self.routes @ route_flow)
        least = self.cheapest(np.zeros(0), costs)
        return float(route_flow @ (costs - least[self.owner])) / max(float(self.traffic.trips @ least), 1e-300)

    def bases(self) -> np.ndarray:
        """Of each commodity the route of most flow, shape (commodities,)."""
        order = np.lexsort((self.route_flow, self.owner))
        owner = self.owner[order]
        last = np.append(owner[1:] != owner[:-1], True)
        base = np.empty(len(self.traffic.trips), dtype=np.int64)
        base[owner[last]] = order[last]
        return base

    def projected(self, route_flow: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Flows brought back to at least zero, their changes shortened where the base route cannot make up for them.

        Shortening a commodity's changes in common keeps a direction that leads downhill.
        """
        now = self.route_flow
        change = np.maximum(route_flow, 0.0) - now
        change[base] = 0.0
        total = np.bincount(self.owner, change, len(base))
        over = total > now[base]
        if over.any():
            share = np.where(over, now[base] / np.where(over, total, 1.0), 1.0)
            change *= share[self.owner]
        flow = now + change
        # Trips less all others, so that rounding does not add up over the steps.
        flow[base] = 0.0
        flow[base] = np.maximum(self.traffic.trips - np.bincount(self.owner, flow, len(base)), 0.0)
        return flow


def improve(master: Master, steps: int, target: float) -> int:
    """Take up to so many Newton steps, until the gap over the known routes is within the target; says how many."""
    for taken in range(steps):
        flow = master.flow
        costs = master.route_costs(flow)
        gap = master.gap(flow, master.cheapest(flow, costs))
        if gap <= target:
            return taken
        _step(master, flow, costs, gap)
    return steps


def _step(master: Master, flow: np.ndarray, costs: np.ndarray, gap: float) -> None:
    now, base = master.route_flow, master.bases()
    excess = costs - costs[base[master.owner]]
    curvature = master.curvature(flow)
    differences = (master.routes - master.routes[:, base[master.owner]]).tocsc()
    own = np.maximum(differences.multiply(differences).T @ curvature, 1e-300)
    is_base = np.zeros(len(now), dtype=bool)
    is_base[base] = True
    emptied = ~is_base & (now - excess / own <= 0.0)
    free = np.flatnonzero(~is_base & ~emptied)
    trial = now.copy()
    trial[emptied] = 0.0
    if len(free):
        moved = np.where(emptied, -now, 0.0)
        part = differences[:, free]
        wanted = -(excess[free] + part.T @ (curvature * (differences @ moved)))
        trial[free] += _solve(part, curvature, wanted, own[free], master.damping)
    trial = master.projected(trial, base)
    if master.gap_at(trial) <= BETTER * gap:
        share = 1.0
    else:
        share = _share(master, flow, trial)
        trial = now + share * (trial - now) if share < 1.0 else trial
    if share >= LONG:
        master.damping = max(LEAST, 0.1 * master.damping)
    elif share < SHORT:
        master.damping = min(MOST, 5.0 * master.damping)
    if share == 0.0:
        # Each route along its own curvature: always downhill, if slowly.
        trial = master.projected(now - np.where(is_base, 0.0, 0.5 * excess / own), base)
        trial = now + _share(master, flow, trial) * (trial - now)
    trial[trial < EMPTY * master.traffic.trips[master.owner]] = 0.0
    master.route_flow = trial


def _share(master: Master, flow: np.ndarray, trial: np.ndarray) -> float:
    """How far to go to a trial: 1 for all the way, 0 when it leads uphill; by bisection on the slope.

    All points of the segment are feasible, and Beckmann's function is convex on it.
    """
    change = trial - master.route_flow
    arcs = master.routes @ change
    constant = float(master.route_extra @ change)
    if float(master.arc_costs(flow) @ arcs) + constant >= 0.0:
        return 0.0
    if float(master.arc_costs(flow + arcs) @ arcs) + constant <= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if float(master.arc_costs(flow + middle * arcs) @ arcs) + constant > 0.0:
            high = middle
        else:
            low = middle
    return low or high


def _solve(part: Any, curvature: np.ndarray, right: np.ndarray, diagonal: np.ndarray, damping: float) -> np.ndarray:
    """(Z' diag(curvature) Z + damping diag(diagonal)) s = right."""
    if len(right) <= LARGEST:
        matrix = (part.T @ sparse.diags(curvature) @ part).toarray()
        matrix[np.diag_indices_from(matrix)] += damping * diagonal
        factor = linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
        return linalg.cho_solve(factor, right, check_finite=False)
    root = np.sqrt(diagonal)

    def product(s: np.ndarray) -> np.ndarray:
        return (part.T @ (curvature * (part @ (s / root)))) / root + damping * s

    return cg(product, right / root, tolerance=1e-6, max_iterations=300).value / root
