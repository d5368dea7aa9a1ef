"""Brute force for the problems whose followers are convex quadratic programs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .brute import Point, interval, line, optimistic, over_grid, strictly_convex, zoom


def _grid(low: float, high: float, count: int) -> list[Point]:
    values = np.linspace(low, high, count)
    return [(float(a), float(b)) for a in values for b in values]


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def bard_1988_3() -> float:
    def answers(x: Point) -> list[Point]:
        # Whatever y1 is, the largest y2 that the second constraint allows; then y1 minimises y1^2 - 3.75 y1.
        room = 3 + x[0] ** 2 - 2 * x[0] + x[1] ** 2
        low, high = max(0.0, (4 - x[1]) / 3), (x[1] - 4 + 4 * room) / 5
        return [(y, (x[1] - 4 + 3 * y) / 4) for (y,) in interval(low, high, 1.875)]

    return over_grid(
        _grid(0, 2, 201),
        answers,
        lambda x, y: -(x[0] ** 2) - 3 * x[1] - 4 * y[0] + y[1] ** 2,
        lambda x, y: x[0] ** 2 + 2 * x[1] <= 4 + 1e-9,
    )[0]


def shimizu_aiyoshi_2() -> float:
    xs = [(float(a), float(b)) for a in np.linspace(0, 30, 121) for b in np.linspace(-5, 15, 81)]
    return over_grid(
        xs,
        lambda x: [(_clamp(x[0], 0, 10), _clamp(x[1], 0, 10))],
        lambda x, y: (x[0] - 30) ** 2 + (x[1] - 20) ** 2 - 20 * y[0] + 20 * y[1],
        lambda x, y: x[0] + 2 * x[1] >= 30 - 1e-9 and x[0] + x[1] <= 25 + 1e-9,
    )[0]


def de_silva() -> float:
    return over_grid(
        _grid(0, 3, 121),
        lambda x: [(_clamp(x[0], 0.5, 1.5), _clamp(x[1], 0.5, 1.5))],
        lambda x, y: sum(a * a - 2 * a for a in x) + sum(b * b for b in y),
    )[0]


def bard_1998_813() -> float:
    return zoom(lambda x: (x[0] - 1) ** 2 + (50 * x[0] - 501) ** 2, [(-100, 100)], 401)[0]


def bard_1998_813_nonnegative() -> float:
    return over_grid(
        line(-100, 100, 20001),
        lambda x: [(max(0.0, 50 * x[0] - 500),)],
        lambda x, y: (x[0] - 1) ** 2 + (y[0] - 1) ** 2,
    )[0]


def bard_1998_721() -> float:
    return over_grid(
        _grid(0, 1, 101),
        lambda x: [(_clamp(1 + x[0] - 2 * x[1], 0, 1),)],
        lambda x, y: 0.5 * ((x[0] - 0.8) ** 2 + (x[1] - 0.2) ** 2 + (y[0] - 1) ** 2),
    )[0]


def sahin_ciric_3() -> float:
    return over_grid(
        line(0, 8, 801),
        lambda x: [(5.0,)],
        lambda x, y: (x[0] - 3) ** 2 + (y[0] - 2) ** 2,
        lambda x, y: -2 * x[0] + y[0] <= 1 and x[0] - 2 * y[0] <= -2 and x[0] + 2 * y[0] <= 14,
    )[0]


OUTRATA = np.array([[-0.333, 1], [1, -0.333], [-1, 0], [0, -1]]), np.array([2.0, 2, 0, 0])


def _outrata_1(price: float) -> float:
    h = np.array([[1.0, -2], [-2, 5]])
    value = optimistic(
        lambda x: strictly_convex(h, -np.array(x), *OUTRATA),
        lambda x, y: price * (x[0] ** 2 + x[1] ** 2) + 0.5 * (y[0] - 3) ** 2 + 0.5 * (y[1] - 4) ** 2 - 12.5,
    )
    return zoom(value, [(-4, 8), (-4, 8)], 31)[0]


def outrata_2a() -> float:
    value = optimistic(
        lambda x: strictly_convex(np.eye(2), -np.array([3 + 1.333 * x[0], x[0]]), *OUTRATA),
        lambda x, y: 0.5 * (y[0] - 3) ** 2 + 0.5 * (y[1] - 4) ** 2 if x[0] >= 0 else np.inf,
    )
    return zoom(value, [(0, 10)], 201)[0]


def henderson_quandt() -> float:
    value = optimistic(
        lambda x: [(max(0.0, 50 - x[0] / 4),)], lambda x, y: 0.5 * x[0] ** 2 + 0.5 * x[0] * y[0] - 95 * x[0]
    )
    return zoom(value, [(0, 200)], 201)[0]


def muu_quy_1() -> float:
    h, a = np.array([[2.0, 1], [1, 1]]), np.array([[2.0, 1], [-1, 0], [0, -1]])
    value = optimistic(
        lambda x: strictly_convex(h, np.array([1 - 3 * x[0], 1 + x[0]]), a, np.array([1 + 2 * x[0], 0, 0])),
        lambda x, y: x[0] ** 2 - 4 * x[0] + y[0] ** 2 + y[1] ** 2 if 0 <= x[0] <= 2 else np.inf,
    )
    return zoom(value, [(0, 2)], 201)[0]


def hatz() -> float:
    return over_grid(line(-5, 5, 1001), lambda x: [(max(0.0, x[0]), 0.0)], lambda x, y: -x[0] + 2 * y[0] + y[1])[0]


def lampariello_sagratella() -> float:
    return over_grid(line(-5, 5, 1001), lambda x: [(1 - x[0],)], lambda x, y: x[0] ** 2 + y[0] ** 2)[0]


QUADRATIC: dict[str, Callable[[], float] | None] = {
    "classic/bard-1988-3": bard_1988_3,
    "classic/shimizu-aiyoshi-2": shimizu_aiyoshi_2,
    "classic/de-silva": de_silva,
    "classic/bard-1998-813": bard_1998_813,
    "classic/bard-1998-813-nonnegative": bard_1998_813_nonnegative,
    "classic/bard-1998-721": bard_1998_721,
    "classic/sahin-ciric-3": sahin_ciric_3,
    "classic/outrata-1a": lambda: _outrata_1(0.1),
    "classic/outrata-1b": lambda: _outrata_1(1.0),
    "classic/outrata-2a": outrata_2a,
    "classic/henderson-quandt": henderson_quandt,
    "classic/muu-quy-1": muu_quy_1,
    "classic/hatz": hatz,
    "classic/lampariello-sagratella": lampariello_sagratella,
}
