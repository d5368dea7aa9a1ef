"""The limited-memory model and its minimisation within bounds, against a general solver on random boxes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from bilevel_core.solvers.limited_memory import Memory

CASES = range(60)


def drawn(seed: int) -> tuple[Memory, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a random quadratic, and a gradient at a point of a box, often at its boundary."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    a = rng.normal(size=(n, n))
    hessian = a @ a.T + 0.1 * np.eye(n)
    memory = Memory.empty(n)
    for _ in range(int(rng.integers(1, 6))):
        step = rng.normal(size=n)
        memory = memory.updated(step, hessian @ step, 20)
    lower, upper = -rng.random(n), rng.random(n)
    x = np.clip(rng.normal(size=n), lower, upper)
    return memory, x, rng.normal(size=n), lower, upper


@pytest.mark.parametrize("seed", CASES)
def test_a_step_stays_within_bounds_and_minimises_the_model(seed: int) -> None:
    memory, x, gradient, lower, upper = drawn(seed)
    step = memory.direction(x, gradient, lower, upper)
    assert np.all(x + step >= lower - 1e-12)
    assert np.all(x + step <= upper + 1e-12)
    matrix = memory.matrix(1.0)

    def model(d: np.ndarray) -> float:
        return float(gradient @ d + 0.5 * d @ matrix @ d)

    best = minimize(
        lambda z: model(z - x),
        x,
        jac=lambda z: gradient + matrix @ (z - x),
        bounds=list(zip(lower, upper, strict=True)),
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    assert model(step) <= best.fun + 0.01 * abs(best.fun) + 1e-12


@pytest.mark.parametrize("seed", CASES)
def test_without_bounds_it_is_the_newton_step_of_the_model(seed: int) -> None:
    memory, x, gradient, _, _ = drawn(seed)
    free = np.full(x.size, np.inf)
    expected = -np.linalg.solve(memory.matrix(1.0), gradient)
    assert memory.direction(x, gradient, -free, free) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_without_pairs_it_is_the_gradient_cut_at_the_bounds() -> None:
    memory = Memory.empty(2)
    step = memory.direction(np.zeros(2), np.array([3.0, -4.0]), np.array([-0.1, -9.0]), np.array([9.0, 9.0]))
    assert step == pytest.approx([-0.1, 0.8])


def test_a_pair_without_positive_curvature_is_not_kept() -> None:
    assert len(Memory.empty(2).updated(np.array([1.0, 0.0]), np.array([-1.0, 3.0]), 5).steps) == 0
