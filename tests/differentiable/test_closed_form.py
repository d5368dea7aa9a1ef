"""A problem's own formula for the follower's answer: where Newton's method starts, and never more than that."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import bilevel_core as bl
from bilevel_core.lower import respond
from bilevel_core.oracles import make_oracle

GOALS = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
SCALES = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)


def lower(x: Any, y: Any) -> torch.Tensor:
    return 0.5 * (SCALES * (y - x * GOALS) ** 2).sum()


class Known(bl.TorchProblem):
    def __init__(self, factor: float, convex: bool = False) -> None:
        self.factor, self.convex = factor, convex
        one, three = torch.ones(1, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        super().__init__(lambda x, y: ((y - 1.0) ** 2).sum(), lower, one, three)

    @property
    def lower_convex(self) -> bool:
        return self.convex

    def closed_form(self, x: Any) -> Any:
        return self.factor * x * GOALS


@pytest.mark.parametrize(("factor", "steps"), [(1.0, 0), (0.5, 1), (math.nan, 1)])
def test_newton_starts_at_the_formula_and_finds_the_answer(factor: float, steps: int) -> None:
    oracle = make_oracle(Known(factor))
    answer = respond(oracle, np.array([2.0]))
    assert answer.converged
    assert answer.iterations == steps
    np.testing.assert_allclose(answer.y, 2.0 * GOALS, atol=1e-9)


def test_no_negative_curvature_is_looked_for_in_convex_lower_levels() -> None:
    products: list[int] = []
    for convex in (True, False):
        oracle = make_oracle(Known(1.0, convex))
        respond(oracle, np.array([2.0]))
        products.append(oracle.counts["hessian_products"])
    assert products[0] == 0
    assert products[1] > 0


def test_a_run_is_verified_without_the_formula() -> None:
    result = bl.solve(Known(1.0), "hypergradient")
    assert float(result.x["x"][0]) == pytest.approx(2.0 / 14.0, rel=1e-6)  # sum (g x - 1)^2: x = sum g / sum g^2
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
