"""Every problem of the library: its declared optimum by brute force, and what the solver makes of it.

A registered problem without an entry in `BRUTE` fails the first test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry

from .brute import Point, argmin, line, linear_over_lp, over_grid

INF = math.inf
POSITIVE = (0.0, None)


def _interval(low: float, high: float, wanted: float) -> list[Point]:
    """The point of [low, high] nearest to the one wanted: the answer of a follower that minimises a distance."""
    return [] if low > high + 1e-12 else [(min(max(wanted, low), high),)]


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
        return _interval(max(0.0, 2 * (a - 4)), min(3 * a - 3, 7 - a), 1 + 0.75 * a)

    return over_grid(line(0, 7, 7001), answers, lambda x, y: (x[0] - 5) ** 2 + (2 * y[0] + 1) ** 2)[0]


def clark_westerberg_1990b() -> float:
    def answers(x: Point) -> list[Point]:
        (a,) = x
        return _interval(max(0.0, (a + 2) / 2), min(1 + 2 * a, (14 - a) / 2), 5.0)

    return over_grid(line(0, 8, 8001), answers, lambda x, y: (x[0] - 3) ** 2 + (y[0] - 2) ** 2)[0]


def shimizu_aiyoshi_1() -> float:
    def answers(x: Point) -> list[Point]:
        return _interval(0.0, min(20.0, 20 - x[0]), (30 - x[0]) / 2)

    return over_grid(
        line(0, 15, 15001), answers, lambda x, y: x[0] ** 2 + (y[0] - 10) ** 2, lambda x, y: y[0] <= x[0] + 1e-9
    )[0]


def aiyoshi_shimizu_2() -> float:
    def one(a: float) -> list[Point]:
        return _interval(-10.0, min(20.0, (a - 10) / 2), a - 20)

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
        lambda x: _interval(-math.sqrt(x[0]), math.sqrt(x[0]), 3.0),
        lambda x, y: (x[0] - 3.5) ** 2 + (y[0] + 4) ** 2,
    )[0]


# By brute force; None where there is nothing to find, for the reason given by the declared termination.
BRUTE: dict[str, Callable[[], float] | None] = {
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
LIBRARY = {n: s for n, s in get_registry().problems.items() if n.startswith(("classic/", "trap/"))}
MODES = ("sos1", "bigm")
# On these no bound is finite, or the leader is unbounded: the answer is right, and no more is claimed than is known.
UNPROVEN = {"classic/bard-1991-1", "classic/falk-liu", "trap/small-bound"}


def test_every_problem_is_in_the_table() -> None:
    assert set(LIBRARY) == set(BRUTE)


@pytest.mark.parametrize("name", [n for n, f in BRUTE.items() if f])
def test_declared_optimum(name: str) -> None:
    brute = BRUTE[name]
    known = LIBRARY[name].known
    assert brute is not None
    assert known is not None
    # The grids are laid through the optima, so that nothing but rounding remains.
    assert known.upper_objective == pytest.approx(brute(), rel=1e-6, abs=1e-6)
    assert known.source


def solvable(name: str) -> bool:
    return BRUTE[name] is not None and not LIBRARY[name].needs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n in BRUTE if solvable(n)])
def test_kkt_finds_the_optimum(name: str, mode: str) -> None:
    spec = LIBRARY[name]
    r = bl.solve(spec.load()(), solver="kkt", options={"complementarity": mode})
    assert spec.known is not None
    assert r.upper_objective == pytest.approx(spec.known.upper_objective, rel=1e-5, abs=1e-5)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    if mode == "bigm" and name in UNPROVEN:
        assert r.status == "feasible"
        assert "could not be proven" in r.message
    else:
        assert r.status == "optimal"
        assert r.bound == pytest.approx(r.upper_objective, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n, f in BRUTE.items() if f is None])
def test_problems_without_a_solution(name: str, mode: str) -> None:
    known = LIBRARY[name].known
    r = bl.solve(LIBRARY[name].load()(), solver="kkt", options={"complementarity": mode})
    assert known is not None
    assert r.termination == known.termination
    assert not r.has_point
    assert r.status in ("infeasible", "no-solution")
    assert r.message


@pytest.mark.parametrize("name", [n for n, s in LIBRARY.items() if s.needs == "branch-and-cut"])
def test_integer_followers_are_refused(name: str) -> None:
    with pytest.raises(bl.RefusedError, match=r"integer variable.*branch-and-cut"):
        bl.solve(LIBRARY[name].load()(), solver="kkt")


def test_a_nonconvex_follower_is_refused() -> None:
    with pytest.raises(bl.RefusedError, match=r"global"):
        bl.solve(LIBRARY["classic/mitsos-barton-313"].load()(), solver="kkt")


@pytest.mark.parametrize("mode", MODES)
def test_where_no_multipliers_exist_no_more_than_stationary_is_claimed(mode: str) -> None:
    r = bl.solve(LIBRARY["trap/no-multipliers"].load()(), solver="kkt", options={"complementarity": mode})
    assert r.claim <= bl.Claim.STATIONARY
    assert r.status != "optimal"
    assert "multipliers" in r.message
    assert bl.classify(LIBRARY["trap/no-multipliers"].load()()).verdicts["kkt"].claim == "stationary"  # type: ignore[union-attr]


@pytest.mark.parametrize("bound", [1.0, 10.0, 50.0])
@pytest.mark.parametrize("which", ["multiplier_bound", "slack_bound", "both"])
@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_bounds_that_are_too_small(bound: float, which: str, backend: str) -> None:
    names = ["multiplier_bound", "slack_bound"] if which == "both" else [which]
    options = {"complementarity": "bigm", "backend": backend} | dict.fromkeys(names, bound)
    r = bl.solve(LIBRARY["trap/small-bound"].load()(), options=options)
    assert r.upper_objective == pytest.approx(102.0) or r.claim < bl.Claim.LOCAL
    assert r.status != "optimal" or r.upper_objective == pytest.approx(102.0)


@pytest.mark.parametrize("bound", [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_bounds_that_are_too_large(bound: float, backend: str) -> None:
    options = {"complementarity": "bigm", "multiplier_bound": bound, "slack_bound": bound, "backend": backend}
    r = bl.solve(LIBRARY["classic/candler-townsley"].load()(), options=options)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert r.upper_objective == pytest.approx(-29.2, abs=1e-6) or r.status != "optimal"
    assert r.upper_objective is not None
    assert r.upper_objective >= -29.2 - 1e-6


@pytest.mark.parametrize("name", [n for n in BRUTE if solvable(n)])
def test_wrong_points_are_refuted(name: str) -> None:
    """Moving the follower away from its answer must not pass the check."""
    problem = LIBRARY[name].load()()
    r = bl.solve(problem)
    refuted = 0
    for key, array in r.y.items():
        for shift in (0.3, -0.3):
            moved = dict(r.y) | {key: array + shift}
            c = bl.verify(problem, r.x, moved)
            refuted += c.verdict == "refuted" or c.better_response is not None or c.response == "ties"
    assert refuted
