"""Small random integer-integer bilevel programs, and their solution by trying every point."""

from __future__ import annotations

import itertools

import numpy as np

from bilevel_core.program import INF as INF
from bilevel_core.program import BilevelProgram, Level, Row, Variable, linear
from bilevel_core.solvers.pessimistic import ReducedProblem

X, Y = 3, 4
"""Leader's variables take the values 0 to X, followers' 0 to Y."""


def random_program(seed: int, followers: int = 1) -> BilevelProgram:
    """Two or three leader's variables, two of each follower's, and leader's constraints on all of them."""
    r = np.random.default_rng(seed)
    nx, ny = int(r.integers(1, 4)), 2
    n = nx + followers * ny
    columns = tuple(Variable(f"v{j}", 0.0, float(X if j < nx else Y), True) for j in range(n))
    inside = r.integers(0, 3, n)

    def rows(count: int, name: str, allowed: list[int]) -> tuple[Row, ...]:
        out: list[Row] = []
        for k in range(count):
            a = r.integers(-4, 6, n) * (r.random(n) < 0.8)
            limit = float(a @ inside + r.integers(0, 4))
            low = limit - 5.0 if r.random() < 0.2 else -INF
            f = linear({j: float(a[j]) for j in allowed if a[j]})
            out.append(Row(f"{name}{k}", f, low, limit))
        return tuple(out)

    def objective(of: list[int], most: int) -> dict[int, float]:
        return {j: float(c) for j, c in zip(of, r.integers(-most, most + 1, len(of)), strict=True) if c}

    everything = list(range(n))
    leader = Level(
        "leader", linear(objective(everything, 9)), rows(int(r.integers(1, 3)), "G", everything), tuple(range(nx))
    )
    levels: list[Level] = []
    for k in range(followers):
        own = list(range(nx + k * ny, nx + (k + 1) * ny))
        seen = [*range(nx), *own]
        # Small coefficients make ties, which are what optimism and pessimism differ by.
        levels.append(
            Level(f"follower{k}", linear(objective(own, 2)), rows(int(r.integers(1, 4)), f"g{k}", seen), tuple(own))
        )
    return BilevelProgram(columns, leader, tuple(levels), name=f"random-{seed}")


def enumerate_all(program: BilevelProgram, *, pessimistic: bool = False) -> float:
    """The optimal value by trying every point; infinite where there is none.

    Leader's columns that followers do not see are, for a pessimistic leader, decided before the followers answer.
    """
    n = len(program.columns)
    nx = len(program.leader.columns)
    grids = [np.arange(c.lower, c.upper + 1) for c in program.columns]
    answers = np.array(list(itertools.product(*grids[nx:])))
    best = INF
    for x in itertools.product(*grids[:nx]):
        points = np.hstack([np.tile(x, (len(answers), 1)), answers])
        optimal = np.ones(len(points), dtype=bool)
        for f in program.followers:
            feasible = holds(f.rows, points, n)
            value = worth(f, points, n)
            # Followers do not see each other: the least value over all feasible points is each one's own.
            least = value[feasible].min(initial=INF)
            optimal &= feasible & (value <= least + 1e-9)
        fine = holds(program.leader.rows, points, n)
        value = worth(program.leader, points, n)
        if not optimal.any():
            continue
        if pessimistic:
            if fine[optimal].all():
                best = min(best, float(value[optimal].max()))
        elif (optimal & fine).any():
            best = min(best, float(value[optimal & fine].min()))
    return best


def holds(rows: tuple[Row, ...], points: np.ndarray, n: int) -> np.ndarray:
    out = np.ones(len(points), dtype=bool)
    for row in rows:
        value = points @ coefficients(row.function.linear, n)
        out &= (value <= row.upper + 1e-9) & (value >= row.lower - 1e-9)
    return out


def worth(level: Level, points: np.ndarray, n: int) -> np.ndarray:
    return points @ coefficients(level.objective.linear, n)


def coefficients(linear_part: object, n: int) -> np.ndarray:
    out = np.zeros(n)
    for j, c in dict(linear_part).items():  # type: ignore[call-overload]
        out[j] = c
    return out


def problem(program: BilevelProgram) -> ReducedProblem:
    return ReducedProblem(program)
