"""Problems from the literature whose followers are convex quadratic programs with linear constraints."""

from __future__ import annotations

from typing import Any

from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import finish, model, nonnegative, pyo


def bard_1988_1() -> PyomoProblem:
    """Bard (1988), example 1: a local optimum 25 at (5, 2) beside the global one at (1, 0)."""
    m = model("classic/bard-1988-1")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(
        m,
        (x - 5) ** 2 + (2 * y + 1) ** 2,
        (y - 1) ** 2 - 1.5 * x * y,
        lower_rows=[-3 * x + y <= -3, x - 0.5 * y <= 4, x + y <= 7],
    )


def clark_westerberg_1990b() -> PyomoProblem:
    """Clark and Westerberg (1990): the follower's answer has kinks where its constraints take over."""
    m = model("classic/clark-westerberg-1990b")
    m.x = pyo.Var(bounds=(0, 8))
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(
        m, (x - 3) ** 2 + (y - 2) ** 2, (y - 5) ** 2, lower_rows=[-2 * x + y <= 1, x - 2 * y <= -2, x + 2 * y <= 14]
    )


def shimizu_aiyoshi_1() -> PyomoProblem:
    """Shimizu and Aiyoshi (1981), example 1: the leader's own constraint y <= x ties the follower's answer to x."""
    m = model("classic/shimizu-aiyoshi-1")
    m.x = pyo.Var(bounds=(0, 15))
    m.follower.y = pyo.Var(bounds=(0, 20))
    x, y = m.x, m.follower.y
    return finish(m, x**2 + (y - 10) ** 2, (x + 2 * y - 30) ** 2, upper_rows=[y <= x], lower_rows=[x + y <= 20])


def aiyoshi_shimizu_2() -> PyomoProblem:
    """Aiyoshi and Shimizu (1984), example 2: the value 5 of older tables is a local optimum; 0 is the global one."""
    m = model("classic/aiyoshi-shimizu-2")
    m.x = pyo.Var([1, 2], bounds=(0, 50))
    m.follower.y = pyo.Var([1, 2], bounds=(-10, 20))
    x, y = m.x, m.follower.y
    return finish(
        m,
        2 * x[1] + 2 * x[2] - 3 * y[1] - 3 * y[2] - 60,
        (y[1] - x[1] + 20) ** 2 + (y[2] - x[2] + 20) ** 2,
        upper_rows=[x[1] + x[2] + y[1] - 2 * y[2] <= 40],
        lower_rows=[x[i] - 2 * y[i] >= 10 for i in (1, 2)],
    )


def falk_liu() -> PyomoProblem:
    """Falk and Liu (1995): the value -2.1962 of older tables is not the optimum; -2.25 at x = y = 0.75 is."""
    m = model("classic/falk-liu")
    m.x = nonnegative(1, 2)
    m.follower.y = pyo.Var([1, 2], bounds=(0.5, 1.5))
    x, y = m.x, m.follower.y
    return finish(m, sum((x[i] - 1.5) ** 2 + y[i] ** 2 for i in (1, 2)) - 4.5, sum((y[i] - x[i]) ** 2 for i in (1, 2)))


def bard_1988_3() -> PyomoProblem:
    """Bard (1988), example 3: the leader's quadratics shift the follower's constraints."""
    m = model("classic/bard-1988-3")
    m.x = nonnegative(1, 2)
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        -(x[1] ** 2) - 3 * x[2] - 4 * y[1] + y[2] ** 2,
        2 * x[1] ** 2 + y[1] ** 2 - 5 * y[2],
        upper_rows=[x[1] ** 2 + 2 * x[2] <= 4],
        lower_rows=[x[1] ** 2 - 2 * x[1] + x[2] ** 2 - 2 * y[1] + y[2] >= -3, x[2] + 3 * y[1] - 4 * y[2] >= 4],
    )


def shimizu_aiyoshi_2() -> PyomoProblem:
    """Shimizu and Aiyoshi (1981), example 2: the follower answers with the point of a box nearest to x."""
    m = model("classic/shimizu-aiyoshi-2")
    m.x = pyo.Var([1, 2])
    m.follower.y = pyo.Var([1, 2], bounds=(0, 10))
    x, y = m.x, m.follower.y
    return finish(
        m,
        (x[1] - 30) ** 2 + (x[2] - 20) ** 2 - 20 * y[1] + 20 * y[2],
        (x[1] - y[1]) ** 2 + (x[2] - y[2]) ** 2,
        upper_rows=[x[1] + 2 * x[2] >= 30, x[1] + x[2] <= 25, x[2] <= 15],
    )


def de_silva() -> PyomoProblem:
    """De Silva (1978): the leader's optimum lies where both of the follower's answers leave their bounds."""
    m = model("classic/de-silva")
    m.x = nonnegative(1, 2)
    m.follower.y = pyo.Var([1, 2], bounds=(0.5, 1.5))
    x, y = m.x, m.follower.y
    return finish(
        m,
        sum(x[i] ** 2 - 2 * x[i] + y[i] ** 2 for i in (1, 2)),
        sum((y[i] - x[i]) ** 2 for i in (1, 2)),
    )


def bard_1998_813() -> PyomoProblem:
    """Bard (1998), example 8.1.3: the follower's answer 50 x - 500 is steep, so that errors in y are magnified."""
    return _bard_1998_813("classic/bard-1998-813", None)


def bard_1998_813_nonnegative() -> PyomoProblem:
    """Bard (1998), example 8.1.3 with y >= 0: the bound makes the optimum (1, 0), far from that without it."""
    return _bard_1998_813("classic/bard-1998-813-nonnegative", 0)


def _bard_1998_813(name: str, low: float | None) -> PyomoProblem:
    m = model(name)
    m.x = pyo.Var(bounds=(-100, 100))
    m.follower.y = pyo.Var(bounds=(low, None))
    x, y = m.x, m.follower.y
    return finish(m, (x - 1) ** 2 + (y - 1) ** 2, 0.5 * y**2 + 500 * y - 50 * x * y)


def bard_1998_721() -> PyomoProblem:
    """Bard (1998), example 7.2.1, with -y for the +y of the book, which its solution shows to be a misprint."""
    m = model("classic/bard-1998-721")
    m.x = pyo.Var([1, 2], bounds=(0, 1))
    m.follower.y = pyo.Var(bounds=(0, 1))
    x, y = m.x, m.follower.y
    return finish(
        m,
        0.5 * (x[1] - 0.8) ** 2 + 0.5 * (x[2] - 0.2) ** 2 + 0.5 * (y - 1) ** 2,
        0.5 * y**2 - y - x[1] * y + 2 * x[2] * y,
    )


def sahin_ciric_3() -> PyomoProblem:
    """Sahin and Ciric (1998), example 3: the follower always answers 5, and all constraints are the leader's."""
    m = model("classic/sahin-ciric-3")
    m.x = pyo.Var(bounds=(0, 8))
    m.follower.y = pyo.Var(bounds=(0, 10))
    x, y = m.x, m.follower.y
    return finish(
        m,
        (x - 3) ** 2 + (y - 2) ** 2,
        (y - 5) ** 2,
        upper_rows=[-2 * x + y <= 1, x - 2 * y <= -2, x + 2 * y <= 14],
    )


def outrata_1a() -> PyomoProblem:
    """Outrata (1990), example 1a: a strongly convex follower that the leader shifts."""
    return _outrata_1("classic/outrata-1a", 0.1)


def outrata_1b() -> PyomoProblem:
    """Outrata (1990), example 1b: example 1a with a higher price of x."""
    return _outrata_1("classic/outrata-1b", 1.0)


def _outrata_1(name: str, price: float) -> PyomoProblem:
    m = model(name)
    m.x = pyo.Var([1, 2])
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        price * (x[1] ** 2 + x[2] ** 2) + 0.5 * (y[1] - 3) ** 2 + 0.5 * (y[2] - 4) ** 2 - 12.5,
        0.5 * (y[1] ** 2 - 4 * y[1] * y[2] + 5 * y[2] ** 2) - x[1] * y[1] - x[2] * y[2],
        lower_rows=_outrata(y),
    )


def outrata_2a() -> PyomoProblem:
    """Outrata (1990), example 2a: one leader's variable, whose path of answers bends at the follower's constraints."""
    m = model("classic/outrata-2a")
    m.x = nonnegative()
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        0.5 * (y[1] - 3) ** 2 + 0.5 * (y[2] - 4) ** 2,
        0.5 * (y[1] ** 2 + y[2] ** 2) - (3 + 1.333 * x) * y[1] - x * y[2],
        lower_rows=_outrata(y),
    )


def _outrata(y: Any) -> list[Any]:
    return [-0.333 * y[1] + y[2] <= 2, y[1] - 0.333 * y[2] <= 2]


def henderson_quandt() -> PyomoProblem:
    """Henderson and Quandt (1958): Stackelberg duopoly, both firms with linear demand and quadratic costs."""
    m = model("classic/henderson-quandt")
    m.x = pyo.Var(bounds=(0, 200))
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, 0.5 * x**2 + 0.5 * x * y - 95 * x, y**2 + 0.5 * x * y - 100 * y)


def muu_quy_1() -> PyomoProblem:
    """Muu and Quy (2003), example 1: a strongly convex follower with one constraint that x shifts."""
    m = model("classic/muu-quy-1")
    m.x = pyo.Var(bounds=(0, 2))
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(
        m,
        x**2 - 4 * x + y[1] ** 2 + y[2] ** 2,
        y[1] ** 2 + 0.5 * y[2] ** 2 + y[1] * y[2] + (1 - 3 * x) * y[1] + (1 + x) * y[2],
        lower_rows=[2 * y[1] + y[2] - 2 * x <= 1],
    )


def hatz() -> PyomoProblem:
    """Hatz et al. (2013): the optimum is at a kink, where neither side of the follower's answer is stationary."""
    m = model("classic/hatz")
    m.x = pyo.Var()
    m.follower.y = nonnegative(1, 2)
    x, y = m.x, m.follower.y
    return finish(m, -x + 2 * y[1] + y[2], (x - y[1]) ** 2 + y[2] ** 2)


def lampariello_sagratella() -> PyomoProblem:
    """Lampariello and Sagratella (2017), example 3.2: min x^2 + y^2 where y minimises (x + y - 1)^2."""
    m = model("classic/lampariello-sagratella")
    m.x = pyo.Var()
    m.follower.y = pyo.Var()
    x, y = m.x, m.follower.y
    return finish(m, x**2 + y**2, (x + y - 1) ** 2)
