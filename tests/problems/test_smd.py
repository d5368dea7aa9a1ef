"""SMD1 to SMD12: the models against the formulas of the paper, and the optima by brute force over closed forms.

Nothing here uses the core's algebra: objectives and constraints are written once more in NumPy, the follower's optimal
answers in closed form; a grid over the follower shows that none is better, a grid over the leader that the declared
optimum is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry

Array = np.ndarray
LIBRARY = {n: s for n, s in get_registry().problems.items() if n.startswith("smd/")}
NUMBERS = range(1, 13)
WIDE, TAN = (-5.0, 10.0), (1e-3 - math.pi / 2, math.pi / 2 - 1e-3)
BOXES = {  # of x2 and y2
    1: (WIDE, TAN),
    2: ((-5, 1), (1e-6, math.e)),
    3: (WIDE, TAN),
    4: ((-1, 1), (0, math.e)),
    5: (WIDE, WIDE),
    6: (WIDE, WIDE),
    7: ((-5, 1), (1e-6, math.e)),
    8: (WIDE, WIDE),
    9: ((-5, 1), (1e-6 - 1, math.e - 1)),
    10: (WIDE, TAN),
    11: ((-1, 1), (1 / math.e, math.e)),
    12: ((-14.1, 14.1), (-1.5, 1.5)),
}
AGREE = (1, 3)


def size(v: Array) -> float:
    return float(np.sum(v**2))


def tie(number: int, x2: Array, y2: Array) -> float:
    """The part that ties the levels."""
    pairs: dict[int, Callable[[], tuple[Array, Array]]] = {
        1: lambda: (x2, np.tan(y2)),
        2: lambda: (x2, np.log(y2)),
        3: lambda: (x2**2, np.tan(y2)),
        4: lambda: (np.abs(x2), np.log(1 + y2)),
        5: lambda: (np.abs(x2), y2**2),
        6: lambda: (x2, y2),
        7: lambda: (x2, np.log(y2)),
        8: lambda: (x2, y2**3),
        9: lambda: (x2, np.log(1 + y2)),
        10: lambda: (x2, np.tan(y2)),
        11: lambda: (x2, np.log(y2)),
        12: lambda: (x2, np.tan(y2)),
    }
    left, right = pairs[number]()
    return size(left - right)


def own(number: int, y1: Array, q: int) -> float:
    """The follower's part in y1."""
    if number in (3, 4):
        return float(len(y1) + np.sum(y1**2 - np.cos(2 * np.pi * y1)))
    if number in (5, 8):
        return size(y1[1:] - y1[:-1] ** 2) + size(y1[:-1] - 1)
    if number == 6:
        return size(y1[:q]) + size(y1[q + 1 :: 2] - y1[q::2])
    return size(y1 - 2) if number in (10, 12) else size(y1)


def upper(number: int, x1: Array, x2: Array, y1: Array, y2: Array, q: int) -> float:
    first = size(x1)
    if number == 7:
        first = 1 + size(x1) / 400 - float(np.prod(np.cos(x1 / np.sqrt(np.arange(1, len(x1) + 1)))))
    if number == 8:
        waves = float(np.mean(np.cos(2 * np.pi * x1)))
        first = 20 + math.e - 20 * math.exp(-0.2 * math.sqrt(float(np.mean(x1**2)))) - math.exp(waves)
    if number in (10, 12):
        first = size(x1 - 2)
    second = -own(number, y1, q)
    if number in (1, 3, 10, 12):
        second = size(y1)
    if number == 4:
        second = -size(y1)
    if number == 6:
        second = -size(y1[:q]) + size(y1[q:])
    third = size(x2 - 2) if number in (10, 12) else size(x2)
    third += tie(number, x2, y2) if number in AGREE else -tie(number, x2, y2)
    if number == 12:
        third += float(np.sum(np.tan(np.abs(y2))))
    return first + second + third


def lower(number: int, x1: Array, x2: Array, y1: Array, y2: Array, q: int) -> float:
    first = {7: float(np.sum(x1**3)), 8: float(np.sum(np.abs(x1)))}.get(number, size(x1))
    return first + own(number, y1, q) + tie(number, x2, y2)


def shell(v: float) -> float:
    """The paper's constraint of SMD9, up to rounding at the lower ends."""
    return v - math.floor(v + 0.5) + 1e-9


def above_cubes(v: Array) -> list[float]:
    return [float(a - (np.sum(v**3) - a**3)) for a in v]


def upper_rows(number: int, x1: Array, x2: Array, y2: Array) -> list[float]:
    """Constraints of the leader, each at least 0."""
    if number == 9:
        return [shell(size(x1) + size(x2))]
    if number == 11:
        return list(x2 - 1 / math.sqrt(len(x2)) - np.log(y2))
    rows = above_cubes(np.concatenate([x1, x2])) if number in (10, 12) else []
    return rows + (list(x2 - np.tan(y2)) if number == 12 else [])


def lower_rows(number: int, x2: Array, y1: Array, y2: Array) -> list[float]:
    """Constraints of the follower, each at least 0."""
    if number == 9:
        return [shell(size(y1) + size(y2))]
    away = [tie(number, x2, y2) - 1] if number in (11, 12) else []
    return away + (above_cubes(y1) if number in (10, 12) else [])


def answers(number: int, x2: float) -> list[tuple[Array, Array]]:
    """The follower's optimal answers at the default sizes, all of them or enough for the leader's best."""
    zero, one = np.zeros(2), np.ones(2)
    low, high = BOXES[number][1]
    if number == 9:
        return [_shell_answer(x2)]
    if number == 6:
        return [(np.array([t, t]), np.array([x2])) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    if number == 5:
        return [(one, np.array([s])) for s in (-math.sqrt(abs(x2)), math.sqrt(abs(x2))) if low <= s <= high]
    if number in (11, 12):
        back, y1 = (np.exp, zero) if number == 11 else (np.arctan, one)
        both = [float(back(x2 - 1)), float(back(x2 + 1))]
        return [(y1, np.array([s])) for s in both if low - 1e-12 <= s <= high + 1e-12]
    y1 = one if number in (8, 10) else zero
    y2 = {
        1: np.arctan(x2),
        2: np.exp(x2),
        3: np.arctan(x2**2),
        4: np.exp(abs(x2)) - 1,
        7: np.exp(x2),
        8: np.cbrt(x2),
        10: np.arctan(x2),
    }[number]
    return [(y1, np.array([float(y2)]))]


def _shell_answer(x2: float) -> tuple[Array, Array]:
    """SMD9: y2 from a fine grid through its wish, y1 as long as the nearest shell asks."""
    grid = np.append(np.linspace(1e-6 - 1, math.e - 1, 20001), np.exp(x2) - 1)
    squares = grid**2
    lift = np.where(squares % 1 <= 0.5 - 1e-6, 0.0, np.ceil(squares) - squares)
    k = int(np.argmin(lift + (x2 - np.log(1 + grid)) ** 2))
    return np.array([math.sqrt(lift[k]), 0.0]), grid[[k]]


def test_there_are_twelve() -> None:
    assert set(LIBRARY) == {f"smd/smd{n}" for n in NUMBERS}


@pytest.mark.parametrize("bigger", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_the_model_says_what_the_paper_says(number: int, bigger: bool) -> None:
    p, q, r = (2, 3, 2) if bigger else (1, 0 if number == 6 else 2, 1)
    sizes = {"p": p, "q": q, "r": r} | ({"s": 2} if number == 6 else {})
    problem = LIBRARY[f"smd/smd{number}"].load()(**sizes)
    rng = np.random.default_rng(number)
    box_x2, box_y2 = BOXES[number]
    assert {(c.lower, c.upper) for c in problem.program().columns if not c.integer} == {WIDE, box_x2, box_y2}
    seen = set()
    for _ in range(40):
        x1, x2 = rng.uniform(-2, 2, p), rng.uniform(max(-2, box_x2[0]), min(2, box_x2[1]), r)
        y1, y2 = rng.uniform(-2, 2, q + sizes.get("s", 0)), rng.uniform(max(-1.4, box_y2[0]), min(2, box_y2[1]), r)
        x, y = {"x1": x1, "x2": x2}, {"follower.y1": y1, "follower.y2": y2}
        if number == 9:
            x["x_shell"] = np.array(math.floor(size(x1) + size(x2)))
            y["follower.y_shell"] = np.array(math.floor(size(y1) + size(y2)))
        at = problem.evaluate(problem.vector(x, y))
        assert at.upper_objective == pytest.approx(upper(number, x1, x2, y1, y2, q), rel=1e-9, abs=1e-9)
        assert at.lower_objectives == pytest.approx((lower(number, x1, x2, y1, y2, q),), rel=1e-9, abs=1e-9)
        for found, rows in (
            (at.upper, upper_rows(number, x1, x2, y2)),
            (at.lower, lower_rows(number, x2, y1, y2)),
        ):
            violated = max((v for _, v, _ in found), default=0.0) > 1e-9
            assert violated == (min(rows, default=0.0) < 0)
            seen.add(violated)
    assert seen == ({False, True} if number >= 9 else {False})


@pytest.mark.parametrize("number", NUMBERS)
def test_no_answer_is_better_than_the_closed_forms(number: int) -> None:
    box_x2, box_y2 = BOXES[number]
    axis = np.unique(np.append(np.linspace(-5, 10, 61), np.linspace(-2, 2, 17)))
    plane = [np.array(v) for v in itertools.product(axis, axis)]
    q = 0 if number == 6 else 2
    x1 = np.zeros(1)
    for value in np.linspace(*box_x2, 7):
        x2 = np.array([value])
        found = answers(number, float(value))
        assert found
        best = [lower(number, x1, x2, y1, y2, q) for y1, y2 in found]
        assert all(min(lower_rows(number, x2, y1, y2), default=0.0) >= -1e-9 for y1, y2 in found)
        assert max(best) - min(best) <= 1e-9
        line = [np.array([v]) for v in np.linspace(*box_y2, 301)]
        if number == 9:  # the one constraint that couples y1 and y2: smaller grids
            pairs = itertools.product(plane[::11], line[::5])
            better = (lower(9, x1, x2, *y, q) for y in pairs if lower_rows(9, x2, *y)[0] >= 0)
            assert min(better) >= max(best) - 1e-3  # of the grid in `_shell_answer`
            continue
        # y1 and y2 share neither a term nor a constraint, so each is searched on its own.
        y1, y2 = found[0]
        ys1 = [v for v in plane if min(lower_rows(number, x2, v, y2), default=0.0) >= -1e-9]
        ys2 = [v for v in line if min(lower_rows(number, x2, y1, v), default=0.0) >= -1e-9]
        assert min(own(number, v, q) for v in ys1) >= own(number, y1, q) - 1e-9
        assert min(tie(number, x2, v) for v in ys2) >= tie(number, x2, y2) - 1e-9


@pytest.mark.parametrize("number", NUMBERS)
def test_declared_optimum(number: int) -> None:
    known = LIBRARY[f"smd/smd{number}"].known
    assert known is not None
    low, high = BOXES[number][0]
    q = 0 if number == 6 else 2
    found = []
    for value in np.linspace(low, high, round(10 * (high - low)) + 1):  # steps of 0.1, through 0 and 1
        x2 = np.array([value])
        for y1, y2 in answers(number, float(value)):
            for x1 in (np.array([v]) for v in np.linspace(-5, 10, 61)):
                if min(upper_rows(number, x1, x2, y2), default=0.0) >= -1e-9:
                    found.append(upper(number, x1, x2, y1, y2, q))
    assert known.upper_objective == pytest.approx(min(found), abs=1e-8)
    assert "Sinha" in known.source


@pytest.mark.parametrize(
    ("number", "sizes", "part"),
    [(1, {"p": 0}, "p of at least 1"), (5, {"q": 1}, "q of at least 2"), (6, {"s": 3}, "even s"), (6, {"q": -1}, "q")],
)
def test_sizes_that_make_no_problem(number: int, sizes: dict[str, int], part: str) -> None:
    with pytest.raises(bl.UsageError, match=rf"smd/smd{number}.*{part}"):
        LIBRARY[f"smd/smd{number}"].load()(**sizes)


def test_only_smd9_is_known_to_need_another_solver() -> None:
    assert {n for n, s in LIBRARY.items() if s.needs} == {"smd/smd9"}


def test_the_line_of_answers_of_smd6_is_no_obstacle_to_kkt() -> None:
    r = bl.solve(LIBRARY["smd/smd6"].load()(), solver="kkt")
    assert r.upper_objective == pytest.approx(0.0, abs=1e-6)
    assert r.status == "optimal"
