"""CvxpyProblem: optima known by hand, or by brute force over the leader's variable with CVXPY solving the follower."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevel_core as bl


def brute(problem: bl.CvxpyProblem, x: Any, grid: Sequence[Any]) -> tuple[float, Any]:
    """The leader's best value over a grid of its variable, every follower answering with its (unique) optimum."""
    best: tuple[float, Any] = (np.inf, None)
    sign = -1.0 if isinstance(problem.upper.objective, cp.Maximize) else 1.0
    for value in grid:
        x.value = value
        for parameter, expression in problem.leader.items():
            parameter.value = expression.value
        for lower in problem.lowers:
            lower.solve(solver=cp.CLARABEL)
        found = sign * float(problem.upper.objective.args[0].value)
        if found < best[0]:
            best = (found, value)
    return sign * best[0], best[1]


def bard(**more: Any) -> bl.CvxpyProblem:
    """Bard (1998), example 5.1.1: optimum -12 at (4, 4)."""
    x, y = cp.Variable(nonneg=True, name="x"), cp.Variable(nonneg=True, name="y")
    p = cp.Parameter(name="p")
    rows = [p + y >= 3, y <= 2 * p, 2 * p + y <= 12, 3 * p - 2 * y <= 4]
    return bl.CvxpyProblem(
        cp.Problem(cp.Minimize(x - 4 * y)), cp.Problem(cp.Minimize(y), rows), leader={p: x}, name="bard", **more
    )


def check(problem: bl.CvxpyProblem, value: float, *, tolerance: float = 1e-5, **how: Any) -> bl.Result:
    """Solve, and compare the leader's value and the verdict."""
    result = bl.solve(problem, **how)
    assert result.certificate is not None
    assert result.certificate.verdict == "verified", result.certificate.reason
    assert result.upper_objective == pytest.approx(value, abs=tolerance)
    return result


def test_a_linear_follower() -> None:
    result = check(bard(), -12.0)
    assert result.status == "optimal"
    assert result.x["x"] == pytest.approx(4.0)
    assert result.y["y"] == pytest.approx(4.0)
    assert result.lower_objective == pytest.approx(4.0)


def test_maximising_levels_report_in_their_own_sense() -> None:
    x, y, p = cp.Variable(name="x", bounds=[0, 3]), cp.Variable(name="y"), cp.Parameter(name="p")
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Maximize(y - x)), cp.Problem(cp.Maximize(-cp.square(y - 2 * p)), [y <= 4]), leader={p: x}
    )
    result = check(problem, 2.0)  # y = min(2 x, 4)
    assert result.x["x"] == pytest.approx(2.0, abs=1e-4)
    assert result.lower_objective == pytest.approx(0.0, abs=1e-6)


def test_a_quadratic_follower() -> None:
    """Bard (1988), example 1: optimum 17 at (1, 0)."""
    x, y, p = cp.Variable(nonneg=True, name="x"), cp.Variable(nonneg=True, name="y"), cp.Parameter(name="p")
    lower = cp.Problem(cp.Minimize(cp.square(y - 1) - 1.5 * p * y), [-3 * p + y <= -3, p - 0.5 * y <= 4, p + y <= 7])
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.square(x - 5) + cp.square(2 * y + 1))), lower, leader={p: x})
    result = check(problem, 17.0)
    assert result.status == "optimal"
    assert result.x["x"] == pytest.approx(1.0, abs=1e-5)


def ridge() -> tuple[bl.CvxpyProblem, Any]:
    """The leader chooses the weight of a ridge regression by its error on other data."""
    rng = np.random.default_rng(3)
    true = np.array([1.0, -2.0])
    train, test = rng.normal(size=(6, 2)), rng.normal(size=(12, 2))
    noisy, clean = train @ true + 1.5 * rng.normal(size=6), test @ true
    weight, w = cp.Variable(name="weight", bounds=[1e-3, 20.0]), cp.Variable(2, name="w")
    lam = cp.Parameter(nonneg=True, name="lam")
    lower = cp.Problem(cp.Minimize(cp.sum_squares(train @ w - noisy) + lam * cp.sum_squares(w)))
    upper = cp.Problem(cp.Minimize(cp.sum_squares(test @ w - clean)))
    return bl.CvxpyProblem(upper, lower, leader={lam: weight}, name="ridge"), weight


@pytest.mark.parametrize("solver", ["hypergradient", "kkt"])
def test_ridge_regression(solver: str) -> None:
    problem, weight = ridge()
    value, where = brute(problem, weight, np.linspace(1e-3, 20.0, 201))
    assert 1e-3 < where < 20.0
    result = bl.solve(problem, solver=solver)
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    assert result.upper_objective <= value + 1e-6
    assert result.upper_objective >= value - 0.01
    assert result.x["weight"] == pytest.approx(where, abs=0.2)
    assert result.y["w"].shape == (2,)


def kinked() -> tuple[bl.CvxpyProblem, Any]:
    """A follower with a norm1, a largest entry, a positive part and an absolute value."""
    x, y, p = cp.Variable(name="x", bounds=[-2, 2]), cp.Variable(2, name="y"), cp.Parameter(name="p")
    goal = cp.norm1(y - cp.hstack([p, 1.0])) + 0.7 * cp.max(y) + 0.6 * cp.pos(y[0] - 1) + 0.01 * cp.sum_squares(y)
    lower = cp.Problem(cp.Minimize(goal), [cp.abs(y) <= 1.5, cp.norm_inf(y - 1) <= 2])
    upper = cp.Problem(cp.Minimize(cp.square(x - 1.4) + cp.abs(y[0] - 1) - 0.5 * cp.multiply(x, y[1])))
    return bl.CvxpyProblem(upper, lower, leader={p: x}), x


def test_a_follower_with_kinks() -> None:
    problem, x = kinked()
    value, where = brute(problem, x, np.linspace(-2.0, 2.0, 401))
    result = bl.solve(problem)
    assert result.status == "optimal"
    assert value - 0.01 < result.upper_objective <= value + 1e-5
    assert result.x["x"] == pytest.approx(where, abs=0.02)
    assert set(result.x) == {"x"}  # the epigraphs' columns are nobody's answer
    assert set(result.y) == {"y"}


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_a_point_beside_the_answer_is_refuted(shift: float) -> None:
    problem, x = kinked()
    brute(problem, x, [1.0])
    y = problem.lowers[0].variables()[0].value
    assert bl.verify(problem, {"x": 1.0}, {"y": y}).verdict == "verified"
    assert bl.verify(problem, {"x": 1.0}, {"y": y + np.array([0.0, shift])}).verdict == "refuted"


def test_a_quadratic_constraint_from_a_norm() -> None:
    """The follower maximises y0 + y1 on a disc of the leader's radius; the leader pays for the radius."""
    r, y, p = cp.Variable(name="r", bounds=[0, 3]), cp.Variable(2, name="y"), cp.Parameter(nonneg=True, name="p")
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.square(y[0] - 1) + cp.square(y[1] - 1) + 0.1 * r)),
        cp.Problem(cp.Maximize(y[0] + y[1]), [cp.norm(y, 2) <= p]),
        leader={p: r},
    )
    # y = r / sqrt 2 (1, 1):  2 (r / sqrt 2 - 1)^2 + 0.1 r is least at r = sqrt 2 - 0.05
    radius = np.sqrt(2.0) - 0.05
    result = check(problem, 2.0 * (radius / np.sqrt(2.0) - 1.0) ** 2 + 0.1 * radius)
    assert result.x["r"] == pytest.approx(radius, abs=1e-3)


def test_an_exponential_follower() -> None:
    """exp(y) - p y is least at log p, and the bound cuts that off at y = 0.5."""
    x, y, p = cp.Variable(name="x", bounds=[0.5, 3]), cp.Variable(name="y"), cp.Parameter(name="p")
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.square(y - 0.25) + 0.1 * x)),
        cp.Problem(cp.Minimize(cp.exp(y) - p * y), [y <= 0.5]),
        leader={p: x},
    )
    value = min((np.log(v) - 0.25) ** 2 + 0.1 * v for v in np.linspace(0.5, 1.6, 100_001))
    check(problem, value)
    assert bl.verify(problem, {"x": 1.0}, {"y": 0.0}).verdict == "verified"
    assert bl.verify(problem, {"x": 1.0}, {"y": 0.05}).verdict == "refuted"


def test_a_logarithm_in_a_constraint() -> None:
    """The follower buys as little as its utility allows: log y >= p, so y = exp(p)."""
    x, y, p = cp.Variable(name="x", bounds=[-1, 1]), cp.Variable(name="y", bounds=[0.1, 10]), cp.Parameter(name="p")
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.square(y - 2))), cp.Problem(cp.Minimize(y), [cp.log(y) >= p]), leader={p: x}
    )
    result = check(problem, 0.0)
    assert result.x["x"] == pytest.approx(np.log(2.0), abs=1e-3)


def test_two_followers_that_the_leader_ties_together() -> None:
    """Each follower takes the nearest point to its price within its bounds; together they may take 1.2 at most."""
    price = cp.Variable(2, name="price", bounds=[0, 2])
    a, b = cp.Variable(name="a", bounds=[0, 1]), cp.Variable(name="b", bounds=[0, 1])
    p, q = cp.Parameter(name="p"), cp.Parameter(name="q")
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Maximize(2 * a + b - 0.1 * cp.sum(price)), [a + b <= 1.2]),
        [cp.Problem(cp.Minimize(cp.square(a - p))), cp.Problem(cp.Minimize(cp.square(b - q)))],
        leader={p: price[0], q: price[1]},
    )
    result = check(problem, 2.0 + 0.2 - 0.12, tolerance=1e-4)
    assert result.x["price"] == pytest.approx([1.0, 0.2], abs=1e-3)
    assert len(result.lower_objective) == 2  # type: ignore[arg-type]


def test_a_game_between_followers() -> None:
    """Cournot with a tax: each follower sees the other through a parameter; at tax t both supply (12 - t) / 3."""
    t = cp.Variable(name="t", bounds=[0, 12])
    a, b = cp.Variable(name="a", bounds=[0, 12]), cp.Variable(name="b", bounds=[0, 12])
    tax_a, tax_b, seen_b, seen_a = (cp.Parameter(name=n) for n in ("tax_a", "tax_b", "seen_b", "seen_a"))
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Maximize(cp.multiply(t, a + b))),
        [
            cp.Problem(cp.Maximize(12 * a - cp.square(a) - seen_b * a - tax_a * a)),
            cp.Problem(cp.Maximize(12 * b - cp.square(b) - seen_a * b - tax_b * b)),
        ],
        leader={tax_a: t, tax_b: t, seen_b: b, seen_a: a},
    )
    assert problem.program().is_game
    result = bl.solve(problem)  # 2 t (12 - t) / 3 is greatest at t = 6
    assert result.upper_objective == pytest.approx(24.0, abs=1e-4)
    assert result.y["a"] == pytest.approx(2.0, abs=1e-3)


def test_vector_and_matrix_parameters() -> None:
    """The follower's costs are a matrix of the leader's; names and shapes come back as they were given."""
    cost = cp.Variable((2, 3), name="cost", bounds=[0.5, 2.0])
    flow = cp.Variable((2, 3), name="flow", nonneg=True)
    p = cp.Parameter((2, 3), name="p")
    supply, demand = np.array([3.0, 2.0]), np.array([1.0, 2.0, 2.0])
    base = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 4.0]])
    goal = cp.sum(cp.multiply(p + base, flow)) + 0.5 * cp.sum_squares(flow)
    lower = cp.Problem(cp.Minimize(goal), [cp.sum(flow, axis=1) == supply, cp.sum(flow, axis=0) == demand])
    problem = bl.CvxpyProblem(cp.Problem(cp.Maximize(flow[1, 2] - 0.1 * cp.sum(cost))), lower, leader={p: cost})
    result = bl.solve(problem)
    corners = [0.5, 2.0]  # points of the leader's box to beat, not all of them
    best, _ = brute(problem, cost, [np.reshape(c, (2, 3)) for c in product(corners, repeat=6)])
    assert result.status == "optimal"
    assert result.upper_objective >= best - 1e-5
    assert result.x["cost"].shape == (2, 3)
    cost.value = result.x["cost"]
    p.value = cost.value
    lower.solve(solver=cp.CLARABEL)
    assert result.y["flow"] == pytest.approx(flow.value, abs=1e-3)


def test_an_integer_leader() -> None:
    n = cp.Variable(2, name="n", integer=True, bounds=[0, 4])
    y, p = cp.Variable(2, name="y", bounds=[0, 3]), cp.Parameter(2, name="p")
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.sum_squares(y - np.array([1.3, 0.6])) + 0.2 * cp.sum(n))),
        cp.Problem(cp.Minimize(cp.sum_squares(y - 0.7 * p) + y[0] * 0.1), [cp.sum(y) <= 2]),
        leader={p: n},
    )
    value, where = brute(problem, n, [np.array(v, dtype=float) for v in product(range(5), repeat=2)])
    result = check(problem, value)
    assert result.x["n"] == pytest.approx(where)


def test_a_leader_that_is_not_convex() -> None:
    """Products and powers of the leader's stand anywhere, where CVXPY itself refuses them."""
    x, y, p = cp.Variable(name="x", bounds=[0, 4]), cp.Variable(name="y"), cp.Parameter(name="p")
    upper = cp.Problem(cp.Maximize(cp.multiply(x, y)), [cp.square(x) + y >= 1])
    assert not upper.is_dcp()
    problem = bl.CvxpyProblem(upper, cp.Problem(cp.Minimize(cp.square(y - (3 - p)))), leader={p: x})
    result = check(problem, 2.25)
    assert result.x["x"] == pytest.approx(1.5, abs=1e-3)


def test_constants_may_be_parameters() -> None:
    x, y = cp.Variable(name="x", bounds=[0, 1]), cp.Variable(name="y")
    p, level, exponent = cp.Parameter(name="p"), cp.Parameter(name="level", value=0.5), cp.Parameter(value=1.0)
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.square(y - level))),
        cp.Problem(cp.Minimize(cp.square(y - cp.exp(exponent) * level * p)), [y >= -level]),
        leader={p: x},
    )
    result = check(problem, 0.0)
    assert result.x["x"] == pytest.approx(np.exp(-1.0), abs=1e-3)
    level.value = 0.7  # changed behind the problem's back: nothing can be said any more
    assert bl.verify(problem, result).verdict == "unverifiable"


def test_values_are_put_back() -> None:
    problem = bard()
    x, (p,) = problem.upper.variables()[0], problem.leader
    x.value, p.value = 1.25, 7.0
    bl.verify(problem, {"x": 4.0}, {"y": 4.0})
    assert x.value == 1.25
    assert p.value == 7.0


def test_bounds_of_the_users_are_checked() -> None:
    assert bl.verify(bard(), {"x": 4.0}, {"y": 4.0}).verdict == "verified"
    certificate = bl.verify(bard(), {"x": -1.0}, {"y": 4.0})
    assert certificate.verdict == "refuted"
    assert certificate.upper_violation == pytest.approx(1.0)


def test_a_file_may_hold_one(tmp_path: Any) -> None:
    from bilevel_cli.reference import find_problem

    file = tmp_path / "model.py"
    file.write_text(
        "import cvxpy as cp, bilevel_core as bl\n"
        "def build(top: float = 2.0):\n"
        "    x, y, p = cp.Variable(name='x', bounds=[0, top]), cp.Variable(name='y'), cp.Parameter(name='p')\n"
        "    lower = cp.Problem(cp.Minimize(cp.abs(y - p)))\n"
        "    return bl.CvxpyProblem(cp.Problem(cp.Maximize(y)), lower, leader={p: x})\n"
    )
    check(find_problem(str(file), {"top": "3"}), 3.0)  # type: ignore[arg-type]
