"""Problems with integer followers, and the continuous version of one of them."""

from __future__ import annotations

from typing import Any

from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import finish, model, pyo


def moore_bard() -> PyomoProblem:
    """Moore and Bard (1990): integer x and y. Neither rounding nor the relaxation's bound -42 finds the optimum."""
    return _moore_bard("classic/moore-bard", pyo.NonNegativeIntegers)


def moore_bard_continuous() -> PyomoProblem:
    """Moore and Bard (1990) with continuous x and y: its optimum is worse than the integer problem's."""
    return _moore_bard("classic/moore-bard-continuous", pyo.NonNegativeReals)


def _moore_bard(name: str, domain: Any) -> PyomoProblem:
    m = model(name)
    m.x = pyo.Var(domain=domain)
    m.follower.y = pyo.Var(domain=domain)
    x, y = m.x, m.follower.y
    rows = [-25 * x + 20 * y <= 30, x + 2 * y <= 10, 2 * x - y <= 15, 2 * x + 10 * y >= 15]
    return finish(m, -x - 10 * y, y, lower_rows=rows)


def mibs_manual() -> PyomoProblem:
    """The example of the manual of MibS: integer x and y, and leader's constraints that contain y."""
    m = model("classic/mibs-manual")
    m.x = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 10))
    m.follower.y = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 5))
    x, y = m.x, m.follower.y
    return finish(
        m,
        -x - 7 * y,
        y,
        upper_rows=[-3 * x + 2 * y <= 12, x + 2 * y <= 20],
        lower_rows=[2 * x - y <= 7, -2 * x + 4 * y <= 16],
    )


def knapsack_interdiction() -> PyomoProblem:
    """The leader removes one item, the follower packs the rest for the highest profit, which the leader minimises."""
    profit, weight, capacity = (7, 8, 5, 4), (3, 4, 2, 1), 6
    items = range(len(profit))
    m = model("classic/knapsack-interdiction")
    m.x = pyo.Var(items, domain=pyo.Binary)
    m.follower.y = pyo.Var(items, domain=pyo.Binary)
    x, y = m.x, m.follower.y
    packed = sum(profit[i] * y[i] for i in items)
    return finish(
        m,
        packed,
        packed,
        upper_rows=[sum(x[i] for i in items) == 1],
        lower_rows=[sum(weight[i] * y[i] for i in items) <= capacity, *(y[i] <= 1 - x[i] for i in items)],
        follower_maximises=True,
    )
