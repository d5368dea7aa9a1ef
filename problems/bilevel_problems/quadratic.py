"""Problems from the literature whose followers are convex quadratic programs with linear constraints."""

from __future__ import annotations

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
