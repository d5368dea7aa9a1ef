"""Descent over smooth pieces: kinks, bounds, and smooth functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bilevel_toll.congestion.pieces import Piece, descend

Quadratic = tuple[float, np.ndarray, np.ndarray]


def largest(models: list[Quadratic]) -> tuple[list[int], Callable[[np.ndarray], Piece]]:
    """The largest of some quadratics c + g x + x H x / 2, and a list to which every evaluation adds its piece."""
    seen: list[int] = []

    def around(x: np.ndarray) -> Piece:
        values = [c + g @ x + 0.5 * x @ h @ x for c, g, h in models]
        k = int(np.argmax(values))
        seen.append(k)
        return Piece(x, float(values[k]), models[k][1] + models[k][2] @ x, models[k][2])

    return seen, around


@pytest.mark.parametrize("seed", range(6))
def test_the_minimum_on_a_kink_against_a_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models: list[Quadratic] = []
    for _ in range(3):
        root = rng.normal(size=(2, 2))
        models.append((float(rng.normal()), 3.0 * rng.normal(size=2), root @ root.T + 0.1 * np.eye(2)))
    seen, around = largest(models)
    found = descend(around, rng.uniform(-2.0, 2.0, 2), np.full(2, -2.0), np.full(2, 2.0))
    axis = np.linspace(-2.0, 2.0, 401)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    grid = min(max(c + g @ p + 0.5 * p @ h @ p for c, g, h in models) for p in points[::7])
    assert found.value <= grid + 1e-9
    assert (np.abs(found.x) <= 2.0).all()
    assert len(seen) <= 40


def test_a_smooth_function_takes_newton_steps_and_keeps_its_bounds() -> None:
    calls = 0

    def around(x: np.ndarray) -> Piece:
        nonlocal calls
        calls += 1
        return Piece(x, float((x**4).sum() - x.sum()), 4.0 * x**3 - 1.0, np.diag(12.0 * x**2))

    upper = np.array([3.0, 0.3])
    found = descend(around, np.array([2.0, 0.1]), np.zeros(2), upper)
    assert found.x == pytest.approx([0.25 ** (1 / 3), 0.3], abs=1e-5)
    assert calls <= 25


def test_a_start_without_a_value_is_returned() -> None:
    start = np.array([1.0])
    found = descend(lambda x: Piece(x, float("inf"), np.zeros(1), np.zeros((1, 1))), start, np.zeros(1), np.ones(1))
    assert found.value == float("inf")
    assert found.x is start
