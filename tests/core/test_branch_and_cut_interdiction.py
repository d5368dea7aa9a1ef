"""Interdiction, setup costs, constants and units in `branch-and-cut`, against enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.program import INF, BilevelProgram, Function, Level, Row, Variable
from bilevel_core.result import Result, Status
from bilevel_core.solvers.pessimistic import ReducedProblem


def solved(program: BilevelProgram, response: str = "optimistic") -> Result:
    problem = ReducedProblem(program)
    return bl.solve(problem, solver="branch-and-cut", options={"response": response}, time_limit=60)


def knapsack(
    profit: Sequence[float],
    weight: Sequence[float],
    capacity: float,
    budget: float,
    forbids: Sequence[int],
    extra: tuple[Row, ...] = (),
    fixed: dict[int, float] | None = None,
    sense: float = 1.0,
) -> BilevelProgram:
    """A leader who forbids items (x_j those i with forbids[i] = j) and wants the follower's profit small."""
    n, items = max(forbids) + 1, len(profit)
    fixed = fixed or {}
    columns = [Variable(f"x{j}", fixed.get(j, 0.0), fixed.get(j, 1.0), True) for j in range(n)]
    columns += [Variable(f"y{i}", 0.0, 1.0, True) for i in range(items)]
    gain = Function(0.0, {n + i: sense * float(p) for i, p in enumerate(profit)})
    rows = [Row("capacity", Function(0.0, {n + i: float(w) for i, w in enumerate(weight)}), upper=capacity)]
    rows += [Row(f"taken{i}", Function(0.0, {j: 1.0, n + i: 1.0}), upper=1.0) for i, j in enumerate(forbids)]
    limit = Row("budget", Function(0.0, dict.fromkeys(range(n), 1.0)), upper=budget)
    leader = Level("leader", gain, (limit,), tuple(range(n)))
    follower = Level("follower", -gain, (*rows, *extra), tuple(range(n, n + items)))
    return BilevelProgram(tuple(columns), leader, (follower,), name="knapsack")


def least_profit(program: BilevelProgram) -> float:
    """By enumeration of both levels."""
    n = len(program.leader.columns)
    follower, best = program.followers[0], INF
    boxes = [range(int(c.lower), int(c.upper) + 1) for c in program.columns]
    answers = [np.array(y, dtype=float) for y in itertools.product(*boxes[n:])]
    for x in itertools.product(*boxes[:n]):
        points = [np.concatenate([np.array(x, dtype=float), y]) for y in answers]
        points = [p for p in points if all(r.violation(p) <= 1e-9 for r in follower.rows)]
        if not points or any(r.violation(points[0]) > 1e-9 for r in program.leader.rows):
            continue
        chosen = min(points, key=follower.objective.evaluate)
        best = min(best, program.leader.objective.evaluate(chosen))
    return best


@pytest.mark.parametrize("seed", range(25))
def test_one_column_may_forbid_several_items_and_items_may_be_barred(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = int(rng.integers(3, 7))
    n = int(rng.integers(2, items + 1))
    forbids = [*range(n), *(int(j) for j in rng.integers(0, n, items - n))]
    extra = (Row("own", Function(0.0, {n + int(rng.integers(items)): 2.0}), upper=1.0),) if rng.random() < 0.4 else ()
    fixed = {int(rng.integers(n)): 1.0} if rng.random() < 0.5 else {}
    program = knapsack(
        rng.integers(1, 20, items).tolist(),
        rng.integers(1, 9, items).tolist(),
        float(rng.integers(4, 20)),
        float(len(fixed) + rng.integers(0, n)),
        forbids,
        extra,
        fixed,
    )
    result = solved(program)
    assert result.status is Status.OPTIMAL, result.message
    assert result.upper_objective == pytest.approx(least_profit(program), abs=1e-6)


@pytest.mark.parametrize("constant", [0.0, 1e7, -3e9])
@pytest.mark.parametrize("response", ["optimistic", "pessimistic"])
def test_a_constant_of_the_leader_plays_no_part(constant: float, response: str) -> None:
    """x = 1 forces y to 0 and gives -1; at x = 0 the follower is indifferent: -5 for an optimist, 0 for a pessimist."""
    leader = Level("leader", Function(constant, {0: -1.0, 1: -5.0}), (), (0,))
    row = Row("row", Function(0.0, {0: 1.0, 1: 1.0}), upper=1.0)
    columns = (Variable("x", 0.0, 1.0, True), Variable("y", 0.0, 1.0, True))
    program = BilevelProgram(columns, leader, (Level("follower", Function(), (row,), (1,)),), name="constant")
    result = solved(program, response)
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == constant - (5.0 if response == "optimistic" else 1.0)


@pytest.mark.parametrize("setup", [1e2, 1e5, 1e6])
def test_setup_costs_leave_no_room_to_the_leader(setup: float) -> None:
    """The follower needs x + z >= 3.3 at least cost, z only with a setup: at x = 3, z = 0.3, which gives 3 - 3 = 0; at
    x = 0, z = 3.3, which gives -33.
    """
    columns = (Variable("x", 0.0, 3.0, True), Variable("s", 0.0, 1.0, True), Variable("z", 0.0, 10.0))
    rows = (
        Row("need", Function(0.0, {0: 1.0, 2: 1.0}), lower=3.3),
        Row("setup", Function(0.0, {2: 1.0, 1: -10.0}), upper=0.0),
    )
    leader = Level("leader", Function(0.0, {0: 1.0, 2: -10.0}), (), (0,))
    follower = Level("follower", Function(0.0, {1: setup, 2: 1.0}), rows, (1, 2))
    result = solved(BilevelProgram(columns, leader, (follower,), name="setup"))
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(-33.0, abs=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e-5, 1e-8])
def test_the_followers_unit_plays_no_part(unit: float) -> None:
    program = knapsack([3, 2, 4], [1, 1, 2], 3.0, 1.0, [0, 1, 2])
    follower = program.followers[0]
    small = Level(follower.name, follower.objective.scaled(unit), follower.rows, follower.columns)
    result = solved(BilevelProgram(program.columns, program.leader, (small,), name="unit"))
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(least_profit(program), abs=1e-9)


def test_epsilon_is_refused_where_it_would_have_no_effect() -> None:
    problem = ReducedProblem(knapsack([3, 2, 4], [1, 1, 2], 3.0, 1.0, [0, 1, 2]))
    with pytest.raises(bl.RefusedError, match="epsilon is for continuous linking variables"):
        bl.solve(problem, solver="branch-and-cut", options={"epsilon": 1e-3})
