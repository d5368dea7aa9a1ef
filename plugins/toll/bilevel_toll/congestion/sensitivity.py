"""How an equilibrium moves: the gradient of a function of its flows, by one linear solve (the adjoint).

While the set of used routes stays, their costs stay equal: Z' (t(v) + e) = 0 for the differences Z of routes, e being
what arcs cost besides time. Hence dv/de = -Z (Z' diag(t') Z)^-1 Z'. Where the set of routes changes there is no
derivative; this is then the one of the piece that the used routes say.

Sources: Tobin and Friesz (1988), Sensitivity analysis for equilibrium network flow; Patriksson (2004), Transportation
Science 38, for when derivatives exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from bilevel_core.linear import cg, dense
from bilevel_toll.congestion.equilibrium import Flows

USED = 1e-9
"""A route is used when it carries more than this share of its commodity's trips."""
DENSE = 1500
"""Routes up to which the system is solved with a matrix, beyond by conjugate gradients."""


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


def adjoint(flows: Flows, by_flow: np.ndarray) -> Adjoint:
    """Solve the adjoint system.

    Args:
        flows: an equilibrium with a small gap, or a system optimum's flows seen as one.
        by_flow: derivative of the function by the flow of each class on each arc, shape (classes, arcs) or (arcs,).
    """
    traffic = flows.traffic
    classes, arcs = len(traffic.classes), len(traffic.network.arcs)
    out = np.zeros((classes, arcs))
    base = _bases(flows)
    used = flows.route_flow > USED * traffic.trips[flows.owner]
    used[base] = False
    chosen = np.flatnonzero(used)
    if not len(chosen):
        return Adjoint(out, 0.0, 0)
    owner = flows.owner[chosen]
    differences = (flows.routes[:, chosen] - flows.routes[:, base[owner]]).tocsc()
    by_route = differences.T.tocsr()
    wanted = np.broadcast_to(by_flow, (classes, arcs))
    user = traffic.user_class[owner]
    right = np.zeros(len(chosen))
    for k in range(classes):
        mine = user == k
        right[mine] = by_route[mine] @ wanted[k]
    slope = traffic.roads.system_slope(flows.flow) if flows.system else traffic.roads.slope(flows.flow)
    if len(chosen) <= DENSE:
        found = dense((by_route @ sparse.diags(slope) @ differences).toarray(), right)
    else:
        found = cg(lambda s: by_route @ (slope * (differences @ s)), right, tolerance=1e-10, max_iterations=2000)
    for k in range(classes):
        out[k] = differences @ np.where(user == k, found.value, 0.0)
    return Adjoint(out, found.residual, len(chosen))


def _bases(flows: Flows) -> np.ndarray:
    """Of each commodity the route of most flow, shape (commodities,)."""
    order = np.lexsort((flows.route_flow, flows.owner))
    owner = flows.owner[order]
    last = np.append(owner[1:] != owner[:-1], True)
    base = np.empty(len(flows.traffic.trips), dtype=np.int64)
    base[owner[last]] = order[last]
    return base
