"""Linear solvers: faults that other packages have, each with the test that would show it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse.linalg as reference

from bilevel_core import linear
from bilevel_core.errors import UsageError
from bilevel_core.linear import cg, fixed_point, minres

from .operators import Operator, check_direction, residual, symmetric, system

ITERATIVE = sorted(linear.METHODS)


# Conjugate gradients.


@pytest.mark.parametrize("method", ["cg", "minres", "nystrom"])
def test_one_step_solves_a_multiple_of_the_identity(method):
    solution = linear.solve(lambda v: 2 * v, np.array([-2.0, 4.0]), method, max_iterations=1)
    np.testing.assert_allclose(solution.value, [-1.0, 2.0], rtol=1e-14)
    assert solution.converged
    assert solution.iterations <= 1


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_n_eigenvalues_take_n_steps(method):
    # Holds only when each step uses the residual that the step before left.
    eigenvalues = np.repeat([1.0, 2.0, 5.0, 9.0], 10)
    operator = Operator(symmetric(eigenvalues))
    b = np.random.default_rng(3).normal(size=40)
    solution = linear.solve(operator, b, method, tolerance=1e-12)
    assert solution.converged
    assert solution.iterations == 4
    np.testing.assert_allclose(solution.value, np.linalg.solve(operator.matrix, b), rtol=1e-10)


@pytest.mark.parametrize(("ours", "theirs"), [(cg, reference.cg), (minres, reference.minres)])
def test_iterates_are_those_of_scipy(ours, theirs):
    operator, b, _ = system(50)
    for steps in (1, 2, 5, 9):
        expected, _ = theirs(operator.matrix, b, rtol=1e-15, maxiter=steps)
        np.testing.assert_allclose(ours(operator, b, max_iterations=steps, tolerance=0).value, expected, rtol=1e-9)


@pytest.mark.parametrize("condition", [1e6, 1e7, 1e8])
def test_no_worse_than_backward_stable_cg(condition):
    # Normal equations would square the condition and lose all digits at 1e8.
    operator, b, exact = system(condition)
    eps = np.finfo(float).eps
    theirs, _ = reference.cg(operator.matrix, b, rtol=1e-14, maxiter=5000)
    solution = cg(operator, b, tolerance=1e-14, max_iterations=5000)
    error = np.linalg.norm(solution.value - exact) / np.linalg.norm(exact)
    assert error <= max(2 * np.linalg.norm(theirs - exact) / np.linalg.norm(exact), 10 * condition * eps)
    assert error < 1e-6


@pytest.mark.parametrize("method", ["cg", "minres", "nystrom"])
def test_no_damping_leaves_a_floor(method):
    operator, b, _ = system(1e4)
    solution = linear.solve(operator, b, method, tolerance=1e-10)
    assert solution.converged
    assert residual(operator.matrix, b, solution.value) <= 1e-10


@pytest.mark.parametrize("method", ITERATIVE)
def test_residual_is_true_and_products_are_counted(method):
    operator, b, _ = system(1e3)
    limit = {"terms": 12} if method == "neumann" else {"max_iterations": 12}
    solution = linear.solve(operator, b, method, **limit)
    assert not solution.converged
    assert solution.message
    assert solution.iterations == 12
    assert solution.products == operator.products
    assert solution.residual == pytest.approx(residual(operator.matrix, b, solution.value), rel=1e-6)


def test_cg_error_falls_with_every_step():
    operator, b, exact = system(1e6)
    errors = [np.linalg.norm(cg(operator, b, max_iterations=k).value - exact) for k in range(0, 60, 3)]
    assert np.all(np.diff(errors) < 0)


@pytest.mark.parametrize("method", [*ITERATIVE, "dense"])
def test_zero_right_hand_side_takes_no_product(method):
    operator = Operator(symmetric([1.0, 2.0, 3.0]))
    if method == "dense":
        solution = linear.dense(operator.matrix, np.zeros(3))
    else:
        start = {} if method == "nystrom" else {"start": np.ones(3)}
        solution = linear.solve(operator, np.zeros(3), method, **start)
    assert solution.converged
    assert solution.residual == 0
    assert operator.products == solution.products == 0
    np.testing.assert_array_equal(solution.value, np.zeros(3))


# Not a number.


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ITERATIVE)
def test_a_bad_product_raises_and_names_the_product(method, bad):
    operator, b, _ = system(10, n=8)

    def product(v):
        out = operator(v)
        if operator.products == 3:
            out[2] = bad
        return out

    with pytest.raises(FloatingPointError, match=r"[Pp]roduct 3 with the linear operator"):
        linear.solve(product, b, method)


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_bad_right_hand_side_raises(method):
    with pytest.raises(linear.NonFiniteProductError, match="right-hand side"):
        linear.solve(lambda v: v, np.array([1.0, np.nan]), method)


def test_dense_names_a_bad_matrix_and_a_bad_right_hand_side():
    with pytest.raises(FloatingPointError, match="matrix"):
        linear.dense(np.array([[np.nan]]), np.ones(1))
    with pytest.raises(FloatingPointError, match="right-hand side"):
        linear.dense(np.ones((1, 1)), np.array([np.inf]))


# Curvature.


@pytest.mark.parametrize("method", ["cg", "neumann", "fixed-point"])
def test_negative_curvature_at_the_first_direction_gives_zero(method):
    matrix = symmetric([1.0, 0.5, -2.0, -2.5])
    b = np.linalg.eigh(matrix)[1][:, 0] + 0.1 * np.linalg.eigh(matrix)[1][:, 3]
    solution = linear.solve(Operator(matrix), b, method)
    check_direction(matrix, solution)
    np.testing.assert_array_equal(solution.value, np.zeros(4))
    assert solution.residual == 1
    assert not solution.converged
    assert solution.direction @ b > 0


def test_negative_curvature_later_gives_the_last_iterate_before_it():
    eigenvalues = np.concatenate([np.linspace(1, 4, 20), [-1e-3]])
    matrix = symmetric(eigenvalues)
    b = matrix @ np.random.default_rng(1).normal(size=21) * 1e3
    solution = cg(Operator(matrix), b)
    check_direction(matrix, solution)
    assert solution.iterations > 1
    assert not solution.converged
    assert "minres" in solution.message
    before = cg(Operator(matrix), b, max_iterations=solution.iterations)
    assert not before.negative_curvature
    np.testing.assert_array_equal(solution.value, before.value)
    # Up to here the model 1/2 v.A v - b.v has only fallen.
    assert solution.value @ matrix @ solution.value / 2 - b @ solution.value < 0


@pytest.mark.parametrize("method", ITERATIVE)
def test_indefinite_operators_never_diverge(method):
    for seed in range(20):
        eigenvalues = np.random.default_rng(seed).normal(size=30)
        matrix = symmetric(eigenvalues, seed)
        b = np.random.default_rng(seed + 100).normal(size=30)
        solution = linear.solve(Operator(matrix), b, method)
        check_direction(matrix, solution)
        assert solution.residual <= 1
        assert solution.residual == pytest.approx(residual(matrix, b, solution.value), rel=1e-6, abs=1e-12)


def test_minres_solves_what_it_flags():
    matrix = symmetric(np.concatenate([np.linspace(1, 9, 15), -np.linspace(1, 9, 15)]))
    b = np.random.default_rng(0).normal(size=30)
    solution = minres(Operator(matrix), b, tolerance=1e-10)
    check_direction(matrix, solution)
    assert solution.converged
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, b), rtol=1e-7)


def test_minres_does_not_flag_a_definite_operator():
    for condition in (1e2, 1e5, 1e8):
        operator, b, _ = system(condition)
        solution = minres(operator, b, tolerance=1e-12, max_iterations=3000)
        assert not solution.negative_curvature
        assert solution.direction is None


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_flat_directions_do_not_send_the_iterate_to_infinity(method):
    matrix = symmetric([3.0, 1.0, 0.5, 0.0])
    flat = np.linalg.eigh(matrix)[1][:, 0]
    b = matrix @ np.array([1.0, -1.0, 2.0, 0.5]) + flat
    solution = linear.solve(Operator(matrix), b, method)
    assert not solution.converged
    # MINRES may meet the flat direction with a curvature just above rounding, and then does not call it negative.
    if method == "cg" or solution.negative_curvature:
        check_direction(matrix, solution, limit=1e-15)
    assert np.linalg.norm(solution.value) < 20


def test_minres_says_that_a_system_has_no_solution():
    matrix = np.diag([2.0, 1.0, 0.0])
    b = np.array([2.0, 1.0, 1.0])
    solution = minres(Operator(matrix), b)
    assert "least-squares" in solution.message
    np.testing.assert_allclose(solution.value[:2], [1.0, 1.0], rtol=1e-10)
    assert solution.residual == pytest.approx(1 / math.sqrt(6))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_systems_without_a_solution_end_at_least_squares(dtype):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 40))
        eigenvalues = 10.0 ** rng.uniform(-3, 0, n) * rng.choice([-1.0, 1.0], n)
        eigenvalues[: rng.integers(1, n)] = 0
        matrix, b = symmetric(eigenvalues, seed).astype(dtype), rng.normal(size=n).astype(dtype)
        least = residual(matrix, b, np.linalg.pinv(matrix.astype(float), rcond=1e-6, hermitian=True) @ b)
        solution = minres(Operator(matrix), b)
        assert not solution.converged
        assert solution.residual <= least + (1e-8 if dtype is np.float64 else 1e-2)
        assert cg(Operator(matrix), b).residual <= 1


def test_singular_with_a_solution_is_solved():
    matrix = symmetric([3.0, 1.0, 0.5, 0.0])
    b = matrix @ np.array([1.0, -1.0, 2.0, 0.5])
    for method in ("cg", "minres"):
        assert linear.solve(Operator(matrix), b, method).converged


# Starts.


@pytest.mark.parametrize("method", ["cg", "minres", "neumann", "fixed-point"])
def test_starting_at_the_solution_takes_one_product(method):
    operator, b, exact = system(100)
    solution = linear.solve(operator, b, method, start=exact)
    assert solution.converged
    assert solution.iterations == 0
    assert solution.products == 1
    np.testing.assert_array_equal(solution.value, exact)


@pytest.mark.parametrize("method", ["cg", "minres", "fixed-point"])
def test_a_good_start_saves_steps(method):
    operator, b, exact = system(30)
    near = exact + 1e-6 * np.random.default_rng(5).normal(size=exact.size)
    cold = linear.solve(operator, b, method)
    warm = linear.solve(operator, b, method, start=near)
    assert warm.converged
    assert warm.iterations < 0.7 * cold.iterations


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_a_bad_start_is_dropped(method):
    operator, b, _ = system(30)
    cold = linear.solve(operator, b, method)
    warm = linear.solve(operator, b, method, start=1e8 * np.ones(60))
    np.testing.assert_array_equal(warm.value, cold.value)
    assert warm.products == cold.products + 1


def test_a_start_that_is_itself_a_direction_of_negative_curvature():
    matrix = np.diag([1.0, 2.0, -1.0])
    b = np.array([1.0, 2.0, 0.0])
    solution = cg(Operator(matrix), b, start=np.array([0.1, 0.0, 50.0]))
    check_direction(matrix, solution)
    np.testing.assert_allclose(solution.value, [1.0, 1.0, 0.0], atol=1e-12)


def test_negative_curvature_at_once_from_a_start_keeps_the_start():
    matrix = np.diag([1.0, -1.0])
    start = np.array([1.0, 0.0])
    solution = cg(Operator(matrix), np.array([1.0, 1e-3]), start=start)
    check_direction(matrix, solution)
    np.testing.assert_array_equal(solution.value, start)
    assert solution.residual < 1e-2


# The ball.


def test_radius_cuts_at_the_boundary():
    operator, b, exact = system(100)
    radius = 0.3 * np.linalg.norm(exact)
    solution = cg(operator, b, radius=radius)
    assert solution.at_radius
    assert not solution.converged
    assert "boundary" in solution.message
    assert np.linalg.norm(solution.value) == pytest.approx(radius, rel=1e-12)
    assert solution.residual == pytest.approx(residual(operator.matrix, b, solution.value), rel=1e-9)

    def model(v):
        return v @ operator.matrix @ v / 2 - b @ v

    # At least as good as the best point along the gradient (Steihaug 1983).
    along = min(model(t * radius * b / np.linalg.norm(b)) for t in np.linspace(0, 1, 200))
    assert model(solution.value) <= along + 1e-12


def test_radius_that_holds_the_solution_changes_nothing():
    operator, b, exact = system(100)
    inside = cg(operator, b, radius=2 * np.linalg.norm(exact))
    assert inside.converged
    assert not inside.at_radius
    np.testing.assert_array_equal(inside.value, cg(operator, b).value)


def test_radius_and_negative_curvature_go_to_the_boundary():
    matrix = np.diag([1.0, -1.0])
    b = np.array([1.0, 2.0])
    solution = cg(Operator(matrix), b, radius=3.0)
    check_direction(matrix, solution)
    assert solution.at_radius
    assert np.linalg.norm(solution.value) == pytest.approx(3.0)
    assert solution.value @ b > 0


def test_radius_zero_and_a_start_outside():
    operator, b, exact = system(10)
    still = cg(operator, b, radius=0.0)
    assert still.at_radius
    np.testing.assert_array_equal(still.value, np.zeros(60))
    with pytest.raises(UsageError, match="outside the ball"):
        cg(operator, b, radius=1e-3, start=exact)


# Limits of precision.


@pytest.mark.parametrize("method", ["cg", "minres", "nystrom"])
@pytest.mark.parametrize("condition", [1e1, 1e4])
def test_float32_stops_where_precision_ends(method, condition):
    operator, b, _ = system(condition)
    small = Operator(operator.matrix.astype(np.float32))
    solution = linear.solve(small, b.astype(np.float32), method, tolerance=1e-12, max_iterations=100_000)
    assert solution.value.dtype == np.float32
    assert not solution.converged
    assert "Stagnated" in solution.message
    assert solution.iterations < 1000
    assert solution.residual < 5e-6


def test_fixed_point_stagnates_in_float32():
    operator, b, _ = system(5)
    small = Operator(operator.matrix.astype(np.float32))
    solution = fixed_point(small, b.astype(np.float32), tolerance=1e-12, max_iterations=100_000)
    assert "Stagnated" in solution.message
    assert solution.iterations < 500
    assert solution.residual < 2e-6


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_inexact_products_are_not_believed(method):
    operator, b, _ = system(100)
    rng = np.random.default_rng(0)

    def product(v):
        exact = operator(v)
        return exact + 1e-5 * np.linalg.norm(exact) * rng.uniform(-1, 1, size=60)

    solution = linear.solve(product, b, method, tolerance=1e-10, max_iterations=5000)
    assert not solution.converged
    assert "Stagnated" in solution.message
    assert solution.iterations < 1000
    assert 1e-6 < solution.residual < 1e-3
    assert solution.residual == pytest.approx(residual(operator.matrix, b, solution.value), rel=0.5)


@pytest.mark.parametrize("size", [1e-30, 1e25])
@pytest.mark.parametrize("method", ["cg", "minres", "nystrom", "fixed-point"])
def test_squares_do_not_leave_the_range_of_float32(method, size):
    matrix = np.diag([1.0, 2.0, 4.0]).astype(np.float32)
    b = (size * np.array([1.0, 2.0, 8.0])).astype(np.float32)
    solution = linear.solve(Operator(matrix), b, method, tolerance=1e-6)
    assert solution.converged
    np.testing.assert_allclose(solution.value / np.float32(size), [1.0, 1.0, 2.0], rtol=1e-5)
