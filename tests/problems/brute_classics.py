"""Brute force for the problems with which the library began, traps among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from .brute import Point, argmin, interval, line, linear_over_lp, over_grid

POSITIVE = (0.0, None)


def bard_511() -> float:
    rows = [((-1,), (-1,), -3), ((-2,), (1,), 0), ((2,), (1,), 12), ((3,), (-2,), 4)]
    return linear_over_lp([np.linspace(0, 6, 601)], ((1,), (-4,)), lambda x: (1,), rows, [POSITIVE])[0]


def candler_townsley() -> float:
    rows = [((0, 0), (-1, 1, 1), 1), ((2, 0), (-1, 2, -0.5), 1), ((0, 2), (2, -1, -0.5), 1)]
    grid = [np.linspace(0, 2, 21), np.linspace(0, 2, 21)]
    return linear_over_lp(grid, ((-8, -4), (4, -40, -4)), lambda x: (1, 1, 2), rows, [POSITIVE] * 3)[0]


def clark_westerberg_1988() -> float:
    rows = [((-2,), (1,), 0), ((2,), (5,), 108), ((2,), (-3,), -4)]
    return linear_over_lp([np.linspace(0, 54, 541)], ((1,), (-4,)), lambda x: (1,), rows, [POSITIVE])[0]


def anandalingam_white() -> float:
    rows = [((-1,), (-2,), -10), ((1,), (-2,), 6), ((2,), (-1,), 21), ((1,), (2,), 38), ((-1,), (2,), 18)]
    return linear_over_lp([np.linspace(0, 20, 201)], ((-1,), (-3,)), lambda x: (3,), rows, [POSITIVE])[0]


def bard_1991_1() -> float:
    rows = [((1,), (-1, -1), -4)]
    return linear_over_lp([np.linspace(2, 4, 201)], ((1,), (0, 1)), lambda x: (2, x[0]), rows, [POSITIVE] * 2)[0]


def bard_1991_2() -> float:
    rows = [((1,), (1, 0), 1), ((1,), (0, 1), 1), ((0,), (1, 1), 1)]
    return linear_over_lp([np.linspace(0, 1, 101)], ((-1,), (10, -1)), lambda x: (-1, -1), rows, [POSITIVE] * 2)[0]


MOORE = [((-25,), (20,), 30), ((1,), (2,), 10), ((2,), (-1,), 15), ((-2,), (-10,), -15)]


def moore_bard_continuous() -> float:
    return linear_over_lp([np.linspace(0, 8, 801)], ((-1,), (-10,)), lambda x: (1,), MOORE, [POSITIVE])[0]


def _integer_answers(rows: list, x: Point, candidates: list[Point], value: Callable[[Point], float]) -> list[Point]:
    fits = [y for y in candidates if all(np.dot(p, x) + np.dot(q, y) <= r + 1e-9 for p, q, r in rows)]
    return argmin(fits, value)


def moore_bard() -> float:
    whole = [(float(v),) for v in range(12)]
    return over_grid(
        whole, lambda x: _integer_answers(MOORE, x, whole, lambda y: y[0]), lambda x, y: -x[0] - 10 * y[0]
    )[0]


def mibs_manual() -> float:
    rows = [((2,), (-1,), 7), ((-2,), (4,), 16)]
    return over_grid(
        [(float(v),) for v in range(11)],
        lambda x: _integer_answers(rows, x, [(float(v),) for v in range(6)], lambda y: y[0]),
        lambda x, y: -x[0] - 7 * y[0],
        lambda x, y: -3 * x[0] + 2 * y[0] <= 12 and x[0] + 2 * y[0] <= 20,
    )[0]


def knapsack_interdiction() -> float:
    profit, weight = (7, 8, 5, 4), (3, 4, 2, 1)
    binary = list(itertools.product((0.0, 1.0), repeat=4))

    def answers(x: Point) -> list[Point]:
        fits = [y for y in binary if np.dot(weight, y) <= 6 and all(b <= 1 - a for a, b in zip(x, y, strict=True))]
        return argmin(fits, lambda y: -float(np.dot(profit, y)))

    return over_grid([x for x in binary if sum(x) <= 1], answers, lambda x, y: float(np.dot(profit, y)))[0]


def bard_1988_1() -> float:
    def answers(x: Point) -> list[Point]:
        (a,) = x
        return interval(max(0.0, 2 * (a - 4)), min(3 * a - 3, 7 - a), 1 + 0.75 * a)

    return over_grid(line(0, 7, 7001), answers, lambda x, y: (x[0] - 5) ** 2 + (2 * y[0] + 1) ** 2)[0]


def clark_westerberg_1990b() -> float:
    def answers(x: Point) -> list[Point]:
        (a,) = x
        return interval(max(0.0, (a + 2) / 2), min(1 + 2 * a, (14 - a) / 2), 5.0)

    return over_grid(line(0, 8, 8001), answers, lambda x, y: (x[0] - 3) ** 2 + (y[0] - 2) ** 2)[0]


def shimizu_aiyoshi_1() -> float:
    def answers(x: Point) -> list[Point]:
        return interval(0.0, min(20.0, 20 - x[0]), (30 - x[0]) / 2)

    return over_grid(
        line(0, 15, 15001), answers, lambda x, y: x[0] ** 2 + (y[0] - 10) ** 2, lambda x, y: y[0] <= x[0] + 1e-9
    )[0]


def aiyoshi_shimizu_2() -> float:
    def one(a: float) -> list[Point]:
        return interval(-10.0, min(20.0, (a - 10) / 2), a - 20)

    def answers(x: Point) -> list[Point]:
        return [(*u, *v) for u in one(x[0]) for v in one(x[1])]

    xs = [(float(a), float(b)) for a in np.linspace(0, 50, 101) for b in np.linspace(0, 50, 101)]
    return over_grid(
        xs,
        answers,
        lambda x, y: 2 * sum(x) - 3 * sum(y) - 60,
        lambda x, y: x[0] + x[1] + y[0] - 2 * y[1] <= 40 + 1e-9,
    )[0]


def falk_liu() -> float:
    def answers(x: Point) -> list[Point]:
        return [(min(max(x[0], 0.5), 1.5), min(max(x[1], 0.5), 1.5))]

    xs = [(float(a), float(b)) for a in np.linspace(0, 2, 81) for b in np.linspace(0, 2, 81)]
    return over_grid(xs, answers, lambda x, y: sum((a - 1.5) ** 2 for a in x) + sum(b * b for b in y) - 4.5)[0]


def mitsos_barton_313() -> float:
    ys = line(-1, 1, 401)

    def answers(x: Point) -> list[Point]:
        return argmin(ys, lambda y: 0.5 * x[0] * y[0] ** 2 - x[0] ** 3 * y[0])

    return over_grid(line(-1, 1, 201), answers, lambda x, y: x[0] - y[0])[0]


def small_bound() -> float:
    return -over_grid(line(0, 2, 201), lambda x: [(max(0.0, 100 * x[0] - 100),)], lambda x, y: -x[0] - y[0])[0]


def follower_bounds() -> float:
    return over_grid(line(0, 3, 301), lambda x: [(1.0,)], lambda x, y: x[0], lambda x, y: x[0] >= y[0])[0]


def two_limits() -> float:
    return over_grid(line(2, 20, 181), lambda x: [(min(x[0] + 3, 10.0),)], lambda x, y: x[0] + y[0])[0]


def two_followers() -> float:
    def one(a: float) -> list[Point]:
        z = min(8 - a, (13 - a) / 2, 20.0)
        return [(z,)] if z >= max(0.0, (8 - a) / 4) - 1e-12 else []

    xs = [(float(a), 10 - float(a)) for a in np.linspace(2, 6, 401)]
    return over_grid(
        xs,
        lambda x: [(*u, *v) for u in one(x[0]) for v in one(x[1])],
        lambda x, y: x[0] + 3 * y[0] + 3 * y[1],
        lambda x, y: 2 <= x[1] <= 8,
    )[0]


def no_multipliers() -> float:
    return over_grid(
        line(0, 10, 10001),
        lambda x: interval(-math.sqrt(x[0]), math.sqrt(x[0]), 3.0),
        lambda x, y: (x[0] - 3.5) ** 2 + (y[0] + 4) ** 2,
    )[0]


# By brute force; None where there is nothing to find, for the reason given by the declared termination.
CLASSICS: dict[str, Callable[[], float] | None] = {
    "classic/bard-511": bard_511,
    "classic/candler-townsley": candler_townsley,
    "classic/clark-westerberg-1988": clark_westerberg_1988,
    "classic/anandalingam-white": anandalingam_white,
    "classic/bard-1991-1": bard_1991_1,
    "classic/bard-1991-2": bard_1991_2,
    "classic/moore-bard-continuous": moore_bard_continuous,
    "classic/moore-bard": moore_bard,
    "classic/mibs-manual": mibs_manual,
    "classic/knapsack-interdiction": knapsack_interdiction,
    "classic/bard-1988-1": bard_1988_1,
    "classic/clark-westerberg-1990b": clark_westerberg_1990b,
    "classic/shimizu-aiyoshi-1": shimizu_aiyoshi_1,
    "classic/aiyoshi-shimizu-2": aiyoshi_shimizu_2,
    "classic/falk-liu": falk_liu,
    "classic/mitsos-barton-313": mitsos_barton_313,
    "trap/small-bound": small_bound,
    "trap/follower-bounds": follower_bounds,
    "trap/two-limits": two_limits,
    "trap/two-followers": two_followers,
    "trap/no-multipliers": no_multipliers,
    "trap/leaders-wish": None,
    "trap/follower-unbounded": None,
    "trap/follower-infeasible": None,
}
