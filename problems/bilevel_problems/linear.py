"""Problems from the literature whose followers are linear programs in their own variables."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo

import bilevel_core as bl


def bard_511() -> bl.PyomoProblem:
    """Bard (1998), example 5.1.1: two variables, a local optimum -7 at (1, 2) beside the global one.

    min x - 4y over x >= 0; the follower minimises y over x + y >= 3, y <= 2x, 2x + y <= 12, 3x - 2y <= 4, y >= 0.
    """
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x - 4 * y)
    m.follower.objective = pyo.Objective(expr=y)
    m.follower.rows = pyo.ConstraintList(rule=[x + y >= 3, y <= 2 * x, 2 * x + y <= 12, 3 * x - 2 * y <= 4])
    return bl.PyomoProblem(m, name="classic/bard-511")


def candler_townsley() -> bl.PyomoProblem:
    """Candler and Townsley (1982): two leader's and three follower's variables, linear throughout.

    Through binaries with a large bound on the multipliers, default tolerances are enough to let a solver report -36
    or -58 for it.
    """
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var([1, 2], bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var([1, 2, 3], bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=-8 * x[1] - 4 * x[2] + 4 * y[1] - 40 * y[2] - 4 * y[3])
    m.follower.objective = pyo.Objective(expr=x[1] + 2 * x[2] + y[1] + y[2] + 2 * y[3])
    m.follower.rows = pyo.ConstraintList(
        rule=[
            -y[1] + y[2] + y[3] <= 1,
            2 * x[1] - y[1] + 2 * y[2] - 0.5 * y[3] <= 1,
            2 * x[2] + 2 * y[1] - y[2] - 0.5 * y[3] <= 1,
        ]
    )
    return bl.PyomoProblem(m, name="classic/candler-townsley")


def clark_westerberg_1988() -> bl.PyomoProblem:
    """Clark and Westerberg (1988): min x - 4y; the follower minimises y over y <= 2x, 2x + 5y <= 108, 2x - 3y <= -4."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x - 4 * y)
    m.follower.objective = pyo.Objective(expr=y)
    m.follower.rows = pyo.ConstraintList(rule=[y <= 2 * x, 2 * x + 5 * y <= 108, 2 * x - 3 * y <= -4])
    return bl.PyomoProblem(m, name="classic/clark-westerberg-1988")


def anandalingam_white() -> bl.PyomoProblem:
    """Anandalingam and White (1990): leader and follower pull y in opposite directions."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=-x - 3 * y)
    m.follower.objective = pyo.Objective(expr=3 * y)
    m.follower.rows = pyo.ConstraintList(
        rule=[x + 2 * y >= 10, x - 2 * y <= 6, 2 * x - y <= 21, x + 2 * y <= 38, -x + 2 * y <= 18]
    )
    return bl.PyomoProblem(m, name="classic/anandalingam-white")


def bard_1991_1() -> bl.PyomoProblem:
    """Bard (1991), example 1: the leader sets a price of the follower's, whose answer jumps where x passes 2.

    min x + y2 over 2 <= x <= 4; the follower minimises 2 y1 + x y2 over y1 + y2 >= x + 4, y >= 0. At x = 2 the
    follower is indifferent between y1 and y2.
    """
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(2, 4))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var([1, 2], bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x + y[2])
    m.follower.objective = pyo.Objective(expr=2 * y[1] + x * y[2])
    m.follower.row = pyo.Constraint(expr=y[1] + y[2] >= x + 4)
    return bl.PyomoProblem(m, name="classic/bard-1991-1")


def bard_1991_2() -> bl.PyomoProblem:
    """Bard (1991), example 2: the follower has many optimal answers, and the leader is granted the best (optimistic).

    min -x + 10 y1 - y2 over x >= 0; the follower maximises y1 + y2 over x + y1 <= 1, x + y2 <= 1, y1 + y2 <= 1, y >= 0.
    """
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, None))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var([1, 2], bounds=(0, None))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=-x + 10 * y[1] - y[2])
    m.follower.objective = pyo.Objective(expr=-y[1] - y[2])
    m.follower.rows = pyo.ConstraintList(rule=[x + y[1] <= 1, x + y[2] <= 1, y[1] + y[2] <= 1])
    return bl.PyomoProblem(m, name="classic/bard-1991-2")
