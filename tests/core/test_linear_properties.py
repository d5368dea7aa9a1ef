"""Linear solvers on random operators, of arrays and of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevel_core import linear

torch = pytest.importorskip("torch")

KINDS = {
    "numpy": np.asarray,
    "float64": lambda a: torch.tensor(a, dtype=torch.float64),
    "float32": lambda a: torch.tensor(a, dtype=torch.float32),
}


@st.composite
def systems(draw, definite):
    n = draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10.0 ** draw(st.integers(-6, 6))
    eigenvalues = size * 10.0 ** rng.uniform(-draw(st.floats(0, 4)), 0, size=n)
    if not definite:
        eigenvalues *= rng.choice([-1.0, 1.0], size=n)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix = basis * eigenvalues @ basis.T
    return (matrix + matrix.T) / 2, rng.normal(size=n) * 10.0 ** draw(st.integers(-6, 6))


def solve(kind, matrix, b, method, **options):
    a = KINDS[kind](matrix)
    solution = linear.solve(lambda v: a @ v, KINDS[kind](b), method, **options)
    if kind == "numpy":
        assert isinstance(solution.value, np.ndarray)
        return solution, solution.value
    assert solution.value.dtype == a.dtype
    return solution, solution.value.double().numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["cg", "minres", "nystrom"])
@given(case=systems(definite=True))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_positive_definite(kind, method, case):
    matrix, b = case
    tolerance = 1e-9 if kind != "float32" else 1e-4
    solution, value = solve(kind, matrix, b, method, tolerance=tolerance, max_iterations=2000)
    true = np.linalg.norm(b - matrix @ value) / np.linalg.norm(b)
    # What rounding of the matrix, of v and of the product can do.
    epsilon = 1.2e-7 if kind == "float32" else 2.2e-16
    rounding = 10 * epsilon * (1 + np.linalg.norm(matrix, 2) * np.linalg.norm(value) / np.linalg.norm(b))
    assert true <= tolerance + rounding
    assert abs(true - solution.residual) <= rounding
    assert solution.converged or rounding > tolerance
    assert not solution.negative_curvature


@pytest.mark.parametrize("kind", ["numpy", "float64"])
@given(case=systems(definite=False))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_minres_on_indefinite(kind, case):
    matrix, b = case
    solution, value = solve(kind, matrix, b, "minres", tolerance=1e-8, max_iterations=2000)
    assert solution.converged
    assert np.linalg.norm(b - matrix @ value) <= 1.01e-8 * np.linalg.norm(b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", sorted(linear.METHODS))
@given(case=systems(definite=False))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_what_is_reported_holds(kind, method, case):
    matrix, b = case
    a, right = KINDS[kind](matrix), KINDS[kind](b)
    solution = linear.solve(lambda v: a @ v, right, method)
    noise = 1e-4 if kind == "float32" else 1e-12
    scale = np.abs(matrix).max()
    again = linear.norm(right - a @ solution.value) / linear.norm(right)
    assert abs(again - solution.residual) <= 1e-6 * solution.residual + 10 * noise
    assert solution.converged == (solution.residual <= 1e-8)
    assert bool(solution.message) or solution.converged
    assert solution.residual <= 1 + noise or not solution.negative_curvature
    assert solution.negative_curvature == (solution.direction is not None)
    if solution.direction is not None:
        p = np.asarray(solution.direction, float)
        assert np.linalg.eigvalsh(matrix)[0] <= noise * scale
        assert p @ matrix @ p <= noise * scale


@given(case=systems(definite=False))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_minres_reaches_what_scipy_reaches(case):
    matrix, b = case
    ours = linear.minres(lambda v: matrix @ v, b, tolerance=1e-10, max_iterations=500)
    theirs, _ = reference.minres(matrix, b, rtol=1e-10, maxiter=500)
    assert ours.residual <= max(1e-10, 2 * np.linalg.norm(b - matrix @ theirs) / np.linalg.norm(b))


@given(case=systems(definite=True), length=st.floats(0.01, 2.0))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_ball_holds_and_the_model_falls(case, length):
    matrix, b = case
    radius = length * float(np.linalg.norm(np.linalg.solve(matrix, b)))
    solution = linear.cg(lambda v: matrix @ v, b, radius=radius, max_iterations=500)
    v = solution.value
    assert np.linalg.norm(v) <= radius * (1 + 1e-9)
    assert solution.at_radius or solution.converged
    step = b * min(radius / np.linalg.norm(b), b @ b / (b @ matrix @ b))
    at_cauchy = step @ matrix @ step / 2 - b @ step
    assert v @ matrix @ v / 2 - b @ v <= at_cauchy * (1 - 1e-9)


def test_tensors_and_arrays_take_the_same_way():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(30, 30))
    matrix, b = factor @ factor.T + np.eye(30), rng.normal(size=30)
    for method in linear.METHODS:
        one, value = solve("numpy", matrix, b, method)
        two, other = solve("float64", matrix, b, method)
        np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-9)
        assert abs(one.iterations - two.iterations) <= 2


def test_products_that_carry_a_graph_leave_none_behind():
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    for method in linear.METHODS:
        solution = linear.solve(lambda v: weight * v, torch.ones(2, dtype=torch.float64), method, tolerance=1e-6)
        assert not solution.value.requires_grad
        torch.testing.assert_close(solution.value, 1 / weight.detach(), rtol=1e-4, atol=1e-6)
