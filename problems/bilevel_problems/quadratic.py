"""Problems from the literature whose followers are convex quadratic programs with linear constraints."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo

import bilevel_core as bl


def bard_1988_1() -> bl.PyomoProblem:
    """Bard (1988), example 1: a local optimum 25 at (5, 2) beside the global one at (1, 0)."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=(x - 5) ** 2 + (2 * y + 1) ** 2)
    m.follower.objective = pyo.Objective(expr=(y - 1) ** 2 - 1.5 * x * y)
    m.follower.rows = pyo.ConstraintList(rule=[-3 * x + y <= -3, x - 0.5 * y <= 4, x + y <= 7])
    return bl.PyomoProblem(m, name="classic/bard-1988-1")


def clark_westerberg_1990b() -> bl.PyomoProblem:
    """Clark and Westerberg (1990): the follower's answer has kinks where its constraints take over."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 8))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=(x - 3) ** 2 + (y - 2) ** 2)
    m.follower.objective = pyo.Objective(expr=(y - 5) ** 2)
    m.follower.rows = pyo.ConstraintList(rule=[-2 * x + y <= 1, x - 2 * y <= -2, x + 2 * y <= 14])
    return bl.PyomoProblem(m, name="classic/clark-westerberg-1990b")


def shimizu_aiyoshi_1() -> bl.PyomoProblem:
    """Shimizu and Aiyoshi (1981), example 1: the leader's own constraint y <= x ties the follower's answer to x."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 15))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 20))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x**2 + (y - 10) ** 2)
    m.coupling = pyo.Constraint(expr=y <= x)
    m.follower.objective = pyo.Objective(expr=(x + 2 * y - 30) ** 2)
    m.follower.row = pyo.Constraint(expr=x + y <= 20)
    return bl.PyomoProblem(m, name="classic/shimizu-aiyoshi-1")


def aiyoshi_shimizu_2() -> bl.PyomoProblem:
    """Aiyoshi and Shimizu (1984), example 2: the value 5 of older tables is a local optimum; 0 is the global one."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var([1, 2], bounds=(0, 50))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var([1, 2], bounds=(-10, 20))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=2 * x[1] + 2 * x[2] - 3 * y[1] - 3 * y[2] - 60)
    m.coupling = pyo.Constraint(expr=x[1] + x[2] + y[1] - 2 * y[2] <= 40)
    m.follower.objective = pyo.Objective(expr=(y[1] - x[1] + 20) ** 2 + (y[2] - x[2] + 20) ** 2)
    m.follower.rows = pyo.Constraint([1, 2], rule=lambda _, i: x[i] - 2 * y[i] >= 10)
    return bl.PyomoProblem(m, name="classic/aiyoshi-shimizu-2")


def falk_liu() -> bl.PyomoProblem:
    """Falk and Liu (1995): the value -2.1962 of older tables is not the optimum; -2.25 at x = y = 0.75 is."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var([1, 2], bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var([1, 2], bounds=(0.5, 1.5))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=sum((x[i] - 1.5) ** 2 + y[i] ** 2 for i in (1, 2)) - 4.5)
    m.follower.objective = pyo.Objective(expr=sum((y[i] - x[i]) ** 2 for i in (1, 2)))
    return bl.PyomoProblem(m, name="classic/falk-liu")
