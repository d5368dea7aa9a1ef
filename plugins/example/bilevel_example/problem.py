"""A levy on a good: the leader sets it, the buyers answer with how much they buy."""

# Pyomo ships no types, so that a type checker misreads sums of variables.
# pyright: reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo

import bilevel_core as bl


def levy(*, size: float = 8.0) -> bl.PyomoProblem:
    """The leader maximises its income, levy times demand; the buyers demand what suits them best at that levy.

    Their utility of q is size * q - q^2 / 2, so they buy q = max(0, size - levy), and the best levy is size / 2.

    Args:
        size: the levy at which nobody buys any more.
    """
    m: Any = pyo.ConcreteModel()
    buyers: Any = bl.Follower()
    m.levy = pyo.Var(bounds=(0, size))
    m.buyers = buyers
    buyers.demand = pyo.Var(bounds=(0, None))
    buyers.utility = pyo.Objective(
        expr=size * buyers.demand - buyers.demand**2 / 2 - m.levy * buyers.demand, sense=pyo.maximize
    )
    m.income = pyo.Objective(expr=m.levy * buyers.demand, sense=pyo.maximize)
    return bl.PyomoProblem(m, name="example/levy")
