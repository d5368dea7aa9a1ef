"""Problems from the literature whose followers are linear programs in their own variables."""

from __future__ import annotations

from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import finish, model, nonnegative, pyo


def bard_511() -> PyomoProblem:
    """Bard (1998), example 5.1.1: two variables, a local optimum -7 at (1, 2) beside the global one.

    min x - 4y over x >= 0; the follower minimises y over x + y >= 3, y <= 2x, 2x + y <= 12, 3x - 2y <= 4, y >= 0.
    """
    m = model("classic/bard-511")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x - 4 * y, y, lower_rows=[x + y >= 3, y <= 2 * x, 2 * x + y <= 12, 3 * x - 2 * y <= 4])


def candler_townsley() -> PyomoProblem:
    """Candler and Townsley (1982): two leader's and three follower's variables, linear throughout.

    Through binaries with a large bound on the multipliers, default tolerances are enough to let a solver report -36
    or -58 for it.
    """
    m = model("classic/candler-townsley")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative(1, 2, 3)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -8 * x[1] - 4 * x[2] + 4 * y[1] - 40 * y[2] - 4 * y[3],
        x[1] + 2 * x[2] + y[1] + y[2] + 2 * y[3],
        lower_rows=[
            -y[1] + y[2] + y[3] <= 1,
            2 * x[1] - y[1] + 2 * y[2] - 0.5 * y[3] <= 1,
            2 * x[2] + 2 * y[1] - y[2] - 0.5 * y[3] <= 1,
        ],
    )


def clark_westerberg_1988() -> PyomoProblem:
    """Clark and Westerberg (1988): min x - 4y; the follower minimises y over y <= 2x, 2x + 5y <= 108, 2x - 3y <= -4."""
    m = model("classic/clark-westerberg-1988")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x - 4 * y, y, lower_rows=[y <= 2 * x, 2 * x + 5 * y <= 108, 2 * x - 3 * y <= -4])


def anandalingam_white() -> PyomoProblem:
    """Anandalingam and White (1990): leader and follower pull y in opposite directions."""
    m = model("classic/anandalingam-white")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(
        m,
        -x - 3 * y,
        3 * y,
        lower_rows=[x + 2 * y >= 10, x - 2 * y <= 6, 2 * x - y <= 21, x + 2 * y <= 38, -x + 2 * y <= 18],
    )


def bard_1991_1() -> PyomoProblem:
    """Bard (1991), example 1: the leader sets a price of the follower's, whose answer jumps where x passes 2.

    min x + y2 over 2 <= x <= 4; the follower minimises 2 y1 + x y2 over y1 + y2 >= x + 4, y >= 0. At x = 2 the
    follower is indifferent between y1 and y2.
    """
    m = model("classic/bard-1991-1")
    m.x = pyo.Var(bounds=(2, 4))
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(m, x + y[2], 2 * y[1] + x * y[2], lower_rows=[y[1] + y[2] >= x + 4])


def bard_1991_2() -> PyomoProblem:
    """Bard (1991), example 2: the follower has many optimal answers, and the leader is granted the best (optimistic).

    min -x + 10 y1 - y2 over x >= 0; the follower maximises y1 + y2 over x + y1 <= 1, x + y2 <= 1, y1 + y2 <= 1, y >= 0.
    """
    m = model("classic/bard-1991-2")
    m.x = nonnegative()
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(m, -x + 10 * y[1] - y[2], -y[1] - y[2], lower_rows=[x + y[1] <= 1, x + y[2] <= 1, y[1] + y[2] <= 1])
