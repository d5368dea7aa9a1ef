"""Problems with integer followers, and the continuous version of one of them."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo

import bilevel_core as bl


def moore_bard() -> bl.PyomoProblem:
    """Moore and Bard (1990): integer x and y. Neither rounding nor the relaxation's bound -42 finds the optimum."""
    return _moore_bard("classic/moore-bard", pyo.NonNegativeIntegers)


def moore_bard_continuous() -> bl.PyomoProblem:
    """Moore and Bard (1990) with continuous x and y: its optimum is worse than the integer problem's."""
    return _moore_bard("classic/moore-bard-continuous", pyo.NonNegativeReals)


def _moore_bard(name: str, domain: Any) -> bl.PyomoProblem:
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(domain=domain)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=domain)
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=-x - 10 * y)
    m.follower.objective = pyo.Objective(expr=y)
    m.follower.rows = pyo.ConstraintList(
        rule=[-25 * x + 20 * y <= 30, x + 2 * y <= 10, 2 * x - y <= 15, 2 * x + 10 * y >= 15]
    )
    return bl.PyomoProblem(m, name=name)


def mibs_manual() -> bl.PyomoProblem:
    """The example of the manual of MibS: integer x and y, and leader's constraints that contain y."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 10))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 5))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=-x - 7 * y)
    m.rows = pyo.ConstraintList(rule=[-3 * x + 2 * y <= 12, x + 2 * y <= 20])
    m.follower.objective = pyo.Objective(expr=y)
    m.follower.rows = pyo.ConstraintList(rule=[2 * x - y <= 7, -2 * x + 4 * y <= 16])
    return bl.PyomoProblem(m, name="classic/mibs-manual")


def knapsack_interdiction() -> bl.PyomoProblem:
    """The leader removes one item, the follower packs the rest for the highest profit, which the leader minimises."""
    profit, weight, capacity = (7, 8, 5, 4), (3, 4, 2, 1), 6
    items = range(len(profit))
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(items, domain=pyo.Binary)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(items, domain=pyo.Binary)
    x, y = m.x, m.follower.y
    packed = sum(profit[i] * y[i] for i in items)
    m.objective = pyo.Objective(expr=packed)
    m.budget = pyo.Constraint(expr=sum(x[i] for i in items) == 1)
    m.follower.objective = pyo.Objective(expr=packed, sense=pyo.maximize)
    m.follower.capacity = pyo.Constraint(expr=sum(weight[i] * y[i] for i in items) <= capacity)
    m.follower.removed = pyo.Constraint(items, rule=lambda _, i: y[i] <= 1 - x[i])
    return bl.PyomoProblem(m, name="classic/knapsack-interdiction")
