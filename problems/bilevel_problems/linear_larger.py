"""Problems in three variables and more whose followers are linear programs in their own variables."""

from __future__ import annotations

from typing import Any

from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import finish, model, nonnegative, pyo


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


def bard_falk_2() -> PyomoProblem:
    """Bard and Falk (1982), example 2: the constraint x1 + x2 <= 2 is the follower's, which cannot influence it."""
    m = model("classic/bard-falk-2")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -2 * x[1] + x[2] + 0.5 * y[1],
        x[1] + x[2] - 4 * y[1] + y[2],
        lower_rows=[*_bard_falk(x, y), x[1] + x[2] <= 2],
    )


def tuy_1993() -> PyomoProblem:
    """Tuy, Migdalas and Värbrand (1993): the problem of Bard and Falk with x1 + x2 <= 2 the leader's."""
    m = model("classic/tuy-1993")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -2 * x[1] + x[2] + 0.5 * y[1],
        -4 * y[1] + y[2],
        upper_rows=[x[1] + x[2] <= 2],
        lower_rows=_bard_falk(x, y),
    )


def _bard_falk(x: Any, y: Any) -> list[Any]:
    return [2 * x[1] - y[1] + y[2] >= 2.5, x[1] - 3 * x[2] + y[2] <= 2]


def ben_ayed_blair_1() -> PyomoProblem:
    """Ben-Ayed and Blair (1990), first problem: on it early algorithms stop at points that are not optimal."""
    m = model("classic/ben-ayed-blair-1")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -1.5 * x - 6 * y[1] - y[2],
        -y[1] - 5 * y[2],
        lower_rows=[x + 3 * y[1] + y[2] <= 5, 2 * x + y[1] + 3 * y[2] <= 5],
    )


def bialas_karwan_1() -> PyomoProblem:
    """Bialas and Karwan (1984), first problem: a polytope in three variables; the follower maximises y2."""
    m = model("classic/bialas-karwan-1")
    m.x = nonnegative()
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -x - y[2],
        -y[2],
        lower_rows=[
            x + y[1] + y[2] <= 3,
            x + y[1] - y[2] >= 1,
            -x + y[1] + y[2] <= 1,
            x - y[1] + y[2] <= 1,
            y[2] <= 0.5,
        ],
    )


def clark_westerberg_1990a() -> PyomoProblem:
    """Clark and Westerberg (1990), section 3.1: the follower has many optimal answers."""
    m = model("classic/clark-westerberg-1990a")
    m.x = pyo.Var(bounds=(0, 8))
    m.follower.y = pyo.Var([1, 2], bounds={1: (0, 4), 2: (None, None)})
    x, y = m.x, m.follower.y
    return finish(
        m,
        -x - 3 * y[1] + 2 * y[2],
        -y[1],
        lower_rows=[
            -2 * x + y[1] + 4 * y[2] <= 16,
            8 * x + 3 * y[1] - 2 * y[2] <= 48,
            -2 * x + y[1] - 3 * y[2] <= -12,
        ],
    )


def glackin() -> PyomoProblem:
    """Glackin, Ecker and Kupferschmid (2009): one follower's variable, a leader's constraint on x only."""
    m = model("classic/glackin")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(
        m,
        -2 * x[1] + 4 * x[2] + 3 * y,
        -y,
        upper_rows=[x[1] - x[2] <= -1],
        lower_rows=[x[1] + x[2] + y <= 4, 2 * x[1] + 2 * x[2] + y <= 6],
    )


def hu_huang_zhang() -> PyomoProblem:
    """Hu, Huang and Zhang (2009): tables give -76/9, which is not the optimum; -79/9 at x = 2, y = (7/9, 0) is."""
    m = model("classic/hu-huang-zhang")
    m.x = nonnegative()
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -4 * x - y[1] - y[2],
        -x - 3 * y[1],
        lower_rows=[x + y[1] + y[2] <= 25 / 9, x + y[2] <= 2, y[1] + y[2] <= 8 / 9],
    )


def tuy_1994() -> PyomoProblem:
    """Tuy, Migdalas and Värbrand (1994): a leader's constraint contains the follower's variables."""
    m = model("classic/tuy-1994")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        3 * x[1] + 2 * x[2] + y[1] + y[2],
        4 * y[1] + y[2],
        upper_rows=[x[1] + x[2] + y[1] + y[2] <= 4],
        lower_rows=[3 * x[1] + 5 * x[2] + 6 * y[1] + 2 * y[2] >= 15],
    )


def wang_jiao_li() -> PyomoProblem:
    """Wang, Jiao and Li (2005): the follower's objective is parallel to a constraint, so that its answer is an edge."""
    m = model("classic/wang-jiao-li")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower.y = pyo.Var([1, 2])
    x, y = m.x, m.follower.y
    return finish(m, -100 * x - 1000 * y[1], -y[1] - y[2], lower_rows=[x + y[1] - y[2] <= 1, y[1] + y[2] <= 1])


def savard() -> PyomoProblem:
    """Savard (1989): the problem of Candler and Townsley changed, with a leader's constraint that contains y3."""
    m = model("classic/savard")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative(1, 2, 3)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -8 * x[1] - 4 * x[2] + 4 * y[1] - 40 * y[2] + 4 * y[3],
        2 * y[1] + y[2] + 2 * y[3],
        upper_rows=[x[1] + 2 * x[2] - y[3] <= 1.3],
        lower_rows=[
            -y[1] + y[2] + y[3] <= 1,
            4 * x[1] - 2 * y[1] + 4 * y[2] - y[3] <= 2,
            4 * x[2] + 4 * y[1] - 2 * y[2] - y[3] <= 2,
        ],
    )


def dempe_franke_1() -> PyomoProblem:
    """Dempe and Franke (2011), example 4.1: the leader sets the prices x of a follower that is linear in y.

    min x1 + y1^2 + y2^2 over -1 <= x1 <= 1, x2 = -1; the follower minimises x'y over y2 <= 2 y1, y <= 2, y2 >= 0.
    """
    m = model("classic/dempe-franke-1")
    m.x = pyo.Var([1, 2], bounds={1: (-1, 1), 2: (-1, -1)})
    m.follower.y = pyo.Var([1, 2], bounds={1: (None, 2), 2: (0, 2)})
    x, y = m.x, m.follower.y
    return finish(m, x[1] + y[1] ** 2 + y[2] ** 2, x[1] * y[1] + x[2] * y[2], lower_rows=[y[2] <= 2 * y[1]])
