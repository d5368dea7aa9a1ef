"""Small problems on which software has returned wrong answers, each named for what goes wrong.

The answer to such a problem may be its optimum, an honest refusal, or a claim no higher than is true.
"""

from __future__ import annotations

from bilevel_core.problems.pyomo import Follower, PyomoProblem
from bilevel_problems.build import finish, model, nonnegative, pyo


def small_bound() -> PyomoProblem:
    """Pineda and Morales (2019): bounds of 1, 10, 50 on multipliers and slacks give 2.01, 11.1, 51.5 instead of 102.

    max x + y over 0 <= x <= 2; the follower minimises y over 100x - y <= 100, y >= 0.
    """
    m = model("trap/small-bound")
    m.x = pyo.Var(bounds=(0, 2))
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x + y, y, lower_rows=[100 * x - y <= 100], maximise=True)


def follower_bounds() -> PyomoProblem:
    """Bounds of the follower's variables are constraints and have multipliers; without them y would be unbounded.

    min x over x >= y, x >= 0; the follower maximises y over [0, 1].
    """
    m = model("trap/follower-bounds")
    m.x = nonnegative()
    m.follower.y = pyo.Var(bounds=(0, 1))
    x, y = m.x, m.follower.y
    return finish(m, x, y, upper_rows=[x >= y], follower_maximises=True)


def two_limits() -> PyomoProblem:
    """A maximising follower with two constraints on one variable: their multipliers must share one gradient.

    min x + y over x >= 2; the follower maximises y over y <= x + 3, y <= 10, y >= 0.
    """
    m = model("trap/two-limits")
    m.x = pyo.Var(bounds=(2, None))
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x + y, y, lower_rows=[y <= x + 3, y <= 10], follower_maximises=True)


def leaders_wish() -> PyomoProblem:
    """Infeasible: the follower answers y = 2 whatever x is, and the leader's constraint y <= 0 must not help it choose.

    min -x over x in {0, ..., 5}, y <= 0; the follower maximises a free y over y <= 2.
    """
    m = model("trap/leaders-wish")
    m.x = pyo.Var(domain=pyo.Integers, bounds=(0, 5))
    m.follower.y = pyo.Var()
    x, y = m.x, m.follower.y
    return finish(m, -x, y, upper_rows=[y <= 0], lower_rows=[y <= 2], follower_maximises=True)


def two_followers() -> PyomoProblem:
    """Two independent followers, each with its own objective: adding the objectives up or mixing the blocks shows.

    min x1 + 3 z1 + 3 z2 over x1 + x2 = 10, 2 <= x1 <= 6, 2 <= x2 <= 8; follower i maximises z_i over
    x_i + z_i <= 8, x_i + 4 z_i >= 8, x_i + 2 z_i <= 13, 0 <= z_i <= 20.
    """
    m = pyo.ConcreteModel(name="trap/two-followers")
    m.x = pyo.Var([1, 2], bounds={1: (2, 6), 2: (2, 8)})
    m.add_component("follower", Follower([1, 2]))
    for i in (1, 2):
        block = m.follower[i]
        block.z = pyo.Var(bounds=(0, 20))
        x, z = m.x[i], block.z
        block.objective = pyo.Objective(expr=z, sense=pyo.maximize)
        block.rows = pyo.ConstraintList(rule=[x + z <= 8, x + 4 * z >= 8, x + 2 * z <= 13])
    m.objective = pyo.Objective(expr=m.x[1] + 3 * m.follower[1].z + 3 * m.follower[2].z)
    m.total = pyo.Constraint(expr=m.x[1] + m.x[2] == 10)
    return PyomoProblem(m)


def no_multipliers() -> PyomoProblem:
    """Dempe (1992): at the optimum (0, 0) the follower has no multipliers, so optimality conditions miss it.

    min (x - 3.5)^2 + (y + 4)^2 over x >= 0; the follower minimises (y - 3)^2 over y^2 <= x. What the conditions find is
    31.25 at (1, 1), which stands in published tables.
    """
    m = model("trap/no-multipliers")
    m.x = nonnegative()
    m.follower.y = pyo.Var()
    x, y = m.x, m.follower.y
    return finish(m, (x - 3.5) ** 2 + (y + 4) ** 2, (y - 3) ** 2, lower_rows=[y**2 <= x])


def follower_unbounded() -> PyomoProblem:
    """The follower maximises y over y >= x: it has no optimal answer for any x."""
    m = model("trap/follower-unbounded")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x, y, lower_rows=[y >= x], follower_maximises=True)


def follower_infeasible() -> PyomoProblem:
    """The follower must choose y with x <= y <= x - 1: it has no feasible answer for any x."""
    m = model("trap/follower-infeasible")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x, y, lower_rows=[x <= y, y <= x - 1])
