"""Small models for the core's tests."""

from __future__ import annotations

import pyomo.environ as pyo

import bilevel_core as bl


def bard_511(*, maximise_follower: bool = False) -> pyo.ConcreteModel:
    """Bard, Practical Bilevel Optimization (1998), example 5.1.1: optimum -12 at (4, 4)."""
    m = pyo.ConcreteModel(name="bard")
    m.x = pyo.Var(domain=pyo.NonNegativeReals)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.NonNegativeReals)
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x - 4 * y)
    if maximise_follower:
        m.follower.objective = pyo.Objective(expr=-y, sense=pyo.maximize)
    else:
        m.follower.objective = pyo.Objective(expr=y)
    m.follower.rows = pyo.ConstraintList()
    for row in (x + y >= 3, y <= 2 * x, 2 * x + y <= 12, 3 * x - 2 * y <= 4):
        m.follower.rows.add(row)
    return m


def quadratic_follower() -> pyo.ConcreteModel:
    """Bard 1988, example 1: optimum 17 at (1, 0)."""
    m = pyo.ConcreteModel(name="quadratic")
    m.x = pyo.Var(domain=pyo.NonNegativeReals)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.NonNegativeReals)
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=(x - 5) ** 2 + (2 * y + 1) ** 2)
    m.follower.objective = pyo.Objective(expr=(y - 1) ** 2 - 1.5 * x * y)
    m.follower.rows = pyo.ConstraintList()
    for row in (-3 * x + y <= -3, x - 0.5 * y <= 4, x + y <= 7):
        m.follower.rows.add(row)
    return m


def tied_follower() -> pyo.ConcreteModel:
    """The follower does not care where in [0, 1] its y is; the leader does: optimistic optimum -1 at y = 1."""
    m = pyo.ConcreteModel(name="tied")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 1))
    m.follower.objective = pyo.Objective(expr=0 * m.follower.y + m.x)
    m.objective = pyo.Objective(expr=m.x - m.follower.y)
    return m
