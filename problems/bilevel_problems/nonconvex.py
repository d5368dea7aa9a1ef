"""Problems whose followers are nonconvex in their own variables."""

from __future__ import annotations

from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import finish, model, pyo


def mitsos_barton_313() -> PyomoProblem:
    """Mitsos and Barton (2006), example 3.13: at x = 0 the follower is indifferent among all y in [-1, 1].

    min x - y; the follower minimises 0.5 x y^2 - x^3 y; x, y in [-1, 1]. For x < 0 the follower is concave.
    """
    m = model("classic/mitsos-barton-313")
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower.y = pyo.Var(bounds=(-1, 1))
    x, y = m.x, m.follower.y
    return finish(m, x - y, 0.5 * x * y**2 - x**3 * y)
