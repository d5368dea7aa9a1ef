"""Brute force for the problems whose followers are linear programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from .brute import Point, argmin, line, linear_over_lp, over_grid, scalar_lp

POSITIVE = (0.0, None)
FREE = (None, None)
BARD_1984 = [(-1, -0.5, -2), (-0.25, 1, 2), (1, 0.5, 8), (1, -2, 4)]
BIALAS_KARWAN = [(-1, -2, -10), (1, 2, 38), (-1, 2, 18), (1, -2, 6), (2, -1, 21)]
LAN = [(1, -2, 4), (2, -1, 24), (3, 4, 96), (1, 7, 126), (-4, 5, 65), (-1, -4, -8)]


def _two(
    rows: list[tuple[float, float, float]],
    upper: Callable[[float, float], float],
    slope: float,
    grid: list[Point],
    low: float = 0.0,
    allowed: Callable[[float, float], bool] = lambda x, y: True,
) -> Callable[[], float]:
    """Two variables; ``slope``: of the follower's objective in y; ``low``: bound of y."""
    return lambda: over_grid(
        grid,
        lambda x: scalar_lp(rows, slope, x[0], low),
        lambda x, y: upper(x[0], y[0]),
        lambda x, y: allowed(x[0], y[0]),
    )[0]


def lucchetti() -> float:
    ys = line(0, 1, 11)
    return over_grid(
        line(0, 1, 1001),
        lambda x: argmin(ys, lambda y: (x[0] - 1) * y[0]),
        lambda x, y: 0.5 * (1 - x[0]) + x[0] * y[0],
    )[0]


BARD_FALK = [((-2, 0), (1, -1), -2.5), ((1, -3), (0, 1), 2)]
SUM_OF_X = ((1, 1), (0, 0), 2)
HALVES = [np.linspace(0, 2, 21), np.linspace(0, 2, 21)]


def bard_falk_2() -> float:
    upper, lower = ((-2, 1), (0.5, 0)), (-4, 1)
    return linear_over_lp(HALVES, upper, lambda x: lower, [*BARD_FALK, SUM_OF_X], [POSITIVE] * 2)[0]


def tuy_1993() -> float:
    upper, lower = ((-2, 1), (0.5, 0)), (-4, 1)
    return linear_over_lp(HALVES, upper, lambda x: lower, BARD_FALK, [POSITIVE] * 2, [SUM_OF_X])[0]


def ben_ayed_blair_1() -> float:
    rows = [((1,), (3, 1), 5), ((2,), (1, 3), 5)]
    upper = ((-1.5,), (-6, -1))
    return linear_over_lp([np.linspace(0, 1, 101)], upper, lambda x: (-1, -5), rows, [POSITIVE] * 2)[0]


def bialas_karwan_1() -> float:
    rows = [
        ((1,), (1, 1), 3),
        ((-1,), (-1, 1), -1),
        ((-1,), (1, 1), 1),
        ((1,), (-1, 1), 1),
        ((0,), (0, 1), 0.5),
    ]
    return linear_over_lp([np.linspace(0, 3, 121)], ((-1,), (0, -1)), lambda x: (0, -1), rows, [POSITIVE] * 2)[0]


def clark_westerberg_1990a() -> float:
    rows = [((-2,), (1, 4), 16), ((8,), (3, -2), 48), ((-2,), (1, -3), -12)]
    upper = ((-1,), (-3, 2))
    return linear_over_lp([np.linspace(0, 8, 161)], upper, lambda x: (-1, 0), rows, [(0, 4), FREE])[0]


def glackin() -> float:
    xs = [(float(a), float(b)) for a in np.linspace(0, 4, 41) for b in np.linspace(0, 4, 41)]
    return over_grid(
        xs,
        lambda x: scalar_lp([(1, 1, 4), (2, 1, 6)], -1, x[0] + x[1], 0.0),
        lambda x, y: -2 * x[0] + 4 * x[1] + 3 * y[0],
        lambda x, y: x[0] - x[1] <= -1 + 1e-9,
    )[0]


def hu_huang_zhang() -> float:
    rows = [((1,), (1, 1), 25 / 9), ((1,), (0, 1), 2), ((0,), (1, 1), 8 / 9)]
    return linear_over_lp([np.linspace(0, 2, 91)], ((-4,), (-1, -1)), lambda x: (-3, 0), rows, [POSITIVE] * 2)[0]


def tuy_1994() -> float:
    def answers(x: Point) -> list[Point]:
        # y2 covers what x leaves at 0.5 a unit, y1 at 2/3.
        return [(0.0, max(0.0, (15 - 3 * x[0] - 5 * x[1]) / 2))]

    xs = [(float(a), float(b)) for a in np.linspace(0, 4, 81) for b in np.linspace(0, 4, 81)]
    return over_grid(xs, answers, lambda x, y: 3 * x[0] + 2 * x[1] + sum(y), lambda x, y: sum(x) + sum(y) <= 4 + 1e-9)[
        0
    ]


def wang_jiao_li() -> float:
    rows = [((1,), (1, -1), 1), ((0,), (1, 1), 1)]
    return linear_over_lp([np.linspace(0, 1, 101)], ((-100,), (-1000, 0)), lambda x: (-1, -1), rows, [FREE] * 2)[0]


def savard() -> float:
    rows = [((0, 0), (-1, 1, 1), 1), ((4, 0), (-2, 4, -1), 2), ((0, 4), (4, -2, -1), 2)]
    return linear_over_lp(
        [np.linspace(0, 1, 11), np.linspace(0, 1.5, 31)],
        ((-8, -4), (4, -40, 4)),
        lambda x: (2, 1, 2),
        rows,
        [POSITIVE] * 3,
        [((1, 2), (0, 0, -1), 1.3)],
    )[0]


def dempe_franke_1() -> float:
    corners = [(0.0, 0.0), (1.0, 2.0), (2.0, 2.0), (2.0, 0.0), (0.0, 0.0)]
    outline = [
        ((1 - t) * a[0] + t * b[0], (1 - t) * a[1] + t * b[1])
        for a, b in itertools.pairwise(corners)
        for t in np.linspace(0, 1, 11)
    ]
    return over_grid(
        line(-1, 1, 201),
        lambda x: argmin(outline, lambda y: x[0] * y[0] - y[1]),
        lambda x, y: x[0] + y[0] ** 2 + y[1] ** 2,
    )[0]


LINEAR: dict[str, Callable[[], float] | None] = {
    "classic/bard-1984a": _two(BARD_1984, lambda x, y: x + y, -1, line(0, 8, 721)),
    "classic/bard-1984b": _two(BARD_1984, lambda x, y: -5 * x - y, 1, line(0, 8, 721)),
    "classic/ben-ayed-blair-2": _two([(-4, -3, -19), (1, 2, 11), (3, 1, 13)], lambda x, y: -x - y, 1, line(0, 5, 501)),
    "classic/bialas-karwan-2": _two(BIALAS_KARWAN, lambda x, y: -y, 1, line(0, 20, 201)),
    "classic/haurie-savard-white": _two(
        [(-3, 2, 6), (3, 4, 48), (2, -5, 9), (-1, -1, -8)],
        lambda x, y: x + 5 * y,
        -1,
        line(-10, 20, 301),
        low=-np.inf,
    ),
    "classic/lan-2007": _two(LAN, lambda x, y: 2 * x - 11 * y, 1, line(0, 22, 2421)),
    "classic/liu-hart": _two([(-1, 1, 3), (1, 2, 12), (4, -1, 12)], lambda x, y: -x - 3 * y, 1, line(0, 12, 121)),
    "classic/mersha-dempe-1": _two(
        [(5, -2, 33), (-1, -2, -9), (-7, 3, 5), (1, 1, 15)], lambda x, y: x - 8 * y, 1, line(0, 15, 151)
    ),
    "classic/mersha-dempe-2": _two(
        [(-3, 1, -3), (3, 1, 30)],
        lambda x, y: -x - 2 * y,
        -1,
        line(-20, 20, 401),
        low=-np.inf,
        allowed=lambda x, y: -2 * x + 3 * y <= 12 + 1e-9 and x + y <= 14 + 1e-9,
    ),
    "classic/allende-still-1": _two([(1, -1, 0), (0, 1, 0)], lambda x, y: -x - y, 1, line(-10, 10, 201), low=-10.0),
    "classic/tuy-2007": _two([(3, 1, 15), (1, 1, 7), (1, 3, 15)], lambda x, y: x * x + y * y, -1, line(0, 5, 501)),
    "classic/lucchetti": lucchetti,
    "classic/bard-falk-2": bard_falk_2,
    "classic/tuy-1993": tuy_1993,
    "classic/ben-ayed-blair-1": ben_ayed_blair_1,
    "classic/bialas-karwan-1": bialas_karwan_1,
    "classic/clark-westerberg-1990a": clark_westerberg_1990a,
    "classic/glackin": glackin,
    "classic/hu-huang-zhang": hu_huang_zhang,
    "classic/tuy-1994": tuy_1994,
    "classic/wang-jiao-li": wang_jiao_li,
    "classic/savard": savard,
    "classic/dempe-franke-1": dempe_franke_1,
}
