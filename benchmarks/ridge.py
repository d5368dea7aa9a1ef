"""The problem of the hypergradient benchmark: ridge regression with one log-regulariser a feature.

Needs PyTorch and NumPy only, so that it runs in the peers' environments, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

CONDITIONS = {"mild": {"spread": 100.0, "regulariser": -4.0}, "ill": {"spread": 1e4, "regulariser": -9.0}}


class Ridge:
    """min over x of |V w - u|^2 / 2m with w = argmin |T w - t|^2 / 2n + sum_j exp(x_j) w_j^2 / 2; float64."""

    def __init__(self, condition: str, *, rows: int = 500, features: int = 50, seed: int = 0) -> None:
        spread, regulariser = CONDITIONS[condition]["spread"], CONDITIONS[condition]["regulariser"]
        rng = np.random.default_rng(seed)
        basis, _ = np.linalg.qr(rng.standard_normal((features, features)))
        scales = basis * np.logspace(0, -0.5 * math.log10(spread), features) @ basis.T
        truth = np.zeros(features)
        truth[:10] = 2 * rng.standard_normal(10)
        inputs = torch.tensor(rng.standard_normal((2 * rows, features)) @ scales)
        targets = inputs @ torch.tensor(truth) + torch.tensor(rng.standard_normal(2 * rows))
        self.train, self.held_out = (inputs[:rows], targets[:rows]), (inputs[rows:], targets[rows:])
        self.x = torch.full((features,), regulariser, dtype=torch.float64)
        self.zero = torch.zeros(features, dtype=torch.float64)
        self.hessian = self.train[0].T @ self.train[0] / rows + torch.diag(self.x.exp())
        self.y = torch.linalg.solve(self.hessian, self.train[0].T @ self.train[1] / rows)
        slope = self.held_out[0].T @ (self.held_out[0] @ self.y - self.held_out[1]) / rows
        self.exact = -self.x.exp() * self.y * torch.linalg.solve(self.hessian, slope)
        eigenvalues = torch.linalg.eigvalsh(self.hessian)
        self.lipschitz = float(eigenvalues[-1])
        self.condition = float(eigenvalues[-1] / eigenvalues[0])

    def lower(self, x: Any, y: Any) -> Any:
        """The follower's objective, of (x, y)."""
        rest = self.train[0] @ y - self.train[1]
        return 0.5 / len(rest) * (rest * rest).sum() + 0.5 * (x.exp() * y * y).sum()

    def upper(self, x: Any, y: Any) -> Any:
        """The leader's objective, of (x, y)."""
        rest = self.held_out[0] @ y - self.held_out[1]
        return 0.5 / len(rest) * (rest * rest).sum()

    def error(self, value: Any) -> float:
        """Relative error of a hypergradient against the closed form."""
        return float((value.detach().reshape(-1) - self.exact).norm() / self.exact.norm())


def measure(problem: Ridge, call: Callable[[], Any], repeats: int = 5) -> tuple[float, float]:
    """Relative error, and CPU milliseconds of the fastest of some calls after a first one."""
    value = call()
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        value = call()
        best = min(best, time.process_time() - start)
    return problem.error(value), 1e3 * best
