"""Problems in two variables whose followers are linear programs in their own variable."""

from __future__ import annotations

from typing import Any

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


def bard_1984a() -> PyomoProblem:
    """Bard (1984), first problem: the leader minimises x + y, the follower maximises 5x + y."""
    m = model("classic/bard-1984a")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x + y, -5 * x - y, lower_rows=_bard_1984(x, y))


def bard_1984b() -> PyomoProblem:
    """Bard (1984), second problem: the first with other objectives, max 5x + y over min y."""
    m = model("classic/bard-1984b")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, -5 * x - y, y, lower_rows=_bard_1984(x, y))


def _bard_1984(x: Any, y: Any) -> list[Any]:
    return [x + 0.5 * y >= 2, y <= 2 + 0.25 * x, x + 0.5 * y <= 8, x - 2 * y <= 4]


def ben_ayed_blair_2() -> PyomoProblem:
    """Ben-Ayed and Blair (1990), second problem: max x + y over min y; the optimum is the vertex (1, 5)."""
    m = model("classic/ben-ayed-blair-2")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, -x - y, y, lower_rows=[4 * x + 3 * y >= 19, x + 2 * y <= 11, 3 * x + y <= 13])


def bialas_karwan_2() -> PyomoProblem:
    """Bialas and Karwan (1984), second problem: leader and follower want the opposite of y."""
    m = model("classic/bialas-karwan-2")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(
        m,
        -y,
        y,
        lower_rows=[x + 2 * y >= 10, x + 2 * y <= 38, -x + 2 * y <= 18, x - 2 * y <= 6, 2 * x - y <= 21],
    )


def haurie_savard_white() -> PyomoProblem:
    """Haurie, Savard and White (1990): min x + 5y over max y; neither variable has bounds of its own."""
    m = model("classic/haurie-savard-white")
    m.x = pyo.Var()
    m.follower.y = pyo.Var()
    x, y = m.x, m.follower.y
    return finish(
        m, x + 5 * y, -y, lower_rows=[-3 * x + 2 * y <= 6, 3 * x + 4 * y <= 48, 2 * x - 5 * y <= 9, x + y >= 8]
    )


def lan_2007() -> PyomoProblem:
    """Lan, Wen, Shih and Lee (2007): min 2x - 11y over min x + 3y; tables give -85.0855 for -936/11."""
    m = model("classic/lan-2007")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(
        m,
        2 * x - 11 * y,
        x + 3 * y,
        lower_rows=[
            x - 2 * y <= 4,
            2 * x - y <= 24,
            3 * x + 4 * y <= 96,
            x + 7 * y <= 126,
            -4 * x + 5 * y <= 65,
            x + 4 * y >= 8,
        ],
    )


def liu_hart() -> PyomoProblem:
    """Liu and Hart (1994): max x + 3y over min y."""
    m = model("classic/liu-hart")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, -x - 3 * y, y, lower_rows=[-x + y <= 3, x + 2 * y <= 12, 4 * x - y <= 12])


def mersha_dempe_1() -> PyomoProblem:
    """Mersha and Dempe (2006), example 1, with all constraints the follower's: min x - 8y over min y."""
    m = model("classic/mersha-dempe-1")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x - 8 * y, y, lower_rows=[5 * x - 2 * y <= 33, x + 2 * y >= 9, -7 * x + 3 * y <= 5, x + y <= 15])


def mersha_dempe_2() -> PyomoProblem:
    """Mersha and Dempe (2006), example 2: the leader's own constraints contain y and cut its feasible set in two."""
    m = model("classic/mersha-dempe-2")
    m.x = pyo.Var()
    m.follower.y = pyo.Var()
    x, y = m.x, m.follower.y
    return finish(
        m,
        -x - 2 * y,
        -y,
        upper_rows=[-2 * x + 3 * y <= 12, x + y <= 14],
        lower_rows=[-3 * x + y <= -3, 3 * x + y <= 30],
    )


def allende_still_1() -> PyomoProblem:
    """Allende and Still (2013), example 3.1: max x + y; the follower minimises y over x <= y <= 0."""
    m = model("classic/allende-still-1")
    m.x = pyo.Var(bounds=(-10, 10))
    m.follower.y = pyo.Var(bounds=(-10, 10))
    x, y = m.x, m.follower.y
    return finish(m, -x - y, y, lower_rows=[x <= y, y <= 0])


def tuy_2007() -> PyomoProblem:
    """Tuy, Migdalas and Hoai-Phuong (2007), example 1: min x^2 + y^2; the follower maximises y."""
    m = model("classic/tuy-2007")
    m.x = nonnegative()
    m.follower.y = nonnegative()
    x, y = m.x, m.follower.y
    return finish(m, x**2 + y**2, -y, lower_rows=[3 * x + y <= 15, x + y <= 7, x + 3 * y <= 15])


def lucchetti() -> PyomoProblem:
    """Lucchetti, Mignanego and Pieri (1987), example 4.1: at x = 1 the follower is indifferent among all y in [0, 1].

    min 0.5 (1 - x) + x y; the follower minimises (x - 1) y. For x < 1 it answers y = 1: only the optimistic leader
    attains 0, at (1, 0).
    """
    m = model("classic/lucchetti")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower.y = pyo.Var(bounds=(0, 1))
    x, y = m.x, m.follower.y
    return finish(m, 0.5 * (1 - x) + x * y, (x - 1) * y)
