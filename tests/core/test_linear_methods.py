"""Linear solvers one by one: Richardson, Nystrom, the largest eigenvalue, dense matrices; and wrong usage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bilevel_core import linear
from bilevel_core.errors import UsageError
from bilevel_core.linear import cg, fixed_point, largest_eigenvalue, minres, neumann, nystrom, nystrom_preconditioner

from .operators import Operator, check_direction, residual, symmetric, system

# Richardson.


def test_neumann_is_the_truncated_series():
    operator, b, _ = system(20, n=12)
    step, total, power = 0.7, np.zeros(12), b.copy()
    for _ in range(7):
        total, power = total + step * power, power - step * operator.matrix @ power
    operator.products = 0
    solution = neumann(operator, b, terms=7, step=step)
    np.testing.assert_allclose(solution.value, total, rtol=1e-12)
    assert operator.products == 7
    assert solution.step == step
    half = neumann(operator, b, terms=3, step=step)
    np.testing.assert_allclose(neumann(operator, b, terms=4, step=step, start=half.value).value, total, rtol=1e-12)


@pytest.mark.parametrize("method", ["neumann", "fixed-point"])
def test_step_is_estimated_and_named(method):
    operator, b, _ = system(5)
    operator.matrix = 40 * operator.matrix
    limit = {"terms": 200} if method == "neumann" else {"max_iterations": 200}
    solution = linear.solve(operator, b, method, **limit)
    assert solution.converged
    assert solution.step == pytest.approx(1 / 40, rel=0.05)
    assert f"{solution.step:.4g}" in solution.message


@pytest.mark.parametrize("method", ["neumann", "fixed-point"])
def test_a_step_that_is_too_long_is_noticed(method):
    operator, b, _ = system(5)
    solution = linear.solve(operator, b, method, step=2.5)
    assert not solution.converged
    assert not solution.negative_curvature
    assert "too long" in solution.message
    assert solution.residual <= 1


# Nystrom.


def test_nystrom_of_full_rank_solves_at_once():
    operator, b, exact = system(100, n=20)
    solution = nystrom(operator, b, rank=20, max_iterations=0)
    assert solution.converged
    np.testing.assert_allclose(solution.value, exact, rtol=1e-8)
    assert solution.products == operator.products == 21


def test_nystrom_with_damping_is_the_damped_inverse_and_says_what_it_costs():
    eigenvalues = np.concatenate([[50.0, 20.0, 10.0], np.zeros(37)])
    matrix = symmetric(eigenvalues)
    b = np.random.default_rng(2).normal(size=40)
    solution = nystrom(Operator(matrix), b, rank=3, damping=0.5, max_iterations=0)
    expected = np.linalg.solve(matrix + 0.5 * np.eye(40), b)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-6)
    assert not solution.converged
    assert solution.residual == pytest.approx(residual(matrix, b, expected), rel=1e-6)


def test_nystrom_preconditioner_saves_steps_on_a_falling_spectrum():
    matrix = symmetric(100 * 0.8 ** np.arange(200) + 1e-2)
    b = np.random.default_rng(0).normal(size=200)
    operator = Operator(matrix)
    preconditioner = nystrom_preconditioner(operator, b, rank=50)
    assert operator.products == 50
    plain = cg(operator, b, tolerance=1e-10)
    for ours in (cg, minres):
        helped = ours(operator, b, tolerance=1e-10, preconditioner=preconditioner)
        assert helped.converged
        assert helped.iterations < plain.iterations / 3


def test_nystrom_reports_negative_curvature_of_its_sample():
    matrix = symmetric(-np.linspace(1, 2, 10))
    solution = nystrom(Operator(matrix), np.ones(10), rank=4)
    check_direction(matrix, solution)
    assert not solution.converged
    assert "Sampling" in solution.message


@pytest.mark.parametrize("method", ["nystrom", "neumann", "fixed-point"])
def test_the_same_seed_gives_the_same_bits(method):
    operator, b, _ = system(1e3)
    one, two = (linear.solve(operator, b, method, seed=7) for _ in range(2))
    other = linear.solve(operator, b, method, seed=8)
    np.testing.assert_array_equal(one.value, two.value)
    assert not np.array_equal(one.value, other.value)


def test_a_preconditioner_that_is_not_positive_definite_is_named():
    operator, b, _ = system(10)
    for ours in (cg, minres):
        with pytest.raises(UsageError, match="preconditioner"):
            ours(operator, b, preconditioner=lambda r: -r)


# Spectrum.


@pytest.mark.parametrize("eigenvalues", [np.linspace(0.1, 7, 50), -np.linspace(0.1, 7, 50), [7.0], np.zeros(4)])
def test_largest_eigenvalue(eigenvalues):
    estimate = largest_eigenvalue(Operator(symmetric(eigenvalues)), np.zeros(len(eigenvalues)))
    truth = np.abs(eigenvalues).max()
    assert 0.97 * truth <= estimate <= truth * (1 + 1e-12)


# Dense.


@pytest.mark.parametrize("condition", [1e1, 1e8, 1e12])
def test_dense_is_backward_stable(condition):
    operator, b, exact = system(condition, n=40)
    solution = linear.dense(operator.matrix, b)
    assert solution.converged
    assert not solution.negative_curvature
    assert residual(operator.matrix, b, solution.value) < 1e-12
    assert np.linalg.norm(solution.value - exact) / np.linalg.norm(exact) < 100 * condition * np.finfo(float).eps


def test_dense_indefinite():
    matrix = symmetric([3.0, 1.0, -0.5, -2.0])
    b = np.array([1.0, 2.0, 3.0, 4.0])
    solution = linear.dense(matrix, b)
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, b), rtol=1e-12)
    check_direction(matrix, solution)
    assert solution.converged
    assert "2 negative eigenvalues" in solution.message


def test_dense_singular():
    matrix = symmetric([3.0, 1.0, 0.0, 0.0])
    b = np.array([1.0, 2.0, 3.0, 4.0])
    solution = linear.dense(matrix, b)
    np.testing.assert_allclose(solution.value, np.linalg.pinv(matrix, hermitian=True) @ b, rtol=1e-10)
    assert not solution.converged
    assert "rank 2 of 4" in solution.message
    check_direction(matrix, solution, limit=1e-14)


def test_dense_refuses_what_is_no_hessian():
    with pytest.raises(UsageError, match="not symmetric"):
        linear.dense(np.array([[1.0, 1.0], [0.0, 1.0]]), np.ones(2))
    with pytest.raises(UsageError, match="square"):
        linear.dense(np.ones((2, 3)), np.ones(2))


# Usage.


def test_unknown_names_get_the_nearest():
    with pytest.raises(UsageError, match="'minres'"):
        linear.solve(lambda v: v, np.ones(2), "minre")
    with pytest.raises(UsageError, match="'tolerance'"):
        linear.solve(lambda v: v, np.ones(2), "cg", tolerence=1e-3)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: cg(a, b, tolerance=-1.0),
        lambda a, b: minres(a, b, max_iterations=-1),
        lambda a, b: cg(a, b, radius=math.nan),
        lambda a, b: fixed_point(a, b, step=0.0),
        lambda a, b: nystrom(a, b, rank=0),
        lambda a, b: nystrom(a, b, damping=-1.0),
        lambda a, b: cg(a, b, start=np.ones(3)),
        lambda a, b: cg(a, b, start=np.array([np.nan, 1.0])),
        lambda a, b: cg(lambda v: np.ones(3), b),
    ],
)
def test_options_out_of_range_are_refused(call):
    with pytest.raises(UsageError):
        call(lambda v: 2 * v, np.ones(2))


def test_an_empty_system():
    for method in linear.METHODS:
        assert linear.solve(lambda v: v, np.zeros(0), method).converged
    assert linear.dense(np.zeros((0, 0)), np.zeros(0)).converged
