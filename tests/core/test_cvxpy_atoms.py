"""Every atom's translation against CVXPY's own value, and programs as text."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.errors import ModelError

Y = (0.7, 1.6, 0.4)
A = np.array([[1.0, -2.0, 0.5], [0.3, 0.4, -1.0]])
P = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]])

CONVEX: dict[str, Callable[[Any, Any], Any]] = {
    "affine": lambda y, p: (
        cp.sum(cp.multiply(p, y)) + cp.trace(cp.reshape(y[:2], (1, 2), order="F") @ np.eye(2)[:, :1])
    ),
    "convolution": lambda y, p: (
        cp.sum(cp.convolve(np.array([1.0, 2.0]), y)) + cp.cumsum(y)[1] + cp.sum(cp.cumsum(cp.vstack([y, p]), axis=1))
    ),
    "squares": lambda y, p: cp.sum_squares(A @ y - 1.0) + p[0] * cp.square(y[1]),
    "quadratic form": lambda y, p: cp.quad_form(y - p, P),
    "quotient": lambda y, p: cp.quad_over_lin(y - p, 2.0),
    "quotient of variables": lambda y, p: cp.quad_over_lin(y[:2], y[2]),
    "powers": lambda y, p: cp.sum(cp.power(y, 3)) + cp.power(y[0], 1.5) + cp.inv_pos(y[1]) + cp.power(y[2], 4),
    "root": lambda y, p: -cp.sqrt(y[0]) - cp.geo_mean(y),
    "exponential": lambda y, p: cp.exp(y[0] + p[1]) + cp.logistic(y[1]) + cp.log_sum_exp(A @ y),
    "logarithm": lambda y, p: -cp.log(y[0] + 1.0) - cp.log1p(y[1]) - cp.sum(cp.entr(y)),
    "divergence": lambda y, p: cp.sum(cp.kl_div(y, np.array([1.0, 2.0, 3.0]))) + cp.rel_entr(y[0], y[1]),
    "absolute": lambda y, p: cp.norm1(A @ y - p[:2]) + cp.abs(y[0] - 2.0),
    "largest": lambda y, p: cp.max(A @ y) + cp.maximum(y[0], y[1], p[0]) + cp.sum(cp.pos(1.0 - y)) + cp.norm_inf(y),
    "smallest": lambda y, p: -cp.min(A @ y) - cp.sum(cp.minimum(y, 1.0)) + cp.sum(cp.neg(A @ y)),
    "largest by rows": lambda y, p: cp.sum(cp.max(cp.vstack([y, 2.0 - y, p]), axis=0)),
    "norms": lambda y, p: cp.norm(A @ y - 3.0, 2) + cp.norm(cp.vstack([y, p]), "fro"),
    "norms by columns": lambda y, p: cp.mixed_norm(cp.vstack([y, p]), 2, 1),
    "huber": lambda y, p: cp.sum(cp.huber(y - p, 0.5)),
    "largest sum": lambda y, p: cp.sum_largest(A @ y, 1) + cp.sum_largest(y, 2),
    "nested": lambda y, p: cp.square(cp.pos(cp.abs(y[0] - 2.0) + y[1])) + cp.exp(cp.norm(y, 2)),
    "total variation": lambda y, p: cp.tv(y) + 0.5 * cp.tv(cp.vstack([y, p])),
    "scaled": lambda y, p: p[2] * cp.norm1(y - 1.0) + cp.sum(cp.multiply([1.0, 2.0, 0.0], cp.abs(y))),
}


def made(convex: Callable[[Any, Any], Any]) -> bl.CvxpyProblem:
    x, y = cp.Variable(3, name="x", nonneg=True), cp.Variable(3, name="y", bounds=[0.1, 5.0])
    p = cp.Parameter(3, name="p", nonneg=True)
    return bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.sum(y))), cp.Problem(cp.Minimize(convex(y, p)), [p[0] <= 10]), {p: x}
    )


@pytest.mark.parametrize("name", CONVEX)
def test_the_program_says_what_cvxpy_says(name: str) -> None:
    problem = made(CONVEX[name])
    program = problem.program()
    rng = np.random.default_rng(11)
    for _ in range(3):
        y, p = rng.uniform(0.2, 2.0, 3), rng.uniform(0.0, 1.0, 3)
        values = problem.vector({"x": p}, {"y": y})
        assert np.isfinite(values).all()
        told = problem.evaluate(values)
        (follower,) = program.followers
        exact = 1e-6 if name == "largest sum" else 1e-9  # auxiliary variables by a small program
        assert follower.objective.evaluate(values) == pytest.approx(told.lower_objectives[0], rel=exact, abs=exact)
        for row in follower.rows:
            assert row.violation(values) <= exact, row.name


@pytest.mark.parametrize("name", [n for n in CONVEX if n != "divergence"])  # nothing hidden there, and slow
def test_hidden_columns_are_as_tight_as_a_solver_makes_them(name: str) -> None:
    """The follower's optimum in our form is CVXPY's."""
    problem = made(CONVEX[name])
    p = next(iter(problem.leader))
    p.value = np.array([0.3, 0.6, 0.2])
    lower = problem.lowers[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quad_form(y - p, P) is compiled anew by CVXPY; we read it all the same
        lower.solve(solver=cp.CLARABEL)
    y = lower.variables()[0].value
    certificate = bl.verify(problem, {"x": p.value}, {"y": np.maximum(y, 0.1)})
    assert certificate.lower_value == pytest.approx(lower.value, abs=2e-5, rel=2e-5), certificate.reason


@pytest.mark.parametrize("name", CONVEX)
def test_concave_atoms_are_read_when_maximised(name: str) -> None:
    x, y = cp.Variable(3, name="x", nonneg=True), cp.Variable(3, name="y", bounds=[0.1, 5.0])
    p = cp.Parameter(3, name="p", nonneg=True)
    lower = cp.Problem(cp.Maximize(-CONVEX[name](y, p)), [p[0] <= 10])
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.sum(y))), lower, {p: x})
    values = problem.vector({"x": [0.5, 0.5, 0.5]}, {"y": Y})
    (follower,) = problem.program().followers
    assert -follower.objective.evaluate(values) == pytest.approx(problem.evaluate(values).lower_objectives[0], rel=1e-6)


def test_hidden_columns_are_hidden_and_completed() -> None:
    problem = made(CONVEX["absolute"])
    hidden = problem.hidden_columns()
    assert len(hidden) == 3
    values = problem.vector({"x": [0.0, 1.0, 0.0]}, {"y": Y})
    x, y = problem.point(values)
    assert set(x) == {"x"}
    assert set(y) == {"y"}
    assert values[sorted(hidden)[-1]] == pytest.approx(1.3)  # |0.7 - 2|


def test_a_linear_program_as_text() -> None:
    x, y = cp.Variable(name="x", nonneg=True), cp.Variable(2, name="y")
    p = cp.Parameter(name="p")
    lower = cp.Problem(cp.Maximize(y[0] - cp.abs(y[1] - p)), [p * y[0] + y[1] <= 4, y >= -1, cp.abs(y[0]) <= 3 * p])
    text = bl.CvxpyProblem(cp.Problem(cp.Minimize(x + y[1]), [x <= 5]), lower, leader={p: x}).program().text()
    assert text.splitlines() == [
        "leader: minimise x + y[1]",
        "  x in [0, 5] real",
        "follower: minimise (user: maximise) -y[0] + follower:abs_1",
        "  follower:abs_2: -x + y[1] - follower:abs_1 <= 0",
        "  follower:abs_3: x - y[1] - follower:abs_1 <= 0",
        "  follower.c1: y[1] + x*y[0] <= 4",
        "  follower.c3[0]: -3 x + y[0] <= 0",
        "  follower.c3[1]: -3 x - y[0] <= 0",
        "  y[0] in [-1, inf] real",
        "  y[1] in [-1, inf] real",
        "  follower:abs_1 in [-inf, inf] real",
    ]


def test_cones_as_text() -> None:
    """A radius that the leader decides makes a convex quadratic row; one of the follower's a cone."""
    x, y = cp.Variable(name="x", nonneg=True), cp.Variable(3, name="y")
    p = cp.Parameter(name="p")
    rows = [
        cp.norm(y[:2], 2) <= p,
        cp.norm(y[:2], 2) <= y[2],
        cp.sum_squares(y) <= 3,
        cp.quad_over_lin(y[0], y[2]) <= p,
    ]
    lower = cp.Problem(cp.Minimize(y[2]), rows)
    program = bl.CvxpyProblem(cp.Problem(cp.Minimize(x)), lower, leader={p: x}).program()
    text = [line.strip() for line in program.text().splitlines()]
    assert text[text.index("follower: minimise y[2]") + 1 : text.index("y[0] in [-inf, inf] real")] == [
        "follower.c1: -x^2 + y[0]^2 + y[1]^2 <= 0",
        "follower.c1:bound: -x <= 0",
        "follower.c2: -y[2] + (y[0]^2 + y[1]^2)^0.5 <= 0",
        "follower.c3: y[0]^2 + y[1]^2 + y[2]^2 <= 3",
        "follower:quad_over_lin_2:0: y[2] + follower:quad_over_lin_1 - follower:cone_3 = 0",
        "follower:quad_over_lin_2:1: 2 y[0] - follower:cone_4 = 0",
        "follower:quad_over_lin_2:2: -y[2] + follower:quad_over_lin_1 - follower:cone_5 = 0",
        "follower:quad_over_lin_2: -follower:cone_3 + (follower:cone_4^2 + follower:cone_5^2)^0.5 <= 0",
        "follower.c4: -x + follower:quad_over_lin_1 <= 0",
    ]


def test_labels_name_rows() -> None:
    x, y, p = cp.Variable(name="x"), cp.Variable(name="y"), cp.Parameter(name="p")
    row = y + p <= 3
    row.label = "capacity"
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(x)), cp.Problem(cp.Maximize(y), [row]), leader={p: x})
    assert problem.program().followers[0].rows[0].name == "capacity"
    assert "capacity" in {name for name, _, _ in problem.evaluate(np.zeros(2)).lower}


def capped(*labels: str) -> bl.CvxpyProblem:
    """The follower takes as much as its cap of 5 and x allow; the leader wants 1."""
    x, y, p = cp.Variable(name="x", bounds=[0, 9]), cp.Variable(name="y"), cp.Parameter(name="p")
    rows = [y <= 5, y <= p]
    for row, label in zip(rows, labels, strict=False):
        row.label = label
    return bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.square(y - 1))), cp.Problem(cp.Maximize(y), rows), leader={p: x})


def test_a_labelled_row_on_one_variable_stays_a_row() -> None:
    assert [row.name for row in capped().program().followers[0].rows] == ["follower.c2"]
    problem = capped("cap")
    assert [row.name for row in problem.program().followers[0].rows] == ["cap", "follower.c2"]
    result = bl.solve(problem, solver="kkt", options={"modes": {"cap": "indicator"}})
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(0.0, abs=1e-8)


def test_a_labelled_row_of_the_leaders_still_bounds_its_variable() -> None:
    x, y, p = cp.Variable(name="x"), cp.Variable(name="y"), cp.Parameter(nonneg=True, name="p")
    row = x >= 0
    row.label = "sign"
    program = bl.CvxpyProblem(cp.Problem(cp.Minimize(x), [row]), cp.Problem(cp.Minimize(y), [y >= p]), {p: x}).program()
    assert program.columns[0].lower == 0.0
    assert [r.name for r in program.leader.rows] == ["sign"]


def test_two_rows_with_one_name_are_refused() -> None:
    with pytest.raises(ModelError, match="Two constraints are called 'cap'"):
        capped("cap", "cap")
    with pytest.raises(ModelError, match=r"Two constraints are called 'follower\.c2'"):
        capped("follower.c2")


def test_a_forgotten_mapping_is_told() -> None:
    x, y = cp.Variable(name="x"), cp.Variable(name="y")
    with pytest.raises(ModelError, match=r"leader decides nothing.*'x', 'y'.*leader=\{p: x\}"):
        bl.CvxpyProblem(cp.Problem(cp.Minimize(x - 2 * y)), cp.Problem(cp.Minimize(y), [y >= x]))


def test_domains_of_logarithms_bound_variables() -> None:
    """max entr(y0) + entr(y1) - y0 over y0 + y1 = x: y0 = x / (1 + e); the leader: (y0 - 0.7)^2 + 0.1 x."""
    x, y, p = cp.Variable(name="x", bounds=[0.5, 3]), cp.Variable(2, name="y"), cp.Parameter(name="p")
    lower = cp.Problem(cp.Maximize(cp.sum(cp.entr(y)) - y[0] + cp.log1p(y[1])), [cp.sum(y) == p])
    program = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.square(y[0] - 0.7) + 0.1 * x)), lower, leader={p: x}).program()
    assert [(c.name, c.lower) for c in program.columns] == [("x", 0.5), ("y[0]", 0.0), ("y[1]", 0.0)]
    assert [r.name for r in program.followers[0].rows] == ["follower.c1"]
    # A leader's logarithm of an answer is no constraint of anybody's.
    upper = cp.Problem(cp.Maximize(cp.log(y[0] + 1) + cp.log(y[1])))
    program = bl.CvxpyProblem(upper, cp.Problem(cp.Minimize(cp.sum_squares(y - p))), leader={p: x}).program()
    assert not program.leader.rows
    assert program.columns[2].lower == -np.inf


def test_hidden_columns_are_bounded_by_their_pieces() -> None:
    x, p = cp.Variable(name="x", bounds=[0, 2]), cp.Parameter(name="p")
    y = cp.Variable(2, name="y", bounds=[-2, 3])
    f = cp.sum(cp.abs(y - p)) + cp.norm_inf(y) + cp.sum(cp.huber(y, 1)) - cp.min(y)
    problem = bl.CvxpyProblem(
        cp.Problem(cp.Minimize(cp.sum(y))), cp.Problem(cp.Minimize(f), [y[0] + y[1] >= p]), leader={p: x}
    )
    program = problem.program()
    for i in problem.hidden_columns():
        c = program.columns[i]
        assert np.isfinite(c.lower if "min" in c.name else c.upper), c.name
    rng = np.random.default_rng(5)
    for _ in range(20):
        values = problem.vector({"x": rng.uniform(0, 2)}, {"y": rng.uniform(-2, 3, 2)})
        for i in problem.hidden_columns():
            assert program.columns[i].lower < values[i] < program.columns[i].upper


@pytest.mark.parametrize("atom", [cp.norm1, cp.norm_inf, lambda e: cp.sum(cp.huber(e, 1)), cp.max])
def test_bounds_of_slacks_beside_hidden_columns_are_proven(atom: Any) -> None:
    x, p = cp.Variable(name="x", bounds=[0, 2]), cp.Parameter(name="p")
    y = cp.Variable(2, name="y", bounds=[-2, 3])
    lower = cp.Problem(cp.Minimize(atom(y)), [y[0] + y[1] >= p])
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.sum(y) + x)), lower, leader={p: x})
    result = bl.solve(problem, solver="kkt", options={"complementarity": "bigm"})
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(0.0, abs=1e-6)


def test_attributes_of_variables() -> None:
    x = cp.Variable((2, 2), name="x", symmetric=True)
    b = cp.Variable(2, name="b", boolean=True)
    k = cp.Variable(2, name="k", integer=[(1,)], nonpos=True, bounds=[-2.5, None])
    y, p = cp.Variable(name="y"), cp.Parameter((2, 2), name="p")
    lower = cp.Problem(cp.Minimize(cp.square(y - cp.sum(p))))
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.sum(b) + cp.sum(k) + y)), lower, leader={p: x})
    program = problem.program()
    shown = {c.name: (c.lower, c.upper, c.integer) for c in program.columns}
    assert shown["b[0]"] == (0.0, 1.0, True)
    assert shown["k[0]"] == (-2.5, 0.0, False)
    assert shown["k[1]"] == (-2.0, 0.0, True)
    assert [n for n in shown if n.startswith("x")] == ["x[0,0]", "x[0,1]", "x[1,1]"]
    values = problem.vector({"x": [[1, 2], [2, 3]], "b": [0, 1], "k": [0, -1]}, {"y": 8.0})
    assert problem.evaluate(values).lower_objectives == (0.0,)
    assert problem.point(values)[0]["x"] == pytest.approx(np.array([[1, 2], [2, 3]]))
    with pytest.raises(bl.UsageError, match="entries that are one and the same variable differ"):
        problem.vector({"x": [[1, 2], [5, 3]], "b": [0, 1], "k": [0, -1]}, {"y": 8.0})


def test_cones_that_the_user_writes() -> None:
    x, y, p = cp.Variable(name="x"), cp.Variable(3, name="y"), cp.Parameter(name="p")
    z = cp.Variable((2, 2), name="z", PSD=True)
    rows = [cp.SOC(y[2], y[:2] - p), cp.ExpCone(y[0], cp.Constant(1.0), y[1]), cp.bmat([[y[0], p], [p, y[1]]]) >> 0]
    lower = cp.Problem(cp.Minimize(cp.sum(y) + cp.trace(z)), rows)
    problem = bl.CvxpyProblem(cp.Problem(cp.Minimize(x)), lower, leader={p: x})

    def violated(y0: float, y1: float, y2: float, entries: Any = ((1, 0), (0, 1))) -> set[str]:
        values = problem.vector({"x": 1.0}, {"y": [y0, y1, y2], "z": entries})
        told = {name.split("[")[0] for name, violation, _ in problem.evaluate(values).lower if violation > 1e-9}
        ours = {
            row.name.split(":")[0].split("[")[0]
            for row in problem.program().followers[0].rows
            if row.violation(values) > 1e-9
        }
        assert told == ours
        return told

    assert violated(1.0, 3.0, 2.0) == set()
    assert violated(1.0, 3.0, 1.9) == {"follower.c1"}
    assert violated(1.0, 2.0, 2.0) == {"follower.c2"}
    assert violated(0.4, 2.0, 2.0) == {"follower.c3"}
    assert violated(1.0, 3.0, 2.0, ((1, 2), (2, 1))) == {"z semidefinite"}


def test_exact_values_where_no_epigraph_is_possible() -> None:
    """The leader maximises a distance: |.| is then no epigraph but a value."""
    x, y, p = cp.Variable(name="x", bounds=[-1, 2]), cp.Variable(name="y"), cp.Parameter(name="p")
    upper = cp.Problem(cp.Maximize(cp.abs(y) + cp.maximum(x, 0.5 * y) + cp.norm(cp.hstack([x, y]), 2)))
    problem = bl.CvxpyProblem(upper, cp.Problem(cp.Minimize(cp.square(y - p))), leader={p: x})
    assert not problem.hidden_columns()
    values = problem.vector({"x": -3.0}, {"y": -4.0})
    assert problem.program().leader.objective.evaluate(values) == pytest.approx(-(4.0 - 2.0 + 5.0))


def test_large_linear_followers_are_read_quickly_enough_to_be_read_at_all() -> None:
    """Coefficients come from one sparse matrix, not from walking 100,000 terms."""
    rng = np.random.default_rng(0)
    matrix = np.where(rng.random((400, 200)) < 0.05, rng.normal(size=(400, 200)), 0.0)
    x, y, p = cp.Variable(5, name="x"), cp.Variable(200, name="y"), cp.Parameter(5, name="p")
    lower = cp.Problem(cp.Minimize(cp.sum(y)), [matrix @ y <= 1 + np.ones((400, 5)) @ p, y >= -1])
    program = bl.CvxpyProblem(cp.Problem(cp.Minimize(cp.sum(x))), lower, leader={p: x}).program()
    rows = program.followers[0].rows
    assert len(rows) == 400
    assert sum(len(r.function.linear) for r in rows) == np.count_nonzero(matrix) + 5 * 400
    values = rng.normal(size=205)
    assert rows[7].function.evaluate(values) == pytest.approx(matrix[7] @ values[5:] - values[:5].sum())


X, Z, Q = cp.Variable(name="x"), cp.Variable(3, name="z"), cp.Parameter(name="q")
S, R = cp.Variable((3, 3), name="s", symmetric=True), cp.Parameter(name="r", nonneg=True)
BARE = cp.Minimize(X)


def refusal(upper: Any, lower: Any, leader: Any) -> str:
    with pytest.raises(ModelError) as caught:
        bl.CvxpyProblem(upper, lower, leader)
    return str(caught.value)


@pytest.mark.parametrize(
    ("objective", "rows", "said"),
    [
        (cp.Minimize(cp.sqrt(Z[0])), [], ["The objective of 'follower'", "not DCP", "(z[0], 0.5)"]),
        (cp.Minimize(Z[0]), [cp.square(Z[1]) >= Q], ["Constraint 'follower.c1'", "not DCP"]),
        (cp.Minimize(Z[0]), [cp.square(Z[1]) == Q], ["Constraint 'follower.c1'", "affine was expected"]),
        (cp.Minimize(Q * Q * Z[0]), [], ["is convex for fixed parameters, but not DPP", "part at fault is q"]),
        (cp.Minimize(Z[0]), [S >> 0], ["follower.c1", "semidefinite", "more than two rows"]),
        (cp.Minimize(cp.lambda_max(S) + Z[0]), [], ["the objective of 'follower'", "lambda_max", "PSD"]),
        (cp.Minimize(cp.normNuc(S) + Z[0]), [], ["normNuc", "PSD"]),
        (cp.Minimize(Z[0] * cp.Parameter(name="weight")), [], ["'weight'", "no value"]),
    ],
)
def test_followers_that_are_refused(objective: Any, rows: list[Any], said: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY's own remarks on these
        text = refusal(cp.Problem(BARE), cp.Problem(objective, [*rows, Z[2] == Q]), {Q: X})
    for part in said:
        assert part in text


def test_other_refusals() -> None:
    follower = cp.Problem(cp.Minimize(cp.square(Z[0] - Q)))
    upper = cp.Problem(BARE)
    weighted = cp.Problem(cp.Minimize(R * cp.square(Z[0])))
    assert "declared to be at least 0" in refusal(upper, weighted, {R: X})
    twin = cp.Variable(name="x")
    assert "Two variables are called 'x'" in refusal(cp.Problem(cp.Minimize(X + twin)), follower, {Q: X})
    assert "stands in none of the problems" in refusal(upper, follower, {Q: X, R: X})
    assert "its variable: use the parameter" in refusal(upper, cp.Problem(cp.Minimize(Z[0] + Q * Z[1])), {Q: Z[1]})
    assert "has shape ()" in refusal(upper, follower, {Q: Z})
    assert "not affine" in refusal(upper, follower, {Q: cp.square(X)})
    assert "is no cvxpy.Parameter" in refusal(upper, follower, {X: X})
    assert "Expected a cvxpy.Problem for lower" in refusal(upper, Z[0], {Q: X})
    assert "no follower" in refusal(upper, [], {})
    assert "'z' stands in 'follower1' and in 'follower2'" in refusal(upper, [follower, follower], {Q: X})
    maximise = cp.Problem(cp.Maximize(cp.sum_largest(Z, 2)))
    text = refusal(maximise, follower, {Q: X})
    assert "the objective of 'leader'" in text
    assert "sum_largest" in text
    complex_one = cp.Problem(cp.Minimize(cp.real(cp.Variable(name="c", complex=True)) + cp.square(Z[0] - Q)))
    assert "'c' is declared complex" in refusal(upper, complex_one, {Q: X})


def test_one_cvxpy_problem_is_not_two() -> None:
    with pytest.raises(bl.UsageError, match="bilevel problem has two"):
        bl.solve(cp.Problem(BARE))


def test_a_sign_may_come_from_a_constraint_of_the_leaders() -> None:
    problem = bl.CvxpyProblem(
        cp.Problem(BARE, [2 * X >= 1, X <= 3]), cp.Problem(cp.Minimize(R * cp.square(Z[0]))), {R: X}
    )
    assert problem.program().columns[0].lower == pytest.approx(0.5)
