"""Toll setting on road networks: a leader sets tolls on some arcs, users take cheapest routes.

    from bilevel_toll import Arc, Demand, Network, TollProblem
    network = Network([Arc("a", "b", 2.0), Arc("a", "b", 6.0)])
    problem = TollProblem(network, [Demand("a", "b", 10.0)], ["a-b"])
    result = bilevel_core.solve(problem)

Network pricing without congestion lives here, where costs are fixed numbers; congested roads live in
`bilevel_toll.congestion`. Names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevel_toll.congestion.design import NetworkDesign
    from bilevel_toll.congestion.equilibrium import user_equilibrium
    from bilevel_toll.congestion.first_best import first_best
    from bilevel_toll.congestion.library import load_traffic
    from bilevel_toll.congestion.tolls import CongestedTolls
    from bilevel_toll.congestion.traffic import Traffic, UserClass
    from bilevel_toll.network import Arc, Demand, Network
    from bilevel_toll.problem import TollProblem
    from bilevel_toll.tntp import load_tntp

_LAZY = {
    "Arc": "bilevel_toll.network",
    "CongestedTolls": "bilevel_toll.congestion.tolls",
    "Demand": "bilevel_toll.network",
    "Network": "bilevel_toll.network",
    "NetworkDesign": "bilevel_toll.congestion.design",
    "TollProblem": "bilevel_toll.problem",
    "Traffic": "bilevel_toll.congestion.traffic",
    "UserClass": "bilevel_toll.congestion.traffic",
    "first_best": "bilevel_toll.congestion.first_best",
    "load_tntp": "bilevel_toll.tntp",
    "load_traffic": "bilevel_toll.congestion.library",
    "user_equilibrium": "bilevel_toll.congestion.equilibrium",
}

__all__ = [
    "Arc",
    "CongestedTolls",
    "Demand",
    "Network",
    "NetworkDesign",
    "TollProblem",
    "Traffic",
    "UserClass",
    "first_best",
    "load_tntp",
    "load_traffic",
    "user_equilibrium",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bilevel_toll' has no attribute {name!r}")
