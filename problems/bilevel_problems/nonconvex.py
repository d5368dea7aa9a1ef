"""Problems whose followers are nonconvex in their own variables."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo

import bilevel_core as bl


def mitsos_barton_313() -> bl.PyomoProblem:
    """Mitsos and Barton (2006), example 3.13: at x = 0 the follower is indifferent among all y in [-1, 1].

    min x - y; the follower minimises 0.5 x y^2 - x^3 y; x, y in [-1, 1]. For x < 0 the follower is concave.
    """
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(-1, 1))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x - y)
    m.follower.objective = pyo.Objective(expr=0.5 * x * y**2 - x**3 * y)
    return bl.PyomoProblem(m, name="classic/mitsos-barton-313")
