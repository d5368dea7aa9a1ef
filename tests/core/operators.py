"""Symmetric operators for the tests of linear solvers."""

from __future__ import annotations

import math

import numpy as np
import pytest


class Operator:
    """A matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.products = 0

    def __call__(self, v):
        self.products += 1
        return self.matrix @ v


def symmetric(eigenvalues, seed=0):
    n = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    matrix = basis * np.asarray(eigenvalues) @ basis.T
    return (matrix + matrix.T) / 2


def system(condition, n=60, seed=0):
    matrix = symmetric(np.logspace(0, -math.log10(condition), n), seed)
    exact = np.random.default_rng(seed + 1).normal(size=n)
    return Operator(matrix), matrix @ exact, exact


def residual(matrix, b, v):
    return np.linalg.norm(b - matrix @ v) / np.linalg.norm(b)


def check_direction(matrix, solution, limit=0.0):
    assert solution.negative_curvature
    assert np.linalg.norm(solution.direction) == pytest.approx(1)
    assert solution.direction @ matrix @ solution.direction <= limit
