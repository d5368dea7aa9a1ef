"""The parts of branch and cut, each against what it stands for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bilevel_core.program import INF, BilevelProgram, Level, Row, Variable, linear
from bilevel_core.solvers.branch_cut.answers import Answers
from bilevel_core.solvers.branch_cut.branching import around, by_set, one_column
from bilevel_core.solvers.branch_cut.free_sets import Policies, Solutions
from bilevel_core.solvers.branch_cut.interdiction import Interdiction, forbidders
from bilevel_core.solvers.branch_cut.knapsack import as_knapsack
from bilevel_core.solvers.branch_cut.mip import Mip
from bilevel_core.solvers.branch_cut.model import LinearModel, build, sp, spacing

from .enumerated import random_program


def no_limit() -> None:
    return None


def interdicted(seed: int, n: int = 6) -> LinearModel:
    r = np.random.default_rng(seed)
    columns = tuple(Variable(f"v{j}", 0.0, 1.0, True) for j in range(2 * n))
    weight = r.integers(1, 9, n).astype(float)
    rows = [Row("capacity", linear({n + j: weight[j] for j in range(n)}), -INF, float(weight.sum() // 2))]
    rows += [Row(f"taken{j}", linear({j: 1.0, n + j: 1.0}), -INF, 1.0) for j in range(n)]
    profit = {n + j: float(p) for j, p in enumerate(r.integers(1, 20, n))}
    follower = Level("follower", linear({j: -p for j, p in profit.items()}), tuple(rows), tuple(range(n, 2 * n)))
    return build(BilevelProgram(columns, Level("leader", linear(profit), (), tuple(range(n))), (follower,)))


@pytest.mark.parametrize(
    ("coefficients", "step"), [([2.0, 4.0], 2.0), ([0.5, 1.25], 0.25), ([1 / 3], 1 / 3), ([np.pi, 1.0], 0.0), ([], 0.0)]
)
def test_spacing(coefficients: list[float], step: float) -> None:
    assert spacing(np.array(coefficients))[0] == pytest.approx(step)


@pytest.mark.parametrize("seed", range(8))
def test_knapsacks_by_dynamic_programming_are_those_of_highs(seed: int) -> None:
    f = interdicted(seed).followers[0]
    answers = Answers(f, no_limit)
    assert answers.knapsack is not None
    plain = Answers(f, no_limit)
    plain.knapsack = None
    r = np.random.default_rng(seed)
    for _ in range(5):
        x = r.integers(0, 2, 6).astype(float)
        quick, slow = answers.solve(x), plain.solve(x)
        assert quick is not None
        assert slow is not None
        assert quick.value == pytest.approx(slow.value)


def test_no_knapsack_where_there_is_more_than_one_row() -> None:
    assert all(as_knapsack(build(random_program(s)).followers[0]) is None for s in range(5))


@pytest.mark.parametrize("seed", range(12))
def test_no_bilevel_feasible_point_lies_inside_a_set(seed: int) -> None:
    """Over all integer points: where the set holds a point, the set's answer is feasible and better there."""
    model = build(random_program(seed))
    f = model.followers[0]
    if not f.cost.any():
        pytest.skip("the follower has nothing to improve")
    sets, answers = Solutions(model, f), Answers(f, no_limit)
    grid = [range(int(a), int(b) + 1) for a, b in zip(model.lower, model.upper, strict=True)]
    points = np.array(list(itertools.product(*grid)), dtype=float)
    for values in points[:: max(1, len(points) // 40)]:
        answer = answers.at(values)
        if answer is not None:
            sets.add(answer.y)
    held = 0
    for values in points:
        numbers, _ = sets.family.holding(values, 1)
        if len(numbers):
            held += 1
            answer = answers.at(values)
            assert answer is not None
            assert f.cost @ values[f.columns] > answer.value + 1e-9
    assert held or not sets.family.count


def test_an_answer_whose_continuous_part_follows_x() -> None:
    """The follower minimises y + 2 z over y + z >= x / 2, y <= 1, z integer in [0, 3]: at x = 4, y = 1 and z = 1.

    With z = 1 the answer y = x / 2 - 1 holds for x in [2, 4] and is worth x / 2 + 1 there.
    """
    columns = (Variable("x", 0.0, 6.0, True), Variable("y", 0.0, 1.0), Variable("z", 0.0, 3.0, True))
    row = Row("cover", linear({0: -0.5, 1: 1.0, 2: 1.0}), 0.0, INF)
    follower = Level("follower", linear({1: 1.0, 2: 2.0}), (row,), (1, 2))
    model = build(BilevelProgram(columns, Level("leader", linear({0: -1.0}), (), (0,)), (follower,)))
    policies, answers = Policies(model, model.followers[0]), Answers(model.followers[0], no_limit)
    at = np.array([3.0, 1.0, 3.0])
    answer = answers.at(at)
    assert answer is not None
    assert answer.value == pytest.approx(2.5)
    made = policies.add(at, answer)
    assert made is not None
    family, _ = made
    for x, inside in ((3.0, True), (2.5, True), (4.5, False), (1.5, False)):
        for worse in (0.1, -0.1):
            worth = 0.5 * x + 1.0 + worse  # as y with z = 0, whose bounds the set does not ask about
            numbers, _ = family.holding(np.array([x, worth, 0.0]), 1)
            assert bool(len(numbers)) == (inside and worse > 0)


def test_interdiction_rows_hold_at_every_bilevel_feasible_point() -> None:
    model = interdicted(3)
    f = model.followers[0]
    forbids = forbidders(model, f)
    assert forbids is not None
    assert forbids.tolist() == [0, 1, 2, 3, 4, 5]
    answers = Answers(f, no_limit)
    rows = Interdiction(model, f, forbids, answers, no_limit)
    feasible: list[np.ndarray] = []
    for x in itertools.product((0.0, 1.0), repeat=6):
        answer = answers.solve(np.array(x))
        assert answer is not None
        feasible.append(np.concatenate([x, answer.y]))
        rows.add(answer.y)
        guess = rows.find(np.concatenate([np.array(x) / 2, answer.y]))
        assert guess is not None
        rows.add(guess)
    assert all(rows.violated(v) is None for v in feasible)
    assert rows.violated(np.zeros(12)) is not None


def test_no_interdiction_where_more_than_items_are_forbidden() -> None:
    assert all(forbidders(m, m.followers[0]) is None for m in (build(random_program(s)) for s in range(10)))


@pytest.mark.parametrize("seed", range(6))
def test_children_take_a_node_apart_without_its_point(seed: int) -> None:
    """Each integer point outside the set is in exactly one child; the points inside it are in none."""
    model = build(random_program(seed))
    f = model.followers[0]
    sets, answers = Solutions(model, f), Answers(f, no_limit)
    answer = next((a for x in range(4) if (a := answers.at(np.full(model.size, float(x)))) is not None), None)
    if answer is None:
        pytest.skip("no answer at the points tried")
    sets.add(answer.y)
    limits = sets.limits(answer.y)
    children = by_set(sets.family, limits, model.lower, model.upper)
    grid = [range(int(a), int(b) + 1) for a, b in zip(model.lower, model.upper, strict=True)]
    for point in itertools.product(*grid):
        values = np.array(point, dtype=float)
        inside = len(sets.family.holding(values, 1)[0]) > 0
        homes = sum(all(low <= a @ values <= up for a, low, up in child.rows) for child in children)
        assert homes == (0 if inside else 1)


def test_linking_columns_are_taken_apart() -> None:
    lower, upper, linking = np.zeros(3), np.array([2.0, 3.0, 5.0]), np.array([0, 1])
    values = np.array([1.0, 3.0, 4.0])
    children = around(linking, values, lower, upper, None)
    for x in itertools.product(range(3), range(4)):
        point = np.array([*x, 4.0], dtype=float)
        homes = sum(all(low <= a @ point <= up for a, low, up in c.rows) for c in children)
        assert homes == (0 if x == (1, 3) else 1)
    assert len(one_column(linking, values, lower, upper)) == 2  # nothing is above the upper bound
    assert one_column(linking, values, values, values) == []


def test_a_program_solved_again_with_other_limits() -> None:
    m = Mip(
        np.array([-2.0, -3.0]),
        sp.csr_matrix(np.array([[2.0, 3.0]])),
        np.array([-INF]),
        np.array([7.0]),
        np.zeros(2),
        np.full(2, 5.0),
        np.ones(2, dtype=bool),
        no_limit,
    )
    assert m.solve().objective == pytest.approx(-7.0)
    m.limits(np.array([-INF]), np.array([1.0]))
    assert m.solve().objective == pytest.approx(0.0)
    m.limits(np.array([9.0]), np.array([9.5]))
    m.bounds(np.zeros(2), np.array([5.0, 1.0]))
    assert m.solve().objective == pytest.approx(-9.0)
    m.costs(np.array([1.0, 0.0]))
    assert m.solve().objective == pytest.approx(3.0)
