"""Toll setting on road networks: a leader sets tolls on some arcs, users take cheapest routes.

    from bilevel_toll import Arc, Demand, Network, TollProblem
    network = Network([Arc("a", "b", 2.0), Arc("a", "b", 6.0)])
    problem = TollProblem(network, [Demand("a", "b", 10.0)], ["a-b"])
    result = bilevel_core.solve(problem)

Network pricing without congestion lives here; costs are fixed numbers. Names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevel_toll.network import Arc, Demand, Network
    from bilevel_toll.problem import TollProblem
    from bilevel_toll.tntp import load_tntp

_LAZY = {
    "Arc": "bilevel_toll.network",
    "Demand": "bilevel_toll.network",
    "Network": "bilevel_toll.network",
    "TollProblem": "bilevel_toll.problem",
    "load_tntp": "bilevel_toll.tntp",
}

__all__ = ["Arc", "Demand", "Network", "TollProblem", "load_tntp"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bilevel_toll' has no attribute {name!r}")
