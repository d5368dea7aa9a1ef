"""Electricity markets: a leader that is paid a multiplier of the market operator's problem."""

from __future__ import annotations

from bilevel_core.errors import UsageError
from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import model, pyo

HOURS = (100.0, 150.0, 75.0, 125.0)
"""Demand by hour; more hours repeat it."""
RIVALS = ((12.0, 40.0), (30.0, 50.0), (45.0, 60.0))
"""Cost of one unit, and capacity, of each rival, in the order of their costs."""


def strategic_generator(
    hours: int = 2, cost: float = 10.0, capacity: float = 60.0, price_cap: float = 100.0
) -> PyomoProblem:
    """A generator offers one price and one quantity for all hours and is paid the market's price for what is taken.

    The leader: max over offer and quantity of sum_h (price_h - cost) own_h. The market operator, for all hours h:
    min sum_h (offer own_h + sum_j c_j rival_hj + cap shed_h) over own_h + sum_j rival_hj + shed_h = demand_h,
    own_h <= quantity, rival_hj <= capacity_j, all nonnegative. price_h is the multiplier of hour h's balance: what one
    more unit of demand costs. Where it is not unique the leader has the best one, as in Ruiz and Conejo (2009).

    Args:
        hours: number of hours, whose demands are 100, 150, 75, 125 and again.
        cost: the generator's own cost of one unit.
        capacity: what it can produce in an hour.
        price_cap: the price at which demand is left unserved; the largest offer.

    Raises:
        UsageError: no hours, or a negative capacity or price cap.
    """
    if hours < 1 or capacity < 0.0 or price_cap < 0.0:
        raise UsageError("Expected hours >= 1, capacity >= 0 and price_cap >= 0.")
    m = model("market/strategic-generator")
    m.offer = pyo.Var(bounds=(0.0, price_cap))
    m.quantity = pyo.Var(bounds=(0.0, capacity))
    market = m.follower
    periods, rivals = range(hours), range(len(RIVALS))
    market.own = pyo.Var(periods, domain=pyo.NonNegativeReals)
    market.rival = pyo.Var(periods, rivals, domain=pyo.NonNegativeReals)
    market.shed = pyo.Var(periods, domain=pyo.NonNegativeReals)
    market.balance = pyo.Constraint(
        periods,
        rule=lambda b, h: b.own[h] + sum(b.rival[h, j] for j in rivals) + b.shed[h] == HOURS[h % len(HOURS)],
    )
    market.offered = pyo.Constraint(periods, rule=lambda b, h: b.own[h] <= m.quantity)
    market.capacity = pyo.Constraint(periods, rivals, rule=lambda b, h, j: b.rival[h, j] <= RIVALS[j][1])
    market.objective = pyo.Objective(
        expr=sum(
            m.offer * market.own[h]
            + sum(RIVALS[j][0] * market.rival[h, j] for j in rivals)
            + price_cap * market.shed[h]
            for h in periods
        )
    )
    m.objective = pyo.Objective(
        expr=sum((market.dual[market.balance[h]] - cost) * market.own[h] for h in periods), sense=pyo.maximize
    )
    return PyomoProblem(m, name=m.name)
