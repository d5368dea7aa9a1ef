"""How an equilibrium moves: derivatives of its flows, and the gradient of a function of them by one linear solve.

While the set of used routes stays, their costs stay equal: Z' (t(v) + e) = 0 for the differences Z of routes, e being
what arcs cost besides time. Hence dv/de = -Z (Z' diag(t') Z)^-1 Z'. Where the set of routes changes there is no
derivative; this is then the one of the piece that the used routes say.

Sources: Tobin and Friesz (1988), Sensitivity analysis for equilibrium network flow; Patriksson (2004), Transportation
Science 38, for when derivatives exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bilevel_core.linear import cg, dense
from bilevel_toll.congestion.equilibrium import Flows

USED = 1e-9
"""A route is used when it carries more than this share of its commodity's trips."""
DENSE = 1500
"""Routes up to which the system is solved with a matrix, beyond by conjugate gradients."""
TANGENTS = 1000
"""Routes up to which the derivatives of all flows are computed."""
RANK = 1e-12
"""Eigenvalues up to this share of the largest are zero."""


@dataclass(frozen=True)
class Adjoint:
    """The adjoint of a function of the flows.

    Attributes:
        by_class: minus the derivative by what arcs cost besides time, in units of time, by class: (classes, arcs).
        residual: relative residual of the linear solve.
        routes: used routes beyond the first of each commodity.
    """

    by_class: np.ndarray
    residual: float
    routes: int


@dataclass(frozen=True)
class _System:
    """Z and Z' diag(t') Z of the used routes.

    ``differences`` is Z, shape (arcs, routes); ``user`` the class of users of each route, shape (routes,).
    """

    differences: Any
    by_route: Any
    user: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(cls, flows: Flows) -> _System:
        traffic = flows.traffic
        base = _bases(flows)
        used = flows.route_flow > USED * traffic.trips[flows.owner]
        used[base] = False
        chosen = np.flatnonzero(used)
        owner = flows.owner[chosen]
        differences = (flows.routes[:, chosen] - flows.routes[:, base[owner]]).tocsc()
        slope = traffic.roads.system_slope(flows.flow) if flows.system else traffic.roads.slope(flows.flow)
        return cls(differences, differences.T.tocsr(), traffic.user_class[owner], slope)

    def matrix(self) -> np.ndarray:
        return (self.by_route @ sparse.diags(self.slope) @ self.differences).toarray()

    def by_routes(self, by_class: np.ndarray) -> np.ndarray:
        """Z' of what is given for each class of users, shape (classes, arcs, ...)."""
        out = np.zeros((len(self.user), *by_class.shape[2:]))
        for k, on_arcs in enumerate(by_class):
            mine = self.user == k
            out[mine] = self.by_route[mine] @ on_arcs
        return out

    def on_arcs(self, by_route: np.ndarray, classes: int) -> np.ndarray:
        """Z of what is given for each route, shape (routes, ...), by class of users."""
        return np.array([self.differences[:, self.user == k] @ by_route[self.user == k] for k in range(classes)])


def adjoint(flows: Flows, by_flow: np.ndarray) -> Adjoint:
    """Solve the adjoint system.

    Args:
        flows: an equilibrium with a small gap, or a system optimum's flows seen as one.
        by_flow: derivative of the function by the flow of each class on each arc, shape (classes, arcs) or (arcs,).
    """
    classes, arcs = len(flows.traffic.classes), len(flows.traffic.network.arcs)
    system = _System.of(flows)
    routes = len(system.user)
    if not routes:
        return Adjoint(np.zeros((classes, arcs)), 0.0, 0)
    right = system.by_routes(np.broadcast_to(by_flow, (classes, arcs)))
    if routes <= DENSE:
        found = dense(system.matrix(), right)
    else:
        found = cg(
            lambda s: system.by_route @ (system.slope * (system.differences @ s)),
            right,
            tolerance=1e-10,
            max_iterations=2000,
        )
    return Adjoint(system.on_arcs(found.value, classes), found.residual, routes)


def tangents(flows: Flows, costs: np.ndarray) -> np.ndarray | None:
    """How the flows move when what arcs cost besides time does.

    Args:
        flows: an equilibrium with a small gap.
        costs: derivatives of these costs, in units of time, by n variables, shape (classes, arcs, n).

    Returns:
        Derivatives of the flow of each class on each arc, shape (classes, arcs, n); None where so many routes are used
        that the system is too large to be solved with a matrix.
    """
    system = _System.of(flows)
    if len(system.user) > TANGENTS:
        return None
    if not len(system.user):
        return np.zeros_like(costs)
    # Routes may depend on each other: of all solutions, which move the arcs alike, that of least norm.
    values, vectors = np.linalg.eigh(system.matrix())
    kept = values > RANK * values[-1]
    found = -vectors[:, kept] @ ((vectors[:, kept].T @ system.by_routes(costs)) / values[kept, None])
    return system.on_arcs(found, len(costs))


def _bases(flows: Flows) -> np.ndarray:
    """Of each commodity the route of most flow, shape (commodities,)."""
    order = np.lexsort((flows.route_flow, flows.owner))
    owner = flows.owner[order]
    last = np.append(owner[1:] != owner[:-1], True)
    base = np.empty(len(flows.traffic.trips), dtype=np.int64)
    base[owner[last]] = order[last]
    return base
